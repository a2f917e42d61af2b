"""Two replicas on one home, behind the nginx that this repository ships, restarted one after the other under load."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.backends.nginx import nginx
from tests.people import new_password
from tests.ports import free_ports
from tests.servers import COMMAND, Live, end, environment_for, set_variables, wait_until_ready

pytestmark = pytest.mark.slow

CLIENTS = 4
ROUNDS = 2
GONE_S = 10.0


@dataclass
class Load:
    """People who go on asking and changing things, and how they were answered."""

    url: str
    session: dict[str, str]
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Counter[str]:
        """Ask until told to stop; how often each answer came."""
        heard: Counter[str] = Counter()
        with httpx.Client(base_url=self.url, headers=self.session, timeout=20) as client:
            while not self.stop.is_set():
                for method, path in (("GET", "/v1/user/info"), ("POST", "/api/v1/system/tokens")):
                    try:
                        answer = client.request(method, path)
                        heard[f"{method} {answer.status_code} {answer.json()['code']}"] += 1
                    except (httpx.TransportError, ValueError) as error:
                        heard[f"{method} {error!r}"] += 1
        return heard


def replica(home: Path, port: int) -> Live:
    """``ragkeeper api`` on this port, ready."""
    output = home.parent / f"api-{port}-{time.monotonic_ns()}"
    given = {"RAGKEEPER_API_PORT": str(port), "RAGKEEPER_DRAIN_S": "1", "RAGKEEPER_TRUSTED_PROXIES": "127.0.0.1"}
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [COMMAND, "api"], env=environment_for(home, **given), cwd=home.parent, stdout=sink, stderr=sink
        )
    live = Live(process, home, 0, port, output)
    wait_until_ready(live, port)
    return live


@contextmanager
def behind_nginx(folder: Path, api_ports: list[int]) -> Iterator[str]:
    """The address of the user API behind a proxy."""
    front, admin_front, *admin_ports = free_ports(4)
    ports = dict(zip((8080, 8081, 9380, 9382, 9381, 9383), (front, admin_front, *api_ports, *admin_ports), strict=True))
    with nginx(folder, ports):
        yield f"http://127.0.0.1:{front}"


def test_under_load_replicas_that_are_restarted_in_turn_lose_no_request(tmp_path: Path) -> None:
    home, ports = tmp_path / "home", free_ports(2)
    replicas = {port: replica(home, port) for port in ports}
    set_variables(home, limit_token_creation="0")
    with ExitStack() as stack:
        stack.callback(lambda: [end(each.process) for each in replicas.values()])
        url = stack.enter_context(behind_nginx(tmp_path / "nginx", ports))
        wanted = {"email": "ann@example.org", "nickname": "Ann", "password": new_password()}
        answer = httpx.post(f"{url}/v1/user/register", json=wanted, timeout=20)
        assert answer.json()["code"] == 0
        load = Load(url, {"Authorization": answer.headers["Authorization"]})
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        stack.callback(load.stop.set)
        running = [pool.submit(load.run) for _ in range(CLIENTS)]

        for port in ports * ROUNDS:
            told_at = time.monotonic()
            replicas[port].process.terminate()
            assert replicas[port].process.wait(GONE_S) == 0
            assert time.monotonic() - told_at < GONE_S
            replicas[port] = replica(home, port)
        load.stop.set()
        heard = sum((each.result(30) for each in running), Counter())

        assert set(heard) == {"GET 200 0", "POST 200 0"}
        # None was lost, and none was done twice.
        tokens = httpx.get(f"{url}/api/v1/system/tokens", headers=load.session, timeout=20).json()["data"]
        assert len(tokens) == heard["POST 200 0"] > 20


def test_through_the_shipped_proxy_the_client_keeps_its_address_and_requests_get_an_id(tmp_path: Path) -> None:
    home, ports = tmp_path / "home", free_ports(2)
    live = replica(home, ports[0])
    try:
        with behind_nginx(tmp_path / "nginx", ports) as url:
            said = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Request-Id": "mine"}
            answer = httpx.get(f"{url}/v1/system/config", headers=said)
            too_large = httpx.post(f"{url}/v1/user/login", content=b"x" * 2_000_000, timeout=20)
    finally:
        end(live.process)

    assert answer.json()["code"] == 0
    assert len(answer.headers["X-Request-Id"]) == 32
    assert '"address":"127.0.0.1"' in live.printed()
    assert "203.0.113.9" not in live.printed()
    assert (too_large.status_code, too_large.json()["code"]) == (413, 413)
