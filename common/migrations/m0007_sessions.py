"""What sessions got beside: how they are held, when the password was proven, refresh tokens, and pages of them.

The columns may be empty: a process of the version before goes on writing sessions without them.
"""

from __future__ import annotations

from common.models.account import RefreshToken
from common.stores.database import Database

MAKES = (RefreshToken,)
_COLUMNS = {"authenticated_at": "BIGINT NULL", "kind": "VARCHAR(8) NULL"}


def apply(database: Database, now_ms: int) -> None:
    """Make the table, the columns and the index, as far as they are missing."""
    for model in MAKES:
        database.create(model)
    present = {column.name for column in database.peewee.get_columns("rk_session")}
    for name, kind in _COLUMNS.items():
        if name not in present:
            database.run(f"ALTER TABLE rk_session ADD COLUMN {name} {kind}")
    database.create_index("rk_session_page", "rk_session", "user_id, ended_at, created_at, id")
