"""Links to reset a password: who can make one for whom, how long it is good, and what it does."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.app import create_app as create_api
from common.services import jobs, passwords, registration, reset_links
from common.services.plane import Plane
from common.worker.loop import Worker, handlers
from common.worker.tally import Tally
from tests.mail_sink import MailSink
from tests.people import Clock, Person, Port, World, new_password
from tests.side_by_side import at_once

USES = {"9381": "/api/v1/admin/reset-link", "9380": "/api/v1/auth/password/reset-link"}


@pytest.fixture
def showing(world: World) -> World:
    """A world in which administrators see the links that they make."""
    world.set_variable("password.show_reset_link", "true")
    return world


def made(by: Person, email: str) -> str:
    answer = by.administer("POST", f"/users/{email}/reset-link")
    assert answer.status_code == 200, answer.json
    return str(answer.json["data"]["token"])


def use(world: World, token: str, password: str, port: str = "9381") -> TestResponse:
    server = world.admin if port == "9381" else world.api
    return server.ask("POST", USES[port], {"token": token, "new_password": password})


def log_in(world: World, email: str, password: str) -> int:
    return int(world.api.ask("POST", "/v1/user/login", {"email": email, "password": password}).json["code"])


def manager(world: World) -> Person:
    """Somebody who manages users, and is no superuser."""
    person = world.person()
    assert world.root.administer("PUT", f"/users/{person.email}/role", {"role_name": "user-manager"}).status_code == 200
    return person


@pytest.mark.parametrize("port", USES)
def test_a_link_sets_a_password_once_and_ends_all_sessions(showing: World, root: Person, port: str) -> None:
    someone, password = showing.person(), new_password()
    assert someone.ask("GET", "/v1/user/info").json["code"] == 0
    token = made(root, someone.email)

    assert use(showing, token, password, port).status_code == 200
    assert someone.ask("GET", "/v1/user/info").status_code == 401
    assert [log_in(showing, someone.email, each) for each in (someone.password, password)] == [109, 0]
    assert use(showing, token, new_password(), port).status_code == 409
    assert [event[1:3] for event in showing.events("user:reset_link")] == [(root.email, someone.email)]
    assert [event[2:] for event in showing.events("user:password")] == [(someone.email, None, '{"by":"link"}')]


def test_the_link_is_shown_only_where_a_setting_says_so_and_made_only_where_somebody_gets_it(
    world: World, root: Person
) -> None:
    someone = world.person()

    answer = root.administer("POST", f"/users/{someone.email}/reset-link")

    assert (answer.status_code, answer.json["code"]) == (409, 409)
    assert "password.show_reset_link" in answer.json["message"]
    assert world.plane.database.all("SELECT * FROM rk_reset_link") == []


def test_who_may_not_make_a_link_is_told_that_also_where_nobody_would_get_it(world: World, root: Person) -> None:
    operator = manager(world)
    assert operator.admin_session

    above = operator.administer("POST", f"/users/{root.email}/reset-link")
    own = operator.administer("POST", f"/users/{operator.email}/reset-link")

    assert (above.status_code, own.status_code) == (403, 409)
    assert "holds what you do not" in above.json["message"]
    assert "for yourself" in own.json["message"]
    refused = [("refused", operator.email, whom) for whom in (root.email, operator.email)]
    assert [event[:3] for event in world.events("access:refused")] == refused


def test_its_token_is_stored_as_a_hash_only_and_a_page_can_be_named(showing: World, root: Person) -> None:
    showing.set_variable("password.reset_page", "https://console.ragkeeper.test/reset")
    data = root.administer("POST", f"/users/{showing.person().email}/reset-link").json["data"]

    assert data["link"] == f"https://console.ragkeeper.test/reset#token={data['token']}"
    assert len(data["token"]) == 43
    (row,) = showing.plane.database.all("SELECT * FROM rk_reset_link")
    assert data["token"] not in str(row)
    assert data["token"] not in str(showing.plane.database.all("SELECT * FROM rk_audit_event"))


def test_it_is_good_for_half_an_hour(showing: World, root: Person, clock: Clock) -> None:
    someone = showing.person()
    token = made(root, someone.email)
    clock.forward(seconds=29 * 60)
    refused = use(showing, token, "short")
    assert (refused.status_code, "15" in refused.json["message"] or "12" in refused.json["message"]) == (400, True)
    clock.forward(seconds=60)

    assert use(showing, token, new_password()).status_code == 409
    assert reset_links.prune(showing.plane) == 1
    assert reset_links.prune(showing.plane) == 0


def test_a_password_outside_the_policy_leaves_it_good(showing: World, root: Person) -> None:
    someone = showing.person("alice@wonderland.test", nickname="Alice")
    token = made(root, someone.email)

    for bad in ("short", "password1234", "wonderland-2024", ""):
        answer = use(showing, token, bad)
        assert answer.status_code == 400
        assert "new_password" in answer.json["message"] or "password" in answer.json["message"]
    assert use(showing, token, new_password()).status_code == 200


def test_an_administrator_s_new_password_has_15_characters(showing: World, root: Person) -> None:
    token = made(root, manager(showing).email)

    assert "15" in use(showing, token, "corr3ct horse!").json["message"]
    assert use(showing, token, "corr3ct horse!!").status_code == 200


def test_the_next_link_replaces_the_one_before(showing: World, root: Person) -> None:
    someone = showing.person()
    first, second = made(root, someone.email), made(root, someone.email)

    assert use(showing, first, new_password()).status_code == 409
    assert use(showing, second, new_password()).status_code == 200


Change = Callable[[World, Person], Any]


@pytest.mark.parametrize(
    "change",
    [
        lambda world, someone: world.root.administer(
            "PUT", f"/users/{someone.email}/password", {"new_password": new_password()}
        ),
        lambda world, someone: someone.ask(
            "POST", "/v1/user/setting", {"password": someone.password, "new_password": new_password()}
        ),
        lambda world, someone: world.plane.database.run(
            "UPDATE user SET password = 'as a RAGFlow beside it would' WHERE id = ?", (someone.user_id,)
        ),
        lambda world, someone: world.root.administer(
            "PUT", f"/users/{someone.email}/activate", {"activate_status": "off"}
        ),
        lambda world, someone: world.root.administer("PUT", f"/users/{someone.email}/admin"),
        lambda world, someone: world.root.administer(
            "PUT", f"/users/{someone.email}/role", {"role_name": "service-operator"}
        ),
    ],
    ids=["set by an administrator", "changed by oneself", "behind the back", "off", "superuser now", "risen"],
)
def test_whatever_happens_to_the_account_ends_it(showing: World, change: Change) -> None:
    """The last two: who made the link could not make it now, and may have seen it."""
    someone = showing.person()
    token = made(manager(showing), someone.email)
    change(showing, someone)

    assert use(showing, token, new_password()).status_code == 409
    assert use(showing, token, new_password(), "9380").status_code == 409


@pytest.mark.parametrize("fall", ["role", "rights", "off"])
def test_whoever_falls_takes_their_links_along(showing: World, root: Person, fall: str) -> None:
    maker, operator = manager(showing), showing.person()
    token = made(maker, operator.email)
    if fall == "off":
        root.administer("PUT", f"/users/{maker.email}/activate", {"activate_status": "off"})
    if fall == "role":
        root.administer("PUT", f"/users/{operator.email}/role", {"role_name": "user-manager"})
    if fall in ("role", "rights"):
        root.administer("PUT", f"/users/{maker.email}/role", {"role_name": "viewer"})

    assert use(showing, token, new_password()).status_code == 409


def made_with(token: str, whom: Person) -> str:
    """A link that was made with an API token."""
    path = f"/api/v1/admin/users/{whom.email}/reset-link"
    answer = whom.world.admin.ask("POST", path, credential=f"Bearer {token}")
    assert answer.status_code == 200, answer.json
    return str(answer.json["data"]["token"])


def key(of: Person, scope: str) -> str:
    return str(of.ask("POST", "/api/v1/system/tokens", {"scopes": [scope]}).json["data"]["token"])


@pytest.mark.parametrize(("scope", "status"), [("write:user", 409), ("all", 200)])
def test_a_link_that_a_token_made_goes_no_further_than_the_token(
    showing: World, root: Person, scope: str, status: int
) -> None:
    someone, other = showing.person(), showing.person()
    token = key(root, scope)
    links = [made_with(token, each) for each in (someone, other)]
    assert root.administer("PUT", f"/users/{someone.email}/admin").status_code == 200

    assert use(showing, links[0], new_password()).status_code == status
    assert use(showing, links[1], new_password()).status_code == 200


@pytest.mark.parametrize(
    "end", ["deleted", "deleted in a RAGFlow", "rotated", "over", "its tenant is given away", "off"]
)
def test_and_lasts_no_longer(showing: World, root: Person, clock: Clock, end: str) -> None:
    helper, someone = manager(showing), showing.person()
    made = helper.ask("POST", "/api/v1/system/tokens", {"scopes": ["write:user"], "expires_in": 600}).json["data"]
    link = made_with(made["token"], someone)
    match end:
        case "deleted":
            done = helper.ask("DELETE", f"/api/v1/system/tokens/{made['id']}")
        case "deleted in a RAGFlow":
            showing.plane.database.run("DELETE FROM api_token WHERE tenant_id = ?", (helper.user_id,))
            done = root.ask("GET", "/v1/user/info")
        case "rotated":
            done = helper.ask("POST", f"/api/v1/system/tokens/{made['id']}/rotate", {"grace_s": 0})
        case "over":
            clock.forward(seconds=601)
            done = root.ask("GET", "/v1/user/info")
        case "its tenant is given away":
            showing.plane.database.run("UPDATE user_tenant SET role = 'normal' WHERE user_id = ?", (helper.user_id,))
            done = root.ask("GET", "/v1/user/info")
        case _:
            done = root.administer("PUT", f"/users/{helper.email}/activate", {"activate_status": "off"})
    assert done.status_code == 200

    assert use(showing, link, new_password()).status_code == 409


def test_a_link_ends_that_somebody_made_with_another_s_token_and_could_not_make_any_more(
    showing: World, root: Person
) -> None:
    one, helper, someone = manager(showing), manager(showing), showing.person()
    token = one.administer("POST", f"/users/{helper.email}/keys", {"scopes": ["write:user"]}).json["data"]["token"]
    link = made_with(token, someone)
    for each in (helper, someone):
        assert root.administer("PUT", f"/users/{each.email}/role", {"role_name": "auditor"}).status_code == 200
    give = {"roles": ["user-manager"]}
    assert root.administer("POST", f"/users/{helper.email}/roles", give).status_code == 200

    assert use(showing, link, new_password()).status_code == 409


def test_nobody_resets_a_superior_or_themselves(showing: World, root: Person) -> None:
    maker, superior = manager(showing), showing.person(is_superuser=True)

    refused = maker.administer("POST", f"/users/{superior.email}/reset-link")
    assert (refused.status_code, "superuser" in refused.json["message"]) == (403, True)
    assert maker.administer("POST", f"/users/{maker.email}/reset-link").status_code == 409
    assert root.administer("POST", f"/users/{root.email}/reset-link").status_code == 409
    assert showing.plane.database.all("SELECT * FROM rk_reset_link") == []


def test_neither_an_unknown_account_nor_one_that_is_off_gets_one(showing: World, root: Person) -> None:
    someone = showing.person()
    root.administer("PUT", f"/users/{someone.email}/activate", {"activate_status": "off"})

    assert root.administer("POST", f"/users/{someone.email}/reset-link").status_code == 409
    assert root.administer("POST", "/users/nobody@ragkeeper.test/reset-link").status_code == 404


@pytest.mark.parametrize("token", ["x", "A" * 43, "\u00e9", "' OR 1=1 --"])
def test_garbage_costs_no_hash(world: World, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setattr(passwords, "hash_opened", lambda *_: pytest.fail("a hash was computed"))

    assert use(world, token, new_password()).status_code == 409


def test_where_nobody_logs_in_by_password_the_user_api_takes_none(
    showing: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = made(root, showing.person().email)
    settings = showing.plane.settings.model_copy(update={"disable_password_login": True})
    elsewhere = Port(create_api(dataclasses.replace(showing.plane, settings=settings)))

    body = {"token": token, "new_password": new_password()}
    assert elsewhere.ask("POST", USES["9380"], body).status_code == 403
    assert use(showing, token, new_password()).status_code == 200


@pytest.mark.race
def test_of_those_who_use_a_link_at_once_one_does(showing: World, root: Person) -> None:
    someone = showing.person()
    token, chosen = made(root, someone.email), [new_password() for _ in range(4)]
    together = threading.Barrier(4)

    def set_it(password: str) -> int:
        together.wait(10)
        status = use(showing, token, password).status_code
        showing.plane.database.close()
        return status

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(set_it, chosen))

    assert sorted(statuses) == [200, 409, 409, 409]
    assert log_in(showing, someone.email, chosen[statuses.index(200)]) == 0


@pytest.mark.race
def test_of_two_who_have_both_found_a_link_good_one_uses_it(showing: World, root: Person) -> None:
    for _ in range(3):
        token = made(root, showing.person().email)

        statuses = at_once(showing, *[lambda token=token: use(showing, token, new_password())] * 2)  # type: ignore[misc]

        assert sorted(statuses) == [200, 409]


@pytest.fixture
def sink() -> Iterator[MailSink]:
    with MailSink() as listening:
        yield listening


@pytest.fixture
def mailing(plane: Plane, sink: MailSink) -> World:
    """Both servers, with a mail server."""
    configured = dataclasses.replace(plane, settings=plane.settings.model_copy(update={"smtp": sink.settings()}))
    return World(configured)


def work(world: World) -> None:
    """Do the jobs that wait."""
    worker = Worker(world.plane, "worker", handlers(), Tally(), threading.Event())
    while worker.work_once():
        pass


def test_the_link_is_mailed_to_the_account_and_not_shown(mailing: World, sink: MailSink) -> None:
    someone, password = mailing.person(), new_password()

    data = mailing.root.administer("POST", f"/users/{someone.email}/reset-link").json["data"]
    work(mailing)

    assert (data["mailed"], data["token"], data["link"]) == (True, None, None)
    (message,) = sink.messages
    assert message["To"] == someone.email
    body = message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    (token,) = re.findall(r"[A-Za-z0-9_-]{43}", body)
    assert token not in str(mailing.plane.database.all("SELECT payload, progress FROM rk_job"))
    assert use(mailing, token, password).status_code == 200
    assert log_in(mailing, someone.email, password) == 0


def test_the_mail_has_the_page_where_one_is_named(mailing: World, sink: MailSink) -> None:
    mailing.set_variable("password.reset_page", "https://console.ragkeeper.test/reset")
    mailing.root.administer("POST", f"/users/{mailing.person().email}/reset-link")
    work(mailing)

    body = sink.messages[0].get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "https://console.ragkeeper.test/reset#token=" in body


def test_a_link_that_is_over_is_not_mailed_any_more(mailing: World, sink: MailSink, clock: Clock) -> None:
    mailing.root.administer("POST", f"/users/{mailing.person().email}/reset-link")
    clock.forward(seconds=31 * 60)
    work(mailing)

    assert sink.messages == []
    rows = mailing.plane.database.all("SELECT state, progress FROM rk_job WHERE kind = ?", (reset_links.MAIL,))
    assert [(state, "no longer good" in progress) for state, progress in rows] == [("done", True)]


@pytest.mark.parametrize(("decision", "says"), [("approve", "is ready"), ("reject", "Your registration of")])
def test_whoever_asked_to_register_is_mailed_the_decision(
    mailing: World, sink: MailSink, decision: str, says: str
) -> None:
    mailing.set_variable("registration.mode", "approval")
    body = {"nickname": "New", "email": "new@ragkeeper.test", "password": new_password()}
    mailing.api.ask("POST", "/v1/user/register", body)
    (waiting,) = registration.page(mailing.plane)["approvals"]

    mailing.root.administer("POST", f"/approvals/{waiting['id']}/{decision}")
    work(mailing)

    (message,) = sink.messages
    assert message["To"] == "new@ragkeeper.test"
    assert says in message["Subject"]


def test_without_a_mail_server_no_mail_is_tried(world: World, root: Person) -> None:
    """R40: nothing is started that fails in the background only."""
    world.set_variable("registration.mode", "approval")
    body = {"nickname": "New", "email": "new@ragkeeper.test", "password": new_password()}
    world.api.ask("POST", "/v1/user/register", body)
    (waiting,) = registration.page(world.plane)["approvals"]
    root.administer("POST", f"/approvals/{waiting['id']}/approve")

    assert jobs.claim(world.plane, "worker", 60, list(handlers())) is None
