"""Rotating API tokens: two that are good for a while, and never more than there was."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from common.models.base import created
from common.models.token import ApiToken
from common.services import token_expiry, tokens
from tests.admin.test_tenants import give
from tests.people import Clock, Person, World

TOKENS = "/api/v1/system/tokens"
THEIRS = "ragflow-" + "Qm" * 16


@pytest.fixture
def owner(world: World) -> Person:
    return world.person()


def make(person: Person, **body: Any) -> dict[str, Any]:
    return dict(person.ask("POST", TOKENS, body).json["data"])


def rotate(person: Person, key: str, body: Any = None, **more: Any) -> Any:
    return person.ask("POST", f"{TOKENS}/{key}/rotate", body, **more)


def works(world: World, token: str) -> bool:
    return world.api.ask("GET", "/v1/user/info", credential=token).status_code == 200


@pytest.mark.parametrize("key", ["id", "token"])
def test_both_are_good_until_the_grace_is_over(world: World, owner: Person, clock: Clock, key: str) -> None:
    old = make(owner, name="ci", scopes=["read:dataset", "create:token"])

    new = rotate(owner, old[key], {"grace_s": 60}).json["data"]

    assert new["token"] != old["token"]
    assert [new[same] == old[same] for same in ("name", "scopes", "tenant_id", "expires_at")] == [True] * 4
    assert (new["replaces"], new["old_expires_at"]) == (old["id"], "2026-09-21T14:14:20.000Z")
    clock.forward(seconds=59)
    assert (works(world, old["token"]), works(world, new["token"])) == (True, True)
    listed = {item["id"]: item["replaced_by"] for item in owner.ask("GET", TOKENS).json["data"]}
    assert listed == {old["id"]: new["id"], new["id"]: None}
    clock.forward(seconds=1)
    assert (works(world, old["token"]), works(world, new["token"])) == (False, True)
    assert len(world.events("token:rotate")) == 1


@pytest.mark.parametrize(
    ("body", "grace_s"), [(None, 3600), ({}, 3600), ({"grace_s": 0}, 0), ({"grace_s": 3600}, 3600)]
)
def test_the_grace_is_an_hour_at_most_and_may_be_none(
    world: World, owner: Person, clock: Clock, body: Any, grace_s: int
) -> None:
    old = make(owner)

    assert rotate(owner, old["id"], body).status_code == 200

    if grace_s:
        clock.forward(seconds=grace_s - 1)
        assert works(world, old["token"])
        clock.forward(seconds=1)
    assert not works(world, old["token"])


@pytest.mark.parametrize("body", [{"grace_s": -1}, {"grace_s": 3601}, {"grace_s": "5"}, {"expires_in": 0}])
def test_what_makes_no_sense_is_400_and_rotates_nothing(world: World, owner: Person, body: Any) -> None:
    old = make(owner)

    assert rotate(owner, old["id"], body).status_code == 400
    assert len(owner.ask("GET", TOKENS).json["data"]) == 1


def test_one_that_is_being_rotated_names_the_one_to_rotate(world: World, owner: Person) -> None:
    first = make(owner)
    second = rotate(owner, first["id"]).json["data"]

    again = rotate(owner, first["id"])
    third = rotate(owner, second["id"]).json["data"]

    assert again.status_code == 409
    assert second["id"] in again.json["message"]
    assert [works(world, each["token"]) for each in (first, second, third)] == [True] * 3
    assert len(owner.ask("GET", TOKENS).json["data"]) == 3


def test_of_two_rotations_at_once_one_is_told_so(world: World, owner: Person) -> None:
    old, session = make(owner), owner.session
    together, statuses = threading.Barrier(2), []

    def ask() -> None:
        together.wait(10)
        path = f"{TOKENS}/{old['id']}/rotate"
        statuses.append(world.api.ask("POST", path, credential=session).status_code)
        world.plane.database.close()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(statuses) == [200, 409]
    assert len(owner.ask("GET", TOKENS).json["data"]) == 2


def test_an_end_stays_unless_a_session_gives_another(world: World, owner: Person) -> None:
    old = make(owner, expires_in=7200)

    kept = rotate(owner, old["id"]).json["data"]
    longer = rotate(owner, kept["id"], {"expires_in": 10_000}).json["data"]

    assert kept["expires_at"] == old["expires_at"]
    assert longer["expires_at"] == "2026-09-21T17:00:00.000Z"


def test_an_old_one_that_ends_sooner_is_not_prolonged_by_its_grace(owner: Person) -> None:
    old = make(owner, expires_in=60)

    assert rotate(owner, old["id"]).json["data"]["old_expires_at"] == old["expires_at"]


def test_a_token_rotates_itself_without_gaining_time_or_scope(world: World, owner: Person) -> None:
    old = make(owner, expires_in=600, scopes=["create:token", "read:dataset"])
    wider = make(owner, scopes=["write:dataset"])
    unscoped = make(owner)

    def ask(key: str) -> Any:
        path = f"{TOKENS}/{key}/rotate"
        return world.api.ask("POST", path, {"expires_in": 100_000}, credential=old["token"])

    assert [ask(each["id"]).status_code for each in (wider, unscoped)] == [403, 403]
    new = ask(old["id"]).json["data"]
    assert (new["expires_at"], new["scopes"]) == (old["expires_at"], old["scopes"])
    scopeless = make(owner, scopes=["read:dataset"])
    path = f"{TOKENS}/{scopeless['id']}/rotate"
    assert world.api.ask("POST", path, credential=scopeless["token"]).status_code == 403


def test_a_token_like_ragflows_rotates_none_that_opens_the_admin_server(world: World, root: Person) -> None:
    plain, administering = make(root), make(root, scopes=["read:user"])

    def ask(key: str) -> int:
        return int(world.api.ask("POST", f"{TOKENS}/{key}/rotate", credential=plain["token"]).status_code)

    assert (ask(administering["id"]), ask(plain["id"])) == (403, 200)


def test_a_fellow_owner_does_not_get_what_acts_for_its_maker(world: World, owner: Person, root: Person) -> None:
    other = world.person()
    org = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    root.administer("POST", f"/tenants/{org}/users", {"email": other.email, "role": "owner"})
    acting = {"X-Tenant": org}
    old = owner.ask("POST", TOKENS, {}, headers=acting).json["data"]

    assert rotate(other, old["id"], headers=acting).status_code == 403
    assert rotate(owner, old["id"], headers=acting).status_code == 200


def test_nobody_rotates_what_is_not_there_or_over(world: World, owner: Person, clock: Clock) -> None:
    stranger, old = world.person(), make(owner, expires_in=60)

    assert rotate(stranger, old["id"]).status_code == 404
    assert rotate(owner, "nothing").status_code == 404
    clock.forward(seconds=60)
    assert rotate(owner, old["id"]).status_code == 409


def test_a_token_that_ragflow_made_is_rotated_by_value_and_ends(world: World, owner: Person, clock: Clock) -> None:
    stamps = created(world.plane.now_ms(), world.plane.zone)
    world.plane.database.insert(ApiToken, tenant_id=owner.user_id, token=THEIRS, beta="b" * 32, **stamps)

    new = rotate(owner, THEIRS, {"grace_s": 60}).json["data"]

    assert (works(world, THEIRS), works(world, new["token"])) == (True, True)
    clock.forward(seconds=60)
    assert (works(world, THEIRS), works(world, new["token"])) == (False, True)


def test_an_administrator_rotates_within_what_they_hold(world: World, root: Person, owner: Person) -> None:
    manager = give(world, world.person(), "user-manager")
    old, wide, superior = make(owner), make(owner, scopes=["read:service"]), make(root)

    def ask(actor: Person, whose: Person, key: str) -> Any:
        return actor.administer("POST", f"/users/{whose.email}/keys/{key}/rotate", {"grace_s": 0})

    new = ask(manager, owner, old["id"]).json["data"]
    assert (works(world, old["token"]), works(world, new["token"])) == (False, True)
    assert ask(manager, owner, wide["id"]).status_code == 403
    assert ask(root, owner, wide["id"]).status_code == 200
    assert ask(manager, root, superior["id"]).status_code == 403
    assert ask(manager, owner, superior["id"]).status_code == 404


def test_a_tenant_has_no_more_tokens_in_their_grace_than_it_may_have(world: World, owner: Person, clock: Clock) -> None:
    token = make(owner)
    world.set_variable("tenant_limit.tokens", "1")
    for _ in range(2):
        token = rotate(owner, token["id"]).json["data"]
        assert token["token"]

    refused = rotate(owner, token["id"])

    assert refused.json["code"] == 409
    assert "grace_s 0" in refused.json["message"]
    at_once = rotate(owner, token["id"], {"grace_s": 0}).json["data"]
    assert works(world, at_once["token"])
    clock.forward(seconds=3601)
    tokens.retire_expired(world.plane)
    assert rotate(owner, at_once["id"]).json["code"] == 0


def test_one_that_is_being_rotated_gets_no_notice_of_its_end(world: World, owner: Person, clock: Clock) -> None:
    old = make(owner)
    clock.forward(days=2)
    rotated = Person(world, owner.email, owner.password, owner.user_id)
    rotate(rotated, old["id"])

    now = world.plane.now_ms()
    assert token_expiry._expiring(world.plane, (now, ""), now + 14 * 86_400_000) == []


def test_what_is_kept_of_a_token_goes_with_it(world: World, owner: Person) -> None:
    old = make(owner, scopes=["read:dataset"])
    new = rotate(owner, old["id"]).json["data"]
    owner.ask("DELETE", f"{TOKENS}/{old['id']}")

    assert tokens.prune_traits(world.plane) == (1, None)
    assert world.plane.database.all("SELECT token_id FROM rk_token_trait") == [(new["id"],)]
    assert works(world, new["token"])
