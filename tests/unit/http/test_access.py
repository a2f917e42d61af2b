from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Request, Response

from common.http import access
from common.log_stream import LogStream
from common.services.principal import Principal
from tests.pipes import fill_pipe


@pytest.fixture(autouse=True)
def lines_are_on(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "ragkeeper.access"):
        yield


@Request.application
def app(request: Request) -> Response:
    request.environ[access.ROUTE] = "/users/<email>"
    request.environ[access.WHO] = Principal("u1", "a@b.co", credential="session:s1")
    caching = {"Cache-Control": "public, max-age=60"} if request.path == "/kept" else {}
    return Response("{}", 404 if request.path == "/absent" else 200, caching)


def ask(path: str = "/", written: list[bytes] | None = None, **headers: str) -> TestResponse:
    writes = Writes()
    writes.pieces = [] if written is None else written
    front = access.logging_access(app, access.Lines(writes))
    return Client(front).get(path, headers=headers, environ_base={"REMOTE_ADDR": "127.0.0.1"})


def test_a_line_says_who_asked_for_what_and_what_came_of_it() -> None:
    written: list[bytes] = []

    answer = ask("/absent", written, **{"X-Request-Id": "abc-1"})

    line = json.loads(written[0])
    assert answer.status_code == 404
    assert 1_600_000_000_000 < line.pop("at") < 10_000_000_000_000
    assert 0 <= line.pop("ms") < 10_000
    assert line == {
        "method": "GET",
        "route": "/users/<email>",
        "status": 404,
        "user": "u1",
        "credential": "session:s1",
        "address": "127.0.0.1",
        "request_id": "abc-1",
    }


def test_the_callers_id_is_kept_when_it_is_well_formed() -> None:
    assert ask(**{"X-Request-Id": "a.b_c-9"}).headers["X-Request-Id"] == "a.b_c-9"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, '"},{"user":"root'])
def test_another_id_is_replaced(given: str) -> None:
    made = ask(**{"X-Request-Id": given}).headers["X-Request-Id"]

    assert made != given
    assert len(made) == 24


def test_every_answer_forbids_sniffing_and_keeping() -> None:
    headers = ask().headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_an_answer_that_may_be_kept_says_so_itself() -> None:
    assert ask("/kept").headers.getlist("Cache-Control") == ["public, max-age=60"]


def test_the_level_switches_the_lines_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "ragkeeper.access")
    written: list[bytes] = []

    ask("/", written)
    access.note_refusal({"REQUEST_METHOD": "GET", access.REQUEST_ID: "abc-1"}, 408, 1, written.append)

    assert not written


def test_what_was_refused_in_front_leaves_a_line_of_the_same_form() -> None:
    written: list[bytes] = []
    environ = {"REQUEST_METHOD": "POST", "REMOTE_ADDR": "192.0.2.7", access.REQUEST_ID: "abc-1"}

    access.note_refusal(environ, 408, 1_500_000, written.append)
    ask("/", written)

    [refused, usual] = map(json.loads, written)
    assert refused.keys() == usual.keys()
    assert refused.pop("at") > 1_600_000_000_000
    assert refused == {
        "method": "POST",
        "route": None,
        "status": 408,
        "ms": 1.5,
        "user": None,
        "credential": None,
        "address": "192.0.2.7",
        "request_id": "abc-1",
    }


def test_the_event_loop_waits_for_no_log(log: LogPipe) -> None:
    filled = fill_pipe(log.writing)
    access.write_line_at_once(b"{}")
    log.read(filled)
    access.write_line_at_once(b'{"at":1}')

    assert log.lines() == [{"at": 1}]


def test_a_line_is_written_whole_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    access.write_line(b'{"at":1}')

    assert capfd.readouterr().out == '{"at":1}\n'


def test_a_log_that_cant_be_written_stops_nothing(log: LogPipe, monkeypatch: pytest.MonkeyPatch) -> None:
    os.close(log.reading)
    log.reading = os.dup(log.writing)

    access.write_line(b"{}")
    assert Client(access.logging_access(app)).get("/").status_code == 200
    monkeypatch.setattr(access, "_STDOUT", -1)
    access.write_line(b"{}")


class LogPipe:
    """A standard output that nobody reads until it is asked what came."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def read(self, length: int) -> None:
        """Take so many bytes out."""
        while length > 0:
            length -= len(os.read(self.reading, length))

    def lines(self) -> list[dict[str, Any]]:
        """What is there."""
        os.set_blocking(self.reading, False)
        found = b""
        with suppress(BlockingIOError):
            while part := os.read(self.reading, 65536):
                found += part
        return [json.loads(line) for line in found.splitlines()]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogPipe]:
    """The log that access lines go to."""
    made = LogPipe()
    monkeypatch.setattr(access, "_STDOUT", made.writing)
    yield made
    os.close(made.reading)
    os.close(made.writing)


class Writes(LogStream):
    """A log that is a list of what was written in one piece, and with it by which thread."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.threads: list[threading.Thread] = []

    def offer(self, data: bytes) -> bool:
        """Takes everything."""
        self.write(data)
        return True

    def write(self, text: str | bytes) -> None:
        """Takes everything."""
        assert isinstance(text, bytes)
        self.pieces.append(text)
        self.threads.append(threading.current_thread())


class Waiting(Writes):
    """The same, whose reader has to be waited for."""

    def offer(self, data: bytes) -> bool:
        """Takes nothing at once."""
        return False


async def ask_on_a_loop(front: Any, count: int) -> None:
    """Ask so often, in one round of an event loop, and let it end."""
    client = Client(front)
    for number in range(count):
        client.get("/", headers={"X-Request-Id": f"r{number}"})
    await asyncio.sleep(0)
    await asyncio.get_running_loop().shutdown_default_executor()


def ids_of(pieces: list[bytes]) -> list[str]:
    return [json.loads(line)["request_id"] for piece in pieces for line in piece.splitlines()]


def test_lines_of_a_round_of_the_event_loop_are_written_together_and_none_is_torn() -> None:
    writes = Writes()

    asyncio.run(ask_on_a_loop(access.logging_access(app, access.Lines(writes)), 40))

    assert ids_of(writes.pieces) == [f"r{number}" for number in range(40)]
    assert len(writes.pieces) < 10
    # A write of so many bytes is atomic (pipe(7)).
    assert all(len(piece) <= select.PIPE_BUF and piece.endswith(b"\n") for piece in writes.pieces)


def test_a_reader_that_has_to_be_waited_for_keeps_no_event_loop_waiting_and_misses_no_line() -> None:
    writes = Waiting()

    asyncio.run(ask_on_a_loop(access.logging_access(app, access.Lines(writes)), 3))

    assert ids_of(writes.pieces) == ["r0", "r1", "r2"]
    assert threading.main_thread() not in writes.threads


def test_no_more_lines_wait_for_a_slow_reader_than_are_bounded_and_the_others_count_as_missed() -> None:
    goes_on = threading.Event()
    missed: list[int] = []

    class Slow(Waiting):
        def write(self, text: str | bytes) -> None:
            assert goes_on.wait(5)
            super().write(text)

        def miss(self, count: int) -> None:
            missed.append(count)

    writes = Slow()
    lines = access.Lines(writes)
    front = access.logging_access(app, lines)

    async def on_a_loop() -> None:
        client = Client(front)
        # As long as a thread waits for the reader.
        with lines._lock:
            for number in range(10):
                client.get("/", headers={"X-Request-Id": f"r{number}"})
                await asyncio.sleep(0)
        goes_on.set()
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.sleep(0)

    asyncio.run(on_a_loop())
    assert sorted(ids_of(writes.pieces)) == ["r0", "r1", "r2", "r3"]
    assert missed == []

    asyncio.run(ask_on_a_loop(front, 1))
    assert missed == [6]
    assert len(writes.pieces) == 5


def test_while_a_thread_waits_for_the_reader_the_event_loop_does_not() -> None:
    goes_on = threading.Event()
    waits = threading.Event()

    class Slow(Writes):
        def write(self, text: str | bytes) -> None:
            waits.set()
            assert goes_on.wait(5)
            super().write(text)

        def offer(self, data: bytes) -> bool:
            raise AssertionError("whoever has the lock is waiting")

    writes = Slow()
    lines = access.Lines(writes)
    thread = threading.Thread(target=lines.write, args=(b'{"request_id":"first"}',))

    async def on_a_loop() -> None:
        thread.start()
        assert waits.wait(5)
        asyncio.get_running_loop().call_later(0.01, goes_on.set)
        await ask_on_a_loop(access.logging_access(app, lines), 1)

    asyncio.run(on_a_loop())
    thread.join()

    assert ids_of(writes.pieces) == ["first", "r0"]


def test_a_reader_that_is_stuck_stops_no_answer_and_learns_how_many_lines_it_has_missed(
    log: LogPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_PATIENCE_S", 0.01)
    client = Client(access.logging_access(app))
    filled = fill_pipe(log.writing)

    assert [client.get("/").status_code for _ in range(5)] == [200] * 5
    log.read(filled)
    client.get("/", headers={"X-Request-Id": "then"})

    told, line = log.lines()
    assert told == {"dropped": 5, "why": "standard output was not read"}
    assert line["request_id"] == "then"
