"""Accounts, as administrators handle them."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from common.models.content import Knowledgebase, UserCanvas
from common.services import accounts, users
from tests.people import START_MS, Clock, Person, World, new_password
from tests.roles import give_role

CLI_22 = {"User-Agent": "RAGFlow-CLI/0.22.1", "Accept": "*/*"}


def test_the_whole_list_is_ordered_by_email_and_has_ragflows_fields(world: World, root: Person) -> None:
    world.person("b@ragkeeper.test", nickname="Bee")
    world.person("a@ragkeeper.test", nickname="Ay")

    listed = root.administer("GET", "/users").json["data"]

    assert [user["email"] for user in listed] == ["a@ragkeeper.test", "b@ragkeeper.test", root.email]
    assert listed[0] == {
        "email": "a@ragkeeper.test",
        "nickname": "Ay",
        "create_date": "Mon, 21 Sep 2026 14:13:20 GMT",
        "is_active": "1",
        "is_superuser": False,
        "role": "member",
    }


@pytest.mark.parametrize("count", [5, 6, 7])
def test_the_whole_list_is_whole_in_however_many_pieces_it_is_read(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(users, "_PIECE", 3)
    everybody = sorted([root.email, *(world.person().email for _ in range(count - 1))])

    assert [user["email"] for user in root.administer("GET", "/users").json["data"]] == everybody


def test_accounts_of_one_email_that_ragflow_left_are_all_listed(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "_PIECE", 1)
    twin = world.person()
    accounts.change(world.plane, twin.user_id, email=root.email)

    listed = root.administer("GET", "/users").json["data"]

    assert [(user["email"], user["is_superuser"]) for user in listed].count((root.email, False)) == 1
    assert len(listed) == 2


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/St_Johns"])
def test_R28_dates_are_true_gmt_wherever_the_server_stands(world: World, zone: str) -> None:
    plane = replace(world.plane, zone=ZoneInfo(zone))
    root = World(plane).root

    of_admin = root.administer("GET", f"/users/{root.email}").json["data"][0]["create_date"]
    of_api = root.ask("GET", "/v1/user/info").json["data"]["create_date"]

    for shown in (of_admin, of_api):
        assert shown.endswith(" GMT")
        assert parsedate_to_datetime(shown).timestamp() * 1000 == START_MS


@pytest.mark.parametrize("sort", ["email", "-email", "create_time", "-create_time", "nickname", "-nickname"])
def test_pages_follow_each_other_without_gap_or_repetition(world: World, root: Person, clock: Clock, sort: str) -> None:
    for number in range(7):
        clock.forward(seconds=number % 2)
        world.person(f"p{number % 3}{number}@ragkeeper.test", nickname=f"N{number % 2}")
    seen, cursor = [], ""
    while cursor is not None:
        query = f"limit=3&sort={sort}" + (f"&cursor={cursor}" if cursor else "")
        page = root.administer("GET", f"/users?{query}").json["data"]
        seen += page["users"]
        cursor = page["next_cursor"]

    everybody = root.administer("GET", "/users").json["data"]
    assert sorted(user["email"] for user in seen) == sorted(user["email"] for user in everybody)
    keys = [_sort_key(user, sort.lstrip("-")) for user in seen]
    assert keys == sorted(keys, reverse=sort.startswith("-"))


def _sort_key(user: dict[str, str], column: str) -> object:
    if column == "create_time":
        return parsedate_to_datetime(user["create_date"])
    return user[column].casefold()


def test_a_search_finds_prefixes_of_email_and_nickname_without_case(world: World, root: Person) -> None:
    world.person("anna@ragkeeper.test", nickname="Zoe")
    world.person("ben@ragkeeper.test", nickname="ANNABEL")
    world.person("cora@ragkeeper.test", nickname="Joanna")
    seen, cursor = [], ""
    while cursor is not None:
        page = root.administer("GET", f"/users?q=AnNa&limit=1&cursor={cursor}" if cursor else "/users?q=AnNa&limit=1")
        seen += [user["email"] for user in page.json["data"]["users"]]
        cursor = page.json["data"]["next_cursor"]

    assert seen == ["anna@ragkeeper.test", "ben@ragkeeper.test"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("sort=password", "sort"),
        ("cursor=%00", "cursor"),
        ("cursor=" + "A" * 3000, "cursor"),
        ("cursor=WzEsMl0", "cursor"),
        ("q=a&sort=nickname", "sort"),
    ],
)
def test_absurd_list_parameters_are_named(root: Person, query: str, field: str) -> None:
    answer = root.administer("GET", f"/users?{query}")

    assert answer.status_code == 400
    assert field in answer.json["message"]


def test_a_cursor_of_another_order_is_refused(world: World, root: Person) -> None:
    world.person()
    cursor = root.administer("GET", "/users?limit=1").json["data"]["next_cursor"]

    assert root.administer("GET", f"/users?limit=1&sort=-email&cursor={cursor}").status_code == 400


@pytest.mark.parametrize("field", ["username", "user_name"])
def test_R5_a_user_is_created_under_either_name_of_the_field(world: World, root: Person, field: str) -> None:
    answer = root.administer(
        "POST", "/users", {field: "New.One@ragkeeper.test", "password": new_password(), "role": "user"}
    )

    assert answer.status_code == 200
    assert answer.json["data"]["email"] == "New.One@ragkeeper.test"
    user_id = answer.json["data"]["id"]
    database = world.plane.database
    assert database.one("SELECT id FROM tenant WHERE id = ?", (user_id,)) == (user_id,)
    owner = "SELECT role FROM user_tenant WHERE user_id = ? AND tenant_id = ?"
    assert database.one(owner, (user_id, user_id)) == ("owner",)
    root_folder = "SELECT name, type FROM file WHERE tenant_id = ? AND parent_id = id"
    assert database.one(root_folder, (user_id,)) == ("/", "folder")


def test_S26_creating_a_user_answers_no_token_and_no_password(root: Person) -> None:
    password = new_password()
    answer = root.administer("POST", "/users", {"username": "n@ragkeeper.test", "password": password})

    assert answer.json["data"].keys() == {"id", "email", "nickname", "login_channel", "is_superuser"}
    assert password not in answer.get_data(as_text=True)


def test_S27_emails_are_kept_as_written_and_compared_without_case(world: World, root: Person) -> None:
    world.person("Mixed.Case@ragkeeper.test")

    again = root.administer("POST", "/users", {"username": "mixed.case@RAGKEEPER.test", "password": new_password()})
    assert (again.status_code, again.json["code"]) == (409, 409)
    shown = root.administer("GET", "/users/MIXED.CASE@ragkeeper.test").json["data"][0]
    assert shown["email"] == "Mixed.Case@ragkeeper.test"
    world.person(is_superuser=True)
    for method, path, body in (("PUT", "activate", {"activate_status": "off"}), ("DELETE", "admin", None)):
        oneself = root.administer(method, f"/users/{root.email.upper()}/{path}", body)
        assert oneself.status_code == 409, path


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "username"),
        ({"username": "x@ragkeeper.test"}, "password"),
        ({"username": "no address", "password": "long enough it is"}, "username"),
        ({"username": "x" * 10_000 + "@ragkeeper.test", "password": "long enough it is"}, "username"),
        ({"username": 5, "password": "long enough it is"}, "username"),
        ({"username": "x@ragkeeper.test", "password": "short"}, "password"),
        ({"username": "x@ragkeeper.test", "password": "x" * 129}, "password"),
        ({"username": "x@ragkeeper.test", "password": "nul\0" * 4}, "password"),
        ({"username": "x@ragkeeper.test", "password": "long enough it is", "role": "king"}, "role"),
    ],
)
def test_a_bad_new_user_is_told_which_field(world: World, root: Person, body: dict[str, object], field: str) -> None:
    answer = root.administer("POST", "/users", body)

    assert (answer.status_code, answer.json["code"]) == (400, 400)
    assert field in answer.json["message"].lower()
    assert world.plane.database.one("SELECT COUNT(*) FROM user") == (1,)


def test_R6_show_user_is_a_list_but_an_object_for_the_clients_that_need_one(root: Person) -> None:
    as_list = root.administer("GET", f"/users/{root.email}").json["data"]
    as_object = root.administer("GET", f"/users/{root.email}", headers=CLI_22).json["data"]

    assert as_list == [as_object]
    assert "avatar" in as_object
    assert not {"password", "access_token"} & as_object.keys()


def test_R9_an_unknown_user_is_404(root: Person) -> None:
    answer = root.administer("GET", "/users/nobody@ragkeeper.test")

    assert (answer.status_code, answer.json["code"]) == (404, 404)
    assert answer.json["message"].startswith("User 'nobody@ragkeeper.test' not found")


def test_S15_switching_off_ends_sessions_on_both_servers_at_once(world: World, root: Person) -> None:
    someone = world.person()
    assert someone.ask("GET", "/v1/user/info").json["code"] == 0
    give_role(world, someone, "viewer")
    assert someone.administer("GET", "/users").status_code == 200

    assert root.administer("PUT", f"/users/{someone.email}/activate", {"activate_status": "OFF"}).status_code == 200

    assert someone.ask("GET", "/v1/user/info").status_code == 401
    root.administer("PUT", f"/users/{someone.email}/activate", {"activate_status": "on"})
    assert someone.ask("GET", "/v1/user/info").status_code == 401, "switching on never revives a session"
    assert someone.administer("GET", "/users").status_code == 401


def test_S16_a_password_reset_ends_the_sessions(world: World, root: Person) -> None:
    someone = world.person()
    assert someone.ask("GET", "/v1/user/info").status_code == 200

    answer = root.administer("PUT", f"/users/{someone.email}/password", {"new_password": new_password()})

    assert answer.json["message"].startswith("Password updated")
    assert someone.ask("GET", "/v1/user/info").status_code == 401


def test_setting_the_same_password_says_so(world: World, root: Person) -> None:
    someone = world.person()

    answer = root.administer("PUT", f"/users/{someone.email}/password", {"new_password": someone.password})

    assert answer.status_code == 200
    assert not answer.json["message"].startswith("Password updated")


def test_the_last_superuser_stays(world: World, root: Person) -> None:
    other = world.person(is_superuser=True)
    assert other.administer("DELETE", f"/users/{root.email}/admin").status_code == 200

    assert other.administer("PUT", f"/users/{other.email}/activate", {"activate_status": "off"}).status_code == 409
    assert other.administer("DELETE", f"/users/{other.email}/admin").status_code == 409
    assert world.plane.database.one("SELECT COUNT(*) FROM user WHERE is_superuser") == (1,)


def test_an_inactive_superuser_does_not_count_as_one_who_is_left(world: World, root: Person) -> None:
    sleeper, other = world.person(is_superuser=True), world.person(is_superuser=True)
    root.administer("PUT", f"/users/{sleeper.email}/activate", {"activate_status": "off"})
    other.administer("DELETE", f"/users/{root.email}/admin")

    with_role = world.person(is_superuser=False)
    assert other.administer("DELETE", f"/users/{sleeper.email}/admin").status_code == 200
    assert with_role.user_id


def test_S1_S2_basic_auth_makes_nobody_and_admits_administrators_only(world: World, root: Person) -> None:
    member, off = world.person(), world.person(is_superuser=True)
    root.administer("PUT", f"/users/{off.email}/activate", {"activate_status": "off"})

    def basic(email: str, password: str, **more: str) -> int:
        encoded = base64.b64encode(password.encode()).decode()
        header = base64.b64encode(f"{email}:{encoded}".encode()).decode()
        return world.admin.ask("GET", "/api/v1/admin/auth", headers={"Authorization": f"Basic {header}"}).status_code

    assert basic("nobody@ragkeeper.test", "admin") == 401
    assert world.plane.database.one("SELECT COUNT(*) FROM user") == (3,)
    assert basic(member.email, member.password) == 403
    assert basic(off.email, off.password) == 401
    assert basic(root.email, "not the password") == 401
    assert basic(root.email, root.password) == 200
    assert world.admin.ask("GET", "/api/v1/admin/auth").status_code == 401


def test_R1_R2_errors_have_true_statuses_and_json_for_the_old_client(world: World, root: Person) -> None:
    member = world.person()

    def told(method: str, path: str, body: Any = None, credential: str | None = None) -> tuple[int, int]:
        answer = world.admin.ask(method, f"/api/v1/admin{path}", body, credential=credential, headers=CLI_22)
        return answer.status_code, answer.json["code"]

    assert told("GET", "/users", credential=member.session) == (403, 403)
    assert told("GET", "/users/nobody@ragkeeper.test", credential=root.admin_session) == (404, 404)
    assert told("POST", "/login", {"email": member.email, "password": "wrong"}) == (401, 401)
    assert told("POST", "/users", {}, credential=root.admin_session) == (400, 400)
    assert told("PUT", f"/users/{root.email}/activate", {"activate_status": "off"}, root.admin_session) == (409, 409)

    anonymous = world.admin.ask("GET", "/api/v1/admin/users", headers=CLI_22)
    browser = world.admin.ask("GET", "/api/v1/admin/users", headers={"Accept": "text/html"})

    assert (anonymous.status_code, anonymous.json["code"]) == (401, 401)
    assert browser.status_code == 401
    assert re.search("<title>401 Unauthorized</title>", browser.get_data(as_text=True))


def test_problem_details_are_given_to_who_asks(world: World, root: Person) -> None:
    answer = root.administer("GET", "/users/nobody@ragkeeper.test", headers={"Accept": "application/problem+json"})

    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
    assert answer.json["status"] == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "/users?limit=0", None), ("GET", "/users/nobody@ragkeeper.test", None), ("POST", "/users", {})],
)
def test_problem_details_carry_the_code_of_the_envelope(root: Person, method: str, path: str, body: object) -> None:
    envelope = root.administer(method, path, body)
    problem = root.administer(method, path, body, headers={"Accept": "application/problem+json"})

    assert problem.json["code"] == envelope.json["code"] == envelope.status_code == problem.status_code


def test_basic_credentials_with_a_generated_password_authorise_nothing(world: World) -> None:
    fresh = world.person(is_superuser=True, must_change=True)

    def basic(password: str) -> Any:
        header = base64.b64encode(f"{fresh.email}:{password}".encode()).decode()
        return world.admin.ask("GET", "/api/v1/admin/auth", headers={"Authorization": f"Basic {header}"})

    refused = basic(fresh.password)
    assert (refused.status_code, refused.json["code"]) == (403, 403)
    assert "Change your password first" in refused.json["message"]
    chosen = new_password()
    fresh.administer("PUT", f"/users/{fresh.email}/password", {"new_password": chosen})
    assert basic(chosen).status_code == 200


def test_a_generated_password_must_be_changed_before_anything_else(world: World) -> None:
    fresh = world.person(is_superuser=True, must_change=True)

    refused = fresh.administer("GET", "/users")
    assert refused.status_code == 403
    assert "password" in refused.json["message"]
    other = fresh.administer("PUT", f"/users/{world.root.email}/password", {"new_password": new_password()})
    assert other.status_code == 403
    same = fresh.administer("PUT", f"/users/{fresh.email}/password", {"new_password": fresh.password})
    assert same.status_code == 400
    assert (
        fresh.administer("PUT", f"/users/{fresh.email}/password", {"new_password": new_password()}).status_code == 200
    )
    assert fresh.administer("GET", "/users").status_code == 200, "the session that made the change goes on"


def test_an_administrators_session_ends_after_twelve_hours_on_the_admin_server(
    world: World, root: Person, clock: Clock
) -> None:
    user_session = root.session
    assert world.admin.ask("GET", "/api/v1/admin/users", credential=user_session).status_code == 200
    assert world.api.ask("GET", "/v1/user/info", credential=root.admin_session).status_code == 200

    for _ in range(24):
        clock.forward(hours=0.5)
        world.admin.ask("GET", "/api/v1/admin/version", credential=user_session)
        root.administer("GET", "/version")
        world.plane.session_uses.wait(10)

    assert root.administer("GET", "/users").status_code == 401
    assert world.admin.ask("GET", "/api/v1/admin/users", credential=user_session).status_code == 401
    assert root.ask("GET", "/v1/user/info").status_code == 200
    clock.forward(days=30)
    assert root.ask("GET", "/v1/user/info").status_code == 401


def test_datasets_and_agents_show_own_and_shared_ones(world: World, root: Person) -> None:
    owner, member = world.person(), world.person()
    _join(world, owner, member)
    for name, permission in (("mine", "me"), ("ours", "team")):
        _dataset(world, owner, name, permission)
        _agent(world, owner, name, permission)

    def names(kind: str, person: Person, key: str) -> set[str]:
        return {item[key] for item in root.administer("GET", f"/users/{person.email}/{kind}").json["data"]}

    assert names("datasets", owner, "name") == {"mine", "ours"}
    assert names("datasets", member, "name") == {"ours"}
    assert names("agents", owner, "title") == {"mine", "ours"}
    assert names("agents", member, "title") == {"ours"}
    posted = root.administer("POST", f"/users/{member.email}/agents").json["data"]
    assert posted == [{"title": "ours", "permission": "team", "canvas_category": "agent", "avatar": None}]


def _join(world: World, owner: Person, member: Person) -> None:
    with world.plane.database.transaction():
        accounts.add_membership(
            world.plane, tenant_id=owner.user_id, user_id=member.user_id, role="normal", invited_by=owner.user_id
        )


def _dataset(world: World, owner: Person, name: str, permission: str) -> None:
    world.plane.database.insert(
        Knowledgebase,
        id=f"kb-{name}",
        tenant_id=owner.user_id,
        name=name,
        embd_id="",
        permission=permission,
        created_by=owner.user_id,
    )


def _agent(world: World, owner: Person, title: str, permission: str) -> None:
    world.plane.database.insert(
        UserCanvas, id=f"agent-{title}", user_id=owner.user_id, title=title, permission=permission
    )
