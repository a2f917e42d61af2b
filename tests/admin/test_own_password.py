"""One's own password is changed with the current one; what an administrator sets for others may have to be changed."""

from __future__ import annotations

import pytest

from common.core.session_limits import PROOF_MS
from tests.people import Clock, Person, World, new_password


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


@pytest.mark.parametrize("password", ["password1234", "aaaaaaaaaaaaaaaa", "new.ragkeeper.2024", "12345678901234567"])
def test_S21_nobody_registers_with_a_password_that_is_tried_first(world: World, password: str) -> None:
    body = {"nickname": "Newcomer", "email": "new@ragkeeper.test", "password": password}
    answer = world.api.ask("POST", "/v1/user/register", body)

    assert (answer.status_code, answer.json["code"]) == (200, 101)
    assert password not in answer.json["message"]
