"""Refresh tokens: short-lived access tokens for clients that ask for them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.people import Clock, Person, Port, World, new_password

DAY = 86_400


def log_in(person: Person, port: Port | None = None) -> Any:
    port = port or person.world.api
    path = "/api/v1/admin/login" if port.app.name.endswith("admin") else "/api/v1/auth/login"
    return port.ask("POST", path, {"email": person.email, "password": person.password, "grant": "refresh"})


def pair_of(person: Person, port: Port | None = None) -> dict[str, Any]:
    answer = log_in(person, port)
    assert answer.status_code == 200, answer.json
    return dict(answer.json["data"])


def refresh(port: Port, token: str) -> Any:
    return port.ask("POST", "/api/v1/auth/refresh", {"refresh_token": token})


def refreshed(port: Port, token: str) -> dict[str, Any]:
    answer = refresh(port, token)
    assert answer.status_code == 200, answer.json
    return dict(answer.json["data"])


def works(port: Port, pair: dict[str, Any]) -> bool:
    path = "/api/v1/sessions"
    return port.ask("GET", path, credential=f"Bearer {pair['access_token']}").status_code == 200


def test_a_client_that_asks_gets_an_access_token_of_fifteen_minutes_and_a_refresh_token(
    world: World, clock: Clock
) -> None:
    someone = world.person()
    answer = log_in(someone)
    pair = answer.json["data"]

    assert (pair["token_type"], pair["expires_in"]) == ("Bearer", 900)
    assert answer.headers["Authorization"] == pair["access_token"]
    assert pair["email"] == someone.email
    (listed,) = world.api.ask("GET", "/api/v1/sessions", credential=pair["access_token"]).json["data"]["sessions"]
    assert (listed["kind"], listed["current"]) == ("refresh", True)
    clock.forward(seconds=899)
    assert works(world.api, pair)
    clock.forward(seconds=1)
    assert not works(world.api, pair)


def test_who_does_not_ask_gets_one_token_as_ever(world: World) -> None:
    someone = world.person()
    answer = world.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": someone.password})

    assert "refresh_token" not in answer.json["data"]
    assert "access_token" not in answer.json["data"]


@pytest.mark.parametrize("server", ["admin", "api"])
def test_both_servers_refresh_what_either_gave(world: World, clock: Clock, server: str) -> None:
    here, there = (world.admin, world.api) if server == "admin" else (world.api, world.admin)
    pair = pair_of(world.root, here)
    clock.forward(seconds=900)

    second = refreshed(there, pair["refresh_token"])
    third = refreshed(here, second["refresh_token"])

    assert works(here, second)
    assert works(there, third)
    assert len({each["refresh_token"] for each in (pair, second, third)}) == 3


def test_the_admin_server_refreshes_for_administrators_only(world: World) -> None:
    pair = pair_of(world.person())

    assert refresh(world.admin, pair["refresh_token"]).status_code == 403
    assert [event[0] for event in world.events("session:login_refused")] == ["refused"]
    assert works(world.api, refreshed(world.api, pair["refresh_token"]))


def test_two_pages_that_refresh_at_once_go_on_side_by_side(world: World, clock: Clock) -> None:
    first = pair_of(world.person())["refresh_token"]
    one = refreshed(world.api, first)
    clock.forward(seconds=10)
    other = refreshed(world.api, first)

    for _ in range(3):
        clock.forward(seconds=600)
        one, other = refreshed(world.api, one["refresh_token"]), refreshed(world.api, other["refresh_token"])
        assert works(world.api, one)
        assert works(world.api, other)


def test_a_token_that_is_used_again_later_ends_the_session_and_is_recorded(world: World, clock: Clock) -> None:
    someone = world.person()
    stolen = pair_of(someone)["refresh_token"]
    other = pair_of(someone)
    owner = refreshed(world.api, stolen)
    clock.forward(seconds=11)

    assert refresh(world.api, stolen).status_code == 401

    assert not works(world.api, owner)
    assert refresh(world.api, owner["refresh_token"]).status_code == 401
    assert works(world.api, other)
    assert [event[:3] for event in world.events("session:reuse")] == [("refused", someone.email, someone.email)]
    trail = str(world.plane.database.all("SELECT * FROM rk_audit_event"))
    assert stolen not in trail
    assert owner["access_token"] not in trail


@pytest.mark.parametrize("later_s", [11, 3600])
def test_a_token_that_is_used_again_ends_the_session_also_where_that_opens_nothing(
    world: World, clock: Clock, later_s: float
) -> None:
    stolen = pair_of(world.person())["refresh_token"]
    owner = refreshed(world.api, stolen)
    clock.forward(seconds=later_s)

    assert refresh(world.admin, stolen).status_code == 401

    assert refresh(world.api, owner["refresh_token"]).status_code == 401
    assert [event[0] for event in world.events("session:reuse")] == ["refused"]


def test_who_still_refreshes_a_session_that_is_over_is_in_the_trail(world: World, clock: Clock) -> None:
    someone = world.person()
    ended, idle = pair_of(someone), pair_of(someone)
    world.api.ask("POST", "/v1/user/logout", credential=ended["access_token"])
    assert [refresh(world.api, ended["refresh_token"]).status_code for _ in range(2)] == [401, 401]
    clock.forward(seconds=DAY + 61)
    assert refresh(world.admin, idle["refresh_token"]).status_code == 401

    assert world.events("session:misuse") == [
        ("refused", someone.email, "POST /api/v1/auth/refresh", None, f'{{"reason":"{reason}"}}')
        for reason in ("ended", "expired")
    ]


def test_a_token_of_an_older_generation_is_reuse_at_once(world: World) -> None:
    first = pair_of(world.person())["refresh_token"]
    second = refreshed(world.api, first)
    third = refreshed(world.api, second["refresh_token"])

    assert refresh(world.api, first).status_code == 401
    assert not works(world.api, third)


def test_a_token_whose_row_is_long_gone_is_still_known_for_reuse(world: World, clock: Clock) -> None:
    first = pair_of(world.person())
    token = first["refresh_token"]
    for _ in range(5):
        clock.forward(seconds=901)
        pair = refreshed(world.api, token)
        token = pair["refresh_token"]
    assert world.plane.database.one("SELECT COUNT(*) FROM rk_refresh_token") == (2,)

    assert refresh(world.api, first["refresh_token"]).status_code == 401

    assert not works(world.api, pair)
    assert len(world.events("session:reuse")) == 1


def test_refreshing_keeps_the_session_from_being_idle_but_not_beyond_its_absolute_limit(
    world: World, clock: Clock
) -> None:
    token = pair_of(world.person())["refresh_token"]
    for _ in range(30):
        clock.forward(seconds=DAY - 1)
        pair = refreshed(world.api, token)
        token = pair["refresh_token"]
    assert works(world.api, pair)

    clock.forward(seconds=30)

    assert not works(world.api, pair)
    assert refresh(world.api, token).status_code == 401


def test_an_access_token_is_good_for_its_time_however_often_its_session_is_refreshed(
    world: World, clock: Clock
) -> None:
    first = pair_of(world.person())
    pair = first
    for _ in range(3):
        clock.forward(seconds=200)
        pair = refreshed(world.api, pair["refresh_token"])

    assert works(world.api, first)


def test_a_session_that_is_idle_for_the_admin_server_is_not_refreshed_there(world: World, clock: Clock) -> None:
    token = pair_of(world.root)["refresh_token"]
    clock.forward(seconds=32 * 60)

    assert refresh(world.admin, token).status_code == 401
    assert refresh(world.api, token).status_code == 200


def test_an_idle_session_is_not_refreshed(world: World, clock: Clock) -> None:
    token = pair_of(world.person())["refresh_token"]
    clock.forward(seconds=DAY + 61)

    assert refresh(world.api, token).status_code == 401


@pytest.mark.parametrize("act", ["deactivate", "password", "logout", "end", "delete", "by RAGFlow"])
def test_nothing_is_refreshed_for_an_account_or_session_that_is_over(world: World, act: str) -> None:
    someone = world.person()
    pair = pair_of(someone)
    path = f"/users/{someone.email}"
    if act == "password":
        world.root.administer("PUT", f"{path}/password", {"new_password": new_password()})
    if act in ("deactivate", "delete"):
        world.root.administer("PUT", f"{path}/activate", {"activate_status": "off"})
    if act == "delete":
        assert world.root.administer("DELETE", path).status_code == 200
        assert world.plane.database.one("SELECT COUNT(*) FROM rk_refresh_token") == (0,)
    if act == "logout":
        world.api.ask("POST", "/v1/user/logout", credential=pair["access_token"])
    if act == "by RAGFlow":
        world.plane.database.run("UPDATE user SET is_active = '0' WHERE id = ?", (someone.user_id,))
    if act == "end":
        world.root.administer("DELETE", f"{path}/sessions")

    assert not works(world.api, pair)
    assert refresh(world.api, pair["refresh_token"]).status_code == 401
    assert world.events("session:reuse") == []


def test_no_token_is_good_for_what_the_other_is(world: World) -> None:
    pair = pair_of(world.root)
    family = pair["refresh_token"].partition(".")[0].removeprefix("rkr_")

    for credential in (pair["refresh_token"], family, f"refresh{family}"):
        assert world.api.ask("GET", "/api/v1/sessions", credential=credential).status_code == 401
        assert world.admin.ask("GET", "/api/v1/sessions", credential=credential).status_code == 401
    for token in (pair["access_token"], world.root.session, "", "rkr_x", f"rkr_{family}.", "x" * 256):
        assert refresh(world.api, token).status_code == 401
    assert works(world.api, pair)


def test_a_made_up_token_of_a_known_family_counts_as_reuse(world: World) -> None:
    pair = pair_of(world.person())
    made_up = f"{pair['refresh_token'].partition('.')[0]}.{'x' * 43}"

    assert refresh(world.api, made_up).status_code == 401
    assert not works(world.api, pair)


def test_the_password_that_is_given_again_counts_for_all_tokens_of_the_session(world: World, clock: Clock) -> None:
    someone = world.person()
    pair = refreshed(world.api, pair_of(someone)["refresh_token"])
    clock.forward(seconds=600)
    assert world.api.ask("DELETE", "/api/v1/sessions", credential=pair["access_token"]).status_code == 403

    proof = {"password": someone.password}
    world.api.ask("POST", "/api/v1/auth/reauthenticate", proof, credential=pair["access_token"])

    later = refreshed(world.api, pair["refresh_token"])
    assert world.api.ask("DELETE", "/api/v1/sessions", credential=later["access_token"]).status_code == 200


def test_an_access_token_is_authenticated_with_exactly_one_statement(world: World) -> None:
    from tests.statements import statements

    pair = pair_of(world.person())

    def read() -> None:
        answer = world.api.ask("GET", "/v1/system/version", credential=pair["access_token"])
        assert answer.status_code == 200

    read()
    with statements(world.plane) as heard:
        read()

    assert len(heard) == 1


@pytest.mark.parametrize("body", [{"grant": "password"}, {"grant": 1}, {"grant": "refresh", "cookie": True}])
def test_a_wish_that_can_not_be_met_is_refused_and_named(world: World, body: dict[str, Any]) -> None:
    root = world.root
    asked = {"email": root.email, "password": root.password, **body}

    answers = [
        world.admin.ask("POST", "/api/v1/admin/login", asked),
        world.api.ask("POST", "/api/v1/auth/login", asked),
    ]

    assert [answer.status_code for answer in answers] == [400, 200]
    assert answers[1].json["code"] == 101
    assert all(list(body)[-1] in answer.json["message"] for answer in answers)
    assert world.plane.database.one("SELECT COUNT(*) FROM rk_session") == (0,)


def test_tokens_go_with_the_session_when_that_is_pruned(world: World, clock: Clock) -> None:
    from common.services import sessions

    pair_of(world.person())
    clock.forward(days=38)

    assert sessions.prune(world.plane) == 1
    for table in ("rk_refresh_token", "rk_session_trait"):
        assert world.plane.database.one(f"SELECT COUNT(*) FROM {table}") == (0,)
