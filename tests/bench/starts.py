"""How soon a second start takes requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench import seed
from tests.bench.effort import Effort
from tests.bench.processes import running_plane
from tests.bench.report import Line, spread

READY_S = 5.0


def measure(effort: Effort, folder: Path) -> Iterator[Line]:
    """From the command to both servers' readiness with every store answering, in a home that has run before."""
    home = folder / "starts"
    seed.make_home(home, effort.few_users)
    seconds = []
    for _ in range(min(effort.pairs, 5) + 1):
        with running_plane(seed.environment(home), folder / "starts.log") as plane:
            seconds.append(plane.server.ready_after_s)
    again = seconds[1:]
    yield Line(
        "second start, until both servers are ready",
        spread(again, 2, " s"),
        f"< {READY_S:.0f} s",
        max(again) < READY_S,
        figures={"seconds": again},
    )
