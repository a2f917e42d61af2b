"""What a read asks of the metadata store: statements, connections, and rows looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from werkzeug.test import TestResponse

from common.services.plane import Plane
from tests.bench import seed
from tests.people import Person
from tests.statements import connects, kept_connection, looked_at, statements

# Rows that MariaDB may look at more, with a table that is no longer nearly empty.
FEW = 5

Read = Callable[[Person], TestResponse]

READS: dict[str, Read] = {
    "version": lambda person: person.ask("GET", "/v1/system/version"),
    "user details": lambda person: person.administer("GET", f"/users/{person.email}"),
    "own tokens": lambda person: person.ask("GET", "/api/v1/system/tokens"),
    "own profile": lambda person: person.ask("GET", "/v1/user/info"),
}


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
    kept = kept_connection(plane)

    with connects(plane, monkeypatch) as opened:
        succeed(read(root))

    assert not opened
    assert kept_connection(plane) is kept


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_looks_at_no_more_rows_when_there_are_more_accounts(plane: Plane, root: Person, read: Read) -> None:
    succeed(read(root))
    alone = looked_at(plane, lambda: succeed(read(root)))

    with plane.database.transaction():
        seed.fill(plane.database, range(500))

    assert looked_at(plane, lambda: succeed(read(root))) <= alone * 1.2 + FEW


@pytest.mark.parametrize("sort", ["email", "-create_time", "nickname"])
def test_a_page_looks_at_no_more_rows_when_there_are_more_accounts(plane: Plane, root: Person, sort: str) -> None:
    def read() -> TestResponse:
        return root.administer("GET", f"/users?limit=10&sort={sort}")

    with plane.database.transaction():
        seed.fill(plane.database, range(20))
    succeed(read())
    of_few = looked_at(plane, read)

    with plane.database.transaction():
        seed.fill(plane.database, range(20, 520))

    assert looked_at(plane, read) <= of_few * 1.2 + FEW
