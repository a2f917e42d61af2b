"""``GET /api/v1/admin/audit``: pages by any filter, each read off an index; and what is in the trail by itself."""

from __future__ import annotations

import csv
import json
from itertools import combinations
from typing import Any
from urllib.parse import urlencode

import pytest

from common.core.audit_tags import EventTag
from common.services import audit_sealing, audit_trail
from common.services.plane import Plane
from tests.people import START_MS, Clock, Person, World
from tests.statements import looked_at
from tests.trail import happen

FEW = 5


def events(person: Person, **query: Any) -> list[dict[str, Any]]:
    """Every event that a filter finds, gathered from pages of three."""
    found: list[dict[str, Any]] = []
    cursor = None
    for _ in range(200):
        data = page(person, limit=3, cursor=cursor, **query)
        found += data["events"]
        cursor = data["next_cursor"]
        if cursor is None:
            return found
    raise AssertionError("no end of pages")


def page(person: Person, **query: Any) -> dict[str, Any]:
    given = {name.rstrip("_"): value for name, value in query.items() if value is not None}
    answer = person.administer("GET", f"/audit?{urlencode(given)}")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    data: dict[str, Any] = answer.json["data"]  # type: ignore[index]
    return data


@pytest.fixture
def busy(plane: Plane, clock: Clock, root: Person) -> Person:
    """Who may read a trail in which two people did two things to two others, in turn, a second apart."""
    assert root.admin_session
    for number in range(24):
        clock.forward(seconds=1)
        happen(
            plane,
            actor=("Ada@x.test", "bob@x.test")[number % 2],
            tag=(EventTag.USER_UPDATE, EventTag.ROLE_UPDATE)[number // 2 % 2],
            target=("carol@x.test", "Dave@x.test")[number // 4 % 2],
        )
    audit_sealing.seal_all(plane)
    return root


def test_an_event_says_who_did_what_to_whom_from_where(root: Person, clock: Clock) -> None:
    root.administer("POST", "/users", {"username": "new@x.test", "password": "a long enough password"})

    event = page(root, tag="user:create")["events"][0]

    assert event["actor"] == root.email
    assert event["actor_id"] == root.user_id
    assert event["actor_roles"] == ["superuser"]
    assert event["credential"].startswith("session:")
    assert event["address"] == "127.0.0.1"
    assert (event["target_kind"], event["target"]) == ("user", "new@x.test")
    assert event["result"] == "ok"
    assert event["request_id"]
    assert event["at"].endswith("Z")
    assert "a long enough password" not in str(event)


FILTERS: dict[str, tuple[str, Any]] = {
    "actor": ("ada@x.test", lambda event: event["actor"] == "Ada@x.test"),
    "tag": ("role:update", lambda event: event["tag"] == "role:update"),
    "target": ("DAVE@x.test", lambda event: event["target"] == "Dave@x.test"),
    "from_": ("2026-09-21T14:13:27Z", lambda event: event["at"] >= "2026-09-21T14:13:27.000Z"),
    "to": ("2026-09-21T16:13:38+02:00", lambda event: event["at"] < "2026-09-21T14:13:38.000Z"),
    "q": ("Da", lambda event: (event["target"] or "").startswith("Da")),
}
COMBINATIONS = [names for size in range(len(FILTERS) + 1) for names in combinations(FILTERS, size)]


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_a_page_has_exactly_what_its_filters_let_through_newest_first(busy: Person, names: tuple[str, ...]) -> None:
    everything = page(busy, limit=100)["events"]
    assert len(everything) == 25

    found = events(busy, **{name: FILTERS[name][0] for name in names})

    assert found == [event for event in everything if all(FILTERS[name][1](event) for name in names)]
    assert found


def test_a_prefix_finds_actors_and_targets_once_each(busy: Person, plane: Plane) -> None:
    happen(plane, actor="erin@x.test", target="erin@y.test")
    happen(plane, actor="frank@x.test", target="ERIN@x.test")
    audit_sealing.seal_all(plane)

    found = events(busy, q="erin@")

    assert [(event["actor"], event["target"]) for event in found] == [
        ("frank@x.test", "ERIN@x.test"),
        ("erin@x.test", "erin@y.test"),
    ]
    assert events(busy, q="nobody") == []


def test_a_prefix_of_many_names_finds_them_all_over_pages(
    busy: Person, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_trail, "_LOOKED_AT", 10)
    for number in range(40):
        happen(plane, target=f"member{number}@x.test")
    happen(plane, 15, target="other@x.test")
    audit_sealing.seal_all(plane)

    found = events(busy, q="member")

    assert [event["target"] for event in found] == [f"member{number}@x.test" for number in reversed(range(40))]
    first = page(busy, q="member")
    assert first["events"] == []
    assert first["next_cursor"]


def test_an_actor_is_found_by_id_too(busy: Person) -> None:
    assert [event["tag"] for event in events(busy, actor=busy.user_id)] == ["session:login"]
    assert [event["actor"] for event in events(busy, actor="system")] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("from=2026-11-25T08:30:00", "from"),
        ("to=2026-11-25", "to"),
        ("tag=user:none", "tag"),
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
        ("q=", "q"),
        ("from_=2026-11-25T08:30:00Z", "from_"),
        (f"actor={'a' * 256}", "actor"),
    ],
)
def test_a_wrong_filter_is_refused_and_named(root: Person, query: str, field: str) -> None:
    answer = root.administer("GET", f"/audit?{query}", headers={"Accept": "application/problem+json"})

    assert answer.status_code == 400
    assert answer.json["field"] == field  # type: ignore[index]


QUERIES = (
    {},
    {"actor": "ada@x.test"},
    {"tag": "role:update"},
    {"target": "dave@x.test"},
    {"actor": "ada@x.test", "tag": "role:update"},
    {"actor": "ada@x.test", "target": "dave@x.test"},
    {"tag": "role:update", "target": "dave@x.test"},
    {"actor": "ada@x.test", "tag": "role:update", "target": "dave@x.test"},
    {"from_": "2026-09-21T14:13:21Z", "to": "2026-09-21T14:13:40Z"},
    {"q": "da"},
    {"q": "da", "tag": "role:update"},
)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: "+".join(query) or "all")
def test_a_page_costs_no_more_when_the_trail_is_longer(plane: Plane, busy: Person, query: dict[str, str]) -> None:
    def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = page(busy, limit=3, **query)["events"]
        return found

    assert len(read()) == 3
    of_few = looked_at(plane, read)

    with plane.database.transaction():
        for actor in ("ada@x.test", "bob@x.test"):
            for tag in (EventTag.USER_UPDATE, EventTag.ROLE_UPDATE):
                for target in ("carol@x.test", "dave@x.test"):
                    happen(plane, 60, actor=actor, tag=tag, target=target)

    assert looked_at(plane, read) <= of_few * 1.5 + FEW


def test_a_session_that_is_over_and_still_presented_is_in_the_trail_once_in_a_while(
    world: World, root: Person, clock: Clock
) -> None:
    someone = world.person()
    session = someone.session
    world.api.ask("POST", "/v1/user/logout", credential=session)

    for _ in range(3):
        assert world.api.ask("GET", "/v1/user/info", credential=session).status_code == 401
    clock.forward(seconds=601)
    world.api.ask("GET", "/v1/user/info", credential=session)

    found = events(root, tag="session:misuse")
    assert len(found) == 2
    assert (found[0]["result"], found[0]["actor"], found[0]["actor_id"]) == ("refused", someone.email, someone.user_id)
    assert found[0]["credential"].startswith("session:")
    assert found[0]["after"] == {"reason": "ended"}
    assert found[0]["target"] == "GET /v1/user/info"


def test_a_token_that_has_expired_and_one_of_an_account_that_is_off_are_in_the_trail(
    world: World, root: Person
) -> None:
    someone = world.person()
    tokens = [
        someone.ask("POST", "/api/v1/system/tokens", {}).json["data"]["token"]  # type: ignore[index]
        for _ in range(2)
    ]
    stored = world.plane.database.all("SELECT id FROM rk_token ORDER BY created_at, id")
    world.plane.database.run("UPDATE rk_token SET expires_at = ?", (START_MS - 1,))
    answers = [world.api.ask("GET", "/v1/user/info", credential=f"Bearer {token}") for token in tokens]
    root.administer("PUT", f"/users/{someone.email}/activate", {"activate_status": "off"})
    world.api.ask("GET", "/v1/user/info", credential=someone.session)

    assert [answer.status_code for answer in answers] == [401, 401]
    assert sorted(event["credential"] for event in events(root, tag="token:misuse")) == sorted(
        f"token:{token_id}" for (token_id,) in stored
    )
    assert [event["after"]["reason"] for event in events(root, tag="token:misuse")] == ["expired", "expired"]
    (misuse,) = events(root, tag="session:misuse")
    assert misuse["actor"] == someone.email


def test_what_nobody_ever_had_is_no_misuse(world: World, root: Person) -> None:
    world.api.ask("GET", "/v1/user/info", credential="no such thing")

    assert events(root, tag="session:misuse") == []
    assert events(root, tag="token:misuse") == []


def test_a_change_of_a_profile_says_what_was_there_before(world: World, root: Person) -> None:
    someone = world.person(nickname="Before")
    someone.ask("POST", "/v1/user/setting", {"nickname": "After", "avatar": "data:image/png;base64,AAAA"})

    (event,) = events(root, tag="user:update")

    assert event["before"]["nickname"] == "Before"
    assert event["after"] == {"avatar": "26 characters", "nickname": "After"}


def test_switching_an_account_off_says_so_in_values(world: World, root: Person) -> None:
    someone = world.person()
    root.administer("PUT", f"/users/{someone.email}/activate", {"activate_status": "off"})

    (event,) = events(root, tag="user:deactivate")

    assert (event["before"], event["after"]) == ({"is_active": True}, {"is_active": False})


def test_what_is_refused_before_a_generated_password_is_changed_is_in_the_trail(world: World, root: Person) -> None:
    newcomer = world.person(is_superuser=True, must_change=True)

    answer = newcomer.administer("GET", "/users")

    (event,) = events(root, tag="access:refused")
    assert answer.status_code == 403
    assert (event["result"], event["actor"], event["target"]) == ("refused", newcomer.email, "GET /api/v1/admin/users")


def test_an_export_has_every_event_with_its_signature_over_pages_and_is_an_event(plane: Plane, busy: Person) -> None:
    lines: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        further = f"&cursor={cursor}" if cursor else ""
        answer = busy.administer("GET", f"/audit/export?limit=10&to=2026-09-21T14:13:44Z{further}")
        assert answer.status_code == 200
        assert answer.content_type == "application/x-ndjson"
        lines += [json.loads(line) for line in answer.data.splitlines()]
        cursor = answer.headers.get("X-Next-Cursor")

    stored = plane.database.all("SELECT uid, mac FROM rk_audit_event WHERE tag <> 'audit:export' ORDER BY uid")
    assert [(line["id"], line["mac"]) for line in lines] == [tuple(row) for row in stored][: len(lines)]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(events(busy, tag="audit:export")) == 3


def test_an_export_as_csv_holds_no_formula(plane: Plane, busy: Person) -> None:
    happen(plane, target="=cmd|' /C calc'!A0")

    answer = busy.administer("GET", "/audit/export?format=csv")

    rows = list(csv.DictReader(answer.get_data(as_text=True).splitlines()))
    assert answer.content_type == "text/csv; charset=utf-8"
    assert rows[-1]["target"] == "'=cmd|' /C calc'!A0"
    assert rows[-1]["mac"]
