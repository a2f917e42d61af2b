"""A connection to Redis on which no exchange outlives its deadline, and what its failures mean in plain words."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from typing import Any

from redis import Connection
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as Late
from redis.retry import Retry

from common.stores.network import causes, failure_of
from common.stores.sockets import reached

Command = tuple[str | bytes | int | float, ...]


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
        return reached(self.host, self.port, self._left_s, self._tls)


# By the first word of the server's refusal: what it means. It may quote keys or names, so its own words are not shown.
_REPLICA = "it is a read-only replica"
_REFUSALS = {
    "NOAUTH": "it wants a password",
    "NOPERM": "the user may not do that there",
    "READONLY": _REPLICA,
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
    # Up to Redis 6.2 a script that met it says so in the middle of its words.
    " -READONLY ": _REPLICA,
    "max number of clients reached": "it accepts no more connections (maxclients)",
    "DB index is out of range": "it has no database of that number",
}


def is_read_only(answer: object) -> bool:
    """Whether a replica refused a change."""
    return isinstance(answer, ResponseError) and _refusal(answer) == _REPLICA


def reason_of(error: RedisError | OSError) -> str:
    """What went wrong, in words for operators; never an address, a key, a value or a credential."""
    failure = failure_of(error)
    if failure:
        return failure
    if any(isinstance(each, Late) for each in causes(error)):
        return "no answer in time"
    return _refusal(error) if isinstance(error, RedisError) else "the connection was cut"


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
