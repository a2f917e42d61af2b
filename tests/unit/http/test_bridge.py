"""The bridge between gunicorn's event loop and the apps, asked as gunicorn asks it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from flask import Flask, Response, request

from common.http import bridge
from common.http.access import BEFORE_THE_ANSWER, COUNTED, logging_access
from common.http.bridge import PONG, Bridge
from common.http.wsgi_types import Environ
from common.stores.waiting import MustWait, refuse_on_event_loop

LIMIT = 1000
Message = dict[str, Any]
Lines = Callable[[], list[dict[str, Any]]]


class Client:
    """A request to the bridge, message by message, and what came back."""

    def __init__(self, method: str, path: str, *chunks: bytes, headers: dict[str, str] | None = None) -> None:
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"a=%C3%BC",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 9380),
            "client": ("192.0.2.7", 4711),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        if chunks and "content-length" not in {name.decode() for name, _ in self.scope["headers"]}:  # type: ignore[attr-defined]
            length = str(sum(map(len, chunks))).encode()
            self.scope["headers"].append((b"content-length", length))  # type: ignore[attr-defined]
        self.chunks = list(chunks)
        self.asked = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        self.asked += 1
        if not self.chunks:
            return {"type": "http.disconnect"}
        chunk = self.chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self.chunks)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


def ask(made: Bridge, *clients: Client) -> None:
    async def run() -> None:
        made.open(asyncio.get_running_loop())
        await asyncio.gather(*(made(client.scope, client.receive, client.send) for client in clients))

    asyncio.run(run())


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Lines:
    """Gives the access lines that were written since it was asked last."""
    caplog.set_level(logging.INFO, "ragkeeper.access")
    return lambda: [json.loads(line) for line in capfd.readouterr().out.splitlines()]


@pytest.fixture
def app() -> Flask:
    """An app that shows what reached it."""
    made = Flask("behind")
    made.config["MAX_CONTENT_LENGTH"] = LIMIT

    @made.route("/shown/<path:rest>", methods=["GET", "POST"])
    def shown(rest: str) -> Response:
        if rest == "file":
            request.max_content_length = 2 * LIMIT
        text = f"{rest} {request.args['a']} {request.remote_addr} {request.headers.get('X-Two')} {len(request.data)}"
        return Response(text, 203, {"X-Shown": "yes"})

    return made


def bridged(app: Callable[..., Iterable[bytes]], **more: Any) -> Bridge:
    return Bridge(app, fixed={"/ping": PONG}, max_body=LIMIT, drain_s=0, **more)


def test_an_ipv4_client_of_a_listener_of_both_kinds_has_the_address_that_it_has_elsewhere(app: Flask) -> None:
    clients = [Client("GET", "/shown/a") for _ in range(2)]
    for client, peer in zip(clients, ("::ffff:192.0.2.7", "::ffff:0:1"), strict=True):
        client.scope["client"] = (peer, 4711)
    ask(bridged(app), *clients)

    assert [client.body.decode().split()[2] for client in clients] == ["192.0.2.7", "::ffff:0:1"]


def test_a_request_reaches_the_app_as_it_was_sent_and_its_answer_the_client(app: Flask) -> None:
    client = Client("POST", "/shown/caf%C3%A9", b"ab", b"cde")
    client.scope["headers"] += [(b"x-two", b"1"), (b"x-two", b"2")]  # type: ignore[operator]
    ask(bridged(app), client)

    assert client.status == 203
    assert client.headers["x-shown"] == "yes"
    assert client.body.decode() == "café ü 192.0.2.7 1,2 5"


def test_fixed_answers_need_neither_thread_nor_app() -> None:
    def never(*_: Any) -> Iterable[bytes]:
        raise AssertionError("the app was asked")

    alive, pong = Client("GET", "/livez"), Client("HEAD", "/ping")
    asyncio.run(bridged(never)(alive.scope, alive.receive, alive.send))
    asyncio.run(bridged(never)(pong.scope, pong.receive, pong.send))

    assert (alive.status, alive.body) == (200, b'{"status":"ok"}')
    assert (pong.status, pong.headers["content-length"]) == (200, "4")


@pytest.mark.parametrize("headers", [{}, {"content-length": "40"}, {"transfer-encoding": "chunked"}])
def test_a_body_is_read_also_before_what_is_fixed(app: Flask, headers: dict[str, str]) -> None:
    chunks = [b"x" * 20, b"x" * 20] if headers else []
    asked = Client("GET", "/ping", *chunks, headers=headers)
    ask(bridged(app), asked)

    assert asked.chunks == []
    assert asked.status == (404 if headers else 200), "the app has no such path"


def test_HEAD_is_answered_without_a_body_wherever_the_answer_comes_from(app: Flask) -> None:
    fixed, of_app = Client("HEAD", "/ping"), Client("HEAD", "/shown/a")
    ask(bridged(app), fixed, of_app)

    assert (fixed.status, fixed.body, fixed.headers["content-length"]) == (200, b"", "4")
    assert (of_app.status, of_app.body) == (203, b"")


def test_what_is_too_much_to_wait_for_is_refused_before_it_comes(app: Flask) -> None:
    client = Client("POST", "/shown/a", b"{}", headers={"Content-Length": str(bridge.DROPPED_BYTES + 1)})
    ask(bridged(app), client)

    assert (client.status, client.asked) == (413, 0)


@pytest.mark.parametrize("chunks", [[b"x" * (LIMIT + 1)], [b"x" * 600] * 3])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_by_the_app_in_its_own_words(
    app: Flask, chunks: list[bytes], chunked: bool
) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Length": ""} if chunked else {}
    client = Client("POST", "/shown/a", *chunks, headers=headers)
    if chunked:
        client.scope["headers"] = [(b"transfer-encoding", b"chunked")]
    ask(bridged(app), client)

    assert client.status == 413
    assert client.chunks == []


def test_a_chunked_body_at_the_limit_is_taken(app: Flask) -> None:
    client = Client("POST", "/shown/a", b"x" * 600, b"x" * 400)
    client.scope["headers"] = [(b"transfer-encoding", b"chunked")]
    ask(bridged(app), client)

    assert client.body.decode().endswith(" 1000")


def test_who_waits_for_a_word_before_sending_too_much_gets_the_refusal_at_once(app: Flask) -> None:
    client = Client("POST", "/shown/a", b"x", headers={"Content-Length": "5000", "Expect": "100-continue"})
    ask(bridged(app), client)

    assert client.status == 413
    assert client.asked == 0


def test_a_body_that_does_not_arrive_is_408_and_the_connection_ends(
    app: Flask, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr(bridge, "BODY_S", 0.01)
    late, gone = Client("POST", "/shown/a", b"x"), Client("POST", "/shown/a", headers={"Content-Length": "9"})

    async def never() -> Message:
        await asyncio.Event().wait()
        return {}

    late.receive = never  # type: ignore[method-assign]
    ask(bridged(app), late, gone)

    for client in (late, gone):
        assert (client.status, client.headers["connection"]) == (408, "close")
    noted = lines()
    assert {line["request_id"] for line in noted} == {client.headers["x-request-id"] for client in (late, gone)}
    assert max(line["ms"] for line in noted) >= 10
    for line in noted:
        assert (line["method"], line["route"], line["status"], line["address"]) == ("POST", None, 408, "192.0.2.7")


def test_bodies_hold_no_more_memory_together_than_they_may(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "HELD_BYTES", 1500)
    made = bridged(app)
    clients = [Client("POST", "/shown/a", b"x" * 900, b"x") for _ in range(3)]

    async def in_turn(client: Client) -> Message:
        return await Client.receive(client)

    for client in clients:
        client.receive = lambda client=client: in_turn(client)  # type: ignore[method-assign, misc]
    ask(made, *clients)
    again = Client("POST", "/shown/a", b"x" * 1000)
    ask(made, again)

    assert sorted(client.status for client in clients) == [203, 503, 503]
    assert again.status == 203


def test_files_may_be_longer_and_leave_room_for_other_bodies(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "HELD_BYTES", 2500)
    made = bridged(app, max_upload=2 * LIMIT, uploads=re.compile("POST /shown/file"))
    file, other = Client("POST", "/shown/file", b"x" * 1900, b"x"), Client("POST", "/shown/a", b"x" * 900, b"x")
    long, cut = Client("POST", "/shown/a", b"x" * 1900), Client("POST", "/shown/file", b"x" * 2001)
    ask(made, file, other)
    ask(made, long)
    ask(made, cut)

    assert file.body.decode().endswith(" 1901")
    assert (other.status, long.status, cut.status) == (203, 413, 413)


def test_while_it_drains_it_is_not_ready_and_serves_on(app: Flask) -> None:
    made = bridged(app)
    made.draining = True
    ready, other, alive = Client("GET", "/readyz"), Client("GET", "/shown/a"), Client("GET", "/livez")
    ask(made, ready, other, alive)

    assert (ready.status, ready.body) == (503, b'{"status":"draining","down":[]}')
    assert (other.status, alive.status) == (203, 200)


def test_who_waits_for_a_hash_holds_up_nobody_else_and_too_many_are_refused(
    monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr(bridge, "HASHING_THREADS", 1)
    monkeypatch.setattr(bridge, "HASHING_WAITING", 1)
    go, answered = threading.Event(), []

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/login":
            assert go.wait(10)
        start_response("200 OK", [])
        return [b"ok"]

    async def run() -> list[Client]:
        made = Bridge(app, fixed={}, max_body=LIMIT, drain_s=0, hashing=re.compile("POST /login"))
        made.open(asyncio.get_running_loop())
        logins = [Client("POST", "/login", headers={"Accept": "application/problem+json"}) for _ in range(3)]

        async def ask_one(client: Client) -> None:
            await made(client.scope, client.receive, client.send)
            answered.append(client)

        flood = [asyncio.create_task(ask_one(client)) for client in logins]
        for method, path in [("POST", "/other"), ("GET", "/other")]:
            await ask_one(Client(method, path))
        go.set()
        await asyncio.gather(*flood)
        return logins

    *served, refused = asyncio.run(run())

    assert [client.status for client in served] == [200, 200]
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["content-type"] == "application/problem+json"
    assert answered.index(served[0]) > 2
    [line] = lines()
    assert (line["status"], line["request_id"]) == (503, refused.headers["x-request-id"])


@pytest.mark.parametrize("late", [False, True])
def test_an_app_that_fails_altogether_is_a_500_without_a_word_of_why(
    caplog: pytest.LogCaptureFixture, lines: Lines, late: bool
) -> None:
    def content() -> Iterator[bytes]:
        raise RuntimeError("the password is swordfish")
        yield b""

    def broken(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if late:
            start_response("200 OK", [])
        return content() if late else list(content())

    client = Client("GET", "/anything")
    ask(bridged(logging_access(broken)), client)

    assert client.status == 500
    [line] = lines()
    assert line["request_id"] == client.headers["x-request-id"]
    assert line["status"] == (200 if late else 500)
    assert b"swordfish" not in client.body
    assert "the app itself failed on GET /anything" in caplog.text


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests_that_wait_for_other_services_delay_only_each_other(method: str) -> None:
    go_on, stuck = threading.Event(), threading.Semaphore(0)

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/slow"):
            stuck.release()
            assert go_on.wait(10)
        start_response("200 OK", [])
        return [b"done"]

    made = Bridge(app, fixed={}, max_body=LIMIT, drain_s=0, waiting=re.compile(r"(GET|POST) /slow/.*"))
    waiting = [Client(method, f"/slow/{number}") for number in range(2 * bridge.WAITING_THREADS)]
    others = [Client("GET", "/a"), Client("POST", "/b")]

    async def run() -> None:
        made.open(asyncio.get_running_loop())
        held = [asyncio.create_task(made(each.scope, each.receive, each.send)) for each in waiting]
        for _ in range(bridge.WAITING_THREADS):
            await asyncio.to_thread(stuck.acquire, timeout=10)
        async with asyncio.timeout(10):
            await asyncio.gather(*(made(each.scope, each.receive, each.send) for each in others))
        assert not any(each.sent for each in waiting)
        go_on.set()
        await asyncio.gather(*held)

    asyncio.run(run())

    assert {client.status for client in (*waiting, *others)} == {200}


def test_what_readers_have_written_holds_up_no_other_reader_and_is_written_before_the_answer() -> None:
    locked, waiting, done = threading.Event(), threading.Semaphore(0), []

    def write(path: str) -> None:
        waiting.release()
        assert locked.wait(10)
        done.append(path)

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/refused"):
            environ[BEFORE_THE_ANSWER].append(partial(write, path))
        start_response("200 OK", [])
        return [b"answered"]

    refused = [Client("GET", f"/refused/{number}") for number in range(2 * bridge.THREADS)]
    others = [Client("GET", "/other") for _ in range(bridge.THREADS)]

    async def run() -> None:
        made = bridged(app)
        made.open(asyncio.get_running_loop())
        held = [asyncio.create_task(made(each.scope, each.receive, each.send)) for each in refused]
        for _ in range(bridge.THREADS):
            await asyncio.to_thread(waiting.acquire, timeout=10)
        async with asyncio.timeout(10):
            await asyncio.gather(*(made(each.scope, each.receive, each.send) for each in others))
        assert not any(each.sent for each in refused)
        # One whose client has gone is written all the same.
        held[-1].cancel()
        locked.set()
        await asyncio.gather(*held, return_exceptions=True)
        async with asyncio.timeout(10):
            while len(done) < len(refused):
                await asyncio.to_thread(waiting.acquire, timeout=1)

    asyncio.run(run())

    assert {client.body for client in (*refused[:-1], *others)} == {b"answered"}
    assert sorted(done) == sorted(client.scope["path"] for client in refused)


def answering_where_it_runs(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    environ["REMOTE_ADDR"] += f" in {threading.current_thread().name}"
    if "long" in environ["PATH_INFO"]:
        refuse_on_event_loop()
    start_response("200 OK", [])
    said = f"{environ['REMOTE_ADDR']}, sent {environ['wsgi.input'].read().decode()}"
    return [said.encode()]


def test_what_is_a_matter_of_a_moment_is_answered_on_the_event_loop_and_else_begun_anew_in_a_thread() -> None:
    here, elsewhere = Client("GET", "/moment"), Client("GET", "/other")
    long, sent = Client("GET", "/moment/long"), Client("POST", "/moment/long", b"ab", b"c")
    ask(bridged(answering_where_it_runs, at_once=re.compile(r"\w+ /moment.*")), here, elsewhere, long, sent)

    assert here.body == b"192.0.2.7 in MainThread, sent "
    assert re.fullmatch(rb"192\.0\.2\.7 in read-\d, sent ", elsewhere.body)
    # What the first try left in the environ has not stayed.
    assert re.fullmatch(rb"192\.0\.2\.7 in read-\d, sent ", long.body)
    assert re.fullmatch(rb"192\.0\.2\.7 in write-\d, sent abc", sent.body)


def test_a_body_that_takes_long_to_read_is_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "AT_ONCE_BYTES", 4)
    short, long = Client("POST", "/moment", b"abcd"), Client("POST", "/moment", b"abcd", b"e")
    ask(bridged(answering_where_it_runs, at_once=re.compile("POST /moment")), short, long)

    assert short.body == b"192.0.2.7 in MainThread, sent abcd"
    assert re.fullmatch(rb"192\.0\.2\.7 in write-\d, sent abcde", long.body)


def test_what_has_counted_on_the_event_loop_is_told_so_in_the_thread() -> None:
    told: list[bool] = []

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        told.append(COUNTED in environ)
        environ[COUNTED] = True
        return answering_where_it_runs(environ, start_response)

    ask(bridged(app, at_once=re.compile("GET /long")), Client("GET", "/long"))

    assert told == [False, True]


def test_the_event_loop_hears_others_before_it_has_answered_all_who_ask_at_the_same_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridge, "STRETCH_S", 0.001)

    def taking_as_long_as_a_stretch(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        ends = time.monotonic() + bridge.STRETCH_S
        while time.monotonic() <= ends:
            pass
        start_response("200 OK", [])
        return [threading.current_thread().name.encode()]

    made = bridged(taking_as_long_as_a_stretch, at_once=re.compile("GET /moment"))
    first, *others, later = [Client("GET", "/moment") for _ in range(5)]

    async def run() -> None:
        made.open(asyncio.get_running_loop())
        await asyncio.gather(*(made(each.scope, each.receive, each.send) for each in (first, *others)))
        await made(later.scope, later.receive, later.send)

    asyncio.run(run())

    assert first.body == later.body == b"MainThread"
    assert {client.body.partition(b"-")[0] for client in others} == {b"read"}


def test_what_has_to_wait_has_no_access_line_before_it_is_answered(lines: Lines) -> None:
    client = Client("GET", "/long")
    ask(bridged(logging_access(answering_where_it_runs), at_once=re.compile("GET /long")), client)

    [line] = lines()
    assert (line["status"], line["address"].count("in")) == (200, 1)


def test_what_is_to_be_written_for_a_request_on_the_event_loop_is_written_elsewhere_and_before_the_answer() -> None:
    wrote: list[str] = []

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ[BEFORE_THE_ANSWER].append(lambda: wrote.append(threading.current_thread().name))
        start_response("403 FORBIDDEN", [])
        return [f"{wrote}".encode()]

    client = Client("GET", "/moment")
    ask(bridged(app, at_once=re.compile("GET /moment")), client)

    assert (client.status, client.body) == (403, b"[]")
    assert [name.partition("-")[0] for name in wrote] == ["write"]


def test_refusals_on_the_event_loop_count_as_reads_and_keep_no_writer_out() -> None:
    locked, waiting, done = threading.Event(), threading.Semaphore(0), list[str]()

    def write(path: str) -> None:
        waiting.release()
        assert locked.wait(10)
        done.append(path)

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            environ[BEFORE_THE_ANSWER].append(partial(write, environ["PATH_INFO"]))
        start_response("200 OK" if environ["REQUEST_METHOD"] == "POST" else "403 FORBIDDEN", [])
        return []

    most = bridge.THREADS + bridge.WAITING
    refused = [Client("GET", "/moment") for _ in range(most + 5)]
    writer = Client("POST", "/other")

    async def run() -> None:
        made = bridged(app, at_once=re.compile("GET /moment"))
        made.open(asyncio.get_running_loop())
        # All of them on the loop, however long that takes.
        made._goes_on = lambda: True  # type: ignore[method-assign]
        held = [asyncio.create_task(made(each.scope, each.receive, each.send)) for each in refused]
        for _ in range(bridge.THREADS):
            await asyncio.to_thread(waiting.acquire, timeout=10)
        held.append(asyncio.create_task(made(writer.scope, writer.receive, writer.send)))
        locked.set()
        await asyncio.gather(*held)

    asyncio.run(run())

    assert [client.status for client in refused] == [403] * most + [503] * 5
    assert writer.status == 200
    assert len(done) == most


def test_an_app_that_fails_on_the_event_loop_is_a_500_and_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    def broken(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked.append(threading.current_thread().name)
        raise LookupError("of its own")

    client = Client("GET", "/moment")
    ask(bridged(broken, at_once=re.compile("GET /moment")), client)

    assert (client.status, asked) == (500, ["MainThread"])
    assert "of its own" in caplog.text


def test_MustWait_passes_whoever_deals_with_errors() -> None:
    assert not issubclass(MustWait, Exception)
