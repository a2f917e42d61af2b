"""Sockets for client libraries on which nothing outlives a deadline: TLS, and each piece that is sent or received.

The limits of client libraries are for each read, so a server that drips would never meet them. Theirs are replaced by
``left_s``: a function that gives the seconds that are left of the present exchange, and raises TimeoutError when none
are.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from common.conf.file import SettingsError
from common.stores.network import connected

LeftS = Callable[[], float]

_BUFFER_BYTES = 16_384


class TlsSection(Protocol):
    """The keys of a section of the configuration file that are about TLS."""

    ssl: bool
    ssl_ca_certs: str
    ssl_certfile: str
    ssl_keyfile: str


def tls_context(key: str, section: TlsSection) -> ssl.SSLContext | None:
    """How to speak TLS, None without. Raises SettingsError, with the section's key, for a file that can't be used."""
    if not section.ssl:
        return None
    try:
        context = ssl.create_default_context(cafile=section.ssl_ca_certs or None)
        if section.ssl_certfile:
            context.load_cert_chain(section.ssl_certfile, section.ssl_keyfile or None)
    except OSError as error:
        names = ", ".join(filter(None, (section.ssl_ca_certs, section.ssl_certfile, section.ssl_keyfile)))
        raise SettingsError(f"{key}: {names} can't be used for TLS ({error.strerror or error}).") from error
    return context


class TimedSocket:
    """What client libraries use of a socket, each operation limited to what is left of the exchange."""

    def __init__(self, real: socket.socket, left_s: LeftS) -> None:
        self._real = real
        self._left_s = left_s
        self._blocks = True

    def settimeout(self, value: float | None) -> None:
        """Only whether to wait at all is taken from the library."""
        self._blocks = value != 0

    def recv(self, size: int) -> bytes:
        self._real.settimeout(self._left_s() if self._blocks else 0)
        return self._real.recv(size)

    def recv_into(self, buffer: memoryview) -> int:
        self._real.settimeout(self._left_s())
        return self._real.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        self._real.settimeout(self._left_s())
        self._real.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """A buffered reader; closing it leaves the socket open."""
        return io.BufferedReader(_Reader(self), _BUFFER_BYTES)

    def fileno(self) -> int:
        return self._real.fileno()

    def own_address(self) -> str:
        """The IP address of this end."""
        return str(self._real.getsockname()[0])

    def secured(self, tls: ssl.SSLContext, host: str) -> TimedSocket:
        """The same connection under TLS, from its handshake on."""
        return TimedSocket(_secured(self._real, tls, host, self._left_s), self._left_s)

    def shutdown(self, how: int) -> None:
        self._real.shutdown(how)

    def close(self) -> None:
        self._real.close()


class TimedTls:
    """What client libraries use of an SSL context to upgrade a connection, with a handshake that ends in time."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, sock: TimedSocket, server_hostname: str) -> TimedSocket:
        return sock.secured(self._context, server_hostname)


class _Reader(io.RawIOBase):
    def __init__(self, source: TimedSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what io.BufferedReader hands over
        return self._source.recv_into(buffer)


def reached(host: str, port: int, left_s: LeftS, tls: ssl.SSLContext | None = None) -> TimedSocket:
    """A connection to the first of the host's addresses that takes one. Raises OSError, also as TimeoutError."""

    def finish(plain: socket.socket) -> TimedSocket:
        return TimedSocket(plain if tls is None else _secured(plain, tls, host, left_s), left_s)

    return connected(host, port, left_s, finish)


def _secured(plain: socket.socket, tls: ssl.SSLContext, host: str, left_s: LeftS) -> ssl.SSLSocket:
    secured = tls.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    try:
        # A handshake takes its socket's time limit for the whole of it.
        secured.settimeout(left_s())
        secured.do_handshake()
    except BaseException:
        secured.close()
        raise
    return secured
