"""HTTP for the clients of stores on which no call outlives its deadline, however slowly the server drips.

urllib3's own limits are for each read. Here every operation on a socket gets what is left of a ``TimeLimit``.
"""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from common.conf.file import SettingsError
from common.stores.network import TimeLimit, connected

#: Connections that are kept open to one server; more are opened when more calls are under way.
KEPT = 64


def tls_context(limit: TimeLimit, section: str, *, verify: bool, ca_certs: str) -> ssl.SSLContext:
    """How to speak TLS within the limit. ``ca_certs`` is a path, "" for the system's authorities.

    Raises SettingsError, which names the section, for a file that can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_certs or None)
    except OSError as error:
        raise SettingsError(f"{section}: {ca_certs} can't be used for TLS ({error.strerror or error}).") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = _timed_tls(limit)
    return context


class _Renewing(HTTPConnectionPool):
    """Opens a kept connection anew where the server, as it may at any time, has just closed it.

    Such a request is sent twice, which is right for those that change nothing the second time: all that stores send.
    """

    def _make_request(self, conn: Any, *args: Any, **given: Any) -> Any:
        kept = not conn.is_closed
        try:
            return super()._make_request(conn, *args, **given)
        except (ConnectionError, ssl.SSLEOFError):
            if not kept:
                raise
            conn.close()
            return super()._make_request(conn, *args, **given)


class BoundedHttpPool(_Renewing, HTTPConnectionPool):
    """The connections to one server without TLS, for any number of threads."""

    def __init__(self, host: str, port: int | None = None, *, limit: TimeLimit, **given: Any) -> None:
        super().__init__(host, port, **given)
        self.ConnectionCls = partial(_Connection, limit=limit)  # type: ignore[assignment]


class BoundedHttpsPool(_Renewing, HTTPSConnectionPool):
    """The connections to one server over TLS; ``ssl_context`` must come from ``tls_context``."""

    def __init__(self, host: str, port: int | None = None, *, limit: TimeLimit, **given: Any) -> None:
        super().__init__(host, port, **given)
        self.ConnectionCls = partial(_SecureConnection, limit=limit)  # type: ignore[assignment]

    def _validate_conn(self, conn: Any) -> None:
        """urllib3 would warn at every call of a certificate that isn't verified; the operator said so, once."""
        if conn.is_closed:
            conn.connect()


class BoundedPoolManager(urllib3.PoolManager):
    """What clients take as their HTTP client; no failure is tried again, and no proxy of the environment is used."""

    def __init__(self, limit: TimeLimit, tls: ssl.SSLContext | None) -> None:
        given: dict[str, Any] = {"ssl_context": tls} if tls else {}
        super().__init__(maxsize=KEPT, retries=False, **given)
        self.pool_classes_by_scheme = {
            "http": partial(BoundedHttpPool, limit=limit),  # type: ignore[dict-item]
            "https": partial(BoundedHttpsPool, limit=limit),  # type: ignore[dict-item]
        }


class _Connection(HTTPConnection):
    """A connection that is made, and used, within the limit of the thread that uses it."""

    def __init__(self, *args: Any, limit: TimeLimit, **given: Any) -> None:
        super().__init__(*args, **given)
        self._limit = limit

    def _new_conn(self) -> socket.socket:
        return _opened(self, self._limit)


class _SecureConnection(HTTPSConnection):
    """The same over TLS."""

    def __init__(self, *args: Any, limit: TimeLimit, **given: Any) -> None:
        super().__init__(*args, **given)
        self._limit = limit

    def _new_conn(self) -> socket.socket:
        return _opened(self, self._limit)


def _opened(connection: HTTPConnection, limit: TimeLimit) -> socket.socket:
    """A connected socket. Raises urllib3's errors, which its callers tell apart."""
    try:
        return connected(
            connection.host, connection.port, limit.left_s, lambda made: made, partial(_TimedSocket, limit)
        )
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, "no connection in time") from error
    except OSError as error:
        raise NewConnectionError(connection, "no connection") from error


class _TimedSocket(socket.socket):
    """Each operation of http.client gets what is left of the limit."""

    def __init__(self, limit: TimeLimit, family: socket.AddressFamily) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._limit = limit

    def recv_into(self, *args: Any) -> int:
        self.settimeout(self._limit.left_s())
        return super().recv_into(*args)

    def sendall(self, *args: Any) -> None:
        self.settimeout(self._limit.left_s())
        super().sendall(*args)


def _timed_tls(limit: TimeLimit) -> type[ssl.SSLSocket]:
    class TimedTls(ssl.SSLSocket):
        """The same for TLS; the module ssl makes its sockets itself, so the class knows the limit."""

        def recv_into(self, *args: Any) -> int:
            self.settimeout(limit.left_s())
            return super().recv_into(*args)

        def send(self, *args: Any) -> int:
            # sendall calls this for each piece.
            self.settimeout(limit.left_s())
            return super().send(*args)

        def do_handshake(self, block: bool = False) -> None:
            # A handshake takes its socket's time limit for the whole of it.
            self.settimeout(limit.left_s())
            super().do_handshake(block)

    return TimedTls
