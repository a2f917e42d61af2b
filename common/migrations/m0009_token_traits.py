"""The table of what sets one API token apart: its scopes, and which one takes its place."""

from __future__ import annotations

from common.models.token import TokenTrait
from common.stores.database import Database

# A table of its own: a column more would take a right (ALTER) that nothing else takes.
MAKES = (TokenTrait,)


def apply(database: Database, now_ms: int) -> None:
    """Make the table."""
    for model in MAKES:
        database.create(model)
