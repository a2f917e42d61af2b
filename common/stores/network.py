"""Connections to the servers of stores: made within a deadline, and what their failures mean in plain words."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_Address = tuple[socket.AddressFamily, Any]

# Idle seconds, seconds between probes, and probes after which the system gives a silent peer up.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}


class TimeLimit:
    """How long what a thread does just now may still take; each thread has its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Everything that this thread does inside, together, takes no longer."""
        self._local.ends_at = time.monotonic() + seconds
        try:
            yield
        finally:
            self._local.ends_at = 0.0

    def extend(self, seconds: float) -> None:
        """Allow that much more, for what has turned out to be large."""
        self._local.ends_at += seconds

    def left_s(self) -> float:
        """The seconds that are left, over 0; raises TimeoutError where there are none, also outside of ``within``."""
        left_s = float(getattr(self._local, "ends_at", 0.0)) - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the deadline is over")
        return left_s


def connected(
    host: str,
    port: int,
    left_s: Callable[[], float],
    finish: Callable[[socket.socket], T],
    make: Callable[[socket.AddressFamily], socket.socket] = socket.socket,
) -> T:
    """What ``finish`` makes of a connection to the first address of the host that lets it; the socket, or one over it.

    Raises OSError, TimeoutError when ``left_s`` does.
    """
    error: OSError = OSError("the host name has no address")
    addresses = _resolved(host, port, left_s())
    for tried, (family, where) in enumerate(addresses):
        try:
            # One that swallows packets must leave time for the next.
            share_s = left_s() / (len(addresses) - tried)
            return _reached(make(family), where, share_s, finish)
        except OSError as failure:
            error = failure
    raise error


def _reached(plain: socket.socket, where: Any, share_s: float, finish: Callable[[socket.socket], T]) -> T:
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            plain.setsockopt(socket.IPPROTO_TCP, option, value)
        plain.settimeout(share_s)
        plain.connect(where)
        return finish(plain)
    except BaseException:
        plain.close()
        raise


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


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, in order."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def failure_of(error: BaseException) -> str | None:
    """What the network did, in words for operators and without an address; None where nothing but a cut is known."""
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
