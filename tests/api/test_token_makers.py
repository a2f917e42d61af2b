"""Tokens that somebody else made for an account, and what is made with them: dead while who made them is outranked."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from werkzeug.test import TestResponse

from common.core.errors import NotSignedIn
from common.services import accounts, sessions, tokens
from common.services.principal import Origin, Principal
from tests.admin.test_tenants import give
from tests.api.test_at_once import on_an_event_loop
from tests.cast import snapshot
from tests.people import Person, World
from tests.roles import give_role, make_role
from tests.statements import statements

TOKENS = "/api/v1/system/tokens"
USERS = "/api/v1/admin/users"
CHECK = {"resource": "dataset", "action": "read"}


@pytest.fixture
def manager(world: World) -> Person:
    return give(world, world.person(), "user-manager")


@pytest.fixture
def ada(world: World) -> Person:
    """Who will be given more."""
    return world.person()


def key(actor: Person, owner: Person, *scopes: str) -> dict[str, Any]:
    """A token that the actor makes for somebody."""
    return done(actor.administer("POST", f"/users/{owner.email}/keys", {"scopes": list(scopes)} if scopes else None))


def done(answer: Any) -> dict[str, Any]:
    assert answer.json["code"] == 0, answer.json
    return dict(answer.json["data"])


def made_with(world: World, token: str, **body: Any) -> dict[str, Any]:
    """A further token, made with one for its own account."""
    return done(world.api.ask("POST", TOKENS, body, credential=token))


def works(world: World, token: str) -> bool:
    """Whether it is taken, as it is and as Bearer."""
    answers = {
        world.api.ask("GET", "/v1/user/info", credential=credential).status_code
        for credential in (token, f"Bearer {token}")
    }
    assert answers in ({200}, {401})
    return answers == {200}


def promote(world: World, person: Person, *, on: bool = True) -> None:
    answer = world.root.administer("PUT" if on else "DELETE", f"/users/{person.email}/admin")
    assert answer.status_code == 200, answer.json


@pytest.mark.parametrize("role", ["superuser", "service-operator", "one that holds it by another"])
def test_a_token_that_was_made_for_somebody_who_was_to_be_given_more_is_dead_on_every_way(
    world: World, manager: Person, ada: Person, role: str
) -> None:
    token = key(manager, ada)["token"]
    assert works(world, token)
    if role.startswith("one"):
        make_role(world, "base", {"setting": ["write"]})
        make_role(world, "heir", parents=["base"])
        role = "heir"
    world.root.administer("PUT", f"/users/{ada.email}/role", {"role_name": role})

    world.plane.token_uses.wait(10)
    before = snapshot(world)

    for route in world.api.app.extensions["ragkeeper.routes"]:
        if route.requires.text != "public":
            path = re.sub(r"<\w+>", ada.user_id, route.rule)
            for credential in (token, f"Bearer {token}"):
                answer = world.api.ask(route.method, path, credential=credential)
                assert answer.status_code == 401, (route.endpoint, answer.get_data())
    assert snapshot(world) == before


def test_it_is_refused_in_the_envelope_of_the_caller_and_is_in_the_trail_without_its_value(
    world: World, manager: Person, ada: Person
) -> None:
    made = key(manager, ada)
    promote(world, ada)

    answer = world.api.ask("POST", "/api/v1/authz/check", CHECK, credential=f"Bearer {made['token']}")
    problem = world.api.ask(
        "GET", "/v1/user/info", credential=made["token"], headers={"Accept": "application/problem+json"}
    )

    unknown = world.api.ask("POST", "/api/v1/authz/check", CHECK, credential="ragflow-" + "x" * 32)
    assert (answer.status_code, answer.json["message"]) == (401, unknown.json["message"])
    assert (problem.status_code, problem.mimetype) == (401, "application/problem+json")
    ((result, actor, target, _, after),) = world.events("token:misuse")
    assert (result, actor, target) == ("refused", ada.email, "POST /api/v1/authz/check")
    assert json.loads(after) == {"reason": "its account outranks its maker"}
    row = world.plane.database.one("SELECT credential FROM rk_audit_event WHERE tag = 'token:misuse'")
    assert row == (f"token:{made['id']}",)
    assert made["token"] not in str(world.plane.database.all("SELECT * FROM rk_audit_event"))


def test_one_with_a_scope_is_dead_on_the_admin_server_too(world: World, manager: Person, ada: Person) -> None:
    give_role(world, ada, "user-manager")
    token = key(manager, ada, "read:user", "read:dataset")["token"]

    def statuses() -> list[int]:
        return [
            world.admin.ask("GET", USERS, credential=f"Bearer {token}").status_code,
            world.api.ask("GET", "/v1/user/info", credential=token).status_code,
        ]

    assert statuses() == [200, 200]
    promote(world, ada)
    assert statuses() == [401, 401]


def test_somebody_with_a_dead_one_is_a_stranger_where_everybody_is_answered(
    world: World, manager: Person, ada: Person
) -> None:
    token = key(manager, ada)["token"]

    def sees_more() -> bool:
        return "version" in world.api.ask("GET", "/v1/system/config", credential=token).json["data"]

    assert sees_more()
    promote(world, ada)
    assert not sees_more()


def test_an_account_that_holds_nothing_that_its_maker_lacks_keeps_it(
    world: World, manager: Person, ada: Person
) -> None:
    token = key(manager, ada)["token"]

    give_role(world, ada, "user-manager")

    assert works(world, token)


def test_a_superuser_makes_one_for_whoever_will_administer(world: World, root: Person, ada: Person) -> None:
    token = key(root, ada)["token"]

    for role in ("service-operator", "superuser"):
        root.administer("PUT", f"/users/{ada.email}/role", {"role_name": role})
        assert works(world, token)


def test_whoever_made_it_and_has_fallen_is_measured_by_what_is_left(world: World, manager: Person, ada: Person) -> None:
    chief = world.person(is_superuser=True)
    token = key(chief, ada)["token"]
    give_role(world, ada, "user-manager")
    assert works(world, token)

    promote(world, chief, on=False)
    assert not works(world, token)
    give_role(world, chief, "user-manager")
    assert works(world, token)


@pytest.mark.parametrize("way", ["switched off", "deleted"])
def test_whoever_made_it_and_is_gone_counts_for_nothing(
    world: World, root: Person, manager: Person, ada: Person, way: str
) -> None:
    token = key(manager, ada)["token"]
    give_role(world, ada, "user-manager")
    path = f"/users/{manager.email}"
    root.administer("PUT", f"{path}/activate", {"activate_status": "off"})
    if way == "deleted":
        assert root.administer("DELETE", path).status_code == 200

    assert not works(world, token)
    give_role(world, ada, "member")
    assert works(world, token)
    if way == "switched off":
        give_role(world, ada, "user-manager")
        root.administer("PUT", f"{path}/activate", {"activate_status": "on"})
        assert works(world, token)


def test_it_is_good_again_once_the_account_holds_no_more_than_before(
    world: World, manager: Person, ada: Person
) -> None:
    token = key(manager, ada)["token"]

    promote(world, ada)
    assert not works(world, token)
    promote(world, ada, on=False)
    assert works(world, token)


def test_every_process_refuses_it_from_the_next_request_on(
    world: World, others: list[World], manager: Person, ada: Person
) -> None:
    token = key(manager, ada)["token"]
    assert [works(each, token) for each in others] == [True, True]

    promote(world, ada)
    assert [works(each, token) for each in others] == [False, False]
    give_role(world, manager, "superuser")
    assert [works(each, token) for each in others] == [True, True]


def test_what_is_made_with_it_and_rotated_with_it_dies_with_it(world: World, manager: Person, ada: Person) -> None:
    lent, own = key(manager, ada)["token"], done(ada.ask("POST", TOKENS, {}))
    further = made_with(world, lent)
    scoped = made_with(world, further["token"], scopes=["read:dataset"])
    rotated = done(world.api.ask("POST", f"{TOKENS}/{own['id']}/rotate", credential=further["token"]))
    kept = [lent, further["token"], scoped["token"], rotated["token"]]
    assert [works(world, each) for each in kept] == [True] * 4

    promote(world, ada)

    assert [works(world, each) for each in kept] == [False] * 4
    assert works(world, own["token"])


def test_an_administrators_rotation_is_the_administrators(world: World, manager: Person, ada: Person) -> None:
    own, lent = done(ada.ask("POST", TOKENS, {})), key(manager, ada)

    def rotated(actor: Person, old: dict[str, Any]) -> str:
        return str(done(actor.administer("POST", f"/users/{ada.email}/keys/{old['id']}/rotate"))["token"])

    by_manager, by_root = rotated(manager, own), rotated(world.root, lent)
    promote(world, ada)

    alive = [works(world, each) for each in (own["token"], lent["token"], by_manager, by_root)]
    assert alive == [True, False, False, True]


def test_what_the_account_makes_or_rotates_by_itself_is_its_own(world: World, manager: Person, ada: Person) -> None:
    lent, own = key(manager, ada), done(ada.ask("POST", TOKENS, {}))
    rotated = done(ada.ask("POST", f"{TOKENS}/{lent['id']}/rotate"))
    further = made_with(world, own["token"])

    promote(world, ada)

    assert [works(world, each["token"]) for each in (own, further, rotated)] == [True] * 3
    assert not works(world, lent["token"])
    mine = done(ada.administer("POST", f"/users/{ada.email}/keys"))
    assert (mine["made_by"], works(world, mine["token"])) == (None, True)


def test_one_for_a_third_account_is_measured_with_all_through_whom_it_was_made(
    world: World, manager: Person, ada: Person
) -> None:
    """With the first maker alone, a key of a superuser's would let its account make keys that never die."""
    bob, chief = world.person(), world.person(is_superuser=True)
    give_role(world, ada, "user-manager")
    scopes = ("create:token", "read:dataset")

    def through_ada(maker: Person) -> dict[str, Any]:
        lent = key(maker, ada, *scopes)["token"]
        return done(world.admin.ask("POST", f"{USERS}/{bob.email}/keys", credential=lent))

    by_manager, by_chief = through_ada(manager), through_ada(chief)
    assert by_manager["made_by"] == [manager.user_id, ada.user_id]
    assert by_chief["made_by"] == [chief.user_id, ada.user_id]
    kept = by_manager["token"], by_chief["token"]

    give_role(world, bob, "service-operator")
    assert [works(world, each) for each in kept] == [False, False]
    promote(world, ada)
    assert [works(world, each) for each in kept] == [False, True]
    promote(world, manager)
    assert [works(world, each) for each in kept] == [True, True]


def test_lists_say_who_made_it(world: World, manager: Person, ada: Person) -> None:
    lent, own = key(manager, ada), done(ada.ask("POST", TOKENS, {}))
    expected = {lent["id"]: [manager.user_id], own["id"]: None}
    assert {each["id"]: each["made_by"] for each in (lent, own)} == expected

    for answer in (ada.ask("GET", TOKENS), manager.administer("GET", f"/users/{ada.email}/keys")):
        assert {each["id"]: each["made_by"] for each in answer.json["data"]} == expected  # type: ignore[index]
    for answer in (ada.ask("GET", f"{TOKENS}?limit=9"), manager.administer("GET", f"/users/{ada.email}/keys?limit=9")):
        assert {each["id"]: each["made_by"] for each in answer.json["data"]["tokens"]} == expected  # type: ignore[index]


def test_who_made_it_is_known_while_it_is_being_rotated_and_goes_with_it(
    world: World, manager: Person, ada: Person
) -> None:
    lent, database = key(manager, ada), world.plane.database
    new = done(ada.ask("POST", f"{TOKENS}/{lent['id']}/rotate"))
    rows = database.all("SELECT token_id, scopes, replaced_by, made_by FROM rk_token_trait")
    assert rows == [(lent["id"], None, new["id"], manager.user_id)]
    assert tokens.prune_traits(world.plane) == (0, None)

    ada.ask("DELETE", f"{TOKENS}/{lent['id']}")

    assert tokens.prune_traits(world.plane) == (1, None)


def test_who_made_it_costs_a_statement_only_where_the_account_administers(
    world: World, root: Person, ada: Person
) -> None:
    token = key(root, ada)["token"]

    def heard() -> list[str]:
        def ask() -> int:
            return int(world.api.ask("GET", "/v1/system/version", credential=token).status_code)

        assert ask() == 200
        world.plane.token_uses.wait(10)
        with statements(world.plane) as asked:
            assert ask() == 200
        return asked

    assert len(heard()) == 1
    give_role(world, ada, "viewer")
    authenticating, makers = heard()
    assert "FROM api_token" in authenticating
    assert "FROM user u WHERE" in makers


def test_it_is_judged_on_the_event_loop_where_the_store_is_embedded(world: World, manager: Person, ada: Person) -> None:
    token = key(manager, ada)["token"]

    def ask() -> TestResponse:
        return world.api.ask("GET", "/v1/system/version", credential=token)

    def status() -> int:
        # Roles that have changed are read by a thread, and one notes the first use of a token.
        found = ask().status_code
        world.plane.token_uses.wait(10)
        if world.plane.settings.mysql is None:
            assert on_an_event_loop(ask).status_code == found
        return found

    assert status() == 200
    promote(world, ada)
    assert status() == 401
    promote(world, manager)
    assert status() == 200


def test_a_request_in_flight_does_nothing_once_its_account_outranks_who_made_its_token(
    world: World, manager: Person, ada: Person
) -> None:
    give_role(world, ada, "user-manager")
    token = key(manager, ada, "write:user")["token"]
    admitted: Principal = sessions.authenticate(world.plane, token, "admin", Origin())

    promote(world, ada)

    with pytest.raises(NotSignedIn), world.plane.database.transaction():
        accounts.acting_now(world.plane, admitted)
