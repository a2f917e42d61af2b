"""What a read asks of the metadata store: statements, connections, and rows looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from peewee import Model
from werkzeug.test import TestResponse

from common.core.cursors import encode_cursor
from common.core.permissions import MAX_DEPTH
from common.models.account import Session
from common.models.tenant import Invitation, MembershipClaim, UserTenant
from common.models.token import ApiToken, TokenRecord
from common.models.variable import TenantLimit
from common.services.plane import Plane
from common.services.tenants import MODELS
from tests.bench import roles as bench_roles
from tests.bench import seed
from tests.people import Person, World
from tests.roles import give_role, make_role
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


def limit_tenants(plane: Plane, numbers: range) -> None:
    """Give these tenants a limit of calls of their own, in the running transaction."""
    for number in numbers:
        plane.database.insert(TenantLimit, tenant_id=seed.id_of(number), requests_per_minute=5, updated_at=0)


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
        limit_tenants(plane, range(500))

    assert looked_at(plane, lambda: succeed(read(root))) <= alone * 1.2 + FEW


def test_a_change_of_a_setting_costs_no_more_when_more_tenants_have_limits_of_their_own(world: World) -> None:
    plane, someone = world.plane, world.person()
    calls = iter(range(1000, 2000))

    def read() -> None:
        world.set_variable("limit.tenant_calls", str(next(calls)))
        succeed(READS["version"](someone))

    read()
    alone = looked_at(plane, read)
    with plane.database.transaction():
        limit_tenants(plane, range(500))

    assert looked_at(plane, read) <= alone * 1.2 + FEW


def test_a_request_looks_at_no_more_rows_when_there_are_more_roles_or_a_longer_chain_of_them(world: World) -> None:
    plane, someone = world.plane, world.person()
    make_role(world, "link-0", {"dataset": ["read"]})
    give_role(world, someone, "link-0")

    def read() -> TestResponse:
        return someone.ask("POST", "/api/v1/authz/check", {"resource": "dataset", "action": "read"})

    succeed(read())
    alone = looked_at(plane, lambda: succeed(read()))

    with plane.database.transaction():
        bench_roles.fill(plane.database, 2000)
    for number in range(1, MAX_DEPTH + 1):
        make_role(world, f"link-{number}", parents=[f"link-{number - 1}"])
    give_role(world, someone, f"link-{MAX_DEPTH}")
    succeed(read())

    with statements(plane) as heard:
        succeed(read())
    assert len(heard) == 2
    assert looked_at(plane, lambda: succeed(read())) <= alone * 1.1 + FEW


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


def fill_tenant(plane: Plane, tenant_id: str, numbers: range) -> None:
    """Give a tenant members of these numbers, and as many invited addresses, tokens, and tokens that RAGFlow made."""
    of_tenant, until = {"tenant_id": tenant_id}, plane.now_ms() + 1
    rows: dict[type[Model], list[dict[str, Any]]] = defaultdict(list)
    for number in numbers:
        name, member = f"e{number:031x}", {**of_tenant, "user_id": seed.id_of(number)}
        address = {"email": f"{name}@x.test", "email_key": f"{name}@x.test", "created_at": 1, "expires_at": until}
        record = {"user_id": tenant_id, "display": name, "beta_display": "", "created_at": number}
        rows[UserTenant].append({**member, "id": name, "role": "normal", "invited_by": tenant_id, "status": "1"})
        rows[MembershipClaim].append({**member, "membership_id": name})
        rows[Invitation].append({**of_tenant, **address, "id": name, "role": "normal", "invited_by": tenant_id})
        rows[ApiToken] += [{**of_tenant, "token": f"{form}{name}"} for form in ("sha256:", "ragflow-")]
        rows[TokenRecord].append({**of_tenant, **record, "id": name, "stored": f"sha256:{name}"})
    with plane.database.transaction():
        for model, each in rows.items():
            plane.database.execute(model.insert_many(each))


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
        seed.fill(plane.database, range(1020))
    fill_tenant(plane, root.user_id, range(20))
    succeed(read(root))
    of_few = looked_at(plane, lambda: read(root))

    fill_tenant(plane, root.user_id, range(20, 1020))

    assert looked_at(plane, lambda: read(root)) <= of_few * 1.2 + FEW


def fill_sessions(plane: Plane, user_id: str, numbers: range) -> None:
    """Give an account sessions of these numbers that are over, and one open one for each ten of them."""
    now = plane.now_ms()
    rows = [
        {
            "id": f"f{number:031x}", "user_id": user_id, "token_hash": f"{number:064x}", "realm": "user",
            "created_at": now - number, "last_seen_at": now, "expires_at": now + 60_000,
            "ended_at": number if number % 10 else None,
        }
        for number in numbers
    ]  # fmt: skip
    with plane.database.transaction():
        plane.database.execute(Session.insert_many(rows))


def test_a_page_of_sessions_costs_no_more_where_many_were_ended(plane: Plane, root: Person) -> None:
    def read() -> TestResponse:
        return root.ask("GET", "/api/v1/sessions?limit=5")

    fill_sessions(plane, root.user_id, range(200))
    succeed(read())
    of_few = looked_at(plane, read)

    fill_sessions(plane, root.user_id, range(200, 2000))

    assert looked_at(plane, read) <= of_few * 1.2 + FEW


def test_a_large_tenant_costs_the_page_of_tenants_no_more_than_one_that_is_counted(plane: Plane, root: Person) -> None:
    def read() -> TestResponse:
        return root.administer("GET", "/tenants?limit=1")

    def counted() -> int | None:
        (tenant,) = (read().json or {})["data"]["tenants"]
        assert tenant["tenant_id"] == seed.id_of(0)
        return tenant["member_count"]

    with plane.database.transaction():
        seed.fill(plane.database, range(4000))
    fill_tenant(plane, seed.id_of(0), range(1, 900))
    assert counted() == 900
    of_counted = looked_at(plane, read)

    fill_tenant(plane, seed.id_of(0), range(900, 4000))

    assert looked_at(plane, read) <= of_counted
    assert counted() is None
    shown = root.administer("GET", f"/tenants/{seed.id_of(0)}").json
    assert shown is not None
    assert shown["data"]["member_count"] == 4000
