"""Several roles at once: given and taken one by one, with superuser as one of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.people import Person, World
from tests.roles import give_role, make_role, permissions_of


def roles(actor: Person, method: str, target: Person, *names: str, query: str = "") -> TestResponse:
    body = {"roles": list(names)} if names else None
    return actor.administer(method, f"/users/{target.email}/roles{query}", body)


def held(world: World, person: Person) -> list[str]:
    listed = world.root.administer("GET", f"/users/{person.email}/roles").json["data"]["roles"]
    return [each["role_name"] for each in listed]


def test_what_somebody_holds_already_is_given_again_by_those_only_who_hold_it(world: World) -> None:
    make_role(world, "giver", {"role": ["assign"]})
    for name in ("talk", "talk-too"):
        make_role(world, name, {"chat": ["read"]})
    giver, someone = world.person(), world.person()
    give_role(world, giver, "giver")
    give_role(world, someone, "talk")

    assert roles(giver, "POST", someone, "talk-too").status_code == 403
    assert giver.administer("PUT", f"/users/{someone.email}/role", {"role_name": "talk-too"}).status_code == 403
    assert held(world, someone) == ["talk"]


def test_roles_add_up_and_go_one_by_one(world: World, root: Person) -> None:
    someone = world.person()
    assert held(world, someone) == ["member"]

    assert roles(root, "POST", someone, "viewer").json["data"] == {"email": someone.email, "roles": ["viewer"]}
    added = roles(root, "POST", someone, "Service-Operator", "member", "viewer")
    assert added.json["data"]["roles"] == ["viewer", "service-operator", "member"]
    may = permissions_of(world, someone)
    assert {("audit", "read"), ("service", "control"), ("dataset", "write")} - may == {("audit", "read")}

    taken = roles(root, "DELETE", someone, "viewer", "auditor")
    assert taken.json["data"]["roles"] == ["service-operator", "member"]
    assert held(world, someone) == ["service-operator", "member"]
    events = [(json.loads(before), json.loads(after)) for _, _, _, before, after in world.events("user:role")]
    assert events[-1] == (
        {"roles": ["viewer", "service-operator", "member"]},
        {"roles": ["service-operator", "member"]},
    )


def test_it_says_who_gave_a_role_and_when(world: World, root: Person) -> None:
    someone = world.person()
    roles(root, "POST", someone, "viewer")

    (shown,) = root.administer("GET", f"/users/{someone.email}/roles").json["data"]["roles"]

    assert shown == {"role_name": "viewer", "granted_by": root.email, "granted_at": "2026-09-21T14:13:20.000Z"}
    (member,) = root.administer("GET", f"/users/{world.person().email}/roles").json["data"]["roles"]
    assert member == {"role_name": "member", "granted_by": None, "granted_at": None}


def test_a_client_with_room_for_one_role_sees_the_first(world: World, root: Person) -> None:
    someone = world.person()
    roles(root, "POST", someone, "viewer", "auditor")
    roles(root, "POST", someone, "member")

    assert root.administer("GET", f"/users/{someone.email}").json["data"][0]["role"] == "viewer"
    assert held(world, someone) == ["viewer", "auditor", "member"]
    roles(root, "DELETE", someone, "viewer")
    assert root.administer("GET", f"/users/{someone.email}").json["data"][0]["role"] == "auditor"


def test_what_is_wrong_is_told_by_the_name_under_which_it_was_sent(world: World, root: Person) -> None:
    path = f"/users/{world.person().email}/roles"

    for method in ("POST", "DELETE"):
        for body, field in (({"role_name": " "}, "role_name: "), ({"roles": [" "]}, "roles: ")):
            answer = root.administer(method, path, body)
            assert (answer.status_code, answer.json["message"][: len(field)]) == (400, field)
        nobody = root.administer(method, path, {})
        assert (nobody.status_code, nobody.json["message"]) == (
            400,
            "roles: name a role as role_name, or some as roles.",
        )


def test_putting_one_role_still_replaces_all(world: World, root: Person) -> None:
    someone = world.person()
    roles(root, "POST", someone, "viewer", "auditor", "superuser")

    assert root.administer("PUT", f"/users/{someone.email}/role", {"role_name": "member"}).status_code == 200

    assert held(world, someone) == ["member"]


def test_superuser_is_a_role_and_a_flag_in_both_directions(world: World, root: Person) -> None:
    someone = world.person()
    roles(root, "POST", someone, "viewer")

    def flag() -> Any:
        return root.administer("GET", f"/users/{someone.email}").json["data"][0]["is_superuser"]

    assert roles(root, "POST", someone, "superuser").json["data"]["roles"] == ["viewer", "superuser"]
    assert (flag(), held(world, someone)) == (True, ["viewer", "superuser"])
    assert roles(root, "DELETE", someone, "superuser").json["data"]["roles"] == ["viewer"]
    assert (flag(), held(world, someone)) == (False, ["viewer"])

    assert root.administer("PUT", f"/users/{someone.email}/admin").status_code == 200
    assert held(world, someone) == ["viewer", "superuser"]
    assert root.administer("DELETE", f"/users/{someone.email}/admin").status_code == 200
    assert held(world, someone) == ["viewer"]
    rows = world.plane.database.all(
        "SELECT 1 FROM rk_user_role h JOIN rk_role r ON r.id = h.role_id WHERE r.name = 'superuser'"
    )
    assert rows == []


def test_a_superuser_stays_one_by_their_own_hand_and_the_last_one_by_any(world: World, root: Person) -> None:
    other = world.person(is_superuser=True)

    assert roles(root, "DELETE", root, "superuser").status_code == 409
    assert roles(root, "POST", root, "viewer").json["data"]["roles"] == ["superuser", "viewer"]
    assert roles(other, "DELETE", root, "superuser", query="?dry_run=1").status_code == 200
    assert roles(other, "DELETE", root, "superuser").status_code == 200
    assert roles(root, "DELETE", other, "superuser").status_code == 403
    world.plane.database.run("UPDATE user SET is_superuser = ? WHERE id = ?", (True, root.user_id))
    world.plane.database.run("UPDATE user SET is_active = '0' WHERE id = ?", (root.user_id,))
    for query in ("", "?dry_run=1"):
        lonely = roles(other, "DELETE", other, "superuser", query=query)
        assert lonely.status_code == 409


def test_losing_the_last_role_makes_a_member_only_where_the_actor_could_give_that(world: World, root: Person) -> None:
    make_role(world, "locked", {})
    make_role(world, "giver", {"role": ["assign"], "user": ["read"]})
    giver, someone = world.person(), world.person()
    give_role(world, giver, "giver")
    give_role(world, someone, "locked")

    refused = roles(giver, "DELETE", someone, "locked")

    assert refused.status_code == 403
    assert "dataset:read" in refused.json["message"]
    assert (held(world, someone), permissions_of(world, someone)) == (["locked"], set())
    assert roles(giver, "POST", someone, "giver").status_code == 200
    assert roles(giver, "DELETE", someone, "locked").status_code == 200
    assert roles(giver, "DELETE", giver, "giver").status_code == 403
    assert roles(root, "DELETE", someone, "giver").json["data"]["roles"] == ["member"]


def test_a_dry_run_says_what_the_account_would_gain_and_lose_and_writes_nothing(world: World, root: Person) -> None:
    someone = world.person()
    roles(root, "POST", someone, "viewer")
    before = world.plane.database.all("SELECT * FROM rk_user_role"), len(world.events("user:role"))

    planned = roles(root, "POST", someone, "service-operator", query="?dry_run=1").json["data"]
    replaced = root.administer("PUT", f"/users/{someone.email}/role?dry_run=1", {"role_name": "auditor"}).json["data"]
    nothing = roles(root, "POST", someone, "viewer", query="?dry_run=1").json["data"]

    gains = ["alert:write", "job:write", "service:control"]
    assert planned["users"] == [{"email": someone.email, "gains": gains, "loses": []}]
    assert replaced["users"] == [{"email": someone.email, "gains": ["audit:export", "audit:read"], "loses": []}]
    assert (nothing["users"], nothing["user_count"], nothing["dry_run"]) == ([], 0, True)
    assert (world.plane.database.all("SELECT * FROM rk_user_role"), len(world.events("user:role"))) == before


def test_a_dry_run_is_refused_where_the_change_would_be(world: World, root: Person) -> None:
    manager, someone = world.person(), world.person()
    give_role(world, manager, "user-manager")

    for query in ("", "?dry_run=1"):
        assert roles(manager, "POST", someone, "auditor", query=query).status_code == 403
        assert roles(manager, "POST", someone, "nobody", query=query).status_code == 404
        assert roles(manager, "DELETE", root, "superuser", query=query).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "role"),
        ({"roles": []}, "role"),
        ({"roles": ["no name"]}, "roles"),
        ({"roles": [7]}, "roles"),
        ({"roles": ["viewer"] * 101}, "roles"),
        ({"role_name": ""}, "role"),
    ],
)
def test_a_body_without_usable_names_changes_nothing(world: World, root: Person, body: Any, field: str) -> None:
    someone = world.person()

    for method in ("POST", "DELETE"):
        answer = root.administer(method, f"/users/{someone.email}/roles", body)
        assert (answer.status_code, field in answer.json["message"]) == (400, True)
    assert root.administer("POST", "/users/no@one.test/roles", {"role_name": "viewer"}).status_code == 404
    assert held(world, someone) == ["member"]


def test_many_roles_are_held_at_once(world: World, root: Person) -> None:
    names = [f"role-{number}" for number in range(120)]
    for number, name in enumerate(names):
        make_role(world, name, {"dataset": ["read"]} if number == 119 else {})
    someone = world.person()

    assert roles(root, "POST", someone, *names[:100]).status_code == 200
    assert roles(root, "POST", someone, *names[100:]).status_code == 200

    assert held(world, someone) == names
    assert permissions_of(world, someone) == {("dataset", "read")}
    decision = someone.ask("POST", "/api/v1/authz/check", {"resource": "dataset", "action": "read"}).json["data"]
    assert decision == {"allowed": True, "reason": "dataset:read is granted by role role-119."}
