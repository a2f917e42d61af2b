"""An index of the accounts in the audit trail, by which those that were deleted are found, too."""

from __future__ import annotations

from common.stores.database import Database


def apply(database: Database, now_ms: int) -> None:
    """Make the index."""
    database.create_index("rk_audit_by_actor_id", "rk_audit_event", "actor_id")
