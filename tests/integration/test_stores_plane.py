"""A plane with objects and documents on servers behind fault proxies: what it shows, and what goes on without them."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from common import health_utils
from common.core.errors import StoreUnavailable
from common.services import belongings, deletion, jobs, opening
from common.services.jobs import Task
from common.settings import ElasticsearchSection, MinioSection, Settings
from common.stores.doc_engine import tenant_index
from tests.backends.elasticsearch import ElasticsearchServer, running_elasticsearch
from tests.backends.proxy import FaultProxy, fault_proxy
from tests.backends.s3 import S3Server, running_s3
from tests.people import Clock, Person, World, settings_for
from tests.ragflow.content import fill, make_tables
from tests.servers import Live, end, start, until

TIMEOUT_S = 0.5
PATIENCE_S = 10.0
# What a loaded machine may add; the plane's own promise is 0.1 s.
GRACE_S = 0.4


@dataclass
class Store:
    """One of the two stores: its names, and the proxy before its server."""

    name: str
    healthz: str
    proxy: FaultProxy


@contextmanager
def opened(settings: Settings, clock: Clock) -> Iterator[World]:
    plane = opening.open_plane(settings, now_ms=clock)
    yield World(plane)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


def settings_on(home: Path, s3: dict[str, Any], elasticsearch: dict[str, Any]) -> Settings:
    """As the configuration file would have it."""
    sections = {
        "object_store": MinioSection.model_validate({"timeout": TIMEOUT_S, **s3}),
        "elasticsearch": ElasticsearchSection.model_validate({"timeout": TIMEOUT_S, **elasticsearch}),
    }
    return settings_for(home).model_copy(update=sections)


@pytest.fixture
def stores(s3_server: S3Server, elasticsearch_server: ElasticsearchServer) -> Iterator[dict[str, Store]]:
    with fault_proxy(s3_server.port) as objects, fault_proxy(elasticsearch_server.port) as documents:
        yield {
            "objects": Store("objects", "storage", objects),
            "documents": Store("documents", "doc_engine", documents),
        }


@pytest.fixture
def world(
    tmp_path: Path,
    clock: Clock,
    stores: dict[str, Store],
    s3_server: S3Server,
    elasticsearch_server: ElasticsearchServer,
) -> Iterator[World]:
    settings = settings_on(
        tmp_path / "home",
        s3_server.section(host=stores["objects"].proxy.address),
        elasticsearch_server.section(hosts=f"http://{stores['documents'].proxy.address}"),
    )
    with opened(settings, clock) as world:
        yield world


@pytest.fixture(params=["objects", "documents"])
def store(request: pytest.FixtureRequest, stores: dict[str, Store]) -> Store:
    return stores[request.param]


FAULTS: dict[str, Callable[[FaultProxy], None]] = {
    "refusing": lambda proxy: proxy.refuse(),
    "hanging after accept": lambda proxy: proxy.hang(),
    "hanging mid-answer": lambda proxy: proxy.hang_mid_answer(1),
    "slower than its limit": lambda proxy: proxy.slow(2 * TIMEOUT_S),
    "cutting connections": lambda proxy: proxy.cut(),
}
faults = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return call(), time.monotonic() - began


def switched_off(world: World) -> Person:
    person = world.person()
    assert world.root.administer("PUT", f"/users/{person.email}/activate", {"activate_status": "off"}).json["code"] == 0
    return person


@faults
@pytest.mark.alone
def test_everything_but_deleting_users_goes_on_and_nobody_waits(
    world: World, store: Store, fault: Callable[[FaultProxy], None]
) -> None:
    root = world.root
    someone = world.person()
    fault(store.proxy)

    for call in (
        lambda: world.admin.ask("GET", "/api/v1/admin/ping"),
        lambda: world.api.ask("GET", "/v1/system/ping"),
        lambda: world.api.ask("GET", "/livez"),
        lambda: root.administer("GET", "/users"),
        lambda: someone.ask("GET", "/v1/user/info"),
        lambda: someone.ask("POST", "/v1/system/new_token", {}),
        lambda: root.administer("DELETE", f"/users/{switched_off(world).email}"),
    ):
        answer, seconds = timed(call)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        assert seconds < TIMEOUT_S
    assert world.person().session, "registering and logging in"


@faults
@pytest.mark.alone
def test_health_names_the_store_in_time_and_shows_the_recovery(
    world: World, store: Store, fault: Callable[[FaultProxy], None]
) -> None:
    assert world.api.ask("GET", "/v1/system/healthz").status_code == 200
    fault(store.proxy)
    deadline = time.monotonic() + PATIENCE_S
    while (found := timed(lambda: world.api.ask("GET", "/v1/system/healthz")))[0].status_code == 200:
        # For a moment the outcome from before is shared.
        assert time.monotonic() < deadline

    answer, seconds = found
    words = {name: answer.json[name] for name in health_utils.HEALTHZ_NAMES}
    assert words == {"db": "ok", "redis": "ok", "doc_engine": "ok", "storage": "ok"} | {store.healthz: "nok"}
    assert seconds < TIMEOUT_S + GRACE_S
    assert world.api.ask("GET", "/readyz").json["down"] == [store.name]
    store.proxy.pass_through()
    deadline = time.monotonic() + PATIENCE_S
    while world.api.ask("GET", "/v1/system/healthz").status_code != 200:
        assert time.monotonic() < deadline


@faults
@pytest.mark.alone
def test_what_needs_the_store_says_so_and_the_second_one_does_not_wait(
    world: World, store: Store, fault: Callable[[FaultProxy], None]
) -> None:
    someone = switched_off(world)
    root = world.root
    fault(store.proxy)

    answer, seconds = timed(lambda: root.administer("DELETE", f"/users/{someone.email}?dry_run=true"))
    assert (answer.status_code, answer.json["code"]) == (503, 503)
    assert f"{store.name} store" in answer.json["message"]
    assert seconds < TIMEOUT_S + GRACE_S
    answer, seconds = timed(lambda: root.administer("DELETE", f"/users/{someone.email}?dry_run=true"))
    assert answer.status_code == 503
    assert seconds < 0.2
    store.proxy.pass_through()
    deadline = time.monotonic() + PATIENCE_S
    while root.administer("DELETE", f"/users/{someone.email}?dry_run=true").status_code != 200:
        assert time.monotonic() < deadline


def test_the_status_names_the_stores_and_R15_a_red_cluster(
    world: World, elasticsearch_server: ElasticsearchServer
) -> None:
    session = world.root.session
    elasticsearch_server.colour("red")
    status = world.api.ask("GET", "/v1/system/status", credential=session).json["data"]

    assert status["storage"].keys() == {"storage", "status", "elapsed"}
    assert (status["storage"]["storage"], status["storage"]["status"]) == ("minio", "green")
    assert (status["doc_engine"]["type"], status["doc_engine"]["status"]) == ("elasticsearch", "red")
    assert status["doc_engine"]["error"] == "the cluster is red: primary shards are missing"
    assert status["doc_engine"]["cluster_name"] == "tests"
    assert health_utils.check_doc_engine(world.plane)[0] is False


def test_R15_a_yellow_cluster_is_well(world: World, elasticsearch_server: ElasticsearchServer) -> None:
    elasticsearch_server.colour("yellow")
    assert health_utils.check_doc_engine(world.plane)[0] is True
    status = world.api.ask("GET", "/v1/system/status", credential=world.root.session).json["data"]
    assert status["doc_engine"]["status"] == "yellow"


def configured(folder: Path, s3: S3Server, elasticsearch: ElasticsearchServer, **more: Any) -> Path:
    """A configuration file that names both servers."""
    path = folder / "service_conf.yaml"
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps({"minio": s3.section(**more), "es": elasticsearch.section()}))
    return path


def test_the_sections_of_the_file_are_the_services_and_show_ragflows_figures_and_no_secret(
    tmp_path: Path, clock: Clock, s3_server: S3Server, elasticsearch_server: ElasticsearchServer
) -> None:
    conf = configured(tmp_path / "conf", s3_server, elasticsearch_server)
    with opened(settings_for(tmp_path / "home", RAGKEEPER_CONF=str(conf)), clock) as world:
        listed = world.root.administer("GET", "/services").json["data"]
        found = {each["name"]: each for each in listed if each["service_type"] in ("file_store", "retrieval")}
        details = {
            name: world.root.administer("GET", f"/services/{each['id']}").json["data"] for name, each in found.items()
        }
        alive = health_utils.check_minio_alive(world.plane)

    assert {name: each["status"] for name, each in found.items()} == {"minio": "alive", "elasticsearch": "alive"}
    assert (found["minio"]["host"], found["minio"]["port"]) == ("127.0.0.1", s3_server.port)
    assert found["elasticsearch"]["extra"] == {"retrieval_type": "elasticsearch", "username": "elastic"}
    assert details["elasticsearch"]["message"].keys() >= {"cluster_name", "status", "indices", "docs", "nodes"}
    assert alive == {"status": "alive", "message": {"storage": "minio", "status": "green"}}
    for secret in (s3_server.secret_key, elasticsearch_server.password):
        assert secret not in str(listed) + str(details)


def test_R15_a_configured_bucket_that_is_missing_is_shown(
    tmp_path: Path, clock: Clock, s3_server: S3Server, elasticsearch_server: ElasticsearchServer
) -> None:
    conf = configured(tmp_path / "conf", s3_server, elasticsearch_server, bucket="everything")
    with opened(settings_for(tmp_path / "home", RAGKEEPER_CONF=str(conf)), clock) as world:
        assert health_utils.check_storage(world.plane)[1]["error"] == "the bucket everything does not exist"
        listed = world.root.administer("GET", "/service_types/file_store").json["data"]
        assert [each["status"] for each in listed] == ["fail"]


def test_credentials_that_were_changed_in_the_file_are_taken_when_the_old_ones_are_refused(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3(tmp_path / "s3") as s3, running_elasticsearch(tmp_path / "es") as elasticsearch:
        conf = configured(tmp_path / "conf", s3, elasticsearch)
        monkeypatch.setenv("RAGKEEPER_CONF", str(conf))
        with opened(settings_for(tmp_path / "home", RAGKEEPER_CONF=str(conf)), clock) as world:
            s3.stop()
            s3.secret_key = "another one"
            s3.start()
            elasticsearch.password = "another one"
            configured(tmp_path / "conf", s3, elasticsearch)
            assert health_utils.check_storage(world.plane)[0]
            assert health_utils.check_doc_engine(world.plane)[0]


# The purge


def purge(world: World, task: type[Task] = Task) -> jobs.Claimed:
    """Claim the purge that waits, and run it."""
    job = jobs.claim(world.plane, "worker", 60, [deletion.PURGE])
    assert job
    try:
        deletion.purge(task(world.plane, job, 60))
    except BaseException:
        jobs.give_back(world.plane, job)
        raise
    assert jobs.finish(world.plane, job)
    return job


def kept(world: World, s3: S3Server, elasticsearch: ElasticsearchServer, tenant_id: str) -> dict[str, Any]:
    """What the servers themselves hold of a tenant."""
    client = s3.client()
    buckets = [each for each in belongings.buckets(world.plane, tenant_id) if client.bucket_exists(each)]
    index = tenant_index(tenant_id)
    return {
        "objects": {bucket: s3.names(bucket) for bucket in buckets},
        "index": index in elasticsearch.indices(),
        "documents": world.plane.documents.count(index),
        "rows": belongings.count(world.plane, tenant_id),
    }


def test_R24_buckets_and_index_of_a_deleted_tenant_vanish_and_the_neighbours_stay(
    world: World, s3_server: S3Server, elasticsearch_server: ElasticsearchServer
) -> None:
    make_tables(world.plane)
    someone, neighbour = switched_off(world), world.person()
    for person in (someone, neighbour):
        fill(world.plane, person.user_id)
    buckets = list(belongings.buckets(world.plane, someone.user_id))
    before = kept(world, s3_server, elasticsearch_server, neighbour.user_id)
    assert (before["index"], before["documents"], len(before["objects"])) == (True, 24, 3)
    assert len(s3_server.client().list_buckets()) == 6

    planned = world.root.administer("DELETE", f"/users/{someone.email}?dry_run=true").json["data"]
    world.root.administer("DELETE", f"/users/{someone.email}")
    report = jobs.get(world.plane, str(purge(world).id))["progress"]["removed"]

    assert (planned["documents"], planned["objects"]["objects"]) == (24, 12)
    assert (report["documents"], report["objects"]) == (24, 12)
    assert not [bucket for bucket in buckets if s3_server.client().bucket_exists(bucket)]
    assert elasticsearch_server.indices() == [tenant_index(neighbour.user_id)]
    assert kept(world, s3_server, elasticsearch_server, neighbour.user_id) == before
    assert belongings.count(world.plane, someone.user_id) == {}


def test_R24_in_one_bucket_of_the_operators_too(
    tmp_path: Path, clock: Clock, s3_server: S3Server, elasticsearch_server: ElasticsearchServer
) -> None:
    s3_server.client().make_bucket("everything")
    s3_server.client().put_object("everything", "of-the-operator", io.BytesIO(b"x"), 1)
    section = s3_server.section(bucket="everything", prefix_path="rag")
    with opened(settings_on(tmp_path / "home", section, elasticsearch_server.section()), clock) as world:
        make_tables(world.plane)
        someone, neighbour = switched_off(world), world.person()
        fill(world.plane, neighbour.user_id)
        before = s3_server.names("everything")
        fill(world.plane, someone.user_id)
        assert len(s3_server.names("everything")) == len(before) + 12
        world.root.administer("DELETE", f"/users/{someone.email}")
        purge(world)
    assert s3_server.names("everything") == before


def test_a_purge_that_loses_a_store_in_the_middle_goes_on_where_it_was(
    world: World, store: Store, s3_server: S3Server, elasticsearch_server: ElasticsearchServer
) -> None:
    make_tables(world.plane)
    someone = switched_off(world)
    fill(world.plane, someone.user_id)
    world.root.administer("DELETE", f"/users/{someone.email}")
    saves = 0

    class LosingTask(Task):
        def save(self, progress: Any) -> None:
            nonlocal saves
            super().save(progress)
            saves += 1
            if saves == 1:
                store.proxy.refuse()

    with pytest.raises(StoreUnavailable) as raised:
        purge(world, LosingTask)
    assert raised.value.store == store.name
    store.proxy.pass_through()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            job = purge(world)
            break
        except StoreUnavailable:
            assert time.monotonic() < deadline
    assert s3_server.client().list_buckets() == []
    assert elasticsearch_server.indices() == []
    report = jobs.get(world.plane, str(job.id))["progress"]["removed"]
    assert (report["documents"], report["objects"]) == (24, 12)


# The start


@pytest.mark.alone
@pytest.mark.parametrize("down", ["objects", "documents"])
def test_a_start_without_a_store_serves_unready_says_why_and_recovers_by_itself(tmp_path: Path, down: str) -> None:
    with running_s3(tmp_path / "s3") as s3, running_elasticsearch(tmp_path / "es") as elasticsearch:
        configured(tmp_path / "conf", s3, elasticsearch)
        server: S3Server | ElasticsearchServer = s3 if down == "objects" else elasticsearch
        port = server.port
        server.stop()
        live = start(tmp_path / "home")
        try:
            until(lambda: readiness(live) == (503, [down]), live)
            assert httpx.get(f"{live.api_url}/v1/system/ping", timeout=5).status_code == 200
            server.start()
            assert server.port == port
            until(lambda: readiness(live) == (200, []), live, PATIENCE_S)
            assert "the connection was refused" in live.printed()
            for secret in (s3.secret_key, elasticsearch.password):
                assert secret not in live.printed()
        finally:
            end(live.process)


def readiness(live: Live) -> tuple[int, list[str]] | None:
    """The status of /readyz and what it names; None while nothing answers."""
    try:
        answer = httpx.get(f"{live.api_url}/readyz", timeout=5)
    except httpx.TransportError:
        return None
    return answer.status_code, answer.json()["down"]
