"""What roles cost a request: with few and many of them, at the end of a long chain, and when one has just changed."""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common.core.permissions import MAX_DEPTH, RoleGraph
from common.services import accounts, opening, passwords, roles
from common.services.assignments import add_user_roles
from common.services.plane import load_graph
from common.services.principal import Principal, system
from common.settings import load
from tests.bench import seed
from tests.bench.effort import Effort
from tests.bench.processes import Plane, running_plane
from tests.bench.reads import Subject
from tests.bench.report import Line, spread

PATH = "/v1/system/version"
BAND = 0.10
CHECK_US = 2.0
# Roles that one person holds, to see what each costs.
MANY_HELD = 100
PASSWORD = seed.ADMIN_PASSWORD
SHELL = system("bench")
_AT_ONCE = 500


def measure(effort: Effort, folder: Path) -> Iterator[Line]:
    """A line for each number of roles, beside the least one, and lines for a check and for a change."""
    sizes = (1, 100, effort.many_roles)
    homes = [folder / f"{size}-roles" for size in sizes]
    for home, size in zip(homes, sizes, strict=True):
        _make(home, size, with_chain=size == sizes[-1])
    log = folder / "roles.log"
    with ExitStack() as stack:
        planes = [stack.enter_context(running_plane(seed.environment(home), log)) for home in homes]
        subjects = [
            _subject(f"{size:,} role{'s' if size > 1 else ''}", plane, "one")
            for size, plane in zip(sizes, planes, strict=True)
        ]
        subjects.append(_subject(f"a chain {MAX_DEPTH} deep among {sizes[-1]:,} roles", planes[-1], "chain"))
        subjects.append(_subject(f"{MANY_HELD} roles of {sizes[-1]:,} held at once", planes[-1], "many"))
        for subject in subjects:
            subject.warm_up(max(effort.reads // 10, 8))
        first, *others = subjects
        ratios: list[list[float]] = [[] for _ in others]
        for _ in range(effort.pairs):
            for subject, of_subject in zip(others, ratios, strict=True):
                beside = first.run(effort.reads)
                of_subject.append(subject.run(effort.reads) / max(beside, 1e4 / effort.reads))
        yield Line(f"GET {PATH}, {first.name}", f"{spread(first.cpu_us, 0)} µs CPU", figures={"cpu_us": first.cpu_us})
        for subject, of_subject in zip(others, ratios, strict=True):
            yield _line(subject, of_subject, held_at_once=subject is subjects[-1])
    yield from _in_this_process(homes[-1], sizes[-1])


def _line(subject: Subject, ratios: list[float], *, held_at_once: bool) -> Line:
    middle = statistics.median(ratios)
    return Line(
        f"GET {PATH}, {subject.name}",
        f"{spread(ratios, 2)} x that with one role, {spread(subject.cpu_us, 0)} µs CPU",
        "" if held_at_once else f"within ±{BAND:.0%}",
        None if held_at_once else abs(middle - 1) <= BAND,
        figures={"ratios": ratios, "cpu_us": subject.cpu_us},
    )


def _in_this_process(home: Path, size: int) -> Iterator[Line]:
    plane = opening.open_plane(load(seed.environment(home)))
    try:
        began = time.perf_counter()
        _, graph = load_graph(plane.database)
        read_ms = (time.perf_counter() - began) * 1000
        end = graph.id_of("chain-0")
        assert end is not None
        who = Principal(None, None, permissions=graph.effective([end]))
        each = [cost * 1e6 / 100_000 for cost in timeit.repeat(lambda: who.may("audit", "read"), number=100_000)]
        compiled_ms = _compiled_ms(graph, end)
    finally:
        for store in (plane.database, plane.cache, plane.documents):
            store.close()
    yield Line(
        "a permission check",
        f"{spread(each, 2)} µs",
        f"≤ {CHECK_US} µs",
        statistics.median(each) <= CHECK_US,
        figures={"us": each},
    )
    yield Line(
        f"the first request of a process after a change, {size:,} roles",
        f"{read_ms:.0f} ms to read them, {compiled_ms:.2f} ms for a chain {MAX_DEPTH} deep",
        figures={"read_ms": read_ms, "compiled_ms": compiled_ms},
    )


def _compiled_ms(graph: RoleGraph, role_id: str) -> float:
    fresh = graph.with_role("none", "none")
    began = time.perf_counter()
    fresh.effective([role_id])
    return (time.perf_counter() - began) * 1000


def _subject(name: str, plane: Plane, person: str) -> Subject:
    headers = plane.sign_in_user(_email(person), PASSWORD)
    return Subject(name, plane.api_port, PATH, headers, plane.server.listening_on(plane.api_port))


def _email(person: str) -> str:
    return f"{person}@bench.ragkeeper.test"


def _make(home: Path, size: int, *, with_chain: bool) -> None:
    """A home with so many roles, beside those of a chain where there is to be one, and people who hold some of them."""
    seed.make_home(home, 100)
    plane = opening.open_plane(load(seed.environment(home)))
    with plane.database.transaction():
        fill(plane.database, size)
    held = {"one": ["role-0"]}
    if with_chain:
        for number in reversed(range(MAX_DEPTH + 1)):
            above = [f"chain-{number + 1}"] if number < MAX_DEPTH else []
            roles.create_role(plane, SHELL, role_name=f"chain-{number}", parents=above)
        body = {"resource": "audit", "actions": ["read"]}
        roles.grant_role_permission(plane, SHELL, f"chain-{MAX_DEPTH}", body)
        held |= {"chain": ["chain-0"], "many": [f"role-{number}" for number in range(MANY_HELD)]}
    for person, names in held.items():
        with plane.database.transaction():
            password_hash = passwords.new_hash(plane, PASSWORD, passwords.Owner())
            accounts.make(plane, email=_email(person), nickname=person, password_hash=password_hash)
        add_user_roles(plane, SHELL, _email(person), names)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


def fill(database: Any, size: int) -> None:
    """Roles ``role-0`` and on, each with three grants of its own; every tenth inherits from the one before."""
    for begin in range(0, size, _AT_ONCE):
        numbers = range(begin, min(size, begin + _AT_ONCE))
        rows = [(f"{number:032x}", f"role-{number}", "", False, 1, 1) for number in numbers]
        _insert(database, "rk_role (id, name, description, builtin, created_at, updated_at)", rows)
        pairs = (("dataset", "read"), ("chat", "read"), ("agent", "read"))
        _insert(
            database,
            "rk_role_grant (role_id, resource, action)",
            [(f"{number:032x}", *pair) for number in numbers for pair in pairs],
        )
        inherits = [(f"{number:032x}", f"{number - 1:032x}") for number in numbers if number % 10 == 1]
        if inherits:
            _insert(database, "rk_role_parent (role_id, parent_id)", inherits)
    database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'role_version'")


def _insert(database: Any, into: str, rows: list[tuple[Any, ...]]) -> None:
    marks = f"({', '.join('?' * len(rows[0]))})"
    database.run(
        f"INSERT INTO {into} VALUES {', '.join([marks] * len(rows))}", [value for row in rows for value in row]
    )
