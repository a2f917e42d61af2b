"""``python -m common.cli.foreground -n -c FILE``: the supervisor, for the terminal or service that it is started in.

By itself it takes SIGHUP, which comes when its terminal is closed, for an order to start its programs anew; and where
nobody reads its output it would wait for that, and neither stop its programs nor start one that has ended.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

from supervisor import loggers, supervisord
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ProcessConfig, ServerOptions
from supervisor.states import SupervisorStates

from common.log_stream import LogStream

_STDOUT, _STDERR = 1, 2
_NAMES = {_STDOUT: "standard output", _STDERR: "standard error"}
# So long for a reader that is slow, once until it reads again. Meanwhile neither programs nor signals are heard.
_PATIENCE_S = 0.1
# What programs are told to stop with.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class _Output(io.RawIOBase):
    """Standard output or error, of which a reader that is stuck misses some, and learns how much; one that is gone,
    all: the supervisor tells there of output that can't be written, and would end on the spot if that failed too."""

    def __init__(self, descriptor: int) -> None:
        def told(count: int) -> str:
            return f"{count} lines were dropped: {_NAMES[descriptor]} was not read\n"

        self._stream = LogStream(descriptor, patience_s=_PATIENCE_S, told=told)

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data))
        return len(data)

    def close(self) -> None:
        """Nothing: it outlives the handlers that write to it."""


class _Text(io.TextIOBase):
    """The same, for what the supervisor itself says."""

    def __init__(self, output: _Output) -> None:
        self._output = output

    def write(self, text: str) -> int:
        self._output.write(text.encode(errors="backslashreplace"))
        return len(text)

    def close(self) -> None:
        """Nothing, as above."""


class _Program(ProcessConfig):  # type: ignore[misc]
    """A program whose output goes to the supervisor's."""

    def make_dispatchers(self, proc: Any) -> Any:
        dispatchers, pipes = super().make_dispatchers(proc)
        for name, output in self.options.outputs.items():
            handler = loggers.StreamHandler(output)
            handler.setFormat("%(message)s")
            dispatcher = dispatchers[pipes[name]]
            dispatcher.normallog = dispatcher.childlog = loggers.Logger(handlers=[handler])
        return dispatchers, pipes


class _Foreground(ServerOptions):  # type: ignore[misc]
    """The supervisor's options, which set its signals: SIGHUP ends it, unless it was ignored at the start (nohup)."""

    def __init__(self, outputs: dict[str, _Output]) -> None:
        super().__init__()
        self.outputs = outputs

    def processes_from_section(self, parser: Any, section: str, group_name: str, klass: Any = None) -> Any:
        return super().processes_from_section(parser, section, group_name, _Program)

    def cleanup_fds(self) -> None:
        """Nothing: what is open when it starts are the lock of the home, and the outputs."""

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
        try:
            pid = os.fork()
            if not pid:
                for each in _STOPS:
                    signal.signal(each, signal.SIG_DFL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid


def main() -> None:
    """As ``supervisord.main``: again when ``supervisorctl reload`` says so."""
    outputs = {"stdout": _Output(_STDOUT), "stderr": _Output(_STDERR)}
    sys.stdout, sys.stderr = (_Text(output) for output in outputs.values())
    is_first = True
    while True:
        options = _Foreground(outputs)
        options.realize(None, doc=supervisord.__doc__)
        options.first, options.test = is_first, False
        with suppress(asyncore.ExitNow):
            supervisord.Supervisor(options).main()
        options.close_httpservers()
        options.close_logger()
        if options.mood < SupervisorStates.RESTARTING:
            return
        is_first = False


if __name__ == "__main__":
    main()
