"""An index of the names under which each account is in the audit trail, from its first to its last event under each."""

from __future__ import annotations

from common.stores.database import Database


def apply(database: Database, now_ms: int) -> None:
    """Make the index, in the place of the one of the accounts alone."""
    database.create_index("rk_audit_by_actor_name", "rk_audit_event", "actor_id, actor_key, uid")
    database.drop_index("rk_audit_by_actor_id", "rk_audit_event")
