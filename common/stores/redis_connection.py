"""A connection to Redis on which no exchange outlives its deadline, and what its failures mean in plain words."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from redis import Connection
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as Late
from redis.retry import Retry

Command = tuple[str | bytes | int | float, ...]
_Address = tuple[socket.AddressFamily, Any]

# Idle seconds, seconds between probes, and probes after which the system gives a silent peer up.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}


class BoundedConnection(Connection):
    """One connection, used by one thread. ``timeout_s`` is for a whole exchange: name look-up, connect, TLS, log-in
    and answer. redis-py's own limits are for each read, so a server that drips would never meet them.

    Raises redis-py's errors.
    """

    # Untyped in redis-py, which would have it None for ever.
    _sock: Any

    def __init__(
        self,
        *,
        host: str,
        port: int,
        db: int,
        username: str,
        password: str,
        timeout_s: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            host=host,
            port=port,
            db=db,
            username=username or None,
            password=password or None,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Its default tries ten times, with pauses that make a wrong password take seconds.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
        self._timeout_s = timeout_s
        self._tls = tls
        self._ends_at = 0.0

    def exchange(self, commands: Sequence[Command], ends_at: float) -> list[Any]:
        """Send the commands together; their answers in order, one that was refused as a ResponseError in its place.

        Connects first where there is no connection. ``ends_at`` is of the monotonic clock. Any other error ends the
        connection (redis-py sees to that), so what comes late is never taken for the answer to another question.
        """
        self._ends_at = ends_at
        if self._sock is not None and self._is_stale():
            self.disconnect()  # type: ignore[no-untyped-call]
        if self._sock is None:
            self.connect()  # type: ignore[no-untyped-call]
        self.send_packed_command(self.pack_commands(commands), check_health=False)  # type: ignore[no-untyped-call]
        return [self._answer() for _ in commands]

    def _answer(self) -> Any:
        try:
            return self.read_response()
        except ResponseError as error:
            return error

    def _is_stale(self) -> bool:
        """Whether the server has closed the connection, or said something that nobody asked for."""
        try:
            return self.can_read(0)
        except (RedisError, OSError):
            return True

    def _left_s(self) -> float:
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the deadline is over")
        return left_s

    def _connect(self) -> Any:
        error: OSError = OSError("the host name has no address")
        addresses = _resolved(self.host, self.port, self._left_s())
        for tried, address in enumerate(addresses):
            try:
                # One that swallows packets must leave time for the next.
                return self._reached(address, self._left_s() / (len(addresses) - tried))
            except OSError as failure:
                error = failure
        raise error

    def _reached(self, address: _Address, share_s: float) -> Any:
        family, where = address
        plain = socket.socket(family, socket.SOCK_STREAM)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE.items():
                plain.setsockopt(socket.IPPROTO_TCP, option, value)
            plain.settimeout(share_s)
            plain.connect(where)
            return _TimedSocket(self._secured(plain), self._left_s)
        except BaseException:
            plain.close()
            raise

    def _secured(self, plain: socket.socket) -> socket.socket:
        if self._tls is None:
            return plain
        secured = self._tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        try:
            # A handshake takes its socket's time limit for the whole of it.
            secured.settimeout(self._left_s())
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured


class _TimedSocket:
    """What redis-py uses of a socket, each operation limited to what is left of the exchange."""

    def __init__(self, real: socket.socket, left_s: Callable[[], float]) -> None:
        self._real = real
        self._left_s = left_s
        self._blocks = True

    def settimeout(self, value: float | None) -> None:
        """Only whether to wait at all is taken from redis-py."""
        self._blocks = value != 0

    def recv(self, size: int) -> bytes:
        self._real.settimeout(self._left_s() if self._blocks else 0)
        return self._real.recv(size)

    def sendall(self, data: bytes) -> None:
        self._real.settimeout(self._left_s())
        self._real.sendall(data)

    def shutdown(self, how: int) -> None:
        self._real.shutdown(how)

    def close(self) -> None:
        self._real.close()


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

    threading.Thread(target=ask, name="resolve-redis", daemon=True).start()
    if not done.wait(left_s):
        raise TimeoutError("the host name was not resolved in time")
    answer = found[0]
    if isinstance(answer, OSError):
        raise answer
    return answer


def _addresses(host: str, port: int) -> list[_Address]:
    return [(entry[0], entry[4]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


# By the first word of the server's refusal: what it means. It may quote keys or names, so its own words are not shown.
_REFUSALS = {
    "NOAUTH": "it wants a password",
    "NOPERM": "the user may not do that there",
    "READONLY": "it is a read-only replica",
    "OOM": "it is full: its memory limit is reached",
    "MISCONF": "it takes no writes: it can't save to its disk",
    "NOREPLICAS": "it takes no writes: too few replicas are connected",
    "LOADING": "it is still loading its data",
    "BUSY": "it is busy with a script",
    "MASTERDOWN": "it is a replica without its master",
    "CLUSTERDOWN": "its cluster is down",
    "WRONGTYPE": "a key holds another type of value: another program uses its name",
}
_ERRORS = {
    "max number of clients reached": "it accepts no more connections (maxclients)",
    "DB index is out of range": "it has no database of that number",
}


def reason_of(error: RedisError | OSError) -> str:
    """What went wrong, in words for operators; never an address, a key, a value or a credential."""
    for each in _causes(error):
        if isinstance(each, (Late, TimeoutError)):
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
    if isinstance(error, RedisError):
        return _refusal(error)
    return "the connection was cut"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refusal(error: RedisError) -> str:
    text = str(error)
    code = str(getattr(error, "status_code", None) or text.partition(" ")[0])
    if code in _REFUSALS:
        return _REFUSALS[code]
    for words, meaning in _ERRORS.items():
        if words in text:
            return meaning
    if isinstance(error, AuthenticationError):
        return "it refuses the user name or the password"
    if isinstance(error, ResponseError):
        return f"it refused the command ({code if code.isalpha() and code.isupper() else 'ERR'})"
    if isinstance(error, Disconnected):
        return "the connection was cut"
    return "it does not speak the protocol of Redis"
