"""The audit trail: changes written by several processes while one chain is sealed, and pages out of many events.

As a program (``python -m tests.bench.trail``) it measures pages out of the full number of events, on either database.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from common.core.audit_chain import uid_of
from common.core.audit_tags import EventTag
from common.services import audit_check, audit_sealing
from common.services.opening import open_plane
from common.settings import load as load_settings
from common.worker.loop import close_stores
from tests.backends.mariadb import running_mariadb
from tests.backends.stores import SETS
from tests.bench import load, report, seed
from tests.bench.effort import Effort
from tests.bench.processes import StartFailed, get, running_plane
from tests.bench.report import Line, p95
from tests.soak.queue import environment_on
from tests.soak.trail import hire

AUDIT = "/api/v1/admin/audit"
PAGE = 50
PAGE_P95_MS = 20.0
WRITERS = 4
WRITES_PER_S = 500.0
SEALED_WITHIN_S = 5.0
FULL = 1_000_000
_ACTORS, _TARGETS = 97, 20_011
_TAGS = tuple(tag.value for tag in EventTag)[:41]
_FIRST_MS = 1_780_000_000_000
_AT_ONCE = 400
_IN_A_TRANSACTION = 20_000


def measure_writes(effort: Effort, folder: Path) -> Iterator[Line]:
    """Audited changes on SQLite, and on a MariaDB of its own."""
    yield _writes_line("SQLite", effort, folder / "trail-sqlite", None)
    with running_mariadb(folder / "trail-mariadb") as server:
        name = f"MariaDB {server.version().partition('-')[0]}"
        yield _writes_line(name, effort, folder / "trail-writes", server.url(server.make_schema()))


def _writes_line(name: str, effort: Effort, folder: Path, url: str | None) -> Line:
    folder.mkdir()
    environment = environment_on(folder / "home", url)
    plane = open_plane(load_settings(environment))
    crew = hire(plane, environment, folder, writers=WRITERS, sealers=2, sealing="take-turns")
    _wait_until(lambda: all(crew.acknowledged(f"writer{number}").exists() for number in range(WRITERS)))
    before, began, oldest_s = _events(plane), time.monotonic(), 0.0
    while time.monotonic() < began + effort.written_s:
        oldest_s = max(oldest_s, _oldest_unsealed_s(plane))
        time.sleep(0.1)
    per_s = (_events(plane) - before) / (time.monotonic() - began)
    crew.stop()
    audit_sealing.seal_all(plane)
    verdict = audit_check.verify(plane)
    close_stores(plane)
    return Line(
        f"{name}: audited changes by {WRITERS} processes, with two sealers",
        f"{per_s:.0f} a second; sealed within {oldest_s:.1f} s; {verdict.sealed:,} in one chain"
        + (f"; NOT WHOLE: {verdict.problem.text}" if verdict.problem else ""),
        f"≥ {WRITES_PER_S:.0f} a second, sealed within {SEALED_WITHIN_S:.0f} s, whole",
        per_s >= WRITES_PER_S and oldest_s <= SEALED_WITHIN_S and verdict.is_whole,
        figures={"per_s": per_s, "oldest_s": oldest_s, "sealed": verdict.sealed},
    )


def _wait_until(true: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            raise StartFailed("the writers did not start")
        time.sleep(0.02)


def _events(plane: Any) -> int:
    (count,) = plane.database.one("SELECT COUNT(*) FROM rk_audit_event")
    return int(count)


def _oldest_unsealed_s(plane: Any) -> float:
    (at,) = plane.database.one("SELECT MIN(e.at) FROM rk_audit_unsealed w JOIN rk_audit_event e ON e.uid = w.uid")
    return 0.0 if at is None else max(0.0, (plane.now_ms() - at) / 1000)


def measure_pages(effort: Effort, folder: Path) -> Iterator[Line]:
    """Pages under each kind of filter, out of few enough events for a usual run."""
    yield from _pages(effort.events, effort.pages * 4, folder / "trail-pages")


def _pages(events: int, count: int, home: Path, **given: str) -> Iterator[Line]:
    seed.make_home(home, 10, **given)
    fill(load_settings(seed.environment(home, **given)), events)
    with running_plane(seed.environment(home, **given), home.with_suffix(".log")) as plane:
        plane.sign_in(seed.ADMIN_EMAIL, seed.ADMIN_PASSWORD)
        for name, queries in _filters(events).items():
            paths = [f"{AUDIT}?{urlencode({'limit': PAGE, **query})}" for query in queries]
            for path in paths:
                if get(plane.admin_port, path, plane.admin_headers)[0] != 200:
                    raise StartFailed(f"GET {path} failed")
            heard = load.ask(plane.admin_port, paths, count=count, headers=plane.admin_headers)
            waits = [wait for of_path in heard.waits_ms for wait in of_path]
            yield Line(
                f"page of {PAGE} audit events of {events:,} by {name}",
                f"p95 {p95(waits):.1f} ms",
                f"p95 ≤ {PAGE_P95_MS:.0f} ms",
                p95(waits) <= PAGE_P95_MS,
                figures={"waits_ms": heard.waits_ms},
            )


def fill(settings: Any, events: int) -> None:
    """Write so many events of known actors, tags and targets, a second apart, into the plane's own tables."""
    plane = open_plane(settings)
    names = [(_actor(number), "a") for number in range(_ACTORS)]
    names += [(_target(number), "t") for number in range(min(events, _TARGETS))]
    with plane.database.transaction():
        _insert(plane.database, "rk_audit_name", ({"name": name, "part": part} for name, part in sorted(names)))
    for start in range(0, events, _IN_A_TRANSACTION):
        with plane.database.transaction():
            numbers = range(start, min(start + _IN_A_TRANSACTION, events))
            _insert(plane.database, "rk_audit_event", map(_event, numbers))
    close_stores(plane)


def _insert(database: Any, table: str, rows: Iterator[dict[str, Any]]) -> None:
    while some := list(islice(rows, _AT_ONCE)):
        marks = f"({', '.join('?' * len(some[0]))})"
        columns = ", ".join(f"`{name}`" for name in some[0])
        values = [value for row in some for value in row.values()]
        database.run(f"INSERT INTO {table} ({columns}) VALUES {', '.join([marks] * len(some))}", values)


def _actor(number: int) -> str:
    return f"admin{number % _ACTORS:02d}@bench.test"


def _target(number: int) -> str:
    return f"user{number * 31 % _TARGETS:05d}@bench.test"


def _at_ms(number: int) -> int:
    return _FIRST_MS + number * 1000


def _event(number: int) -> dict[str, Any]:
    return {
        "uid": uid_of(_at_ms(number), 0, f"{number:012x}"),
        "at": _at_ms(number),
        "tag": _TAGS[number % len(_TAGS)],
        "result": "ok",
        "actor_id": seed.id_of(number % _ACTORS),
        "actor_email": _actor(number),
        "actor_roles": "superuser",
        "credential": f"session:{number % _ACTORS:032x}",
        "address": "192.0.2.1",
        "agent": "bench",
        "request_id": f"{number:024x}",
        "target_kind": "user",
        "target": _target(number),
        "before": '{"is_active":true}',
        "after": '{"is_active":false}',
        "actor_key": _actor(number),
        "target_key": _target(number),
        "key_id": "0" * 16,
        "mac": "0" * 64,
    }


def _filters(events: int) -> dict[str, list[dict[str, str]]]:
    """The queries of each kind, each with values from several places of the trail."""
    places = [int(events * share) for share in (0.05, 0.35, 0.65, 0.95)]
    exact: dict[str, Any] = {
        "actor": _actor,
        "tag": lambda number: _TAGS[number % len(_TAGS)],
        "target": _target,
        "from": lambda number: _moment(number - events // 50),
        "to": _moment,
    }
    kinds = (
        *((), ("actor",), ("tag",), ("target",), ("actor", "tag"), ("actor", "target"), ("tag", "target")),
        *(("actor", "tag", "target"), ("from", "to"), ("actor", "from", "to"), ("tag", "target", "to")),
    )
    found = {
        " and ".join(kind) or "nothing": [{name: exact[name](number) for name in kind} for number in places]
        for kind in kinds
    }
    for name, length in (("a whole name", 9), ("names by the ten", 8), ("names by the thousand", 6), ("every name", 4)):
        prefixes = [_target(number)[:length] for number in places]
        found[f"q of {name}"] = [{"q": prefix} for prefix in prefixes]
        found[f"q of {name} and tag"] = [{"q": prefix, "tag": _TAGS[7]} for prefix in prefixes]
        found[f"q of {name}, from and to"] = [
            {"q": prefix, "from": _moment(number - events // 50), "to": _moment(number)}
            for prefix, number in zip(prefixes, places, strict=True)
        ]
    found["q of nobody"] = [{"q": "zzz"}]
    return found


def _moment(number: int) -> str:
    at = time.gmtime(_at_ms(max(number, 0)) / 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", at)


@contextmanager
def _metadata(stores: str, folder: Path) -> Iterator[dict[str, str]]:
    if stores == "embedded":
        yield {}
        return
    # Room for the indexes, as a server for a million events has.
    with running_mariadb(folder / "mariadb", innodb_buffer_pool_size="512M", innodb_log_file_size="128M") as server:
        yield {"RAGKEEPER_DB_URL": server.url(server.make_schema())}


def main() -> int:
    """Measure pages out of the full number of events; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.trail", description=__doc__)
    parser.add_argument("--events", type=int, default=FULL)
    parser.add_argument("--stores", choices=SETS, default=SETS[0], help="servers: a MariaDB of the run's own")
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench-trail"), help="folder for bench.md and bench.json"
    )
    given = parser.parse_args()
    facts, lines = report.machine(), []
    with (
        tempfile.TemporaryDirectory(prefix="ragkeeper-bench-") as folder,
        _metadata(given.stores, Path(folder)) as settings,
    ):
        for line in _pages(given.events, 200, Path(folder) / "pages", **settings):
            named = replace(line, case=f"{given.stores}: {line.case}")
            sys.stderr.write(f"{named.case}: {named.measured}\n")
            lines.append(named)
    report.write(given.out, facts, lines)
    sys.stdout.write(f"{report.table(facts, lines)}\n")
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
