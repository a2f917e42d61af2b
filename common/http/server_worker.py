"""gunicorn's asgi worker, with limits on what a client may hold and for how long, and an end in two steps.

It leans on names of gunicorn's protocol class that are not documented (those with an underscore in
``GuardedProtocol``), so gunicorn's version is pinned to the series this was tested with.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import time
from queue import SimpleQueue
from typing import Any
from urllib.parse import unquote_to_bytes

from gunicorn.asgi.parser import LimitRequestHeaders, ParseError, UnsupportedTransferCoding
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers.gasgi import ASGIWorker

from common.http import access, early, forwarded, listening

# The first header has to be there as a whole after so many seconds; an idle connection that has been used before is
# closed by gunicorn's keep-alive, which also bounds the next header.
HEADER_S = 10.0
# A client that takes nothing of its answer for so many seconds loses the connection, and the answer its memory.
WRITE_S = 20.0
MOST_CONNECTIONS = 4096
# What all fields of a header may have together, in bytes; gunicorn's limits alone would let them have 800 kB.
HEADER_BYTES = 64 * 1024
# Whoever was refused gets so many seconds to see it: a connection that is closed with data unread is reset.
LINGER_S = 1.0
# When the worker ends, one who has just connected gets so many seconds to send the request.
FRESH_S = 2.0
# How long it takes, with ample time to spare, until a connection that was being made is made.
_SETTLE_S = 0.05
# Files, stores and the like need descriptors too.
_OTHER_FILES = 128
# Ended by itself, before the master ends it.
_MARGIN_S = 0.5
# Host with its port, and path.
_WHOLE_URL = re.compile(rb"https?://([^/?@]+)(/[^?]*)?(?:\?.*)?", re.IGNORECASE)
_REFUSALS = {
    400: "This is no well-formed HTTP/1.1 request.",
    414: "The first line of the request is longer than it may be.",
    431: "The header of the request has more or longer fields than it may have.",
    500: "Something went wrong on this side.",
    501: "This server knows no transfer coding but chunked.",
}


class GuardedProtocol(ASGIProtocol):
    """One connection: closed when its header does not come or is too large, aborted when its answer is not taken."""

    def __init__(self, worker: PlaneWorker) -> None:
        super().__init__(worker)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._began_at = 0
        self._answered: Any = None
        self._ends_with_it = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.worker.connections.add(self)
        if len(self.worker.connections) > self.worker.most_connections:
            transport.abort()
            return
        self._header_timer = self.worker.loop.call_later(HEADER_S, self.close_quietly)

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.connections.discard(self)
        for timer in (self._header_timer, self._write_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.worker.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def close_quietly(self) -> None:
        """Close a connection on which no request is being served."""
        self._close_transport()
        self._request_ready.set()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for another request."""
        return bool(self._awaiting_request) and self.req_count > 1

    @property
    def is_fresh(self) -> bool:
        """Whether its first request is not there yet."""
        return self.req_count <= 1 and (bool(self._awaiting_request) or not self.req_count)

    def data_received(self, data: bytes) -> None:
        # What comes after a refusal is taken, so that the sender gets to see it, and dropped.
        if self._linger_timer is None:
            super().data_received(data)

    def _feed_callback_parser(self, data: bytes) -> Any:
        if self._current_request is None:
            if not self._header_bytes:
                self._began_at = time.perf_counter_ns()
            self._header_bytes += len(data)
        try:
            goes_on = super()._feed_callback_parser(data)
        except ValueError:
            # A Content-Length of thousands of digits, which Python refuses to read.
            return self._refuse(400)
        if goes_on and self._current_request is None and self._header_bytes > HEADER_BYTES:
            return self._refuse(431)
        return goes_on

    def _on_headers_complete(self) -> Any:
        # There may be a body in what was counted.
        if self._header_bytes > HEADER_BYTES and _weight(self._callback_parser.headers) > HEADER_BYTES:
            raise LimitRequestHeaders("The header is too large.")
        self._header_bytes = 0
        parser = self._callback_parser
        if _codings(parser.headers) not in ([], [b"chunked"]):
            # gunicorn would leave gzip in the body, as if nobody had said so.
            raise UnsupportedTransferCoding("chunked alone is known (RFC 9112, 6.1)")
        if parser.http_version >= (1, 1) and not any(name.lower() == b"host" for name, _ in parser.headers):
            raise ParseError("no Host (RFC 9112, 3.2)")
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        # Before the request is handed on: what is refused here is not served as well.
        whole_url = _whole_url(parser.method, parser.path)
        held_back = super()._on_headers_complete()
        if whole_url is not None:
            _to_origin_form(self._current_request, whole_url)
        return held_back

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        """Whether the connection ends with the answer to this request: as its header says once it is written.

        gunicorn may ask again after the answer. Whoever was not told is served once more, whatever has happened since:
        the next request may be on its way.
        """
        if request is not self._answered:
            self._answered = request
            self._ends_with_it = self.app.draining or super()._will_close(request, response_requires_close)
        return self._ends_with_it

    def _is_websocket_upgrade(self, request: Any) -> bool:
        """Never: a server may ignore that a client offers another protocol (RFC 9110, 7.8)."""
        return False

    def _refuse(self, status: int) -> bool:
        self._send_error_response(status, "")
        self._close_transport()
        return False

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        """Refuse what is no request, in the envelope; gunicorn's message, which quotes it, is left out."""
        request_id = access.new_id()
        status, headers, body = early.refusal(status, _REFUSALS[status], request_id=request_id)
        more = [(name.encode(), str(value).encode()) for name, value in extra_headers]
        lines = [b": ".join(each) for each in (*headers, *more, (b"connection", b"close"))]
        first = f"HTTP/1.1 {status} {self._get_reason_phrase(status)}".encode()
        self._safe_write(b"\r\n".join([first, *lines, b"", body]))
        self._linger_timer = self.worker.loop.call_later(LINGER_S, self.transport.abort)
        self._note(status, request_id)

    def _note(self, status: int, request_id: str) -> None:
        peer = self.transport.get_extra_info("peername")
        method = self._callback_parser.method
        line = {
            access.REQUEST_ID: request_id,
            "REQUEST_METHOD": method.decode() if method and method.isalpha() else None,
            "REMOTE_ADDR": forwarded.plain(peer[0]) if peer else None,
        }
        access.note_refusal(line, status, time.perf_counter_ns() - self._began_at)

    def _close_transport(self) -> None:
        if self._linger_timer is None or self._closed:
            super()._close_transport()
        else:
            self._closed = True
            if self.transport.can_write_eof():
                self.transport.write_eof()


class PlaneWorker(ASGIWorker):
    """Serves a ``Bridge``. Told to stop, it says so on ``/readyz`` for a while, then listens no longer, and ends when
    the requests in flight have.

    Until it has handlers of its own, it has the master's, and what it is told goes into its copy of the master's queue:
    ``early_signals``, which ``common.http.server_hooks`` hands over.
    """

    early_signals: SimpleQueue[int] | None = None
    most_connections = MOST_CONNECTIONS

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.connections: set[GuardedProtocol] = set()
        self._told_to_stop = asyncio.Event()

    def init_process(self) -> None:
        self.most_connections = _allow_connections(MOST_CONNECTIONS)
        super().init_process()

    def init_signals(self) -> None:
        super().init_signals()
        # A stop that comes so early would be lost, and the process be killed when the others have long ended.
        while self.early_signals is not None and not self.early_signals.empty():
            told = self.early_signals.get_nowait()
            if told == signal.SIGTERM:
                self.handle_exit_signal()
            elif told in (signal.SIGINT, signal.SIGQUIT):
                self.handle_quit_signal()

    def handle_exit_signal(self) -> None:
        """Begin to drain. gunicorn's own would make ``alive`` False: then connections end whose answer, written a
        moment before, did not say so. As long as it drains and finishes, ``Bridge.draining`` says so instead."""
        self._told_to_stop.set()

    def handle_quit_signal(self) -> None:
        super().handle_quit_signal()
        self._told_to_stop.set()

    async def _serve(self) -> None:
        self.asgi.open(self.loop)
        for listener in self.sockets:
            listening = await self.loop.create_server(
                lambda: GuardedProtocol(self), sock=listener.sock, backlog=self.cfg.backlog, ssl=self._get_ssl_context()
            )
            self.servers.append(listening)
        while self.alive and not self._told_to_stop.is_set() and self.ppid == os.getppid():
            self.notify()
            await self._wait(1.0)
        if not self._quick_shutdown:
            await self._drain()
        await self._finish()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._told_to_stop.wait()
        except TimeoutError:
            return

    async def _drain(self) -> None:
        """Go on serving for a while, so that whoever sends requests here can learn to send them elsewhere."""
        self.asgi.draining = True
        until = self.loop.time() + self.asgi.drain_s
        while self.loop.time() < until and not self._quick_shutdown:
            self.notify()
            await asyncio.sleep(0.1)

    async def _finish(self) -> None:
        """Listen no longer, close what is idle, and wait for the rest as long as gunicorn's master does."""
        until = self.loop.time() + self.cfg.graceful_timeout - self.asgi.drain_s - _MARGIN_S
        await self._stop_listening()
        fresh_until = self.loop.time() + FRESH_S
        while self.connections and self.loop.time() < until and not self._quick_shutdown:
            for connection in list(self.connections):
                if connection.is_idle or (connection.is_fresh and self.loop.time() > fresh_until):
                    connection.close_quietly()
            await asyncio.sleep(0.02)

    async def _stop_listening(self) -> None:
        """Close the listeners; where nobody listens there any more, after taking every connection that was made.

        The master closes its own before it ends the workers, unless they are to be replaced.
        """
        listeners = [each.sock for each in self.sockets]
        if not any(listening.is_shared_with(self.ppid, each) for each in listeners):
            for listener in listeners:
                listening.refuse_new(listener)
            await asyncio.sleep(_SETTLE_S)
            for listener in listeners:
                for connection in listening.waiting(listener):
                    await self.loop.connect_accepted_socket(
                        lambda: GuardedProtocol(self), connection, ssl=self._get_ssl_context()
                    )
        for server in self.servers:
            server.close()


def _weight(header: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in header)


def _codings(header: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The transfer codings that a header names."""
    values = (value for name, value in header if name.lower() == b"transfer-encoding")
    return [coding.strip().lower() for value in values for coding in value.split(b",")]


def _whole_url(method: bytes, target: bytes) -> re.Match[bytes] | None:
    """The parts of a target that is a whole URL, None for a path.

    Raises ParseError for one that is no http URL, or names a user (RFC 9110, 4.2.4).
    """
    if target.startswith((b"/", b"*")) or method == b"CONNECT":
        return None
    found = _WHOLE_URL.fullmatch(target)
    if found is None:
        raise ParseError("no target of this server's (RFC 9112, 3.2)")
    return found


def _to_origin_form(request: Any, whole_url: re.Match[bytes]) -> None:
    """Let a request be for the path of its target, and for the host there instead of its Host (RFC 9112, 3.2.2)."""
    host, path = whole_url.groups()
    request.raw_path = path or b"/"
    request.path = unquote_to_bytes(request.raw_path).decode(errors="replace")
    request.headers_bytes = [(b"host", host), *(field for field in request.headers_bytes if field[0] != b"host")]


def _allow_connections(most: int) -> int:
    """Raise this process's limit of open files as far as it needs and may; returns how many connections fit in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = most + _OTHER_FILES
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(allowed, soft) - _OTHER_FILES if max(allowed, soft) < needed else most
