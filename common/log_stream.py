"""Where lines go: to standard error or standard output, which somebody reads, or doesn't."""

from __future__ import annotations

import os
import select
import stat
import time
import weakref
from collections.abc import Callable
from functools import partial

_STDERR = 2
# Once so long for a reader that is slow for a moment. Others wait meanwhile, an event loop among them.
_PATIENCE_S = 0.05


def _in_words(count: int) -> str:
    return f"{count} log lines were dropped: standard error was not read\n"


class LogStream:
    """The stream of a log handler, which writes to it by one thread at a time.

    Whoever logs waits for no reader that is stuck, for longer than ``patience_s`` and more than once: what it doesn't
    take is dropped, and when it reads again the next line comes after one, made by ``told``, that says how many lines
    that were. There is nothing beside it to be ended: no thread, and no queue.
    """

    def __init__(
        self,
        descriptor: int = _STDERR,
        *,
        patience_s: float = _PATIENCE_S,
        told: Callable[[int], str] = _in_words,
    ) -> None:
        self._patience_s = patience_s
        self._told = told
        self._send = self._sender(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._pid = os.getpid()
        self._dropped = 0
        self._is_stuck = False
        # A line that had begun when the reader stopped.
        self._is_cut = False

    def write(self, text: str | bytes) -> None:
        """Write a text, or drop it. Returns within ``patience_s``."""
        ends_at = time.monotonic() + self._patience_s
        if self._pid != os.getpid():
            # What the process dropped that forked this one is that one's to tell.
            self._pid, self._dropped = os.getpid(), 0
        if self._dropped and self._put(_encoded(self._told(self._dropped)), ends_at):
            self._dropped = 0
        data = _encoded(text)
        if self._dropped or not self._put(data, ends_at):
            self._dropped += max(1, data.count(b"\n"))

    def offer(self, data: bytes) -> bool:
        """Write whole lines if that can be done without waiting; whether it was. Else ``write`` may be asked to."""
        return not self._dropped and self._put(data, None)

    def miss(self, count: int) -> None:
        """Count so many lines as dropped that could not even wait."""
        self._dropped += count

    def _put(self, data: bytes, ends_at: float | None) -> bool:
        rest = b"\n" + data if self._is_cut else data
        while rest:
            try:
                # Pieces of this size are taken whole or not at all.
                rest = rest[self._send(rest[: select.PIPE_BUF]) :]
            except BlockingIOError:
                if ends_at is None or not self._is_read_by(ends_at):
                    self._is_cut = self._is_cut or len(rest) < len(data)
                    return False
            except OSError:
                # A log that can't be written stops nothing, as with Python's logging.
                return True
        self._is_cut = self._is_stuck = False
        return True

    def _is_read_by(self, ends_at: float) -> bool:
        """Wait for the reader, unless it has been waited for since it read last."""
        left_s = ends_at - time.monotonic()
        self._is_stuck = self._is_stuck or left_s <= 0 or not self._poll.poll(left_s * 1000)
        return not self._is_stuck

    def _sender(self, descriptor: int) -> Callable[[bytes], int]:
        """Writes what can be written without waiting, and raises BlockingIOError where that is nothing.

        The descriptor stays as it is: programs that share it expect to be kept waiting.
        """
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return partial(os.write, descriptor)
            anew = os.open(f"/dev/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            # A socket, or another user's terminal: nearly as good, as long as few write there. Or one that is closed.
            return partial(_write_if_writable, descriptor)
        # Not at the end of the process: who still writes then would write to what has got the number meanwhile.
        weakref.finalize(self, os.close, anew).atexit = False
        return partial(os.write, anew)


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode(errors="backslashreplace")


def _write_if_writable(descriptor: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(descriptor, data)
