"""The system routes of the user API, as RAGFlow's clients ask for them."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from api.app import create_app as create_api
from common.core.errors import StoreUnavailable
from common.services import opening
from common.version import version_text
from tests.backends import stores
from tests.breaking import put_garbage, reason_of_absence, take_away
from tests.people import Clock, Person, Port, World, new_password, settings_for


@pytest.fixture
def someone(world: World) -> Person:
    return world.person()


def operator_of(world: World) -> Person:
    """The superuser on the user API, who may read services."""
    return world.root


def test_the_version_needs_a_login_on_the_older_path_only(world: World, someone: Person) -> None:
    assert world.api.ask("GET", "/v1/system/version").status_code == 401
    assert someone.ask("GET", "/v1/system/version").json["data"] == version_text()
    assert world.api.ask("GET", "/api/v1/system/version").json["data"] == version_text()


@pytest.mark.parametrize("path", ["/v1/system/config", "/api/v1/system/config"])
def test_strangers_learn_what_the_login_page_needs_and_no_more(world: World, path: str) -> None:
    answer = world.api.ask("GET", path)

    assert answer.json["data"] == {"registerEnabled": 1, "disablePasswordLogin": False}


@pytest.mark.parametrize("path", ["/v1/system/config", "/api/v1/system/config"])
def test_the_signed_in_also_learn_version_and_status(someone: Person, path: str) -> None:
    assert someone.ask("GET", path).json["data"] == {
        "registerEnabled": 1,
        "disablePasswordLogin": False,
        "version": version_text(),
        "status": "ok",
    }


@pytest.mark.parametrize("credential", ["garbage", "Bearer x y", "ragflow-nothing-like-a-token-here", "Basic Og=="])
def test_a_dead_credential_on_a_public_route_makes_a_stranger(world: World, credential: str) -> None:
    for path in ("/v1/system/config", "/v1/system/ping", "/api/v1/system/version", "/v1/system/healthz"):
        assert world.api.ask("GET", path, credential=credential).status_code == 200

    assert "version" not in world.api.ask("GET", "/v1/system/config", credential=credential).json["data"]


def test_a_credential_that_was_ended_makes_a_stranger(world: World, someone: Person) -> None:
    someone.ask("GET", "/v1/user/logout")

    assert "version" not in someone.ask("GET", "/v1/system/config").json["data"]


def test_the_config_says_what_is_switched_off(tmp_path: Path, clock: Clock) -> None:
    plane = opening.open_plane(
        settings_for(tmp_path / "other", REGISTER_ENABLED="0", DISABLE_PASSWORD_LOGIN="1"), now_ms=clock
    )
    answer = Port(create_api(plane)).ask("GET", "/v1/system/config")
    for store in (plane.database, plane.cache, plane.documents):
        store.close()

    assert answer.json["data"] == {"registerEnabled": 0, "disablePasswordLogin": True}


def test_the_status_has_every_part_with_its_time(someone: Person) -> None:
    for path in ("/v1/system/status", "/api/v1/system/status"):
        status = someone.ask("GET", path).json["data"]

        assert status["doc_engine"]["type"] == ("elasticsearch" if stores.is_server("documents") else "sqlite")
        assert status["storage"]["storage"] == ("minio" if stores.is_server("objects") else "local")
        assert status["database"]["database"] == ("mysql" if stores.is_server("metadata") else "sqlite")
        assert {status[part]["status"] for part in ("doc_engine", "storage", "database", "redis")} == {"green"}
        for part in ("doc_engine", "storage", "database", "redis"):
            whole, _, fraction = status[part]["elapsed"].partition(".")
            assert whole.isdigit()
            assert len(fraction) == 1
        assert status["task_executor_heartbeats"] == {}


def test_the_status_needs_a_login(world: World) -> None:
    assert world.api.ask("GET", "/v1/system/status").status_code == 401
    assert world.admin.ask("GET", "/v1/system/status").status_code == 401


def test_the_status_of_a_broken_store_is_red_with_code_0(world: World, someone: Person) -> None:
    assert someone.session
    take_away(world.plane, "objects")

    answer = someone.ask("GET", "/v1/system/status")

    assert (answer.status_code, answer.json["code"]) == (200, 0)
    storage = answer.json["data"]["storage"]
    assert storage["storage"] == ("minio" if stores.is_server("objects") else "local")
    assert (storage["status"], storage["error"]) == ("red", "not available")


def test_a_document_engine_that_is_gone_is_of_unknown_type(world: World, someone: Person) -> None:
    assert someone.session
    world.plane.documents.close()
    put_garbage(world.plane, "documents")

    engine = someone.ask("GET", "/v1/system/status").json["data"]["doc_engine"]

    assert (engine["type"], engine["status"]) == ("unknown", "red")


def test_the_errors_in_the_status_are_for_those_who_may_read_services(world: World) -> None:
    root = operator_of(world)
    assert root.session
    take_away(world.plane, "objects")

    told = root.ask("GET", "/v1/system/status").json["data"]["storage"]["error"]
    assert told == reason_of_absence("objects", "its folder is missing")


def test_R17_heartbeats_are_null_and_not_empty_when_they_cannot_be_read(world: World, someone: Person) -> None:
    assert someone.session
    world.plane.cache.close()
    put_garbage(world.plane, "cache")

    status = someone.ask("GET", "/v1/system/status").json["data"]

    assert status["redis"]["status"] == "red"
    assert status["task_executor_heartbeats"] is None


@pytest.mark.parametrize("port", ["api", "admin"])
def test_how_often_limits_were_counted_per_process_is_shown_to_operators_only(
    world: World, someone: Person, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    root = operator_of(world)
    assert someone.session
    assert root.session
    assert root.admin_session

    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("cache", "down for the test")

    def told(credential: str) -> int | None:
        answer = getattr(world, port).ask("GET", "/v1/system/status", credential=credential)
        assert answer.status_code == 200
        fallbacks: int | None = answer.json["data"]["redis"].get("fallbacks")
        return fallbacks

    operators = root.session if port == "api" else root.admin_session
    assert told(operators) == 0
    with monkeypatch.context() as patch:
        patch.setattr(world.plane.cache, "incr", down)
        body = {"email": "new@ragkeeper.test", "nickname": "New", "password": new_password()}
        assert world.api.ask("POST", "/v1/user/register", body).json["code"] == 0
    counted = world.plane.counts.fallbacks

    assert counted > 0
    assert told(operators) == counted
    if port == "api":
        assert told(someone.session) is None


def test_what_an_executor_has_in_hand_is_shown_to_operators_only(world: World, someone: Person) -> None:
    now_s = world.plane.now_ms() / 1000
    beat = {"name": "task_executor_a", "now": "2026-09-21T14:13:20.000+00:00", "current": {"t": {"doc": "salaries"}}}
    world.plane.cache.beat("task_executor_a", beat, now_s)

    for_someone = someone.ask("GET", "/v1/system/status").json["data"]["task_executor_heartbeats"]
    for_root = world.root.ask("GET", "/v1/system/status").json["data"]["task_executor_heartbeats"]

    assert for_someone == {"task_executor_a": [{**beat, "current": {}}]}
    assert for_root == {"task_executor_a": [beat]}


@pytest.mark.parametrize(
    "path",
    ["/v1/system/oceanbase/status", "/api/v1/system/oceanbase/status", "/api/v1/system/gaussdb/status"],
)
def test_an_engine_that_is_not_in_use_is_code_500_within_a_200(world: World, someone: Person, path: str) -> None:
    answer = someone.ask("GET", path)

    assert (answer.status_code, answer.json["code"]) == (200, 500)
    assert answer.json["data"].keys() == {"status", "message"}
    assert answer.json["data"]["status"] == "error"
    assert world.api.ask("GET", path).status_code == 401


@pytest.mark.parametrize("path", ["/v1/user/login/channels", "/api/v1/auth/login/channels"])
def test_there_are_no_ways_of_single_sign_on(world: World, path: str) -> None:
    answer = world.api.ask("GET", path)

    assert (answer.status_code, answer.json["data"]) == (200, [])


@pytest.mark.parametrize(
    "path", ["/v1/user/login/github", "/v1/user/oauth/callback/github", "/api/v1/auth/oauth/github/callback"]
)
def test_the_routes_of_a_channel_are_404(world: World, path: str) -> None:
    assert world.api.ask("GET", path).status_code == 404


def test_the_language_probe_is_answered(world: World) -> None:
    assert world.api.ask("GET", "/api/v1/language").json["data"] == {"language": "python"}


def test_the_public_key_is_the_one_that_passwords_may_be_sent_with(world: World) -> None:
    here = world.api.ask("GET", "/api/v1/system/public-key").json
    there = world.admin.ask("GET", "/api/v1/admin/public-key").json

    assert here["data"] == there["data"] == {"public_key": world.plane.keys.public_pem}


LOG = "/api/v1/system/config/log"


def test_whoever_is_signed_in_reads_the_log_levels(world: World, someone: Person) -> None:
    assert "root" in someone.ask("GET", LOG).json["data"]
    assert world.api.ask("GET", LOG).status_code == 401


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "pkg_name and level are required"),
        ({}, "pkg_name and level are required"),
        ({"level": "INFO"}, "pkg_name and level are required"),
        ({"pkg_name": "root", "level": "LOUD"}, "Invalid log level"),
    ],
)
def test_fields_of_a_log_level_are_judged_before_the_permission(someone: Person, body: object, message: str) -> None:
    answer = someone.ask("PUT", LOG, body)

    assert (answer.status_code, answer.json["code"]) == (200, 102)
    assert answer.json["message"].startswith(message)


def test_setting_a_log_level_needs_the_permission_and_a_login(world: World, someone: Person) -> None:
    body = {"pkg_name": "ragkeeper.test.api", "level": "INFO"}

    assert someone.ask("PUT", LOG, body).status_code == 403
    assert world.api.ask("PUT", LOG, body).status_code == 401
    assert logging.getLogger("ragkeeper.test.api").level == logging.NOTSET


def test_an_administrator_sets_a_log_level_here_too(world: World) -> None:
    name = "ragkeeper.test.api.set"
    answer = world.root.ask("PUT", LOG, {"pkg_name": name, "level": "error"})
    level = logging.getLogger(name).level
    logging.getLogger(name).setLevel(logging.NOTSET)

    assert answer.json["data"] == {"pkg_name": name, "level": "ERROR"}
    assert level == logging.ERROR


def test_an_outage_is_logged_once_a_second_and_not_for_each_request(
    world: World, someone: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert someone.session

    def refuse(*_: object) -> None:
        raise StoreUnavailable("metadata", "gone for now")

    monkeypatch.setattr("api.apps.system.log_levels.get_log_levels", refuse)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert {someone.ask("GET", LOG).status_code for _ in range(20)} == {503}

    told = caplog.text.count("store metadata unavailable: gone for now")
    assert 1 <= told <= 1 + (time.monotonic() - began)
