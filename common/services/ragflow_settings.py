"""RAGFlow's own table of settings: read and written where a RAGFlow that has one shares the database.

RAGFlow fills it when it starts. A row that it filled and nobody has changed since says nothing: its
``enable_whitelist`` is true from the start, and nothing there reads it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from common.core.variables import VARIABLES, Variable, as_text
from common.models.variable import SystemSetting
from common.stores.database import Database

TABLE: str = SystemSetting._meta.table_name
#: A RAGFlow may be brought up to a version that has the table while this plane runs.
_LOOK_EVERY_S = 60.0
# What RAGFlow fills in where it isn't the default of this plane too.
_FILLED = {"enable_whitelist": "true"}
_NAMES = tuple(name for name, variable in VARIABLES.items() if variable.ragflow)


class Row(NamedTuple):
    """A value that counts, and when it was written (UTC milliseconds)."""

    text: str
    updated_at: int | None


class RagflowSettings:
    """Whether the table is there, and what in it counts. ``shared`` tells whether a RAGFlow shares the database."""

    def __init__(
        self, database: Database, shared: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._shared = shared
        self._clock = clock
        self._there = False
        self._look_at = 0.0

    def present(self) -> bool:
        """Whether the table is there. Raises StoreUnavailable."""
        if not self._there and self._clock() >= self._look_at and self._shared():
            self._there = TABLE in self._database.tables()
            self._look_at = self._clock() + _LOOK_EVERY_S
        return self._there

    def rows(self) -> dict[str, Row]:
        """By name what counts of the table; nothing where there is none. Raises StoreUnavailable."""
        if not self.present():
            return {}
        marks = ", ".join("?" * len(_NAMES))
        rows = self._database.all(
            f"SELECT name, value, create_time, update_time FROM {TABLE} WHERE name IN ({marks})", _NAMES
        )
        return {
            name: Row(text, updated)
            for name, text, created, updated in rows
            if name in _NAMES and _counts(VARIABLES[name], text, created, updated)
        }


def _counts(variable: Variable, text: str, created: int | None, updated: int | None) -> bool:
    if text == "" and (variable.kind != "string" or variable.secret):
        return False
    filled = _FILLED.get(variable.name, as_text(variable.default))
    return text != filled or (updated or 0) > (created or 0)
