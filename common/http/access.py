"""Around the app: the id of a request, the headers that every answer carries, and a line of JSON in the access log."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import orjson

from common.http.wsgi_types import Application, Environ
from common.services.principal import Principal
from common.stores.waiting import on_event_loop

# What the app and its front tell each other in the environ of a request.
REQUEST_ID, ROUTE, WHO = "ragkeeper.request_id", "ragkeeper.route", "ragkeeper.who"
# There once the line of the request is written.
NOTED = "ragkeeper.noted"
# There once the request has counted within its limits: what is begun anew in a thread doesn't count again.
COUNTED = "ragkeeper.counted"
# A list, where whoever asks the app does for it, elsewhere and before the answer is sent, what may have to wait.
BEFORE_THE_ANSWER = "ragkeeper.before_the_answer"

access_log = logging.getLogger("ragkeeper.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STDOUT = 1


def write_line(line: bytes) -> None:
    """Write a line to standard output at once. A log that can't be written stops no answer, as with Python's logging.

    One system call, so that lines of several threads and processes stay whole; a tenth of what a log record costs.
    """
    try:
        os.write(_STDOUT, line + b"\n")
    except OSError:
        return


def write_line_at_once(line: bytes) -> None:
    """``write_line`` for the event loop: a line for which the log would have to be waited for is dropped."""
    if _is_writable():
        write_line(line)


def _is_writable() -> bool:
    poll = select.poll()
    poll.register(_STDOUT, select.POLLOUT)
    return bool(poll.poll(0))


class _Together:
    """Lines of an event loop: those of one of its rounds are written by one system call, which is what they cost.

    They follow the answers that they are about, by as long as the round takes.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._lines = bytearray()

    def add(self, line: bytes) -> None:
        """Have a line written soon. The log has just been seen to take one."""
        if len(self._lines) + len(line) >= select.PIPE_BUF:
            # What is longer might be torn apart by lines of other processes.
            self._flush()
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines += line + b"\n"

    def _flush(self) -> None:
        if not self._lines:
            return
        lines, self._lines = bytes(self._lines[:-1]), bytearray()
        if _is_writable():
            self._write(lines)
        else:
            asyncio.get_running_loop().run_in_executor(None, self._write, lines)


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


def logging_access(app: Application, write: Callable[[bytes], None] = write_line) -> Application:
    """The app behind a front that gives each request its id and each answer its headers, and notes both.

    The level of ``ragkeeper.access`` switches the lines on (INFO) and off.
    """

    together = _Together(write)

    def note(environ: Environ, line: bytes) -> None:
        if not on_event_loop():
            write(line)
        elif _is_writable():
            together.add(line)
        else:
            record_aside(environ, partial(write, line))

    def front(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        started = time.perf_counter_ns()
        request_id = environ[REQUEST_ID] = id_for(environ)

        def begin(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers.append(("X-Request-Id", request_id))
            headers.append(("X-Content-Type-Options", "nosniff"))
            if not any(name == "Cache-Control" for name, _ in headers):
                headers.append(("Cache-Control", "no-store"))
            if access_log.isEnabledFor(logging.INFO):
                note(environ, _line(environ, int(status[:3]), time.perf_counter_ns() - started))
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
