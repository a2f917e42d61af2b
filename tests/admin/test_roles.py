"""Roles: making, changing, reading and deleting them over the admin API."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import pytest

from common.core.permissions import ACTIONS, BUILT_IN_ROLES, MAX_DEPTH
from common.models.role import RoleHolder
from tests.people import START_MS, Clock, Person, World
from tests.statements import statements

LISTED = {"id", "role_name", "description", "parents", "builtin", "create_date", "update_date"}
NOTHING = dict.fromkeys(("enable", "read", "write", "share"), False)


def make(root: Person, name: str, *parents: str) -> dict[str, Any]:
    answer = root.administer("POST", "/roles", {"role_name": name, "parents": list(parents)})
    assert answer.status_code == 200, answer.json
    made: dict[str, Any] = answer.json["data"]
    return made


def grant(root: Person, name: str, resource: str, *actions: str) -> None:
    body = {"resource": resource, "actions": list(actions)}
    assert root.administer("POST", f"/roles/{name}/permission", body).status_code == 200


def rows(root: Person, name: str) -> set[tuple[str, str, str]]:
    listed = root.administer("GET", f"/roles/{name}/permission").json["data"]
    return {(row["resource"], row["action"], row["source"]) for row in listed}


def version(world: World) -> int:
    row = world.plane.database.one("SELECT value FROM rk_state WHERE name = 'role_version'")
    assert row
    return int(row[0])


def test_R4_roles_are_made_listed_changed_and_deleted(root: Person, clock: Clock) -> None:
    made = make(root, "Reader")
    clock.forward(hours=1)
    root.come_back()
    changed = root.administer("PUT", "/roles/reader", {"description": "Reads."}).json["data"]
    listed = root.administer("GET", "/roles").json["data"]

    assert made["name"] == made["role_name"] == "reader"
    assert (made["id"], made["description"], made["parents"], made["builtin"]) == (changed["id"], "", [], False)
    assert parsedate_to_datetime(made["create_date"]).timestamp() * 1000 == START_MS
    assert parsedate_to_datetime(changed["update_date"]).timestamp() * 1000 == START_MS + 3_600_000
    assert listed["total"] == len(listed["roles"]) == len(BUILT_IN_ROLES) + 1
    assert all(role.keys() == LISTED for role in listed["roles"])
    assert [role["role_name"] for role in listed["roles"]] == sorted([*BUILT_IN_ROLES, "reader"])
    assert {role["role_name"]: role["description"] for role in listed["roles"]}["reader"] == "Reads."

    assert root.administer("DELETE", "/roles/READER").status_code == 200
    assert root.administer("GET", "/roles").json["data"]["total"] == len(BUILT_IN_ROLES)


def test_R7_a_role_needs_no_description(root: Person) -> None:
    for number, description in enumerate(({}, {"description": ""}, {"description": None})):
        answer = root.administer("POST", "/roles", {"role_name": f"plain-{number}", **description})
        assert (answer.status_code, answer.json["data"]["description"]) == (200, "")


def test_a_name_is_taken_whatever_its_case(root: Person) -> None:
    make(root, "analyst")

    for name in ("Analyst", "analyst", "SUPERUSER"):
        answer = root.administer("POST", "/roles", {"role_name": name})
        assert (answer.status_code, answer.json["code"]) == (409, 409)
        assert name.lower() in answer.json["message"]


def test_a_name_outside_the_rule_is_refused_and_the_field_named(root: Person) -> None:
    for name in ("", "-x", "a b", "a" * 65, "rôle", "\u212aelvin", "a/b", "a\n", 7, None, ["a"]):
        answer = root.administer("POST", "/roles", {"role_name": name})
        assert (answer.status_code, "role_name" in answer.json["message"]) == (400, True), name


def test_a_change_that_says_nothing_or_nonsense_is_refused_by_field(root: Person) -> None:
    make(root, "analyst")
    nonsense: list[tuple[dict[str, Any], str]] = [
        ({}, "description"),
        ({"description": None, "parents": None}, "description"),
        ({"description": 7}, "description"),
        ({"description": "x" * 5000}, "description"),
        ({"parents": "member"}, "parents"),
        ({"parents": [7]}, "parents"),
        ({"parents": ["nobody"]}, "parents"),
        ({"parents": ["no name"]}, "parents"),
        ({"parents": [f"role-{number}" for number in range(65)]}, "parents"),
    ]
    for body, field in nonsense:
        answer = root.administer("PUT", "/roles/analyst", body)
        assert (answer.status_code, field in answer.json["message"]) == (400, True), body


def test_an_unknown_role_is_404(root: Person) -> None:
    make(root, "kelvin")
    ways: list[tuple[str, str, Any]] = [
        ("PUT", "", {"description": "x"}),
        ("DELETE", "", None),
        ("GET", "/permission", None),
        ("GET", "/permissions", None),
        ("POST", "/permission", {"resource": "chat", "actions": ["read"]}),
        ("DELETE", "/permission", {"resource": "chat", "actions": ["read"]}),
    ]
    for method, path, body in ways:
        for name in ("nobody", "no%20name", "%E2%84%AAelvin", "a" * 3000):
            assert root.administer(method, f"/roles/{name}{path}", body).status_code == 404


def test_parents_are_given_by_name_stay_when_absent_and_go_when_empty(root: Person) -> None:
    make(root, "base")
    make(root, "other")
    assert make(root, "analyst", "Base", "BASE", "viewer")["parents"] == ["base", "viewer"]

    def change(**body: Any) -> list[str]:
        parents: list[str] = root.administer("PUT", "/roles/analyst", body).json["data"]["parents"]
        return parents

    assert change(description="still") == ["base", "viewer"]
    assert change(parents=["other"]) == ["other"]
    listed = root.administer("GET", "/roles").json["data"]["roles"]
    assert [role["parents"] for role in listed if role["role_name"] == "analyst"] == [["other"]]
    assert change(parents=[]) == []


def test_permissions_are_inherited_transitively_and_own_ones_kept_apart(root: Person) -> None:
    make(root, "a")
    make(root, "b", "a")
    make(root, "c", "b")
    grant(root, "a", "dataset", "read")
    grant(root, "b", "audit", "export")
    grant(root, "c", "dataset", "write", "read")

    shown = root.administer("GET", "/roles/c/permissions").json["data"]

    assert shown["role"].keys() == {"id", "name", "description", "parents"}
    assert shown["permissions"]["dataset"] == {**NOTHING, "read": True, "write": True}
    assert shown["permissions"]["memory"] == NOTHING
    assert "audit" not in shown["permissions"]
    assert shown["inherited"]["dataset"] == NOTHING
    assert shown["inherited"]["audit"] == {"export": True}
    listed = root.administer("GET", "/roles_with_permission").json["data"]
    by_name = {role["role_name"]: role for role in listed["roles"]}
    assert listed["total"] == len(by_name)
    assert {key: by_name["c"][key] for key in ("permissions", "inherited")} == {
        key: shown[key] for key in ("permissions", "inherited")
    }
    assert rows(root, "c") == {
        ("dataset", "read", "a"),
        ("dataset", "read", "c"),
        ("dataset", "write", "c"),
        ("audit", "export", "b"),
    }


def test_it_refuses_a_cycle_and_names_it(root: Person, world: World) -> None:
    make(root, "a")
    make(root, "b", "a")
    make(root, "c", "b")
    before = version(world)

    answer = root.administer("PUT", "/roles/A", {"parents": ["c"]})

    assert (answer.status_code, answer.json["code"]) == (409, 409)
    assert "a → c → b → a" in answer.json["message"]
    assert version(world) == before
    assert root.administer("PUT", "/roles/a", {"parents": ["a"]}).status_code == 409
    alone = root.administer("POST", "/roles", {"role_name": "d", "parents": ["D"]})
    assert (alone.status_code, "d → d" in alone.json["message"]) == (409, True)


def test_a_chain_is_bounded_also_when_its_last_link_is_a_new_role(root: Person) -> None:
    make(root, "r0")
    for number in range(MAX_DEPTH):
        make(root, f"r{number + 1}", f"r{number}")

    answer = root.administer("POST", "/roles", {"role_name": "deeper", "parents": [f"r{MAX_DEPTH}"]})

    assert answer.status_code == 400
    assert "parents" in answer.json["message"]


def test_both_forms_of_granting_and_revoking_do_the_same(root: Person) -> None:
    make(root, "cli")
    make(root, "web")

    root.administer("POST", "/roles/cli/permission", {"actions": ["READ", "write"], "resource": "Dataset"})
    tree = {"dataset": {"read": True, "write": True, "share": False}, "chat": {}}
    root.administer("POST", "/roles/web/permission", {"new_permissions": tree})
    assert {row[:2] for row in rows(root, "cli")} == {row[:2] for row in rows(root, "web")}
    assert {row[:2] for row in rows(root, "web")} == {("dataset", "read"), ("dataset", "write")}

    root.administer("DELETE", "/roles/cli/permission", {"actions": ["read"], "resource": "dataset"})
    gone = {"dataset": {"read": False}}
    answer = root.administer("DELETE", "/roles/web/permission", {"revoke_permissions": gone})
    assert answer.json["data"] == [{"resource": "dataset", "action": "write", "source": "web"}]
    assert rows(root, "cli") == {("dataset", "write", "cli")}


def test_granting_twice_and_revoking_what_is_inherited_change_nothing(root: Person, world: World) -> None:
    make(root, "base")
    make(root, "heir", "base")
    grant(root, "base", "chat", "read")
    before = version(world), len(world.events("role:grant"))

    grant(root, "base", "chat", "read")
    root.administer("DELETE", "/roles/heir/permission", {"resource": "chat", "actions": ["read"]})

    assert (version(world), len(world.events("role:grant"))) == before
    assert rows(root, "heir") == {("chat", "read", "base")}


@pytest.mark.parametrize(("method", "tree"), [("POST", "new_permissions"), ("DELETE", "revoke_permissions")])
def test_what_is_not_registered_or_malformed_is_400_and_changes_nothing(
    root: Person, world: World, method: str, tree: str
) -> None:
    make(root, "analyst")
    grant(root, "analyst", "dataset", "read")
    before = version(world)
    malformed: list[tuple[dict[str, Any], str]] = [
        ({}, "actions"),
        ({"actions": ["read"]}, "resource"),
        ({"resource": "dataset"}, "actions"),
        ({"resource": "dataset", "actions": []}, "actions"),
        ({"resource": "dataset", "actions": "read"}, "actions"),
        ({"resource": "dataset", "actions": ["read", "fly"]}, "actions"),
        ({"resource": "planet", "actions": ["read"]}, "resource"),
        ({"resource": None, "actions": ["read"]}, "resource"),
        ({tree: {"dataset": {"fly": True}}}, tree),
        ({tree: {"user": {"enable": False}}}, tree),
        ({tree: {"dataset": ["read"]}}, tree),
        ({tree: {"dataset": {"read": "yes"}}}, tree),
        ({tree: None}, tree),
    ]
    for body, field in malformed:
        answer = root.administer(method, "/roles/analyst/permission", body)
        assert (answer.status_code, field in answer.json["message"]) == (400, True), body
    assert version(world) == before
    assert rows(root, "analyst") == {("dataset", "read", "analyst")}


def test_a_built_in_role_can_not_be_changed(root: Person, world: World) -> None:
    before = version(world)
    permission = {"resource": "chat", "actions": ["read"]}

    for name in BUILT_IN_ROLES:
        for method, path, body in (
            ("PUT", "", {"description": "mine"}),
            ("PUT", "", {"parents": ["member"]}),
            ("DELETE", "", None),
            ("POST", "/permission", permission),
            ("DELETE", "/permission", permission),
        ):
            answer = root.administer(method, f"/roles/{name.upper()}{path}", body)
            assert (answer.status_code, name in answer.json["message"]) == (409, True)
    assert version(world) == before


def test_a_role_that_is_held_or_inherited_is_not_deleted_and_it_says_by_whom(root: Person, world: World) -> None:
    role_id = make(root, "base")["id"]
    for number in range(7):
        make(root, f"heir-{number}", "base")
        holder = world.person(f"holder-{number}@ragkeeper.test")
        world.plane.database.insert(RoleHolder, user_id=holder.user_id, role_id=role_id, granted_at=0)

    answer = root.administer("DELETE", "/roles/base")

    assert answer.status_code == 409
    text = answer.json["message"]
    assert "held by 7 user(s)" in text
    assert "inherited by 7 role(s)" in text
    assert (text.count("@ragkeeper.test"), text.count("heir-")) == (5, 5)


def test_a_role_that_is_held_alone_or_inherited_alone_is_not_deleted_either(root: Person, world: World) -> None:
    make(root, "base")
    make(root, "heir", "base")
    root.administer("POST", f"/users/{world.person().email}/roles", {"roles": ["heir"]})

    inherited, held = (root.administer("DELETE", f"/roles/{name}") for name in ("base", "heir"))

    assert (inherited.status_code, held.status_code) == (409, 409)
    assert "inherited by 1 role(s) (heir)" in inherited.json["message"]
    assert "held by 1 user(s)" in held.json["message"]


def test_assignments_left_over_from_deleted_accounts_hold_no_role_back(root: Person, world: World) -> None:
    role_id = make(root, "base")["id"]
    grant(root, "base", "chat", "read")
    world.plane.database.insert(RoleHolder, user_id=uuid4().hex, role_id=role_id, granted_at=0)

    assert root.administer("DELETE", "/roles/base").status_code == 200
    for table in ("rk_role_grant", "rk_user_role"):
        assert world.plane.database.one(f"SELECT COUNT(*) FROM {table} WHERE role_id = ?", (role_id,)) == (0,)


def test_a_deleted_role_made_anew_grants_nothing(root: Person) -> None:
    make(root, "base")
    make(root, "analyst", "base")
    grant(root, "analyst", "chat", "read")
    root.administer("DELETE", "/roles/analyst")

    make(root, "analyst")

    assert rows(root, "analyst") == set()
    assert root.administer("DELETE", "/roles/base").status_code == 200


def test_the_registry_names_every_resource_with_ragflows_seven_first(root: Person) -> None:
    shown = root.administer("GET", "/roles/resource").json["data"]

    assert shown["resource_types"] == list(ACTIONS)
    assert shown["resource_types"][:7] == ["dataset", "chat", "agent", "search", "file", "team", "memory"]
    assert shown["actions"]["audit"] == ["read", "export"]


def test_every_change_is_in_the_trail_with_before_and_after(root: Person, world: World) -> None:
    make(root, "base")
    make(root, "analyst")
    grant(root, "analyst", "chat", "read")
    root.administer("PUT", "/roles/analyst", {"parents": ["base"], "description": "Looks."})
    root.administer("DELETE", "/roles/analyst/permission", {"resource": "chat", "actions": ["read"]})
    root.administer("DELETE", "/roles/analyst")

    def trail(tag: str) -> tuple[Any, ...]:
        result, actor, target, before, after = world.events(tag)[-1]
        return (result, actor, target, json.loads(before or "null"), json.loads(after or "null"))

    who = ("ok", root.email, "analyst")
    held, none = {"permissions": ["chat:read"]}, {"permissions": []}
    first, then = {"description": "", "parents": []}, {"description": "Looks.", "parents": ["base"]}
    assert trail("role:create") == (*who, None, first)
    assert trail("role:grant") == (*who, none, held)
    assert trail("role:update") == (*who, first, then)
    assert trail("role:revoke") == (*who, held, none)
    assert trail("role:delete") == (*who, {**then, **none}, None)


def test_every_change_raises_the_version_that_all_processes_compare(root: Person, world: World) -> None:
    seen = [version(world)]
    permission = {"resource": "chat", "actions": ["read"]}
    for method, path, body in (
        ("POST", "/roles", {"role_name": "a"}),
        ("POST", "/roles/a/permission", permission),
        ("PUT", "/roles/a", {"parents": ["viewer"]}),
        ("DELETE", "/roles/a/permission", permission),
        ("DELETE", "/roles/a", None),
    ):
        assert root.administer(method, path, body).status_code == 200
        seen.append(version(world))

    assert seen == list(range(seen[0], seen[0] + 6))


def test_listing_takes_the_same_statements_however_many_roles(root: Person, world: World) -> None:
    def count() -> int:
        with statements(world.plane) as heard:
            root.administer("GET", "/roles_with_permission")
        return len(heard)

    count()
    few = count()
    for number in range(20):
        make(root, f"role-{number}", "viewer")
    count()

    assert count() == few <= 3
