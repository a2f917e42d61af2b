"""Periodic jobs, expiry notices, and the indexes that their searches and the claim of a job read."""

from __future__ import annotations

import peewee

from common.models.operation import Schedule
from common.models.token import ExpiryNotice
from common.stores.database import Database

_INDEXES = {
    # Beside the table's own (state, visible_at): in this one a claim finds everything that it asks for.
    "rk_job_claim": "rk_job (state, visible_at, id, kind)",
    "rk_job_prune": "rk_job (state, finished_at)",
    "rk_token_expiry": "rk_token (expires_at, id)",
}


def apply(database: Database, now_ms: int) -> None:
    """Make the tables and indexes."""
    for model in (Schedule, ExpiryNotice):
        peewee.SchemaManager(model, database=database.peewee).create_all(safe=True)
    for name, on in _INDEXES.items():
        database.run(f"CREATE INDEX {name} ON {on}")
