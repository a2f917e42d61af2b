"""Who can register: by mode, and what those learn who can't."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from common.services import opening, registration
from tests.people import Clock, Person, World, new_password, settings_for

NEW = "new@ragkeeper.test"


def register(world: World, email: str = NEW, **fields: Any) -> TestResponse:
    body = {"nickname": "New One", "email": email, "password": new_password(), **fields}
    return world.api.ask("POST", "/v1/user/register", body)


def code_of(answer: TestResponse) -> int:
    return int(answer.json["code"])


def approvals(root: Person) -> list[dict[str, Any]]:
    return list(root.administer("GET", "/approvals").json["data"]["approvals"])


def shown_as_open(world: World) -> int:
    return int(world.api.ask("GET", "/v1/system/config").json["data"]["registerEnabled"])


def test_anybody_can_register_unless_something_says_otherwise(world: World) -> None:
    assert code_of(register(world)) == 0
    assert shown_as_open(world) == 1


def test_a_closed_registration_lets_nobody_in_and_says_so_at_the_login(world: World) -> None:
    world.set_variable("registration.mode", "closed")

    answer = register(world)

    assert (code_of(answer), "registration is disabled" in answer.json["message"]) == (103, True)
    assert shown_as_open(world) == 0


def test_the_environment_closes_it_whatever_the_setting_says(tmp_path: Path, clock: Clock) -> None:
    plane = opening.open_plane(settings_for(tmp_path / "home", REGISTER_ENABLED="0"), now_ms=clock)
    world = World(plane)
    world.set_variable("registration.mode", "open")

    assert code_of(register(world)) == 103
    assert shown_as_open(world) == 0
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


@pytest.fixture(params=["mode", "RAGFlow's setting"])
def listing(request: pytest.FixtureRequest, world: World, root: Person) -> World:
    """A world in which only listed addresses register, by either setting."""
    if request.param == "mode":
        world.set_variable("registration.mode", "whitelist")
    else:
        world.set_variable("enable_whitelist", "true")
    for pattern in ("alice@example.org", "@example.net"):
        root.administer("POST", "/whitelist/add", {"email": pattern})
    return world


@pytest.mark.parametrize("email", ["alice@example.org", "ALICE@Example.ORG", "whoever@example.net"])
def test_listed_addresses_and_those_of_listed_domains_can_register(listing: World, email: str) -> None:
    assert code_of(register(listing, email)) == 0


@pytest.mark.parametrize("email", ["bob@example.org", "alice@sub.example.net", "alice@example.org.test"])
def test_others_can_t_and_a_known_address_is_answered_like_an_unknown_one(listing: World, email: str) -> None:
    unknown = register(listing, email)
    listing.person(email)
    known = register(listing, email)

    assert (unknown.status_code, code_of(unknown)) == (200, 103)
    assert known.get_data() == unknown.get_data()


def test_an_address_that_is_taken_off_the_list_keeps_its_account(listing: World, root: Person) -> None:
    password = new_password()
    register(listing, "alice@example.org", password=password)
    root.administer("DELETE", "/whitelist/alice@example.org")

    login = {"email": "alice@example.org", "password": password}
    assert code_of(listing.api.ask("POST", "/v1/user/login", login)) == 0
    assert code_of(register(listing, "alice@example.org")) == 103


def test_only_who_is_invited_can_register_where_that_is_asked_for(world: World, clock: Clock) -> None:
    owner = world.person()
    owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": NEW})
    world.set_variable("registration.mode", "invitation")

    assert code_of(register(world, "other@ragkeeper.test")) == 103
    assert code_of(register(world, "NEW@ragkeeper.test")) == 0
    owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": "late@ragkeeper.test"})
    clock.forward(days=8)
    assert code_of(register(world, "late@ragkeeper.test")) == 103


def test_R34_the_white_list_holds_in_every_mode_where_ragflows_setting_says_so(world: World) -> None:
    world.set_variable("enable_whitelist", "true")
    world.set_variable("registration.mode", "approval")

    assert code_of(register(world)) == 103


@pytest.fixture
def approving(world: World) -> Iterator[World]:
    """A world in which an administrator has to agree."""
    world.set_variable("registration.mode", "approval")
    return world


def test_who_awaits_approval_has_no_account_and_can_t_log_in(approving: World, root: Person) -> None:
    password = new_password()
    answer = register(approving, password=password)

    assert (code_of(answer), answer.json["data"]) == (0, {"awaits_approval": True})
    assert "Authorization" not in answer.headers
    refused = approving.api.ask("POST", "/v1/user/login", {"email": NEW, "password": password})
    nobody = approving.api.ask("POST", "/v1/user/login", {"email": "nobody@ragkeeper.test", "password": password})
    assert refused.get_data() == nobody.get_data()
    assert root.administer("GET", f"/users/{NEW}").status_code == 404
    (waiting,) = approvals(root)
    assert waiting.keys() == {"id", "email", "nickname", "address", "created_at", "expires_at"}
    assert (waiting["email"], waiting["nickname"], waiting["address"]) == (NEW, "New One", "127.0.0.1")


def test_known_pending_and_unknown_addresses_are_answered_alike(approving: World, root: Person) -> None:
    known = approving.person()

    answers = [register(approving, email) for email in (known.email, NEW, NEW, "other@ragkeeper.test")]

    assert len({answer.get_data() for answer in answers}) == 1
    assert len({tuple(sorted(name for name, _ in answer.headers)) for answer in answers}) == 1
    assert [waiting["email"] for waiting in approvals(root)] == [NEW, "other@ragkeeper.test"]
    assert [event[0] for event in approving.events("user:register")] == ["refused", "refused"]


def test_the_first_who_asks_for_an_address_gets_it(approving: World, root: Person) -> None:
    first, second = new_password(), new_password()
    for password in (first, second):
        register(approving, password=password)
    (waiting,) = approvals(root)

    assert root.administer("POST", f"/approvals/{waiting['id']}/approve").json["data"]["email"] == NEW
    codes = [
        code_of(approving.api.ask("POST", "/v1/user/login", {"email": NEW, "password": password}))
        for password in (first, second)
    ]
    assert codes == [0, 109]


def test_an_approved_account_is_like_any_other(approving: World, root: Person) -> None:
    owner, password = approving.person(), new_password()
    owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": NEW})
    register(approving, password=password)
    (waiting,) = approvals(root)

    answer = root.administer("POST", f"/approvals/{waiting['id']}/approve")

    made = Person(approving, NEW, password, answer.json["data"]["id"])
    assert made.ask("GET", "/v1/user/tenant_info").json["data"]["role"] == "owner"
    roles = {row["tenant_id"]: row["role"] for row in made.ask("GET", "/v1/tenant/list").json["data"]}
    assert roles == {made.user_id: "owner", owner.user_id: "invite"}
    assert approvals(root) == []
    assert [event[:3] for event in approving.events("registration:approve")] == [("ok", root.email, NEW)]


def test_a_rejected_one_is_gone_and_may_ask_again(approving: World, root: Person) -> None:
    register(approving)
    (waiting,) = approvals(root)

    assert root.administer("POST", f"/approvals/{waiting['id']}/reject").status_code == 200
    assert approvals(root) == []
    assert [event[:3] for event in approving.events("registration:reject")] == [("ok", root.email, NEW)]
    assert root.administer("GET", f"/users/{NEW}").status_code == 404
    register(approving)
    assert len(approvals(root)) == 1


@pytest.mark.parametrize("decision", ["approve", "reject"])
@pytest.mark.parametrize("number", ["0", "77", "x", "9" * 30])
def test_a_decision_on_nobody_is_404(approving: World, root: Person, decision: str, number: str) -> None:
    assert root.administer("POST", f"/approvals/{number}/{decision}").status_code == 404


def test_who_got_an_account_meanwhile_is_a_conflict(approving: World, root: Person) -> None:
    register(approving)
    (waiting,) = approvals(root)
    approving.person(NEW)

    answer = root.administer("POST", f"/approvals/{waiting['id']}/approve")

    assert (answer.status_code, "already exists" in answer.json["message"]) == (409, True)
    assert len(approvals(root)) == 1
    assert root.administer("POST", f"/approvals/{waiting['id']}/reject").status_code == 200


def test_nobody_waits_for_ever(approving: World, root: Person, clock: Clock) -> None:
    register(approving)
    (waiting,) = approvals(root)
    clock.forward(days=15)
    again = Person(approving, root.email, root.password, root.user_id)

    assert approvals(again) == []
    assert again.administer("POST", f"/approvals/{waiting['id']}/approve").status_code == 404
    assert registration.prune(approving.plane) == 1
    assert registration.prune(approving.plane) == 0


def test_an_expired_one_makes_room_for_the_next(approving: World, root: Person, clock: Clock) -> None:
    register(approving)
    clock.forward(days=15)
    register(approving, nickname="Another")

    again = Person(approving, root.email, root.password, root.user_id)
    assert [waiting["nickname"] for waiting in approvals(again)] == ["Another"]


def test_approvals_come_by_page_in_the_order_they_were_asked_for(approving: World, root: Person) -> None:
    for number in range(5):
        register(approving, f"u{number}@ragkeeper.test")
    first = root.administer("GET", "/approvals?limit=3").json["data"]
    second = root.administer("GET", f"/approvals?limit=3&cursor={first['next_cursor']}").json["data"]

    names = [waiting["email"] for page in (first, second) for waiting in page["approvals"]]
    assert names == [f"u{number}@ragkeeper.test" for number in range(5)]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("mode", ["whitelist", "invitation", "approval", "closed"])
def test_administrators_create_accounts_in_every_mode(world: World, root: Person, mode: str) -> None:
    world.set_variable("registration.mode", mode)

    body = {"username": NEW, "password": new_password()}
    assert root.administer("POST", "/users", body).status_code == 200
