"""The tables of the white list, of registrations that await a decision, and of links to reset a password."""

from __future__ import annotations

from contextlib import suppress

from common.models.operation import LockRow
from common.models.registration import Registration, ResetLink, WhitelistEntry
from common.stores.database import Database, Taken

MAKES = (WhitelistEntry, Registration, ResetLink)


def apply(database: Database, now_ms: int) -> None:
    """Make the tables, and the row that changes of the white list lock."""
    for model in MAKES:
        database.create(model)
    with suppress(Taken):
        database.insert(LockRow, name="whitelist")
