"""How much a tenant may have: set by administrators, held to where members and tokens are added."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest

from common.services import tenant_limits
from tests.people import Clock, Person, World
from tests.roles import give_role
from tests.side_by_side import at_once, begun_at_once

NONE = {"members": None, "tokens": None, "datasets": None, "requests_per_minute": None}
UNLIMITED = {"members": 0, "tokens": 0, "datasets": 0, "requests_per_minute": 0}


def limit(world: World, tenant_id: str, **limits: int | None) -> Any:
    answer = world.root.administer("PUT", f"/tenants/{tenant_id}/limits", limits)
    assert answer.status_code == 200, answer.json
    return answer.json["data"]


def invite(owner: Person, guest: Person | str) -> Any:
    email = guest if isinstance(guest, str) else guest.email
    return owner.ask("POST", f"/api/v1/tenants/{owner.user_id}/users", {"email": email})


def agree(owner: Person, guest: Person) -> Any:
    return guest.ask("PATCH", f"/api/v1/tenants/{owner.user_id}")


def new_token(person: Person) -> Any:
    return person.ask("POST", "/api/v1/system/tokens", {})


@pytest.fixture
def owner(world: World) -> Person:
    return world.person()


def test_a_tenant_has_no_limits_at_first_and_what_it_has_is_counted(world: World, owner: Person) -> None:
    new_token(owner)

    assert world.root.administer("GET", f"/tenants/{owner.user_id}/limits").json["data"] == {
        "tenant_id": owner.user_id,
        "limits": UNLIMITED,
        "own": NONE,
        "defaults": UNLIMITED,
        "used": {"members": 1, "tokens": 1, "datasets": 0},
    }


def test_own_limits_come_before_the_defaults_and_null_goes_back(world: World, owner: Person) -> None:
    answer = world.root.administer("PUT", "/limits/defaults", {"members": 5, "tokens": 3})
    assert answer.json["data"] == UNLIMITED | {"members": 5, "tokens": 3}
    assert world.root.administer("GET", "/limits/defaults").json["data"] == answer.json["data"]

    assert limit(world, owner.user_id, members=2, datasets=0)["limits"] == UNLIMITED | {"members": 2, "tokens": 3}
    assert limit(world, owner.user_id, tokens=0)["own"] == NONE | {"members": 2, "datasets": 0, "tokens": 0}
    assert limit(world, owner.user_id, **NONE)["own"] == NONE
    assert world.plane.database.all("SELECT * FROM rk_tenant_limit") == []


def test_changes_are_audited_and_none_is_no_event(world: World, owner: Person) -> None:
    limit(world, owner.user_id, members=2)
    limit(world, owner.user_id, members=2)

    [event] = world.events("tenant:limits")
    assert event[:3] == ("ok", world.root.email, owner.user_id)
    assert '"members":2' in event[4]


@pytest.mark.parametrize("value", [-1, "many", 1.5, True, 2**40])
def test_what_is_no_number_of_things_is_refused(world: World, owner: Person, value: Any) -> None:
    for path in (f"/tenants/{owner.user_id}/limits", "/limits/defaults"):
        answer = world.root.administer("PUT", path, {"members": value})
        assert (answer.status_code, "members" in answer.json["message"]) == (400, True)


def test_an_unknown_tenant_is_404_and_a_superiors_is_refused(world: World, owner: Person) -> None:
    assert world.root.administer("GET", "/tenants/none/limits").status_code == 404
    assert world.root.administer("PUT", "/tenants/none/limits", {"members": 1}).status_code == 404
    manager = world.person()
    give_role(world, manager, "user-manager")

    assert manager.administer("PUT", f"/tenants/{owner.user_id}/limits", {"members": 3}).status_code == 200
    assert manager.administer("PUT", f"/tenants/{world.root.user_id}/limits", {"members": 3}).status_code == 403


def test_members_read_the_limits_of_their_tenant_and_strangers_do_not(world: World, owner: Person) -> None:
    guest, stranger = world.person(), world.person()
    invite(owner, guest)
    limit(world, owner.user_id, requests_per_minute=60)
    path = f"/api/v1/tenants/{owner.user_id}/limits"
    assert guest.ask("GET", path).status_code == 403, "who is only invited is no member"
    agree(owner, guest)

    for person in (owner, guest):
        answer = person.ask("GET", path)
        assert (answer.status_code, answer.json["data"]["limits"]["requests_per_minute"]) == (200, 60)
    assert stranger.ask("GET", path).status_code == 403


# Held to


def test_nobody_is_added_or_invited_beyond_the_limit_of_members(world: World, owner: Person) -> None:
    limit(world, owner.user_id, members=2)
    first, second = world.person(), world.person()
    path = f"/tenants/{owner.user_id}/users"
    assert world.root.administer("POST", path, {"email": first.email, "role": "normal"}).status_code == 200

    refused = world.root.administer("POST", path, {"email": second.email, "role": "owner"})
    uninvited, unknown = invite(owner, second), invite(owner, "nobody@ragkeeper.test")

    assert (refused.status_code, refused.json["code"]) == (409, 409)
    assert refused.json["message"].startswith("This tenant may have 2 members")
    assert (uninvited.status_code, unknown.status_code) == (409, 409)
    again = world.root.administer("POST", path, {"email": first.email, "role": "normal"})
    assert "member of the tenant already" in again.json["message"]
    changed = world.root.administer("PUT", path, {"email": first.email, "role": "owner"})
    assert changed.status_code == 200, "who is in already takes no further place"


def test_an_invitation_is_accepted_only_while_there_is_room(world: World, owner: Person) -> None:
    first, second = world.person(), world.person()
    for guest in (first, second):
        invite(owner, guest)
    limit(world, owner.user_id, members=2)

    assert agree(owner, first).json["code"] == 0
    assert agree(owner, second).status_code == 409
    path = f"/tenants/{owner.user_id}/users"
    for method in ("PUT", "POST"):
        promoted = world.root.administer(method, path, {"email": second.email, "role": "normal"})
        assert promoted.status_code == 409
        assert promoted.json["message"].startswith("This tenant may have 2 members")
    limit(world, owner.user_id, members=3)
    assert agree(owner, second).json["code"] == 0


def test_tokens_are_made_up_to_the_limit_and_expired_ones_take_no_place(
    world: World, owner: Person, clock: Clock
) -> None:
    world.root.administer("PUT", "/limits/defaults", {"tokens": 2})
    owner.ask("POST", "/api/v1/system/tokens", {"expires_in": 3600})
    assert new_token(owner).json["code"] == 0

    refused = new_token(owner)
    by_admin = world.root.administer("POST", f"/users/{owner.email}/keys")
    assert (refused.status_code, by_admin.status_code) == (409, 409)
    assert "2 tokens" in refused.json["message"]

    clock.forward(hours=2)
    assert new_token(owner).json["code"] == 0
    assert new_token(owner).status_code == 409


def test_a_tenants_own_limit_of_0_is_none_whatever_the_default(world: World, owner: Person) -> None:
    other = world.person()
    world.root.administer("PUT", "/limits/defaults", {"tokens": 1, "members": 1})
    limit(world, owner.user_id, tokens=0, members=0)

    assert [new_token(owner).status_code for _ in range(3)] == [200] * 3
    assert [invite(owner, world.person()).json["code"] for _ in range(2)] == [0, 0]
    assert [new_token(other).status_code for _ in range(2)] == [200, 409]


def test_a_limit_below_what_there_is_takes_nothing_away(world: World, owner: Person) -> None:
    for _ in range(3):
        new_token(owner)

    used = limit(world, owner.user_id, tokens=1)["used"]

    assert used["tokens"] == 3
    assert new_token(owner).status_code == 409


@pytest.mark.race
def test_two_who_take_the_last_place_at_once_do_not_both_get_it(world: World, owner: Person) -> None:
    limit(world, owner.user_id, tokens=1)
    assert owner.session
    for _ in range(4):
        statuses = at_once(world, lambda: new_token(owner), lambda: new_token(owner))

        assert sorted(statuses) == [200, 409]
        assert world.plane.database.one("SELECT COUNT(*) FROM api_token WHERE tenant_id = ?", (owner.user_id,)) == (1,)
        world.plane.database.run("DELETE FROM api_token")


@pytest.mark.race
def test_an_owner_and_an_administrator_who_have_counted_at_once_do_not_both_make_the_last_token(
    world: World, root: Person, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(world, owner.user_id, tokens=1)
    assert owner.session
    count, counted = tenant_limits.make_sure_of_room, threading.Barrier(2)

    def count_and_let_the_other_count(*values: Any) -> None:
        count(*values)
        # They meet only where nothing keeps the other one from counting before this one has written.
        with suppress(threading.BrokenBarrierError):
            counted.wait(0.5)

    monkeypatch.setattr(tenant_limits, "make_sure_of_room", count_and_let_the_other_count)

    statuses = begun_at_once(
        world, lambda: new_token(owner), lambda: root.administer("POST", f"/users/{owner.email}/keys")
    )

    assert sorted(statuses) == [200, 409]
    assert counted.broken
    assert world.plane.database.one("SELECT COUNT(*) FROM api_token") == (1,)


@pytest.mark.race
def test_two_who_accept_at_once_do_not_both_get_the_last_place(world: World, owner: Person) -> None:
    for _ in range(3):
        guests = world.person(), world.person()
        for guest in guests:
            assert invite(owner, guest).json["code"] == 0
            assert guest.session
        members = world.root.administer("GET", f"/tenants/{owner.user_id}/limits").json["data"]["used"]["members"]
        limit(world, owner.user_id, members=members + 1)

        statuses = at_once(world, *[lambda guest=guest: agree(owner, guest) for guest in guests])  # type: ignore[misc]

        assert sorted(statuses) == [200, 409]
        limit(world, owner.user_id, members=0)
