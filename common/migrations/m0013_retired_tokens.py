"""The table of tokens that are no more, by which it is noticed that somebody still presents one."""

from __future__ import annotations

from common.models.token import RetiredToken
from common.stores.database import Database

MAKES = (RetiredToken,)


def apply(database: Database, now_ms: int) -> None:
    """Make the table."""
    for model in MAKES:
        database.create(model)
