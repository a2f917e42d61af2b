"""How many health checks a second are answered, all stores being well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench import load, seed
from tests.bench.effort import Effort
from tests.bench.processes import running_plane
from tests.bench.report import Line, p95, spread

CONNECTIONS = 8
PATH = "/v1/system/healthz"
#: What RAGFlow's own healthz reaches on two such cores, in requests per second.
RAGFLOW_PER_S = 311
TARGET_PER_S = 10 * RAGFLOW_PER_S


def measure(effort: Effort, folder: Path) -> Iterator[Line]:
    """One client over kept connections, which shares the machine with the servers."""
    home = folder / "health"
    seed.make_home(home, effort.few_users)
    per_s, waits_ms = [], []
    with running_plane(seed.environment(home), folder / "health.log") as plane:
        load.ask(plane.api_port, [PATH], count=effort.reads, connections=CONNECTIONS)
        for _ in range(effort.pairs):
            heard = load.ask(plane.api_port, [PATH], count=2 * effort.reads, connections=CONNECTIONS)
            per_s.append(heard.requests_per_s)
            waits_ms.append(p95(heard.waits_ms[0]))
    middle = sorted(per_s)[len(per_s) // 2]
    yield Line(
        f"GET {PATH}, all well",
        f"{spread(per_s, 0)} /s, p95 {spread(waits_ms, 1)} ms",
        f"≥ {TARGET_PER_S} /s",
        middle >= TARGET_PER_S,
        figures={"per_s": per_s, "p95_ms": waits_ms},
    )
