"""Periodic jobs, expiry notices, and the indexes that their searches and the claim of a job read."""

from __future__ import annotations

from common.models.base import Table
from common.models.operation import Schedule
from common.models.token import ExpiryNotice
from common.stores.database import Database

MAKES: tuple[type[Table], ...] = (Schedule, ExpiryNotice)
_INDEXES = {
    # Beside the table's own (state, visible_at): in this one a claim finds everything that it asks for.
    "rk_job_claim": ("rk_job", "state, visible_at, id, kind"),
    "rk_job_prune": ("rk_job", "state, finished_at"),
    "rk_token_expiry": ("rk_token", "expires_at, id"),
}


def apply(database: Database, now_ms: int) -> None:
    """Make the tables and indexes."""
    for model in MAKES:
        database.create(model)
    for name, (table, columns) in _INDEXES.items():
        database.create_index(name, table, columns)
