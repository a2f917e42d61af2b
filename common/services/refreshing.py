"""Sessions by refresh token: short-lived access tokens, and tokens that count once to get further ones.

The rules are in ``common.core.refresh``. What was given lies in ``rk_refresh_token``; the session is their family.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import uuid4

from common.core import refresh
from common.core.audit_tags import EventTag
from common.core.errors import Forbidden, NotSignedIn
from common.core.refresh import Verdict
from common.core.session_limits import Lifetime, is_over
from common.models.account import RefreshToken
from common.services import accounts, audit, sessions
from common.services.accounts import AccountRow
from common.services.misuse import Misused
from common.services.plane import Plane
from common.services.principal import Origin, Principal, Realm
from common.services.session_rows import end, hashed, insert, limits_at, limits_of

_SESSION = """
    SELECT user_id, realm, created_at, expires_at, ended_at, last_seen_at FROM rk_session WHERE id = ?
"""
_TOKEN = """
    SELECT t.id, t.used_at,
        (SELECT COUNT(*) FROM rk_refresh_token h WHERE h.parent_id = t.id),
        (SELECT COUNT(*) FROM rk_refresh_token h WHERE h.parent_id = t.id AND h.used_at IS NOT NULL)
    FROM rk_refresh_token t WHERE t.refresh_hash = ? AND t.session_id = ?
"""


class Pair(NamedTuple):
    """An access token with the refresh token that gets the next one; the lifetime of the former in seconds."""

    access: str
    refresh: str
    expires_in: int


class _Held(NamedTuple):
    """A session that may be refreshed where it was opened: whose it is, its realm, and what is left of its time."""

    who: Principal
    account: AccountRow
    realm: Realm
    life: Lifetime


class _NoAdministrator(Forbidden):
    """Somebody without an administrative permission refreshes on the admin server."""

    def __init__(self, account: AccountRow) -> None:
        super().__init__("Your account holds no administrative permission; ask an administrator for a role.")
        self.account = account


def open_family(plane: Plane, origin: Origin, account: AccountRow, realm: Realm) -> tuple[Principal, Pair]:
    """Write a session with its first pair, as ``sessions.open_session`` does one with a bare token.

    A RAGFlow in the same database is told nothing: it would take an access token for a session without an end.
    """
    family = refresh.new_family()
    session_id = insert(plane, origin, account.id, realm, token_hash=_family_hash(family), kind="refresh")
    who = sessions.record_login(plane, origin, account, realm, session_id, "refresh")
    return who, _give(plane, account.id, session_id, family)


def rotate(plane: Plane, origin: Origin, token: str, port: Realm) -> Pair:
    """The next pair for a refresh token, which counts once; the rules are in ``common.core.refresh``.

    Raises NotSignedIn for one that is unknown, was used before (its session ends), or whose session or account is over
    (Misused); and Forbidden on the admin server for one whose account holds no administrative permission.
    """
    family = refresh.family_of(token)
    if family is None:
        raise NotSignedIn("Unauthorized")
    found = plane.database.one("SELECT id FROM rk_session WHERE token_hash = ?", (_family_hash(family),))
    if found is None:
        raise NotSignedIn("Unauthorized")
    try:
        with plane.database.transaction():
            # Of two requests with one token the second sees what the first has made of it.
            plane.database.hold("rk_session", found[0])
            pair = _rotate(plane, origin, found[0], family, token, port)
    except _NoAdministrator as refused:
        # Out of the transaction, which is undone: the event of it stays.
        sessions.refuse_non_administrators(plane, origin, refused.account)
        raise
    if pair is None:
        raise NotSignedIn("Unauthorized")
    return pair


def _rotate(plane: Plane, origin: Origin, session_id: str, family: str, token: str, port: Realm) -> Pair | None:
    """The next pair; None when the token was used before and its session has just ended for that."""
    held = _held(plane, origin, session_id)
    who = held.who
    row = plane.database.one(_TOKEN, (hashed(token), session_id))
    now = plane.now_ms()
    verdict = Verdict.REUSE
    if row is not None:
        verdict = refresh.judge(used_at=row[1], heirs=row[2], used_heirs=row[3], now_ms=now)
    target = ("user", who.email)
    if row is None or verdict is Verdict.REUSE:
        end(plane, "id = ?", (session_id,), "reuse")
        audit.record(plane, EventTag.SESSION_REUSE, who, target=target, before={"id": session_id}, result="refused")
        return None
    # Not before: what was used before tells of a thief on whichever server it is shown.
    _refuse_at(plane, held, port)
    if verdict is Verdict.ROTATE:
        plane.database.run("UPDATE rk_refresh_token SET used_at = ? WHERE id = ?", (now, row[0]))
        _forget_old(plane, session_id)
    pair = _give(plane, str(who.user_id), session_id, family, parent_id=row[0])
    plane.database.run("UPDATE rk_session SET last_seen_at = ? WHERE id = ?", (now, session_id))
    audit.record(plane, EventTag.SESSION_REFRESH, who, target=target, after={"id": session_id})
    return pair


def _held(plane: Plane, origin: Origin, session_id: str) -> _Held:
    """The session. Raises NotSignedIn, Misused when it or the account is over."""
    row: tuple[Any, ...] | None = plane.database.one(_SESSION, (session_id,))
    if row is None:
        raise NotSignedIn("Unauthorized")
    user_id, realm, created_at, expires_at, ended_at, last_seen_at = row
    life = Lifetime(created_at, expires_at, ended_at, max(last_seen_at, plane.session_uses.unwritten(session_id)))
    account = accounts.by_id(plane, user_id)
    if account is None:
        raise NotSignedIn("Unauthorized")
    who = sessions.principal_of(plane, account, origin, credential=f"session:{session_id}")
    if not account.may_sign_in:
        raise Misused(who, "its account is switched off")
    if is_over(life, limits_of(plane, realm), plane.now_ms()):
        raise Misused(who, "expired" if ended_at is None else "ended")
    return _Held(who, account, realm, life)


def _refuse_at(plane: Plane, held: _Held, port: Realm) -> None:
    """Raises Misused where the session is over for this port alone, and Forbidden as ``rotate``."""
    if is_over(held.life, limits_at(plane, held.realm, port), plane.now_ms()):
        raise Misused(held.who, "expired")
    if port == "admin" and not held.who.administers:
        raise _NoAdministrator(held.account)


def _give(plane: Plane, user_id: str, session_id: str, family: str, *, parent_id: str | None = None) -> Pair:
    now = plane.now_ms()
    pair = Pair(refresh.new_access(), refresh.new_refresh(family), refresh.ACCESS_MS // 1000)
    plane.database.insert(
        RefreshToken,
        id=uuid4().hex,
        session_id=session_id,
        user_id=user_id,
        access_hash=hashed(pair.access),
        refresh_hash=hashed(pair.refresh),
        parent_id=parent_id,
        issued_at=now,
        access_until=now + refresh.ACCESS_MS,
    )
    return pair


def _forget_old(plane: Plane, session_id: str) -> None:
    """Delete what was used long ago: a token without a row is judged as one that was used."""
    now = plane.now_ms()
    plane.database.run(
        "DELETE FROM rk_refresh_token WHERE session_id = ? AND used_at < ? AND access_until <= ?",
        (session_id, now - refresh.GRACE_MS, now),
    )


def _family_hash(family: str) -> str:
    # A line end can stand in no credential: so none is ever hashed to this.
    return hashed(f"refresh\n{family}")
