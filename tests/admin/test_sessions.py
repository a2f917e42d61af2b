"""The sessions of accounts, as administrators see and end them."""

from __future__ import annotations

from typing import Any

import pytest

from common.core.session_limits import PROOF_MS
from common.models.role import RoleHolder
from tests.people import Clock, Person, World


def session_of(person: Person, agent: str = "Agent/1") -> str:
    answer = person.world.api.ask(
        "POST",
        "/v1/user/login",
        {"email": person.email, "password": person.password},
        headers={"User-Agent": agent},
    )
    return str(answer.headers["Authorization"])


def works(world: World, session: str) -> bool:
    return world.api.ask("GET", "/v1/user/info", credential=session).status_code == 200


def give(world: World, person: Person, role: str) -> Person:
    row = world.plane.database.one("SELECT id FROM rk_role WHERE name = ?", (role,))
    assert row
    world.plane.database.insert(RoleHolder, user_id=person.user_id, role_id=row[0], granted_at=0)
    return person


def listed(actor: Person, person: Person, query: str = "") -> Any:
    answer = actor.administer("GET", f"/users/{person.email}/sessions{query}")
    assert answer.status_code == 200, answer.json
    return answer.json["data"]


def test_an_administrator_sees_from_where_an_account_is_logged_in(world: World) -> None:
    someone = world.person()
    session_of(someone, "Phone/1")

    page = listed(world.root, someone)

    (seen,) = page["sessions"]
    assert (seen["agent"], seen["address"], seen["realm"], seen["current"]) == ("Phone/1", "127.0.0.1", "user", False)
    assert [one["current"] for one in listed(world.root, world.root)["sessions"]] == [True]


def test_the_list_is_a_page(world: World) -> None:
    someone = world.person()
    for _ in range(3):
        session_of(someone)

    first = listed(world.root, someone, "?limit=2")
    second = listed(world.root, someone, f"?limit=2&cursor={first['next_cursor']}")

    ids = {one["id"] for one in (*first["sessions"], *second["sessions"])}
    assert (len(ids), second["next_cursor"]) == (3, None)


def test_one_session_is_ended_and_no_other(world: World) -> None:
    someone = world.person()
    lost, kept = session_of(someone, "Lost/1"), session_of(someone, "Kept/1")
    (lost_id,) = [one["id"] for one in listed(world.root, someone)["sessions"] if one["agent"] == "Lost/1"]
    path = f"/users/{someone.email}/sessions/{lost_id}"

    assert world.root.administer("DELETE", path).status_code == 200

    assert (works(world, lost), works(world, kept)) == (False, True)
    assert world.root.administer("DELETE", path).status_code == 404
    assert [event[:3] for event in world.events("session:end")] == [("ok", world.root.email, someone.email)]


def test_all_sessions_are_ended(world: World) -> None:
    someone, other = world.person(), world.person()
    opened, others = [session_of(someone) for _ in range(3)], session_of(other)

    answer = world.root.administer("DELETE", f"/users/{someone.email}/sessions")

    assert answer.json["data"] == {"ended": 3}
    assert not any(works(world, session) for session in opened)
    assert works(world, others)
    assert world.root.administer("DELETE", f"/users/{someone.email}/sessions").json["data"] == {"ended": 0}
    assert len(world.events("session:end")) == 1


def test_a_session_is_found_at_its_own_account_only(world: World) -> None:
    someone, other = world.person(), world.person()
    session = session_of(someone)
    (seen,) = listed(world.root, someone)["sessions"]

    assert world.root.administer("DELETE", f"/users/{other.email}/sessions/{seen['id']}").status_code == 404
    assert world.root.administer("DELETE", f"/users/{other.email}/sessions/current").status_code == 404
    assert works(world, session)


@pytest.mark.parametrize("way", ["one", "all"])
def test_nobody_ends_a_session_of_someone_who_holds_more(world: World, way: str) -> None:
    manager, superior = give(world, world.person(), "user-manager"), world.person(is_superuser=True)
    operator = give(world, world.person(), "service-operator")
    for above in (superior, operator):
        session = session_of(above)
        (seen,) = listed(manager, above)["sessions"]
        path = f"/users/{above.email}/sessions"

        answer = manager.administer("DELETE", path if way == "all" else f"{path}/{seen['id']}")

        assert answer.status_code == 403
        assert works(world, session)
    below = world.person()
    lost = session_of(below)
    assert manager.administer("DELETE", f"/users/{below.email}/sessions").status_code == 200
    assert not works(world, lost)


@pytest.mark.parametrize("every", [True, False])
def test_one_s_own_take_a_password_of_just_now_here_too(world: World, clock: Clock, every: bool) -> None:
    someone, root = world.person(), world.root
    mine, theirs = session_of(root), session_of(someone)
    (shown,) = root.administer("GET", f"/users/{someone.email}/sessions").json["data"]["sessions"]
    below = "/sessions" if every else f"/sessions/{shown['id']}"
    (own,) = [
        each["id"]
        for each in root.administer("GET", f"/users/{root.email}/sessions").json["data"]["sessions"]
        if each["realm"] == "user"
    ]
    clock.forward(seconds=PROOF_MS / 1000)

    refused = root.administer("DELETE", f"/users/{root.email}" + ("/sessions" if every else f"/sessions/{own}"))
    assert (refused.status_code, refused.json["reason"]) == (403, "reauthenticate")
    assert works(world, mine)
    assert root.administer("DELETE", f"/users/{someone.email}{below}").status_code == 200
    assert not works(world, theirs)


def test_an_unknown_account_is_404(world: World) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("DELETE", "/x")):
        answer = world.root.administer(method, f"/users/nobody@x.test/sessions{path}")
        assert answer.status_code == 404
