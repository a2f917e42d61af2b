"""Around the app: the id of a request, the headers that every answer carries, and a line of JSON in the access log."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from common.http.wsgi_types import Application, Environ
from common.log_stream import LogStream
from common.services.principal import Principal
from common.stores.waiting import on_event_loop

# What the app and its front tell each other in the environ of a request.
REQUEST_ID, ROUTE, WHO = "ragkeeper.request_id", "ragkeeper.route", "ragkeeper.who"
# There once the line of the request is written.
NOTED = "ragkeeper.noted"
# There once the request has counted within its limits: what is begun anew in a thread doesn't count again.
COUNTED = "ragkeeper.counted"
# The set of the fields that came more than once; their values stand joined.
REPEATED = "ragkeeper.repeated"
# A list, where whoever asks the app does for it, elsewhere and before the answer is sent, what may have to wait.
BEFORE_THE_ANSWER = "ragkeeper.before_the_answer"

access_log = logging.getLogger("ragkeeper.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STDOUT = 1
# So long for a reader that is slow, once until it reads again.
_PATIENCE_S = 1.0
# So many pieces of up to PIPE_BUF bytes may wait for it; each may take that long.
_MOST_WAITING = 4


def write_line(line: bytes) -> None:
    """Write a line to standard output, and wait until it is taken: for what must not be dropped, before anything is
    served. An output that is gone stops nothing."""
    try:
        os.write(_STDOUT, line + b"\n")
    except OSError:
        return


def write_line_at_once(line: bytes) -> None:
    """For the event loop: a line for which the log would have to be waited for is dropped."""
    LogStream(_STDOUT).offer(line + b"\n")


class Lines:
    """Access lines of threads and of the event loop.

    What the event loop answers in one of its rounds has its lines written by one system call, which is what they cost;
    they follow the answers by as long as the round takes. A reader that is slow is waited for, in a thread; one that
    is stuck is not, and learns later how many lines it has missed.
    """

    def __init__(self, stream: LogStream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._together = bytearray()
        # Pieces of the event loop's that wait for a thread, and lines for which there was no room among them.
        self._waiting = 0
        self._missed = 0

    def write(self, line: bytes) -> None:
        """Write a line from a thread."""
        self._put(line + b"\n")

    def write_soon(self, line: bytes) -> None:
        """Write a line from the event loop, at the end of its round."""
        if len(self._together) + len(line) >= select.PIPE_BUF:
            # What is longer might be torn apart by lines of other processes.
            self._flush()
        if not self._together:
            asyncio.get_running_loop().call_soon(self._flush)
        self._together += line + b"\n"

    def _flush(self) -> None:
        lines, self._together = bytes(self._together), bytearray()
        if not lines or self._is_taken(lines):
            return
        if self._waiting >= _MOST_WAITING:
            self._missed += lines.count(b"\n")
            return
        self._waiting += 1
        waits = asyncio.get_running_loop().run_in_executor(None, self._put, lines)
        waits.add_done_callback(self._end_wait)

    def _end_wait(self, _: asyncio.Future[None]) -> None:
        self._waiting -= 1

    def _is_taken(self, lines: bytes) -> bool:
        # Whoever has the lock may be waiting for the reader.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._missed:
                self._stream.miss(self._missed)
                self._missed = 0
            return self._stream.offer(lines)
        finally:
            self._lock.release()

    def _put(self, lines: bytes) -> None:
        with self._lock:
            self._stream.write(lines)


def _told(count: int) -> str:
    return f'{{"dropped":{count},"why":"standard output was not read"}}\n'


def new_id() -> str:
    """An id for a request that brought none."""
    return os.urandom(12).hex()


def record_aside(environ: Environ, record: Callable[[], None]) -> None:
    """Have something recorded before the answer goes out. Readers don't wait for the lock of the database's writers, so
    what asks for them takes the record along."""
    elsewhere: list[Callable[[], None]] | None = environ.get(BEFORE_THE_ANSWER)
    if elsewhere is None:
        record()
    else:
        elsewhere.append(record)


def id_for(environ: Environ) -> str:
    """The id of a request: its ``X-Request-Id``, whoever sent it, if that is well formed, else a new one."""
    given: str = environ.get("HTTP_X_REQUEST_ID", "")
    return given if _REQUEST_ID.fullmatch(given) else new_id()


def note_refusal(
    environ: Environ, status: int, elapsed_ns: int, write: Callable[[bytes], None] = write_line_at_once
) -> None:
    """The line of a request that was answered in front of the app; none where the app has written it before it failed.

    ``environ`` has the method (None where it can't be told), the address and the id.
    """
    if NOTED not in environ and access_log.isEnabledFor(logging.INFO):
        write(_line(environ, status, elapsed_ns))


def logging_access(app: Application, lines: Lines | None = None) -> Application:
    """The app behind a front that gives each request its id and each answer its headers, and notes both.

    The level of ``ragkeeper.access`` switches the lines on (INFO) and off.
    """
    noted = lines or Lines(LogStream(_STDOUT, patience_s=_PATIENCE_S, told=_told))

    def front(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        started = time.perf_counter_ns()
        request_id = environ[REQUEST_ID] = id_for(environ)

        def begin(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers.append(("X-Request-Id", request_id))
            headers.append(("X-Content-Type-Options", "nosniff"))
            if not any(name == "Cache-Control" for name, _ in headers):
                headers.append(("Cache-Control", "no-store"))
            if access_log.isEnabledFor(logging.INFO):
                write = noted.write_soon if on_event_loop() else noted.write
                write(_line(environ, int(status[:3]), time.perf_counter_ns() - started))
                environ[NOTED] = True
            return start_response(status, headers, exc_info)

        return app(environ, begin)

    return front


def _line(environ: Environ, status: int, elapsed_ns: int) -> bytes:
    who: Principal | None = environ.get(WHO)
    return orjson.dumps(
        {
            "at": time.time_ns() // 1_000_000,
            "method": environ["REQUEST_METHOD"],
            "route": environ.get(ROUTE),
            "status": status,
            "ms": round(elapsed_ns / 1e6, 2),
            "user": who.user_id if who else None,
            "credential": who.credential if who else None,
            "address": environ.get("REMOTE_ADDR"),
            "request_id": environ[REQUEST_ID],
        }
    )
