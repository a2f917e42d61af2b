"""Sessions that are opened, refreshed and ended at the same moment, by real threads."""

from __future__ import annotations

from typing import Any

import pytest

from common.core import refresh
from common.models.variable import StoredVariable
from tests.people import Person, World
from tests.side_by_side import Act, at_once

pytestmark = pytest.mark.race


def logging_in(person: Person, **more: Any) -> Act:
    body = {"email": person.email, "password": person.password, **more}
    return lambda: person.world.api.ask("POST", "/api/v1/auth/login", body)


def refreshing(world: World, token: str, answers: list[Any]) -> Act:
    def act() -> Any:
        answer = world.api.ask("POST", "/api/v1/auth/refresh", {"refresh_token": token})
        answers.append(answer)
        return answer

    return act


def open_sessions(world: World, person: Person) -> int:
    row = world.plane.database.one(
        "SELECT COUNT(*) FROM rk_session WHERE user_id = ? AND ended_at IS NULL", (person.user_id,)
    )
    assert row
    return int(row[0])


@pytest.mark.parametrize("most", [1, 3])
def test_logins_at_once_leave_exactly_as_many_sessions_as_there_may_be(world: World, most: int) -> None:
    world.plane.database.insert(StoredVariable, name="session.most", value=str(most), updated_at=0)
    world.plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    for _ in range(3):
        someone = world.person()

        statuses = at_once(world, *[logging_in(someone)] * 4)

        assert statuses == [200] * 4
        assert open_sessions(world, someone) == most


def test_two_pages_that_refresh_in_the_same_moment_both_get_tokens_that_work(world: World) -> None:
    for _ in range(5):
        someone = world.person()
        pair = logging_in(someone, grant="refresh")().json["data"]
        answers: list[Any] = []

        statuses = at_once(world, *[refreshing(world, pair["refresh_token"], answers)] * 2)

        assert statuses == [200, 200]
        assert len({answer.json["data"]["refresh_token"] for answer in answers}) == 2
        for answer in answers:
            given = answer.json["data"]
            assert world.api.ask("GET", "/v1/user/info", credential=given["access_token"]).status_code == 200
            again = world.api.ask("POST", "/api/v1/auth/refresh", {"refresh_token": given["refresh_token"]})
            assert again.status_code == 200
        assert open_sessions(world, someone) == 1
    assert world.events("session:reuse") == []


def test_of_two_that_are_one_too_many_in_the_grace_one_is_taken_for_a_thief(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "MOST_TWINS", 2)
    for _ in range(5):
        token = logging_in(world.person(), grant="refresh")().json["data"]["refresh_token"]
        assert refreshing(world, token, [])().status_code == 200

        statuses = at_once(world, *[refreshing(world, token, [])] * 2)

        assert sorted(statuses) == [200, 401]
    assert len(world.events("session:reuse")) == 5


def test_a_refresh_that_meets_the_end_of_its_account_gives_nothing_that_works(world: World, root: Person) -> None:
    assert root.admin_session
    for _ in range(5):
        someone = world.person()
        pair = logging_in(someone, grant="refresh")().json["data"]
        answers: list[Any] = []

        statuses = at_once(
            world,
            refreshing(world, pair["refresh_token"], answers),
            lambda someone=someone: root.administer(  # type: ignore[misc]
                "PUT", f"/users/{someone.email}/activate", {"activate_status": "off"}
            ),
        )

        assert statuses[0] in (200, 401)
        assert statuses[1] == 200
        for token in [pair["access_token"], *[(each.json["data"] or {}).get("access_token") for each in answers]]:
            assert world.api.ask("GET", "/v1/user/info", credential=token).status_code == 401


def test_a_session_that_is_ended_twice_is_ended_once(world: World) -> None:
    someone = world.person()
    keeper = logging_in(someone)().headers["Authorization"]
    logging_in(someone)()
    page = world.api.ask("GET", "/api/v1/sessions", credential=keeper).json["data"]["sessions"]
    (doomed,) = [one["id"] for one in page if not one["current"]]

    def end() -> Any:
        return world.api.ask("DELETE", f"/api/v1/sessions/{doomed}", credential=keeper)

    assert sorted(at_once(world, end, end)) == [200, 404]
    assert len(world.events("session:end")) == 1


def test_ends_logins_and_uses_that_meet_never_fail(world: World, root: Person, clock: Any) -> None:
    someone = world.person()
    for _ in range(3):
        logging_in(someone)()
    ids = [row[0] for row in world.plane.database.all("SELECT id FROM rk_session")]
    assert root.admin_session

    for number in range(1, 6):
        # Written by a thread of its own, while the others have the same rows in their hands.
        for session_id in ids:
            world.plane.session_uses.note(world.plane.database, session_id, clock() + number)
        statuses = at_once(
            world,
            logging_in(someone),
            lambda: root.administer("DELETE", f"/users/{someone.email}/sessions"),
        )
        world.plane.session_uses.wait(10)

        assert statuses == [200, 200]
        assert all(world.plane.session_uses.unwritten(session_id) == 0 for session_id in ids)
