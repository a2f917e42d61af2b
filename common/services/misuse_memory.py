"""Which misused credentials this process has recorded of late, and how many of each account."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import NamedTuple, TypeVar

T = TypeVar("T")

#: A credential that is presented again and again is recorded so often at most, by each process.
EVERY_MS = 10 * 60 * 1000
#: After so long one that could not be recorded is tried again.
AGAIN_MS = 10 * 1000
#: Of one account no more are recorded within an hour, by each process: whoever makes tokens and deletes them has many.
MOST_OF_AN_ACCOUNT = 100
HOUR_MS = 60 * 60 * 1000
_REMEMBERED = 4096


class _Hour(NamedTuple):
    """The hour of an account in which misuses are counted: its end (UTC milliseconds), and how many there were."""

    ends_at: int
    misuses: int


class MisuseMemory:
    """Remembers the last few thousand credentials, each with the moment when its misuse was last recorded, and as many
    accounts."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._recorded: OrderedDict[str, int] = OrderedDict()
        self._hours: OrderedDict[str, _Hour] = OrderedDict()

    def is_news(self, credential: str, now_ms: int) -> bool:
        """Whether a misuse at ``now_ms`` (UTC milliseconds) is to be recorded, which is then remembered."""
        self._begin_after_a_fork()
        with self._lock:
            before = self._recorded.get(credential)
            if before is not None and now_ms < before + EVERY_MS:
                return False
            _remember(self._recorded, credential, now_ms)
            return True

    def put_off(self, credential: str, until_ms: int) -> None:
        """Let a misuse of this credential be news again from then on: this one was not recorded."""
        self._begin_after_a_fork()
        with self._lock:
            _remember(self._recorded, credential, until_ms - EVERY_MS)

    def give_room(self, account: str) -> None:
        """Take back that a misuse of this account was counted."""
        self._begin_after_a_fork()
        with self._lock:
            hour = self._hours.get(account)
            if hour is not None:
                self._hours[account] = hour._replace(misuses=hour.misuses - 1)

    def room(self, account: str, now_ms: int) -> tuple[int, int]:
        """How many misuses of an account may still be recorded, with the one at ``now_ms``, which is then counted; and
        until when (UTC milliseconds)."""
        self._begin_after_a_fork()
        with self._lock:
            hour = self._hours.get(account)
            if hour is None or hour.ends_at <= now_ms:
                hour = _Hour(now_ms + HOUR_MS, 0)
            _remember(self._hours, account, hour._replace(misuses=hour.misuses + 1))
            return max(MOST_OF_AN_ACCOUNT - hour.misuses, 0), hour.ends_at

    def _begin_after_a_fork(self) -> None:
        if self._pid != os.getpid():
            # Who knows who held its lock.
            self._begin()


def _remember(memory: OrderedDict[str, T], key: str, value: T) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)
