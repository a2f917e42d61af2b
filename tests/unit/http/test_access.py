from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Request, Response

from common.http import access
from common.services.principal import Principal


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
    front = access.logging_access(app, ([] if written is None else written).append)
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


def test_the_event_loop_waits_for_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(access, "_STDOUT", writer)
    try:
        os.set_blocking(writer, False)
        # As much as goes into the pipe.
        os.write(writer, bytes(2**20))
        os.set_blocking(writer, True)
        access.write_line_at_once(b"{}")
        os.read(reader, 2**20)
        access.write_line_at_once(b"{}")
        assert os.read(reader, 2**20) == b"{}\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_line_is_written_whole_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    access.write_line(b'{"at":1}')

    assert capfd.readouterr().out == '{"at":1}\n'


def test_a_log_that_cant_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(access, "_STDOUT", writer)
    try:
        access.write_line(b"{}")
    finally:
        os.close(writer)
    monkeypatch.setattr(access, "_STDOUT", -1)
    access.write_line(b"{}")


@pytest.fixture
def log_pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The two ends of a pipe that is the log."""
    reading, writing = os.pipe()
    monkeypatch.setattr(access, "_STDOUT", writing)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_lines_of_a_round_of_the_event_loop_are_written_together_and_none_is_torn(log_pipe: tuple[int, int]) -> None:
    pieces: list[bytes] = []

    async def on_a_loop() -> None:
        client = Client(access.logging_access(app, pieces.append))
        for number in range(40):
            client.get("/", headers={"X-Request-Id": f"r{number}"})
        await asyncio.sleep(0)

    asyncio.run(on_a_loop())

    noted = [json.loads(line)["request_id"] for piece in pieces for line in piece.split(b"\n")]
    assert noted == [f"r{number}" for number in range(40)]
    assert len(pieces) < 10
    # A write of so many bytes is atomic (pipe(7)); the newline at the end comes on top.
    assert all(len(piece) < select.PIPE_BUF for piece in pieces)


def test_a_log_that_fills_up_before_the_round_ends_is_written_by_a_thread(log_pipe: tuple[int, int]) -> None:
    _, writing = log_pipe
    written = threading.Event()
    lines: list[bytes] = []
    by: list[threading.Thread] = []

    def write(line: bytes) -> None:
        lines.append(line)
        by.append(threading.current_thread())
        written.set()

    async def on_a_loop() -> None:
        Client(access.logging_access(app, write)).get("/")
        _fill(writing)
        await asyncio.to_thread(written.wait, 5)

    asyncio.run(on_a_loop())

    [line] = lines
    assert json.loads(line)["status"] == 200
    assert by != [threading.main_thread()]


def _fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while os.write(pipe, b"." * 4096):
            pass


def test_a_log_that_is_full_keeps_no_event_loop_waiting_and_loses_no_line(log_pipe: tuple[int, int]) -> None:
    _fill(log_pipe[1])
    written: list[bytes] = []
    left: list[Callable[[], None]] = []

    async def on_a_loop() -> None:
        front = access.logging_access(app, written.append)
        Client(front).get("/", environ_base={access.BEFORE_THE_ANSWER: left})

    asyncio.run(on_a_loop())

    assert not written
    [line] = left
    line()
    assert json.loads(written[0])["status"] == 200
