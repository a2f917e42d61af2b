"""The only way out to addresses that users name: checked, bounded in time and size, a few at once.

Against server-side request forgery (OWASP API7:2023): the host is resolved once, every address is checked,
and the connection goes to the very address that was checked, so a second look-up can't lead elsewhere.
Redirects are not followed and proxies of the environment are not used, as both would lead around the check.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

from common.core.errors import PlaneError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: What went wrong, as far as it may be told: nothing in it names an address or quotes an answer.
Reason = Literal["name", "connect", "tls", "protocol", "too_large"]

_URL_LENGTH = 2048
_HEADERS_BYTES = 65_536
_ADDRESSES_TRIED = 3

# IANA's special-purpose registries, written out because ipaddress' idea of them changes between Python
# releases.
_REFUSED_V4 = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # a public address by the registries, but Azure's host answers on it
    )
)
# Outside 2000::/3 nothing is public: that leaves out ::, ::1, IPv4-mapped, NAT64, fc00::/7, fe80::/10,
# ff00::/8.
_PUBLIC_V6 = ipaddress.ip_network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.ip_network(text)
    # IETF protocols with Teredo, documentation twice, 6to4: the last and Teredo carry an IPv4 address inside.
    for text in ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16")
)


class EgressRefused(PlaneError):
    """A URL that isn't one to call from here, or a host whose addresses may not be called."""

    status = 400
    code = 102

    def __init__(self, message: str) -> None:
        super().__init__(message, field="host")


class EgressTimeout(PlaneError):
    """The answer was not there, whole, within the deadline."""

    status = 504
    code = 100

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"The host did not answer within {deadline_s:g} seconds.")


class EgressUnreachable(PlaneError):
    """The host can't be reached, or sends no HTTP answer within the limits; ``reason`` says which."""

    status = 502
    code = 100

    def __init__(self, reason: Reason) -> None:
        super().__init__(_TOLD[reason], reason=reason)
        self.reason = reason


class EgressBusy(PlaneError):
    """As many outward calls as are allowed are under way; nobody waits for a place."""

    status = 503
    code = 503

    def __init__(self) -> None:
        super().__init__("Too many outward calls are under way; try again in a few seconds.")


_TOLD: dict[Reason, str] = {
    "name": "The host's name can't be resolved.",
    "connect": "The host doesn't accept a connection.",
    "tls": "No trusted TLS connection to the host could be made; check its certificate.",
    "protocol": "The host's answer is not valid HTTP.",
    "too_large": "The host's answer is too large.",
}


class Answer(NamedTuple):
    """A whole answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL, taken apart."""

    scheme: str
    host: str
    port: int
    authority: str
    path: str


class EgressGuard:
    """Decides which addresses may be called, and how many calls may be under way.

    One for each process, for the limit to hold. ``allow_cidrs`` opens networks that are otherwise refused; a
    text that is no network raises ValueError. ``limit`` counts calls, and separately name look-ups, which may
    outlive their call because the system's resolver can't be interrupted. ``deadline_s`` is what a call made
    while a user waits is given. ``tls`` is for private authorities.
    """

    def __init__(
        self,
        allow_cidrs: Iterable[str] = (),
        *,
        limit: int = 4,
        deadline_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed: tuple[Network, ...] = tuple(ipaddress.ip_network(cidr) for cidr in allow_cidrs)
        self._calls = threading.BoundedSemaphore(limit)
        self._look_ups = threading.BoundedSemaphore(limit)
        self.deadline_s = deadline_s
        self.tls = tls

    def allows(self, address: Address) -> bool:
        """Whether this address may be called: a public one, or one in the allowed networks."""
        if any(address in network for network in self._allowed):
            return True
        if isinstance(address, ipaddress.IPv4Address):
            return address.is_global and not any(address in network for network in _REFUSED_V4)
        return address in _PUBLIC_V6 and not any(address in network for network in _REFUSED_V6)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the calls under way; raises ``EgressBusy`` at once when there is none."""
        if not self._calls.acquire(blocking=False):
            raise EgressBusy
        try:
            yield
        finally:
            self._calls.release()

    def resolve(self, host: str, port: int, deadline: Deadline) -> list[Address]:
        """The host's addresses that may be called, at most three; a look-up that hangs ends with the call.

        Raises ``EgressRefused``, ``EgressBusy``, ``EgressTimeout``, ``EgressUnreachable``.
        """
        if not self._look_ups.acquire(blocking=False):
            raise EgressBusy
        found: queue.SimpleQueue[list[Address]] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                found.put(_addresses(host, port))
            finally:
                self._look_ups.release()

        threading.Thread(target=look_up, name="egress-look-up", daemon=True).start()
        try:
            addresses = found.get(timeout=deadline.left())
        except queue.Empty:
            raise EgressTimeout(deadline.seconds) from None
        if not addresses:
            raise EgressUnreachable("name")
        allowed = [address for address in addresses if self.allows(address)]
        if not allowed:
            raise EgressRefused(
                "The host's address is not a public one. An operator can allow its network "
                "with RAGKEEPER_EGRESS_ALLOW_CIDRS."
            )
        return allowed[:_ADDRESSES_TRIED]


class Deadline:
    """A point in time that everything about one call has to keep."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """The seconds that are left, over 0; raises ``EgressTimeout`` when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise EgressTimeout(self.seconds)
        return left


def fetch(
    url: str,
    *,
    headers: Mapping[str, str],
    deadline_s: float,
    max_bytes: int,
    guard: EgressGuard,
    method: str = "GET",
    body: bytes | None = None,
) -> Answer:
    """One request to a URL that a user named; any status is an answer, redirects included.

    ``deadline_s`` bounds name, connection, TLS, headers and body together, however slowly they come in, and
    ``max_bytes`` the body. Raises ``EgressRefused``, ``EgressBusy``, ``EgressTimeout``,
    ``EgressUnreachable``.
    """
    target = _parse(url)
    deadline = Deadline(deadline_s)
    with guard.place():
        addresses = guard.resolve(target.host, target.port, deadline)
        connection = _connect(addresses, target.port, deadline)
        try:
            if target.scheme == "https":
                connection = _secure(connection, target.host, guard.tls, deadline)
            return _exchange(connection, target, method, headers, body, max_bytes, deadline)
        except TimeoutError:
            raise EgressTimeout(deadline_s) from None
        finally:
            connection.close()


def _parse(url: str) -> _Target:
    # urlsplit drops some control characters and takes others along; neither is a thing to guess about.
    if len(url) > _URL_LENGTH or not url.isprintable() or any(character in url for character in " \\"):
        raise EgressRefused("The URL is too long or has characters in it that a URL can't have.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode() if "[" not in parts.netloc else parts.hostname
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        path.encode("ascii")
    except ValueError:
        raise EgressRefused("The URL can't be read; it looks like https://name[:port]/path.") from None
    if parts.scheme not in ("http", "https"):
        raise EgressRefused("Only http:// and https:// can be called.")
    if "@" in parts.netloc:
        raise EgressRefused("A URL with a user name or password in it is not called.")
    if not host or "%" in host or port == 0:
        raise EgressRefused("The URL names no host, or one that can't be called.")
    default = 443 if parts.scheme == "https" else 80
    name = f"[{host}]" if ":" in host else host
    authority = name if port in (None, default) else f"{name}:{port}"
    return _Target(parts.scheme, host, port or default, authority, path)


def _addresses(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return list(dict.fromkeys(addresses))


def _connect(addresses: list[Address], port: int, deadline: Deadline) -> socket.socket:
    for tried, address in enumerate(addresses):
        # An address that swallows packets must leave time for the next one.
        share = deadline.left() / (len(addresses) - tried)
        try:
            return socket.create_connection((str(address), port), timeout=share)
        except OSError:
            continue
    deadline.left()
    raise EgressUnreachable("connect")


def _secure(plain: socket.socket, host: str, context: ssl.SSLContext | None, deadline: Deadline) -> ssl.SSLSocket:
    try:
        context = context or ssl.create_default_context()
        secured = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    except (OSError, ValueError):
        raise EgressUnreachable("tls") from None
    try:
        secured.settimeout(deadline.left())
        secured.do_handshake()
    except BaseException as error:
        secured.close()
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            raise EgressUnreachable("tls") from None
        raise
    return secured


def _exchange(
    connection: socket.socket,
    target: _Target,
    method: str,
    headers: Mapping[str, str],
    content: bytes | None,
    max_bytes: int,
    deadline: Deadline,
) -> Answer:
    timed = _TimedSocket(connection, deadline, max_bytes + _HEADERS_BYTES)
    wire = http.client.HTTPConnection(target.host, target.port)
    # Without this, a request after a closed connection would look the name up again, unchecked.
    wire.auto_open = 0
    wire.sock = timed
    try:
        sent = {"Host": target.authority, "Connection": "close", **headers}
        wire.request(method, target.path, content, headers=sent)
        with wire.getresponse() as response:
            body = response.read(max_bytes + 1)
            if len(body) > max_bytes:
                raise EgressUnreachable("too_large")
            if response.length:
                # http.client says nothing when a body of announced length breaks off.
                raise EgressUnreachable("protocol")
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
    except TimeoutError:
        raise
    except (http.client.HTTPException, OSError):
        raise EgressUnreachable("protocol") from None
    finally:
        wire.close()


class _TimedSocket:
    """What http.client needs of a socket, with the deadline and the bytes counted at every single read."""

    def __init__(self, connection: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        self._connection = connection
        self._deadline = deadline
        self._max_bytes = max_bytes

    def sendall(self, content: ReadableBuffer) -> None:
        """Sends everything within what is left of the deadline."""
        self._connection.settimeout(self._deadline.left())
        self._connection.sendall(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The reading side."""
        return io.BufferedReader(_TimedReader(self._connection, self._deadline, self._max_bytes))

    def close(self) -> None:
        """Closing is left to whoever opened the connection."""


class _TimedReader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        self._connection = connection
        self._deadline = deadline
        self._left = max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self._left <= 0:
            raise EgressUnreachable("too_large")
        self._connection.settimeout(self._deadline.left())
        count = self._connection.recv_into(buffer)
        self._left -= count
        return count
