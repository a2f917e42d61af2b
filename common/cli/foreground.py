"""``python -m common.cli.foreground -n -c FILE``: the supervisor, for the terminal that it is started in.

By itself it takes SIGHUP, which comes when its terminal is closed, for an order to start its programs anew.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from supervisor import supervisord
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates

_STDERR = 2
# What programs are told to stop with.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class _Foreground(ServerOptions):  # type: ignore[misc]
    """The supervisor's options, which set its signals: SIGHUP ends it, unless it was ignored at the start (nohup)."""

    def setsignals(self) -> None:
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        super().setsignals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else self._hang_up)

    def _hang_up(self, _number: int, frame: FrameType | None) -> None:
        self.signal_receiver.receive(signal.SIGTERM, frame)

    def fork(self) -> int:
        """A child in which a stop is one at once: until it is another program, the supervisor's handlers would take it
        for the supervisor's, and the program that was just being started would go on until it is killed."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        pid = os.fork()
        if not pid:
            for each in _STOPS:
                signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid


class _MaybeGone(io.TextIOBase):
    """Standard error, whose reader may be gone before the signal comes that says so.

    The supervisor tells there of output that can't be written, and would end on the spot if that failed too.
    """

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(_STDERR, text.encode(errors="backslashreplace"))
        return len(text)


def main() -> None:
    """As ``supervisord.main``: again when ``supervisorctl reload`` says so."""
    sys.stderr = _MaybeGone()
    is_first = True
    while True:
        options = _Foreground()
        options.realize(None, doc=supervisord.__doc__)
        options.first, options.test = is_first, False
        with suppress(asyncore.ExitNow):
            supervisord.Supervisor(options).main()
        options.close_httpservers()
        options.close_logger()
        if options.mood < SupervisorStates.RESTARTING:
            return _let_go_of_output()
        is_first = False


def _let_go_of_output() -> None:
    """An end that was asked for is a good one also where nobody reads any more: Python would end with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
