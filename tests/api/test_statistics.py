"""Statistics of conversations, as far as there are any."""

from __future__ import annotations

import pytest

from common.models.content import UserCanvas
from tests.people import Clock, Person, World

PATHS = ["/v1/api/stats", "/api/v1/system/stats"]
MEASURES = ("pv", "uv", "speed", "tokens", "round", "thumb_up")
EMPTY: dict[str, list[object]] = {measure: [] for measure in MEASURES}


@pytest.fixture
def someone(world: World) -> Person:
    return world.person()


@pytest.fixture
def ragflow(world: World) -> World:
    """A world in whose database RAGFlow keeps its conversations."""
    database = world.plane.database
    database.run("CREATE TABLE dialog (id VARCHAR(32), tenant_id VARCHAR(32))")
    database.run(
        "CREATE TABLE api_4_conversation (dialog_id VARCHAR(32), user_id VARCHAR(255), tokens INT, duration REAL, "
        "round INT, thumb_up INT, create_date DATETIME)"
    )
    return world


def talk(world: World, dialog_id: str, at: str, *, user: str = "u", tokens: int = 0) -> None:
    world.plane.database.run(
        "INSERT INTO api_4_conversation VALUES (?, ?, ?, 9.9, 4, 1, ?)", (dialog_id, user, tokens, at)
    )


@pytest.mark.parametrize("path", PATHS)
def test_without_conversations_every_list_is_empty(someone: Person, path: str) -> None:
    assert someone.ask("GET", path).json == {"code": 0, "message": "success", "data": EMPTY}
    assert someone.ask("GET", f"{path}?from_date=2026-01-01&to_date=2026-01-01&canvas_id=x").json["data"] == EMPTY


@pytest.mark.parametrize("path", PATHS)
def test_days_are_summed_over_ones_own_dialogs(ragflow: World, someone: Person, path: str) -> None:
    other = ragflow.person()
    for dialog_id, tenant_id in (("mine", someone.user_id), ("theirs", other.user_id)):
        ragflow.plane.database.run("INSERT INTO dialog VALUES (?, ?)", (dialog_id, tenant_id))
    talk(ragflow, "mine", "2026-01-02 00:00:00", tokens=500)
    talk(ragflow, "mine", "2026-01-02 23:59:59", user="v", tokens=1500)
    talk(ragflow, "mine", "2026-01-03 00:00:00")
    talk(ragflow, "mine", "2026-01-01 23:59:59")
    talk(ragflow, "theirs", "2026-01-02 12:00:00")

    days = someone.ask("GET", f"{path}?from_date=2026-01-02&to_date=2026-01-02").json["data"]

    assert days == {
        "pv": [["2026-01-02", 2]], "uv": [["2026-01-02", 2]], "speed": [["2026-01-02", pytest.approx(2000 / 19.9)]],
        "tokens": [["2026-01-02", 2.0]], "round": [["2026-01-02", 4.0]], "thumb_up": [["2026-01-02", 2]],
    }  # fmt: skip


def test_the_last_seven_days_are_the_default(ragflow: World, someone: Person, clock: Clock) -> None:
    ragflow.plane.database.run("INSERT INTO dialog VALUES ('mine', ?)", (someone.user_id,))
    for at in ("2026-09-12 12:00:00", "2026-09-15 12:00:00", "2026-09-20 12:00:00"):
        talk(ragflow, "mine", at)

    assert [day for day, _ in someone.ask("GET", PATHS[0]).json["data"]["pv"]] == ["2026-09-15", "2026-09-20"]


def test_an_agents_numbers_are_its_owners_alone(ragflow: World, someone: Person) -> None:
    ragflow.plane.database.insert(UserCanvas, id="agent", user_id=someone.user_id, title="Mine")
    talk(ragflow, "agent", "2026-09-20 12:00:00")
    query = f"{PATHS[0]}?canvas_id=agent"

    assert someone.ask("GET", query).json["data"]["pv"] == [["2026-09-20", 1]]
    assert ragflow.person().ask("GET", query).json["data"] == EMPTY


@pytest.mark.parametrize(
    "query", ["from_date=yesterday", "to_date=2026-13-01", "from_date=", "from_date=2026-02-02&to_date=2026-02-01"]
)
def test_dates_that_make_no_sense_are_101(someone: Person, query: str) -> None:
    answer = someone.ask("GET", f"{PATHS[1]}?{query}").json

    assert answer["code"] == 101
    assert "date" in answer["message"]


def test_someone_without_a_tenant_is_told_so(world: World, someone: Person) -> None:
    world.plane.database.run("DELETE FROM user_tenant WHERE user_id = ?", (someone.user_id,))

    assert someone.ask("GET", PATHS[0]).json["code"] == 102
