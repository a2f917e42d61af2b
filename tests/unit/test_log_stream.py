"""Log lines for a reader that reads, is stuck, or is gone."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from common.log_stream import LogStream
from tests.pipes import fill_pipe


class Pipe:
    """A standard error that nobody reads until ``read``."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def read(self, length: int) -> bytes:
        """Exactly so many bytes."""
        found = b""
        while len(found) < length:
            found += os.read(self.reading, length - len(found))
        return found

    def rest(self) -> str:
        """All that is there."""
        os.set_blocking(self.reading, False)
        found = b""
        with suppress(BlockingIOError):
            while part := os.read(self.reading, 65536):
                found += part
        return found.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.writing)
    os.close(made.reading)


def test_lines_are_written_in_their_order_and_the_descriptor_stays_as_it_was(pipe: Pipe) -> None:
    stream = LogStream(pipe.writing)
    for number in range(200):
        stream.write(f"line {number}\n")

    assert pipe.rest() == "".join(f"line {number}\n" for number in range(200))
    assert os.get_blocking(pipe.writing)


def test_whoever_logs_waits_for_no_reader_and_what_was_dropped_is_told(pipe: Pipe) -> None:
    filled = fill_pipe(pipe.writing)
    stream = LogStream(pipe.writing)
    for number in range(10):
        stream.write(f"line {number}\n")
    pipe.read(filled)
    for number in (10, 11):
        stream.write(f"line {number}\n")

    assert pipe.rest() == "10 log lines were dropped: standard error was not read\nline 10\nline 11\n"


def test_a_reader_that_is_slow_for_a_moment_is_waited_for(pipe: Pipe) -> None:
    filled = fill_pipe(pipe.writing)
    reader = threading.Thread(target=pipe.read, args=(filled,))
    stream = LogStream(pipe.writing, patience_s=10.0)

    reader.start()
    stream.write("line\n")
    reader.join()

    assert pipe.rest() == "line\n"


def test_what_is_offered_is_written_at_once_or_not_at_all(pipe: Pipe) -> None:
    filled = fill_pipe(pipe.writing)
    stream = LogStream(pipe.writing, patience_s=10.0)
    refused = stream.offer(b"refused\n")
    pipe.read(filled)
    taken = stream.offer(b"taken\n")

    # Nobody was waited for, so nothing was dropped and there is nothing to tell.
    assert (refused, taken, pipe.rest()) == (False, True, "taken\n")


def test_lines_that_were_dropped_are_told_before_any_other_line_and_in_the_words_of_the_log(pipe: Pipe) -> None:
    filled = fill_pipe(pipe.writing)
    stream = LogStream(pipe.writing, told=lambda count: f"-{count}\n")
    stream.write(b"one\ntwo\n")
    pipe.read(filled)
    assert not stream.offer(b"three\n")
    stream.write("three\n")

    assert pipe.rest() == "-2\nthree\n"


def test_a_stream_that_is_gone_leaves_no_descriptor(pipe: Pipe) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    LogStream(pipe.writing).write("line\n")

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_line_that_was_cut_ends_before_the_next_one_begins(pipe: Pipe) -> None:
    stream = LogStream(pipe.writing)
    stream.write("long " * 100_000 + "\n")
    begun = len(pipe.rest())
    stream.write("next\n")

    assert 0 < begun < 500_000
    assert pipe.rest() == "\n1 log lines were dropped: standard error was not read\nnext\n"


@pytest.mark.parametrize("kind", ["file", "socket"])
def test_whatever_standard_error_is_it_is_written_to(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        with (tmp_path / "log").open("ab") as file:
            LogStream(file.fileno()).write("line\n")
        assert (tmp_path / "log").read_text() == "line\n"
        return
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(0.0)
        with suppress(BlockingIOError):
            while True:
                here.send(b"." * 4096)
        here.settimeout(None)
        stream = LogStream(here.fileno())
        stream.write("dropped\n")
        there.settimeout(0.0)
        with suppress(BlockingIOError):
            while there.recv(65536):
                pass
        stream.write("line\n")
        assert there.recv(65536).endswith(b"1 log lines were dropped: standard error was not read\nline\n")


def test_letters_that_are_none_and_a_reader_that_is_gone_stop_nothing(pipe: Pipe) -> None:
    stream = LogStream(pipe.writing)
    stream.write("half a pair: \ud800\n")
    assert pipe.rest() == "half a pair: \\ud800\n"

    os.close(pipe.reading)
    stream.write("nobody\n")
    pipe.reading = os.dup(pipe.writing)


def test_what_logs_while_it_is_collected_holds_up_nobody(pipe: Pipe) -> None:
    class Dying:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            log.warning("collected")

    log = logging.getLogger("ragkeeper.test.dying")
    handler = logging.StreamHandler(LogStream(pipe.writing))
    log.addHandler(handler)
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(50):
            Dying()
            log.warning("alive")
    finally:
        gc.set_threshold(*thresholds)
        log.removeHandler(handler)
        gc.collect()

    said = pipe.rest().split("\n")
    assert said.count("alive") == 50
    assert "collected" in said


def test_a_standard_error_that_is_closed_stops_nothing() -> None:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.close(descriptor)

    LogStream(descriptor).write("nobody\n")


def test_a_process_that_was_forked_tells_of_its_own_lines_alone(pipe: Pipe) -> None:
    filled = fill_pipe(pipe.writing)
    stream = LogStream(pipe.writing)
    stream.write("dropped\n")
    pipe.read(filled)
    child = os.fork()
    if child == 0:
        stream.write("child\n")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    stream.write("parent\n")

    assert pipe.rest() == "child\n1 log lines were dropped: standard error was not read\nparent\n"
