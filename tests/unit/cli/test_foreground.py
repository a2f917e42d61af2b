"""The supervisor in the foreground: what it starts can be told to stop from the first moment on."""

from __future__ import annotations

import os
import signal

import pytest

from common.cli.foreground import _Foreground

_NOT_STOPPED = 7


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_that_comes_before_a_child_is_another_program_ends_it(told: signal.Signals) -> None:
    before = signal.signal(told, lambda *_: None)
    try:
        pid = _Foreground().fork()
        if not pid:
            os.kill(os.getpid(), told)
            os._exit(_NOT_STOPPED)
        _, status = os.waitpid(pid, 0)
    finally:
        signal.signal(told, before)

    assert os.waitstatus_to_exitcode(status) == -told


def test_the_supervisor_itself_keeps_its_handlers_and_hears_its_signals() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        pid = _Foreground().fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert heard == [signal.SIGTERM]
