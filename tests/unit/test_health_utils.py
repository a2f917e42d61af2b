"""The probes and their verdicts, on stores that are broken for real."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import health_utils
from common.core.errors import StoreUnavailable
from common.services import opening, settings
from common.services.plane import Plane
from common.settings import HealthConfig, S3Section
from common.stores.storage import FolderStorage, StorageHealth
from tests.breaking import BREAKS, PLACES, WIRE_NAMES, locked_against_everybody, place_of, take_away, written_by_another
from tests.people import Clock, settings_for
from tests.roles import SHELL

CHECKS: dict[str, Callable[[Plane], tuple[bool, dict[str, str]]]] = {
    "metadata": health_utils.check_db,
    "cache": health_utils.check_redis,
    "documents": health_utils.check_doc_engine,
    "objects": health_utils.check_storage,
}


@contextmanager
def opened(home: Path, **overrides: Any) -> Iterator[Plane]:
    plane = opening.open_plane(settings_for(home), **overrides)
    try:
        yield plane
    finally:
        for store in (plane.database, plane.cache):
            store.close()


@pytest.fixture
def plane(tmp_path: Path, clock: Clock) -> Iterator[Plane]:
    """A plane whose own connections are closed, so that files can be broken under it."""
    with opened(tmp_path / "home", now_ms=clock) as plane:
        for store in (plane.database, plane.cache, plane.documents):
            store.close()
        yield plane


def contents(home: Path) -> dict[str, tuple[float, int]]:
    """When each file and folder of a home was changed, and its size."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in (home, *home.rglob("*"))}


@pytest.mark.parametrize("store", PLACES)
def test_a_store_that_is_there_is_well(plane: Plane, store: str) -> None:
    well, meta = CHECKS[store](plane)

    assert well
    assert meta.keys() == {"elapsed"}
    assert float(meta["elapsed"]) >= 0


@pytest.mark.parametrize("store", PLACES)
@pytest.mark.parametrize("broken_by", BREAKS)
def test_a_store_that_is_broken_is_not_well(plane: Plane, store: str, broken_by: Callable[[Plane, str], None]) -> None:
    broken_by(plane, store)

    well, meta = CHECKS[store](plane)

    assert not well
    assert meta["error"]


@pytest.mark.parametrize("store", PLACES)
def test_only_the_store_that_is_broken_is_named(plane: Plane, store: str) -> None:
    take_away(plane, store)

    body, well = health_utils.run_health_checks(plane)

    name = WIRE_NAMES[store]
    assert not well
    assert {key: body[key] for key in WIRE_NAMES.values()} == dict.fromkeys(WIRE_NAMES.values(), "ok") | {name: "nok"}
    assert body["status"] == "nok"
    assert body["_meta"].keys() == {name}
    assert health_utils.stores_down(plane) == [store]


def test_S23_errors_are_told_only_to_whoever_asks_for_them(plane: Plane) -> None:
    take_away(plane, "objects")

    for_strangers, _ = health_utils.run_health_checks(plane)
    for_operators, _ = health_utils.run_health_checks(plane, reasons=True)

    assert for_strangers["_meta"]["storage"].keys() == {"elapsed"}
    assert for_operators["_meta"]["storage"]["error"] == "its folder is missing"


@pytest.mark.parametrize("store", PLACES)
def test_S23_a_probe_does_not_make_what_is_missing(plane: Plane, store: str) -> None:
    take_away(plane, store)

    health_utils.run_health_checks(plane)
    health_utils.check_task_executor_alive(plane)

    assert not place_of(plane, store).exists()


def test_S23_probes_write_nothing(tmp_path: Path, clock: Clock) -> None:
    # With the stores open, as in a server, where no close of a last connection tidies up after anybody.
    with opened(tmp_path / "home", now_ms=clock) as plane:
        plane.database.one("SELECT 1")
        plane.cache.set("key", "value")
        before = contents(plane.settings.home)
        version = plane.database.one("PRAGMA data_version")

        health_utils.run_health_checks(plane)
        health_utils.stores_down(plane)
        health_utils.check_task_executor_alive(plane)

        files = contents(plane.settings.home)
        home = str(plane.settings.home)
        assert {path: seen for path, seen in files.items() if path != home and not path.endswith("-shm")} == {
            path: seen for path, seen in before.items() if path != home and not path.endswith("-shm")
        }
        assert plane.database.one("PRAGMA data_version") == version
        plane.documents.close()


@pytest.mark.parametrize("store", ["metadata", "cache", "documents"])
def test_a_writer_at_work_does_not_make_a_store_unwell(plane: Plane, store: str) -> None:
    with written_by_another(place_of(plane, store)):
        assert CHECKS[store](plane)[0]


@pytest.mark.parametrize("store", ["metadata", "cache", "documents"])
def test_a_store_that_is_locked_against_readers_is_not_well_within_the_deadline(plane: Plane, store: str) -> None:
    with locked_against_everybody(place_of(plane, store)):
        started = time.monotonic()
        down = health_utils.stores_down(plane)

        assert down == [store]
        assert time.monotonic() - started < 1.5
    # Let the probe that is still waiting for the lock end before its folder goes.
    for thread in threading.enumerate():
        if thread.name.startswith("probe-"):
            thread.join(10)


def test_a_store_that_cannot_be_written_to_is_not_well(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, for whom every file is writable.
    monkeypatch.setattr("os.access", lambda *_: False)

    assert health_utils.stores_down(plane) == ["metadata", "cache", "documents", "objects"]


class RedCluster:
    """An engine that answers, and says that it is red."""

    def __init__(self, colour: str) -> None:
        self.colour = colour

    def health(self) -> dict[str, str]:
        return {"type": "elasticsearch", "status": self.colour}

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(("colour", "well"), [("green", True), ("yellow", True), ("red", False), ("", False)])
def test_R15_a_cluster_that_answers_that_it_is_red_is_not_well(plane: Plane, colour: str, well: bool) -> None:
    told = replace(plane, documents=RedCluster(colour))  # type: ignore[arg-type]

    assert health_utils.check_doc_engine(told)[0] is well


class RedStorage(FolderStorage):
    """Object storage that answers, and says that it is red."""

    def __init__(self, root: Path, **more: str) -> None:
        super().__init__(root)
        self.said = {"storage": "local", "status": "red", **more}

    def health(self) -> StorageHealth:
        return self.said  # type: ignore[return-value]


def test_R15_object_storage_that_says_that_it_is_red_is_not_well(plane: Plane) -> None:
    told = replace(plane, objects=RedStorage(plane.settings.home / "objects"))

    assert health_utils.check_storage(told)[0] is False


def test_R15_object_storage_without_its_bucket_is_not_well(plane: Plane) -> None:
    error = "the bucket rag does not exist"
    told = replace(plane, objects=RedStorage(plane.settings.home / "objects", error=error))

    well, meta = health_utils.check_storage(told)
    assert (well, meta["error"]) == (False, error)


class HangingStorage(FolderStorage):
    """Object storage that answers nobody until it is let go."""

    free = threading.Event()

    def health(self) -> StorageHealth:
        self.free.wait(20)
        return super().health()


def test_readiness_is_told_within_a_second_while_a_store_hangs(plane: Plane) -> None:
    hanging = HangingStorage(plane.settings.home / "objects")
    hanging.free = threading.Event()
    try:
        started = time.monotonic()
        assert health_utils.stores_down(replace(plane, objects=hanging)) == ["objects"]
        assert time.monotonic() - started < 1
    finally:
        hanging.free.set()


def test_R10_a_store_that_hangs_does_not_make_the_others_look_unwell(plane: Plane) -> None:
    hanging = HangingStorage(plane.settings.home / "objects")
    hanging.free = threading.Event()
    try:
        settings = plane.settings.model_copy(update={"object_store": S3Section(timeout=0.3)})
        started = time.monotonic()
        body, well = health_utils.run_health_checks(replace(plane, objects=hanging, settings=settings))
        assert not well
        assert [name for name in WIRE_NAMES.values() if body[name] == "nok"] == ["storage"]
        assert time.monotonic() - started < HealthConfig().timeout
    finally:
        hanging.free.set()


def beat_of(plane: Plane, name: str, seconds_ago: float) -> None:
    at_s = plane.now_ms() / 1000 - seconds_ago
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + ".000+00:00"
    plane.cache.beat(name, {"name": name, "now": stamp, "done": 3, "failed": 1}, at_s)


def test_an_executor_that_beat_lately_is_alive(plane: Plane) -> None:
    beat_of(plane, "task_executor_a", 60)

    found = health_utils.check_task_executor_alive(plane)

    assert found["status"] == "alive"
    assert [beat["done"] for beat in found["message"]["task_executor_a"]] == [3]


def test_heartbeats_older_than_ninety_seconds_keep_no_executor_alive(plane: Plane) -> None:
    beat_of(plane, "task_executor_a", 95)

    found = health_utils.check_task_executor_alive(plane)

    assert found["status"] == "fail"
    assert found["message"].keys() == {"task_executor_a"}


def test_no_executor_is_a_text_and_not_an_empty_table(plane: Plane) -> None:
    assert health_utils.check_task_executor_alive(plane) == {
        "status": "fail",
        "message": "no executor has registered",
    }


def test_R17_heartbeats_that_cannot_be_read_are_not_shown_as_no_executors(plane: Plane) -> None:
    take_away(plane, "cache")

    found = health_utils.check_task_executor_alive(plane)

    assert (found["status"], found["message"]) == ("fail", "its file is missing")


@pytest.mark.parametrize(
    "told", [health_utils.get_mysql_status, health_utils.get_redis_info, health_utils.check_minio_alive]
)
def test_what_a_store_says_of_itself_is_shown_with_its_status(
    plane: Plane, told: Callable[[Plane], dict[str, Any]]
) -> None:
    found = told(plane)

    assert found["status"] == "alive"
    assert found["message"]["status"] == "green"


def test_what_is_wrong_stands_beside_what_a_store_says_of_itself(plane: Plane) -> None:
    red = replace(plane, objects=RedStorage(plane.settings.home / "objects"))

    assert health_utils.check_minio_alive(red) == {
        "status": "fail",
        "message": {
            "storage": "local",
            "status": "red",
            "error": "the object store says that it is red",
        },
    }


def test_probes_obey_the_settings_and_where_these_say_nothing_the_file(plane: Plane) -> None:
    of_file = HealthConfig(timeout=1.5, retry_count=2, check_interval=3)
    assert health_utils.limits(plane, of_file) == of_file
    assert health_utils.limits(plane, None) == HealthConfig()

    settings.update_config(plane, SHELL, {"probe.timeout": 7, "probe.retry_count": 0, "probe.check_interval": 20})
    row = plane.database.one("SELECT value FROM rk_state WHERE name = 'variables_version'")
    assert row is not None
    plane.variables.follow(row[0])

    told = HealthConfig(timeout=7, retry_count=0, check_interval=20)
    assert health_utils.limits(plane, of_file) == told
    assert health_utils.store_probe(plane, "metadata").limits == told
    assert health_utils.executors_probe(plane).limits == told


def test_a_health_check_does_not_wait_for_settings_that_can_not_be_had(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()

    def hang(*_: object) -> None:
        free.wait(20)
        raise StoreUnavailable("metadata", "hung for the test")

    monkeypatch.setattr(plane.database, "one", hang)
    plane.variables.forget()
    started = time.monotonic()
    try:
        health_utils.limits(plane, None)
        assert time.monotonic() - started < 1
    finally:
        free.set()
