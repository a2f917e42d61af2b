"""gunicorn's asgi worker, with limits on what a client may hold and for how long, and an end in two steps.

It leans on names of gunicorn's protocol class that are not documented (``_on_headers_complete``, ``_close_transport``,
``_request_ready``, ``_awaiting_request``), so gunicorn's version is pinned to the series this was tested with.
"""

from __future__ import annotations

import asyncio
import os
import resource
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers.gasgi import ASGIWorker

# The first header has to be there as a whole after so many seconds; an idle connection that has been used before is
# closed by gunicorn's keep-alive, which also bounds the next header.
HEADER_S = 10.0
# A client that takes nothing of its answer for so many seconds loses the connection, and the answer its memory.
WRITE_S = 20.0
MOST_CONNECTIONS = 4096
# Files, stores and the like need descriptors too.
_OTHER_FILES = 128
# Ended by itself, before the master ends it.
_MARGIN_S = 0.5


class GuardedProtocol(ASGIProtocol):
    """One connection: closed when its header does not come, aborted when its answer is not taken."""

    def __init__(self, worker: PlaneWorker) -> None:
        super().__init__(worker)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.worker.connections.add(self)
        if len(self.worker.connections) > self.worker.most_connections:
            transport.abort()
            return
        self._header_timer = self.worker.loop.call_later(HEADER_S, self.close_quietly)

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.connections.discard(self)
        for timer in (self._header_timer, self._write_timer):
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
        """Whether it waits for a request."""
        return bool(self._awaiting_request)

    def _on_headers_complete(self) -> Any:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        return super()._on_headers_complete()


class PlaneWorker(ASGIWorker):
    """Serves a ``Bridge``. Told to stop, it says so on ``/readyz`` for a while, then listens no longer, and ends when
    the requests in flight have."""

    def init_process(self) -> None:
        self.connections: set[GuardedProtocol] = set()
        self._told_to_stop = asyncio.Event()
        self.most_connections = _allow_connections(MOST_CONNECTIONS)
        super().init_process()

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
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
        while self.alive and self.ppid == os.getppid():
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
        for server in self.servers:
            server.close()
        until = self.loop.time() + self.cfg.graceful_timeout - self.asgi.drain_s - _MARGIN_S
        while self.connections and self.loop.time() < until and not self._quick_shutdown:
            for connection in [each for each in self.connections if each.is_idle]:
                connection.close_quietly()
            await asyncio.sleep(0.02)


def _allow_connections(most: int) -> int:
    """Raise this process's limit of open files as far as it needs and may; returns how many connections fit in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = most + _OTHER_FILES
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(allowed, soft) - _OTHER_FILES if max(allowed, soft) < needed else most
