"""What it costs a request to be counted by the limits of its token and of its tenant, in the bench's own process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from common.services import limits, opening
from common.services.principal import Principal
from common.settings import load
from tests.backends.redis import running_redis
from tests.bench import seed
from tests.bench.effort import Effort
from tests.bench.report import Line, spread

#: Calls that a token and a tenant may make in a minute.
MOST = 10_000
TARGET_US = 30.0


def measure(effort: Effort, folder: Path) -> Iterator[Line]:
    """A line for counts in the embedded cache, and one for counts in a Redis of its own."""
    yield _line("the embedded cache", effort, folder / "limits")
    with running_redis(folder / "redis") as server:
        yield _line("Redis", effort, folder / "limits-redis", RAGKEEPER_REDIS_URL=server.url())


def _line(cache: str, effort: Effort, home: Path, **given: str) -> Line:
    seed.make_home(home, 1, **given)
    plane = opening.open_plane(load(seed.environment(home, **given)))
    try:
        with plane.database.transaction():
            for name in ("limit.token_calls", "limit.tenant_calls"):
                plane.database.run(
                    "INSERT INTO rk_variable (name, value, updated_at, by_superuser) VALUES (?, ?, 0, ?)",
                    (name, str(MOST), False),
                )
            plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
        plane.variables.forget()
        each = []
        for number in range(effort.pairs):
            who = Principal(seed.id_of(0), "", credential=f"token:{number}", tenant_id=f"{number:032x}")
            began = time.perf_counter()
            for _ in range(effort.reads):
                limits.api_call(plane, who)
            each.append((time.perf_counter() - began) / effort.reads * 1e6)
    finally:
        for store in (plane.database, plane.cache, plane.documents):
            store.close()
    return Line(
        f"a call counted for its token and its tenant, {MOST:,} a minute, in {cache}",
        f"{spread(each, 1)} µs",
        f"≤ {TARGET_US:.0f} µs",
        statistics.median(each) <= TARGET_US,
        figures={"us": each},
    )
