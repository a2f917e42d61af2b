"""The system pages of the admin server: environment, configured services, log levels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from common.http import serving
from common.services import opening
from common.services.plane import Plane
from tests.backends import stores
from tests.people import Clock, Person, World, settings_for


@pytest.fixture
def package() -> Iterator[str]:
    name = f"ragkeeper.test.p{uuid4().hex}"
    yield name
    logging.getLogger(name).setLevel(logging.NOTSET)


def test_variables_that_are_not_set_are_null(root: Person) -> None:
    listed = root.administer("GET", "/environments").json["data"]

    names = ["DOC_ENGINE", "DEFAULT_SUPERUSER_EMAIL", "DB_TYPE", "DEVICE", "STORAGE_IMPL"]
    assert listed == [{"env": name, "value": None} for name in names]


def test_variables_that_are_set_are_shown_and_no_others(tmp_path: Path, clock: Clock) -> None:
    plane = opening.open_plane(
        settings_for(tmp_path / "other", DOC_ENGINE="infinity", DEVICE="cpu", RAGKEEPER_SECRET_KEY="k" * 40),
        now_ms=clock,
    )
    world = World(plane)
    answer = world.root.administer("GET", "/environments")
    for store in (plane.database, plane.cache, plane.documents):
        store.close()

    values = {each["env"]: each["value"] for each in answer.json["data"]}
    assert (values["DOC_ENGINE"], values["DEVICE"]) == ("infinity", "cpu")
    assert "k" * 40 not in answer.get_data(as_text=True)


def test_configurations_are_the_services_without_their_status(root: Person) -> None:
    services = root.administer("GET", "/services").json["data"]

    without_status = [{key: value for key, value in each.items() if key != "status"} for each in services]
    assert root.administer("GET", "/configs").json["data"] == without_status


def test_a_log_level_is_set_and_shown_and_stands_in_the_audit_trail(root: Person, package: str) -> None:
    answer = root.administer("PUT", "/log_levels", {"pkg_name": package, "level": "debug"})

    assert (answer.status_code, answer.json["data"]) == (200, {"pkg_name": package, "level": "DEBUG"})
    assert logging.getLogger(package).level == logging.DEBUG
    assert root.administer("GET", "/log_levels").json["data"][package] == "DEBUG"
    [(result, actor, target, before, after)] = root.world.events("setting:log_level")
    assert (result, actor, target, before, after) == (
        "ok",
        root.email,
        package,
        '{"level":null}',
        '{"level":"DEBUG"}',
    )


@pytest.mark.parametrize("package", ["ragflow_server", "rag.svr.task_executor"])
def test_names_of_ragflows_modules_are_packages(root: Person, package: str) -> None:
    assert root.administer("PUT", "/log_levels", {"pkg_name": package, "level": "NOTSET"}).status_code == 200


@pytest.mark.parametrize("package", [" ", "%s", "🐱", "a..b", ".a", "a.", "a b", "1a"])
def test_a_package_is_a_dotted_name(root: Person, package: str) -> None:
    answer = root.administer("PUT", "/log_levels", {"pkg_name": package, "level": "INFO"})

    assert answer.status_code == 400
    assert answer.json["message"].startswith("pkg_name: ")
    assert root.world.events("setting:log_level") == []


def test_log_levels_begin_with_the_root(root: Person) -> None:
    levels = root.administer("GET", "/log_levels").json["data"]

    assert next(iter(levels)) == "root"
    assert levels["root"] in logging.getLevelNamesMapping()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "pkg_name and level are required"),
        ({"pkg_name": "root"}, "pkg_name and level are required"),
        ({"pkg_name": 3, "level": "INFO"}, "pkg_name and level are required"),
        ({"pkg_name": "root", "level": "LOUD"}, "Invalid log level"),
    ],
)
def test_a_level_or_package_that_there_is_not_is_400(root: Person, body: object, message: str) -> None:
    answer = root.administer("PUT", "/log_levels", body)

    assert (answer.status_code, answer.json["code"]) == (400, 400)
    assert message in answer.json["message"]
    assert root.world.events("setting:log_level") == []


def test_a_server_process_that_starts_later_has_the_level_from_its_start_on(
    root: Person, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.administer("PUT", "/log_levels", {"pkg_name": package, "level": "ERROR"})
    logging.getLogger(package).setLevel(logging.NOTSET)
    home = root.world.plane.settings.home
    for name, value in {"RAGKEEPER_HOME": str(home), **stores.environment(home)}.items():
        monkeypatch.setenv(name, value)
    serving.opened_plane(make_administrator=False)

    assert logging.getLogger(package).level == logging.ERROR


def test_the_admin_server_makes_the_first_administrator_that_its_starter_left_to_it(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    home = plane.settings.home
    for name, value in {"RAGKEEPER_HOME": str(home), **stores.environment(home)}.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        _, once_open = serving.opened_plane(make_administrator=True)
        assert once_open is None

    assert capfdbinary.readouterr().out.count(b"Generated password") == 1
    assert plane.database.one("SELECT COUNT(*) FROM user WHERE is_superuser = ?", (True,)) == (1,)
