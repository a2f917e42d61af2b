"""An index for the pages of who holds a role."""

from __future__ import annotations

from common.stores.database import Database


def apply(database: Database, now_ms: int) -> None:
    """Make the index; on MySQL, whose index of roles ends in the account's id anyway, it costs a little room."""
    database.create_index("rk_user_role_page", "rk_user_role", "role_id, user_id")
