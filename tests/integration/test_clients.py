"""Clients that are stuck, slow or many, straight on the servers' ports; and servers that are told to stop."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from common.cli.serving import gunicorn_command
from common.http.bridge import HASHING_WAITING, THREADS
from common.settings import Settings
from tests.integration import told_early
from tests.people import new_password
from tests.ports import free_ports
from tests.servers import (
    COMMAND,
    Live,
    end,
    environment_for,
    running,
    set_variables,
    until,
    wait_until_ready,
)

pytestmark = [pytest.mark.slow, pytest.mark.alone]

WORKERS = 2
# Four times as many as there are threads on a port.
STUCK = 4 * 2 * THREADS * WORKERS
IDLE = 1000
CLOSED_WITHIN_S = 30
GONE_S = 10.0
HALF_HEADER = b"GET /v1/user/info HTTP/1.1\r\nHost: plane\r\nAuthor"
HALF_BODY = (
    b"POST /v1/user/login HTTP/1.1\r\nHost: plane\r\nContent-Type: application/json\r\n"
    b'Content-Length: 1000\r\n\r\n{"email":'
)
MUCH = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: plane\r\n\r\n"


@contextmanager
def clients(port: int, count: int, *, say: bytes | Callable[[int], bytes] = b"") -> Iterator[list[socket.socket]]:
    """So many connections on each of which these bytes, or what is said for its number, are sent, and no more."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for number, each in enumerate(opened):
            # A small window, so that an answer which is not read fills it.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.connect(("127.0.0.1", port))
            each.sendall(say if isinstance(say, bytes) else say(number))
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


@contextmanager
def alone(home: Path, command: Sequence[str] = (str(COMMAND), "admin"), **given: str) -> Iterator[Live]:
    """``ragkeeper admin``, or this command, for a supervisor of one's own, on a free port."""
    [port] = free_ports(1)
    output = home.parent / "alone.txt"
    environment = environment_for(home, RAGKEEPER_ADMIN_PORT=str(port), **given)
    listening = [part.format(port=port) for part in command]
    with output.open("wb") as sink:
        process = subprocess.Popen(listening, env=environment, cwd=home.parent, stdout=sink, stderr=sink)
    live = Live(process, home, port, port, output)
    try:
        wait_until_ready(live, port)
        yield live
    finally:
        end(process)


@pytest.mark.parametrize("started", [running, alone])
def test_a_server_that_was_told_to_stop_says_so_serves_on_for_a_while_and_is_gone_in_time(
    tmp_path: Path, started: Callable[..., Any]
) -> None:
    with started(tmp_path / "home", RAGKEEPER_DRAIN_S="2") as live, httpx.Client(base_url=live.admin_url) as client:
        assert client.get("/readyz").status_code == 200
        everything, told_at = live.family(), time.monotonic()
        live.process.terminate()
        until(lambda: client.get("/readyz").status_code == 503, live)

        assert client.get("/readyz").json() == {"status": "draining", "down": []}
        answer = client.get("/api/v1/admin/public-key")
        assert answer.status_code == 200
        # Whoever has a connection is told to make another one next time.
        assert answer.headers["Connection"] == "close"
        assert client.get("/livez").status_code == 200
        assert live.process.wait(GONE_S) == 0
        assert time.monotonic() - told_at > 2
        _, left = psutil.wait_procs(everything, timeout=max(0, GONE_S - (time.monotonic() - told_at)))
        assert left == []


def test_connections_that_are_busy_while_a_server_is_told_to_stop_end_with_an_answer_that_says_so(
    tmp_path: Path,
) -> None:
    def asked_on(busy: list[socket.socket]) -> list[socket.socket]:
        """Ask on each; those whose answer lets one ask again."""
        for client in busy:
            client.sendall(request(first=b"GET /livez HTTP/1.1"))
        return [client for client in busy if answer_on(client)[1].get("connection") != "close"]

    with alone(tmp_path / "home", RAGKEEPER_DRAIN_S="2") as live, clients(live.admin_port, 256) as made:
        assert asked_on(made) == made
        live.process.terminate()
        busy = made
        while busy:
            busy = asked_on(busy)

        assert live.process.wait(GONE_S) == 0


def test_who_connected_before_a_server_ceased_to_listen_is_still_served(tmp_path: Path) -> None:
    with alone(tmp_path / "home") as live, clients(live.admin_port, 8) as made:
        live.process.terminate()
        until(lambda: not listens(live), live)
        for client in made:
            client.sendall(request(first=b"GET /api/v1/admin/public-key HTTP/1.1"))

        assert [answer_on(client)[0] for client in made] == [200] * len(made)
        assert live.process.wait(GONE_S) == 0


def test_a_worker_that_is_told_to_stop_while_it_is_being_made_stops(tmp_path: Path) -> None:
    """Until it has handlers of its own, it has those of the master: what they heard is not lost."""
    made = gunicorn_command(Settings(home=tmp_path / "home"), "admin")
    command = [*made[:-1], "--config", f"python:{told_early.__name__}", "--bind", "127.0.0.1:{port}", made[-1]]
    root = str(Path(told_early.__file__).parents[2])
    with alone(tmp_path / "home", command, PYTHONPATH=root) as live:
        pid = int(until(lambda: re.search(r"told early: (\d+)", live.printed()), live)[1])

        until(lambda: not psutil.pid_exists(pid), live)
        # Another one is made in its place.
        until(lambda: len(live.family()) == 1 + WORKERS, live)


def test_workers_that_are_replaced_leave_the_port_to_the_next_ones(tmp_path: Path) -> None:
    """gunicorn replaces its workers on SIGHUP, while its master goes on listening."""
    with alone(tmp_path / "home") as live:
        old = live.family()[1:]
        live.process.send_signal(signal.SIGHUP)
        assert psutil.wait_procs(old, timeout=GONE_S)[1] == []

        assert httpx.get(f"{live.admin_url}/livez", timeout=5).status_code == 200


def test_what_the_master_says_after_a_sighup_is_a_line_among_the_planes_own_and_said_once(tmp_path: Path) -> None:
    with alone(tmp_path / "home") as live:
        old = live.family()[1:]
        live.process.send_signal(signal.SIGHUP)
        assert psutil.wait_procs(old, timeout=GONE_S)[1] == []
        until(lambda: len(live.family()) == 1 + WORKERS, live)

        live.family()[-1].kill()
        until(lambda: "was sent SIGKILL" in live.printed(), live)
        wait_until_ready(live, live.admin_port)

        said = [line for line in live.printed().splitlines() if "was sent SIGKILL" in line]
        assert [line[24:].partition("(")[0] for line in said] == ["ERROR gunicorn.error: Worker "]


def listens(live: Live) -> bool:
    """Whether any of its processes does; quickly told, for who has just connected is waited for shortly."""
    with socket.socket() as another:
        return another.connect_ex(("127.0.0.1", live.admin_port)) == 0


def test_a_flood_of_logins_holds_up_neither_reads_nor_other_writes(tmp_path: Path) -> None:
    """Who waits for a hash waits for other hashes only; beyond what may wait, logins are refused at once."""
    password = new_password()

    def login(number: int) -> bytes:
        # Several for one account at once would be refused for that.
        wrong = b'{"email":"nobody%d@ragkeeper.test","password":"nobody"}' % number
        return request(JSON, b"Content-Length: %d" % len(wrong), body=wrong)

    with (
        running(tmp_path / "home", RAGKEEPER_ADMIN_PASSWORD=password) as live,
        httpx.Client(base_url=live.api_url, timeout=20) as other,
    ):
        set_variables(live.home, limit_login_address="1000000")
        account = {"email": "admin@ragflow.io", "password": password}
        session = {"Authorization": other.post("/v1/user/login", json=account).headers["Authorization"]}
        with clients(live.api_port, 2 * WORKERS * HASHING_WAITING, say=login) as flood:
            for _ in range(10):
                assert other.get("/v1/user/info", headers=session).json()["code"] == 0
                assert other.post("/api/v1/system/tokens", headers=session).json()["code"] == 0
            answered, _, _ = select.select(flood, [], [], 0)
            assert len(answered) < len(flood)

            answers = [answer_on(each) for each in flood]
        assert {status for status, _, _ in answers} == {200, 503}
        refused = [header["retry-after"] for status, header, _ in answers if status == 503]
        assert set(refused) == {"1"}
        assert other.post("/v1/user/login", json=account).json()["code"] == 0


def request(*lines: bytes, first: bytes = b"POST /v1/user/login HTTP/1.1", body: bytes = b"") -> bytes:
    """A request as it is sent."""
    return b"\r\n".join([first, b"Host: plane", *lines, b"", body])


JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
NO_REQUESTS = {
    "line": (request(first=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 414),
    "line without end": (b"GET /" + b"a" * 100_000, 414),
    "field": (request(b"X: " + b"a" * 9000), 431),
    "fields": (request(*[b"X: a"] * 200), 431),
    "header": (request(*[b"X: " + b"a" * 8000] * 50), 431),
    "header before a body": (request(*[b"X: " + b"a" * 8000] * 10, b"Content-Length: 2", body=b"{}"), 431),
    "header without end": (request(*[b"X: " + b"a" * 8000] * 20)[:-4], 431),
    "no host": (b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "two hosts": (request(b"Host: other"), 400),
    "two types": (request(JSON, b"Content-Type: text/plain"), 400),
    "length and chunks": (request(b"Content-Length: 1", CHUNKED, body=b"0\r\n\r\n"), 400),
    "two lengths": (request(b"Content-Length: 1", b"Content-Length: 2", body=b"{}"), 400),
    "one length twice": (request(b"Content-Length: 2", b"Content-Length: 2", body=b"{}"), 400),
    "list of lengths": (request(b"Content-Length: 2, 2", body=b"{}"), 400),
    "signed length": (request(b"Content-Length: +2", body=b"{}"), 400),
    "endless length": (request(b"Content-Length: " + b"9" * 5000), 400),
    "chunks twice": (request(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), 400),
    "chunks not last": (request(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), 400),
    "coding without chunks": (request(b"Transfer-Encoding: gzip", body=b"0\r\n\r\n"), 400),
    "unknown coding": (request(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 501),
    "another coding before chunks": (request(JSON, b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    "another coding in a field of its own": (request(b"Transfer-Encoding: gzip", CHUNKED, body=b"0\r\n\r\n"), 501),
    "no coding before chunks": (request(b"Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n"), 501),
    "URL of another protocol": (request(first=b"GET ftp://plane/livez HTTP/1.1"), 400),
    "URL with a user": (request(first=b"GET http://plane@other/livez HTTP/1.1"), 400),
    "URL without a host": (request(first=b"GET http:///livez HTTP/1.1"), 400),
    "chunks in 1.0": (request(CHUNKED, first=b"POST / HTTP/1.0", body=b"0\r\n\r\n"), 400),
    "chunk size": (request(JSON, CHUNKED, body=b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
    "space before the colon": (request(b"Content-Length : 2", body=b"{}"), 400),
    "space in a name": (request(b"Content Length: 2", body=b"{}"), 400),
    "folded field": (request(b"X: a", b" b"), 400),
    "bare line end": (b"GET /livez HTTP/1.1\nHost: plane\n\n", 400),
    "control character": (request(b"X: a\x00b"), 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}


def statuses(received: bytes) -> list[int]:
    """Those of all answers that were received."""
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def access_lines(live: Live, request_id: str) -> list[dict[str, Any]]:
    """The access lines of a request, as soon as there are any."""
    form = rf'^\{{.*"request_id":"{request_id}".*$'
    return [json.loads(line) for line in until(lambda: re.findall(form, live.printed(), re.MULTILINE), live)]


def answer_to(live: Live, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, header and body of the first answer, after which the connection has ended or stays open."""
    with clients(live.api_port, 1, say=sent) as [client]:
        return answer_on(client)


def answer_on(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next answer on a connection."""
    client.settimeout(20)
    answer = HTTPResponse(client)
    answer.begin()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.mark.parametrize(("sent", "status"), NO_REQUESTS.values(), ids=NO_REQUESTS.keys())
def test_what_is_no_request_or_too_much_of_one_is_refused_in_front(shared: Live, sent: bytes, status: int) -> None:
    with clients(shared.api_port, 1, say=sent) as [client]:
        client.settimeout(10)
        received = b""
        while chunk := client.recv(4096):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status)
    # One answer only, in the envelope, and the end of the connection: what follows can't be taken for a request.
    assert statuses(received) == [status]
    assert b"connection: close" in head.lower()
    assert json.loads(body)["code"] == status
    [request_id] = re.findall(rb"x-request-id: (\w+)", head.lower())
    [line] = access_lines(shared, request_id.decode())
    assert (line["route"], line["status"], line["address"]) == (None, status, "127.0.0.1")
    assert line["method"] in (None, sent.split()[0].decode("latin-1"))
    assert 0 <= line["ms"] < 10_000
    assert "Traceback" not in shared.printed()


@pytest.mark.parametrize("how", ["declared", "in chunks"])
@pytest.mark.parametrize("accept", ["application/json", "application/problem+json"])
def test_a_body_that_is_too_large_is_refused_in_the_callers_form(shared: Live, how: str, accept: str) -> None:
    body = b"x" * (2 * 1024 * 1024)
    if how == "declared":
        sent = request(JSON, b"Accept: " + accept.encode(), b"Content-Length: %d" % len(body), body=body)
    else:
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        sent = request(JSON, b"Accept: " + accept.encode(), CHUNKED, body=chunks)
    status, header, content = answer_to(shared, sent)

    assert status == 413
    assert header["content-type"] == accept
    assert json.loads(content)["status" if "problem" in accept else "code"] == 413


def test_chunks_without_a_length_are_a_body(shared: Live) -> None:
    body = b'{"email":"nobody@ragkeeper.test","password":"nobody"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"

    status, _, content = answer_to(shared, request(JSON, CHUNKED, body=chunks))

    assert (status, json.loads(content)["code"]) == (200, 109)


def test_what_follows_a_body_that_was_longer_than_declared_is_no_request(shared: Live) -> None:
    sent = request(JSON, b"Content-Length: 2", body=b'{}{"email":"a@b.co"}\r\n\r\n')
    with clients(shared.api_port, 1, say=sent) as [client]:
        client.settimeout(10)
        received = b""
        while chunk := client.recv(4096):
            received += chunk

    assert statuses(received) == [200, 400]


@pytest.mark.parametrize("version", [b"13", b"12"])
@pytest.mark.parametrize("path", [b"/livez", b"/v1/system/config", b"/v1/user/info"])
def test_a_client_that_offers_a_websocket_is_answered_as_any_other(shared: Live, path: bytes, version: bytes) -> None:
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: " + version)
    first = b"GET %b HTTP/1.1" % path

    with clients(shared.api_port, 1) as [client]:
        client.sendall(request(*upgrade, b"Sec-WebSocket-Key: " + b"A" * 22 + b"==", first=first))
        offered = answer_on(client)
        client.sendall(request(first=first))
        plain = answer_on(client)

    assert (offered[0], offered[2]) == (plain[0], plain[2])


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://plane/v1/system/config", 200),
        (b"HTTP://plane:80/v1/system/config?x=1", 200),
        (b"http://plane/livez?x=1", 200),
        (b"http://plane", 404),
        (b"http://plane?x=/livez", 404),
    ],
)
def test_a_whole_url_may_be_the_target(shared: Live, target: bytes, status: int) -> None:
    answer = answer_to(shared, request(first=b"GET %b HTTP/1.1" % target))

    assert answer[0] == status
    assert json.loads(answer[2])


def test_a_field_whose_name_has_an_underscore_is_dropped(shared: Live) -> None:
    _, header, _ = answer_to(shared, request(b"X_Request_Id: mine", first=b"GET /v1/system/config HTTP/1.1"))
    assert header["x-request-id"] != "mine"
    _, header, _ = answer_to(shared, request(b"X-Request-Id: mine", first=b"GET /v1/system/config HTTP/1.1"))
    assert header["x-request-id"] == "mine"


def test_a_proxy_on_this_machine_is_not_believed_unless_it_is_named(shared: Live) -> None:
    """gunicorn by itself believes what comes from 127.0.0.1, and refuses what contradicts itself."""
    said = (
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Ssl: off",
        b"X-Forwarded-For: 203.0.113.9",
        b"X-Request-Id: said",
    )

    assert answer_to(shared, request(*said, first=b"GET /v1/system/config HTTP/1.1"))[0] == 200
    [line] = access_lines(shared, "said")
    assert line["address"] == "127.0.0.1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A plane for tests that leave nothing behind in it."""
    with running(tmp_path_factory.mktemp("clients") / "home") as live:
        yield live
