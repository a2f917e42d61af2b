"""The list of services: what is in it, under which number, and how each one is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from common import health_utils
from common.models.role import RoleHolder
from common.services import opening, supervision
from common.services.plane import Plane
from common.services.probing import Prober
from common.settings import ServiceEntry, Settings, load
from tests.backends import stores
from tests.breaking import PLACES, listed_as, take_away
from tests.people import Clock, Person, World, settings_for
from tests.ports import free_ports

DEFAULT = [
    (0, "ragflow_0", "ragflow_server"),
    (1, "metadata", "meta_data"),
    (2, "objects", "file_store"),
    (3, "documents", "retrieval"),
    (4, "cache", "message_queue"),
    (5, "task_executor", "task_executor"),
]


def id_of(plane: Plane, name: str) -> str:
    """The number of a service, as it stands in paths."""
    return str({each["name"]: each["id"] for each in supervision.get_all_services(plane)}[name])


def services_of(person: Person) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in person.administer("GET", "/services").json["data"]}


def with_services(world: World, *entries: ServiceEntry) -> World:
    """The same plane after a restart with these services in its configuration file."""
    settings = world.plane.settings.model_copy(update={"services": entries})
    plane = replace(world.plane, settings=settings, prober=Prober())
    return World(plane)


def numbers_in(plane: Plane) -> dict[str, int]:
    return {each["name"]: each["id"] for each in supervision.get_configs(plane)}


def entry(name: str, service_type: str = "meta_data", **more: Any) -> ServiceEntry:
    return ServiceEntry(name=name, service_type=service_type, section=name, **more)


@contextmanager
def listening() -> Iterator[int]:
    """A port on which connections are accepted by the kernel, and nobody ever answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@contextmanager
def serving(app: Any) -> Iterator[int]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.embedded
def test_the_default_list_has_this_program_and_its_stores(root: Person) -> None:
    listed = root.administer("GET", "/services").json["data"]

    assert [(each["id"], each["name"], each["service_type"]) for each in listed] == DEFAULT
    assert listed[0]["host"] == "127.0.0.1"
    assert listed[0]["port"] == 9380
    assert {each["status"] for each in listed[1:5]} == {"alive"}
    assert {(each["host"], each["port"]) for each in listed[1:5]} == {("-", "-")}


def test_every_store_is_listed_where_it_is(root: Person) -> None:
    listed = services_of(root)

    for store in PLACES:
        service = listed[listed_as(store)]
        assert service["status"] == "alive"
        assert service["host"] == ("127.0.0.1" if stores.is_server(store) else "-")


@pytest.mark.parametrize("store", ["objects", "documents", "cache"])
def test_a_store_that_is_broken_is_shown_as_failing_and_the_others_are_not(root: Person, store: str) -> None:
    root.administer("GET", "/version")
    for each in (root.world.plane.cache, root.world.plane.documents):
        each.close()
    take_away(root.world.plane, store)

    listed = services_of(root)

    statuses = {name: listed[listed_as(name)]["status"] for name in PLACES}
    assert statuses == dict.fromkeys(PLACES, "alive") | {store: "fail"}


def test_the_user_api_is_alive_when_it_answers_its_ping(tmp_path: Path, clock: Clock, world: World) -> None:
    with serving(world.api.app) as port:
        settings = world.plane.settings.model_copy(update={"api_port": port})
        plane = replace(world.plane, settings=settings)
        details = supervision.get_service_details(plane, id_of(plane, "ragflow_0"))

    assert (details["service_name"], details["status"]) == ("ragflow_0", "alive")
    assert details["message"].startswith("Confirmed in ")


def test_an_older_ragflow_is_alive_too(world: World) -> None:
    def older(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        known = environ["PATH_INFO"] == "/v1/system/ping"
        start_response("200 OK" if known else "404 Not Found", [("Content-Type", "text/plain")])
        return [b"pong" if known else b"{}"]

    with serving(older) as port:
        other = with_services(world, entry("ragflow_0", "ragflow_server", host="127.0.0.1", port=port))
        assert supervision.get_service_details(other.plane, "0")["status"] == "alive"


def test_something_else_on_the_port_is_not_the_user_api(world: World) -> None:
    def other_program(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<html>welcome</html>"]

    with serving(other_program) as port:
        other = with_services(world, entry("ragflow_0", "ragflow_server", host="127.0.0.1", port=port))
        assert supervision.get_service_details(other.plane, "0")["status"] == "fail"


def test_a_server_that_is_not_there_fails(world: World) -> None:
    other = with_services(world, entry("ragflow_0", "ragflow_server", host="127.0.0.1", port=free_ports(1)[0]))

    assert services_of(other.root)["ragflow_0"]["status"] == "fail"


def test_R10_a_server_that_never_answers_stalls_the_page_for_its_timeout_only(world: World) -> None:
    with listening() as port:
        silent = entry("ragflow_0", "ragflow_server", host="127.0.0.1", port=port, timeout=0.3)
        root = with_services(world, silent).root
        assert root.admin_session
        started = time.monotonic()
        listed = services_of(root)

        assert time.monotonic() - started < 2
        assert listed["ragflow_0"]["status"] == "timeout"
        assert {listed[name]["status"] for name in PLACES} == {"alive"}


def test_R11_what_is_configured_and_not_used_is_unknown_with_the_reason(world: World) -> None:
    root = with_services(world, entry("infinity", "retrieval", host="127.0.0.1", port=free_ports(1)[0])).root

    listed = services_of(root)["infinity"]
    details = root.administer("GET", f"/services/{listed['id']}").json["data"]

    assert listed["status"] == "unknown"
    assert details["status"] == "unknown"
    assert "no probe for its kind" in details["message"]


def test_R12_every_kind_of_store_is_listed_also_without_a_port(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "service_conf.yaml").write_text(
        "ragflow: {host: 10.0.0.9}\n"
        "postgres: {host: db, password: hunter2, user: rag}\n"
        "os: {hosts: 'http://admin:hunter2@search:9200', password: hunter2}\n"
        "oss: {access_key: hunter2, secret_key: hunter2, endpoint_url: 'https://oss.test'}\n"
        "azure: {container_url: 'https://azure.test/c?sig=hunter2'}\n"
        "gcs: {bucket: b}\n"
        "opendal: {scheme: fs}\n"
        "infinity: {uri: 'infinity'}\n"
        "oceanbase: {config: {host: ob, password: hunter2}}\n"
        "rabbitmq: {host: mq, password: hunter2}\n"
        "task_executor: {}\n"
    )
    settings = load({"RAGKEEPER_HOME": str(tmp_path / "home"), "RAGKEEPER_CONF": str(conf)})
    plane = opening.open_plane(settings)

    names = [each["name"] for each in supervision.get_configs(plane)]
    shown = str(supervision.get_configs(plane))
    for store in (plane.database, plane.cache, plane.documents):
        store.close()

    assert names == [
        *("ragflow_0", "postgres", "opensearch", "oss", "azure", "gcs", "opendal", "infinity", "oceanbase"),
        *("rabbitmq", "task_executor", "metadata", "objects", "documents", "cache"),
    ]
    assert "hunter2" not in shown


def test_S3_no_secret_of_the_file_is_in_any_answer(tmp_path: Path, world: World) -> None:
    conf = tmp_path / "with secrets"
    conf.mkdir()
    # Sections that select no store, so that nobody looks for a server; what they show is made as that of the others.
    (conf / "service_conf.yaml").write_text(
        "postgres: {host: '127.0.0.1', port: 1, user: rag, password: hunter2}\n"
        "os: {hosts: 'http://admin:hunter2@127.0.0.1:1', password: hunter2}\n"
        "oss: {access_key: hunter2, secret_key: hunter2, endpoint_url: 'https://u:hunter2@127.0.0.1:1'}\n"
        "azure: {container_url: 'https://127.0.0.1:1/c?sig=hunter2', sas_token: hunter2}\n"
        "opendal: {scheme: fs, config: {password: hunter2}}\n"
        "oceanbase: {config: {host: '127.0.0.1', port: 1, password: hunter2}}\n"
        "rabbitmq: {host: '127.0.0.1', port: 1, password: hunter2}\n"
        "smtp: {mail_server: '127.0.0.1', mail_password: hunter2}\n"
    )
    services = load({"RAGKEEPER_HOME": str(tmp_path / "other"), "RAGKEEPER_CONF": str(conf)}).services
    root = with_services(world, *services).root

    listed = services_of(root)
    answers = [root.administer("GET", path) for path in ("/services", "/configs", "/environments", "/settings")]
    answers += [root.administer("GET", f"/services/{each['id']}") for each in listed.values()]
    kinds = {each["service_type"] for each in listed.values()}
    answers += [root.administer("GET", f"/service_types/{kind}") for kind in kinds]

    assert listed["postgres"]["extra"] == {"username": "rag", "meta_type": "postgres"}
    assert len(listed) >= 8
    for answer in answers:
        assert answer.status_code == 200
        assert "hunter2" not in answer.get_data(as_text=True)


def test_R14_a_postgres_of_the_file_is_asked_nothing_and_the_metadata_store_in_its_own_language(world: World) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as postgres:
        postgres.setblocking(False)
        root = with_services(world, entry("postgres", host="127.0.0.1", port=postgres.getsockname()[1])).root
        listed = services_of(root)["postgres"]
        details = root.administer("GET", f"/services/{listed['id']}").json["data"]
        with pytest.raises(BlockingIOError):
            postgres.accept()
    own = health_utils.get_mysql_status(world.plane)

    assert listed["status"] == details["status"] == "unknown"
    assert "no probe for its kind" in details["message"]
    assert own["status"] == "alive"
    assert own["message"]["type"] == ("mysql" if stores.is_server("metadata") else "sqlite")


def test_S25_details_of_the_metadata_store_hold_no_statement(root: Person) -> None:
    details = root.administer("GET", f"/services/{id_of(root.world.plane, 'metadata')}").json["data"]

    assert details["status"] == "alive"
    assert details["message"].keys() == {"type", "status", "elapsed_ms"}


def test_a_service_keeps_its_number_when_the_file_is_put_in_another_order(world: World) -> None:
    first, second = entry("postgres"), entry("rabbitmq", "message_queue")
    before = numbers_in(with_services(world, first, second).plane)

    assert numbers_in(with_services(world, second, first).plane) == before


def test_a_service_that_is_gone_leaves_its_number_to_nobody(world: World) -> None:
    before = numbers_in(with_services(world, entry("postgres"), entry("gcs", "file_store")).plane)
    without = numbers_in(with_services(world, entry("gcs", "file_store"), entry("azure", "file_store")).plane)
    again = numbers_in(with_services(world, entry("postgres")).plane)

    assert without["gcs"] == before["gcs"]
    assert without["azure"] not in before.values()
    assert again["postgres"] == before["postgres"]


def test_the_first_order_is_the_order_of_the_file(tmp_path: Path, clock: Clock) -> None:
    settings: Settings = settings_for(tmp_path / "other").model_copy(
        update={
            "services": (entry("rabbitmq", "message_queue"), entry("ragflow_0", "ragflow_server", host="r", port=1))
        }
    )
    plane = opening.open_plane(settings, now_ms=clock)
    numbers = numbers_in(plane)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()

    assert list(numbers) == ["rabbitmq", "ragflow_0", "metadata", "objects", "documents", "cache", "task_executor"]
    assert list(numbers.values()) == list(range(7))


@pytest.mark.race
def test_services_seen_by_many_at_once_get_one_number_each(world: World) -> None:
    together = threading.Barrier(6)
    found: list[dict[str, int]] = []

    def look() -> None:
        together.wait(10)
        found.append(numbers_in(world.plane))
        world.plane.database.close()

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert found == [found[0]] * 6
    assert sorted(found[0].values()) == list(range(6))


def test_R3_services_of_a_type_are_that_part_of_the_list(root: Person) -> None:
    whole = root.administer("GET", "/services").json["data"]

    for _, _, service_type in DEFAULT:
        part = root.administer("GET", f"/service_types/{service_type}")
        of_this_type = [each for each in whole if each["service_type"] == service_type]
        assert (part.status_code, part.json["data"]) == (200, of_this_type), service_type
        assert of_this_type


def test_the_documented_type_storage_is_the_file_store(root: Person) -> None:
    assert (
        root.administer("GET", "/service_types/storage").json["data"]
        == root.administer("GET", "/service_types/file_store").json["data"]
        != []
    )


@pytest.mark.parametrize(
    "path", ["/service_types/nothing", "/services/6", "/services/-1", "/services/x", "/services/0x1"]
)
def test_what_there_is_not_is_404(root: Person, path: str) -> None:
    answer = root.administer("GET", path)

    assert (answer.status_code, answer.json["code"]) == (404, 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_R4_stopping_and_restarting_say_that_there_is_no_control_driver(root: Person, method: str) -> None:
    answer = root.administer(method, "/services/5")

    assert (answer.status_code, answer.json["code"]) == (409, 409)
    assert "no control driver" in answer.json["message"]
    assert root.administer(method, "/services/77").status_code == 404


def test_executors_are_shown_with_their_heartbeats(root: Person) -> None:
    plane = root.world.plane
    now_s = plane.now_ms() / 1000
    plane.cache.beat("task_executor_a", {"name": "task_executor_a", "now": "2026-09-21T14:13:20.000+00:00"}, now_s)
    plane.cache.beat("task_executor_gone", {"name": "task_executor_gone"}, now_s - 5000)

    details = root.administer("GET", "/services/5").json["data"]

    assert details["status"] == "alive"
    assert {name: len(beats) for name, beats in details["message"].items()} == {"task_executor_a": 1}


def test_without_executors_the_message_is_a_text(root: Person) -> None:
    details = root.administer("GET", "/services/5").json["data"]

    assert (details["status"], details["message"]) == ("fail", "no executor has registered")


def test_reading_takes_service_read_and_control_takes_service_control(world: World) -> None:
    viewer, operator, manager = (world.person() for _ in range(3))
    database = world.plane.database
    for person, role in ((viewer, "viewer"), (operator, "service-operator"), (manager, "user-manager")):
        row = database.one("SELECT id FROM rk_role WHERE name = ?", (role,))
        assert row
        database.insert(RoleHolder, user_id=person.user_id, role_id=row[0], granted_at=0)

    def statuses(person: Person) -> list[int]:
        asked = (
            ("GET", "/services"),
            ("GET", "/services/1"),
            ("GET", "/service_types/storage"),
            ("PUT", "/services/1"),
        )
        return [person.administer(method, path).status_code for method, path in asked]

    assert statuses(viewer) == [200, 200, 200, 403]
    assert statuses(operator) == [200, 200, 200, 409]
    assert statuses(manager) == [403, 403, 403, 403]
