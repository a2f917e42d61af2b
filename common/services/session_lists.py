"""The open sessions of an account: shown and ended, by their owner and by administrators."""

from __future__ import annotations

from typing import Any

from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.errors import PasswordChangeDue, SessionNotFound
from common.models.base import rfc3339
from common.services import accounts, audit, proving, sessions
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.services.principal import Principal
from common.services.session_rows import end, forget_shared_value, open_now

_SHOWN = """
    SELECT s.id, s.realm, COALESCE(p.kind, 'bearer'), s.address, s.agent, s.created_at, s.last_seen_at, s.expires_at,
        COALESCE(p.authenticated_at, s.created_at)
    FROM rk_session s LEFT JOIN rk_session_trait p ON p.session_id = s.id
"""


def own_page(plane: Plane, who: Principal, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """A page of the caller's open sessions, newest first: ``{sessions, next_cursor}``.

    Items: ``{id, realm, kind, address, agent, created_at, last_seen_at, expires_at, authenticated_at, current}``, the
    last for the session that asks. Raises BadField for a cursor that is none of this list.
    """
    return _page(plane, str(who.user_id), who.session_id, limit, cursor)


def own(plane: Plane, who: Principal, session_id: str) -> dict[str, Any]:
    """One open session of the caller in the form of ``own_page``; ``current`` is the one that asks.

    Raises SessionNotFound, and PasswordChangeDue for another one while that is due.
    """
    wanted = _named(who, session_id)
    if who.must_change and wanted != who.session_id:
        raise PasswordChangeDue
    where, params = open_now(plane)
    row = plane.database.one(f"{_SHOWN} WHERE s.id = ? AND s.user_id = ? AND {where}", (wanted, who.user_id, *params))
    if row is None or row[0] != wanted:
        raise SessionNotFound(session_id)
    return _shown(row, who.session_id)


def end_own(plane: Plane, who: Principal, session_id: str) -> None:
    """End one session of the caller; ``current`` is the one that asks. Raises SessionNotFound."""
    with plane.database.transaction():
        accounts.hold(plane, str(who.user_id))
        _end_one(plane, who, str(who.user_id), ("user", who.email), _named(who, session_id))


def end_others(plane: Plane, who: Principal) -> int:
    """End every session of the caller but the one that asks; returns how many."""
    with plane.database.transaction():
        accounts.hold(plane, str(who.user_id))
        ended = sessions.end_sessions(plane, str(who.user_id), "ended", keep=who.session_id)
        if ended:
            audit.record(plane, EventTag.SESSION_END, who, target=("user", who.email), after={"ended": ended})
    return ended


def page_of_user(
    plane: Plane, actor: Principal, email: str, *, limit: int = 50, cursor: str | None = None
) -> dict[str, Any]:
    """``own_page`` for an account. Raises UserNotFound, BadField."""
    return _page(plane, accounts.get(plane, email).id, actor.session_id, limit, cursor)


def end_of_user(plane: Plane, actor: Principal, email: str, session_id: str) -> None:
    """End one session of an account. Raises UserNotFound, SessionNotFound, GivesMoreThanHeld; ProofDue for own ones."""
    with plane.database.transaction():
        account, actor = _held(plane, actor, email)
        _end_one(plane, actor, account.id, account.target, session_id)


def end_all_of_user(plane: Plane, actor: Principal, email: str) -> int:
    """End every session of an account; returns how many. Raises as ``end_of_user``, but for SessionNotFound."""
    with plane.database.transaction():
        account, actor = _held(plane, actor, email)
        ended = sessions.end_sessions(plane, account.id, "ended")
        if ended:
            audit.record(plane, EventTag.SESSION_END, actor, target=account.target, after={"ended": ended})
    return ended


def _held(plane: Plane, actor: Principal, email: str) -> tuple[AccountRow, Principal]:
    """``accounts.hold_to_act_on``; an administrator's own sessions take what they take on the routes for one's own."""
    account, actor = accounts.hold_to_act_on(plane, actor, email)
    if actor.user_id == account.id:
        proving.require_recent_proof(plane, actor)
    return account, actor


def _named(who: Principal, session_id: str) -> str:
    return who.session_id or "" if session_id == "current" else session_id


def _end_one(plane: Plane, actor: Principal, user_id: str, target: tuple[str, str | None], session_id: str) -> None:
    row = plane.database.one(
        "SELECT id, value_hash FROM rk_session WHERE id = ? AND user_id = ? AND ended_at IS NULL", (session_id, user_id)
    )
    if row is None or row[0] != session_id or not end(plane, "id = ? AND ended_at IS NULL", (row[0],), "ended"):
        raise SessionNotFound(session_id)
    if plane.shared and row[1] is not None:
        forget_shared_value(plane, user_id, only_hash=row[1])
    audit.record(plane, EventTag.SESSION_END, actor, target=target, before={"id": row[0]})


def _page(plane: Plane, user_id: str, current: str | None, limit: int, cursor: str | None) -> dict[str, Any]:
    keyset: str = ""
    keys: tuple[Any, ...] = ()
    if cursor is not None:
        created_at, session_id = decode_cursor(cursor, (int, str))
        keyset = " AND s.created_at <= ? AND (s.created_at < ? OR s.id < ?)"
        keys = (created_at, created_at, session_id)
    where, params = open_now(plane)
    rows = plane.database.all(
        f"{_SHOWN} WHERE s.user_id = ? AND {where}{keyset} ORDER BY s.created_at DESC, s.id DESC LIMIT ?",
        (user_id, *params, *keys, limit + 1),
    )
    page = rows[:limit]
    next_cursor = encode_cursor([page[-1][5], page[-1][0]]) if len(rows) > limit else None
    return {"sessions": [_shown(row, current) for row in page], "next_cursor": next_cursor}


def _shown(row: tuple[Any, ...], current: str | None) -> dict[str, Any]:
    session_id, realm, kind, address, agent, created_at, last_seen_at, expires_at, proven_at = row
    return {
        "id": session_id,
        "realm": realm,
        "kind": kind,
        "address": address,
        "agent": agent,
        "created_at": rfc3339(created_at),
        "last_seen_at": rfc3339(last_seen_at),
        "expires_at": rfc3339(expires_at),
        # Of a session that RAGFlow made it is not known.
        "authenticated_at": rfc3339(proven_at or None),
        "current": session_id == current,
    }
