"""What this process knows of the settings that can be changed while it runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from common.core.errors import BadField, StoreUnavailable
from common.core.variables import VARIABLES, Value, parsed
from common.stores.database import Database

log = logging.getLogger(__name__)

#: After at most so many seconds every process has what another one set.
EVERY_S = 1.0
#: The counter in ``rk_state`` that goes up with each change.
VERSION = "variables_version"

_NO_VERSION = -1


class _Snapshot(NamedTuple):
    version: int
    values: Mapping[str, Value]


class Variables:
    """The values that are set, as of at most a second ago, and the registered defaults for all others.

    The version comes with every authentication; who isn't authenticated has it asked for, once a second. While the
    database is down the last values count.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._due_at = 0.0
        self._lock = threading.Lock()
        # One attribute, so that no thread sees the values of one version under the number of another.
        self._current = _Snapshot(_NO_VERSION, MappingProxyType({}))

    def integer(self, name: str) -> int:
        """The value of an integer variable."""
        return cast(int, self._value(name))

    def flag(self, name: str) -> bool:
        """The value of a boolean variable."""
        return self._value(name) is True

    def text(self, name: str) -> str:
        """The value of a string variable."""
        return cast(str, self._value(name))

    def data(self, name: str) -> Any:
        """The value of a variable whose kind is ``json``; not to be changed."""
        return self._value(name)

    def follow(self, version: int) -> None:
        """Take note of the version that is stored now; the values are read again only when it is another one."""
        self._due_at = self._clock() + EVERY_S
        if version != self._current.version:
            self._read(version)

    def _value(self, name: str) -> Value:
        if self._clock() >= self._due_at:
            self._look()
        variable = VARIABLES[name]
        return self._current.values.get(name, variable.default)

    def _look(self) -> None:
        # One thread asks; the others go on with what is known, but for the very first look.
        if not self._lock.acquire(blocking=self._current.version == _NO_VERSION):
            return
        try:
            if self._clock() < self._due_at:
                return
            row = self._database.one("SELECT value FROM rk_state WHERE name = ?", (VERSION,))
            self.follow(row[0] if row else _NO_VERSION)
        except StoreUnavailable as error:
            self._due_at = self._clock() + EVERY_S
            log.warning("settings not looked up: %s", error.reason)
        finally:
            self._lock.release()

    def _read(self, version: int) -> None:
        values: dict[str, Value] = {}
        for name, text in self._database.all("SELECT name, value FROM rk_variable"):
            variable = VARIABLES.get(name)
            if variable is None:
                continue
            try:
                values[name] = parsed(variable, text)
            except BadField as error:
                log.warning("a stored setting does not count: %s", error.message)
        self._current = _Snapshot(version, MappingProxyType(values))
