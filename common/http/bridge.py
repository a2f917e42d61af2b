"""From the event loop to the apps: gunicorn's asgi worker in front, the Flask app behind.

Sockets are read and written by the event loop, so a client that is slow, stuck or idle holds no thread. A request takes
one only when it is there as a whole; liveness, ping and health take none at all, and neither do look-ups in an embedded
metadata store that are a matter of a moment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from common.http import early, forwarded
from common.http.access import BEFORE_THE_ANSWER, COUNTED, REPEATED, REQUEST_ID, id_for, note_refusal
from common.http.early import Headers
from common.http.lanes import Lane, LaneFull, Onward
from common.http.wsgi_types import Application, Environ
from common.stores.waiting import MustWait

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Aside = Callable[[Scope], Awaitable[tuple[int, bytes] | None]]
# Status, headers, body.
_Answer = tuple[int, Headers, bytes]

# Reads and writes have threads of their own: writers wait for each other, readers don't.
THREADS = 4
WAITING = 256
# What waits for services out there has a third set. Of outward calls half as many may be under way, so that those who
# wait for probes find a thread beside them.
WAITING_THREADS = 8
# So have requests that hash a password. How many hash at once is another matter (Plane.hashing): a login that waits for
# a locked row must not hold all others up. Whoever is last in the queue waits for a second or two.
HASHING_THREADS = 4
HASHING_WAITING = 16 * max(2, os.cpu_count() or 1)
# A body has to be there as a whole after so many seconds.
BODY_S = 20.0
# What all bodies that are being received may hold of this process's memory, in bytes; files that are uploaded by
# themselves, because four of them would leave no room for anything else.
HELD_BYTES = 64 * 1024 * 1024
# So much of a body that is too large is read and dropped, so that its sender gets to see the answer.
DROPPED_BYTES = 16 * 1024 * 1024
# What is longer is not read on the event loop: a body of many small parts takes a second for each MiB.
AT_ONCE_BYTES = 8 * 1024
# The event loop answers for so many seconds at a stretch, before it looks at its sockets again; what else is there by
# then is for the threads. Else a hundred who ask at once would be answered before anybody hears of /livez.
STRETCH_S = 0.005
_READS = ("GET", "HEAD")
_JSON, _TEXT = b"application/json", b"text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Fixed:
    """An answer that is always the same, and needs neither thread nor app."""

    body: bytes
    content_type: bytes = _JSON

    def headers(self) -> Headers:
        """The headers of a GET and of a HEAD."""
        return [
            (b"content-type", self.content_type),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]


ALIVE = Fixed(b'{"status":"ok"}')
PONG = Fixed(b"pong", _TEXT)
ADMIN_PONG = Fixed(b'{"code":0,"message":"pong","data":"PONG"}')
_DRAINING = Fixed(b'{"status":"draining","down":[]}')
_TOO_SLOW = "The body did not arrive in time."
_TOO_MANY = "Too many requests at once; try again in a moment."
_BROKEN = "Something went wrong on this side."
_NEVER = re.compile(r"(?!)")


class _BodyLate(Exception):
    """The body was not there in time, or its sender has gone."""


class _TooMuchHeld(Exception):
    """All bodies together would take more memory than they may."""


@dataclass(slots=True)
class _Bodies:
    """The bodies of one kind: how long each may be, and how much of them is held now, in bytes."""

    most: int
    held: int = 0


class Bridge:
    """An ASGI app that answers through a WSGI app.

    ``max_body`` is the app's own limit in bytes, ``max_upload`` that of what takes files: a longer body reaches it cut,
    or not at all, and it is the app that says 413 in the caller's dialect. ``drain_s`` is for how long the process goes
    on serving after it was told to stop; ``/readyz`` says 503 meanwhile. ``aside`` may answer a GET by status and JSON,
    without a thread. ``uploads``, ``hashing`` and ``waiting`` match ``METHOD /path`` of what takes files, of what may
    hash a password, and of what waits for other services; the latter two have threads of their own. What ``at_once``
    matches is asked on the event loop first, and raises MustWait where it is no matter of a moment. ``once_open`` runs
    beside in the process that serves. Answers are sent as a whole; the apps behind this have no endless ones.
    """

    def __init__(
        self,
        app: Application,
        *,
        fixed: Mapping[str, Fixed],
        max_body: int,
        drain_s: float,
        max_upload: int = 0,
        aside: Aside | None = None,
        uploads: re.Pattern[str] = _NEVER,
        hashing: re.Pattern[str] = _NEVER,
        waiting: re.Pattern[str] = _NEVER,
        at_once: re.Pattern[str] = _NEVER,
        once_open: Callable[[], None] | None = None,
    ) -> None:
        self.drain_s = drain_s
        self._hashing = hashing
        self.draining = False
        self._app = app
        self._fixed = {"/livez": ALIVE, **fixed}
        self._bodies = _Bodies(max_body)
        self._files = _Bodies(max_upload)
        self._uploads = uploads
        self._aside = aside
        self._waiting = waiting
        self._at_once = at_once
        self._once_open = once_open

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the threads, in the process that serves: threads don't survive a fork."""
        self._loop = loop
        self._stretch_ends: float | None = None
        self._reads = Lane(loop, "read", threads=THREADS, waiting=WAITING)
        self._writes = Lane(loop, "write", threads=THREADS, waiting=WAITING)
        self._waits = Lane(loop, "wait", threads=WAITING_THREADS, waiting=WAITING)
        self._hashes = Lane(loop, "hash", threads=HASHING_THREADS, waiting=HASHING_WAITING)
        if self._once_open is not None:
            threading.Thread(target=self._once_open, name="once-open", daemon=True).start()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        reads = method in _READS
        answered = await self._without_a_thread(scope) if reads and not _has_body(scope) else None
        if answered is None:
            status, headers, body = await self._through_the_app(scope, receive, reads)
        else:
            status, fixed = answered
            headers, body = fixed.headers(), fixed.body
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    async def _without_a_thread(self, scope: Scope) -> tuple[int, Fixed] | None:
        fixed = self._fixed.get(scope["path"])
        if fixed is not None:
            return 200, fixed
        if self.draining and scope["path"] == "/readyz":
            return 503, _DRAINING
        found = await self._aside(scope) if self._aside else None
        return None if found is None else (found[0], Fixed(found[1]))

    async def _through_the_app(self, scope: Scope, receive: Receive, reads: bool) -> _Answer:
        came_at = time.perf_counter_ns()
        environ = _environ(scope)
        asked = f"{scope['method']} {scope['path']}"
        body, kind = bytearray(), self._bodies
        try:
            if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
                if self._uploads.fullmatch(asked):
                    kind = self._files
                async with asyncio.timeout(BODY_S):
                    await _read_body(environ, receive, body, kind)
            if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
                environ["CONTENT_LENGTH"] = str(len(body))
            status, headers, content = await self._ask(asked, environ, body, reads)
        except (TimeoutError, _BodyLate):
            return _refusal(environ, came_at, 408, _TOO_SLOW, (b"connection", b"close"))
        except (LaneFull, _TooMuchHeld):
            return _refusal(environ, came_at, 503, _TOO_MANY, (b"retry-after", b"1"))
        except Exception:  # the last resort behind the app's own, which answers everything that it can
            log.exception("the app itself failed on %s %s", scope["method"], scope["path"])
            return _refusal(environ, came_at, 500, _BROKEN)
        finally:
            kind.held -= len(body)
        return status, headers, content

    async def _ask(self, asked: str, environ: Environ, body: bytearray, reads: bool) -> _Answer:
        """Ask the app here, where its answer is a matter of a moment, else in a thread."""
        if self._at_once.fullmatch(asked) and len(body) <= AT_ONCE_BYTES and self._goes_on():
            came = environ.copy()
            environ |= {"wsgi.input": BytesIO(body), BEFORE_THE_ANSWER: []}
            try:
                answered = self._call(environ)
            except MustWait:
                counted = {COUNTED: True} if COUNTED in environ else {}
                environ.clear()
                environ |= came | counted
            else:
                return await self._reads.pass_on(answered) if isinstance(answered, Onward) else answered
        lane = self._lane_of(asked, reads)
        environ["wsgi.input"] = BytesIO(body)
        if lane is self._reads:
            environ[BEFORE_THE_ANSWER] = []
        return await lane.run(self._call, environ)

    def _goes_on(self) -> bool:
        """Whether the event loop has time left in the stretch that is under way, which begins with the first call."""
        now = time.monotonic()
        if self._stretch_ends is None:
            self._stretch_ends = now + STRETCH_S
            self._loop.call_soon(self._end_stretch)
        return now < self._stretch_ends

    def _end_stretch(self) -> None:
        self._stretch_ends = None

    def _lane_of(self, asked: str, reads: bool) -> Lane:
        if self._hashing.fullmatch(asked):
            return self._hashes
        if self._waiting.fullmatch(asked):
            return self._waits
        return self._reads if reads else self._writes

    def _call(self, environ: Environ) -> _Answer | Onward:
        """Ask the app. A reader that has something written goes on where writers wait for each other."""
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            started[:] = [(status, headers)]

        chunks = self._app(environ, start_response)
        try:
            content = b"".join(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        [(status, headers)] = started
        answer = int(status[:3]), [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers], content
        writes = environ.get(BEFORE_THE_ANSWER)
        return Onward(self._writes, _written, (writes, answer)) if writes else answer


def _has_body(scope: Scope) -> bool:
    """Whether a request brings a body: it is read before the answer, which its sender might not get otherwise."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


async def _read_body(environ: Environ, receive: Receive, body: bytearray, kind: _Bodies) -> None:
    """Fill ``body``, up to one byte beyond what the app takes; that byte is what makes it too large."""
    declared = environ.get("CONTENT_LENGTH", "")
    length = int(declared) if declared.isdecimal() else 0
    wanted = 0 if length > kind.most else kind.most + 1
    if not wanted and ("HTTP_EXPECT" in environ or length > DROPPED_BYTES):
        # It waits for a word before it sends, and the answer is that word; or it is too much to wait for.
        return
    dropped = 0
    while dropped <= DROPPED_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            raise _BodyLate
        chunk: bytes = message.get("body", b"")
        taken = chunk[: wanted - len(body)]
        if kind.held + len(taken) > HELD_BYTES:
            raise _TooMuchHeld
        kind.held += len(taken)
        body += taken
        dropped += len(chunk) - len(taken)
        if not message.get("more_body"):
            return


def _written(what: tuple[list[Callable[[], None]], _Answer]) -> _Answer:
    writes, answer = what
    for write in writes:
        write()
    return answer


def _refusal(environ: Environ, came_at: int, status: int, message: str, *more: tuple[bytes, bytes]) -> _Answer:
    accept = environ.get("HTTP_ACCEPT", "")
    request_id = environ.setdefault(REQUEST_ID, id_for(environ))
    note_refusal(environ, status, time.perf_counter_ns() - came_at)
    status, headers, body = early.refusal(status, message, accept=accept, request_id=request_id)
    return status, [*headers, *more], body


def _environ(scope: Scope) -> Environ:
    """What PEP 3333 wants of a request, but for its body."""
    host, port = scope["server"] or ("", 0)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        # Bytes as latin-1 text, as ever in WSGI.
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": forwarded.plain(scope["client"][0]) if scope["client"] else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        name, value = _variable(raw_name), raw_value.decode("latin-1")
        known = environ.get(name)
        if known is None:
            environ[name] = value
        else:
            environ[name] = f"{known}{'; ' if name == 'HTTP_COOKIE' else ','}{value}"
            environ.setdefault(REPEATED, set()).add(name)
    return environ


@lru_cache(maxsize=256)
def _variable(field: bytes) -> str:
    """The name that a header field has in the environ (PEP 3333)."""
    name = field.decode("latin-1").upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
