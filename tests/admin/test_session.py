"""Logging in and out on the admin server."""

from __future__ import annotations

import pytest

from tests.people import Person, World


def test_an_administrator_logs_in_and_sees_the_users(world: World, root: Person) -> None:
    answer = root.administer("GET", "/users")

    assert answer.status_code == 200
    assert [user["email"] for user in answer.json["data"]] == [root.email]


def test_S4_the_login_answer_holds_neither_password_nor_token(root: Person, world: World) -> None:
    answer = world.admin.ask("POST", "/api/v1/admin/login", {"email": root.email, "password": root.password})

    assert answer.json["data"]["email"] == root.email
    assert not {"password", "access_token"} & answer.json["data"].keys()
    stored = world.plane.database.one("SELECT password, access_token FROM user WHERE id = ?", (root.user_id,))
    assert stored
    for secret in (*filter(None, stored), answer.headers["Authorization"], root.password):
        assert secret not in answer.get_data(as_text=True)


def test_unknown_account_wrong_password_and_switched_off_account_are_answered_alike(world: World) -> None:
    someone = world.person()
    off = world.person(is_superuser=True)
    world.root.administer("PUT", f"/users/{off.email}/activate", {"activate_status": "off"})

    answers = [
        world.admin.ask("POST", "/api/v1/admin/login", {"email": email, "password": password})
        for email, password in (
            ("nobody@ragkeeper.test", "whatever it is"),
            (someone.email, "not the password"),
            (off.email, off.password),
            (someone.email, "A" * 343 + "="),
        )
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.get_data() for answer in answers}) == 1


def test_a_member_with_the_right_password_gets_no_session(world: World) -> None:
    someone = world.person()

    answer = world.admin.ask("POST", "/api/v1/admin/login", {"email": someone.email, "password": someone.password})

    assert (answer.status_code, answer.json["code"]) == (403, 403)
    assert "Authorization" not in answer.headers
    assert world.plane.database.one("SELECT COUNT(*) FROM rk_session") == (0,)
    assert [event[:3] for event in world.events("session:login_refused")] == [("refused", someone.email, someone.email)]
    assert world.events("access:refused") == [], "of a login that is refused there is one event"


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic x", 'Digest username="{email}"', "Basic {email}", ""])
def test_credentials_that_are_none_of_HTTP_Basic_let_nobody_in(world: World, header: str) -> None:
    credential = header.format(email=world.root.email)

    assert world.admin.ask("GET", "/api/v1/admin/auth", credential=credential).status_code == 401


def test_HEAD_ends_no_session(root: Person) -> None:
    assert root.administer("HEAD", "/logout").status_code == 405
    assert root.administer("GET", "/version").status_code == 200


def test_logout_ends_this_session_and_no_other(world: World, root: Person) -> None:
    other = world.admin.ask("POST", "/api/v1/admin/login", {"email": root.email, "password": root.password})

    assert root.administer("GET", "/logout").json["data"] is True
    assert root.administer("GET", "/users").status_code == 401
    still = world.admin.ask("GET", "/api/v1/admin/users", credential=other.headers["Authorization"])
    assert still.status_code == 200
    assert [event[:3] for event in world.events("session:logout")] == [("ok", root.email, root.email)]
