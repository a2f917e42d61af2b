"""RAGFlow's tables after Ragkeeper has moved in: not altered, no row touched unasked, and none that breaks a route."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from typer.testing import CliRunner

from common.cli.main import app
from common.services import claims
from common.settings import SettingsError
from tests.people import Clock, Person, Port, new_password
from tests.ragflow.database import RagflowDatabase
from tests.ragflow.fixtures import ONE_VERSION, SharedWorld, Site
from tests.ragflow.people import PASSWORD, Population, RagflowUser, populate
from tests.route_table import EXPECTED
from tests.servers import environment_for

Rows = dict[str, dict[tuple[Any, ...], dict[str, Any]]]
# What a login may change of the row of whoever logs in.
# The password too: these people's hashes are cheaper than RAGFlow's, so a login renews them.
LOGIN = {"access_token", "last_login_time", "password", "update_time", "update_date"}


def changes(before: Rows, after: Rows) -> dict[str, dict[tuple[Any, ...], set[str]]]:
    """By table and key, the columns that are others now; ``{"+"}`` for a new row, ``{"-"}`` for one that is gone."""
    found: dict[str, dict[tuple[Any, ...], set[str]]] = {}
    for table in before.keys() | after.keys():
        old, new = before.get(table, {}), after.get(table, {})
        of_table = {key: {"+"} for key in new.keys() - old.keys()} | {key: {"-"} for key in old.keys() - new.keys()}
        for key in old.keys() & new.keys():
            columns = {name for name, value in old[key].items() if new[key][name] != value}
            if columns:
                of_table[key] = columns
        if of_table:
            found[table] = of_table
    return found


def test_moving_in_changes_neither_a_table_nor_a_row(site: Site, population: Population, clock: Clock) -> None:
    definitions, rows = site.database.definitions(), site.database.rows()

    plane = site.open(clock)

    assert site.database.definitions() == definitions
    assert changes(rows, site.database.rows()) == {}
    assert plane.shared
    plane.database.close()


def test_a_day_of_use_changes_only_what_was_asked_for(shared: SharedWorld, clock: Clock) -> None:
    database, people = shared.site.database, shared.population
    definitions, rows = database.definitions(), database.rows()
    root, alice = shared.known("root"), shared.known("alice")
    read_everything(shared, root, [root, alice])
    claims_up_to_date(shared)
    root.administer("PUT", f"/users/{people['bob'].email}/activate", {"activate_status": "off"})
    made = root.administer("POST", "/users", {"username": "made@ragflow.test", "password": new_password()}).json
    alice.ask("PATCH", "/api/v1/users/me", {"nickname": "Alicia"})
    alice.ask("POST", f"/api/v1/tenants/{alice.user_id}/users", {"email": people["dave"].email})

    assert database.definitions() == definitions
    found = changes(rows, database.rows())
    made_id = made["data"]["id"]  # type: ignore[index]
    assert found.pop("user") == {
        (root.user_id,): LOGIN, (alice.user_id,): LOGIN | {"nickname"}, (made_id,): {"+"},
        (people["bob"].id,): {"is_active", "access_token", "update_time", "update_date"},
    }  # fmt: skip
    assert found.pop("tenant") == {(made_id,): {"+"}}
    assert set(map(frozenset, found.pop("user_tenant").values())) == {frozenset("+")}
    assert set(map(frozenset, found.pop("file").values())) == {frozenset("+")}
    assert found == {}


def claims_up_to_date(shared: SharedWorld) -> None:
    """What the worker does once in a while."""
    claims.follow(shared.plane.database, shared.plane.now_ms())
    for _ in claims.walk(shared.plane.database, shared.plane.now_ms()):
        pass


def read_everything(shared: SharedWorld, root: Person, callers: list[Person]) -> list[str]:
    """GET every route of both servers, for each account as the subject and by each of the callers; what went wrong."""
    wrong = []
    for key in EXPECTED:
        server, method, rule = key.split(" ", 2)
        if method != "GET" or "logout" in rule or "docs" in rule or "captcha" in rule:
            continue
        port = shared.admin if server == "9381" else shared.api
        subjects = [*shared.population.everybody] if "<email>" in rule or "<tenant_id>" in rule else ["root"]
        subjects += ["no owner", "ghost"] if "<tenant_id>" in rule else []
        for name in subjects:
            for caller in [root] if server == "9381" else callers:
                path = path_of(shared, rule, name)
                answer = ask(port, path, caller, admin=server == "9381")
                if answer.status_code >= 500 and "healthz" not in rule and "status" not in rule:
                    wrong.append(f"{key} of {name} by {caller.email}: {answer.status_code} {answer.data[:200]!r}")
    return wrong


def path_of(shared: SharedWorld, rule: str, name: str) -> str:
    tenants = {"no owner": shared.population.organisation, "ghost": shared.population.ghost}
    user = shared.population.everybody.get(name) or RagflowUser(tenants[name], "")
    values = {"email": quote(user.email, safe=""), "tenant_id": user.id}
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda match: values.get(match[1], "0"), rule)


def ask(port: Port, path: str, caller: Person, *, admin: bool) -> Any:
    return port.ask("GET", path, credential=caller.admin_session if admin else caller.session)


def test_no_broken_row_breaks_a_route(shared: SharedWorld) -> None:
    callers = [shared.known("root"), *able_to_log_in(shared)]

    assert len(callers) > 8
    assert read_everything(shared, callers[0], callers) == []


CHANGES: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "/activate", {"activate_status": "on"}),
    ("POST", "/keys", {}),
    ("PUT", "/password", {"new_password": new_password()}),
    ("PUT", "/role", {"role_name": "viewer"}),
    ("PUT", "/admin", None),
    ("DELETE", "/admin", None),
    ("DELETE", "?dry_run=true", None),
    ("PUT", "/activate", {"activate_status": "off"}),
    ("DELETE", "", None),
)


@pytest.mark.slow
def test_no_broken_row_breaks_a_change(shared: SharedWorld) -> None:
    root, wrong = shared.known("root"), []
    for name in sorted(shared.population.broken):
        path = f"/users/{quote(shared.population[name].email, safe='')}"
        for method, rest, body in CHANGES:
            answer = root.administer(method, path + rest, body)
            expected = {404} if name == "deleted" else {200, 201, 400, 404, 409}
            if answer.status_code not in expected:
                wrong.append(f"{method} {rest} of {name}: {answer.status_code} {answer.data[:200]!r}")

    assert wrong == []
    assert not [email for (email,) in shared.site.database.all("SELECT email FROM user") if email.startswith("twin")]


def able_to_log_in(shared: SharedWorld) -> list[Person]:
    """The broken ones that RAGFlow lets in; who has an e-mail second comes in as the first, odd switches keep out."""
    names = sorted(shared.population.broken - {"other twin", "other case", "odd switches"})
    return [shared.known(name) for name in names if shared.ragflow.log_in(shared.population[name].email, PASSWORD)]


def test_every_account_of_there_is_in_every_list(shared: SharedWorld) -> None:
    living = sorted(
        email for email, status in shared.site.database.all("SELECT email, status FROM user") if status != "0"
    )
    root = shared.known("root")

    assert sorted(user["email"] for user in root.administer("GET", "/users").json["data"]) == living  # type: ignore[index]
    for sort in ("email", "-email", "create_time", "-create_time", "nickname", "-nickname"):
        assert sorted(pages(root, f"/users?limit=3&sort={sort}")) == living, sort
    assert sorted(pages(root, "/users?limit=3&q=")) == living


def pages(root: Person, path: str) -> list[str]:
    found, cursor = [], ""
    while True:
        page = root.administer("GET", f"{path}{cursor}").json["data"]  # type: ignore[index]
        found += [user["email"] for user in page["users"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_doubles_are_told_by_the_doctor_and_stop_nothing(
    site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(site.database, invited_at_ms=clock())
    plane = site.open(clock)
    plane.database.close()

    findings = doctor(site, monkeypatch)

    doubles = [text for text in findings if "share the e-mail" in text]
    assert len(doubles) == (0 if site.database.version == "0.27" else 2)
    assert sum("3 memberships" in text for text in findings) == 1


def doctor(site: Site, monkeypatch: pytest.MonkeyPatch, *options: str) -> list[str]:
    """What ``ragkeeper doctor`` finds wrong."""
    for name, value in environment_for(site.home, **site.environment).items():
        monkeypatch.setenv(name, value)
    outcome = CliRunner().invoke(app, ["doctor", "--json", *options])
    return [
        finding["message"]
        for finding in orjson.loads(outcome.stdout)["findings"]
        if finding["state"] in ("problem", "fixable")
    ]


@ONE_VERSION
def test_tables_of_another_program_are_refused_before_anything_is_made(site: Site, clock: Clock) -> None:
    site.database.all("DROP TABLE user")
    site.database.all("CREATE TABLE user (id VARCHAR(32) PRIMARY KEY, name TEXT)")

    with pytest.raises(SettingsError, match="a table user that is not RAGFlow's"):
        site.open(clock)

    assert not [name for name in every_table(site.database) if name.startswith("rk_") and name != "rk_migration"]


def every_table(database: RagflowDatabase) -> list[str]:
    if database.dialect == "sqlite":
        return [name for (name,) in database.all("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [name for (name,) in database.all("SHOW TABLES")]


@ONE_VERSION
@pytest.mark.parametrize(("setting", "expected"), [("auto", True), ("on", True), ("off", False)])
def test_the_setting_decides_and_auto_finds_out(site: Site, clock: Clock, setting: str, expected: bool) -> None:
    site.environment["RAGKEEPER_SHARED_DATABASE"] = setting

    plane = site.open(clock)

    assert plane.shared is expected
    plane.database.close()


@ONE_VERSION
def test_the_doctor_puts_double_memberships_right_when_it_is_asked_to(
    site: Site, population: Population, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.open(clock).database.close()
    alice, thrice = population["alice"].id, population["thrice"].id

    doctor(site, monkeypatch, "--fix")

    roles = site.database.all("SELECT role FROM user_tenant WHERE tenant_id = ? AND user_id = ?", (alice, thrice))
    assert roles == [("normal",)]
    assert not any("memberships" in text for text in doctor(site, monkeypatch))
