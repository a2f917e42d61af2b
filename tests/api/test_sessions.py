"""How long sessions last, how many there are, and what their owners see of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from common.core.passwords import encode_for_hash
from common.core.session_limits import SEEN_EVERY_MS, Lifetime, is_over
from common.models.variable import StoredVariable
from common.services import accounts, passwords, session_rows, sessions
from common.services.principal import Realm
from tests.people import Clock, Person, Port, World

MINUTE, HOUR, DAY = 60, 3600, 86_400


def log_in(person: Person, port: Port, **more: Any) -> Any:
    path = "/api/v1/admin/login" if port.app.name.endswith("admin") else "/api/v1/auth/login"
    return port.ask("POST", path, {"email": person.email, "password": person.password}, **more)


def session_of(person: Person, port: Port | None = None, **more: Any) -> str:
    return str(log_in(person, port or person.world.api, **more).headers["Authorization"])


def works(port: Port, session: str) -> bool:
    return port.ask("GET", "/api/v1/sessions", credential=session).status_code == 200


def use(world: World, session: str) -> bool:
    """Ask something with a session, and wait until its use is written."""
    used = works(world.api, session)
    world.plane.session_uses.wait(10)
    return used


def set_variable(world: World, name: str, value: str) -> None:
    """As an administrator's change would, on the next request."""
    world.plane.database.insert(StoredVariable, name=name, value=value, updated_at=0)
    world.plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")


@pytest.mark.parametrize(
    ("realm", "idle_s", "absolute_s"), [("admin", 30 * MINUTE, 12 * HOUR), ("user", DAY, 30 * DAY)]
)
def test_a_session_lasts_while_it_is_used_and_no_longer_than_its_absolute_limit(
    world: World, clock: Clock, realm: str, idle_s: int, absolute_s: int
) -> None:
    port = world.admin if realm == "admin" else world.api
    session = session_of(world.root, port)
    step = idle_s - MINUTE

    for _ in range(absolute_s // step):
        clock.forward(seconds=step)
        assert works(port, session)
        world.plane.session_uses.wait(10)
    clock.forward(seconds=absolute_s % step)

    assert not works(port, session)


@pytest.mark.parametrize(("realm", "idle_s"), [("admin", 30 * MINUTE), ("user", DAY)])
def test_a_session_that_is_not_used_is_over(world: World, clock: Clock, realm: str, idle_s: int) -> None:
    port = world.admin if realm == "admin" else world.api
    session = session_of(world.root, port)

    clock.forward(seconds=idle_s + 2 * MINUTE)

    assert not works(port, session)


def test_a_session_of_the_admin_server_counts_on_the_user_api_for_as_long(world: World, clock: Clock) -> None:
    session = session_of(world.root, world.admin)
    assert works(world.api, session)

    clock.forward(seconds=32 * MINUTE)

    assert not works(world.api, session)


def test_a_session_of_the_user_api_counts_on_the_admin_server_no_longer_than_one_of_its_own(
    world: World, clock: Clock
) -> None:
    session = session_of(world.root)
    assert works(world.admin, session)

    clock.forward(seconds=32 * MINUTE)
    assert not works(world.admin, session)
    assert use(world, session)
    assert works(world.admin, session)
    for _ in range(24):
        clock.forward(seconds=29 * MINUTE + 30)
        assert use(world, session)

    clock.forward(seconds=10)
    assert works(world.admin, session) is False
    assert works(world.api, session)


@pytest.mark.parametrize("realm", ["admin", "user"])
def test_lists_have_a_session_exactly_as_long_as_it_lets_its_owner_in(world: World, clock: Clock, realm: Realm) -> None:
    plane = world.plane
    session_of(world.root, world.admin if realm == "admin" else world.api)
    limits, begun = session_rows.limits_of(plane, realm), clock()
    for seen in (0, limits.absolute_ms - 1):
        plane.database.run("UPDATE rk_session SET last_seen_at = ?", (begun + seen,))
        for end in (seen + limits.idle_ms + SEEN_EVERY_MS, limits.absolute_ms):
            for now in (end - 1, end, end + 1):
                clock.now = begun + now
                life = Lifetime(begun, begun + limits.absolute_ms, None, begun + seen)
                where, params = session_rows.open_now(plane)
                (listed,) = plane.database.all(f"SELECT COUNT(*) FROM rk_session WHERE {where}", params)
                assert listed == (0 if is_over(life, limits, clock()) else 1,), (seen, now)


def test_of_sessions_that_are_used_within_a_moment_the_one_that_was_used_least_recently_is_ended(
    world: World, others: list[World], clock: Clock
) -> None:
    """Whichever process each use, and the login that is one too many, reaches."""
    someone = world.person()
    opened = []
    for _ in range(10):
        clock.forward(seconds=0.03)
        opened.append(session_of(someone))
        assert use(world, opened[-1])
    for place, session in ((world, opened[1]), (others[0], opened[0]), (others[1], opened[3])):
        clock.forward(seconds=0.01)
        assert use(place, session)

    session_of(someone, others[0].api)

    assert [works(world.api, session) for session in opened] == [True, True, False, *[True] * 7]


def test_a_process_that_is_too_busy_to_write_each_use_still_knows_which_session_was_used_least_recently(
    world: World, clock: Clock
) -> None:
    set_variable(world, "session.most", "3")
    someone, busy = world.person(), session_of(world.person())
    opened = [session_of(someone) for _ in range(3)]
    for session in [*[busy] * 60, opened[2], opened[0], opened[1]]:
        clock.forward(seconds=0.003)
        assert use(world, session)

    session_of(someone)

    assert [works(world.api, session) for session in opened] == [True, True, False]


def test_who_administers_nothing_has_no_sessions_to_see_on_the_admin_server(world: World) -> None:
    assert world.admin.ask("GET", "/api/v1/sessions", credential=world.person().session).status_code == 403


def test_many_uses_within_a_minute_are_not_all_written_and_count_all_the_same(world: World, clock: Clock) -> None:
    someone = world.person()
    session = session_of(someone)
    # In less time than one of them takes to be made up for.
    for _ in range(60):
        clock.forward(seconds=0.003)
        assert use(world, session)
    assert world.plane.database.one("SELECT last_seen_at - created_at FROM rk_session") == (150,)
    clock.forward(seconds=1)
    assert use(world, session)
    assert world.plane.database.one("SELECT last_seen_at - created_at FROM rk_session") == (1180,)

    clock.forward(seconds=DAY)
    assert use(world, session)

    assert world.plane.database.one("SELECT last_seen_at - created_at FROM rk_session") == (DAY * 1000 + 1180,)


def test_a_use_that_could_not_be_written_keeps_the_session_in_this_process(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(world.person())
    statement = world.plane.session_uses._statement
    monkeypatch.setattr(world.plane.session_uses, "_statement", "UPDATE no_such_table SET x = ? WHERE y = ? AND z < ?")
    for _ in range(3):
        clock.forward(seconds=20 * HOUR)
        assert use(world, session)

    monkeypatch.setattr(world.plane.session_uses, "_statement", statement)
    clock.forward(seconds=20 * HOUR)
    assert use(world, session)

    assert world.plane.database.one("SELECT last_seen_at - created_at FROM rk_session") == (80 * HOUR * 1000,)


@pytest.mark.parametrize("change", ["is_active = '0'", "status = '0'", "status = NULL"])
def test_sessions_and_tokens_of_an_account_are_dead_however_it_was_switched_off(world: World, change: str) -> None:
    someone = world.person()
    token = someone.ask("POST", "/api/v1/system/tokens", {}).json["data"]["token"]

    world.plane.database.run(f"UPDATE user SET {change} WHERE id = ?", (someone.user_id,))

    for credential in (someone.session, f"Bearer {token}"):
        assert world.api.ask("GET", "/v1/user/info", credential=credential).status_code == 401


def test_limits_that_are_set_hold_for_sessions_that_are_open(world: World, clock: Clock) -> None:
    session = session_of(world.person())
    clock.forward(seconds=20 * MINUTE)
    assert works(world.api, session)

    set_variable(world, "session.user_absolute_s", "1200")

    assert not works(world.api, session)


def test_a_session_is_deleted_a_week_after_its_absolute_limit(world: World, clock: Clock) -> None:
    session_of(world.person())
    clock.forward(days=30 + 7)
    assert sessions.prune(world.plane) == 0

    clock.forward(seconds=1)

    assert sessions.prune(world.plane) == 1


def test_an_eleventh_login_ends_the_session_that_was_used_least_recently(world: World, clock: Clock) -> None:
    someone = world.person()
    opened = []
    for _ in range(10):
        clock.forward(seconds=61)
        opened.append(session_of(someone))
    clock.forward(seconds=61)
    assert use(world, opened[0])
    clock.forward(seconds=61)

    newest = session_of(someone)

    assert [works(world.api, session) for session in opened] == [True, False, *[True] * 8]
    assert works(world.api, newest)
    assert world.plane.database.all("SELECT end_reason FROM rk_session WHERE ended_at IS NOT NULL") == [("limit",)]
    assert "ended" in str(world.events("session:login")[-1])


def test_sessions_that_are_over_take_no_place(world: World, clock: Clock) -> None:
    someone = world.person()
    old = [session_of(someone) for _ in range(3)]
    set_variable(world, "session.most", "2")
    clock.forward(days=2)

    fresh = [session_of(someone) for _ in range(2)]

    assert all(works(world.api, session) for session in fresh)
    assert not any(works(world.api, session) for session in old)
    assert world.plane.database.one("SELECT COUNT(*) FROM rk_session WHERE end_reason = 'limit'") == (0,)


def test_with_one_session_a_login_ends_the_one_before_as_RAGFlow_does(world: World) -> None:
    someone, other = world.person(), world.person()
    set_variable(world, "session.most", "1")
    first, others = session_of(someone), session_of(other)
    second = session_of(someone, world.api)

    assert not works(world.api, first)
    assert works(world.api, second)
    assert works(world.api, others)


def test_the_list_says_from_where_and_since_when_and_which_one_asks(world: World, clock: Clock) -> None:
    someone = world.person()
    first = session_of(someone, headers={"User-Agent": "First/1"})
    clock.forward(seconds=5)
    second = session_of(someone, headers={"User-Agent": "Second/2"})
    session_of(world.person())

    page = world.api.ask("GET", "/api/v1/sessions", credential=second).json["data"]

    assert page["next_cursor"] is None
    newer, older = page["sessions"]
    assert (newer["agent"], newer["current"], older["agent"], older["current"]) == (
        "Second/2", True, "First/1", False,
    )  # fmt: skip
    assert {key: older[key] for key in ("realm", "kind", "address", "created_at", "last_seen_at", "expires_at")} == {
        "realm": "user",
        "kind": "bearer",
        "address": "127.0.0.1",
        "created_at": "2026-09-21T14:13:20.000Z",
        "last_seen_at": "2026-09-21T14:13:20.000Z",
        "expires_at": "2026-10-21T14:13:20.000Z",
    }
    assert first not in str(page)


def test_the_list_is_a_page(world: World, clock: Clock) -> None:
    someone = world.person()
    for _ in range(5):
        clock.forward(seconds=1)
        session = session_of(someone)

    seen: list[str] = []
    cursor = ""
    while True:
        page = world.api.ask("GET", f"/api/v1/sessions?limit=2{cursor}", credential=session).json["data"]
        seen += [one["id"] for one in page["sessions"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    stored = world.plane.database.all("SELECT id FROM rk_session ORDER BY created_at DESC")
    assert seen == [row[0] for row in stored]


def test_logging_out_ends_exactly_this_session(world: World) -> None:
    someone = world.person()
    one, other = session_of(someone), session_of(someone)

    assert world.api.ask("POST", "/api/v1/auth/logout", credential=one).json["data"] is True

    assert not works(world.api, one)
    assert works(world.api, other)


def test_one_ends_a_session_of_ones_own_and_nobody_elses(world: World) -> None:
    someone, other = world.person(), world.person()
    lost, kept, foreign = session_of(someone), session_of(someone), session_of(other)
    lost_id = world.api.ask("GET", "/api/v1/sessions/current", credential=lost).json["data"]["id"]
    foreign_id = world.api.ask("GET", "/api/v1/sessions/current", credential=foreign).json["data"]["id"]

    assert world.api.ask("GET", f"/api/v1/sessions/{foreign_id}", credential=kept).status_code == 404
    assert world.api.ask("DELETE", f"/api/v1/sessions/{foreign_id}", credential=kept).status_code == 404
    assert world.api.ask("DELETE", f"/api/v1/sessions/{lost_id}", credential=kept).status_code == 200

    assert not works(world.api, lost)
    assert works(world.api, foreign)
    assert world.api.ask("DELETE", f"/api/v1/sessions/{lost_id}", credential=kept).status_code == 404
    assert [event[:3] for event in world.events("session:end")] == [("ok", someone.email, someone.email)]


def test_one_ends_all_others_at_once(world: World) -> None:
    someone = world.person()
    others, this = [session_of(someone) for _ in range(3)], session_of(someone)
    foreign = world.person().session

    answer = world.api.ask("DELETE", "/api/v1/sessions", credential=this)

    assert answer.json["data"] == {"ended": 3}
    assert not any(works(world.api, session) for session in others)
    assert works(world.api, this)
    assert works(world.api, foreign)


def test_what_is_sensitive_asks_for_the_password_again_after_ten_minutes(world: World, clock: Clock) -> None:
    someone = world.person()
    session = session_of(someone)
    assert world.api.ask("DELETE", "/api/v1/sessions", credential=session).status_code == 200
    clock.forward(seconds=10 * MINUTE)

    refused = world.api.ask("DELETE", "/api/v1/sessions", credential=session)
    assert (refused.status_code, refused.json["code"], refused.json["reason"]) == (403, 403, "reauthenticate")
    problem = world.api.ask(
        "DELETE", "/api/v1/sessions", credential=session, headers={"Accept": "application/problem+json"}
    )
    assert problem.json["reason"] == "reauthenticate"
    assert works(world.api, session)

    proof = {"password": someone.password}
    proven = world.api.ask("POST", "/api/v1/auth/reauthenticate", proof, credential=session)
    assert proven.json["data"] == {
        "authenticated_at": "2026-09-21T14:23:20.000Z", "until": "2026-09-21T14:33:20.000Z",
    }  # fmt: skip
    assert world.api.ask("DELETE", "/api/v1/sessions", credential=session).status_code == 200
    clock.forward(seconds=10 * MINUTE)
    assert world.api.ask("DELETE", "/api/v1/sessions", credential=session).status_code == 403


def test_a_wrong_password_proves_nothing_and_is_recorded(world: World, clock: Clock) -> None:
    someone = world.person()
    session = session_of(someone)
    clock.forward(seconds=10 * MINUTE)

    answer = world.api.ask("POST", "/api/v1/auth/reauthenticate", {"password": "not it at all"}, credential=session)

    assert (answer.status_code, answer.json["code"]) == (403, 403)
    assert world.api.ask("DELETE", "/api/v1/sessions", credential=session).status_code == 403
    assert [event[:3] for event in world.events("session:prove")] == [("refused", someone.email, someone.email)]


def test_wrong_passwords_have_to_wait_like_logins_in_a_row_of_their_own(world: World) -> None:
    """Strangers, who can't give one here, keep nobody from what asks for the password; and here is no way around."""
    someone = world.person()
    session, other = session_of(someone), session_of(someone)

    def prove(password: str, session: str = session) -> int:
        path = "/api/v1/auth/reauthenticate"
        return int(world.api.ask("POST", path, {"password": password}, credential=session).status_code)

    for _ in range(5):
        log_in(replace(someone, password="not it at all"), world.api)
    assert log_in(someone, world.api).status_code == 429
    assert prove(someone.password) == 200

    assert [prove("not it at all") for _ in range(5)] == [403] * 5
    assert (prove(someone.password), prove(someone.password, other)) == (429, 429)


def test_a_hash_that_is_renewed_meanwhile_is_no_wrong_password(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    someone = world.person()
    session = session_of(someone)
    check = passwords.check

    def renewing(*values: Any) -> passwords.Checked:
        checked = check(*values)
        monkeypatch.setattr(passwords, "check", check)
        world.plane.database.run(
            "UPDATE user SET password = ? WHERE id = ?",
            (passwords.hash_opened(world.plane, encode_for_hash(someone.password)), someone.user_id),
        )
        return checked

    monkeypatch.setattr(passwords, "check", renewing)
    proof = {"password": someone.password}

    assert world.api.ask("POST", "/api/v1/auth/reauthenticate", proof, credential=session).status_code == 200


def test_a_login_whose_hash_is_renewed_meanwhile_is_none_with_a_wrong_password(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = world.person()
    check, renewed = passwords.check, passwords.hash_opened(world.plane, encode_for_hash(someone.password))

    def overtaken(*values: Any) -> Any:
        checked = check(*values)
        monkeypatch.setattr(passwords, "check", check)
        accounts.change(world.plane, someone.user_id, password=renewed)
        return checked

    monkeypatch.setattr(passwords, "check", overtaken)

    assert log_in(someone, world.api).json["code"] == 0


def test_the_admin_server_takes_the_password_too(world: World, clock: Clock) -> None:
    session = session_of(world.root, world.admin)
    clock.forward(seconds=10 * MINUTE)
    assert world.admin.ask("DELETE", "/api/v1/sessions", credential=session).status_code == 403

    proof = {"password": world.root.password}
    assert world.admin.ask("POST", "/api/v1/auth/reauthenticate", proof, credential=session).status_code == 200
    assert world.admin.ask("DELETE", "/api/v1/sessions", credential=session).status_code == 200


def test_a_token_has_no_password_to_be_asked_for(world: World, clock: Clock) -> None:
    someone = world.person()
    token = f"Bearer {someone.ask('POST', '/api/v1/system/tokens', {}).json['data']['token']}"
    clock.forward(seconds=HOUR)

    asked = world.api.ask("POST", "/api/v1/auth/reauthenticate", {"password": someone.password}, credential=token)
    assert asked.status_code == 403
    assert world.api.ask("DELETE", "/api/v1/sessions", credential=token).json["data"] == {"ended": 1}
    assert world.api.ask("DELETE", "/api/v1/system/tokens/0", credential=token).json["data"] is True
