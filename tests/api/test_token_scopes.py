"""Scopes of API tokens: what they let through on both ports, and that none makes more of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.core.tokens import display_form, has_scope, is_misspelt
from common.services import limits, opening, tokens
from tests.admin.test_tenants import give
from tests.people import Clock, Person, World, new_password, settings_for
from tests.statements import statements

TOKENS = "/api/v1/system/tokens"
USERS = "/api/v1/admin/users"


@pytest.fixture
def manager(world: World) -> Person:
    return give(world, world.person(), "user-manager")


@pytest.fixture
def plain(tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world in which tokens are stored as RAGFlow reads them."""
    plane = opening.open_plane(settings_for(tmp_path / "plain", RAGKEEPER_TOKEN_STORAGE="plain"), now_ms=clock)
    yield World(plane)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


def make(person: Person, *scopes: str, **more: Any) -> str:
    made = person.ask("POST", TOKENS, {"scopes": list(scopes), **more} if scopes else more)
    assert made.json["code"] == 0, made.json
    return str(made.json["data"]["token"])


def may(world: World, token: str, resource: str, action: str) -> bool:
    answer = world.api.ask(
        "POST", "/api/v1/authz/check", {"resource": resource, "action": action}, credential=f"Bearer {token}"
    )
    assert answer.status_code == 200, answer.json
    return bool(answer.json["data"]["allowed"])


def test_a_token_does_what_its_scope_says_and_its_owner_may(world: World) -> None:
    owner = world.person()
    token = make(owner, "write:dataset", "read:user")

    assert has_scope(token)
    assert may(world, token, "dataset", "read")
    assert may(world, token, "dataset", "write")
    assert not may(world, token, "dataset", "share")
    assert not may(world, token, "chat", "read")
    # The owner may not, so the scope gives nothing.
    assert not may(world, token, "user", "read")
    assert world.api.ask("GET", "/v1/user/info", credential=token).json["data"]["email"] == owner.email


def test_a_decision_says_whether_the_scope_or_the_roles_fall_short(world: World) -> None:
    token = make(world.person(), "read:dataset", "read:user")

    def reason(resource: str, action: str) -> str:
        asked = {"resource": resource, "action": action}
        return str(world.api.ask("POST", "/api/v1/authz/check", asked, credential=token).json["data"]["reason"])

    assert "scope" in reason("dataset", "write")
    assert "roles" in reason("user", "read")
    assert "granted" in reason("dataset", "read")


def test_what_the_owner_loses_the_token_loses_on_the_next_request_and_gets_back(world: World, root: Person) -> None:
    owner = give(world, world.person(), "viewer")
    token = make(owner, "read:user")

    def listed() -> int:
        return int(world.admin.ask("GET", USERS, credential=token).status_code)

    assert listed() == 200
    root.administer("PUT", f"/users/{owner.email}/role", {"role_name": "member"})
    assert listed() == 403
    root.administer("PUT", f"/users/{owner.email}/role", {"role_name": "viewer"})
    assert listed() == 200
    root.administer("PUT", f"/users/{owner.email}/activate", {"activate_status": "off"})
    assert listed() == 401


def test_only_an_administrative_scope_opens_the_admin_server(world: World, root: Person) -> None:
    for scopes, status in (((), 401), (("write:dataset",), 401), (("read:user",), 200), (("all",), 200)):
        token = make(root, *scopes)
        assert world.admin.ask("GET", USERS, credential=f"Bearer {token}").status_code == status, scopes
    reader = make(root, "read:user")
    assert world.admin.ask("GET", "/api/v1/admin/roles", credential=reader).status_code == 403
    assert world.admin.ask("GET", "/api/v1/admin/logout", credential=reader).status_code == 403


def test_only_the_scope_all_leaves_a_superuser(world: World, root: Person) -> None:
    other = world.person()
    everything = [f"{action}:user" for action in ("read", "create", "write", "delete")]

    def promote(token: str) -> int:
        return int(world.admin.ask("PUT", f"{USERS}/{other.email}/admin", credential=token).status_code)

    assert promote(make(root, *everything)) == 403
    assert promote(make(root, "all")) == 200
    assert world.events("user:superuser_grant")


def test_a_limited_token_is_no_account_of_its_own_to_itself(world: World, root: Person) -> None:
    token = make(root, "write:user", "create:token", "assign:role", "read:token")
    taken = {"new_password": new_password()}

    for method, path, body in (
        ("PUT", f"{USERS}/{root.email}/password", taken),
        ("POST", f"{USERS}/{root.email}/keys", {}),
        ("PUT", f"{USERS}/{root.email}/role", {"role_name": "member"}),
    ):
        assert world.admin.ask(method, path, body, credential=token).status_code == 403, path
    own = {"password": root.password, "new_password": taken["new_password"]}
    assert world.api.ask("POST", "/v1/user/setting", own, credential=token).status_code == 403
    assert world.api.ask("POST", "/v1/user/setting", {"nickname": "X"}, credential=make(root, "all")).json["code"] == 0


def test_roles_are_given_within_the_scope(world: World, root: Person) -> None:
    other = world.person()
    token = make(root, "assign:role", "read:user")

    def assign(role: str) -> int:
        path = f"{USERS}/{other.email}/role"
        return int(world.admin.ask("PUT", path, {"role_name": role}, credential=token).status_code)

    assert [assign(role) for role in ("superuser", "auditor", "member")] == [403, 403, 403]
    token = make(root, "assign:role", *(f"{action}:{resource}" for resource in (
        "dataset", "chat", "agent", "search", "file", "team", "memory"
    ) for action in ("enable", "write", "share")))  # fmt: skip
    assert [assign(role) for role in ("superuser", "auditor", "member")] == [403, 403, 200]


def test_a_token_makes_none_with_more_scope_and_without_a_word_one_with_its_own(world: World, root: Person) -> None:
    parent = make(root, "create:token", "write:dataset", expires_in=60)

    def child(scopes: list[str] | None, maker: str = parent) -> Any:
        return world.api.ask("POST", TOKENS, {} if scopes is None else {"scopes": scopes}, credential=maker)

    for scopes in (["all"], ["share:dataset"], ["read:dataset", "read:user"]):
        assert child(scopes).status_code == 403, scopes
    assert child(["read:dataset"]).json["data"]["scopes"] == ["read:dataset"]
    inherited = child(None).json["data"]
    assert inherited["scopes"] == ["create:token", "write:dataset"]
    assert inherited["expires_at"] == child(["read:dataset"]).json["data"]["expires_at"] is not None
    assert child(["read:dataset"], make(root, "read:dataset")).status_code == 403


def test_a_token_like_ragflows_manages_tokens_but_makes_none_for_the_admin_server(world: World, root: Person) -> None:
    token = make(root)

    for scopes, status in ((None, 200), (["read:dataset"], 200), (["read:user"], 403), (["all"], 403)):
        body = {} if scopes is None else {"scopes": scopes}
        assert world.api.ask("POST", TOKENS, body, credential=token).status_code == status, scopes
    assert world.api.ask("GET", TOKENS, credential=token).json["code"] == 0


def test_an_administrator_puts_into_a_scope_what_they_hold(world: World, root: Person, manager: Person) -> None:
    other = world.person()
    path = f"/users/{other.email}/keys"

    def make_for(actor: Person, *scopes: str) -> int:
        return int(actor.administer("POST", path, {"scopes": list(scopes)}).status_code)

    assert make_for(manager, "read:dataset", "write:user") == 200
    assert make_for(manager, "read:dataset", "read:service") == 403
    assert make_for(manager, "all") == 403
    assert make_for(root, "all") == 200
    # For oneself a scope is a ceiling, below which one may come to hold more.
    assert manager.administer("POST", f"/users/{manager.email}/keys", {"scopes": ["read:service"]}).status_code == 200


@pytest.mark.parametrize("act", ["create", "rotate"])
def test_a_token_that_is_deleted_meanwhile_makes_none_that_lives_longer(
    world: World, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = world.person()
    leaked, other = (
        someone.ask("POST", TOKENS, {"name": name, "expires_in": 60}).json["data"] for name in ("leaked", "other")
    )

    def deleted_by_then(*_: object) -> None:
        assert someone.ask("DELETE", f"{TOKENS}/{leaked['id']}").json["data"] is True

    monkeypatch.setattr(limits, "token_creation", deleted_by_then)
    path, body = {"create": (TOKENS, {}), "rotate": (f"{TOKENS}/{other['id']}/rotate", {"expires_in": 10**6})}[act]

    assert world.api.ask("POST", path, body, credential=leaked["token"]).status_code == 401
    assert [each["name"] for each in someone.ask("GET", TOKENS).json["data"]] == ["other"]


def test_an_administrators_token_makes_tokens_within_its_scope_and_time(world: World, root: Person) -> None:
    token = make(root, "create:token", "read:dataset", expires_in=60)
    path = f"{USERS}/{world.person().email}/keys"

    made = world.admin.ask("POST", path, {"scopes": ["read:dataset"]}, credential=token).json["data"]
    assert (made["scopes"], made["expires_at"]) == (["read:dataset"], "2026-09-21T14:14:20.000Z")
    assert world.admin.ask("POST", path, credential=token).json["data"]["scopes"] == ["create:token", "read:dataset"]
    assert world.admin.ask("POST", path, {"scopes": ["read:chat"]}, credential=token).status_code == 403


def test_a_token_for_the_admin_server_takes_a_password_of_just_now(world: World, root: Person, clock: Clock) -> None:
    keys = f"/users/{root.email}/keys"
    made = root.ask("POST", TOKENS, {"scopes": ["read:user"]}).json["data"]
    assert root.administer("POST", keys, {"scopes": ["all"]}).status_code == 200
    clock.forward(seconds=601)

    for scopes in (["read:user"], ["all"]):
        assert root.ask("POST", TOKENS, {"scopes": scopes}).status_code == 403
        assert root.administer("POST", keys, {"scopes": scopes}).status_code == 403
    assert root.ask("POST", f"{TOKENS}/{made['id']}/rotate").status_code == 403
    assert root.ask("POST", TOKENS, {"scopes": ["read:dataset"]}).json["code"] == 0
    assert root.ask("POST", TOKENS, {}).json["code"] == 0


def test_lists_show_scopes_and_never_a_value(world: World, plain: World, clock: Clock) -> None:
    for place in (world, plain):
        owner = place.person()
        token = make(owner, "read:dataset", "share:chat")
        clock.forward(seconds=1)
        whole = make(owner)

        for query in ("", "?limit=10"):
            data = owner.ask("GET", TOKENS + query).json["data"]
            first, second = data["tokens"] if query else data
            assert (first["scopes"], second["scopes"]) == (["read:dataset", "share:chat"], None)
            assert (first["token"], first["beta"]) == (display_form(token), None)
            assert second["token"] == (whole if place is plain else display_form(whole))
        assert owner.ask("DELETE", f"{TOKENS}/{token}").json["data"] is True
        assert place.api.ask("GET", "/v1/user/info", credential=token).status_code == 401


def test_a_token_with_scopes_is_nothing_that_a_ragflow_would_take(plain: World) -> None:
    token = make(plain.person(), "read:dataset")

    ((stored, beta),) = plain.plane.database.all("SELECT token, beta FROM api_token")
    assert "\n" in stored
    assert token not in stored
    assert beta is None


def test_a_dialogs_key_has_no_scopes(world: World) -> None:
    made = world.person().ask("POST", "/v1/api/new_token", {"dialog_id": "d", "scopes": ["read:dataset"]}).json["data"]

    assert (made["scopes"], has_scope(made["token"])) == (None, False)


@pytest.mark.parametrize("scopes", [[], ["nothing"], ["read:x"], ["all", "read:dataset"], "read:dataset", [1]])
def test_what_is_no_scope_makes_no_token(world: World, scopes: Any) -> None:
    answer = world.person().ask("POST", TOKENS, {"scopes": scopes})

    assert answer.json["code"] == 101
    assert "scopes" in answer.json["message"]
    assert world.plane.database.all("SELECT * FROM api_token") == []


def test_a_token_that_has_lost_its_record_is_dead_and_not_without_an_end(world: World) -> None:
    token = make(world.person(), expires_in=60)

    world.plane.database.run("DELETE FROM rk_token")

    assert world.api.ask("GET", "/v1/user/info", credential=token).status_code == 401


def test_a_token_that_has_lost_its_scopes_is_dead_and_not_free(world: World, root: Person) -> None:
    token = make(root, "read:user")
    world.plane.database.run("DELETE FROM rk_token_trait")

    assert world.api.ask("GET", "/v1/user/info", credential=token).status_code == 401
    assert world.admin.ask("GET", USERS, credential=token).status_code == 401


def test_the_trail_says_which_token_acted_and_with_which_roles(world: World, root: Person) -> None:
    token = make(root, "write:user", "read:user")
    world.admin.ask("PUT", f"{USERS}/{world.person().email}/activate", {"activate_status": "off"}, credential=token)

    row = world.plane.database.one("SELECT credential, actor_roles FROM rk_audit_event WHERE tag = 'user:deactivate'")
    (record,) = world.plane.database.all("SELECT id FROM rk_token")
    assert row == (f"token:{record[0]}", "superuser")


def test_garbage_of_the_form_costs_no_statement(world: World, root: Person) -> None:
    token, scoped = make(root), make(root, "all")
    for good in (token, scoped):
        garbage = good[:-1] + ("a" if good[-1] != "a" else "b")
        assert is_misspelt(garbage)
        with statements(world.plane) as heard:
            for port, path in ((world.api, "/v1/user/info"), (world.admin, USERS)):
                assert port.ask("GET", path, credential=f"Bearer {garbage}").status_code == 401
        assert heard == []


def test_what_has_another_form_is_looked_up_and_where_it_is_not_found_among_those_that_are_no_more(
    world: World,
) -> None:
    with statements(world.plane) as heard:
        assert world.api.ask("GET", "/v1/user/info", credential="ragflow-" + "a" * 43).status_code == 401

    assert ["rk_retired_token" in statement for statement in heard] == [False, True]


def test_what_has_no_form_of_a_token_is_a_session_or_nothing_on_the_admin_server(world: World, root: Person) -> None:
    with statements(world.plane) as heard:
        assert world.admin.ask("GET", USERS, credential="a" * 43).status_code == 401

    assert ["FROM rk_session" in statement for statement in heard] == [True]


def test_what_has_no_form_of_a_token_is_not_looked_for_among_those_that_are_no_more(world: World) -> None:
    with statements(world.plane) as heard:
        assert world.api.ask("GET", "/v1/user/info", credential="a" * 43).status_code == 401

    assert ["FROM rk_session" in statement for statement in heard] == [True, False]
    assert "FROM api_token" in heard[1]


def test_a_token_is_unused_after_ninety_days_and_used_again(world: World, root: Person, clock: Clock) -> None:
    owner = world.person()
    token = make(owner)

    def unused() -> list[bool]:
        listed = root.administer("GET", f"/users/{owner.email}/keys").json["data"]
        return [item["unused"] for item in listed] + [bool(tokens.count_unused(world.plane))]

    clock.forward(days=89)
    assert unused() == [False, False]
    clock.forward(days=1)
    del root.admin_session
    assert unused() == [True, True]
    world.api.ask("GET", "/v1/user/info", credential=token)
    world.plane.token_uses.wait(10)
    assert unused() == [False, False]
