"""Sessions as rows: written, told open from over, ended."""

from __future__ import annotations

import hashlib
from typing import Any, Literal
from uuid import uuid4

from common.core.session_limits import SEEN_EVERY_MS, Limits
from common.models.account import Session, SessionTrait, User
from common.models.base import touched
from common.services.plane import Plane
from common.services.principal import Origin, Realm

Kind = Literal["bearer", "cookie", "refresh"]

_ADMIN_LIMITS = ("session.admin_idle_s", "session.admin_absolute_s")
_USER_LIMITS = ("session.user_idle_s", "session.user_absolute_s")
# So many are ended by one statement.
_AT_ONCE = 500
_OPEN = """
    ended_at IS NULL AND expires_at > ? AND (
        (realm = 'admin' AND created_at > ? AND last_seen_at >= ?)
        OR (realm <> 'admin' AND created_at > ? AND last_seen_at >= ?))
"""


def hashed(text: str) -> str:
    """SHA-256 of a session value or wire form, hexadecimal: enough for 256 random bits (ASVS 5, 6.5.2)."""
    return hashlib.sha256(text.encode()).hexdigest()


def limits_of(plane: Plane, realm: str) -> Limits:
    """For how long sessions of a realm last, as it is set now."""
    idle, absolute = _ADMIN_LIMITS if realm == "admin" else _USER_LIMITS
    seconds = plane.variables.integer
    return Limits(seconds(idle) * 1000, seconds(absolute) * 1000)


def limits_at(plane: Plane, realm: str, port: Realm) -> Limits:
    """For how long sessions of a realm count on a port: on the admin server no longer than one of its own."""
    own = limits_of(plane, realm)
    return own if port in ("user", realm) else own.and_also(limits_of(plane, port))


def open_now(plane: Plane) -> tuple[str, tuple[int, ...]]:
    """The condition, with its parameters, for rows of ``rk_session`` that are not over (``session_limits.is_over``)."""
    now = plane.now_ms()
    params = [now]
    for realm in ("admin", "user"):
        limits = limits_of(plane, realm)
        params += [now - limits.absolute_ms, now - limits.idle_ms - SEEN_EVERY_MS]
    return _OPEN, tuple(params)


def insert(
    plane: Plane,
    origin: Origin,
    user_id: str,
    realm: Realm,
    *,
    token_hash: str,
    value_hash: str | None = None,
    kind: Kind = "bearer",
    proven: bool = True,
) -> str:
    """Write a session and return its id. ``proven`` says that whoever opens it has just given the password."""
    now = plane.now_ms()
    session_id = uuid4().hex
    plane.database.insert(
        Session,
        id=session_id,
        user_id=user_id,
        token_hash=token_hash,
        value_hash=value_hash,
        realm=realm,
        address=origin.address,
        agent=(origin.agent or "")[:255],
        created_at=now,
        last_seen_at=now,
        expires_at=now + limits_of(plane, realm).absolute_ms,
    )
    if kind != "bearer" or not proven:
        plane.database.insert(
            SessionTrait, session_id=session_id, user_id=user_id, kind=kind, authenticated_at=now if proven else 0
        )
    return session_id


def end(plane: Plane, where: str, params: tuple[Any, ...], reason: str) -> int:
    """End the sessions that meet a condition; returns how many."""
    return plane.database.run(
        f"UPDATE rk_session SET ended_at = ?, end_reason = ? WHERE {where}",
        (plane.now_ms(), reason, *params),
    )


def end_beyond_most(plane: Plane, user_id: str, new_id: str) -> list[str]:
    """End the least recently used open sessions of an account that are more than it may have; returns their ids.

    In the transaction that has opened ``new_id``, which stays. The account is held by then, so that of two logins at
    once the second one counts the first. Uses that this process has seen and not written count.
    """
    ended: list[str] = []
    spared = plane.variables.integer("session.most") - 1
    while True:
        where, params = open_now(plane)
        there = plane.database.all(
            f"SELECT id, value_hash, last_seen_at FROM rk_session WHERE user_id = ? AND id <> ? AND {where} "
            "ORDER BY last_seen_at DESC, created_at DESC, id LIMIT ?",
            (user_id, new_id, *params, spared + _AT_ONCE),
        )
        rows = sorted(there, key=lambda row: -max(row[2], plane.session_uses.last(row[0])))[spared:]
        if not rows:
            return ended
        ids = [row[0] for row in rows]
        end(plane, f"id IN ({', '.join('?' * len(ids))})", tuple(ids), "limit")
        if plane.shared:
            for _, value_hash, _ in rows:
                if value_hash is not None:
                    forget_shared_value(plane, user_id, only_hash=value_hash)
        ended += ids


def forget_shared_value(
    plane: Plane, user_id: str, *, only_hash: str | None = None, but_hash: str | None = None
) -> bool:
    """Write ``INVALID_…`` where RAGFlow looks, so that it ends the session too; never over a login in between.

    Returns whether there was one.
    """
    row = plane.database.one("SELECT access_token FROM user WHERE id = ?", (user_id,))
    if row is None or not row[0] or row[0].startswith("INVALID_"):
        return False
    current = hashed(row[0])
    if current == but_hash or (only_hash is not None and current != only_hash):
        return False
    ended = User.update(access_token=f"INVALID_{uuid4().hex}", **touched(plane.now_ms(), plane.zone))
    return bool(plane.database.execute(ended.where(User.id == user_id, User.access_token == row[0])))
