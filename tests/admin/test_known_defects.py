"""Known defects of RAGFlow that no other test file is about; each must not be true here."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from common.cli.serving import gunicorn_command
from common.services import opening
from common.settings import Settings, load
from tests.people import Clock, Person, World, close, new_password, settings_for, settle
from tests.side_by_side import at_once

ROOT = Path(__file__).parents[2]


def start(home: Path, clock: Clock) -> World:
    """A process that begins on this home, with both servers."""
    plane = opening.open_plane(settings_for(home), now_ms=clock)
    return World(plane)


def test_S8_sessions_of_one_port_work_at_the_other_in_every_process_and_after_a_restart(
    tmp_path: Path, clock: Clock
) -> None:
    settle(tmp_path / "home")
    before = start(tmp_path / "home", clock)
    sessions = [before.root.admin_session, before.root.session]
    signed = before.plane.keys.sign("a value")
    close(before.plane)

    administers, serves = (start(tmp_path / "home", clock) for _ in range(2))
    for session in sessions:
        assert administers.admin.ask("GET", "/api/v1/admin/users", credential=session).status_code == 200
        assert serves.api.ask("GET", "/v1/user/info", credential=session).status_code == 200
    for each in (administers, serves):
        # Where a RAGFlow shares the database, what it signed is looked at too.
        assert each.plane.keys.unsign(signed) == "a value"
        close(each.plane)


def test_S8_the_secret_key_that_a_start_makes_stands_in_no_log(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settle(tmp_path / "home")
    for _ in range(2):
        process = start(tmp_path / "home", clock)
        process.person().ask("GET", "/v1/user/info")
        process.api.ask("GET", "/v1/user/info", credential="signed by nobody")
        close(process.plane)

    [key] = (tmp_path / "home" / "secret_key").read_text().split()
    assert caplog.records
    assert key not in caplog.text


def test_S22_neither_server_is_a_development_server_or_listens_everywhere(world: World) -> None:
    for port, server in ((world.admin, "admin"), (world.api, "api")):
        assert port.app.debug is False
        command = gunicorn_command(Settings(home=Path("/nowhere")), server)
        assert "gunicorn" in command
        assert command[command.index("--bind") + 1].startswith("127.0.0.1:")


def test_R13_host_and_port_of_the_file_are_where_the_admin_server_listens(tmp_path: Path) -> None:
    conf = tmp_path / "service_conf.yaml"
    conf.write_text("admin:\n  host: 127.0.0.9\n  http_port: 19999\n")
    settings = load({"RAGKEEPER_CONF": str(conf), "RAGKEEPER_HOME": str(tmp_path / "home")})

    command = gunicorn_command(settings, "admin")

    assert command[command.index("--bind") + 1] == "127.0.0.9:19999"


@pytest.mark.race
def test_R25_two_creations_of_one_address_at_once_make_one_account(world: World, root: Person) -> None:
    def create(email: str) -> object:
        return root.administer("POST", "/users", {"username": email, "password": new_password()})

    assert root.admin_session
    statuses = at_once(world, lambda: create("twin@ragkeeper.test"), lambda: create("Twin@ragkeeper.test"))

    assert sorted(statuses) == [200, 409]
    assert world.plane.database.one("SELECT COUNT(*) FROM user WHERE lower(email) = 'twin@ragkeeper.test'") == (1,)


def test_R33_status_has_the_documented_names(world: World, root: Person) -> None:
    data = root.ask("GET", "/v1/system/status").json["data"]

    assert {"doc_engine", "storage", "database", "redis", "task_executor_heartbeats"} <= data.keys()


def test_R35_no_get_needs_a_body(world: World) -> None:
    for port in (world.admin, world.api):
        for route in port.app.extensions["ragkeeper.routes"]:
            if route.method == "GET" and route.body is not None:
                # What a proxy may drop can be said in the query too.
                assert route.body_optional, route.endpoint
                assert route.query is not None, route.endpoint
                assert route.body.model_fields.keys() <= route.query.model_fields.keys(), route.endpoint


def test_R37_every_route_that_the_documents_name_exists(world: World) -> None:
    rules = {route.rule for port in (world.admin, world.api) for route in port.app.extensions["ragkeeper.routes"]}
    known = re.compile("|".join(re.sub("<[^>]+>", "[^/]+", rule) for rule in rules))
    # What it says of the routes of a RAGFlow is about those.
    documents = {*ROOT.glob("docs/*.md"), *ROOT.glob("docs/security/*.md"), ROOT / "README.md"}
    documents -= {ROOT / "docs" / "forward-auth.md"}
    named = {
        (document.name, re.sub(r"\{[^}]*\}|…", "x", path))
        for document in documents
        for path in re.findall(r"(?<![\w./-])/(?:api/)?v1/[\w/{}…-]+", document.read_text(encoding="utf-8"))
    }

    assert len(named) > 20
    assert {each for each in named if not known.fullmatch(each[1].rstrip("/"))} == set()
