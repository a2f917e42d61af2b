"""One's own password is changed with the current one; what an administrator sets for others may have to be changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from common.core.session_limits import PROOF_MS
from common.services import passwords
from tests.people import Clock, Person, World, new_password
from tests.roles import give_role, make_role


def set_own(person: Person, **body: str) -> tuple[int, str]:
    answer = person.administer("PUT", f"/users/{person.email}/password", body)
    return answer.status_code, answer.json["message"]


def log_in(world: World, email: str, password: str) -> int:
    return int(world.api.ask("POST", "/v1/user/login", {"email": email, "password": password}).json["code"])


def test_a_login_of_a_moment_ago_is_proof_enough_as_ragflows_clients_send_no_more(world: World, root: Person) -> None:
    assert root.admin_session

    assert set_own(root, new_password=(new := new_password()))[0] == 200
    assert log_in(world, root.email, new) == 0


def test_later_the_current_password_is_asked_for(world: World, root: Person, clock: Clock) -> None:
    assert root.admin_session
    clock.forward(seconds=PROOF_MS / 1000)
    new = new_password()

    status, told = set_own(root, new_password=new)
    assert (status, "Give your password again" in told) == (403, True)
    status, told = set_own(root, new_password=new, password="not the current one")
    assert (status, told) == (403, "The current password is not right.")
    assert log_in(world, root.email, new) == 109
    assert set_own(root, new_password=new, password=root.password)[0] == 200
    assert log_in(world, root.email, new) == 0


def test_a_wrong_current_password_counts_for_nothing_even_after_a_login(root: Person) -> None:
    assert set_own(root, new_password=new_password(), password="not the current one")[0] == 403


@pytest.mark.parametrize("role", ["viewer", "clerk"])
def test_one_s_own_takes_no_permission_that_of_somebody_else_does(
    world: World, root: Person, clock: Clock, role: str
) -> None:
    make_role(world, "clerk", {"metric": ["read"]})
    someone, other = world.person(), world.person()
    give_role(world, someone, role)
    assert someone.admin_session

    refused = someone.administer("PUT", f"/users/{other.email}/password", {"new_password": new_password()})
    assert (refused.status_code, "user:write" in refused.json["message"]) == (403, True)
    assert log_in(world, other.email, other.password) == 0

    clock.forward(seconds=PROOF_MS / 1000)
    new = new_password()
    assert "Give your password again" in set_own(someone, new_password=new)[1]
    assert set_own(someone, new_password=new, password="not the current one")[0] == 403
    assert log_in(world, someone.email, new) == 109
    assert set_own(someone, new_password=new, password=someone.password)[0] == 200
    assert log_in(world, someone.email, new) == 0
    assert someone.administer("GET", "/version").status_code == 200


@pytest.mark.parametrize("scopes", [["all"], ["read:user"], ["write:user"]])
def test_no_token_changes_one_s_own(world: World, scopes: list[str]) -> None:
    someone = world.person()
    give_role(world, someone, "viewer")
    made = someone.ask("POST", "/api/v1/system/tokens", {"scopes": scopes}).json["data"]
    path, body = f"/api/v1/admin/users/{someone.email}/password", {"new_password": (new := new_password())}

    for more in ({}, {"password": someone.password}):
        answer = world.admin.ask("PUT", path, {**body, **more}, credential=f"Bearer {made['token']}")
        assert answer.status_code == 403
    assert log_in(world, someone.email, new) == 109


def test_for_somebody_else_it_is_not_asked_for(world: World, root: Person, clock: Clock) -> None:
    someone, new = world.person(), new_password()
    assert root.admin_session
    clock.forward(seconds=PROOF_MS / 1000)

    answer = root.administer("PUT", f"/users/{someone.email}/password", {"new_password": new})

    assert answer.status_code == 200
    assert log_in(world, someone.email, new) == 0


@pytest.mark.parametrize(("setting", "due"), [("false", False), ("true", True)])
def test_whether_what_an_administrator_set_must_be_changed_is_a_setting(
    world: World, root: Person, setting: str, due: bool
) -> None:
    world.set_variable("password.must_change_after_reset", setting)
    someone, given = world.person(), new_password()
    root.administer("PUT", f"/users/{someone.email}/password", {"new_password": given})
    someone.password = given

    assert (someone.ask("GET", "/v1/tenant/list").status_code == 403) is due
    own = {"password": given, "new_password": (new := new_password())}
    assert someone.ask("POST", "/v1/user/setting", own).json["code"] == 0
    someone.password = new
    del someone.session
    assert someone.ask("GET", "/v1/tenant/list").status_code == 200


def test_one_s_own_and_that_of_a_new_account_need_not_be_changed_whatever_the_setting(
    world: World, root: Person
) -> None:
    world.set_variable("password.must_change_after_reset", "true")
    own = new_password()
    assert set_own(root, new_password=own)[0] == 200
    made = {"username": "new@ragkeeper.test", "password": new_password()}
    root.administer("POST", "/users", made)

    for email, password in ((root.email, own), (made["username"], made["password"])):
        login = world.api.ask("POST", "/v1/user/login", {"email": email, "password": password})
        assert login.json["data"]["must_change_password"] is False


@pytest.mark.parametrize("port", ["admin", "user"])
def test_an_administrator_s_own_has_15_characters(root: Person, port: str) -> None:
    short, enough = "corr3ct horse!", "corr3ct horse!!"
    for password, allowed in ((short, False), (enough, True)):
        if port == "admin":
            assert (set_own(root, new_password=password)[0] == 200) is allowed
        else:
            body = {"password": root.password, "new_password": password}
            assert (root.ask("POST", "/v1/user/setting", body).json["code"] == 0) is allowed


def test_a_superuser_is_made_with_15_an_ordinary_account_with_12(root: Person) -> None:
    for role, password, status in (("user", "corr3ct hor!", 200), ("admin", "corr3ct horse!", 400)):
        body = {"username": f"{role}@ragkeeper.test", "password": password, "role": role}
        assert root.administer("POST", "/users", body).status_code == status


def test_where_newcomers_administer_at_once_theirs_has_15(world: World, root: Person) -> None:
    def register(number: int, password: str) -> int:
        body = {"nickname": "Newcomer", "email": f"new{number}@ragkeeper.test", "password": password}
        return int(world.api.ask("POST", "/v1/user/register", body).json["code"])

    assert register(1, "corr3ct horse!") == 0
    assert root.administer("PUT", "/variables", {"var_name": "default_role", "var_value": "auditor"}).status_code == 200

    assert (register(2, "corr3ct horse!"), register(3, "corr3ct horse!!")) == (101, 0)
    made = {"username": "made@ragkeeper.test", "password": "corr3ct horse!"}
    assert root.administer("POST", "/users", made).status_code == 400


@pytest.mark.parametrize("password", ["password1234", "aaaaaaaaaaaaaaaa", "new.ragkeeper.2024", "12345678901234567"])
def test_S21_nobody_registers_with_a_password_that_is_tried_first(world: World, password: str) -> None:
    body = {"nickname": "Newcomer", "email": "new@ragkeeper.test", "password": password}
    answer = world.api.ask("POST", "/v1/user/register", body)

    assert (answer.status_code, answer.json["code"]) == (200, 101)
    assert password not in answer.json["message"]


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have something done while the next new password is being hashed."""
    new_hash = passwords.new_hash

    def acting(*values: Any, **more: Any) -> str:
        monkeypatch.setattr(passwords, "new_hash", new_hash)
        act()
        return new_hash(*values, **more)

    monkeypatch.setattr(passwords, "new_hash", acting)


@pytest.mark.parametrize("way", ["9380", "9381", "9381, a moment after the login"])
def test_who_had_the_password_does_not_win_over_who_has_set_another_meanwhile(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    someone, given, new = world.person(is_superuser=True), new_password(), new_password()
    assert root.admin_session
    assert someone.admin_session

    def take_away() -> None:
        path = f"/users/{someone.email}/password"
        assert root.administer("PUT", path, {"new_password": given}).status_code == 200

    meanwhile(monkeypatch, take_away)
    if way == "9380":
        body = {"password": someone.password, "new_password": new}
        answer = world.api.ask("POST", "/v1/user/setting", body, credential=someone.admin_session)
        assert answer.json["code"] == 109
    else:
        current = {"password": someone.password} if way == "9381" else {}
        assert set_own(someone, new_password=new, **current)[0] == 403

    assert (log_in(world, someone.email, given), log_in(world, someone.email, new)) == (0, 109)


def test_nobody_sets_a_password_of_an_account_that_was_switched_off_meanwhile(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone, new = world.person(), new_password()
    assert root.admin_session
    assert someone.session

    def switch(status: str) -> None:
        path = f"/users/{someone.email}/activate"
        assert root.administer("PUT", path, {"activate_status": status}).status_code == 200

    meanwhile(monkeypatch, lambda: switch("off"))
    body = {"password": someone.password, "new_password": new}
    assert someone.ask("POST", "/v1/user/setting", body).status_code == 401

    switch("on")
    assert (log_in(world, someone.email, someone.password), log_in(world, someone.email, new)) == (0, 109)


def test_what_an_administrator_sets_holds_also_when_it_was_changed_meanwhile(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone, new = world.person(), new_password()
    assert someone.session
    body = {"password": someone.password, "new_password": new}

    def change() -> None:
        assert someone.ask("POST", "/v1/user/setting", body).json["code"] == 0

    assert root.admin_session
    meanwhile(monkeypatch, change)
    answer = root.administer("PUT", f"/users/{someone.email}/password", {"new_password": someone.password})

    assert answer.json["message"] == "Password updated successfully."
    assert (log_in(world, someone.email, someone.password), log_in(world, someone.email, new)) == (0, 109)
