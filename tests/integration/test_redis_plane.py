"""A plane whose cache is a real Redis behind a fault proxy: what it shows, and what goes on when Redis doesn't."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from common import health_utils
from common.services import opening
from common.settings import RedisSection, Settings
from common.stores.redis_cache import SHARED_SECRET
from tests.backends.proxy import FaultProxy, fault_proxy
from tests.backends.redis import RedisServer, running_redis
from tests.people import Clock, World, settings_for
from tests.servers import Live, end, start, until

TIMEOUT_S = 0.5
PATIENCE_S = 10.0
# What a loaded machine may add; the plane's own promise is 0.1 s.
GRACE_S = 0.4


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultProxy]:
    with fault_proxy(redis_server.port) as proxy:
        yield proxy


def settings_on(home: Path, address: str, server: RedisServer) -> Settings:
    """As the configuration file would have it."""
    section = {"host": address, "password": server.password, "db": 4, "timeout": TIMEOUT_S}
    return settings_for(home).model_copy(update={"redis": RedisSection.model_validate(section)})


@contextmanager
def opened(settings: Settings, clock: Clock) -> Iterator[World]:
    plane = opening.open_plane(settings, now_ms=clock)
    yield World(plane)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


@pytest.fixture
def world(tmp_path: Path, clock: Clock, redis_server: RedisServer, proxy: FaultProxy) -> Iterator[World]:
    with opened(settings_on(tmp_path / "home", proxy.address, redis_server), clock) as world:
        yield world


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


@faults
@pytest.mark.alone
def test_without_redis_logins_tokens_and_users_go_on_and_nobody_waits(
    world: World, proxy: FaultProxy, fault: Callable[[FaultProxy], None]
) -> None:
    root = world.root
    someone = world.person()
    fault(proxy)
    waited = 0

    for call in (
        lambda: world.admin.ask("GET", "/api/v1/admin/ping"),
        lambda: world.api.ask("GET", "/v1/system/ping"),
        lambda: root.administer("GET", "/users"),
        lambda: root.administer("GET", f"/users/{someone.email}"),
        lambda: someone.ask("GET", "/v1/user/info"),
        lambda: someone.ask("POST", "/v1/system/new_token", {}),
        lambda: someone.ask("GET", "/v1/system/token_list"),
    ):
        answer, seconds = timed(call)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        assert seconds < 2 * TIMEOUT_S
        waited += seconds >= TIMEOUT_S
    # Whoever is the first to count something finds out; from then on the process counts by itself.
    assert waited <= 1
    assert world.person().session, "registering and logging in"


@faults
@pytest.mark.alone
def test_health_names_redis_in_time_and_shows_the_recovery(
    world: World, proxy: FaultProxy, fault: Callable[[FaultProxy], None]
) -> None:
    assert world.api.ask("GET", "/v1/system/healthz").status_code == 200
    fault(proxy)
    deadline = time.monotonic() + PATIENCE_S
    while (found := timed(lambda: world.api.ask("GET", "/v1/system/healthz")))[0].status_code == 200:
        # For a moment the outcome from before is shared.
        assert time.monotonic() < deadline

    answer, seconds = found
    assert (answer.json["redis"], answer.json["db"], answer.json["status"]) == ("nok", "ok", "nok")
    assert seconds < TIMEOUT_S + GRACE_S
    proxy.pass_through()
    deadline = time.monotonic() + PATIENCE_S
    while world.api.ask("GET", "/v1/system/healthz").status_code != 200:
        assert time.monotonic() < deadline
    assert world.root.administer("GET", "/log_levels").status_code == 200


@faults
@pytest.mark.alone
def test_what_needs_redis_says_so(world: World, proxy: FaultProxy, fault: Callable[[FaultProxy], None]) -> None:
    root = world.root
    assert root.administer("PUT", "/log_levels", {"pkg_name": "x", "level": "INFO"}).status_code == 200
    before = len(world.events("setting:log_level"))
    fault(proxy)

    answer, seconds = timed(lambda: root.administer("PUT", "/log_levels", {"pkg_name": "x", "level": "INFO"}))
    assert (answer.status_code, answer.json["code"]) == (503, 503)
    assert "cache store" in answer.json["message"]
    assert seconds < TIMEOUT_S + GRACE_S
    answer, seconds = timed(lambda: root.administer("PUT", "/log_levels", {"pkg_name": "x", "level": "INFO"}))
    assert answer.status_code == 503
    assert seconds < 0.2, "the second one doesn't wait"
    assert len(world.events("setting:log_level")) == before


def test_right_passwords_wait_for_nothing_while_redis_is_full(world: World, redis_server: RedisServer) -> None:
    someone = world.person()
    login = {"email": someone.email, "password": someone.password}
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            codes = [world.api.ask("POST", "/v1/user/login", login).json["code"] for _ in range(7)]
        finally:
            client.config_set("maxmemory", 0)

    assert codes == [0] * 7


def test_R17_heartbeats_are_unknown_with_the_reason_and_not_none(world: World, proxy: FaultProxy) -> None:
    session = world.root.session
    proxy.refuse()
    status = world.api.ask("GET", "/v1/system/status", credential=session).json["data"]

    assert status["task_executor_heartbeats"] is None
    assert status["redis"]["status"] == status["task_executor"]["status"] == "red"
    assert status["task_executor"]["error"] == "the connection was refused"


def test_the_service_shows_ragflows_selection_of_its_figures_and_no_secret(
    world: World, redis_server: RedisServer, proxy: FaultProxy
) -> None:
    listed = world.root.administer("GET", "/services").json["data"]
    cache = next(each for each in listed if each["service_type"] == "message_queue")
    details = world.root.administer("GET", f"/services/{cache['id']}").json["data"]

    assert (cache["host"], cache["port"], cache["status"]) == ("127.0.0.1", proxy.port, "alive")
    assert cache["extra"] == {"mq_type": "redis", "database": 4}
    assert details["message"].keys() >= {"redis_version", "used_memory", "connected_clients"}
    assert health_utils.get_redis_info(world.plane)["status"] == "alive"
    assert redis_server.password not in str(listed) + str(details)


def test_a_section_of_the_file_is_the_service_and_no_other_is_listed_beside_it(
    tmp_path: Path, clock: Clock, redis_server: RedisServer
) -> None:
    conf = tmp_path / "service_conf.yaml"
    conf.write_text(f"redis: {{host: '{redis_server.address}', password: {redis_server.password}, db: 4}}\n")
    with opened(settings_for(tmp_path / "home", RAGKEEPER_CONF=str(conf)), clock) as world:
        listed = world.root.administer("GET", "/service_types/message_queue").json["data"]
        details = world.root.administer("GET", f"/services/{listed[0]['id']}").json["data"]

    assert [(each["name"], each["status"]) for each in listed] == [("redis", "alive")]
    assert "redis_version" in details["message"]


def test_credentials_that_were_changed_in_the_file_are_taken_when_the_old_ones_are_refused(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "service_conf.yaml"
    monkeypatch.setenv("RAGKEEPER_CONF", str(conf))
    with running_redis(tmp_path / "redis") as server:

        def configure(password: str) -> None:
            conf.write_text(f"redis: {{host: '{server.address}', password: '{password}', db: 4}}\n")

        configure(server.password)
        with opened(settings_for(tmp_path / "home", RAGKEEPER_CONF=str(conf)), clock) as world:
            with server.client() as admin:
                admin.config_set("requirepass", "another one")
            configure("another one")
            world.plane.cache.close()
            assert health_utils.check_redis(world.plane)[0]


def test_the_key_that_a_ragflow_shares_signs_our_sessions(
    tmp_path: Path, clock: Clock, redis_server: RedisServer
) -> None:
    with redis_server.client(4) as client:
        client.set(SHARED_SECRET, "f" * 64)
    with opened(settings_on(tmp_path / "home", redis_server.address, redis_server), clock) as world:
        form = world.root.session
        other = settings_for(tmp_path / "other", RAGKEEPER_SECRET_KEY="f" * 64)
        with opened(other, clock) as same_key:
            assert same_key.plane.keys.unsign(form) is not None


@pytest.mark.alone
def test_a_start_without_redis_serves_unready_and_recovers_by_itself(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as server:
        url, port = server.url(4), server.port
        server.kill()
        live = start(tmp_path / "home", RAGKEEPER_REDIS_URL=url)
        try:
            until(lambda: readiness(live) == (503, ["cache"]), live)
            server.start()
            assert server.port == port
            until(lambda: readiness(live) == (200, []), live, PATIENCE_S)
            assert "the shared secret key is not known" in live.printed()
            assert server.password not in live.printed()
        finally:
            end(live.process)


def readiness(live: Live) -> tuple[int, list[str]] | None:
    """The status of /readyz and what it names; None while nothing answers."""
    try:
        answer = httpx.get(f"{live.api_url}/readyz", timeout=5)
    except httpx.TransportError:
        return None
    return answer.status_code, answer.json()["down"]
