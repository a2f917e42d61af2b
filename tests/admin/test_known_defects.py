"""Known defects of RAGFlow that no other test is named after; each must not be true here."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.cli.serving import gunicorn_command
from common.settings import Settings, load
from tests.people import Person, World, new_password
from tests.side_by_side import at_once


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
