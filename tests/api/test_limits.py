"""Limits as callers meet them, on whichever stores the run has."""

from __future__ import annotations

import json
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from common.core.errors import StoreUnavailable, TooMany
from common.services import accounts, audit, limits, passwords, recovery
from common.services.batches import Batches
from common.services.principal import Origin
from tests.people import Clock, Person, World, new_password
from tests.side_by_side import begun_at_once


def log_in(world: World, email: str, password: str, address: str = "192.0.2.1", port: str = "api") -> TestResponse:
    path = "/v1/user/login" if port == "api" else "/api/v1/admin/login"
    body = {"email": email, "password": password}
    return getattr(world, port).ask("POST", path, body, environ_overrides={"REMOTE_ADDR": address})  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def first(world: World) -> Person:
    """Before the first account nobody is told that a login failed."""
    return world.person()


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


def test_S21_another_spelling_of_an_address_is_no_other_account(world: World) -> None:
    someone = world.person("ann@ragkeeper.test")
    for spelling in (
        "ANN@ragkeeper.test",
        "ann@RAGKEEPER.test",
        " ann@ragkeeper.test",
        "Ann@Ragkeeper.Test",
        "aNN@ragkeeper.test",
    ):
        assert log_in(world, spelling, "a wrong password").json["code"] == 109

    assert log_in(world, someone.email, someone.password).status_code == 429


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


@pytest.mark.parametrize("way", ["administrator", "link", "command"])
def test_a_new_password_from_who_may_set_it_ends_the_wait(world: World, way: str) -> None:
    someone, password = world.person(), new_password()
    world.set_variable("password.show_reset_link", "true")
    for _ in range(5):
        log_in(world, someone.email, "a wrong password")
    assert log_in(world, someone.email, someone.password).status_code == 429

    if way == "command":
        password = recovery.recover_admin(world.plane, someone.email).reveal()
    elif way == "administrator":
        world.root.administer("PUT", f"/users/{someone.email}/password", {"new_password": password})
    else:
        token = world.root.administer("POST", f"/users/{someone.email}/reset-link").json["data"]["token"]
        world.api.ask("POST", "/api/v1/auth/password/reset-link", {"token": token, "new_password": password})

    assert log_in(world, someone.email, password).json["code"] == 0


@pytest.mark.parametrize("free", [1, 5])
def test_after_a_new_password_all_that_is_free_is_free_again(world: World, free: int) -> None:
    someone, password = world.person(), new_password()
    world.set_variable("limit.login_failures", str(free))
    for _ in range(free):
        log_in(world, someone.email, "a wrong password")
    world.root.administer("PUT", f"/users/{someone.email}/password", {"new_password": password})

    for _ in range(free - 1):
        assert log_in(world, someone.email, "a wrong password").json["code"] == 109
    assert log_in(world, someone.email, password).json["code"] == 0


def test_a_clock_that_was_put_back_makes_no_wait_longer_than_the_longest(world: World, clock: Clock) -> None:
    someone = world.person()
    for _ in range(5):
        log_in(world, someone.email, "a wrong password")
    clock.forward(hours=-6)

    waiting = log_in(world, someone.email, someone.password)
    assert (waiting.status_code, waiting.headers["Retry-After"]) == (429, "900")
    clock.forward(seconds=901)
    assert log_in(world, someone.email, someone.password).json["code"] == 0


def refused(world: World) -> list[dict[str, Any]]:
    """What the events of refused logins say, but for those of wrong passwords."""
    told = [json.loads(event[4]) for event in world.events("session:login_refused")]
    return [after for after in told if "limit" in after or "reason" in after]


@pytest.mark.parametrize("port", ["api", "admin"])
def test_a_login_in_a_wait_is_in_the_trail_once_a_wait(world: World, clock: Clock, port: str) -> None:
    email = "nobody@ragkeeper.test"
    for _ in range(5):
        log_in(world, email, "a wrong password", port=port)
    for wait_s in (30, 60):
        clock.forward(seconds=2)
        assert {log_in(world, email, "a wrong password", port=port).status_code for _ in range(4)} == {429}
        clock.forward(seconds=wait_s)
        log_in(world, email, "a wrong password", port=port)

    realm = "user" if port == "api" else "admin"
    assert refused(world) == [
        {"limit": "login-account", "realm": realm, "wait_s": 28},
        {"limit": "login-account", "realm": realm, "wait_s": 58},
    ]
    assert {event[:3] for event in world.events("session:login_refused")} == {("refused", None, email)}


def test_a_login_in_a_wait_is_in_the_trail_once_for_each_port(world: World) -> None:
    email = "nobody@ragkeeper.test"
    for _ in range(5):
        log_in(world, email, "a wrong password")

    for port in ("api", "admin") * 2:
        assert log_in(world, email, "a wrong password", port=port).status_code == 429

    assert [after["realm"] for after in refused(world)] == ["user", "admin"]


def test_an_address_that_floods_the_logins_has_one_event_of_that_in_a_quarter_of_an_hour(
    world: World, clock: Clock
) -> None:
    allow(world, login_address=3)
    for turn in range(2):
        for number in range(12):
            log_in(world, f"nobody{turn}-{number}@ragkeeper.test", "a wrong password")
        clock.forward(seconds=901)

    assert [after["limit"] for after in refused(world)] == ["login-address"] * 2
    assert len(world.events("session:login_refused")) == 8


def test_logins_that_are_too_many_at_once_have_one_event_a_minute(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = world.person()
    monkeypatch.setattr(limits, "_LOOKS", 1)
    for _ in range(5):
        limits.login_attempt(world.plane, Origin("192.0.2.1"), someone.email)

    for seconds in (0, 1, 28):
        clock.forward(seconds=seconds)
        assert log_in(world, someone.email, someone.password).status_code == 429
    once = {"limit": "login-account", "realm": "user", "wait_s": 1}
    assert refused(world) == [once]

    # The attempt that holds the others up is over, and the next one takes its place.
    clock.forward(seconds=32)
    limits.login_attempt(world.plane, Origin("192.0.2.1"), someone.email)
    assert log_in(world, someone.email, someone.password).status_code == 429
    assert refused(world) == [once, once]


def test_a_login_in_a_wait_is_told_to_wait_also_when_the_trail_takes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        log_in(world, "nobody@ragkeeper.test", "a wrong password")

    def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("metadata", "down for the test")

    with monkeypatch.context() as outage:
        outage.setattr(audit, "record", down)
        assert log_in(world, "nobody@ragkeeper.test", "a wrong password").status_code == 429
    assert refused(world) == []

    for _ in range(2):
        assert log_in(world, "nobody@ragkeeper.test", "a wrong password").status_code == 429
    assert [after["limit"] for after in refused(world)] == ["login-account"]


@pytest.mark.parametrize("is_written", [True, False])
def test_an_account_that_is_switched_off_during_its_login_is_refused_in_the_trail(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_written: bool
) -> None:
    someone = world.person()
    check = passwords.check

    def slow(*given: Any) -> Any:
        checked = check(*given)
        world.plane.database.run("UPDATE user SET is_active = '0' WHERE id = ?", (someone.user_id,))
        return checked

    def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("metadata", "down for the test")

    monkeypatch.setattr(passwords, "check", slow)
    if not is_written:
        monkeypatch.setattr(audit, "record", down)
    assert log_in(world, someone.email, someone.password).json["code"] == 109

    meanwhile = {"realm": "user", "reason": "the account was changed meanwhile"}
    assert refused(world) == ([meanwhile] if is_written else [])


def test_guesses_at_the_same_moment_are_no_more_than_guesses_one_by_one(world: World) -> None:
    someone = world.person()

    statuses = begun_at_once(world, *[lambda: log_in(world, someone.email, "a wrong password")] * 12)

    assert sorted(statuses) == [200] * 5 + [429] * (12 - 5)


def test_right_passwords_at_the_same_moment_are_no_failures(world: World) -> None:
    someone = world.person()

    assert begun_at_once(world, *[lambda: log_in(world, someone.email, someone.password)] * 12) == [200] * 12


def test_who_meets_an_attempt_that_is_never_judged_is_told_to_come_back_shortly(world: World) -> None:
    someone, pauses = world.person(), list[float]()
    for _ in range(5):
        limits.login_attempt(world.plane, Origin("192.0.2.1"), someone.email)

    with pytest.raises(TooMany) as refused:
        limits.login_attempt(world.plane, Origin("192.0.2.1"), someone.email, pause=pauses.append)

    assert refused.value.data["resets_in"] == limits.SHORTLY_S
    assert sum(pauses) == pytest.approx(1.0)


def test_a_wait_that_a_success_has_overtaken_is_told_at_once_and_holds_nobody(world: World) -> None:
    someone, pauses = world.person(), list[float]()

    def begin() -> limits.LoginAttempt:
        return limits.login_attempt(world.plane, Origin("192.0.2.1"), someone.email, pause=pauses.append)

    first, *_, last = [begin() for _ in range(5)]
    first.succeeded()
    assert last.failed() == 30
    for _ in range(4):
        begin()

    with pytest.raises(TooMany) as refused:
        begin()

    assert refused.value.data["resets_in"] == 30
    assert not pauses


def test_attempts_while_the_database_is_down_count_for_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    someone = world.person()

    def down(*_: Any) -> None:
        raise StoreUnavailable("metadata", "down for the test")

    with monkeypatch.context() as patch:
        patch.setattr(accounts, "find", down)
        assert {log_in(world, someone.email, someone.password).status_code for _ in range(8)} == {503}

    assert log_in(world, someone.email, someone.password).json["code"] == 0


@pytest.mark.parametrize("known", [True, False])
def test_failures_that_could_not_be_told_count_for_nothing(
    world: World, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    email = world.person().email if known else "nobody@ragkeeper.test"

    def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("metadata", "down for the test")

    allow(world, login_address=8)
    with monkeypatch.context() as patch:
        patch.setattr(audit, "record", down)
        assert {log_in(world, email, "a wrong password").status_code for _ in range(8)} == {503}
    assert [log_in(world, email, "a wrong password").json["code"] for _ in range(6)] == [109] * 5 + [429]


def test_what_counts_for_nothing_leaves_the_wait_of_another_attempt_and_a_row_that_has_ended(world: World) -> None:
    someone, origin = world.person(), Origin("192.0.2.1")
    unjudged = limits.login_attempt(world.plane, origin, someone.email)
    assert log_in(world, someone.email, someone.password).json["code"] == 0
    with unjudged:
        for _ in range(5):
            log_in(world, someone.email, "a wrong password")

    assert log_in(world, someone.email, someone.password).json["code"] == 429

    other = world.person()
    late = limits.login_attempt(world.plane, origin, other.email)
    assert log_in(world, other.email, other.password).json["code"] == 0
    with late:
        pass
    codes = [log_in(world, other.email, "a wrong password").json["code"] for _ in range(6)]
    assert codes == [109] * 5 + [429]


def test_an_address_that_tries_many_accounts_is_stopped_and_no_other_one(world: World) -> None:
    allow(world, login_address=10)
    someone = world.person()
    for number in range(10):
        assert log_in(world, f"nobody{number}@ragkeeper.test", "a wrong password").json["code"] == 109

    stopped = log_in(world, someone.email, someone.password)

    assert stopped.status_code == 429
    assert stopped.headers["RateLimit-Policy"] == '"login-address";q=10;w=900'
    assert log_in(world, someone.email, someone.password, address="192.0.2.2").json["code"] == 0


def test_successful_logins_count_for_no_address_and_clear_none(world: World) -> None:
    allow(world, login_address=3)
    someone = world.person()

    assert {log_in(world, someone.email, someone.password).json["code"] for _ in range(6)} == {0}
    for number in range(3):
        assert log_in(world, someone.email, someone.password).json["code"] == 0
        assert log_in(world, f"nobody{number}@ragkeeper.test", "a wrong password").json["code"] == 109
    assert log_in(world, someone.email, someone.password).status_code == 429


def test_a_network_that_tries_many_accounts_from_many_addresses_is_stopped(world: World) -> None:
    allow(world, login_network=6)
    for number in range(6):
        log_in(world, f"nobody{number}@ragkeeper.test", "a wrong password", address=f"2001:db8::{number + 1}")

    assert log_in(world, "else@ragkeeper.test", "a wrong password", address="2001:db8::ffff").status_code == 429
    assert log_in(world, "else@ragkeeper.test", "a wrong password", address="2001:db8:1::1").status_code == 200


@pytest.mark.parametrize(
    ("path", "tag", "fields"),
    [
        ("/v1/user/setting", "user:password", ["password", "new_password"]),
        ("/v1/user/setting", "user:password", ["password"]),
        ("/api/v1/auth/reauthenticate", "session:prove", ["password"]),
    ],
)
def test_guessing_the_current_password_is_guessing_too(world: World, path: str, tag: str, fields: list[str]) -> None:
    someone = world.person()
    wish = dict.fromkeys(fields, new_password())

    statuses = [someone.ask("POST", path, wish).status_code for _ in range(8)]

    assert statuses[-3:] == [429] * 3
    told = world.events(tag)
    assert {event[:3] for event in told} == {("refused", someone.email, someone.email)}
    assert [event[4] and json.loads(event[4]) for event in told] == [
        *[None] * 5,
        {"limit": "proof-account", "wait_s": 30},
    ]


@pytest.mark.parametrize(
    ("addresses", "other"),
    [(["192.0.2.1"], "192.0.2.2"), (["2001:db8::1", "2001:db8::2", "2001:db8::3"], "2001:db8:0:1::1")],
)
def test_registrations_of_an_address_are_limited(world: World, addresses: list[str], other: str) -> None:
    allow(world, registration=2)

    def register(number: int, address: str) -> int:
        body = {"email": f"new{number}@ragkeeper.test", "nickname": "New", "password": new_password()}
        sent = world.api.ask("POST", "/v1/user/register", body, environ_overrides={"REMOTE_ADDR": address})
        return sent.status_code

    statuses = [register(number, addresses[number % len(addresses)]) for number in range(3)]

    assert statuses == [200, 200, 429]
    assert register(3, other) == 200


def test_tokens_that_an_administrator_makes_are_limited_whoever_they_are_for(world: World, root: Person) -> None:
    allow(world, token_creation=2)
    people = [world.person() for _ in range(3)]

    statuses = [root.administer("POST", f"/users/{person.email}/keys").status_code for person in people]

    assert statuses == [200, 200, 429]


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


@pytest.mark.race
def test_processes_that_are_called_at_once_let_through_what_is_allowed_and_at_most_a_batch_each_more(
    world: World, others: list[World]
) -> None:
    owner = world.person()
    token = owner.ask("POST", "/v1/system/new_token", {}).json["data"]["token"]
    most, processes = 150, [world, *others]
    batch = most // Batches.PART
    assert batch > 1
    allow(world, token_calls=most)

    def let_through(process: World) -> int:
        """How many calls are, until one is refused."""
        calls = 0
        try:
            while process.api.ask("GET", "/v1/system/version", credential=token).status_code == 200:
                calls += 1
        finally:
            for store in (process.plane.database, process.plane.cache, process.plane.documents):
                store.close()
        return calls

    with ThreadPoolExecutor(2 * len(processes)) as pool:
        counts = list(pool.map(let_through, processes * 2))
    # What one thread was still refused for may have been taken by another one of its process since.
    counts += [let_through(process) for process in processes]

    assert most <= sum(counts) <= most + len(processes) * batch
    assert {process.plane.counts.fallbacks for process in processes} == {0}


def test_calls_of_the_admin_server_count_with_a_token_and_not_with_a_session(world: World, root: Person) -> None:
    token = root.ask("POST", "/api/v1/system/tokens", {"scopes": ["read:user"]}).json["data"]["token"]
    allow(world, token_calls=2, tenant_calls=2)

    def status(credential: str | None) -> int:
        return world.admin.ask("GET", "/api/v1/admin/users", credential=credential).status_code

    assert [status(root.admin_session) for _ in range(4)] == [200] * 4
    assert [status(token) for _ in range(3)] == [200, 200, 429]


def test_calls_of_the_admin_server_with_a_token_count_in_its_tenant(world: World, root: Person) -> None:
    tokens = [
        root.ask("POST", "/api/v1/system/tokens", {"scopes": ["read:user"]}).json["data"]["token"] for _ in range(2)
    ]
    allow(world, tenant_calls=3)

    called = [world.admin.ask("GET", "/api/v1/admin/users", credential=token).status_code for token in tokens * 2]

    assert called == [200, 200, 200, 429]


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
    assert world.root.administer("PUT", path, {"requests_per_minute": 4}).status_code == 200
    assert statuses(one)[0] == 200
    assert statuses(other) == [200, 200, 200, 429]
    assert world.root.administer("PUT", path, {"requests_per_minute": 0}).status_code == 200
    assert statuses(one) == [200] * 4


def test_a_call_counts_in_the_tenant_that_it_acts_in(world: World) -> None:
    one, other = world.person(), world.person()
    org = one.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    for tenant_id, most in ((org, 1), (other.user_id, 1)):
        path = f"/tenants/{tenant_id}/limits"
        assert world.root.administer("PUT", path, {"requests_per_minute": most}).status_code == 200

    def code(person: Person, tenant_id: str) -> int:
        answer = person.ask("GET", "/v1/system/version", headers={"X-Tenant": tenant_id})
        return int(answer.json["code"])

    assert [code(one, org) for _ in range(2)] == [0, 429]
    assert code(one, one.user_id) == 0
    assert [code(other, org) for _ in range(2)] == [109, 429]


def test_no_spelling_of_a_tenant_is_another_tenant_to_the_limit(world: World) -> None:
    one = world.person()
    org = one.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    assert world.root.administer("PUT", f"/tenants/{org}/limits", {"requests_per_minute": 1}).status_code == 200
    assert org != org.upper()

    codes = [
        one.ask("GET", "/v1/system/version", headers={"X-Tenant": spelt}).json["code"] for spelt in (org, org.upper())
    ]

    assert codes == [0, 109]


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


def test_nobody_fails_before_a_first_start_has_made_the_first_account(world: World, first: Person) -> None:
    world.plane.database.run("DELETE FROM user WHERE id = ?", (first.user_id,))

    for port in ("admin", "api"):
        answers = [log_in(world, first.email, first.password, port=port) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [503] * 7
    basic = "Basic " + b64encode(f"{first.email}:{first.password}".encode()).decode()
    assert [world.admin.ask("GET", "/api/v1/admin/auth", credential=basic).status_code for _ in range(7)] == [503] * 7
    assert refused(world) == []
