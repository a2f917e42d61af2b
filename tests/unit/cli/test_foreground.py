"""The supervisor in the foreground: what it starts can be told to stop from the first moment on."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from common.cli import foreground
from common.cli.foreground import _Foreground, _Output, _Text
from tests.pipes import fill_pipe

_NOT_STOPPED = 7


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_that_comes_before_a_child_is_another_program_ends_it(told: signal.Signals) -> None:
    before = signal.signal(told, lambda *_: None)
    try:
        pid = _Foreground({}).fork()
        if not pid:
            os.kill(os.getpid(), told)
            os._exit(_NOT_STOPPED)
        _, status = os.waitpid(pid, 0)
    finally:
        signal.signal(told, before)

    assert os.waitstatus_to_exitcode(status) == -told


def test_a_fork_that_fails_leaves_the_supervisor_its_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise OSError(errno.EAGAIN, "no room for another process")

    monkeypatch.setattr(os, "fork", full)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(OSError, match="no room"):
        _Foreground({}).fork()

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_the_supervisor_itself_keeps_its_handlers_and_hears_its_signals() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        pid = _Foreground({}).fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert heard == [signal.SIGTERM]


def test_a_reader_that_was_stuck_learns_how_much_of_the_programs_output_it_has_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    try:
        monkeypatch.setattr(foreground, "_PATIENCE_S", 0.01)
        monkeypatch.setitem(foreground._NAMES, writer, "standard output")
        output = _Output(writer)
        filled = fill_pipe(writer)
        assert output.write(b"one\ntwo\n") == 8
        while filled > 0:
            filled -= len(os.read(reader, filled))
        assert _Text(output).write("caf\u00e9\n") == 5

        assert os.read(reader, 4096).decode() == "2 lines were dropped: standard output was not read\ncaf\u00e9\n"
    finally:
        os.close(reader)
        os.close(writer)
