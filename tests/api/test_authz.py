"""Asking the plane what one may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.services import opening, roles
from common.services.principal import system
from tests.people import Clock, Person, World, settings_for


def ask(person: Person, resource: Any, action: Any) -> tuple[int, Any]:
    answer = person.ask("POST", "/api/v1/authz/check", {"resource": resource, "action": action})
    return answer.status_code, answer.json["data"]


def test_who_has_no_role_is_a_member(world: World) -> None:
    someone = world.person()

    status, decision = ask(someone, "dataset", "write")

    assert (status, decision["allowed"]) == (200, True)
    assert decision["reason"] == "dataset:write is granted by role member."
    assert ask(someone, "user", "read")[1] == {"allowed": False, "reason": "None of your roles grants user:read."}


def test_the_answer_follows_the_role_graph_at_once_and_says_the_way(world: World) -> None:
    someone, shell = world.person(), system("test")
    roles.create_role(world.plane, shell, role_name="base")
    roles.create_role(world.plane, shell, role_name="heir", parents=["base"])
    roles.update_user_role(world.plane, shell, someone.email, "heir")
    assert ask(someone, "chat", "share")[1]["allowed"] is False

    roles.grant_role_permission(world.plane, shell, "base", {"resource": "chat", "actions": ["share"]})

    allowed = {"allowed": True, "reason": "chat:share is granted by role heir, which inherits it from base."}
    assert ask(someone, "Chat", "SHARE")[1] == allowed


def test_a_superuser_may_everything_and_owning_a_tenant_adds_nothing(world: World, root: Person) -> None:
    owner = world.person()

    assert ask(root, "role", "assign")[1]["allowed"] is True
    assert ask(owner, "tenant", "write")[1]["allowed"] is False
    assert ask(owner, "token", "create")[1]["allowed"] is False


def test_a_pair_that_is_not_registered_is_400_and_names_what_there_is(world: World) -> None:
    someone = world.person()
    for body, fragment in (
        ({"resource": "planet", "action": "read"}, "dataset"),
        ({"resource": "audit", "action": "write"}, "export"),
        ({"resource": "", "action": ""}, "resource"),
        ({"resource": 7, "action": "read"}, "resource"),
        ({"resource": "dataset"}, "action"),
        ({}, "resource"),
    ):
        answer = someone.ask("POST", "/api/v1/authz/check", body)
        assert (answer.status_code, answer.json["code"]) == (400, 400)
        assert fragment in answer.json["message"]


def test_nobody_is_told_anything(world: World) -> None:
    answer = world.api.ask("POST", "/api/v1/authz/check", {"resource": "dataset", "action": "read"})

    assert (answer.status_code, answer.json["code"]) == (401, 401)


def test_many_questions_are_answered_at_once_in_their_order(world: World) -> None:
    someone = world.person()
    checks = [{"resource": "Dataset", "action": "write"}, {"resource": "user", "action": "read"}] * 50

    answer = someone.ask("POST", "/api/v1/authz/check", {"checks": checks})

    results = answer.json["data"]["results"]
    assert (answer.status_code, len(results)) == (200, 100)
    assert results[0] == {
        "resource": "dataset", "action": "write", "allowed": True,
        "reason": "dataset:write is granted by role member.",
    }  # fmt: skip
    assert [each["allowed"] for each in results] == [True, False] * 50


def test_a_batch_with_one_bad_question_or_too_many_is_400(world: World) -> None:
    someone, good = world.person(), {"resource": "dataset", "action": "read"}
    for checks in (
        [],
        [good] * 101,
        [good, {"resource": "planet", "action": "read"}],
        [good, {"resource": "dataset"}],
        7,
    ):
        answer = someone.ask("POST", "/api/v1/authz/check", {"checks": checks})
        assert (answer.status_code, answer.json["code"]) == (400, 400)


def test_pairs_of_the_configuration_can_be_granted_and_asked_about(tmp_path: Path, clock: Clock) -> None:
    settings = settings_for(tmp_path / "home")
    further = settings.model_copy(update={"permissions": {"report": ("read",)}})
    plane = opening.open_plane(further, now_ms=clock)
    world = World(plane)
    try:
        someone, root = world.person(), world.root
        root.administer("POST", "/roles", {"role_name": "reporter"})
        root.administer("POST", "/roles/reporter/permission", {"resource": "report", "actions": ["read"]})
        assert ask(someone, "report", "read")[1]["allowed"] is False

        root.administer("PUT", f"/users/{someone.email}/role", {"role_name": "reporter"})

        assert ask(someone, "report", "read")[1]["allowed"] is True
        assert ask(root, "report", "read")[1]["allowed"] is True
        assert root.administer("GET", "/roles/resource").json["data"]["actions"]["report"] == ["read"]
        shown = root.administer("GET", f"/users/{someone.email}/permissions").json["data"]
        assert shown["role_permissions"]["report"] == {"read": True}
    finally:
        for store in (plane.database, plane.cache, plane.documents):
            store.close()
