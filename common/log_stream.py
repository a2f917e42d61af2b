"""Where log lines go: standard error, which somebody reads, or doesn't."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from functools import partial

_STDERR = 2
# Once so long for a reader that is slow for a moment. Others wait meanwhile, an event loop among them.
_PATIENCE_S = 0.05


class LogStream:
    """The stream of a log handler, which writes to it by one thread at a time.

    Whoever logs waits for no reader that is stuck: what it doesn't take is dropped, and when it reads again the next
    line comes with one that says how much that was. There is nothing beside it to be ended: no thread, and no queue.
    """

    def __init__(self, descriptor: int = _STDERR) -> None:
        self._send = _sender(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._pid = os.getpid()
        self._dropped = 0
        self._is_stuck = False
        # A line that had begun when the reader stopped.
        self._is_cut = False

    def write(self, text: str) -> None:
        """Write a text, or drop it. Returns within _PATIENCE_S."""
        ends_at = time.monotonic() + _PATIENCE_S
        if self._pid != os.getpid():
            # What the process dropped that forked this one is that one's to tell.
            self._pid, self._dropped = os.getpid(), 0
        told = f"{self._dropped} log lines were dropped: standard error was not read\n"
        if self._dropped and self._put(told, ends_at):
            self._dropped = 0
        if self._dropped or not self._put(text, ends_at):
            self._dropped += 1

    def _put(self, text: str, ends_at: float) -> bool:
        rest = text.encode(errors="backslashreplace")
        length = len(rest)
        if self._is_cut:
            rest = b"\n" + rest
        while rest:
            try:
                # Pieces of this size are taken whole or not at all.
                rest = rest[self._send(rest[: select.PIPE_BUF]) :]
            except BlockingIOError:
                if not self._is_read_by(ends_at):
                    self._is_cut = self._is_cut or len(rest) < length
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


def _sender(descriptor: int) -> Callable[[bytes], int]:
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
    return partial(os.write, anew)


def _write_if_writable(descriptor: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(descriptor, data)
