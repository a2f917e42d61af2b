"""Keys of e-mails by the rule of docs/decisions/015: letters that folding had made others are themselves again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from common.core.emails import email_key
from common.stores.database import Database, Taken

_PIECE = 1000
_SOURCES = {
    "rk_account": "SELECT a.user_id, a.email_key, u.email FROM rk_account a JOIN user u ON u.id = a.user_id "
    "WHERE a.user_id > ? ORDER BY a.user_id LIMIT ?",
    "rk_invitation": "SELECT i.id, i.email_key, i.email FROM rk_invitation i WHERE i.id > ? ORDER BY i.id LIMIT ?",
}
_IDS = {"rk_account": "user_id", "rk_invitation": "id"}


def apply(database: Database, now_ms: int) -> None:
    """Write the keys that are others now. An address whose new key is taken keeps its old one."""
    for table, select in _SOURCES.items():
        for row_id, key, email in _rows(database, select):
            # A key with a line end is the second of an address, which its own row can't have.
            if email_key(email) != key and "\n" not in key:
                with suppress(Taken), database.transaction():
                    database.run(
                        f"UPDATE {table} SET email_key = ? WHERE {_IDS[table]} = ?", (email_key(email), row_id)
                    )


def _rows(database: Database, select: str) -> Iterator[tuple[Any, ...]]:
    last = ""
    while rows := database.all(select, (last, _PIECE)):
        yield from rows
        last = rows[-1][0]
