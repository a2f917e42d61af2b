"""Health on both ports, as load balancers and probes ask for it: without a credential, with stores that are broken."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from api.app import create_app as create_api
from common.services.probing import Prober
from common.stores.storage import FolderStorage, StorageHealth
from tests.breaking import PLACES, WIRE_NAMES, place_of, put_a_folder, reason_of_absence, take_away
from tests.people import Port, World

HEALTHZ = ("/v1/system/healthz", "/api/v1/system/healthz")
PINGS = ("/v1/system/ping", "/api/v1/system/ping")


@pytest.fixture(params=["admin", "user"])
def port(request: pytest.FixtureRequest, world: World) -> Port:
    return world.admin if request.param == "admin" else world.api


def break_store(world: World, store: str) -> None:
    for each in (world.plane.database, world.plane.cache, world.plane.documents):
        each.close()
    put_a_folder(world.plane, store)


@pytest.mark.parametrize("path", PINGS)
def test_the_ping_is_answered_with_the_bare_word(port: Port, path: str) -> None:
    answer = port.ask("GET", path)

    assert (answer.status_code, answer.get_data()) == (200, b"pong")
    assert answer.mimetype == "text/plain"


@pytest.mark.parametrize("store", PLACES)
def test_liveness_and_ping_ask_no_store(world: World, port: Port, store: str) -> None:
    break_store(world, store)

    for path in ("/livez", *PINGS):
        assert port.ask("GET", path).status_code == 200


@pytest.mark.parametrize("path", HEALTHZ)
def test_healthz_has_the_body_that_is_known(port: Port, path: str) -> None:
    answer = port.ask("GET", path)

    assert answer.status_code == 200
    words = dict.fromkeys(("db", "redis", "doc_engine", "storage", "status"), "ok")
    assert answer.json == {**words, "_meta": {}}


@pytest.mark.parametrize("store", PLACES)
@pytest.mark.parametrize("path", HEALTHZ)
def test_healthz_is_500_and_names_what_is_down(world: World, port: Port, path: str, store: str) -> None:
    break_store(world, store)

    answer = port.ask("GET", path)

    name = WIRE_NAMES[store]
    assert answer.status_code == 500
    assert [key for key, word in answer.json.items() if word == "nok"] == [name, "status"]
    assert answer.json["_meta"].keys() == {name}


@pytest.mark.embedded
def test_a_metadata_file_that_is_moved_away_is_an_outage_until_it_is_back(world: World, port: Port) -> None:
    session = world.root.session if port is world.api else world.root.admin_session
    path = "/v1/user/info" if port is world.api else "/api/v1/admin/users"
    place = place_of(world.plane, "metadata")
    away = place.with_name("moved.db")

    def asked() -> int:
        return port.ask("GET", path, credential=session).status_code

    assert asked() == 200
    place.rename(away)
    deadline = time.monotonic() + 10
    while (status := asked()) == 200 and time.monotonic() < deadline:
        continue
    assert status == 503
    assert "metadata" in port.ask("GET", path, credential=session).json["message"]
    assert port.ask("GET", HEALTHZ[0]).json["db"] == "nok"
    assert not place.exists()

    away.rename(place)
    assert asked() == 200
    # A verdict is shared for a second.
    while (healthz := port.ask("GET", HEALTHZ[0])).status_code != 200 and time.monotonic() < deadline:
        continue
    assert healthz.json["db"] == "ok"


def test_S23_healthz_tells_strangers_no_error(world: World, port: Port) -> None:
    break_store(world, "cache")

    answer = port.ask("GET", HEALTHZ[0])

    assert answer.json["_meta"]["redis"].keys() == {"elapsed"}
    assert str(world.plane.settings.home) not in answer.get_data(as_text=True)


def test_healthz_tells_those_who_may_read_services_what_is_wrong(world: World, port: Port) -> None:
    session, ordinary = world.root.admin_session, world.person().session
    take_away(world.plane, "objects")

    told = port.ask("GET", HEALTHZ[0], credential=session).json["_meta"]["storage"]["error"]
    assert told == reason_of_absence("objects", "its folder is missing")
    assert "error" not in port.ask("GET", HEALTHZ[0], credential=ordinary).json["_meta"]["storage"]


def test_ready_is_200_with_nothing_down(port: Port) -> None:
    answer = port.ask("GET", "/readyz")

    assert (answer.status_code, answer.json) == (200, {"status": "ok", "down": []})


@pytest.mark.parametrize("store", PLACES)
def test_ready_is_503_with_the_name_of_what_is_down(world: World, port: Port, store: str) -> None:
    break_store(world, store)

    answer = port.ask("GET", "/readyz")

    assert (answer.status_code, answer.json) == (503, {"status": "nok", "down": [store]})


def test_ready_can_be_narrowed_to_one_store(world: World, port: Port) -> None:
    break_store(world, "documents")

    statuses = {store: port.ask("GET", f"/readyz?store={store}").status_code for store in PLACES}
    assert statuses == dict.fromkeys(PLACES, 200) | {"documents": 503}


@pytest.mark.parametrize("store", ["nothing", "redis", ""])
def test_ready_of_a_store_that_there_is_not_is_400(port: Port, store: str) -> None:
    answer = port.ask("GET", f"/readyz?store={store}")

    assert (answer.status_code, answer.json["code"]) == (400, 400)
    assert "store" in answer.json["message"]


@pytest.mark.embedded
def test_health_comes_back_with_the_store(world: World) -> None:
    folder = world.plane.settings.home / "objects"
    aside = folder.rename(folder.with_name("aside"))
    assert world.api.ask("GET", "/readyz?store=objects").status_code == 503
    aside.rename(folder)

    later = replace(world.plane, prober=Prober())
    assert Port(create_api(later)).ask("GET", "/readyz?store=objects").status_code == 200


class CountingStorage(FolderStorage):
    """Object storage that counts how often it is asked, and answers slowly enough for others to ask meanwhile."""

    asked = 0

    def health(self) -> StorageHealth:
        type(self).asked += 1
        return super().health()


@pytest.mark.embedded
def test_many_probes_at_once_ask_each_store_once(world: World) -> None:
    CountingStorage.asked = 0
    plane = replace(world.plane, objects=CountingStorage(world.plane.settings.home / "objects"))
    port, together = Port(create_api(plane)), threading.Barrier(8)
    statuses: list[int] = []

    def probe() -> None:
        together.wait(10)
        statuses.append(port.ask("GET", HEALTHZ[0]).status_code)

    threads = [threading.Thread(target=probe) for _ in range(8)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert statuses == [200] * 8
    # On a machine so busy that this takes seconds, a second look is right.
    assert CountingStorage.asked <= 1 + (time.monotonic() - started)


def test_HEAD_is_answered_like_GET_without_the_body(port: Port) -> None:
    for path in ("/readyz", "/livez", *PINGS, *HEALTHZ):
        answer = port.ask("HEAD", path)
        assert (answer.status_code, answer.get_data()) == (200, b"")
