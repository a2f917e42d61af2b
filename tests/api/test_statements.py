"""What a read asks of the metadata store: statements, connections, and rows looked at."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from werkzeug.test import TestResponse

from common.core.cursors import encode_cursor
from common.services.plane import Plane
from common.services.tenants import MODELS
from tests.bench import seed
from tests.people import Person

Read = Callable[[Person], TestResponse]

READS: dict[str, Read] = {
    "version": lambda person: person.ask("GET", "/v1/system/version"),
    "user details": lambda person: person.administer("GET", f"/users/{person.email}"),
    "own tokens": lambda person: person.ask("GET", "/api/v1/system/tokens"),
    "own profile": lambda person: person.ask("GET", "/v1/user/info"),
}


def kept_connection(plane: Plane) -> sqlite3.Connection:
    """The connection of this thread, in which the test client runs the apps."""
    connection: sqlite3.Connection = plane.database.peewee.connection()
    return connection


@contextmanager
def statements(plane: Plane) -> Iterator[list[str]]:
    """Every statement that the kept connection executes meanwhile."""
    heard: list[str] = []
    kept_connection(plane).set_trace_callback(heard.append)
    try:
        yield heard
    finally:
        kept_connection(plane).set_trace_callback(None)


def steps(plane: Plane, read: Callable[[], TestResponse]) -> int:
    """How many instructions SQLite's machine takes for a read: proportional to the rows that it looks at."""
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    kept_connection(plane).set_progress_handler(step, 1)
    try:
        succeed(read())
    finally:
        kept_connection(plane).set_progress_handler(None, 0)
    return taken


def succeed(answer: TestResponse) -> None:
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["code"] == 0, answer.json


def test_a_session_is_authenticated_with_exactly_one_statement(plane: Plane, root: Person) -> None:
    succeed(READS["version"](root))

    with statements(plane) as heard:
        succeed(READS["version"](root))

    assert len(heard) == 1
    assert "FROM rk_session s JOIN user u" in heard[0]


def test_a_token_is_authenticated_with_exactly_one_statement_once_its_use_is_noted(plane: Plane, root: Person) -> None:
    made = root.ask("POST", "/api/v1/system/tokens", {})
    assert made.json is not None
    bearer = f"Bearer {made.json['data']['token']}"

    def read() -> TestResponse:
        return root.world.api.ask("GET", "/v1/system/version", credential=bearer)

    succeed(read())
    with statements(plane) as heard:
        succeed(read())

    assert len(heard) == 1
    assert "FROM api_token" in heard[0]


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_plain_read_adds_at_most_one_statement(plane: Plane, root: Person, read: Read) -> None:
    succeed(read(root))

    with statements(plane) as heard:
        succeed(read(root))

    assert 1 <= len(heard) <= 2, heard


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_opens_no_connection(plane: Plane, root: Person, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed(read(root))
    kept, opened, connect = kept_connection(plane), [], sqlite3.connect

    def noted(*args, **kwargs):
        opened.append(args)
        return connect(*args, **kwargs)

    monkeypatch.setattr(sqlite3, "connect", noted)
    succeed(read(root))

    assert not opened
    assert kept_connection(plane) is kept


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_looks_at_no_more_rows_when_there_are_more_accounts(plane: Plane, root: Person, read: Read) -> None:
    succeed(read(root))
    alone = steps(plane, lambda: read(root))

    with plane.database.transaction():
        seed.fill(kept_connection(plane), range(500))

    assert steps(plane, lambda: read(root)) <= alone * 1.2


@pytest.mark.parametrize("sort", ["email", "-create_time", "nickname"])
def test_a_page_looks_at_no_more_rows_when_there_are_more_accounts(plane: Plane, root: Person, sort: str) -> None:
    def read() -> TestResponse:
        return root.administer("GET", f"/users?limit=10&sort={sort}")

    with plane.database.transaction():
        seed.fill(kept_connection(plane), range(20))
    succeed(read())
    of_few = steps(plane, read)

    with plane.database.transaction():
        seed.fill(kept_connection(plane), range(20, 520))

    assert steps(plane, read) <= of_few * 1.2


def fill_tenant(plane: Plane, tenant_id: str, numbers: range) -> None:
    """Give a tenant members of these numbers, and as many invited addresses, tokens, and tokens that RAGFlow made."""
    members = [f"e{number:031x}" for number in numbers]
    connection = kept_connection(plane)
    with plane.database.transaction():
        connection.executemany(
            "INSERT INTO user_tenant (id, user_id, tenant_id, role, invited_by, status) "
            "VALUES (?, ?, ?, 'normal', ?, '1')",
            [(row, seed.id_of(n), tenant_id, tenant_id) for n, row in zip(numbers, members, strict=True)],
        )
        connection.executemany(
            "INSERT INTO rk_membership (tenant_id, user_id, membership_id) VALUES (?, ?, ?)",
            [(tenant_id, seed.id_of(n), row) for n, row in zip(numbers, members, strict=True)],
        )
        connection.executemany(
            "INSERT INTO rk_invitation (id, tenant_id, email, email_key, role, invited_by, created_at, expires_at) "
            "VALUES (?, ?, ?, ?, 'normal', ?, ?, ?)",
            [(m, tenant_id, f"{m}@x.test", f"{m}@x.test", tenant_id, 1, plane.now_ms() + 1) for m in members],
        )
        connection.executemany(
            "INSERT INTO api_token (tenant_id, token, create_time) VALUES (?, ?, ?)",
            [(tenant_id, f"{kind}{m}", n) for kind in ("sha256:", "ragflow-") for n, m in enumerate(members)],
        )
        connection.executemany(
            "INSERT INTO rk_token (id, stored, tenant_id, user_id, display, beta_display, created_at) "
            "VALUES (?, ?, ?, ?, ?, '', ?)",
            [(m, f"sha256:{m}", tenant_id, tenant_id, m[:30], n) for n, m in zip(numbers, members, strict=True)],
        )


def last_token(person: Person) -> str:
    """The id of a token that is made now."""
    made = person.ask("POST", "/api/v1/system/tokens", {})
    assert made.json is not None
    return str(made.json["data"]["id"])


LISTS: dict[str, Read] = {
    "own tokens": lambda person: person.ask("GET", "/api/v1/system/tokens?limit=5"),
    "own tokens that RAGFlow made": lambda person: person.ask(
        "GET", f"/api/v1/system/tokens?limit=5&cursor={encode_cursor([-1, 'ragflow-', 0])}"
    ),
    "an account's tokens": lambda person: person.administer("GET", f"/users/{person.email}/keys?limit=5"),
    "a tenant's members": lambda person: person.administer("GET", f"/tenants/{person.user_id}/users?limit=5"),
    "addresses invited to a tenant": lambda person: person.administer(
        "GET", f"/tenants/{person.user_id}/users?limit=5&cursor={encode_cursor([1, ''])}"
    ),
    "deleting a token by id": lambda person: person.ask("DELETE", f"/api/v1/system/tokens/{last_token(person)}"),
    "writing what belongs to a tenant": lambda person: person.ask(
        "POST", "/v1/user/set_tenant_info", dict.fromkeys(MODELS, "m") | {"tenant_id": person.user_id}
    ),
}


@pytest.mark.parametrize("read", LISTS.values(), ids=LISTS)
def test_a_tenant_that_grows_costs_no_page_more(plane: Plane, root: Person, read: Read) -> None:
    with plane.database.transaction():
        seed.fill(kept_connection(plane), range(1020))
    fill_tenant(plane, root.user_id, range(20))
    succeed(read(root))
    of_few = steps(plane, lambda: read(root))

    fill_tenant(plane, root.user_id, range(20, 1020))

    assert steps(plane, lambda: read(root)) <= of_few * 1.2


def test_a_large_tenant_costs_the_page_of_tenants_no_more_than_one_that_is_counted(plane: Plane, root: Person) -> None:
    def read() -> TestResponse:
        return root.administer("GET", "/tenants?limit=1")

    def counted() -> int | None:
        (tenant,) = (read().json or {})["data"]["tenants"]
        assert tenant["tenant_id"] == seed.id_of(0)
        return tenant["member_count"]

    with plane.database.transaction():
        seed.fill(kept_connection(plane), range(4000))
    fill_tenant(plane, seed.id_of(0), range(1, 900))
    assert counted() == 900
    of_counted = steps(plane, read)

    fill_tenant(plane, seed.id_of(0), range(900, 4000))

    assert steps(plane, read) <= of_counted
    assert counted() is None
    shown = root.administer("GET", f"/tenants/{seed.id_of(0)}").json
    assert shown is not None
    assert shown["data"]["member_count"] == 4000
