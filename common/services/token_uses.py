"""When tokens were last used, written beside the requests: a read never waits for the write lock of the database."""

from __future__ import annotations

import logging
import os
import threading

from common.core.errors import StoreUnavailable
from common.stores.database import Database

log = logging.getLogger(__name__)


class TokenUses:
    """What this process has still to write: at most one moment a token, by one thread that ends when there is nothing.

    A note is lost with its process, or with a database that can't be written to; the next use makes another one.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._noted: dict[str, int] = {}
        self._writer: threading.Thread | None = None

    def note(self, database: Database, token_id: str, at_ms: int) -> None:
        """Have it written that a token was used at ``at_ms``."""
        if self._pid != os.getpid():
            # After a fork: the parent's thread is not here, and who knows who held its lock.
            self._begin()
        with self._lock:
            self._noted[token_id] = at_ms
            if self._writer is not None:
                return
            self._writer = threading.Thread(target=self._write, args=(database,), name="token-uses", daemon=True)
            writer = self._writer
        try:
            writer.start()
        except RuntimeError as error:
            log.warning("last use of tokens not written: %s", error)
            with self._lock:
                self._writer = None

    def wait(self, seconds: float) -> None:
        """Return when all that was noted is written, or after so long."""
        writer = self._writer
        if writer is not None:
            writer.join(seconds)

    def _write(self, database: Database) -> None:
        try:
            while noted := self._taken():
                _store(database, noted)
        finally:
            database.close()

    def _taken(self) -> dict[str, int]:
        """What is noted, which is then no longer; the thread ends with an empty one."""
        with self._lock:
            noted, self._noted = self._noted, {}
            if not noted:
                self._writer = None
            return noted


def _store(database: Database, noted: dict[str, int]) -> None:
    try:
        with database.transaction():
            for token_id, at_ms in noted.items():
                database.run("UPDATE rk_token SET last_used_at = ? WHERE id = ?", (at_ms, token_id))
    except StoreUnavailable as error:
        log.warning("last use of %d tokens not written: %s", len(noted), error.reason)
