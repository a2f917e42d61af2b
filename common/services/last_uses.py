"""When tokens and sessions were last used, written beside the requests: a read never waits for the write lock of the
database."""

from __future__ import annotations

import logging
import os
import threading

from common.core.errors import StoreUnavailable
from common.stores.database import Database

log = logging.getLogger(__name__)

# While the database can't be written to, no more is kept than this.
_MOST_KEPT = 10_000
# Of uses that need not be written yet, so many are at once; each that is takes so long to be made up for.
_EARLY_AT_ONCE = 50
_EARLY_EVERY_MS = 1000
# After one that could not be written there is none for so long.
_EARLY_AGAIN_MS = 60_000


class LastUses:
    """What this process has still to write: at most one moment for each id, by one thread that ends when there is
    nothing.

    ``statement`` takes moment, id and moment once more; ``what`` names the things in the log. A note is kept until it
    is written, and tried again with the next one. It is lost with its process; the next use makes another one.
    """

    def __init__(self, what: str, statement: str) -> None:
        self._what = what
        self._statement = statement
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._noted: dict[str, int] = {}
        self._writing: dict[str, int] = {}
        self._writer: threading.Thread | None = None
        # Early ones have used up the time until then.
        self._early_until = 0
        # Uses that were left out, in the order in which they were made.
        self._left_out: dict[str, int] = {}

    def note_early(self, database: Database, used_id: str, at_ms: int) -> None:
        """``note`` for a use that need not be written yet: while there are many, only this process remembers it."""
        self._make_sure_of_pid()
        until = max(self._early_until, at_ms - _EARLY_AT_ONCE * _EARLY_EVERY_MS) + _EARLY_EVERY_MS
        if until <= at_ms:
            self._early_until = until
            self.note(database, used_id, at_ms)
            return
        with self._lock:
            self._left_out.pop(used_id, None)
            self._left_out[used_id] = at_ms
            if len(self._left_out) > _MOST_KEPT:
                del self._left_out[next(iter(self._left_out))]

    def note(self, database: Database, used_id: str, at_ms: int) -> None:
        """Have it written that something was used at ``at_ms``."""
        self._make_sure_of_pid()
        with self._lock:
            self._noted[used_id] = at_ms
            if self._writer is not None:
                return
            self._writer = threading.Thread(
                target=self._write, args=(database,), name=f"last-use-of-{self._what}", daemon=True
            )
            writer = self._writer
        try:
            writer.start()
        except RuntimeError as error:
            log.warning("last use of %s not written: %s", self._what, error)
            with self._lock:
                self._writer = None

    def unwritten(self, used_id: str) -> int:
        """The moment of a use that is not written yet; 0 where there is none."""
        return self._noted.get(used_id) or self._writing.get(used_id) or 0

    def last(self, used_id: str) -> int:
        """The moment of the last use that this process knows of and that may not be written; 0 where there is none."""
        return max(self.unwritten(used_id), self._left_out.get(used_id, 0))

    def wait(self, seconds: float) -> None:
        """Return when all that was noted is written, or after so long."""
        writer = self._writer
        if writer is not None:
            writer.join(seconds)

    def _make_sure_of_pid(self) -> None:
        if self._pid != os.getpid():
            # After a fork: the parent's thread is not here, and who knows who held its lock.
            self._begin()

    def _write(self, database: Database) -> None:
        try:
            while taken := self._taken():
                if not self._store(database, taken):
                    break
        finally:
            self._end()
            database.close()

    def _end(self) -> None:
        """However the thread ends, the next use has another one, and what was not written goes with it."""
        with self._lock:
            if self._writer is threading.current_thread():
                self._noted = dict([*self._writing.items(), *self._noted.items()][-_MOST_KEPT:])
                self._writing, self._writer = {}, None

    def _taken(self) -> dict[str, int]:
        """What is noted, which is then being written; the thread ends with an empty one."""
        with self._lock:
            self._writing, self._noted = self._noted, {}
            if not self._writing:
                self._writer = None
            return self._writing

    def _store(self, database: Database, taken: dict[str, int]) -> bool:
        try:
            # One by one: in a transaction they would hold rows that others lock in another order.
            for used_id, at_ms in taken.items():
                database.run(self._statement, (at_ms, used_id, at_ms))
        except StoreUnavailable as error:
            log.warning("last use of %d %s not written: %s", len(taken), self._what, error.reason)
            self._early_until = max(taken.values()) + _EARLY_AGAIN_MS
            return False
        return True
