"""Settings that are changed at run time, as administrators see and set them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from common.secret import Secret
from common.services import settings
from common.services.plane import Plane
from tests.people import Person, World
from tests.roles import SHELL, give_role, make_role
from tests.side_by_side import at_once

INTERVAL = "probe.check_interval"


def listed(person: Person) -> dict[str, dict[str, Any]]:
    """Every setting by name."""
    return {each["name"]: each for each in person.administer("GET", "/settings").json["data"]["settings"]}


def change(person: Person, changes: dict[str, Any], query: str = "", **more: Any) -> Any:
    return person.administer("PATCH", f"/settings{query}", {"settings": changes}, **more)


def operator(world: World, *more: str) -> Person:
    """Somebody who may set settings and is no superuser; ``more`` as resource:action."""
    tree: dict[str, list[str]] = {"setting": ["read", "write"]}
    for each in more:
        resource, action = each.split(":")
        tree.setdefault(resource, []).append(action)
    make_role(world, "operator", tree)
    person = world.person()
    give_role(world, person, "operator")
    return person


# The typed list


def test_settings_are_listed_with_their_rules_and_defaults(root: Person) -> None:
    setting = listed(root)[INTERVAL]

    assert setting == {
        "name": INTERVAL,
        "type": "integer",
        "default": 0,
        "least": 0,
        "most": 60,
        "choices": [],
        "takes": "a whole number of 0 to 60",
        "secret": False,
        "permission": "setting:write",
        "restart": False,
        "help": setting["help"],
        "value": 0,
        "is_set": False,
        "updated_at": None,
        "updated_by": None,
    }


def test_several_are_set_at_once_and_show_who_set_them_and_when(root: Person) -> None:
    answer = change(root, {INTERVAL: 5, "probe.retry_count": "2"})

    assert answer.json["data"] == {
        "changes": [
            {"name": INTERVAL, "before": None, "after": 5},
            {"name": "probe.retry_count", "before": None, "after": 2},
        ],
        "dry_run": False,
    }
    setting = listed(root)[INTERVAL]
    assert (setting["value"], setting["updated_by"]) == (5, root.email)
    assert setting["updated_at"] == "2026-09-21T14:13:20.000Z"


def test_one_that_is_wrong_changes_none_and_is_named(root: Person) -> None:
    answer = change(root, {INTERVAL: 5, "probe.retry_count": 11}, headers={"Accept": "application/problem+json"})

    assert (answer.status_code, answer.json["field"]) == (400, "settings.probe.retry_count")
    assert "a whole number of -1 to 10" in answer.json["detail"]
    assert listed(root)[INTERVAL]["value"] == 0
    assert root.world.events("setting:update") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (INTERVAL, True),
        (INTERVAL, 1.5),
        (INTERVAL, "many"),
        (INTERVAL, [1]),
        ("mail.use_ssl", 1),
        ("mail.default_sender", "two@x.test, more@x.test"),
        ("mail.default_sender", "a@x.test\r\nBcc: b@x.test"),
        ("mail.frontend_url", "javascript:alert(1)"),
        ("mail.server", "http://mail.test"),
        ("audit.webhook_url", "https://hook.test/événements"),
        ("audit.webhook_url", "https://hook.test/?to=é"),
        ("no.such", 1),
        ("feature.Upper", {"state": "on"}),
        ("feature.new", {"state": "perhaps"}),
        ("feature.new", {"state": "on", "more": 1}),
    ],
)
def test_what_breaks_its_rule_is_refused(root: Person, name: str, value: Any) -> None:
    assert change(root, {name: value}).status_code == 400


KINDS: dict[str, Any] = {
    "text": "no such value",
    "number": 6.5,
    "large": 10**30,
    "negative": -70000,
    "boolean": True,
    "null": None,
    "list": ["no"],
    "object": {"no": 1},
}
TAKES = {
    "probe.timeout": ("a whole number of 0 to 60", ()),
    "mail.use_ssl": ("true or false", ("boolean",)),
    "mail.username": ("a text of at most 255 characters", ("text",)),
    "mail.password": ("a text of at most 1024 characters", ("text",)),
    "registration.mode": ("one of open, whitelist, invitation, approval, closed", ()),
    "mail.frontend_url": ("an http or https address with a host", ()),
    "feature.look": ("an object of state", ()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TAKES)
def test_each_setting_says_its_rule_to_whatever_kind_of_value_does_not_fit(root: Person, name: str, kind: str) -> None:
    root.administer("POST", "/features", {"name": "look"})
    told, kinds = TAKES[name]

    answers = {
        f"settings.{name}": change(root, {name: KINDS[kind]}, headers={"Accept": "application/problem+json"}),
        "var_value": root.administer(
            "PUT",
            "/variables",
            {"var_name": name, "var_value": KINDS[kind]},
            headers={"Accept": "application/problem+json"},
        ),
    }

    for field, answer in answers.items():
        if kind in kinds or (kind == "null" and field != "var_value"):
            assert answer.status_code == 200, answer.json
            continue
        assert (answer.status_code, answer.json["field"]) == (400, field)
        assert answer.json["detail"].startswith(f"{field}: {name} takes {told}")


def test_null_goes_back_to_the_default(root: Person) -> None:
    change(root, {INTERVAL: 5})

    answer = change(root, {INTERVAL: None})

    assert answer.json["data"]["changes"] == [{"name": INTERVAL, "before": 5, "after": None}]
    assert (listed(root)[INTERVAL]["value"], listed(root)[INTERVAL]["is_set"]) == (0, False)


def test_what_is_so_already_is_no_change_and_no_event(root: Person) -> None:
    change(root, {INTERVAL: 5})

    assert change(root, {INTERVAL: "5"}).json["data"]["changes"] == []
    assert len(root.world.events("setting:update")) == 1


@pytest.mark.parametrize("query", ["?dry_run=1", "?dry_run=true"])
def test_a_dry_run_checks_everything_and_writes_nothing(root: Person, query: str) -> None:
    answer = change(root, {INTERVAL: 5}, query)

    assert answer.json["data"] == {"changes": [{"name": INTERVAL, "before": None, "after": 5}], "dry_run": True}
    assert change(root, {INTERVAL: 99}, query).status_code == 400
    assert listed(root)[INTERVAL]["value"] == 0
    assert root.world.events("setting:update") == []


def test_each_change_is_audited_with_before_and_after(root: Person) -> None:
    change(root, {INTERVAL: 5})
    change(root, {INTERVAL: 6})

    assert root.world.events("setting:update") == [
        ("ok", root.email, INTERVAL, '{"value":null}', '{"value":5}'),
        ("ok", root.email, INTERVAL, '{"value":5}', '{"value":6}'),
    ]


def test_a_change_that_builds_on_what_is_no_longer_so_is_refused(root: Person) -> None:
    tag = root.administer("GET", "/settings").headers["ETag"]
    assert change(root, {INTERVAL: 5}, headers={"If-Match": tag}).status_code == 200

    late = change(root, {INTERVAL: 6}, headers={"If-Match": tag})
    fresh = root.administer("GET", "/settings").headers["ETag"]

    assert (late.status_code, late.json["code"]) == (412, 412)
    assert listed(root)[INTERVAL]["value"] == 5
    assert change(root, {INTERVAL: 6}, headers={"If-Match": f'"other", {fresh}'}).status_code == 200
    assert change(root, {INTERVAL: 7}, headers={"If-Match": "*"}).status_code == 200
    refused = {f"W/{fresh}": 412, '""': 412, "garbage": 400}
    assert {given: change(root, {INTERVAL: 8}, headers={"If-Match": given}).status_code for given in refused} == refused


def test_a_variable_that_somebody_else_has_set_meanwhile_is_not_set_either(root: Person) -> None:
    tag = root.administer("GET", "/settings").headers["ETag"]

    def put(value: str, **headers: str) -> int:
        body = {"var_name": INTERVAL, "var_value": value}
        return root.administer("PUT", "/variables", body, headers=headers).status_code

    assert put("5", **{"If-Match": tag}) == 200
    assert put("6", **{"If-Match": tag}) == 412
    assert listed(root)[INTERVAL]["value"] == 5
    assert put("7") == 200


# History


def test_history_has_every_change_newest_first_by_page(root: Person) -> None:
    for value in (5, 6, None):
        change(root, {INTERVAL: value})

    first = root.administer("GET", f"/settings/{INTERVAL}/history?limit=2").json["data"]
    second = root.administer("GET", f"/settings/{INTERVAL}/history?limit=2&cursor={first['next_cursor']}").json["data"]

    assert [(each["before"], each["after"]) for each in first["changes"]] == [(6, None), (5, 6)]
    assert [(each["before"], each["after"], each["by"]) for each in second["changes"]] == [(None, 5, root.email)]
    assert second["next_cursor"] is None


def test_a_roll_back_gives_a_setting_the_value_of_then_and_is_a_change_itself(root: Person) -> None:
    for value in (5, 6):
        change(root, {INTERVAL: value})
    changes = root.administer("GET", f"/settings/{INTERVAL}/history").json["data"]["changes"]
    path = f"/settings/{INTERVAL}/rollback"

    answer = root.administer("POST", path, {"id": changes[1]["id"]})

    assert answer.json["data"]["changes"] == [{"name": INTERVAL, "before": 6, "after": 5}]
    assert listed(root)[INTERVAL]["value"] == 5
    assert root.world.events("setting:rollback") == [
        ("ok", root.email, INTERVAL, '{"value":6}', '{"value":5}'),
    ]
    assert root.administer("POST", path, {"id": changes[1]["id"]}).json["data"]["changes"] == []
    assert root.administer("POST", path, {"id": 12345}).status_code == 404
    assert root.administer("POST", "/settings/probe.timeout/rollback", {"id": changes[1]["id"]}).status_code == 404
    tag = '"an-old-one"'
    assert root.administer("POST", path, {"id": changes[0]["id"]}, headers={"If-Match": tag}).status_code == 412


def test_a_path_of_a_setting_that_is_not_there_is_404(root: Person) -> None:
    answers = [
        root.administer("GET", "/settings/no.such/history"),
        root.administer("POST", "/settings/no.such/rollback", {"id": 1}),
    ]

    said = {"code": 404, "message": "There is no setting 'no.such'.", "data": None}
    assert [(answer.status_code, answer.json) for answer in answers] == [(404, said)] * 2


# Who may


def test_setting_needs_the_permission_of_each_setting(world: World) -> None:
    person = operator(world)

    assert change(person, {INTERVAL: 5}).status_code == 200
    make_role(world, "empty")
    for role in ("member", "empty"):
        assert change(person, {"default_role": role}).status_code == 403
    assert change(person, {INTERVAL: 6, "mail.server": "mail.test"}).status_code == 403
    assert person.administer("PUT", "/variables", {"var_name": "mail.server", "var_value": "m"}).status_code == 403
    assert listed(world.root)[INTERVAL]["value"] == 5


def test_who_can_not_set_a_setting_can_not_roll_it_back(world: World) -> None:
    change(world.root, {"mail.server": "one.test"})
    change(world.root, {"mail.server": "two.test"})
    person = operator(world)
    changes = person.administer("GET", "/settings/mail.server/history").json["data"]["changes"]

    answer = person.administer("POST", "/settings/mail.server/rollback", {"id": changes[1]["id"]})

    assert answer.status_code == 403
    assert listed(world.root)["mail.server"]["value"] == "two.test"


# Secrets


def test_a_secret_is_never_shown_and_stands_nowhere_in_the_clear(world: World, caplog: Any) -> None:
    root, secret = world.root, "the mail password"
    with caplog.at_level(logging.DEBUG):
        answers = [
            change(root, {"mail.password": secret}, "?dry_run=1"),
            change(root, {"mail.password": secret}),
            root.administer("GET", "/settings"),
            root.administer("GET", "/settings/mail.password/history"),
            root.administer("GET", "/variables"),
            change(root, {"mail.password": None}, "?dry_run=1"),
        ]

    assert all(answer.status_code == 200 for answer in answers)
    assert all(secret not in answer.get_data(as_text=True) for answer in answers)
    assert listed(root)["mail.password"]["value"] == "***"
    assert secret not in caplog.text
    database = world.plane.database
    for table in ("rk_variable", "rk_variable_change", "rk_audit_event"):
        assert secret not in repr(database.all(f"SELECT * FROM {table}"))
    world.plane.variables.forget()
    assert world.plane.variables.secret("mail.password") == Secret(secret)


def test_an_address_with_a_password_in_it_is_refused_and_stands_nowhere(world: World, caplog: Any) -> None:
    person, address = operator(world), "https://someone:s3cret@hook.test/in"
    assert world.root.admin_session
    assert person.admin_session
    with caplog.at_level(logging.DEBUG):
        answers = [
            change(who, {name: address}, query)
            for who in (world.root, person)
            for name in ("audit.webhook_url", "mail.frontend_url", "password.reset_page")
            for query in ("", "?dry_run=1")
        ]
        body = {"var_name": "audit.webhook_url", "var_value": address}
        answers.append(world.root.administer("PUT", "/variables", body))
        stranger = world.person()
        give_role(world, stranger, "auditor")
        answers.append(change(stranger, {"audit.webhook_url": address}))

    assert [answer.status_code for answer in answers] == [400] * 13 + [403]
    assert all("without a user name or password in it" in answer.json["message"] for answer in answers[:-1])
    assert all("s3cret" not in answer.get_data(as_text=True) for answer in answers)
    assert "s3cret" not in caplog.text
    database = world.plane.database
    assert len(world.events("access:refused")) == 1
    for table in ("rk_variable", "rk_variable_change", "rk_audit_event"):
        assert "s3cret" not in repr(database.all(f"SELECT * FROM {table}"))


def test_the_mask_leaves_a_secret_as_it_is(world: World) -> None:
    change(world.root, {"mail.password": "the mail password"})

    for answer in (
        change(world.root, {"mail.password": "***"}),
        change(world.root, {"mail.password": "the mail password"}),
        world.root.administer("PUT", "/variables", {"var_name": "mail.password", "var_value": "***"}),
    ):
        assert answer.status_code == 200
    assert len(world.events("setting:update")) == 1
    assert world.plane.variables.secret("mail.password") == Secret("the mail password")


def test_a_secret_is_rolled_back_and_an_empty_one_is_none(world: World) -> None:
    for password in ("first", "second", ""):
        change(world.root, {"mail.password": password})
    world.plane.variables.forget()
    assert world.plane.variables.secret("mail.password") is None
    first = world.root.administer("GET", "/settings/mail.password/history").json["data"]["changes"][-1]

    world.root.administer("POST", "/settings/mail.password/rollback", {"id": first["id"]})

    world.plane.variables.forget()
    assert world.plane.variables.secret("mail.password") == Secret("first")
    assert (first["before"], first["after"]) == (None, "***")


def test_a_secret_that_no_key_opens_any_more_does_not_come_back(world: World) -> None:
    change(world.root, {"mail.password": "first"})
    world.plane.database.run("UPDATE rk_variable_change SET value = 'rk2:nonsense:nonsense'")
    change(world.root, {"mail.password": "second"})
    first = world.root.administer("GET", "/settings/mail.password/history").json["data"]["changes"][-1]

    answer = world.root.administer("POST", "/settings/mail.password/rollback", {"id": first["id"]})

    assert (answer.status_code, answer.json["message"]) == (
        400,
        "id: no key opens what mail.password was then; set it anew.",
    )
    assert world.plane.variables.secret("mail.password") == Secret("second")


# RAGFlow's variables


def test_variables_are_listed_by_name_with_text_values(root: Person) -> None:
    change(root, {INTERVAL: 5})

    rows = root.administer("GET", "/variables").json["data"]

    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
    by_name = {row["name"]: row for row in rows}
    assert by_name[INTERVAL] == {
        "data_type": "integer", "name": INTERVAL, "setting_type": "config", "value": "5",
    }  # fmt: skip
    assert by_name["mail.use_ssl"]["value"] == "false"
    assert {row["data_type"] for row in rows} <= {"string", "integer", "bool", "json"}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("mail.port", ["mail.port"]),
        ("mail.use_", ["mail.use_ssl", "mail.use_tls"]),
        ("enable_whitelist", ["enable_whitelist"]),
    ],
)
def test_R35_variables_of_a_name_are_found_by_query_and_by_the_body_that_old_clients_send(
    root: Person, asked: str, names: list[str]
) -> None:
    by_query = root.administer("GET", f"/variables?var_name={asked}")
    by_body = root.administer("GET", "/variables", {"var_name": asked})

    assert by_query.status_code == by_body.status_code == 200
    assert by_query.json == by_body.json
    assert [row["name"] for row in by_query.json["data"]] == names


def test_a_name_that_nothing_has_or_begins_with_is_refused(root: Person) -> None:
    for answer in (
        root.administer("GET", "/variables?var_name=nothing"),
        root.administer("GET", "/variables?var_name="),
        root.administer("GET", "/variables", {"var_name": "nothing"}),
        root.administer("GET", "/variables", {"var": "x"}),
    ):
        assert (answer.status_code, answer.json["code"]) == (400, 400)
        assert "var_name" in answer.json["message"]


def test_a_variable_is_set_by_its_text_as_ragflows_client_does(root: Person) -> None:
    answer = root.administer("PUT", "/variables", {"var_name": "mail.use_tls", "var_value": "true"})

    assert (answer.status_code, answer.json["code"], answer.json["data"]) == (200, 0, None)
    [row] = root.administer("GET", "/variables?var_name=mail.use_tls").json["data"]
    assert row["value"] == "true"
    for body in (
        {"var_name": "mail.use_tls", "var_value": "perhaps"},
        {"var_name": "no.such", "var_value": "x"},
        {"var_name": "mail.use_tls"},
        {"var_value": "true"},
    ):
        refused = root.administer("PUT", "/variables", body)
        assert (refused.status_code, refused.json["code"]) == (400, 400)


# Every process


def test_another_process_has_a_change_with_its_next_authentication(world: World, others: list[World]) -> None:
    someone = world.person()

    def statuses(process: World) -> list[int]:
        path = "/v1/system/version"
        return [process.api.ask("GET", path, credential=someone.session).status_code for _ in range(2)]

    assert [statuses(process) for process in others] == [[200, 200]] * 2
    change(world.root, {"limit.tenant_calls": 1})
    # The one call of this minute is for all of them.
    assert [statuses(process) for process in others] == [[200, 429], [429, 429]]
    change(world.root, {"limit.tenant_calls": None})
    assert [statuses(process) for process in others] == [[200, 200]] * 2


def test_the_shell_may_set_everything_and_is_named(plane: Plane, root: Person) -> None:
    settings.update_config(plane, SHELL, {"mail.server": "mail.test", "default_role": "member"})

    assert listed(root)["mail.server"]["updated_by"] == "test"


# At the same moment


@pytest.mark.race
def test_of_two_changes_that_build_on_the_same_version_one_is_refused(world: World) -> None:
    for number in range(3):
        tag = world.root.administer("GET", "/settings").headers["ETag"]

        statuses = at_once(
            world,
            lambda tag=tag, number=number: change(  # type: ignore[misc]
                world.root, {"probe.timeout": number + 1}, headers={"If-Match": tag}
            ),
            lambda tag=tag, number=number: change(  # type: ignore[misc]
                world.root, {INTERVAL: number + 1}, headers={"If-Match": tag}
            ),
        )

        assert sorted(statuses) == [200, 412]


@pytest.mark.parametrize("path", ["/settings", "/features", "/settings/rollback"])
def test_who_loses_the_power_to_set_while_the_request_runs_sets_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    person = operator(world)
    for value in (5, 6):
        assert change(person, {INTERVAL: value}).status_code == 200
    first = person.administer("GET", f"/settings/{INTERVAL}/history").json["data"]["changes"][-1]
    alone = settings.alone

    def demoted_meanwhile(plane: Plane, *names: str) -> Any:
        with monkeypatch.context() as undone:
            undone.setattr(settings, "alone", alone)
            give_role(world, person, "member")
        return alone(plane, *names)

    monkeypatch.setattr(settings, "alone", demoted_meanwhile)
    if path == "/settings":
        answer = change(person, {INTERVAL: 7})
    elif path == "/features":
        answer = person.administer("POST", path, {"name": "fresh"})
    else:
        answer = person.administer("POST", f"/settings/{INTERVAL}/rollback", {"id": first["id"]})

    assert answer.status_code == 403
    assert listed(world.root)[INTERVAL]["value"] == 6
    assert world.root.administer("GET", "/features").json["data"] == {"features": []}
