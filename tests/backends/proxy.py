"""A proxy that stands before a real server and breaks what passes through it, in ways that are switched at run time.

It is asyncio in a thread of its own. Every switch holds for connections that are open already too, and has taken
effect when the call returns.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

#: More connections than this at once are closed unheard.
MAX_LINKS = 512
_CHUNK = 65_536
_CALL_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to what passes. ``after_bytes`` of each connection's answers still pass; ``delay_s`` is for each.

    ``most`` is how many connections may be open at once.
    """

    kind: Literal["pass", "refuse", "hang", "hang_mid_answer", "slow", "cut", "limit"] = "pass"
    after_bytes: int = 0
    delay_s: float = 0.0
    most: int = MAX_LINKS


PASS = Fault()


@dataclass(eq=False)
class _Link:
    """One client's connection, with the connection to the server behind it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    answered: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class FaultProxy:
    """Passes TCP from ``port`` on to the target until it is told to do otherwise.

    The port is held as long as the proxy lives, also while it refuses. With ``tls`` its clients must speak TLS, and the
    server behind it gets what they said.
    """

    def __init__(
        self, host: str, target_port: int, target_host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.host = host
        self._tls = tls
        self._target = (target_host, target_port)
        self._fault = PASS
        self._links: set[_Link] = set()
        self._accepted = 0
        # Bound and never listening: the kernel refuses connections, and gives the port to nobody else.
        self._holder = _bound(host, 0)
        self.port: int = self._holder.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"fault-proxy-{self.port}", daemon=True)

    @property
    def address(self) -> str:
        """``host:port``, to be used in place of the server's."""
        return f"{self.host}:{self.port}"

    @property
    def accepted(self) -> int:
        """How many connections were accepted since the start."""
        return self._accepted

    @property
    def open_links(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def start(self) -> None:
        """Begin to pass."""
        self._thread.start()
        self._call(self._switch(PASS))

    def stop(self) -> None:
        """Close every connection and the port, and end the thread."""
        if self._thread.is_alive():
            self._call(self._shut())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CALL_LIMIT_S)
        self._loop.close()
        self._holder.close()

    def pass_through(self) -> None:
        """Pass everything; what was held back by a hang goes on its way."""
        self._call(self._switch(PASS))

    def refuse(self) -> None:
        """Refuse new connections and reset the open ones, as when the server's process is gone."""
        self._call(self._switch(Fault("refuse")))

    def hang(self) -> None:
        """Accept connections and pass nothing in either direction."""
        self._call(self._switch(Fault("hang")))

    def hang_mid_answer(self, after_bytes: int) -> None:
        """Pass requests, and of each connection's answers only so many bytes more."""
        self._call(self._switch(Fault("hang_mid_answer", after_bytes=after_bytes)))

    def slow(self, delay_s: float) -> None:
        """Hold each piece of an answer back for so many seconds."""
        self._call(self._switch(Fault("slow", delay_s=delay_s)))

    def cut(self) -> None:
        """Reset the open connections, and each new one as soon as it is accepted."""
        self._call(self._switch(Fault("cut")))

    def limit(self, most: int) -> None:
        """Reset the open connections, and let only so many new ones in at once: the rest are reset, too."""
        self._call(self._switch(Fault("limit", most=most)))

    def cut_once(self) -> None:
        """Reset the open connections; new ones fare as before."""
        self._call(self._cut_links())

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_LIMIT_S)

    async def _switch(self, fault: Fault) -> None:
        self._fault = fault
        for link in self._links:
            link.answered = 0
        self._changed.set()
        self._changed = asyncio.Event()
        if fault.kind in ("refuse", "cut", "limit"):
            await self._cut_links()
        if fault.kind == "refuse":
            await self._close_port()
        elif self._server is None:
            listener = _bound(self.host, self.port)
            self._server = await asyncio.start_server(
                self._accept, sock=listener, limit=_CHUNK, backlog=MAX_LINKS, ssl=self._tls
            )

    async def _shut(self) -> None:
        await self._close_port()
        await self._cut_links()

    async def _close_port(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.close()

    async def _cut_links(self) -> None:
        tasks = [task for link in self._links for task in link.tasks]
        for link in list(self._links):
            _reset(link.client)
            _reset(link.server)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        link = _Link(writer)
        task = asyncio.current_task()
        if self._fault.kind in ("cut", "refuse") or len(self._links) >= self._fault.most or task is None:
            _reset(writer)
            return
        self._links.add(link)
        link.tasks.append(task)
        try:
            await self._serve(link, reader)
        except (OSError, asyncio.CancelledError):
            # Either side hung up, or this proxy did: both ends get to know below.
            pass
        finally:
            for each in link.tasks[1:]:
                each.cancel()
            _reset(link.server)
            _reset(writer)
            self._links.discard(link)

    async def _serve(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while self._fault.kind == "hang":
            await self._changed.wait()
        answers, link.server = await asyncio.open_connection(*self._target, limit=_CHUNK)
        pumps = [
            asyncio.create_task(self._pump(link, reader, link.server, answers=False)),
            asyncio.create_task(self._pump(link, answers, link.client, answers=True)),
        ]
        link.tasks += pumps
        await asyncio.gather(*pumps)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await reader.read(_CHUNK):
            while data:
                count = await self._admitted(link, len(data), answers=answers)
                writer.write(data[:count])
                await writer.drain()
                data = data[count:]
        if writer.can_write_eof():
            writer.write_eof()

    async def _admitted(self, link: _Link, waiting: int, *, answers: bool) -> int:
        """How many of the bytes that wait may pass; returns when at least one may."""
        while True:
            fault, changed = self._fault, self._changed
            if fault.kind in ("pass", "limit") or (fault.kind in ("slow", "hang_mid_answer") and not answers):
                return waiting
            if fault.kind == "hang_mid_answer" and link.answered < fault.after_bytes:
                count = min(waiting, fault.after_bytes - link.answered)
                link.answered += count
                return count
            if fault.kind == "slow":
                try:
                    await asyncio.wait_for(changed.wait(), fault.delay_s)
                except TimeoutError:
                    return waiting
            else:
                await changed.wait()


@contextmanager
def fault_proxy(
    target_port: int, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None
) -> Iterator[FaultProxy]:
    """A proxy before the server that listens on this loopback port; it stops at the end, whatever happened."""
    proxy = FaultProxy(host, target_port, tls=tls)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that shares its port with others of this process."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((host, port))
    return bound


def _reset(writer: asyncio.StreamWriter | None) -> None:
    """Hang up with a reset: without SO_LINGER the other side would see a clean end."""
    if writer is None or writer.transport.is_closing():
        return
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
