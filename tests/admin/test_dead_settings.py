"""R34: settings that can be set in RAGFlow, and that nothing reads there. Here they are obeyed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from common.conf.sections import SmtpSection
from common.services import jobs, mail
from common.services.jobs import Task
from common.services.plane import Plane
from tests.mail_sink import MailSink
from tests.people import Person, World, new_password
from tests.roles import give_role, make_role


def put(root: Person, **values: Any) -> None:
    """Set RAGFlow's variables as its client does; ``mail_server`` stands for ``mail.server``."""
    for name, value in values.items():
        body = {"var_name": name.replace("mail_", "mail.", 1), "var_value": str(value)}
        answer = root.administer("PUT", "/variables", body)
        assert answer.status_code == 200, answer.json


def register(world: World, email: str = "new@ragkeeper.test") -> Any:
    body = {"email": email, "nickname": "New", "password": new_password()}
    return world.api.ask("POST", "/v1/user/register", body).json


def roles_of(root: Person, email: str) -> list[str]:
    return list(root.administer("GET", f"/users/{email}").json["data"][0]["roles"])


# default_role


def test_R34_a_registered_account_gets_the_default_role(world: World) -> None:
    make_role(world, "reader", {"dataset": ["read"]})
    put(world.root, default_role="Reader")

    assert register(world)["code"] == 0

    assert roles_of(world.root, "new@ragkeeper.test") == ["reader"]
    assert world.events("user:register")[0][4] == '{"role":"reader"}'


def test_R34_an_account_that_an_administrator_makes_gets_it_too_but_no_superuser(world: World) -> None:
    make_role(world, "reader", {"dataset": ["read"]})
    put(world.root, default_role="reader")
    for email, role in (("plain@ragkeeper.test", "user"), ("super@ragkeeper.test", "admin")):
        body = {"username": email, "password": new_password(), "role": role}
        assert world.root.administer("POST", "/users", body).status_code == 200

    assert roles_of(world.root, "plain@ragkeeper.test") == ["reader"]
    assert roles_of(world.root, "super@ragkeeper.test") == ["superuser"]


def test_without_a_default_role_new_accounts_are_members(world: World) -> None:
    register(world)
    put(world.root, default_role="member")
    register(world, "second@ragkeeper.test")

    for email in ("new@ragkeeper.test", "second@ragkeeper.test"):
        assert roles_of(world.root, email) == ["member"]


@pytest.mark.parametrize("name", ["nobody", "superuser", "no/role"])
def test_a_default_role_must_be_a_role_and_not_superuser(root: Person, name: str) -> None:
    answer = root.administer("PUT", "/variables", {"var_name": "default_role", "var_value": name})

    assert (answer.status_code, "default_role" in answer.json["message"]) == (400, True)


def test_nobody_makes_a_role_the_default_that_is_administrative_or_more_than_theirs(world: World) -> None:
    make_role(world, "officer", {"setting": ["read", "write"], "role": ["assign"], "dataset": ["read"]})
    make_role(world, "more", {"dataset": ["read", "write"]})
    make_role(world, "less", {"dataset": ["read"]})
    officer = world.person()
    give_role(world, officer, "officer")

    statuses = {
        role: officer.administer("PATCH", "/settings", {"settings": {"default_role": role}}).status_code
        for role in ("more", "officer", "auditor", "less")
    }

    assert statuses == {"more": 403, "officer": 403, "auditor": 403, "less": 200}


def test_a_superuser_may_make_an_administrative_role_the_default(world: World) -> None:
    put(world.root, default_role="auditor")

    register(world)

    assert roles_of(world.root, "new@ragkeeper.test") == ["auditor"]


def test_a_default_role_that_becomes_administrative_is_given_to_nobody(world: World) -> None:
    make_role(world, "officer", {"setting": ["read", "write"], "role": ["assign"], "dataset": ["read"]})
    make_role(world, "less", {"dataset": ["read"]})
    officer = world.person()
    give_role(world, officer, "officer")
    officer.administer("PATCH", "/settings", {"settings": {"default_role": "less"}})
    world.root.administer("POST", "/roles/less/permission", {"resource": "audit", "actions": ["read"]})

    register(world)

    assert roles_of(world.root, "new@ragkeeper.test") == ["member"]


def test_a_default_role_that_a_superuser_chose_before_it_was_administrative_is_given_to_nobody(world: World) -> None:
    make_role(world, "less", {})
    put(world.root, default_role="less")
    granted = world.root.administer("POST", "/roles/less/permission", {"resource": "audit", "actions": ["read"]})

    register(world)
    put(world.root, default_role="")
    put(world.root, default_role="less")
    register(world, "second@ragkeeper.test")

    assert granted.status_code == 200
    assert roles_of(world.root, "new@ragkeeper.test") == ["member"]
    assert roles_of(world.root, "second@ragkeeper.test") == ["less"]


@pytest.fixture
def editor(world: World) -> Person:
    """Somebody who changes roles, and uses nothing of RAGFlow's; newcomers hold next to nothing."""
    make_role(world, "editor", {"role": ["read", "create", "write", "delete"], "metric": ["read"], "audit": ["read"]})
    make_role(world, "base")
    make_role(world, "guest", {"metric": ["read"]}, ["base"])
    put(world.root, default_role="guest")
    made = world.person()
    give_role(world, made, "editor")
    return made


AUDIT = {"resource": "audit", "actions": ["read"]}
WIDENING: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "a grant": ("POST", "/roles/guest/permission", AUDIT),
    "a grant to its parent": ("POST", "/roles/base/permission", AUDIT),
    "a parent": ("POST", "/roles/guest/parents", {"parents": ["reader"]}),
    "other parents": ("PUT", "/roles/guest", {"parents": ["reader"]}),
    "deletion, which leaves members": ("DELETE", "/roles/guest", None),
}


@pytest.mark.parametrize("way", WIDENING)
@pytest.mark.parametrize("query", ["", "?dry_run=1"])
def test_nobody_but_a_superuser_gives_newcomers_more_by_changing_the_default_role(
    world: World, editor: Person, way: str, query: str
) -> None:
    make_role(world, "reader", {"audit": ["read"]})
    method, path, body = WIDENING[way]

    refused = editor.administer(method, path + query, body)
    register(world)

    assert (refused.status_code, "setting default_role" in refused.json["message"]) == (403, True)
    assert roles_of(world.root, "new@ragkeeper.test") == ["guest"]
    root = world.root.administer("DELETE" if body is None else method, path + "?dry_run=1", body)
    assert root.status_code == (409 if body is None else 200)


def test_nobody_makes_a_role_anew_that_was_the_default_one_to_give_newcomers_more(world: World, editor: Person) -> None:
    assert world.root.administer("DELETE", "/roles/guest").status_code == 200

    assert editor.administer("POST", "/roles", {"role_name": "guest", "parents": ["editor"]}).status_code == 403
    assert editor.administer("POST", "/roles", {"role_name": "guest"}).status_code == 200
    assert editor.administer("POST", "/roles/guest/permission", AUDIT).status_code == 403
    register(world)

    assert world.root.administer("GET", "/roles/guest").json["data"]["permissions"].get("audit") is None
    assert roles_of(world.root, "new@ragkeeper.test") == ["guest"]


def test_a_default_role_may_come_to_hold_what_the_editor_holds_and_is_not_administrative(
    world: World, editor: Person
) -> None:
    make_role(world, "librarian", {"dataset": ["read"]})
    world.root.administer("POST", f"/users/{editor.email}/roles", {"role_name": "librarian"})

    granted = editor.administer("POST", "/roles/guest/permission", {"resource": "dataset", "actions": ["read"]})
    taken = editor.administer("DELETE", "/roles/guest/permission", {"resource": "metric", "actions": ["read"]})

    assert (granted.status_code, taken.status_code) == (200, 200)


@pytest.mark.parametrize("value", ["", None])
def test_nobody_lets_newcomers_be_members_who_could_not_make_them_so(world: World, value: str | None) -> None:
    make_role(world, "officer", {"setting": ["read", "write"], "role": ["assign"]})
    make_role(world, "guest")
    put(world.root, default_role="guest")
    officer = world.person()
    give_role(world, officer, "officer")
    unset = {"settings": {"default_role": value}}

    refused = officer.administer("PATCH", "/settings", unset)
    assert (refused.status_code, "dataset:write" in refused.json["message"]) == (403, True)
    world.root.administer("POST", f"/users/{officer.email}/roles", {"role_name": "member"})
    assert officer.administer("PATCH", "/settings", unset).status_code == 200


def test_nobody_makes_an_account_whose_default_role_is_above_them(world: World) -> None:
    make_role(world, "clerk", {"user": ["read", "create"]})
    clerk = world.person()
    give_role(world, clerk, "clerk")
    put(world.root, default_role="auditor")

    answer = clerk.administer("POST", "/users", {"username": "mine@ragkeeper.test", "password": new_password()})

    assert answer.status_code == 403
    assert "audit:read" in answer.json["message"]
    assert world.root.administer("GET", "/users/mine@ragkeeper.test").status_code == 404


def test_a_default_role_that_was_deleted_stops_nobody(world: World) -> None:
    make_role(world, "reader", {"dataset": ["read"]})
    put(world.root, default_role="reader")
    assert world.root.administer("DELETE", "/roles/reader").status_code == 200

    assert register(world)["code"] == 0
    assert roles_of(world.root, "new@ragkeeper.test") == ["member"]


# mail.*


def invite(world: World) -> None:
    owner = world.person()
    answer = owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": "you@ragkeeper.test"})
    assert answer.json["code"] == 0


def work(plane: Plane) -> Any:
    job = jobs.claim(plane, "worker", 60, [mail.INVITATION])
    assert job
    mail.send_invitation(Task(plane, job, 60))
    return jobs.get(plane, str(job.id))["progress"]


def test_R34_mails_go_out_by_the_server_that_the_settings_name(world: World) -> None:
    with MailSink(accounts={"mailer": "the mail password"}) as sink:
        put(
            world.root,
            mail_server="localhost",
            mail_port=sink.settings().mail_port,
            mail_default_sender="The Plane <plane@mail.test>",
            mail_frontend_url="https://rag.test",
        )
        invite(world)
        work(world.plane)

    [message] = sink.messages
    assert message["From"] == "The Plane <plane@mail.test>"
    assert message["To"] == "you@ragkeeper.test"
    assert "https://rag.test/login" in message.as_string()


def test_R34_they_count_in_place_of_the_whole_section_of_the_file(world: World) -> None:
    section = SmtpSection(mail_server="file.test", mail_username="other", mail_frontend_url="https://file.test")
    plane = replace(world.plane, settings=world.plane.settings.model_copy(update={"smtp": section}))
    put(world.root, mail_server="mail.test", mail_password="the mail password", mail_use_tls="true")

    server = mail.server_of(plane)

    assert server is not None
    assert (server.mail_server, server.mail_port, server.mail_username) == ("mail.test", 587, "")
    assert server.mail_password is not None
    assert server.mail_password.reveal() == "the mail password"
    assert mail.frontend_link(plane, "/login") == "https://file.test/login"
    put(world.root, mail_server="")
    assert mail.server_of(plane) == section


@pytest.mark.parametrize(
    ("settings", "port"),
    [({}, 25), ({"mail_use_ssl": "true"}, 465), ({"mail_use_ssl": "true", "mail_use_tls": "true"}, 587)],
)
def test_the_usual_port_goes_with_the_kind_of_tls(world: World, settings: dict[str, str], port: int) -> None:
    put(world.root, mail_server="mail.test", **settings)

    server = mail.server_of(world.plane)

    assert server is not None
    assert server.mail_port == port


def test_a_mail_server_that_is_set_makes_forgotten_passwords_possible_at_once(world: World) -> None:
    email = world.root.email
    before = world.api.ask("GET", f"/v1/user/forget/captcha?email={email}")
    put(world.root, mail_server="mail.test")

    after = world.api.ask("GET", f"/v1/user/forget/captcha?email={email}")

    assert before.json["code"] == 10
    assert after.mimetype == "image/jpeg"
