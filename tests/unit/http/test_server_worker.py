"""What the guarded connection makes of a request before it hands it on, and how connections end with their worker."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.asgi.parser import CallbackRequest, PythonProtocol
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.config import Config
from gunicorn.glogging import Logger

from common.http import access
from common.http.bridge import PONG, Bridge, Receive, Scope, Send
from common.http.server_worker import GuardedProtocol, PlaneWorker


def received(monkeypatch: pytest.MonkeyPatch, head: bytes) -> CallbackRequest:
    """The request that the connection would hand on."""
    monkeypatch.setattr(ASGIProtocol, "__init__", lambda self, worker: None)
    connection = GuardedProtocol(SimpleNamespace())  # type: ignore[arg-type]
    parser = connection._callback_parser = PythonProtocol()

    def handed_on(self: ASGIProtocol) -> bool:
        self._current_request = CallbackRequest.from_parser(parser)
        return False

    monkeypatch.setattr(ASGIProtocol, "_on_headers_complete", handed_on)
    parser.feed(head)
    connection._on_headers_complete()
    return connection._current_request


@pytest.mark.parametrize(
    ("target", "path", "raw", "query", "host"),
    [
        (b"/a?b=c", "/a", b"/a", "b=c", b"field"),
        (b"http://target/a%20%C3%BC?b=c", "/a ü", b"/a%20%C3%BC", "b=c", b"target"),
        (b"HTTPS://[::1]:81", "/", b"/", "", b"[::1]:81"),
        (b"http://target?b=http://other/", "/", b"/", "b=http://other/", b"target"),
        (b"/http://target/a", "/http://target/a", b"/http://target/a", "", b"field"),
    ],
)
def test_a_whole_url_as_target_gives_path_and_host(
    monkeypatch: pytest.MonkeyPatch, target: bytes, path: str, raw: bytes, query: str, host: bytes
) -> None:
    request = received(monkeypatch, b"GET " + target + b" HTTP/1.1\r\nHost: field\r\nX: y\r\n\r\n")

    assert (request.path, request.raw_path, request.query) == (path, raw, query)
    assert sorted(request.headers_bytes) == [(b"host", host), (b"x", b"y")]


def test_the_line_of_a_refusal_has_an_ipv4_address_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[dict[str, Any]] = []
    monkeypatch.setattr(ASGIProtocol, "__init__", lambda self, worker: None)
    monkeypatch.setattr(access, "note_refusal", lambda line, *_: noted.append(line))
    connection = GuardedProtocol(SimpleNamespace())  # type: ignore[arg-type]
    connection._callback_parser = SimpleNamespace(method=None)
    connection.transport = SimpleNamespace(get_extra_info=lambda _: ("::ffff:192.0.2.7", 4711, 0, 0))
    connection._note(400, "an id")

    assert [line["REMOTE_ADDR"] for line in noted] == ["192.0.2.7"]


class Told(Bridge):
    """A bridge whose worker is told to stop at a certain moment of the first answer."""

    worker: PlaneWorker
    #: After which message of the answer.
    told_after = ""

    def __init__(self, **given: Any) -> None:
        self.drains = asyncio.Event()
        super().__init__(lambda *_: [], fixed={"/ping": PONG}, max_body=0, **given)

    @property
    def draining(self) -> bool:
        return self.drains.is_set()

    @draining.setter
    def draining(self, begins: bool) -> None:
        if begins:
            self.drains.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: dict[str, Any]) -> None:
            await send(message)
            if message["type"] == self.told_after:
                self.told_after = ""
                self.worker.handle_exit_signal()
                # As far as an answer goes that its client is slow to take.
                if message["type"] == "http.response.start":
                    await self.drains.wait()

        await super().__call__(scope, receive, sending)


class Connection:
    """What a client has."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def answer(self) -> str:
        """The header of the answer to one more request."""
        self._writer.write(b"GET /ping HTTP/1.1\r\nHost: plane\r\n\r\n")
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        await self._reader.readexactly(len(PONG.body))
        return head

    async def ends(self) -> bool:
        """Wait until the worker closes it; whether nothing more came."""
        return await self._reader.read() == b""

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def serving(drain_s: float, **options: Any) -> AsyncIterator[tuple[PlaneWorker, Told, Callable[[], Any]]]:
    """A worker that serves a bridge in this event loop, as gunicorn would have made it; and how to connect."""
    config = Config()
    for name, value in {"keepalive": 60, **options}.items():
        config.set(name, value)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        worker = PlaneWorker(0, os.getppid(), [SimpleNamespace(sock=listener)], None, 30, config, Logger(config))
        worker.loop = asyncio.get_running_loop()
        worker.asgi = app = Told(drain_s=drain_s)
        app.worker = worker
        served = asyncio.create_task(worker._serve())
        made: list[Connection] = []

        async def connect() -> Connection:
            made.append(Connection(*await asyncio.open_connection(*listener.getsockname())))
            return made[-1]

        try:
            yield worker, app, connect
        finally:
            for connection in made:
                connection.close()
            worker.handle_quit_signal()
            await served
            worker.tmp.close()


def announced(head: str) -> bool:
    """Whether an answer says that the connection ends with it."""
    return re.search(r"^connection: close\r$", head, re.IGNORECASE | re.MULTILINE) is not None


# gunicorn decides a second time whether a connection ends, in another way where somebody has read the header.
LOOKED_AT: list[dict[str, Any]] = [{}, {"pre_request": lambda worker, request: request.headers}]


@pytest.mark.parametrize("options", LOOKED_AT, ids=["", "looked at"])
@pytest.mark.parametrize("moment", ["http.response.start", "http.response.body"])
def test_whose_answer_did_not_say_that_the_connection_ends_is_served_once_more(
    moment: str, options: dict[str, Any]
) -> None:
    async def run() -> None:
        async with serving(5, **options) as (_, app, connect):
            client = await connect()
            app.told_after = moment

            assert not announced(await client.answer())
            await app.drains.wait()
            assert announced(await client.answer())
            assert await client.ends()

    asyncio.run(run())


def test_a_connection_on_which_nothing_is_asked_ends_when_the_worker_has_drained() -> None:
    async def run() -> None:
        async with serving(0) as (worker, _, connect):
            client = await connect()
            assert not announced(await client.answer())

            worker.handle_exit_signal()

            assert await client.ends()
            # And nobody is left to wait for.
            assert not worker.connections

    asyncio.run(run())


def told_early(worker: PlaneWorker) -> None:
    worker.handle_exit_signal()


def without_a_master(worker: PlaneWorker) -> None:
    worker.ppid = 0


@pytest.mark.parametrize("ended", [told_early, without_a_master])
def test_a_worker_that_has_to_end_before_it_serves_says_so_on_every_connection(
    ended: Callable[[PlaneWorker], None],
) -> None:
    async def run() -> None:
        async with serving(5) as (worker, app, connect):
            ended(worker)
            client = await connect()
            await app.drains.wait()

            assert announced(await client.answer())
            assert await client.ends()

    asyncio.run(run())
