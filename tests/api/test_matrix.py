"""Every route of both servers x every kind of principal: who is let in, and that a refusal changes nothing.

``WHO`` says by hand, for each requirement, who meets it; ``tests/route_table.py`` says by hand which requirement each
route has. A route that is missing there fails the first test, so none escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from common.http.route import Route
from tests.cast import BUILT_IN, EVERYBODY, INSIDERS, OUTSIDERS, Cast, assemble, snapshot
from tests.people import Port, World, new_password
from tests.route_table import BODIES, EXPECTED, PASSWORD_DUE, SCOPES, SENSITIVE

ADMINISTRATORS = {"user-manager", "service-operator", "auditor", "viewer", "superuser"}
READERS = {"auditor", "viewer", "superuser"}
MANAGERS = {"user-manager", "superuser"}
OPERATORS = {"service-operator", "superuser"}
WHO: dict[str, set[str]] = {
    "public": set(EVERYBODY),
    "signed-in": set(INSIDERS),
    "administrator": ADMINISTRATORS,
    "user:read": READERS | MANAGERS,
    "user:create": MANAGERS,
    "user:write": MANAGERS,
    # Of somebody else; one's own has a test beside.
    "user:write|own": MANAGERS,
    "user:delete": MANAGERS,
    "role:read": READERS | MANAGERS,
    "role:assign": MANAGERS,
    "role:create": {"superuser"},
    "role:write": {"superuser"},
    "role:delete": {"superuser"},
    "tenant:read": READERS | MANAGERS,
    "tenant:create": MANAGERS,
    "tenant:write": MANAGERS,
    "tenant:delete": MANAGERS,
    "session:read": READERS | MANAGERS,
    "session:delete": MANAGERS,
    "token:read": READERS | MANAGERS,
    "token:create": MANAGERS,
    "token:write": MANAGERS,
    "token:delete": MANAGERS,
    "service:read": READERS | OPERATORS,
    "service:control": OPERATORS,
    "job:read": READERS | OPERATORS,
    "job:write": OPERATORS,
    "setting:read": READERS,
    "setting:write": {"superuser"},
    "audit:read": {"auditor", "superuser"},
    "audit:export": {"auditor", "superuser"},
    "tenant:owner": {"owner"},
    "tenant:owner|normal": {"owner", "member"},
}
# Whoever is admitted at the gate and then refused by the use-case, because of whom they would act on or what they give.
REFUSED_BY_RULE = {
    "PUT /api/v1/admin/users/<email>/admin": {"user-manager"},
    "DELETE /api/v1/admin/users/<email>/admin": {"user-manager"},
    "DELETE /v1/tenant/<tenant_id>/user/<user_id>": set(INSIDERS) - {"owner", "member"},
    "DELETE /api/v1/tenants/<tenant_id>/users": set(INSIDERS) - {"owner", "member"},
}
# What is open to everybody and says no for want of a password, or of a proxy's secret.
LOGINS = {"GET /api/v1/admin/auth", "POST /v1/user/login", "POST /api/v1/auth/login", "GET /api/v1/authz/forward"}


@pytest.fixture
def cast(world: World) -> Cast:
    return assemble(world)


def ports(world: World) -> Iterator[tuple[Port, Route]]:
    for port in (world.admin, world.api):
        for route in port.app.extensions["ragkeeper.routes"]:
            yield port, route


def key_of(port: Port, route: Route) -> str:
    return f"{'9381' if port.app.name.endswith('admin') else '9380'} {route.endpoint}"


def test_the_table_lists_every_route_with_its_requirement(world: World) -> None:
    served = {key_of(port, route): route.requires.text for port, route in ports(world)}

    assert served == EXPECTED


def test_what_a_route_names_in_the_trail_are_fields_of_what_it_takes_and_none_that_is_secret(world: World) -> None:
    for port, route in ports(world):
        taken = {field for model in (route.body, route.query) if model for field in model.model_fields}
        assert set(route.names) <= taken - {"password", "new_password", "token", "var_value"}, key_of(port, route)


def test_what_asks_for_the_password_again_is_known_by_hand_and_no_route_of_RAGFlow(world: World) -> None:
    found = {key_of(port, route): route for port, route in ports(world) if route.sensitive}

    assert set(found) == SENSITIVE
    assert not [key for key, route in found.items() if route.dialect == "ragflow"]


def test_what_is_open_while_a_password_is_due_is_known_by_hand(world: World) -> None:
    assert {key_of(port, route) for port, route in ports(world) if route.even_if_password_due} == PASSWORD_DUE


def test_nobody_gets_in_who_should_not_and_nothing_changes_then(world: World, cast: Cast) -> None:
    before, wrong = snapshot(world), []
    for port, route in ports(world):
        allowed = WHO[EXPECTED[key_of(port, route)]] - REFUSED_BY_RULE.get(route.endpoint, set())
        for who in EVERYBODY:
            if who in allowed:
                continue
            answer = ask(cast, port, route, who)
            if not is_refusal(answer, who):
                wrong.append(f"{key_of(port, route)} x {who}: {answer.status_code} {answer.get_data()[:120]!r}")
            if snapshot(world) != before:
                wrong.append(f"{key_of(port, route)} x {who}: something changed")
                before = snapshot(world)

    assert wrong == []


RAGFLOWS = {"dataset", "chat", "agent", "search", "file", "team", "memory"}
OF_PEOPLE = ("signed-in", "administrator", "tenant:owner", "tenant:owner|normal")


def test_the_table_lists_what_asks_for_no_permission_and_is_open_to_a_scope(world: World) -> None:
    served = {
        key_of(port, route): route.requires.scope
        for port, route in ports(world)
        if route.requires.text in OF_PEOPLE and route.requires.scope is not None
    }

    assert served == SCOPES


def reached(key: str, scopes: set[str]) -> bool:
    """Whether a superuser's token with these scopes, which no write widens, gets into a route."""
    asked = EXPECTED[key]
    if asked == "public":
        return True
    resource, _, action = asked.partition(":")
    wanted = SCOPES.get(key) if asked in OF_PEOPLE else f"{action.removesuffix('|own')}:{resource}"
    opens_admin = any(scope.partition(":")[2] not in RAGFLOWS for scope in scopes)
    if key.startswith("9381") and not opens_admin:
        return False
    return wanted == "any" or wanted in scopes


@pytest.mark.parametrize("scopes", [{"read:dataset"}, {"read:team"}, {"read:user", "read:service"}, {"create:token"}])
def test_a_token_gets_as_far_as_its_scope_and_no_refusal_changes_anything(
    world: World, cast: Cast, scopes: set[str]
) -> None:
    made = world.root.ask("POST", "/api/v1/system/tokens", {"scopes": sorted(scopes)}).json
    assert made is not None
    cast.credentials["a token"] = made["data"]["token"]
    wrong, before = [], snapshot(world)
    for port, route in ports(world):
        key = key_of(port, route)
        if reached(key, scopes):
            if route.method == "GET" and EXPECTED[key] not in OF_PEOPLE[2:]:
                answer = ask(cast, port, route, "a token")
                if answer.status_code in (401, 403) and EXPECTED[key] != "public":
                    wrong.append(f"{key}: {answer.status_code} {answer.get_data()[:120]!r}")
                world.plane.token_uses.wait(10)
                before = snapshot(world)
            continue
        answer = ask(cast, port, route, "a token")
        if answer.status_code not in (401, 403):
            wrong.append(f"{key}: {answer.status_code} {answer.get_data()[:120]!r}")
        world.plane.token_uses.wait(10)
        if snapshot(world) | {"rk_token": []} != before | {"rk_token": []}:
            wrong.append(f"{key}: something changed")

    assert wrong == []


class _Undone(Exception):
    """Ends a transaction without effect."""


def test_everybody_gets_in_who_should(world: World, cast: Cast) -> None:
    wrong = []
    for port, route in ports(world):
        allowed = WHO[EXPECTED[key_of(port, route)]] - REFUSED_BY_RULE.get(route.endpoint, set())
        for who in sorted(allowed):
            # What an admitted request does is undone, so that the next one meets the same world.
            with suppress(_Undone), world.plane.database.transaction():
                answer = ask(cast, port, route, who)
                raise _Undone
            world.plane.roles._current = None  # the version number was rolled back too
            refused = answer.status_code in (401, 403) or is_refusal(answer, who)
            if answer.status_code == 500 or (refused and route.endpoint not in LOGINS):
                wrong.append(f"{key_of(port, route)} x {who}: {answer.status_code} {answer.get_data()[:160]!r}")

    assert wrong == []


def test_one_s_own_password_is_changed_on_the_admin_server_by_whoever_administers(world: World, cast: Cast) -> None:
    changed = set()
    for who in INSIDERS:
        credential = cast.credentials[who]
        email = world.api.ask("GET", "/v1/user/info", credential=credential).json["data"]["email"]
        path, body = f"/api/v1/admin/users/{email}/password", {"new_password": new_password()}
        answer = world.admin.ask("PUT", path, body, credential=credential)
        assert answer.status_code in (200, 403), answer.get_data()
        if answer.status_code == 200:
            changed.add(who)

    assert changed == ADMINISTRATORS


def is_refusal(answer: Any, who: str) -> bool:
    if who in OUTSIDERS:
        return bool(answer.status_code == 401)
    if answer.status_code == 200 and answer.is_json:
        return bool(answer.json.get("code") == 109)
    return bool(answer.status_code == 403)


def ask(cast: Cast, port: Port, route: Route, who: str) -> Any:
    values = {
        "email": cast.victim.email, "tenant_id": cast.tenant_id, "user_id": cast.member.user_id, "name": "custom",
    }  # fmt: skip
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: values.get(match[1], "0"), route.rule)
    body = BODIES.get(route.endpoint)
    filled = None if body is None else {name: _fill(cast, value) for name, value in body.items()}
    return port.ask(route.method, path, filled, credential=cast.credentials[who])


def _fill(cast: Cast, value: Any) -> Any:
    if value == "{password}":
        return new_password()
    if value == "{victim}":
        return cast.victim.email
    if value == "{member_id}":
        return cast.member.user_id
    if value == "{member_email}":
        return cast.member.email
    if value == "{tenant_id}":
        return cast.tenant_id
    return value


def test_the_cast_is_complete() -> None:
    from common.core.permissions import BUILT_IN_ROLES

    assert {name.removesuffix("-role") for name in BUILT_IN} | {"superuser"} == set(BUILT_IN_ROLES)
