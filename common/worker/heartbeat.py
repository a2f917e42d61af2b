"""A worker's signs of life, in RAGFlow's format and under its keys, and the removal of workers that give none."""

from __future__ import annotations

import logging
import os
import socket
from datetime import UTC, datetime

from common.core.errors import StoreUnavailable
from common.services import jobs
from common.services.plane import Plane
from common.worker.tally import Tally

log = logging.getLogger(__name__)

#: Seconds between two heartbeats, as in RAGFlow.
EVERY_S = 30.0
# RAGFlow's executors take turns under this name.
_CLEANING = "clean_task_executor"
_CLEANING_TTL_S = 60.0


def executor_name(host: str | None = None, pid: int | None = None) -> str:
    """A name that no other living process has: ``task_executor_<host>_<pid>``, at most 64 characters."""
    suffix = f"_{pid or os.getpid()}"
    return f"task_executor_{host or socket.gethostname()}"[: 64 - len(suffix)] + suffix


class Heartbeat:
    """Reports one worker: ``pending`` and ``current`` are its own jobs in hand, ``lag`` what waits for any worker."""

    def __init__(self, plane: Plane, name: str, tally: Tally) -> None:
        self._plane = plane
        self._name = name
        self._tally = tally
        self._boot_at = _iso(plane.now_ms())
        self._address = _own_address()
        self._lag = 0

    def beat(self) -> bool:
        """Report once and remove peers that have gone silent; False, with a warning, when the cache store is down."""
        now_ms = self._plane.now_ms()
        count = self._tally.count()
        beat = {
            "ip_address": self._address,
            "pid": os.getpid(),
            "name": self._name,
            "now": _iso(now_ms),
            "boot_at": self._boot_at,
            "pending": len(count.current),
            "lag": self._count_waiting(),
            "done": count.done,
            "failed": count.failed,
            "current": count.current,
        }
        try:
            self._plane.cache.beat(self._name, beat, now_ms / 1000)
            self._remove_silent_peers(now_ms / 1000)
        except StoreUnavailable as error:
            log.warning("no heartbeat: the %s store is unavailable: %s", error.store, error.reason)
            return False
        return True

    def leave(self) -> None:
        """Take this worker out of the registry, at a clean stop."""
        try:
            self._plane.cache.remove_executor(self._name)
        except StoreUnavailable as error:
            log.warning("%s stays registered: the cache store is unavailable: %s", self._name, error.reason)

    def _count_waiting(self) -> int:
        """The jobs that wait for a worker; what was counted last while the metadata store is down."""
        try:
            self._lag = jobs.waiting(self._plane)
        except StoreUnavailable as error:
            log.warning("waiting jobs not counted: the metadata store is unavailable: %s", error.reason)
        return self._lag

    def _remove_silent_peers(self, now_s: float) -> None:
        cache = self._plane.cache
        if not cache.acquire_lease(_CLEANING, self._name, _CLEANING_TTL_S):
            return
        since = now_s - self._plane.settings.worker_heartbeat_timeout
        for name, beats in cache.heartbeats(since).items():
            if not beats and name != self._name:
                log.info("removing %s: no heartbeat since %s", name, _iso(int(since * 1000)))
                cache.remove_executor(name)
        cache.release_lease(_CLEANING, self._name)


def _iso(at_ms: int) -> str:
    """ISO 8601 with milliseconds and offset."""
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).isoformat(timespec="milliseconds")


def _own_address() -> str:
    """The address this machine would send from. Connecting a datagram socket sends nothing and asks no resolver."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # A documentation address (RFC 5737): only the routing table is consulted.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
