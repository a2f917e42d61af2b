"""Who made a token for somebody else stands beside its scopes; of tokens of before it is not known."""

from __future__ import annotations

from common.models.token import TokenTrait
from common.stores.database import Database

_TABLE = "rk_token_trait"


def apply(database: Database, now_ms: int) -> None:
    """Add the column where it is missing: step 9 makes the table with it."""
    present = {column.name for column in database.peewee.get_columns(_TABLE)}
    if TokenTrait.made_by.column_name not in present:
        database.add_column(_TABLE, TokenTrait.made_by)
