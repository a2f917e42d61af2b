"""How sessions are held and when their password was given, refresh tokens, and the index for pages of sessions.

In tables of their own: a new column would take the right ALTER on the database.
"""

from __future__ import annotations

from common.models.account import RefreshToken, SessionTrait
from common.stores.database import Database

MAKES = (SessionTrait, RefreshToken)


def apply(database: Database, now_ms: int) -> None:
    """Make the tables and the index."""
    for model in MAKES:
        database.create(model)
    database.create_index("rk_session_page", "rk_session", "user_id, ended_at, created_at, id")
