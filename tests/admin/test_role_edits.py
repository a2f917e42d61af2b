"""Roles seen whole, changed in pieces, tried without effect, changed only as they were read, and taken over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.people import Person, World
from tests.roles import give_role, make_role, permissions_of

TABLES = ("rk_role", "rk_role_parent", "rk_role_grant", "rk_user_role", "rk_state", "rk_audit_event")


def stored(world: World) -> dict[str, Any]:
    return {name: sorted(world.plane.database.all(f"SELECT * FROM {name}"), key=repr) for name in TABLES}


def holder(world: World, role: str) -> Person:
    person = world.person()
    give_role(world, person, role)
    return person


@pytest.fixture
def family(world: World) -> World:
    """``base`` grants dataset:read; ``middle`` inherits it; ``top`` inherits that, and grants audit:read."""
    make_role(world, "base", {"dataset": ["read"]})
    make_role(world, "middle", {}, parents=["base"])
    make_role(world, "top", {"audit": ["read"]}, parents=["middle"])
    make_role(world, "other", {"chat": ["read"]})
    return world


def test_a_role_is_shown_with_what_is_above_and_below_it_and_who_holds_it(family: World, root: Person) -> None:
    people = sorted([holder(family, "middle") for _ in range(5)], key=lambda person: person.user_id)

    first = root.administer("GET", "/roles/middle?limit=3")
    shown = first.json["data"]
    rest = root.administer("GET", f"/roles/middle?limit=3&cursor={shown['next_cursor']}").json["data"]

    assert (shown["role_name"], shown["parents"], shown["children"]) == ("middle", ["base"], ["top"])
    assert shown["permissions"]["dataset"]["read"] is False
    assert shown["inherited"]["dataset"] == {"enable": False, "read": True, "write": False, "share": False}
    listed = [each["email"] for each in shown["holders"] + rest["holders"]]
    assert listed == [person.email for person in people]
    assert rest["next_cursor"] is None
    assert first.headers["ETag"] == f'"{shown["version"]}"'


def test_the_holders_of_superuser_are_those_with_the_flag(world: World, root: Person) -> None:
    other = world.person(is_superuser=True)

    shown = root.administer("GET", "/roles/Superuser").json["data"]

    assert {each["email"] for each in shown["holders"]} == {root.email, other.email}
    assert root.administer("GET", "/roles/nobody").status_code == 404
    assert root.administer("GET", "/roles/viewer?cursor=nonsense").status_code == 400


def test_parents_come_and_go_one_by_one(family: World, root: Person) -> None:
    someone = holder(family, "other")

    added = root.administer("POST", "/roles/other/parents", {"parents": ["Base", "middle"]})
    assert (added.status_code, added.json["data"]["parents"]) == (200, ["base", "middle"])
    assert ("dataset", "read") in permissions_of(family, someone)

    taken = root.administer("DELETE", "/roles/other/parents", {"parents": ["base", "top"]})
    assert taken.json["data"]["parents"] == ["middle"]
    root.administer("DELETE", "/roles/other/parents", {"parents": ["middle"]})
    assert permissions_of(family, someone) == {("chat", "read")}
    before = stored(family)
    for body, status in (
        ({"parents": ["nobody"]}, 400), ({"parents": []}, 400), ({}, 400), ({"parents": ["other"]}, 409),
    ):  # fmt: skip
        assert root.administer("POST", "/roles/other/parents", body).status_code == status
    assert root.administer("POST", "/roles/base/parents", {"parents": ["top"]}).status_code == 409
    assert stored(family) == before
    assert root.administer("POST", "/roles/viewer/parents", {"parents": ["other"]}).status_code == 409
    now = stored(family)
    assert len(now.pop("rk_audit_event")) == len(before.pop("rk_audit_event")) + 1
    assert now == before


def test_a_dry_run_names_who_gains_and_loses_what_and_writes_nothing(family: World, root: Person) -> None:
    low, high, free = holder(family, "middle"), holder(family, "top"), holder(family, "other")
    root.administer("POST", f"/users/{free.email}/roles", {"roles": ["base", "middle"]})
    root.administer("POST", f"/users/{high.email}/roles", {"roles": ["other"]})
    before = stored(family)
    attempts: list[tuple[str, str, Any]] = [
        ("POST", "/roles/base/permission?dry_run=1", {"resource": "chat", "actions": ["read"]}),
        ("DELETE", "/roles/base/permission?dry_run=true", {"resource": "dataset", "actions": ["read"]}),
        ("DELETE", "/roles/middle/parents?dry_run=1", {"parents": ["base"]}),
        ("PUT", "/roles/other?dry_run=1", {"description": "changed"}),
        ("POST", "/roles?dry_run=1", {"role_name": "fresh", "parents": ["top"]}),
        ("DELETE", "/roles/middle?dry_run=1&reassign_to=other", None),
    ]

    granted, revoked, orphaned, described, fresh, gone = (root.administer(*each).json["data"] for each in attempts)

    gain = {"gains": ["chat:read"], "loses": []}
    assert granted["roles"] == [{"role_name": name, **gain} for name in ("base", "middle", "top")]
    # Who holds chat:read anyway gains nothing.
    assert granted["users"] == [{"email": low.email, **gain}]
    assert (granted["role_count"], granted["user_count"], granted["complete"]) == (3, 3, True)
    loss = {"gains": [], "loses": ["dataset:read"]}
    assert {each["email"] for each in revoked["users"]} == {low.email, high.email, free.email}
    assert orphaned["roles"] == [{"role_name": name, **loss} for name in ("middle", "top")]
    assert {each["email"] for each in orphaned["users"]} == {low.email, high.email}
    assert (described["roles"], described["users"]) == ([], [])
    assert fresh["roles"] == [{"role_name": "fresh", "gains": ["audit:read", "dataset:read"], "loses": []}]
    assert {each["role_name"]: (each["gains"], each["loses"]) for each in gone["roles"]} == {
        "middle": ([], ["dataset:read"]), "top": (["chat:read"], ["dataset:read"]),
    }  # fmt: skip
    assert {each["email"]: each["gains"] for each in gone["users"]} == {low.email: ["chat:read"], high.email: []}
    assert stored(family) == before
    for attempt in attempts:
        assert attempt[1].count("dry_run")
        assert root.administer(*attempt).json["message"] == "This is what would change; nothing was changed."


def test_what_a_dry_run_names_is_bounded_and_says_so(world: World, root: Person) -> None:
    make_role(world, "wide", {"dataset": ["read"]})
    for number in range(60):
        make_role(world, f"heir-{number}", parents=["wide"])
    with world.plane.database.transaction():
        row = world.plane.database.one("SELECT id FROM rk_role WHERE name = 'wide'")
        assert row
        for _ in range(60):
            world.plane.database.run(
                "INSERT INTO rk_user_role (user_id, role_id, granted_at) VALUES (?, ?, 0)",
                (world.person().user_id, row[0]),
            )

    body = {"resource": "dataset", "actions": ["write"]}
    planned = root.administer("POST", "/roles/wide/permission?dry_run=1", body).json["data"]

    assert (planned["role_count"], len(planned["roles"])) == (61, 50)
    assert (planned["user_count"], len(planned["users"])) == (60, 50)
    assert planned["complete"] is False


EDITS: dict[str, tuple[str, str, Any]] = {
    "put": ("PUT", "/roles/middle", {"description": "mine"}),
    "grant": ("POST", "/roles/middle/permission", {"resource": "chat", "actions": ["read"]}),
    "revoke": ("DELETE", "/roles/middle/permission", {"resource": "chat", "actions": ["read"]}),
    "add parent": ("POST", "/roles/middle/parents", {"parents": ["other"]}),
    "remove parent": ("DELETE", "/roles/middle/parents", {"parents": ["base"]}),
    "delete": ("DELETE", "/roles/middle?reassign_to=base", None),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_of_what_somebody_else_changed_meanwhile_is_412(
    family: World, root: Person, edit: tuple[str, str, Any]
) -> None:
    method, path, body = edit
    read = root.administer("GET", "/roles/middle/permissions").headers["ETag"]
    assert root.administer("PUT", "/roles/middle", {"description": "theirs"}).status_code == 200
    before = stored(family)

    lost = root.administer(method, path, body, headers={"If-Match": read})

    assert (lost.status_code, lost.json["code"]) == (412, 412)
    assert stored(family) == before
    now = root.administer("GET", "/roles/middle").headers["ETag"]
    assert root.administer(method, path, body, headers={"If-Match": f'"other", {now}'}).status_code == 200


def test_what_a_change_answers_is_the_version_to_go_on_with(family: World, root: Person) -> None:
    made = root.administer("POST", "/roles", {"role_name": "fresh"})
    changed = root.administer("PUT", "/roles/fresh", {"description": "a"}, headers={"If-Match": made.headers["ETag"]})
    again = root.administer("PUT", "/roles/fresh", {"description": "b"}, headers={"If-Match": changed.headers["ETag"]})

    assert (made.status_code, changed.status_code, again.status_code) == (200, 200, 200)
    assert again.headers["ETag"] == root.administer("GET", "/roles/fresh").headers["ETag"] != made.headers["ETag"]
    broken = root.administer("PUT", "/roles/fresh", {"description": "c"}, headers={"If-Match": "fresh"})
    assert (broken.status_code, "If-Match" in broken.json["message"]) == (400, True)


def test_who_holds_or_inherits_a_role_can_be_given_another_one_with_its_deletion(family: World, root: Person) -> None:
    low, both = holder(family, "middle"), holder(family, "middle")
    root.administer("POST", f"/users/{both.email}/roles", {"roles": ["other"]})
    refused = root.administer("DELETE", "/roles/middle")
    assert refused.status_code == 409
    assert "held by 2 user(s)" in refused.json["message"]
    assert "inherited by 1 role(s) (top)" in refused.json["message"]

    assert root.administer("DELETE", "/roles/middle?reassign_to=Other").status_code == 200

    assert root.administer("GET", "/roles/middle").status_code == 404
    assert permissions_of(family, low) == permissions_of(family, both) == {("chat", "read")}
    assert root.administer("GET", f"/users/{both.email}").json["data"][0]["roles"] == ["other"]
    assert root.administer("GET", "/roles/top").json["data"]["parents"] == ["other"]
    _, _, target, before, after = family.events("role:delete")[-1]
    assert (target, json.loads(before)["children"]) == ("middle", ["top"])
    assert json.loads(after) == {"reassigned_to": "other", "users": 2}


@pytest.mark.parametrize(
    ("instead", "status"), [("nobody", 400), ("middle", 400), ("superuser", 400), ("no name", 400), ("top", 409)]
)
def test_a_role_that_can_not_take_over_is_refused(family: World, root: Person, instead: str, status: int) -> None:
    holder(family, "middle")
    assert root.admin_session
    before = stored(family)

    answer = root.administer("DELETE", f"/roles/middle?reassign_to={instead}")

    assert (answer.status_code, stored(family)) == (status, before)


def test_handing_over_gives_nobody_more_than_the_actor_could_give(family: World, root: Person) -> None:
    make_role(family, "remover", {"role": ["delete"], "dataset": ["read"]})
    make_role(family, "keeper", {"role": ["delete", "assign", "write"], "dataset": ["read"], "audit": ["read"]})
    make_role(family, "mover", {"role": ["delete", "assign"], "dataset": ["read"], "audit": ["read"]})
    make_role(family, "narrow", {"role": ["delete", "assign", "write"], "dataset": ["read"]})
    make_role(family, "empty")
    for name in ("remover", "keeper"):
        make_role(family, f"{name}s-own", {}, parents=["base"])
    remover, keeper, mover, narrow = (holder(family, name) for name in ("remover", "keeper", "mover", "narrow"))
    someone = holder(family, "keepers-own")
    holder(family, "removers-own")
    before = stored(family)
    del before["rk_audit_event"]

    def status(actor: Person, path: str) -> int:
        return actor.administer("DELETE", path).status_code

    assert status(remover, "/roles/removers-own?reassign_to=base") == 403
    assert status(keeper, "/roles/keepers-own?reassign_to=other") == 403
    assert status(keeper, "/roles/keepers-own?reassign_to=member") == 403
    # The heir ``top`` would get chat:read, which is not the keeper's.
    assert status(keeper, "/roles/middle?reassign_to=other") == 403
    # ``top``, which inherits over ``middle``, holds audit:read, which is not theirs to weaken.
    assert status(narrow, "/roles/base?reassign_to=empty") == 403
    # To give ``top`` another parent is an edit of that role.
    assert status(mover, "/roles/middle?reassign_to=base") == 403
    now = stored(family)
    del now["rk_audit_event"]
    assert now == before
    assert status(mover, "/roles/removers-own?reassign_to=base") == 200
    assert status(keeper, "/roles/middle?reassign_to=base") == 200
    assert status(keeper, "/roles/keepers-own?reassign_to=base") == 200
    assert permissions_of(family, someone) == {("dataset", "read")}


def test_an_explanation_gives_a_reason_for_every_pair_or_for_the_one_asked_about(family: World, root: Person) -> None:
    someone = holder(family, "top")
    path = f"/users/{someone.email}/permissions"

    whole = root.administer("GET", f"{path}?explain=1").json["data"]
    (read,) = root.administer("GET", f"{path}?explain=1&resource=Dataset&action=READ").json["data"]["explanation"]
    (denied,) = root.administer("GET", f"{path}?explain=1&resource=user&action=read").json["data"]["explanation"]
    of_resource = root.administer("GET", f"{path}?explain=1&resource=audit").json["data"]["explanation"]

    assert whole["roles"] == ["top"]
    assert {f"{e['resource']}:{e['action']}" for e in whole["explanation"] if e["allowed"]} == {
        "dataset:read", "audit:read",
    }  # fmt: skip
    assert len(whole["explanation"]) > 50
    assert read == {
        "resource": "dataset", "action": "read", "allowed": True, "paths": [["top", "middle", "base"]],
        "reason": "Granted by role top, which inherits it from base.",
    }  # fmt: skip
    assert (denied["allowed"], denied["reason"]) == (False, "None of the roles top grants it.")
    assert [each["action"] for each in of_resource] == ["read", "export"]
    assert "explanation" not in root.administer("GET", path).json["data"]
    for query in ("resource=planet", "resource=audit&action=fly", "action=read"):
        assert root.administer("GET", f"{path}?explain=1&{query}").status_code == 400
    root.administer("PUT", f"/users/{someone.email}/activate", {"activate_status": "off"})
    (off,) = root.administer("GET", f"{path}?explain=1&resource=audit&action=read").json["data"]["explanation"]
    assert (off["allowed"], "switched off" in off["reason"]) == (False, True)
