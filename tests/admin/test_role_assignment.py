"""Which role an account has, and what that lets it do."""

from __future__ import annotations

import json
from typing import Any

from werkzeug.test import TestResponse

from common.models.role import RoleHolder
from tests.people import Person, World


def assign(actor: Person, target: Person, role: object) -> TestResponse:
    return actor.administer("PUT", f"/users/{target.email}/role", {"role_name": role})


def held(world: World, person: Person) -> tuple[list[str], bool]:
    """The assigned roles by name, and the superuser flag, as stored."""
    database = world.plane.database
    names = database.all(
        "SELECT r.name FROM rk_user_role h JOIN rk_role r ON r.id = h.role_id WHERE h.user_id = ? ORDER BY r.name",
        (person.user_id,),
    )
    flag = database.one("SELECT is_superuser FROM user WHERE id = ?", (person.user_id,))
    assert flag
    return [name for (name,) in names], bool(flag[0])


def test_a_role_replaces_all_that_were_held(world: World, root: Person) -> None:
    someone = world.person()
    for name in ("viewer", "service-operator"):
        row = world.plane.database.one("SELECT id FROM rk_role WHERE name = ?", (name,))
        assert row
        world.plane.database.insert(RoleHolder, user_id=someone.user_id, role_id=row[0], granted_at=0)

    answer = assign(root, someone, "Auditor")

    assert (answer.status_code, answer.json["data"]) == (200, {"email": someone.email, "role_name": "auditor"})
    assert held(world, someone) == (["auditor"], False)
    result, actor, target, before, after = world.events("user:role")[-1]
    assert (result, actor, target) == ("ok", root.email, someone.email)
    assert sorted(json.loads(before)["roles"]) == ["service-operator", "viewer"]
    assert json.loads(after) == {"roles": ["auditor"]}
    assert root.administer("GET", "/users").json["data"][0]["role"] in ("auditor", "superuser")


def test_the_role_superuser_and_the_flag_are_one_fact(world: World, root: Person) -> None:
    someone = world.person()
    assign(root, someone, "viewer")

    assert assign(root, someone, "superuser").status_code == 200
    assert held(world, someone) == ([], True)
    assert root.administer("GET", f"/users/{someone.email}").json["data"][0]["is_superuser"] is True

    assert assign(root, someone, "viewer").status_code == 200
    assert held(world, someone) == (["viewer"], False)
    assert len(world.events("user:superuser_grant")) == len(world.events("user:superuser_revoke")) == 1


def test_a_superuser_can_not_demote_themselves(world: World, root: Person) -> None:
    world.person(is_superuser=True)

    assert assign(root, root, "viewer").status_code == 409
    assert assign(root, root, "superuser").status_code == 200
    assert held(world, root) == ([], True)


def test_a_role_that_is_held_already_changes_nothing(world: World, root: Person) -> None:
    someone = world.person()
    for _ in range(2):
        assert assign(root, someone, "viewer").status_code == 200

    assert len(world.events("user:role")) == 1


def test_a_role_holds_from_the_next_request_on_and_ends_likewise(world: World, root: Person) -> None:
    someone = world.person()
    assign(root, someone, "viewer")
    assert someone.administer("GET", "/roles").status_code == 200
    assert someone.administer("POST", "/roles", {"role_name": "mine"}).status_code == 403

    assign(root, someone, "member")

    assert someone.administer("GET", "/roles").status_code == 403


def test_a_grant_to_an_ancestor_of_the_held_role_works_at_once(world: World, root: Person) -> None:
    someone = world.person()
    root.administer("POST", "/roles", {"role_name": "base"})
    root.administer("POST", "/roles", {"role_name": "keeper", "parents": ["base", "viewer"]})
    assign(root, someone, "keeper")
    assert someone.administer("PUT", "/roles/keeper", {"description": "x"}).status_code == 403

    root.administer("POST", "/roles/base/permission", {"resource": "role", "actions": ["write"]})

    assert someone.administer("PUT", "/roles/keeper", {"description": "x"}).status_code == 200


def test_what_is_changed_in_one_process_holds_on_the_next_request_of_every_other_one(
    world: World, root: Person, others: list[World]
) -> None:
    someone = world.person()

    def statuses() -> list[int]:
        """What each process makes of a change of a role, which needs role:write."""
        return [
            process.admin.ask(
                "PUT", "/api/v1/admin/roles/target", {"description": "x"}, credential=someone.admin_session
            ).status_code
            for process in (*others, world)
        ]

    root.administer("POST", "/roles", {"role_name": "target"})
    root.administer("POST", "/roles", {"role_name": "keeper", "parents": ["viewer"]})
    root.administer("POST", "/roles", {"role_name": "base"})
    assign(root, someone, "keeper")
    assert statuses() == [403] * 3

    root.administer("POST", "/roles/base/permission", {"resource": "role", "actions": ["write"]})
    root.administer("PUT", "/roles/keeper", {"parents": ["viewer", "base"]})
    assert statuses() == [200] * 3
    root.administer("DELETE", "/roles/base/permission", {"resource": "role", "actions": ["write"]})
    assert statuses() == [403] * 3
    root.administer("POST", "/roles/keeper/permission", {"resource": "role", "actions": ["write"]})
    assert statuses() == [200] * 3
    assign(root, someone, "viewer")
    assert statuses() == [403] * 3
    assign(root, someone, "superuser")
    assert statuses() == [200] * 3
    assign(root, someone, "member")
    assert statuses() == [403] * 3


def test_unknown_people_and_roles_are_404_and_nonsense_is_400(world: World, root: Person) -> None:
    someone = world.person()

    assert assign(root, someone, "nobody").status_code == 404
    stranger = root.administer("PUT", "/users/no@one.test/role", {"role_name": "viewer"})
    assert stranger.status_code == 404
    for body in ({}, {"role_name": None}, {"role_name": 7}, {"role_name": "no name"}, {"role_name": ""}):
        answer = root.administer("PUT", f"/users/{someone.email}/role", body)
        assert (answer.status_code, "role_name" in answer.json["message"]) == (400, True)
    for path in ("permission", "permissions"):
        assert root.administer("GET", f"/users/no@one.test/{path}").status_code == 404
    assert held(world, someone) == ([], False)


def test_the_effective_set_says_where_each_permission_comes_from(world: World, root: Person) -> None:
    someone = world.person()
    root.administer("POST", "/roles", {"role_name": "base"})
    root.administer("POST", "/roles", {"role_name": "heir", "parents": ["base"]})
    root.administer("POST", "/roles/base/permission", {"new_permissions": {"dataset": {"read": True}}})
    root.administer("POST", "/roles/heir/permission", {"new_permissions": {"audit": {"export": True}}})
    root.administer("POST", "/roles/heir/permission", {"new_permissions": {"dataset": {"read": True}}})
    assign(root, someone, "heir")

    shown = root.administer("GET", f"/users/{someone.email}/permissions").json["data"]

    assert shown["user"] == {"id": someone.user_id, "username": someone.email, "role": "heir"}
    assert shown["role_permissions"]["dataset"] == {"enable": False, "read": True, "write": False, "share": False}
    assert shown["role_permissions"]["audit"] == {"export": True}
    assert shown["sources"] == {
        "audit": {"export": [{"role": "heir", "path": ["heir"]}]},
        "dataset": {"read": [{"role": "heir", "path": ["heir"]}, {"role": "base", "path": ["heir", "base"]}]},
    }
    flat = root.administer("GET", f"/users/{someone.email}/permission").json["data"]
    assert {tuple(row.values()) for row in flat} == {
        ("audit", "export", "heir"),
        ("dataset", "read", "heir"),
        ("dataset", "read", "base"),
    }


def test_who_has_no_role_is_a_member_and_a_superuser_may_everything(world: World, root: Person) -> None:
    def shown(person: Person) -> dict[str, Any]:
        answer: dict[str, Any] = root.administer("GET", f"/users/{person.email}/permissions").json["data"]
        return answer

    member, superuser = shown(world.person()), shown(root)

    assert member["user"]["role"] == "member"
    assert all(all(actions.values()) for actions in member["role_permissions"].values())
    assert len(member["role_permissions"]) == 7
    assert superuser["user"]["role"] == "superuser"
    assert len(superuser["role_permissions"]) == 19
    assert superuser["sources"]["role"]["assign"] == [{"role": "superuser", "path": ["superuser"]}]
