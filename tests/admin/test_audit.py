"""``GET /api/v1/admin/audit``: pages by any filter, each read off an index; and what is in the trail by itself."""

from __future__ import annotations

import csv
import json
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO, StringIO
from itertools import combinations
from typing import Any
from urllib.parse import urlencode

import pytest

from common.core.audit_tags import EventTag
from common.core.errors import BadField, StoreUnavailable
from common.services import audit, audit_sealing, audit_trail, memberships, misuse_memory, retired_tokens, tokens
from common.services.plane import Plane
from tests.people import START_MS, Clock, Person, World, new_password
from tests.roles import give_role, make_role
from tests.statements import looked_at, statements
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


def test_what_somebody_put_among_the_names_ends_no_search(busy: Person, plane: Plane) -> None:
    happen(plane, actor="erin@x.test")
    audit_sealing.seal_all(plane)
    plane.database.run("INSERT INTO rk_audit_name (name, part) VALUES ('erin@x.test', 'x')")

    assert [event["actor"] for event in events(busy, q="erin@")] == ["erin@x.test"]


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


def test_an_account_that_was_deleted_is_found_by_its_id_and_not_who_has_its_address_now(
    world: World, root: Person
) -> None:
    first = world.person("ada@x.test")
    first.ask("POST", "/v1/user/setting", {"nickname": "First"})
    root.administer("PUT", f"/users/{first.email}/activate", {"activate_status": "off"})
    assert root.administer("DELETE", f"/users/{first.email}").status_code == 200
    second = world.person("ada@x.test")
    assert second.session

    assert [event["tag"] for event in events(root, actor=first.user_id)] == ["user:update", "session:login"]
    assert [event["tag"] for event in events(root, actor=second.user_id)] == ["session:login"]
    assert len(events(root, actor="ada@x.test")) == 3


def test_an_actor_is_found_by_id_under_every_address_that_it_had(world: World, root: Person, plane: Plane) -> None:
    someone = world.person("before@x.test")
    assert someone.session
    for email in ("between@x.test", "after@x.test"):
        happen(plane, 2, actor="before@x.test", actor_id="another")
        plane.database.run("UPDATE user SET email = ? WHERE id = ?", (email, someone.user_id))
        someone.ask("POST", "/v1/user/setting", {"nickname": email})
    audit_sealing.seal_all(plane)

    found = [(event["actor"], event["tag"]) for event in events(root, actor=someone.user_id)]
    updates = [("after@x.test", "user:update"), ("between@x.test", "user:update")]
    assert found == [*updates, ("before@x.test", "session:login")]
    by_tag = events(root, actor=someone.user_id, tag="user:update")
    assert [(event["actor"], event["tag"]) for event in by_tag] == updates
    assert [event["actor"] for event in events(root, actor=someone.user_id, q="b")] == [
        "between@x.test",
        "before@x.test",
    ]


@pytest.mark.parametrize("q", [None, "user"])
def test_an_actor_of_more_names_than_are_looked_for_is_found_over_pages(
    world: World, root: Person, plane: Plane, monkeypatch: pytest.MonkeyPatch, q: str | None
) -> None:
    monkeypatch.setattr(audit_trail, "_LOOKED_AT", 10)
    for number in range(40):
        happen(plane, actor=f"user{number}@x.test", actor_id="u1")
        happen(plane, actor=f"user{number}@x.test", actor_id="u2")
    audit_sealing.seal_all(plane)

    found = [event["actor"] for event in events(root, actor="u1", q=q)]

    assert found == [f"user{number}@x.test" for number in reversed(range(40))]


@pytest.mark.parametrize("by", ["id", "e-mail"])
def test_what_an_account_did_to_many_names_is_not_looked_for_among_what_others_did(
    world: World, root: Person, plane: Plane, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(audit_trail, "_LOOKED_AT", 10)
    for number in range(20):
        happen(plane, actor=f"user{number % 2}@x.test", actor_id="u1", target=f"member{number}@x.test")
        happen(plane, 3, actor=f"user{number % 2}@x.test", actor_id="u1", target="carol@x.test")
    # In front of those, and between the account's names.
    happen(plane, 40, actor="other@x.test", actor_id="u2", target="member1@x.test")
    happen(plane, actor="user0@x.test", actor_id="u1", target="member20@x.test")
    audit_sealing.seal_all(plane)
    actor, numbers = ("u1", range(21)) if by == "id" else ("user0@x.test", range(0, 21, 2))

    first = page(root, actor=actor, q="member", limit=2)
    found = [event["target"] for event in events(root, actor=actor, q="member")]

    assert [event["target"] for event in first["events"]] == ["member20@x.test", f"member{numbers[-2]}@x.test"]
    assert found == [f"member{number}@x.test" for number in reversed(numbers)]


@pytest.mark.parametrize("query", [{}, {"tag": "user:update"}, {"q": "car"}], ids="+".join)
def test_an_actors_page_costs_no_more_when_the_trail_is_longer(
    plane: Plane, root: Person, query: dict[str, str]
) -> None:
    def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = page(root, actor="u1", limit=10, **query)["events"]
        return found

    for email, actor_id in (("a@x.test", "u0"), ("a@x.test", "u1"), ("b@x.test", "u1"), ("a@x.test", "u2")):
        happen(plane, 15, actor=email, actor_id=actor_id, target="carol@x.test")
    audit_sealing.seal_all(plane)
    assert len(read()) == 10
    of_few = looked_at(plane, read)

    with plane.database.transaction():
        for email, actor_id in (("b@x.test", "u1"), ("a@x.test", "u2")):
            happen(plane, 300, actor=email, actor_id=actor_id, target="carol@x.test")

    assert looked_at(plane, read) <= of_few * 1.5 + FEW


def test_what_somebody_wrote_into_an_event_hides_none_of_the_others(plane: Plane, busy: Person) -> None:
    plane.database.run("UPDATE rk_audit_event SET `after` = '{' WHERE target = 'Dave@x.test'")

    shown = page(busy, target="dave@x.test", limit=1)["events"][0]
    exported = busy.administer("GET", "/audit/export")

    assert shown["after"] == {"unreadable": "'{'"}
    assert exported.status_code == 200


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


@pytest.mark.parametrize("way", ["deleted", "rotated away", "without an owner", "of a member", "made by a RAGFlow"])
def test_a_token_that_is_no_more_and_still_presented_is_in_the_trail(
    world: World, root: Person, clock: Clock, way: str
) -> None:
    someone = world.person()
    made = someone.ask("POST", "/api/v1/system/tokens", {}).json["data"]  # type: ignore[index]
    plane, name, path = world.plane, made["id"], f"/users/{someone.email}/keys/{made['id']}"
    if way == "deleted":
        assert root.administer("DELETE", path).status_code == 200
    elif way == "rotated away":
        assert root.administer("POST", f"{path}/rotate", {"grace_s": 1}).status_code == 200
        clock.forward(seconds=2)
        tokens.retire_expired(plane)
    elif way in ("without an owner", "of a member"):
        org = someone.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]  # type: ignore[index]
        made = someone.ask("POST", "/api/v1/system/tokens", {}, headers={"X-Tenant": org}).json["data"]  # type: ignore[index]
        name = made["id"]
        with plane.database.transaction():
            memberships.add(plane, tenant_id=org, user_id=root.user_id, role="owner", invited_by=someone.user_id)
            if way == "of a member":
                memberships.set_role(plane, org, someone.user_id, "normal")
            else:
                memberships.remove(plane, org, someone.user_id)
    else:
        made["token"], name = "ragflow-abcdefghijklmnopqrstuvwx", "qrstuvwx"
        plane.database.run("INSERT INTO api_token (tenant_id, token) VALUES (?, ?)", (someone.user_id, made["token"]))
        assert root.administer("DELETE", f"/users/{someone.email}/keys/{made['token']}").status_code == 200

    answers = [world.api.ask("GET", "/v1/user/info", credential=f"Bearer {made['token']}") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [401] * 3
    (event,) = events(root, tag="token:misuse")
    assert (event["actor"], event["credential"], event["result"]) == (someone.email, f"token:{name}", "refused")
    lost = "its owner lost the tenant"
    reasons = {"rotated away": "expired", "without an owner": lost, "of a member": lost}
    assert event["after"] == {"reason": reasons.get(way, "deleted")}
    assert made["token"] not in str(plane.database.all("SELECT * FROM rk_retired_token"))


def test_a_token_with_scopes_that_is_no_more_is_in_the_trail_on_either_port(world: World, root: Person) -> None:
    someone = world.person(is_superuser=True)
    for port, path in ((world.api, "/v1/user/info"), (world.admin, "/api/v1/admin/audit")):
        made = someone.ask("POST", "/api/v1/system/tokens", {"scopes": ["read:audit"]}).json["data"]  # type: ignore[index]
        someone.ask("DELETE", f"/api/v1/system/tokens/{made['id']}")

        assert port.ask("GET", path, credential=f"Bearer {made['token']}").status_code == 401

        event = events(root, tag="token:misuse")[0]
        assert (event["actor"], event["credential"], event["target"]) == (
            someone.email,
            f"token:{made['id']}",
            f"GET {path}",
        )
        assert event["after"] == {"reason": "deleted"}


def test_a_token_that_its_owner_deletes_as_it_ends_is_deleted_once(
    world: World, root: Person, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone, plane = world.person(), world.plane
    ids = [
        someone.ask("POST", "/api/v1/system/tokens", {"expires_in": 3600}).json["data"]["id"]  # type: ignore[index]
        for _ in range(2)
    ]
    clock.forward(seconds=3601)
    read = plane.database.all

    def slow(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows = read(sql, params)
        monkeypatch.undo()
        someone.ask("DELETE", f"/api/v1/system/tokens/{ids[0]}")
        return rows

    assert someone.session
    monkeypatch.setattr(plane.database, "all", slow)
    assert tokens.retire_expired(plane) == 1

    deleted = [(event["before"]["id"], event["actor"]) for event in events(root, tag="token:delete")]
    assert deleted == [(ids[1], None), (ids[0], someone.email)]
    kept = dict(plane.database.all("SELECT token_name, reason FROM rk_retired_token"))
    assert kept == {ids[0]: "deleted", ids[1]: "expired"}


def test_whatever_ends_a_token_goes_through_its_tables_in_one_order(world: World, clock: Clock) -> None:
    # Two transactions that wait for each other are a deadlock.
    someone, plane = world.person(), world.plane
    org = someone.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]  # type: ignore[index]
    with plane.database.transaction():
        memberships.add(plane, tenant_id=org, user_id=world.root.user_id, role="owner", invited_by=someone.user_id)

    def make() -> str:
        wish, acting = {"expires_in": 3600}, {"X-Tenant": org}
        answer = someone.ask("POST", "/api/v1/system/tokens", wish, headers=acting)
        return str(answer.json["data"]["id"])  # type: ignore[index]

    def delete(token_id: str) -> None:
        path = f"/api/v1/system/tokens/{token_id}"
        assert someone.ask("DELETE", path, headers={"X-Tenant": org}).json["code"] == 0  # type: ignore[index]

    def expire(_: str) -> None:
        clock.forward(seconds=3601)
        assert tokens.retire_expired(plane) == 1

    def leave(_: str) -> None:
        with plane.database.transaction():
            memberships.remove(plane, org, someone.user_id)

    def tables(end: Callable[[], object]) -> list[str]:
        with statements(plane) as heard:
            end()
        changed = [re.search(r"DELETE FROM [`\"]?(\w*token)\b", each) for each in heard]
        return [found[1] for found in changed if found and found[1] != "rk_refresh_token"]

    in_order = ["api_token", "rk_token", "rk_retired_token"]
    for end in (delete, expire, leave):
        assert tables(partial(end, make())) == in_order, end
    plane.database.run("UPDATE user SET is_active = '0' WHERE id = ?", (someone.user_id,))
    # Of its tenant, and of what the account made elsewhere.
    assert tables(lambda: world.root.administer("DELETE", f"/users/{someone.email}")) == in_order * 2


def test_an_account_that_goes_through_its_dead_tokens_fills_no_trail(
    world: World, root: Person, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(misuse_memory, "MOST_OF_AN_ACCOUNT", 3)
    someone, other = world.person(), world.person()

    def misuse(person: Person, count: int) -> None:
        for _ in range(count):
            made = person.ask("POST", "/api/v1/system/tokens", {}).json["data"]  # type: ignore[index]
            person.ask("DELETE", f"/api/v1/system/tokens/{made['id']}")
            answer = world.api.ask("GET", "/v1/user/info", credential=f"Bearer {made['token']}")
            assert answer.status_code == 401

    misuse(someone, 5)
    misuse(other, 1)
    clock.forward(hours=1)
    misuse(someone, 1)

    found = list(reversed(events(root, tag="token:misuse")))
    assert [event["actor"] for event in found] == [*[someone.email] * 3, other.email, someone.email]
    told = [event["after"].get("more_left_out_until") for event in found]
    assert told == [None, None, "2026-09-21T15:13:20.000Z", None, None]


def test_tokens_that_are_no_more_are_known_for_90_days_or_as_long_as_whom_they_acted_for(
    world: World, root: Person, clock: Clock
) -> None:
    plane, someone, other = world.plane, world.person(), world.person()
    for person in (someone, other):
        made = person.ask("POST", "/api/v1/system/tokens", {}).json["data"]  # type: ignore[index]
        person.ask("DELETE", f"/api/v1/system/tokens/{made['id']}")
    root.administer("PUT", f"/users/{other.email}/activate", {"activate_status": "off"})
    root.administer("DELETE", f"/users/{other.email}")

    assert plane.database.all("SELECT user_id FROM rk_retired_token") == [(someone.user_id,)]
    clock.forward(days=90)
    assert retired_tokens.prune(plane) == 0
    clock.forward(seconds=1)
    assert retired_tokens.prune(plane) == 1
    assert retired_tokens.prune(plane) == 0


def test_a_misuse_says_which_roles_its_account_holds(world: World, root: Person) -> None:
    auditor = world.person()
    give_role(world, auditor, "auditor")
    for person in (auditor, world.person(is_superuser=True)):
        session = person.admin_session
        world.admin.ask("POST", "/api/v1/admin/logout", credential=session)
        world.admin.ask("GET", "/api/v1/admin/users", credential=session)

    assert [event["actor_roles"] for event in events(root, tag="session:misuse")] == [["superuser"], ["auditor"]]


def test_misuses_that_could_not_be_recorded_leave_room_for_one_that_can(
    world: World, root: Person, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(misuse_memory, "MOST_OF_AN_ACCOUNT", 3)

    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("metadata", "down for the test")

    someone = world.person()
    session = someone.session
    world.api.ask("POST", "/v1/user/logout", credential=session)
    with monkeypatch.context() as outage:
        outage.setattr(audit, "record", down)
        for _ in range(4):
            assert world.api.ask("GET", "/v1/user/info", credential=session).status_code == 401
            clock.forward(seconds=10)
    assert events(root, tag="session:misuse") == []

    for _ in range(2):
        assert world.api.ask("GET", "/v1/user/info", credential=session).status_code == 401
    (event,) = events(root, tag="session:misuse")
    assert event["after"] == {"reason": "ended"}


@pytest.mark.parametrize(("scopes", "opens"), [(None, False), (["read:dataset"], False), (["read:audit"], True)])
def test_a_token_that_is_none_of_the_admin_server_is_misused_there(
    world: World, root: Person, scopes: list[str] | None, *, opens: bool
) -> None:
    someone = world.person(is_superuser=True)
    made = someone.ask("POST", "/api/v1/system/tokens", {"scopes": scopes} if scopes else {}).json["data"]  # type: ignore[index]

    answer = world.admin.ask("GET", "/api/v1/admin/audit", credential=f"Bearer {made['token']}")

    assert answer.status_code == (200 if opens else 401)
    found = [(event["actor"], event["credential"]) for event in events(root, tag="token:misuse")]
    assert found == ([] if opens else [(someone.email, f"token:{made['id']}")])


@pytest.mark.parametrize(
    ("way", "reason"), [("ended", "ended"), ("idle", "expired"), ("off", "its account is switched off")]
)
def test_a_refresh_token_of_a_session_that_is_over_is_in_the_trail(
    world: World, root: Person, clock: Clock, way: str, reason: str
) -> None:
    someone = world.person()
    body = {"email": someone.email, "password": someone.password, "grant": "refresh"}
    pair = world.api.ask("POST", "/v1/user/login", body).json["data"]  # type: ignore[index]
    if way == "ended":
        world.api.ask("POST", "/v1/user/logout", credential=f"Bearer {pair['access_token']}")
    elif way == "idle":
        clock.forward(hours=25)
    else:
        world.plane.database.run("UPDATE user SET is_active = '0' WHERE id = ?", (someone.user_id,))

    answer = world.api.ask("POST", "/api/v1/auth/refresh", {"refresh_token": pair["refresh_token"]})

    assert answer.status_code == 401
    (event,) = events(root, tag="session:misuse")
    assert (event["actor"], event["after"], event["target"]) == (
        someone.email,
        {"reason": reason},
        "POST /api/v1/auth/refresh",
    )


@pytest.mark.parametrize("port", ["admin", "user"])
def test_a_wrong_current_password_is_in_the_trail(world: World, root: Person, port: str) -> None:
    someone = world.person(is_superuser=True)
    wrong = {"password": "no such password", "new_password": new_password()}
    if port == "admin":
        path = f"/users/{someone.email}/password"
        answer = someone.administer("PUT", path, wrong)
    else:
        answer = someone.ask("POST", "/v1/user/setting", wrong)

    assert answer.json["code"] in (109, 403)  # type: ignore[index]
    (event,) = events(root, tag="user:password")
    assert (event["result"], event["actor"], event["target"]) == ("refused", someone.email, someone.email)


def test_credentials_that_are_checked_without_a_login_are_in_the_trail(world: World, root: Person) -> None:
    someone = world.person(is_superuser=True)
    basic = b64encode(f"{someone.email}:{someone.password}".encode()).decode()

    assert world.admin.ask("GET", "/api/v1/admin/auth", credential=f"Basic {basic}").status_code == 200

    (event,) = events(root, tag="session:prove")
    assert (event["result"], event["actor"], event["credential"]) == ("ok", someone.email, None)


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


REFUSED = (
    ("PUT", "/users/{other}/admin", "user", "{other}", {"email": "{other}"}),
    ("DELETE", "/users/{other}/sessions/s1", "user", "{other}", {"email": "{other}", "session_id": "s1"}),
    ("DELETE", "/users/{other}/keys/ragflow-abcdefghijklmnopqrstuvwxyz", "user", "{other}", None),
    ("DELETE", "/roles/Auditor", "role", "auditor", {"name": "Auditor"}),
    ("GET", "/settings/limit.invitation/history", "setting", "limit.invitation", {"name": "limit.invitation"}),
    ("DELETE", "/features/new_look", "setting", "feature.new_look", {"name": "new_look"}),
    ("GET", "/tenants/t1/limits", "tenant", "t1", {"tenant_id": "t1"}),
    ("POST", "/jobs/7/retry", "job", "7", {"job_id": "7"}),
    ("DELETE", "/whitelist/a@x.test", "whitelist", "a@x.test", {"email": "a@x.test"}),
    ("PUT", "/whitelist/5", "route", "PUT /api/v1/admin/whitelist/<entry_id>", {"entry_id": "5"}),
    ("DELETE", f"/users/{{other}}/keys/{'0f' * 16}", "user", "{other}", {"email": "{other}", "key": "0f" * 16}),
)


@pytest.mark.parametrize(("method", "path", "kind", "target", "named"), REFUSED)
def test_a_refused_act_is_found_by_whom_it_was_aimed_at(
    world: World, root: Person, method: str, path: str, kind: str, target: str, named: dict[str, str] | None
) -> None:
    operator, other = world.person(), world.person()
    make_role(world, "reader", {"user": ["read"]})
    give_role(world, operator, "reader")

    assert operator.administer(method, path.format(other=other.email), {}).status_code == 403

    (event,) = events(root, tag="access:refused", target=target.format(other=other.email))
    assert (event["result"], event["actor"], event["target_kind"]) == ("refused", operator.email, kind)
    assert event["after"]["route"].startswith(f"{method} /api/v1/admin/")
    if named is None:
        assert event["after"]["named"] == {"email": other.email, "key": "***"}
        assert "abcdefgh" not in str(event)
    else:
        assert event["after"]["named"] == {name: value.format(other=other.email) for name, value in named.items()}


MAIL = {"mail.password": "s3cret"}


@pytest.mark.parametrize(
    ("role", "method", "path", "body", "named"),
    [
        # Refused by the route, and by the rule of a setting, or of the role that is given.
        ("viewer", "PATCH", "/settings", {"settings": MAIL}, {"settings": ["mail.password"]}),
        ("viewer", "PATCH", "/settings", {"settings": {"x" * 300: None}}, {"settings": [f"{'x' * 254}…"]}),
        ("keeper", "PATCH", "/settings", {"settings": MAIL | {"a": 5}}, None),
        (
            "keeper",
            "PATCH",
            "/settings",
            {"settings": MAIL | {"probe.timeout": 5}},
            {"settings": ["mail.password", "probe.timeout"]},
        ),
        ("keeper", "PATCH", "/settings?dry_run=1", {"settings": MAIL}, {"settings": ["mail.password"]}),
        ("keeper", "PUT", "/variables", {"var_name": "mail.password", "var_value": "s3cret"}, {"var_name"}),
        ("viewer", "PUT", "/users/{other}/role", {"role_name": "Auditor"}, {"role_name"}),
        ("keeper", "PUT", "/users/{other}/role", {"role_name": "superuser"}, {"role_name"}),
        ("keeper", "POST", "/users/{other}/roles", {"roles": ["keeper", "auditor"]}, {"roles"}),
        ("keeper", "POST", "/users/{other}/roles", {"role_name": "auditor"}, {"role_name"}),
        ("viewer", "DELETE", "/users/{other}/roles", {"roles": ["auditor"]}, {"roles"}),
        ("viewer", "POST", "/roles", {"role_name": "new", "parents": ["auditor"]}, {"role_name", "parents"}),
        ("keeper", "DELETE", "/roles/keeper?reassign_to=auditor", None, {"reassign_to": "auditor"}),
        ("viewer", "POST", "/features", {"name": "look", "description": "s3cret"}, {"name"}),
        ("viewer", "POST", "/users", {"username": "new@x.test", "password": "s3cret"}, {"username"}),
    ],
)
def test_a_refused_act_says_what_was_asked_for_and_no_value(
    world: World, root: Person, role: str, method: str, path: str, body: Any, named: Any
) -> None:
    operator, other = world.person(), world.person()
    make_role(world, "keeper", {"setting": ["write"], "role": ["assign", "delete"], "user": ["read"]})
    give_role(world, operator, role)

    status = operator.administer(method, path.format(other=other.email), body).status_code

    found = events(root, tag="access:refused")
    assert "s3cret" not in str(found)
    if named is None:
        assert (status, found) == (400, [])
        return
    of_path = {"name": "keeper"} if method == "DELETE" and body is None else {}
    of_path |= {"email": other.email} if "{other}" in path else {}
    asked = named if isinstance(named, dict) else {name: body[name] for name in named}
    assert (status, [event["after"]["named"] for event in found]) == (403, [of_path | asked])


def test_of_very_many_names_the_first_are_in_the_trail(world: World, root: Person) -> None:
    operator = world.person()
    give_role(world, operator, "viewer")

    asked = operator.administer("PATCH", "/settings", {"settings": {f"a.{number:03}": 1 for number in range(150)}})
    garbled = operator.administer("PATCH", "/settings", ["no object"])

    assert (asked.status_code, garbled.status_code) == (403, 403)
    of_garbled, of_asked = events(root, tag="access:refused")
    assert of_asked["after"]["named"] == {"settings": [*(f"a.{number:03}" for number in range(50)), "… and 100 more"]}
    assert "named" not in of_garbled["after"]


def test_however_long_a_name_is_the_refusal_stands_and_so_does_its_event(world: World, root: Person) -> None:
    operator = world.person()
    give_role(world, operator, "service-operator")
    name = "ﷺ" * 3000

    assert operator.administer("DELETE", f"/users/{name}/sessions/{name}").status_code == 403
    assert operator.ask("GET", "/v1/user/tenant_info", headers={"X-Tenant": "x" * 3000}).json["code"] == 109  # type: ignore[index]

    by_tenant, by_path = events(root, tag="access:refused")
    assert (by_path["target"], by_path["after"]["named"]["session_id"]) == (name[:255], f"{name[:254]}…")
    assert by_tenant["after"]["named"] == {"X-Tenant": f"{'x' * 254}…"}


def test_nobody_chooses_by_a_header_on_whom_they_were_refused(world: World, root: Person) -> None:
    operator = world.person()
    give_role(world, operator, "service-operator")

    operator.administer("POST", "/users", {}, headers={"X-Tenant": root.user_id})
    operator.ask("GET", "/v1/user/tenant_info", headers={"X-Tenant": f"{root.email}\x7f"})

    by_user, by_admin = events(root, tag="access:refused")
    assert (by_admin["target_kind"], by_admin["target"]) == ("route", "POST /api/v1/admin/users")
    assert "named" not in by_admin["after"]
    assert (by_user["target_kind"], by_user["target"]) == ("route", "GET /v1/user/tenant_info")
    assert by_user["after"]["named"] == {"X-Tenant": f"{root.email}\\x7f"}


def test_who_may_not_act_in_a_tenant_is_refused_that_and_not_what_the_path_names(world: World, root: Person) -> None:
    owner, stranger = world.person(), world.person()
    path = f"/v1/tenant/{stranger.user_id}/user/list"

    assert stranger.ask("GET", path, headers={"X-Tenant": owner.user_id}).json["code"] == 109  # type: ignore[index]

    (event,) = events(root, tag="access:refused")
    assert (event["target_kind"], event["target"]) == ("tenant", owner.user_id)
    assert event["after"]["named"] == {"X-Tenant": owner.user_id, "tenant_id": stranger.user_id}


def test_a_refused_act_on_a_token_is_found_as_changes_of_it_are(world: World, root: Person) -> None:
    owner, member = world.person(), world.person()
    with world.plane.database.transaction():
        memberships.add(
            world.plane, tenant_id=owner.user_id, user_id=member.user_id, role="normal", invited_by=owner.user_id
        )
    made = owner.ask("POST", "/api/v1/system/tokens", {}).json["data"]  # type: ignore[index]

    named = (made["token"], made["id"], "0f" * 16, "no token")
    for given in named:
        answer = member.ask("DELETE", f"/api/v1/system/tokens/{given}", headers={"X-Tenant": owner.user_id})
        assert answer.json["code"] == 109  # type: ignore[index]
    owner.ask("DELETE", f"/api/v1/system/tokens/{made['id']}")

    (deleted,) = events(root, tag="token:delete")
    token, tenant = ("token", deleted["target"]), ("tenant", owner.user_id)
    found = list(reversed(events(root, tag="access:refused")))
    assert [(event["target_kind"], event["target"]) for event in found] == [token, token, tenant, tenant]
    assert [event["after"]["named"]["token"] for event in found] == ["***", made["id"], "0f" * 16, "***"]
    assert made["token"] not in str(found)


def test_a_refusal_is_in_the_trail_also_where_the_database_takes_not_every_character(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = world.person()
    give_role(world, operator, "service-operator")
    assert operator.admin_session
    run = world.plane.database.run

    def narrow(sql: str, params: Sequence[Any] = ()) -> int:
        # What utf8mb3 takes.
        if any(ord(character) > 0xFFFF for value in params for character in str(value)):
            raise BadField("target: takes not all of these characters.", field="target")
        return run(sql, params)

    monkeypatch.setattr(world.plane.database, "run", narrow)
    assert operator.administer("DELETE", "/users/🦉@x.test").status_code == 403

    (event,) = events(root, tag="access:refused")
    assert event["target"] == "DELETE /api/v1/admin/users/<email>"
    assert event["after"].keys() == {"route", "reason"}


def test_what_a_rule_forbids_everybody_is_in_the_trail_and_a_mere_conflict_is_not(world: World, root: Person) -> None:
    someone = world.person()
    world.set_variable("password.show_reset_link", "true")

    for method, path, body in (
        ("PUT", f"/users/{root.email}/activate", {"activate_status": "off"}),
        ("DELETE", f"/users/{root.email}/admin", None),
        ("DELETE", f"/users/{root.email}", None),
        ("POST", f"/users/{root.email}/reset-link", None),
        ("DELETE", f"/users/{root.email}/roles", {"roles": ["superuser"]}),
        ("DELETE", "/roles/auditor", None),
        ("DELETE", f"/tenants/{someone.user_id}/users", {"email": someone.email}),
        ("POST", "/users", {"username": someone.email, "password": new_password()}),
        ("POST", "/roles", {"role_name": "auditor"}),
        ("DELETE", f"/users/{someone.email}", None),
    ):
        assert root.administer(method, path, body).status_code == 409, path

    found = [(event["result"], event["actor"], event["target"]) for event in events(root, tag="access:refused")]
    refused = ("refused", root.email)
    assert found == [(*refused, someone.user_id), (*refused, "auditor"), *[(*refused, root.email)] * 5]


def test_more_roles_than_there_is_room_for_are_counted(world: World, root: Person) -> None:
    holder = world.person(is_superuser=True)
    names = [f"{number:02}-{'x' * 61}" for number in range(9)]
    for name in names:
        make_role(world, name)
    assert root.administer("POST", f"/users/{holder.email}/roles", {"roles": names}).status_code == 200

    assert holder.session

    (event,) = events(root, tag="session:login", actor=holder.email)
    assert event["actor_roles"][0] == "superuser"
    assert len(event["actor_roles"]) == 5
    assert set(event["actor_roles"][1:-1]) < set(names)
    assert event["actor_roles"][-1] == "… and 6 more"


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


def test_an_export_whose_reader_goes_away_is_an_event_too(plane: Plane, busy: Person) -> None:
    class Pipe(BytesIO):
        def write(self, line: Any, /) -> int:
            if self.tell():
                raise BrokenPipeError
            return super().write(line)

    with pytest.raises(BrokenPipeError):
        audit_trail.export(plane, Pipe(), "csv", from_ms=None, to_ms=None)

    (event,) = events(busy, tag="audit:export")
    assert (event["actor"], event["after"]["events"]) == (None, 0)


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_an_export_as_csv_holds_no_formula(plane: Plane, busy: Person, begins: str) -> None:
    happen(plane, target=f"{begins}cmd|' /C calc'!A0")

    answer = busy.administer("GET", "/audit/export?format=csv")

    rows = list(csv.DictReader(StringIO(answer.get_data(as_text=True), newline="")))
    assert answer.content_type == "text/csv; charset=utf-8"
    assert rows[-1]["target"] == f"'{begins}cmd|' /C calc'!A0"
    assert rows[-1]["mac"]
