"""Tokens that are no more: for a while their digests are kept, so that it is noticed if one is still presented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from common.core.tokens import digest_of_stored
from common.models.token import RetiredToken
from common.services.plane import Plane
from common.stores.database import Database

#: How long after its end a token is still known.
KEPT_MS = 90 * 24 * 3600 * 1000
_AT_ONCE = 500


class Retired(NamedTuple):
    """A token that has just gone: its stored form, its id (or how it ends, if RAGFlow made it), its tenant, whom it
    acted for, and why it is gone."""

    stored: str
    name: str
    tenant_id: str
    user_id: str
    reason: str


def keep(database: Database, now_ms: int, gone: Sequence[Retired]) -> None:
    """Note tokens that have gone, in the running transaction, which has deleted their rows before: who deletes the same
    ones at the same moment waits there, and not for each other."""
    # By their digest, for two tenants of a RAGFlow may have had the same one.
    rows = {
        digest_of_stored(token.stored): {
            "token_name": token.name,
            "tenant_id": token.tenant_id,
            "user_id": token.user_id,
            "reason": token.reason,
            "retired_at": now_ms,
        }
        for token in gone
    }
    digests = list(rows)
    for start in range(0, len(digests), _AT_ONCE):
        some = digests[start : start + _AT_ONCE]
        database.execute(RetiredToken.delete().where(RetiredToken.digest.in_(some)))
        database.execute(RetiredToken.insert_many([{"digest": digest, **rows[digest]} for digest in some]))


def prune(plane: Plane, *, limit: int = 1000) -> int:
    """Delete up to ``limit`` notes that are older than KEPT_MS; returns how many."""
    old = plane.database.all(
        "SELECT digest FROM rk_retired_token WHERE retired_at < ? LIMIT ?", (plane.now_ms() - KEPT_MS, limit)
    )
    if not old:
        return 0
    query = RetiredToken.delete().where(RetiredToken.digest.in_([digest for (digest,) in old]))
    deleted: int = plane.database.execute(query)
    return deleted
