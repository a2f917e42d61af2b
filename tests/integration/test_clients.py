"""Clients that are stuck, slow or many, straight on the servers' ports; and servers that are told to stop."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from common.http.bridge import THREADS
from tests.servers import Live, running, until

pytestmark = pytest.mark.slow

WORKERS = 2
# Four times as many as there are threads on a port.
STUCK = 4 * 2 * THREADS * WORKERS
IDLE = 1000
CLOSED_WITHIN_S = 30
HALF_HEADER = b"GET /v1/user/info HTTP/1.1\r\nHost: plane\r\nAuthor"
HALF_BODY = (
    b"POST /v1/user/login HTTP/1.1\r\nHost: plane\r\nContent-Type: application/json\r\n"
    b'Content-Length: 1000\r\n\r\n{"email":'
)
MUCH = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: plane\r\n\r\n"


@contextmanager
def clients(port: int, count: int, *, say: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections on each of which these bytes are sent, and no more."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            # A small window, so that an answer which is not read fills it.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.connect(("127.0.0.1", port))
            each.sendall(say)
        yield opened


def connected(live: Live) -> int:
    """How many connections the servers hold."""
    return sum(
        connection.status == psutil.CONN_ESTABLISHED
        for process in live.family()
        for connection in process.net_connections("tcp")
    )


def test_stuck_and_idle_clients_leave_the_others_alone_and_are_closed(tmp_path: Path) -> None:
    with (
        running(tmp_path / "home") as live,
        clients(live.api_port, STUCK, say=HALF_HEADER),
        clients(live.api_port, STUCK, say=HALF_BODY) as half_bodies,
        clients(live.api_port, IDLE),
        clients(live.api_port, 4, say=MUCH),
    ):
        began = time.monotonic()
        until(lambda: connected(live) > 2 * STUCK + IDLE, live)
        wrong = {"email": "nobody@ragkeeper.test", "password": "nobody's password"}
        with httpx.Client(base_url=live.api_url, timeout=5) as other:
            for _ in range(20):
                assert other.get("/v1/system/config").json()["code"] == 0
                assert other.get("/readyz").status_code == 200
            assert other.post("/v1/user/login", json=wrong).json()["code"] == 109
        assert connected(live) > STUCK

        until(lambda: connected(live) == 0, live, CLOSED_WITHIN_S - (time.monotonic() - began))
        assert half_bodies[0].recv(100).startswith(b"HTTP/1.1 408 ")
        assert "Traceback" not in live.printed()


def test_a_server_that_was_told_to_stop_says_so_and_serves_on_for_a_while(tmp_path: Path) -> None:
    with running(tmp_path / "home", RAGKEEPER_DRAIN_S="3") as live, httpx.Client(base_url=live.api_url) as client:
        assert client.get("/readyz").status_code == 200
        live.process.terminate()
        until(lambda: client.get("/readyz").status_code == 503, live)

        assert client.get("/readyz").json() == {"status": "draining", "down": []}
        assert client.get("/v1/system/config").json()["code"] == 0
        assert client.get("/livez").status_code == 200
        assert live.process.wait(10) == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: plane\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nHost: plane\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: plane\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: plane\r\nHost: other\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: plane\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=["line", "field", "fields", "two hosts", "smuggling", "tls"],
)
def test_what_is_no_request_or_too_much_of_one_is_refused_in_front(shared: Live, sent: bytes, status: int) -> None:
    with clients(shared.api_port, 1, say=sent) as [client]:
        client.settimeout(10)
        assert client.recv(100).startswith(b"HTTP/1.1 %d " % status)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A plane for tests that leave nothing behind in it."""
    with running(tmp_path_factory.mktemp("clients") / "home") as live:
        yield live
