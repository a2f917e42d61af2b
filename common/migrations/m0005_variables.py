"""The tables of the settings that can be changed at run time and of tenants' limits, and the counter of versions."""

from __future__ import annotations

from contextlib import suppress

from common.models.operation import State
from common.models.variable import StoredVariable, TenantLimit, VariableChange
from common.stores.database import Database, Taken

MAKES = (StoredVariable, VariableChange, TenantLimit)


def apply(database: Database, now_ms: int) -> None:
    """Make the tables."""
    for model in MAKES:
        database.create(model)
    with suppress(Taken):
        database.insert(State, name="variables_version", value=1)
