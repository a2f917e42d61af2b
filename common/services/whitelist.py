"""The white list of those who may register: shown, changed, and read from files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.errors import BadEmail, WhitelistFull, WhitelistNotFound, WhitelistTaken
from common.core.whitelist import MAX_ENTRIES, parse_pattern, pattern_key
from common.models.base import http_date
from common.models.registration import WhitelistEntry
from common.services import accounts, audit
from common.services.plane import Plane
from common.services.principal import Principal

Outcome = Literal["added", "listed", "repeated", "invalid"]

_COLUMNS = "id, pattern, created_at, updated_at"
# Rows that one statement reads or writes.
_AT_ONCE = 500
# An audit event of a file names at most so many of the addresses that were added.
_NAMED = 100
_LAST_CHARACTER = "\U0010ffff"


class FileRow(NamedTuple):
    """A row of a file: its number there, and what stands in it for an address."""

    number: int
    text: str


def whole(plane: Plane) -> dict[str, Any]:
    """The whole list, as RAGFlow's client reads it: ``{total, white_list}``; it has MAX_ENTRIES at most.

    Items: ``{id, email, create_time, create_date, update_time, update_date}``.
    """
    rows = plane.database.all(f"SELECT {_COLUMNS} FROM rk_whitelist ORDER BY id")
    return {"total": len(rows), "white_list": [_shown(row) for row in rows]}


def page(plane: Plane, *, limit: int = 50, cursor: str | None = None, q: str | None = None) -> dict[str, Any]:
    """A page by address, of those that begin with ``q``: ``{total, white_list, next_cursor}``; see ``whole``.

    ``total`` counts the whole list. Raises BadField.
    """
    since = pattern_key(q) if q else ""
    (after,) = decode_cursor(cursor, (str,)) if cursor is not None else ("",)
    rows = plane.database.all(
        f"SELECT {_COLUMNS}, pattern_key FROM rk_whitelist "
        "WHERE pattern_key > ? AND pattern_key >= ? AND pattern_key < ? ORDER BY pattern_key LIMIT ?",
        (after, since, since + _LAST_CHARACTER, limit + 1),
    )
    return {
        "total": _count(plane),
        "white_list": [_shown(row[:-1]) for row in rows[:limit]],
        "next_cursor": encode_cursor([rows[limit - 1][-1]]) if len(rows) > limit else None,
    }


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    number, pattern, created_at, updated_at = row
    return {
        "id": number,
        "email": pattern,
        "create_time": created_at,
        "create_date": http_date(created_at),
        "update_time": updated_at,
        "update_date": http_date(updated_at),
    }


def _count(plane: Plane) -> int:
    row = plane.database.one("SELECT COUNT(*) FROM rk_whitelist")
    return int(row[0]) if row else 0


def add(plane: Plane, actor: Principal, email: str) -> str:
    """Let an address, or a domain as ``@example.org``, register; returns it as it is listed.

    Raises BadEmail, WhitelistTaken, WhitelistFull.
    """
    pattern = parse_pattern(email)
    with plane.database.transaction():
        actor = _begin(plane, actor)
        _refuse_if_listed(plane, pattern)
        _insert(plane, actor, [pattern])
        audit.record(plane, EventTag.WHITELIST_ADD, actor, target=("whitelist", pattern))
    return pattern


def change(plane: Plane, actor: Principal, entry_id: str, email: str) -> str:
    """Put another address in the place of one; returns it as it is listed.

    Raises WhitelistNotFound, BadEmail, WhitelistTaken.
    """
    pattern = parse_pattern(email)
    number = int(entry_id) if entry_id.isascii() and entry_id.isdecimal() and len(entry_id) < 19 else 0
    with plane.database.transaction():
        actor = _begin(plane, actor)
        row = plane.database.one("SELECT pattern, pattern_key FROM rk_whitelist WHERE id = ?", (number,))
        if row is None:
            raise WhitelistNotFound(entry_id)
        if row[1] != pattern_key(pattern):
            _refuse_if_listed(plane, pattern)
        plane.database.run(
            "UPDATE rk_whitelist SET pattern = ?, pattern_key = ?, updated_at = ? WHERE id = ?",
            (pattern, pattern_key(pattern), plane.now_ms(), number),
        )
        audit.record(
            plane,
            EventTag.WHITELIST_UPDATE,
            actor,
            target=("whitelist", pattern),
            before={"email": row[0]},
            after={"email": pattern},
        )
    return pattern


def remove(plane: Plane, actor: Principal, email: str) -> None:
    """Take an address, or a domain, off the list; accounts stay. Raises WhitelistNotFound."""
    with plane.database.transaction():
        actor = _begin(plane, actor)
        if not plane.database.run("DELETE FROM rk_whitelist WHERE pattern_key = ?", (_typed_key(email),)):
            raise WhitelistNotFound(email)
        audit.record(plane, EventTag.WHITELIST_REMOVE, actor, target=("whitelist", email.strip()))


def _typed_key(email: str) -> str:
    return pattern_key(email.strip().removeprefix("*") if email.strip().startswith("*@") else email)


def add_all(plane: Plane, actor: Principal, rows: Iterable[FileRow]) -> dict[str, Any]:
    """Add what stands in a file, as far as it can be; ``{added, listed, repeated, invalid, rows}``.

    ``rows`` has one item for each row: ``{row, email, result, reason}``, where ``result`` is ``added``, ``listed``
    (it was already), ``repeated`` (a row before says the same) or ``invalid``; ``reason`` says why then. The other
    four are how many there are of each. Raises WhitelistFull, with nothing added.
    """
    judged = [_judged(row) for row in rows]
    with plane.database.transaction():
        actor = _begin(plane, actor)
        known = _listed_keys(plane, [pattern_key(each["email"]) for each in judged if each["result"] == "added"])
        new: dict[str, str] = {}
        for each in judged:
            if each["result"] != "added":
                continue
            key = pattern_key(each["email"])
            if key in known or key in new:
                each["result"] = "listed" if key in known else "repeated"
            else:
                new[key] = each["email"]
        if new:
            _insert(plane, actor, list(new.values()))
            named = {"added": len(new), "first": list(new.values())[:_NAMED]}
            audit.record(plane, EventTag.WHITELIST_ADD, actor, target=("whitelist", "a file"), after=named)
    outcomes: tuple[Outcome, ...] = ("added", "listed", "repeated", "invalid")
    return {name: sum(each["result"] == name for each in judged) for name in outcomes} | {"rows": judged}


def _judged(row: FileRow) -> dict[str, Any]:
    try:
        pattern = parse_pattern(row.text)
    except BadEmail as error:
        return {"row": row.number, "email": row.text[:255], "result": "invalid", "reason": error.message}
    return {"row": row.number, "email": pattern, "result": "added", "reason": None}


def _listed_keys(plane: Plane, keys: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        rows = plane.database.all(f"SELECT pattern_key FROM rk_whitelist WHERE pattern_key IN ({marks})", some)
        found.update(key for (key,) in rows)
    return found


def _begin(plane: Plane, actor: Principal) -> Principal:
    """The actor as of now; nobody else changes the list until the running transaction ends."""
    plane.database.lock("whitelist")
    return accounts.acting_now(plane, actor)


def _refuse_if_listed(plane: Plane, pattern: str) -> None:
    if _listed_keys(plane, [pattern_key(pattern)]):
        raise WhitelistTaken(pattern)


def _insert(plane: Plane, actor: Principal, patterns: Sequence[str]) -> None:
    """Insert patterns that are not listed. Raises WhitelistFull."""
    if _count(plane) + len(patterns) > MAX_ENTRIES:
        raise WhitelistFull(MAX_ENTRIES)
    now = plane.now_ms()
    rows = [
        {
            "pattern": pattern,
            "pattern_key": pattern_key(pattern),
            "created_by": actor.user_id,
            "created_at": now,
            "updated_at": now,
        }
        for pattern in patterns
    ]
    for start in range(0, len(rows), _AT_ONCE):
        plane.database.execute(WhitelistEntry.insert_many(rows[start : start + _AT_ONCE]))
