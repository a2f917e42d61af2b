"""Authenticated reads: CPU per request beside that of the reference, each run of one next to a run of the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from tests.backends.mariadb import running_mariadb
from tests.bench import load, raw_app, seed
from tests.bench.effort import Effort
from tests.bench.processes import Plane, cpu_s, post, running_plane, running_raw_app
from tests.bench.report import Line, spread

CONNECTIONS = 8
TARGET = 1.8
MEMORY_TARGET_MB = 300
REFERENCE = ("--worker-class", "sync", "--workers", "2")
# The reference app behind the worker type of the product: what of the ratio is gunicorn's and not ours.
SAME_WORKERS = ("--worker-class", "common.http.server_worker.PlaneWorker", "--workers", "2")


@dataclass
class Subject:
    """Something to read, and what each run of it cost."""

    name: str
    port: int
    path: str
    headers: dict[str, str]
    processes: list[psutil.Process]
    cpu_us: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)

    def run(self, count: int) -> float:
        """Read it so many times; returns the servers' CPU per request, in microseconds."""
        before = cpu_s(self.processes)
        heard = load.ask(self.port, [self.path], count=count, connections=CONNECTIONS, headers=self.headers)
        spent_us = (cpu_s(self.processes) - before) / count * 1e6
        self.per_s.append(heard.requests_per_s)
        self.cpu_us.append(spent_us)
        return spent_us

    def warm_up(self, count: int) -> None:
        """Read it without keeping the score."""
        load.ask(self.port, [self.path], count=count, connections=CONNECTIONS, headers=self.headers)


def measure(effort: Effort, folder: Path) -> Iterator[Line]:
    """Lines for the reference, each read, and the memory of all processes after them."""
    yield from _measured(effort, folder / "reads", TARGET)


def measure_on_mariadb(effort: Effort, folder: Path) -> Iterator[Line]:
    """The same reads with the metadata on a MariaDB of its own, whose CPU is not counted; without a target."""
    with running_mariadb(folder / "mariadb") as server:
        url = server.url(server.make_schema())
        for line in _measured(effort, folder / "reads-mariadb", None, RAGKEEPER_DB_URL=url):
            yield replace(line, case=f"MariaDB {server.version().partition('-')[0]}: {line.case}")


def _measured(effort: Effort, home: Path, target: float | None, **given: str) -> Iterator[Line]:
    seed.make_home(home, effort.few_users, **given)
    log = home.with_suffix(".log")
    with (
        running_raw_app(REFERENCE, log) as (raw, raw_port),
        running_raw_app(SAME_WORKERS, log, "bridged()") as (same, same_port),
        running_plane(seed.environment(home, **given), log) as plane,
    ):
        plane.sign_in(seed.ADMIN_EMAIL, seed.ADMIN_PASSWORD)
        for _ in range(3):
            post(plane.api_port, "/api/v1/system/tokens", {}, plane.user_headers)
        known = {"Authorization": f"Bearer {raw_app.TOKEN}"}
        reference = Subject("R0", raw_port, raw_app.PATH, known, raw.listening_on(raw_port))
        subjects = [
            Subject("R0's app under this plane's worker", same_port, raw_app.PATH, known, same.listening_on(same_port)),
            *_own_reads(plane),
        ]
        for subject in (reference, *subjects):
            subject.warm_up(max(effort.reads // 10, CONNECTIONS))
        ratios = [_in_pairs(reference, subject, effort) for subject in subjects]
        yield _reference_line(reference)
        for subject, of_pairs in zip(subjects, ratios, strict=True):
            yield _line(subject, of_pairs, None if subject.port == same_port else target)
        if target is not None:
            yield memory_line("memory of all processes after the reads", plane)


def _own_reads(plane: Plane) -> list[Subject]:
    api, admin = (plane.server.listening_on(port) for port in (plane.api_port, plane.admin_port))
    user = f"/api/v1/admin/users/{seed.email_of(7)}"
    return [
        Subject("GET /v1/system/version", plane.api_port, "/v1/system/version", plane.user_headers, api),
        Subject("GET /api/v1/admin/users/{email}", plane.admin_port, user, plane.admin_headers, admin),
        Subject("GET /api/v1/system/tokens", plane.api_port, "/api/v1/system/tokens", plane.user_headers, api),
    ]


def _in_pairs(reference: Subject, subject: Subject, effort: Effort) -> list[float]:
    ratios = []
    for _ in range(effort.pairs):
        beside = reference.run(effort.reads)
        # A clock tick of 10 ms is the least that /proc shows; only a run of a few requests takes less.
        ratios.append(subject.run(effort.reads) / max(beside, 1e4 / effort.reads))
    return ratios


def _reference_line(reference: Subject) -> Line:
    return Line(
        "R0: raw WSGI app, gunicorn sync, 2 workers",
        f"{spread(reference.cpu_us, 0)} µs CPU, {spread(reference.per_s, 0)} /s",
        figures={"cpu_us": reference.cpu_us, "per_s": reference.per_s},
    )


def _line(subject: Subject, ratios: list[float], target: float | None) -> Line:
    middle = sorted(ratios)[len(ratios) // 2]
    return Line(
        subject.name,
        f"{spread(ratios, 2)} x R0, {spread(subject.cpu_us, 0)} µs CPU, {spread(subject.per_s, 0)} /s",
        f"≤ {target} x R0" if target else "",
        middle <= target if target else None,
        figures={"ratios": ratios, "cpu_us": subject.cpu_us, "per_s": subject.per_s},
    )


def memory_line(case: str, plane: Plane) -> Line:
    """What all processes of a plane hold now, beside the target."""
    megabytes = plane.server.memory_bytes() / 1e6
    return Line(
        case,
        f"{megabytes:.0f} MB PSS in {len(plane.server.everything())} processes",
        f"≤ {MEMORY_TARGET_MB} MB",
        megabytes <= MEMORY_TARGET_MB,
        figures={"pss_mb": megabytes},
    )
