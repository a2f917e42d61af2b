"""The table of the settings that can be changed at run time, and the counter of its versions."""

from __future__ import annotations

from contextlib import suppress

from common.models.operation import State
from common.models.variable import StoredVariable
from common.stores.database import Database, Taken

MAKES = (StoredVariable,)


def apply(database: Database, now_ms: int) -> None:
    """Make the table."""
    for model in MAKES:
        database.create(model)
    with suppress(Taken):
        database.insert(State, name="variables_version", value=1)
