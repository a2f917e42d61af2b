"""Limits as callers meet them, on whichever stores the run has."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import TestResponse

from common.core.errors import StoreUnavailable
from common.services import accounts
from tests.people import Clock, Person, World, new_password
from tests.side_by_side import at_once


def log_in(world: World, email: str, password: str, address: str = "192.0.2.1", port: str = "api") -> TestResponse:
    path = "/v1/user/login" if port == "api" else "/api/v1/admin/login"
    body = {"email": email, "password": password}
    return getattr(world, port).ask("POST", path, body, environ_overrides={"REMOTE_ADDR": address})  # type: ignore[no-any-return]


def allow(world: World, **most: int) -> None:
    """Set limits as an operator would."""
    with world.plane.database.transaction():
        for name, value in most.items():
            world.plane.database.run(
                "INSERT INTO rk_variable (name, value, updated_at) VALUES (?, ?, 0)", (f"limit.{name}", str(value))
            )
        world.plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    row = world.plane.database.one("SELECT value FROM rk_state WHERE name = 'variables_version'")
    assert row is not None
    world.plane.variables.follow(row[0])


@pytest.mark.parametrize("port", ["api", "admin"])
@pytest.mark.parametrize("known", [True, False])
def test_S21_after_five_failures_an_account_waits_whether_it_exists_or_not(
    world: World, clock: Clock, port: str, known: bool
) -> None:
    someone = world.person(is_superuser=port == "admin")
    email, right = (someone.email, someone.password) if known else ("nobody@ragkeeper.test", new_password())

    answers = [log_in(world, email, "a wrong password", port=port) for _ in range(5)]
    assert {answer.json["code"] for answer in answers} == {109 if port == "api" else 401}

    waiting = [log_in(world, email, password, port=port) for password in ("a wrong password", right)]
    assert [answer.status_code for answer in waiting] == [429, 429]
    assert waiting[0].json == waiting[1].json
    assert 1 <= int(waiting[0].headers["Retry-After"]) <= 30
    assert waiting[0].headers["RateLimit-Policy"] == '"login-account";q=5;w=900'

    if known:
        clock.forward(seconds=31)
        assert log_in(world, email, right, port=port).status_code == 200
        again = [log_in(world, email, "a wrong password", port=port).status_code for _ in range(4)]
        assert 429 not in again


def test_waits_grow_and_are_told_in_the_audit_trail(world: World, clock: Clock) -> None:
    someone = world.person()
    for _ in range(5):
        log_in(world, someone.email, "a wrong password")
    waits = [log_in(world, someone.email, "a wrong password").headers["Retry-After"]]
    for _ in range(3):
        clock.forward(seconds=int(waits[-1]) + 1)
        assert log_in(world, someone.email, "a wrong password").json["code"] == 109
        waits.append(log_in(world, someone.email, "a wrong password").headers["Retry-After"])

    assert [int(wait) for wait in waits] == [30, 60, 120, 240]
    assert '"wait_s":240' in world.events("session:login_refused")[-1][-1]


def test_guesses_at_the_same_moment_are_no_more_than_guesses_one_by_one(world: World) -> None:
    someone = world.person()

    statuses = at_once(world, *[lambda: log_in(world, someone.email, "a wrong password")] * 12)

    assert statuses.count(429) == 12 - 5


def test_attempts_while_the_database_is_down_count_for_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    someone = world.person()

    def down(*_: Any) -> None:
        raise StoreUnavailable("metadata", "down for the test")

    with monkeypatch.context() as patch:
        patch.setattr(accounts, "find", down)
        assert {log_in(world, someone.email, someone.password).status_code for _ in range(8)} == {503}

    assert log_in(world, someone.email, someone.password).json["code"] == 0


def test_an_address_that_tries_many_accounts_is_stopped_and_no_other_one(world: World) -> None:
    allow(world, login_address=10)
    someone = world.person()
    for number in range(10):
        assert log_in(world, f"nobody{number}@ragkeeper.test", "a wrong password").json["code"] == 109

    stopped = log_in(world, someone.email, someone.password)

    assert stopped.status_code == 429
    assert stopped.headers["RateLimit-Policy"] == '"login-address";q=10;w=900'
    assert log_in(world, someone.email, someone.password, address="192.0.2.2").json["code"] == 0


def test_successful_logins_count_for_no_address(world: World) -> None:
    allow(world, login_address=3)
    someone = world.person()

    assert {log_in(world, someone.email, someone.password).json["code"] for _ in range(6)} == {0}


def test_a_network_that_tries_many_accounts_from_many_addresses_is_stopped(world: World) -> None:
    allow(world, login_network=6)
    for number in range(6):
        log_in(world, f"nobody{number}@ragkeeper.test", "a wrong password", address=f"2001:db8::{number + 1}")

    assert log_in(world, "else@ragkeeper.test", "a wrong password", address="2001:db8::ffff").status_code == 429
    assert log_in(world, "else@ragkeeper.test", "a wrong password", address="2001:db8:1::1").status_code == 200


def test_guessing_the_current_password_is_guessing_too(world: World) -> None:
    someone = world.person()
    wish = {"password": "a wrong password", "new_password": new_password()}

    statuses = [someone.ask("POST", "/v1/user/setting", wish).status_code for _ in range(7)]

    assert statuses[-1] == 429


def test_registrations_of_an_address_are_limited(world: World) -> None:
    allow(world, registration=2)

    def register(number: int) -> TestResponse:
        body = {"email": f"new{number}@ragkeeper.test", "nickname": "New", "password": new_password()}
        return world.api.ask("POST", "/v1/user/register", body)

    assert [register(number).status_code for number in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    ("limit", "path", "body"),
    [
        ("token_creation", "/v1/system/new_token", {}),
        ("invitation", "/v1/tenant/{tenant}/user", {"email": "guest{number}@ragkeeper.test"}),
    ],
)
def test_what_an_account_makes_is_limited(world: World, limit: str, path: str, body: dict[str, Any]) -> None:
    allow(world, **{limit: 2})
    owner = world.person()

    def make(number: int) -> int:
        sent = {name: value.format(number=number) for name, value in body.items()}
        return owner.ask("POST", path.format(tenant=owner.user_id), sent).status_code

    assert [make(number) for number in range(3)] == [200, 200, 429]


def test_calls_with_a_token_and_within_a_tenant_are_limited_by_the_minute(world: World, clock: Clock) -> None:
    owner = world.person()
    token = owner.ask("POST", "/v1/system/new_token", {}).json["data"]["token"]
    allow(world, token_calls=3)

    def call() -> TestResponse:
        return world.api.ask("GET", "/v1/system/version", credential=token)

    assert [call().status_code for _ in range(4)] == [200, 200, 200, 429]
    assert call().headers["RateLimit-Policy"] == '"token-calls";q=3;w=60'
    assert owner.ask("GET", "/v1/system/version").status_code == 200
    clock.forward(seconds=60)
    assert call().status_code == 200

    other = world.person()
    assert other.session
    allow(world, tenant_calls=2)
    assert [other.ask("GET", "/v1/system/version").status_code for _ in range(3)] == [200, 200, 429]


def test_a_tenant_is_held_to_its_own_limit_of_calls_before_that_of_all(world: World) -> None:
    one, other = world.person(), world.person()
    assert one.session
    assert other.session
    allow(world, tenant_calls=3)

    def statuses(person: Person) -> list[int]:
        return [person.ask("GET", "/v1/system/version").status_code for _ in range(4)]

    path = f"/tenants/{one.user_id}/limits"
    assert world.root.administer("PUT", path, {"requests_per_minute": 1}).status_code == 200
    assert statuses(one) == [200, 429, 429, 429]
    assert statuses(other) == [200, 200, 200, 429]
    assert world.root.administer("PUT", path, {"requests_per_minute": 0}).status_code == 200
    assert statuses(one) == [200] * 4


def test_without_the_cache_store_every_process_counts_for_itself(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("cache", "down for the test")

    for name in ("get", "set", "incr", "counted", "delete", "acquire_lease", "release_lease"):
        monkeypatch.setattr(world.plane.cache, name, down)
    someone = world.person()

    assert [log_in(world, someone.email, "a wrong password").status_code for _ in range(6)][-1] == 429
    assert world.plane.counts.fallbacks > 0
