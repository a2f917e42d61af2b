"""Logging in and out, and recognising credentials: the one place where a request gets its principal."""

from __future__ import annotations

import hashlib
import logging
from typing import Any
from uuid import uuid4

from common.core.audit_tags import EventTag
from common.core.errors import Forbidden, LoginRefused, NotSignedIn, PasswordChangeDue
from common.core.passwords import decode_from_hash_form
from common.core.scopes import UNSCOPED, Scope, scope_of
from common.core.tokens import has_scope, is_misspelt, is_stored_with_scope, looks_like_token, lookup_forms
from common.models.account import Account, Session
from common.models.base import local_date
from common.services import accounts, audit, limits, passwords
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.services.principal import Origin, Principal, Realm, stranger
from common.stores.database import Taken

log = logging.getLogger(__name__)

# Absolute limits: a session that administers ends after 12 h, a user's after 30 days (ASVS 5, 7.3.2).
ADMIN_LIMIT_MS = 12 * 3600 * 1000
USER_LIMIT_MS = 30 * 24 * 3600 * 1000
# A token's last use is written at most this often.
LAST_USED_EVERY_MS = 60_000

_ACCOUNT = """
    u.id, u.email, u.nickname, u.is_superuser, u.is_active, u.status, COALESCE(a.must_change, 0),
    (SELECT GROUP_CONCAT(h.role_id) FROM rk_user_role h WHERE h.user_id = u.id),
    (SELECT value FROM rk_state WHERE name = 'role_version'),
    (SELECT value FROM rk_state WHERE name = 'variables_version')
"""
# The home tenant is the one named like its owner; only who has given that away is searched for another one.
_SESSION = f"""
    SELECT s.id, s.created_at, s.expires_at, s.ended_at, s.value_hash, u.access_token,
        COALESCE(
            (SELECT m.tenant_id FROM user_tenant m
             WHERE m.user_id = u.id AND m.tenant_id = u.id AND m.role = 'owner' AND m.status = '1' LIMIT 1),
            (SELECT m.tenant_id FROM user_tenant m WHERE m.user_id = u.id AND m.role = 'owner' AND m.status = '1'
             ORDER BY m.create_time LIMIT 1)),
        {_ACCOUNT}
    FROM rk_session s JOIN user u ON u.id = s.user_id LEFT JOIN rk_account a ON a.user_id = u.id
    WHERE s.token_hash = ?
"""
# A token acts for the account that made it (RAGFlow's rows: an owner of the tenant), while that still owns the tenant.
_TOKEN = f"""
    SELECT t.id, t.expires_at, t.last_used_at, k.token, k.tenant_id, r.scopes, {_ACCOUNT}
    FROM api_token k LEFT JOIN rk_token t ON t.stored = k.token AND t.tenant_id = k.tenant_id
    LEFT JOIN rk_token_trait r ON r.token_id = t.id
    JOIN user u ON u.id = COALESCE(t.user_id, (
        SELECT m.user_id FROM user_tenant m WHERE m.tenant_id = k.tenant_id AND m.role = 'owner' AND m.status = '1'
        ORDER BY m.user_id <> m.tenant_id, m.create_time LIMIT 1))
    LEFT JOIN rk_account a ON a.user_id = u.id
    WHERE k.token IN (?, ?) AND EXISTS (
        SELECT 1 FROM user_tenant m
        WHERE m.tenant_id = k.tenant_id AND m.user_id = u.id AND m.role = 'owner' AND m.status = '1')
"""


def log_in(plane: Plane, origin: Origin, email: str, password: str, realm: Realm) -> tuple[Principal, str]:
    """Check e-mail and password and open a session; returns its principal and its wire form.

    ``password`` is as it came over the wire. Raises LoginRefused (one text and one duration whatever is wrong),
    PasswordLoginDisabled on the user API, and Forbidden for a right password on the admin server without any
    administrative permission.
    """
    if realm == "user":
        passwords.refuse_where_disabled(plane)
    attempt = limits.login_attempt(plane, origin, email)
    account = accounts.find(plane, email)
    right = passwords.matches(plane, account.password if account else None, password)
    if account is None or not right or not account.may_sign_in:
        _record_refusal(plane, origin, email, realm, attempt.failed())
        raise LoginRefused
    attempt.succeeded()
    if realm == "admin":
        refuse_non_administrators(plane, origin, account)
    with plane.database.transaction():
        # Whoever switched the account off or changed its password while the hash was computed has ended all sessions.
        now = accounts.hold(plane, account.id)
        if now is None or not now.may_sign_in or now.password != account.password:
            raise LoginRefused
        return open_session(plane, origin, account, realm)


def refuse_non_administrators(plane: Plane, origin: Origin, account: AccountRow) -> None:
    """Raises Forbidden, and records it, when the account holds no administrative permission."""
    who = _principal_of(plane, account, origin)
    if who.administers:
        return
    with plane.database.transaction():
        audit.record(
            plane,
            EventTag.SESSION_LOGIN_REFUSED,
            who,
            target=account.target,
            after={"realm": "admin"},
            result="refused",
        )
    raise Forbidden("Your account holds no administrative permission; ask an administrator for a role.")


def open_session(plane: Plane, origin: Origin, account: AccountRow, realm: Realm) -> tuple[Principal, str]:
    """Write a session for an account that has proven itself, into the running transaction."""
    now = plane.now_ms()
    value = uuid4().hex + uuid4().hex
    wire = plane.keys.sign(value)
    login_columns: dict[str, Any] = {"last_login_time": local_date(now, plane.zone)}
    if plane.shared:
        _supersede(plane, account.id)
        login_columns["access_token"] = value
    session_id = _insert_session(plane, origin, account.id, realm, wire, value)
    accounts.change(plane, account.id, **login_columns)
    plane.database.execute(Account.update(last_login_at=now).where(Account.user_id == account.id))
    who = _principal_of(plane, account, origin, credential=f"session:{session_id}")
    audit.record(plane, EventTag.SESSION_LOGIN, who, target=account.target, after={"realm": realm})
    return who, wire


def authenticate(plane: Plane, credential: str, realm: Realm, origin: Origin) -> Principal:
    """The principal of a credential, read with one statement. Raises NotSignedIn.

    A user API takes session values and API tokens; the admin server takes session values, for 12 h after login
    whichever port it was made on, and API tokens whose scope is administrative. What has only the form of a token that
    was made here costs no statement.
    """
    if looks_like_token(credential):
        if is_misspelt(credential):
            raise NotSignedIn("Unauthorized")
        if realm == "user" or has_scope(credential):
            return _by_token(plane, credential, realm, origin)
    row = plane.database.one(_SESSION, (hashed(credential),))
    if row is None and plane.shared:
        row = _adopt_session(plane, credential, realm, origin)
    if row is None:
        if realm == "user":
            return _by_token(plane, credential, realm, origin)
        raise NotSignedIn("Unauthorized")
    session_id, created_at, expires_at, ended_at, value_hash, shared_value, tenant_id, *account = row
    now = plane.now_ms()
    if plane.shared and value_hash is not None and hashed(shared_value or "") != value_hash:
        # RAGFlow knew this session, and has ended it: by a logout, or by the next login of its user there.
        raise NotSignedIn("Unauthorized")
    if ended_at is not None or expires_at <= now or (realm == "admin" and created_at + ADMIN_LIMIT_MS <= now):
        raise NotSignedIn("Unauthorized")
    return _principal(plane, account, f"session:{session_id}", tenant_id, origin)


def log_out(plane: Plane, who: Principal) -> None:
    """End the session that authenticated this request; nothing to end for a token."""
    session_id = who.session_id
    if session_id is None:
        return
    with plane.database.transaction():
        row = plane.database.one("SELECT value_hash, user_id FROM rk_session WHERE id = ?", (session_id,))
        _end(plane, "id = ?", (session_id,), "logout")
        if plane.shared and row is not None and row[0] is not None:
            _forget_shared_value(plane, row[1], only_hash=row[0])
        audit.record(plane, EventTag.SESSION_LOGOUT, who, target=("user", who.email))


def end_sessions(plane: Plane, user_id: str, reason: str, *, keep: str | None = None) -> int:
    """End every session of an account but ``keep``, in the running transaction; returns how many."""
    ended = _end(plane, "user_id = ? AND id <> ? AND ended_at IS NULL", (user_id, keep or ""), reason)
    if plane.shared:
        kept = plane.database.one("SELECT value_hash FROM rk_session WHERE id = ?", (keep or "",))
        _forget_shared_value(plane, user_id, but_hash=kept[0] if kept else None)
    return ended


def end_all(plane: Plane, reason: str) -> int:
    """End every session of everybody, in the running transaction; returns how many."""
    return _end(plane, "ended_at IS NULL", (), reason)


def hashed(text: str) -> str:
    """SHA-256 of a session value or wire form, hexadecimal: enough for 256 random bits (ASVS 5, 6.5.2)."""
    return hashlib.sha256(text.encode()).hexdigest()


def prune(plane: Plane, *, limit: int = 1000) -> int:
    """Delete up to ``limit`` sessions whose absolute limit passed a week ago; returns how many."""
    before = plane.now_ms() - 7 * 24 * 3600 * 1000
    old = plane.database.all(
        "SELECT id, user_id, value_hash FROM rk_session WHERE expires_at < ? LIMIT ?", (before, limit)
    )
    if not old:
        return 0
    with plane.database.transaction():
        if plane.shared:
            # A value that the user row still held would be taken for a new session of RAGFlow's.
            for _, user_id, value_hash in old:
                _forget_shared_value(plane, user_id, only_hash=value_hash)
        deleted: int = plane.database.execute(Session.delete().where(Session.id.in_([row[0] for row in old])))
    return deleted


def _insert_session(plane: Plane, origin: Origin, user_id: str, realm: Realm, wire: str, value: str) -> str:
    now = plane.now_ms()
    session_id = uuid4().hex
    plane.database.insert(
        Session,
        id=session_id,
        user_id=user_id,
        token_hash=hashed(wire),
        value_hash=hashed(value) if plane.shared else None,
        realm=realm,
        address=origin.address,
        agent=(origin.agent or "")[:255],
        created_at=now,
        last_seen_at=now,
        expires_at=now + (ADMIN_LIMIT_MS if realm == "admin" else USER_LIMIT_MS),
    )
    return session_id


def _supersede(plane: Plane, user_id: str) -> None:
    """RAGFlow knows one session of an account, the one whose value its row holds: it is about to lose sight of those.

    Sessions without ``value_hash`` are this plane's alone. One that RAGFlow has ended already must not come back to
    life by that.
    """
    row = plane.database.one("SELECT access_token FROM user WHERE id = ?", (user_id,))
    known = hashed(row[0] or "") if row else ""
    _end(plane, "user_id = ? AND value_hash <> ? AND ended_at IS NULL", (user_id, known), "ragflow")
    plane.database.run("UPDATE rk_session SET value_hash = NULL WHERE user_id = ? AND ended_at IS NULL", (user_id,))


def _by_token(plane: Plane, token: str, realm: Realm, origin: Origin) -> Principal:
    forms = lookup_forms(token)
    now = plane.now_ms()
    for row in plane.database.all(_TOKEN, (forms[0], forms[-1])):
        token_id, expires_at, last_used_at, found, tenant_id, scopes, *account = row
        # MySQL compares without case; a token is its exact characters.
        if found not in forms:
            continue
        if expires_at is not None and expires_at <= now:
            break
        scope = _scope_of(found, scopes)
        if realm == "admin" and not scope.opens_admin:
            break
        who = _principal(plane, account, f"token:{token_id or found[-8:]}", tenant_id, origin, scope=scope)
        if token_id is not None and (last_used_at is None or last_used_at + LAST_USED_EVERY_MS <= now):
            plane.token_uses.note(plane.database, token_id, now)
        return who
    raise NotSignedIn("Unauthorized")


def _scope_of(stored: str, scopes: str | None) -> Scope:
    if not is_stored_with_scope(stored):
        return UNSCOPED
    if scopes is None:
        # What is left of a token's rows must not make it one that may do more.
        raise NotSignedIn("Unauthorized")
    return scope_of(scopes)


def _principal(
    plane: Plane,
    account: list[Any],
    credential: str,
    tenant_id: str | None,
    origin: Origin,
    *,
    scope: Scope | None = None,
) -> Principal:
    user_id, email, nickname, is_superuser, is_active, status, must_change, roles, version, settings_version = account
    if is_active != "1" or status != "1":
        raise NotSignedIn("Unauthorized")
    plane.variables.follow(settings_version or 0)
    graph = plane.roles.graph(plane.database, version)
    role_ids = tuple(roles.split(",")) if roles else ()
    standing = graph.standing(role_ids, bool(is_superuser))
    if scope is not None and scope.is_limited:
        # The roles are the account's, though the flag is not the token's.
        role_ids = graph.account_roles(role_ids, standing.is_superuser)
        standing = scope.narrowed(standing)
    return Principal(
        user_id=user_id,
        email=email,
        nickname=nickname,
        is_superuser=standing.is_superuser,
        role_ids=role_ids,
        permissions=standing.permissions,
        credential=credential,
        tenant_id=tenant_id,
        tenant_role="owner" if tenant_id else None,
        must_change=bool(must_change),
        scope=scope,
        origin=origin,
    )


def _principal_of(plane: Plane, account: AccountRow, origin: Origin, credential: str | None = None) -> Principal:
    """The principal of an account that has just proven itself."""
    standing = accounts.standing_of(plane, account)
    return Principal(
        user_id=account.id,
        email=account.email,
        nickname=account.nickname,
        is_superuser=standing.is_superuser,
        role_ids=tuple(accounts.held_roles(plane, account.id)),
        permissions=standing.permissions,
        credential=credential,
        origin=origin,
    )


def _record_refusal(plane: Plane, origin: Origin, email: str, realm: Realm, wait_s: float) -> None:
    with plane.database.transaction():
        audit.record(
            plane,
            EventTag.SESSION_LOGIN_REFUSED,
            stranger(origin),
            target=("user", email),
            after={"realm": realm, "wait_s": wait_s} if wait_s else {"realm": realm},
            result="refused",
        )


def _adopt_session(plane: Plane, wire: str, realm: Realm, origin: Origin) -> tuple[Any, ...] | None:
    """Take over a session that RAGFlow made: its signature, and the value that the user row holds now.

    RAGFlow's rules: at least 32 characters, not ``INVALID_…``, an account of status "1".
    """
    value = plane.keys.unsign(wire)
    if value is None or len(value) < 32 or value.startswith("INVALID_"):
        return None
    found = plane.database.one(
        "SELECT id, email, access_token FROM user WHERE access_token = ? AND status = '1'", (value,)
    )
    if found is None or found[2] != value:
        return None
    try:
        with plane.database.transaction():
            _take_over(plane, wire, value, found[0], found[1], realm, origin)
    except Taken:
        # A page asks several things at once: another of its requests has just done it.
        log.debug("a session of RAGFlow's was taken over by two requests at once")
    return plane.database.one(_SESSION, (hashed(wire),))


def _take_over(plane: Plane, wire: str, value: str, user_id: str, email: str, realm: Realm, origin: Origin) -> None:
    """Write RAGFlow's session as one of this plane's, unless it has been one that is over. Raises Taken."""
    if plane.database.one(
        "SELECT 1 FROM rk_session WHERE value_hash = ? AND (ended_at IS NOT NULL OR expires_at <= ?)",
        (hashed(value), plane.now_ms()),
    ):
        return
    _end(plane, "user_id = ? AND value_hash <> ? AND ended_at IS NULL", (user_id, hashed(value)), "ragflow")
    _insert_session(plane, origin, user_id, realm, wire, value)
    who = Principal(user_id=user_id, email=email, origin=origin)
    audit.record(plane, EventTag.SESSION_ADOPT, who, target=("user", email), after={"realm": realm})


def _end(plane: Plane, where: str, params: tuple[str, ...], reason: str) -> int:
    return plane.database.run(
        f"UPDATE rk_session SET ended_at = ?, end_reason = ? WHERE {where}",
        (plane.now_ms(), reason, *params),
    )


def _forget_shared_value(
    plane: Plane, user_id: str, *, only_hash: str | None = None, but_hash: str | None = None
) -> None:
    """Write ``INVALID_…`` where RAGFlow looks, so that it ends the session too."""
    row = plane.database.one("SELECT access_token FROM user WHERE id = ?", (user_id,))
    current = hashed(row[0]) if row and row[0] else None
    if current is None or current == but_hash or (only_hash is not None and current != only_hash):
        return
    accounts.change(plane, user_id, access_token=f"INVALID_{uuid4().hex}")


def check_basic(plane: Plane, origin: Origin, email: str | None, password: str | None) -> None:
    """HTTP Basic as RAGFlow's oldest client sends it: the password is base64 of the plain text, or the plain text.

    Raises NotSignedIn without credentials, LoginRefused, Forbidden without an administrative permission, and
    PasswordChangeDue while that is all that the account may do. Opens no session.
    """
    if not email or password is None:
        raise NotSignedIn("Unauthorized")
    account = accounts.find(plane, email)
    stored = account.password if account else None
    attempt = limits.login_attempt(plane, origin, email)
    right = passwords.matches(plane, stored, password)
    if not right and decode_from_hash_form(password.encode()) is not None:
        right = passwords.opened_matches(plane, stored, password.encode())
    if account is None or not right or not account.may_sign_in:
        _record_refusal(plane, origin, email, "admin", attempt.failed())
        raise LoginRefused
    attempt.succeeded()
    refuse_non_administrators(plane, origin, account)
    if accounts.owes_password(plane, account.id):
        raise PasswordChangeDue
