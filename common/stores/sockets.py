"""Sockets on which nothing outlives a deadline: name look-up, connect, TLS, and each piece that is sent or received.

The limits of client libraries are for each read, so a server that drips would never meet them. Theirs are replaced by
``left_s``: a function that gives the seconds that are left of the present exchange, and raises TimeoutError when none
are.
"""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from common.conf.file import SettingsError

LeftS = Callable[[], float]
_Address = tuple[socket.AddressFamily, tuple[str | int, ...]]

# Idle seconds, seconds between probes, and probes after which the system gives a silent peer up.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
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

    def secured(self, tls: ssl.SSLContext, host: str) -> TimedSocket:
        """The same connection under TLS, from its handshake on."""
        return TimedSocket(_secured(self._real, tls, host, self._left_s), self._left_s)

    def shutdown(self, how: int) -> None:
        self._real.shutdown(how)

    def close(self) -> None:
        self._real.close()


class _Reader(io.RawIOBase):
    def __init__(self, source: TimedSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what io.BufferedReader hands over
        return self._source.recv_into(buffer)


def reached(host: str, port: int, left_s: LeftS, tls: ssl.SSLContext | None = None) -> TimedSocket:
    """A connection to the first of the host's addresses that takes one. Raises OSError, also as TimeoutError."""
    error: OSError = OSError("the host name has no address")
    addresses = _resolved(host, port, left_s())
    for tried, address in enumerate(addresses):
        try:
            # One that swallows packets must leave time for the next.
            return _opened(address, left_s() / (len(addresses) - tried), host, left_s, tls)
        except OSError as failure:
            error = failure
    raise error


def _opened(address: _Address, share_s: float, host: str, left_s: LeftS, tls: ssl.SSLContext | None) -> TimedSocket:
    family, where = address
    plain = socket.socket(family, socket.SOCK_STREAM)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            plain.setsockopt(socket.IPPROTO_TCP, option, value)
        plain.settimeout(share_s)
        plain.connect(where)
        return TimedSocket(plain if tls is None else _secured(plain, tls, host, left_s), left_s)
    except BaseException:
        plain.close()
        raise


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


def _resolved(host: str, port: int, left_s: float) -> list[_Address]:
    """The host's addresses. The system's resolver has no deadline, so it is asked in a thread that may be left behind.

    Raises OSError, also in the form of TimeoutError.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return _addresses(host, port)
    found: list[list[_Address] | OSError] = []
    done = threading.Event()

    def ask() -> None:
        try:
            found.append(_addresses(host, port))
        except (OSError, UnicodeError) as error:
            found.append(error if isinstance(error, OSError) else socket.gaierror(str(error)))
        done.set()

    threading.Thread(target=ask, name="resolve-store", daemon=True).start()
    if not done.wait(left_s):
        raise TimeoutError("the host name was not resolved in time")
    answer = found[0]
    if isinstance(answer, OSError):
        raise answer
    return answer


def _addresses(host: str, port: int) -> list[_Address]:
    return [(entry[0], entry[4]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def network_reason(error: BaseException) -> str | None:
    """What went wrong on the way to a server, in words for operators; None where it was not the network.

    Looks through the errors that a client library wrapped; never has an address in it.
    """
    for each in causes(error):
        if isinstance(each, TimeoutError):
            return "no answer in time"
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {each.verify_message}"
        if isinstance(each, ssl.SSLError):
            return "the TLS handshake failed"
        if isinstance(each, socket.gaierror):
            return "its host name is not known"
        if isinstance(each, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(each, OSError) and not isinstance(each, ConnectionError):
            return each.strerror or "the network failed"
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
