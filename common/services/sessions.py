"""Logging in and out, and recognising credentials: the one place where a request gets its principal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from common.core.audit_tags import EventTag
from common.core.errors import (
    Forbidden,
    LoginRefused,
    NotSignedIn,
    PasswordChangeDue,
    PasswordLoginDisabled,
    StoreUnavailable,
)
from common.core.limits import network_of
from common.core.passwords import decode_from_hash_form
from common.core.refresh import is_access_form
from common.core.scopes import UNSCOPED, Scope, scope_of
from common.core.session_limits import SEEN_EVERY_MS, Lifetime, is_over
from common.core.tokens import (
    digest,
    is_misspelt,
    is_stored_form,
    is_stored_with_scope,
    looks_like_token,
    lookup_forms,
)
from common.models.account import Account, RefreshToken, Session, SessionTrait
from common.models.base import local_date
from common.services import accounts, audit, limits, misuse, passwords, token_makers
from common.services.accounts import AccountRow
from common.services.limits import LoginAttempt, TooManyLogins
from common.services.plane import Plane, RolesMoved
from common.services.principal import Origin, Principal, Realm, stranger
from common.services.session_rows import (
    Kind,
    end,
    end_beyond_most,
    forget_shared_value,
    hashed,
    insert,
    limits_at,
    limits_of,
)
from common.stores.database import Taken

log = logging.getLogger(__name__)

T = TypeVar("T")

# How often a login looks at a stored hash that changes under it.
_LOOKS = 3
# A token's last use is written at most this often.
LAST_USED_EVERY_MS = 60_000

_ACCOUNT = """
    u.id, u.email, u.nickname, u.is_superuser, u.is_active, u.status, COALESCE(a.must_change, 0),
    (SELECT GROUP_CONCAT(h.role_id) FROM rk_user_role h WHERE h.user_id = u.id),
    (SELECT value FROM rk_state WHERE name = 'role_version'),
    (SELECT value FROM rk_state WHERE name = 'variables_version')
"""
# The home tenant is the one named like its owner; only who has given that away is searched for another one.
_HOME = """
    COALESCE(
        (SELECT m.tenant_id FROM user_tenant m
         WHERE m.user_id = u.id AND m.tenant_id = u.id AND m.role = 'owner' AND m.status = '1' LIMIT 1),
        (SELECT m.tenant_id FROM user_tenant m WHERE m.user_id = u.id AND m.role = 'owner' AND m.status = '1'
         ORDER BY m.create_time LIMIT 1))
"""
_SESSION_ROW = f"""
    SELECT s.id, s.realm, s.created_at, s.expires_at, s.ended_at, s.last_seen_at,
        COALESCE(p.authenticated_at, s.created_at), s.value_hash, u.access_token, {_HOME.strip()},
        (SELECT l.requests_per_minute FROM rk_tenant_limit l WHERE l.tenant_id = {_HOME.strip()}), {_ACCOUNT}
"""
_ITS_ACCOUNT = """
    JOIN user u ON u.id = s.user_id LEFT JOIN rk_account a ON a.user_id = u.id
    LEFT JOIN rk_session_trait p ON p.session_id = s.id
"""
_SESSION = f"{_SESSION_ROW} FROM rk_session s {_ITS_ACCOUNT.strip()} WHERE s.token_hash = ?"
_ACCESS = f"""
    {_SESSION_ROW} FROM rk_refresh_token r JOIN rk_session s ON s.id = r.session_id {_ITS_ACCOUNT}
    WHERE r.access_hash = ? AND r.access_until > ?
"""
# A token acts for the account that made it, while that still owns the tenant. Of one that RAGFlow made that is, as for
# RAGFlow, the account whose home the tenant is: no other owner's key is to be had by who had this one.
_TOKEN = f"""
    SELECT t.id, t.expires_at, t.last_used_at, k.token, k.tenant_id, r.scopes, r.made_by, l.requests_per_minute,
        {_ACCOUNT}
    FROM api_token k LEFT JOIN rk_token t ON t.stored = k.token AND t.tenant_id = k.tenant_id
    LEFT JOIN rk_token_trait r ON r.token_id = t.id
    JOIN user u ON u.id = COALESCE(t.user_id, k.tenant_id)
    LEFT JOIN rk_account a ON a.user_id = u.id LEFT JOIN rk_tenant_limit l ON l.tenant_id = k.tenant_id
    WHERE k.token IN (?, ?) AND EXISTS (
        SELECT 1 FROM user_tenant m
        WHERE m.tenant_id = k.tenant_id AND m.user_id = u.id AND m.role = 'owner' AND m.status = '1')
"""

# Of a token that is no more: its name, why that is, and whose it was.
_RETIRED = f"""
    SELECT d.token_name, d.reason, {_ACCOUNT}
    FROM rk_retired_token d JOIN user u ON u.id = d.user_id LEFT JOIN rk_account a ON a.user_id = u.id
    WHERE d.digest = ?
"""


class _Tenant(NamedTuple):
    """The tenant that a credential acts in, and its own limit of calls a minute; None where it has none."""

    id: str | None
    calls: int | None


def log_in(plane: Plane, origin: Origin, email: str, password: str, realm: Realm) -> tuple[Principal, str]:
    """Check e-mail and password and open a session; returns its principal and its wire form. Raises as ``admit``."""
    return admit(plane, origin, email, password, realm, open_session)


def admit(
    plane: Plane,
    origin: Origin,
    email: str,
    password: str,
    realm: Realm,
    opening: Callable[[Plane, Origin, AccountRow, Realm], tuple[Principal, T]],
) -> tuple[Principal, T]:
    """Check e-mail and password and do what opens a session, in the transaction that has seen that they still hold.

    ``password`` is as it came over the wire; who administers with one that is too short for that has to change it first
    from here on. Raises LoginRefused (one text and one duration whatever is wrong),
    PasswordLoginDisabled on the user API, and Forbidden for a right password on the admin server without any
    administrative permission.
    """
    if realm == "user":
        _refuse_where_disabled(plane, origin, email)
    # Before the attempt is counted: while the database is down, or a first start under way, nobody fails.
    accounts.require_any(plane)
    account = accounts.find(plane, email)
    with _attempt(plane, origin, email, realm) as attempt:
        for _ in range(_LOOKS):
            checked = passwords.check(plane, account.password if account else None, password)
            if account is None or not checked.right or not account.may_sign_in:
                _record_failure(plane, origin, email, realm, attempt)
                raise LoginRefused
            attempt.succeeded()
            if realm == "admin":
                refuse_non_administrators(plane, origin, account)
            renewed = passwords.renewed(plane, account.password, checked)
            with plane.database.transaction():
                now = accounts.hold(plane, account.id)
                if now is None or not now.may_sign_in:
                    # Whoever switched the account off while the hash was computed has ended all sessions.
                    break
                if now.password == account.password:
                    if renewed is not None:
                        accounts.change(plane, account.id, password=renewed)
                    # As it is now: whoever was made an administrator while the hash was computed is one.
                    opened = opening(plane, origin, now, realm)
                    passwords.demand_longer(plane, opened[0], checked.opened)
                    return opened
            # The password was changed meanwhile, or its hash renewed by another login: what holds now is looked at.
            account = accounts.find(plane, email)
    try:
        _record_refusal(plane, origin, email, realm, reason="the account was changed meanwhile")
    except StoreUnavailable as unavailable:
        log.warning("a refused login is not recorded: %s", unavailable.reason)
    raise LoginRefused


def refuse_non_administrators(plane: Plane, origin: Origin, account: AccountRow) -> None:
    """Raises Forbidden, and records it, when the account holds no administrative permission."""
    who = principal_of(plane, account, origin)
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


def open_session(
    plane: Plane, origin: Origin, account: AccountRow, realm: Realm, *, kind: Kind = "bearer"
) -> tuple[Principal, str]:
    """Write a session for an account that has proven itself, into the running transaction, which holds the account."""
    value = uuid4().hex + uuid4().hex
    wire = plane.keys.sign(value)
    if plane.shared:
        _supersede(plane, account.id)
        accounts.change(plane, account.id, access_token=value)
    value_hash = hashed(value) if plane.shared else None
    session_id = insert(plane, origin, account.id, realm, token_hash=hashed(wire), value_hash=value_hash, kind=kind)
    return record_login(plane, origin, account, realm, session_id, kind), wire


def record_login(
    plane: Plane, origin: Origin, account: AccountRow, realm: Realm, session_id: str, kind: Kind
) -> Principal:
    """Note a login that has just opened a session, and end those that are now too many; returns its principal."""
    now = plane.now_ms()
    accounts.change(plane, account.id, last_login_time=local_date(now, plane.zone))
    plane.database.execute(Account.update(last_login_at=now).where(Account.user_id == account.id))
    ended = end_beyond_most(plane, account.id, session_id)
    who = principal_of(plane, account, origin, credential=f"session:{session_id}", authenticated_at=now)
    after = {"realm": realm, "kind": kind, **({"ended": ended} if ended else {})}
    audit.record(plane, EventTag.SESSION_LOGIN, who, target=account.target, after=after)
    return who


def authenticate(plane: Plane, credential: str, realm: Realm, origin: Origin) -> Principal:
    """The principal of a credential, read with one statement. Raises NotSignedIn, for what may have been a token after
    one more. A token that somebody else made takes one more, too, where its account administers.

    A user API takes sessions, access tokens and API tokens; the admin server takes sessions and access tokens, for no
    longer than those that were made there, and API tokens whose scope is administrative. What has only the form of an
    API token that was made here costs no statement.
    """
    while True:
        # No ``suppress``: every request passes here.
        try:
            return _recognised(plane, credential, realm, origin)
        except RolesMoved:
            continue


def _recognised(plane: Plane, credential: str, realm: Realm, origin: Origin) -> Principal:
    """``authenticate``. Raises RolesMoved where roles have changed since the statement that reads which are held."""
    if looks_like_token(credential):
        if is_misspelt(credential):
            raise NotSignedIn("Unauthorized")
        return _by_token(plane, credential, realm, origin)
    if is_access_form(credential):
        row = plane.database.one(_ACCESS, (hashed(credential), plane.now_ms()))
    else:
        row = plane.database.one(_SESSION, (hashed(credential),))
        if row is None and plane.shared:
            row = _adopt_session(plane, credential, realm, origin)
    if row is not None:
        return _by_session(plane, row, realm, origin)
    if realm == "user":
        return _by_token(plane, credential, realm, origin)
    raise NotSignedIn("Unauthorized")


def _by_session(plane: Plane, row: tuple[Any, ...], port: Realm, origin: Origin) -> Principal:
    session_id, realm, created_at, expires_at, ended_at, last_seen_at, proven_at, value_hash, *more = row
    shared_value, tenant_id, tenant_calls, *account = more
    if plane.shared and value_hash is not None and hashed(shared_value or "") != value_hash:
        # RAGFlow knew this session, and has ended it: by a logout, or by the next login of its user there.
        raise misuse.of_account(account, f"session:{session_id}", "ended in RAGFlow", origin)
    plane.variables.follow(account[-1] or 0)
    now = plane.now_ms()
    seen_at = max(last_seen_at, plane.session_uses.unwritten(session_id))
    if is_over(Lifetime(created_at, expires_at, ended_at, seen_at), limits_at(plane, realm, port), now):
        reason = "expired" if ended_at is None else "ended"
        raise misuse.of_account(account, f"session:{session_id}", reason, origin)
    home = _Tenant(tenant_id, tenant_calls)
    who = _principal(plane, account, f"session:{session_id}", home, origin, authenticated_at=proven_at)
    if seen_at + SEEN_EVERY_MS <= now:
        plane.session_uses.note(plane.database, session_id, now)
    elif seen_at < now:
        # Which session was used least recently is known as well as may be.
        plane.session_uses.note_early(plane.database, session_id, now)
    return who


def log_out(plane: Plane, who: Principal) -> None:
    """End the session that authenticated this request; nothing to end for a token."""
    session_id = who.session_id
    if session_id is None:
        return
    with plane.database.transaction():
        if plane.shared:
            # Before the session, as everybody does who ends sessions: where RAGFlow looks, the account is written.
            accounts.hold(plane, str(who.user_id))
        row = plane.database.one("SELECT value_hash, user_id FROM rk_session WHERE id = ?", (session_id,))
        end(plane, "id = ?", (session_id,), "logout")
        if plane.shared and row is not None and row[0] is not None:
            forget_shared_value(plane, row[1], only_hash=row[0])
        audit.record(plane, EventTag.SESSION_LOGOUT, who, target=("user", who.email))


def end_sessions(plane: Plane, user_id: str, reason: str, *, keep: str | None = None) -> int:
    """End every session of an account but ``keep``, in the running transaction; returns how many.

    One of RAGFlow's that was never used here counts where it is the only one.
    """
    ended = end(plane, "user_id = ? AND id <> ? AND ended_at IS NULL", (user_id, keep or ""), reason)
    if plane.shared:
        kept = plane.database.one("SELECT value_hash FROM rk_session WHERE id = ?", (keep or "",))
        forgotten = forget_shared_value(plane, user_id, but_hash=kept[0] if kept else None)
        ended = max(ended, int(forgotten))
    return ended


def end_all(plane: Plane, reason: str) -> int:
    """End every session of everybody, in the running transaction; returns how many."""
    return end(plane, "ended_at IS NULL", (), reason)


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
            # A value that the user row still held would be taken for a new session of RAGFlow's. In the order in which
            # accounts are held (``accounts.hold_to_act_on``).
            for _, user_id, value_hash in sorted(old, key=lambda row: row[1]):
                if value_hash is not None:
                    forget_shared_value(plane, user_id, only_hash=value_hash)
        ids = [row[0] for row in old]
        for model in (RefreshToken, SessionTrait):
            plane.database.execute(model.delete().where(model.session_id.in_(ids)))
        deleted: int = plane.database.execute(Session.delete().where(Session.id.in_(ids)))
    return deleted


def _supersede(plane: Plane, user_id: str) -> None:
    """RAGFlow knows one session of an account, the one whose value its row holds: it is about to lose sight of those.

    Sessions without ``value_hash`` are this plane's alone. One that RAGFlow has ended already must not come back to
    life by that.
    """
    row = plane.database.one("SELECT access_token FROM user WHERE id = ?", (user_id,))
    known = hashed(row[0] or "") if row else ""
    end(plane, "user_id = ? AND value_hash <> ? AND ended_at IS NULL", (user_id, known), "ragflow")
    plane.database.run("UPDATE rk_session SET value_hash = NULL WHERE user_id = ? AND ended_at IS NULL", (user_id,))


def _by_token(plane: Plane, token: str, realm: Realm, origin: Origin) -> Principal:
    forms = lookup_forms(token)
    now = plane.now_ms()
    for row in plane.database.all(_TOKEN, (forms[0], forms[-1])):
        token_id, expires_at, last_used_at, found, tenant_id, scopes, made_by, tenant_calls, *account = row
        # MySQL compares without case; a token is its exact characters.
        if found not in forms:
            continue
        if token_id is None and is_stored_form(found):
            # It was made here, and its record is lost: nobody knows whose it was, nor when it was to end.
            raise NotSignedIn("Unauthorized")
        if expires_at is not None and expires_at <= now:
            raise misuse.of_account(account, f"token:{token_id}", "expired", origin)
        scope, name = _scope_of(found, scopes), f"token:{token_id or found[-8:]}"
        if realm == "admin" and not scope.opens_admin:
            raise misuse.of_account(account, name, "its scope does not open the admin server", origin)
        tenant, makers = _Tenant(tenant_id, tenant_calls), token_makers.makers_of(made_by)
        who = _principal(plane, account, name, tenant, origin, scope=scope, makers=makers)
        if token_id is not None and (last_used_at is None or last_used_at + LAST_USED_EVERY_MS <= now):
            plane.token_uses.note(plane.database, token_id, now)
        return who
    if looks_like_token(token):
        _refuse_retired(plane, token, origin)
    raise NotSignedIn("Unauthorized")


def _refuse_retired(plane: Plane, token: str, origin: Origin) -> None:
    """Raises Misused for a token that was good once."""
    row = plane.database.one(_RETIRED, (digest(token),))
    if row is not None:
        name, reason, *account = row
        raise misuse.of_account(account, f"token:{name}", reason, origin)


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
    tenant: _Tenant,
    origin: Origin,
    *,
    authenticated_at: int | None = None,
    scope: Scope | None = None,
    makers: tuple[str, ...] = (),
) -> Principal:
    user_id, email, nickname, is_superuser, is_active, status, must_change, roles, version, settings_version = account
    if is_active != "1" or status != "1":
        raise misuse.of_account(account, credential, "its account is switched off", origin)
    plane.variables.follow(settings_version or 0)
    graph = plane.roles.graph(plane.database, version or 0)
    role_ids = tuple(roles.split(",")) if roles else ()
    standing = graph.standing(role_ids, bool(is_superuser))
    if token_makers.are_outranked(plane, graph, makers, standing):
        raise misuse.of_account(account, credential, "its account outranks its maker", origin)
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
        tenant_id=tenant.id,
        tenant_role="owner" if tenant.id else None,
        tenant_calls=tenant.calls,
        must_change=bool(must_change),
        authenticated_at=authenticated_at,
        scope=scope,
        makers=makers,
        origin=origin,
    )


def principal_of(
    plane: Plane,
    account: AccountRow,
    origin: Origin,
    *,
    credential: str | None = None,
    authenticated_at: int | None = None,
) -> Principal:
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
        authenticated_at=authenticated_at,
        origin=origin,
    )


def _attempt(plane: Plane, origin: Origin, email: str, realm: Realm) -> LoginAttempt:
    """``limits.login_attempt``; one event for each wait and port says that a login was refused in it."""
    try:
        return limits.login_attempt(plane, origin, email)
    except TooManyLogins as error:
        tell = partial(_record_refusal, plane, origin, email, realm, **error.told)
        limits.tell_once(plane, f"{realm}:{error.whose}", error.again_s, tell)
        raise


def _refuse_where_disabled(plane: Plane, origin: Origin, email: str) -> None:
    """Raises PasswordLoginDisabled; a network has an event of that in a quarter of an hour."""
    try:
        passwords.refuse_where_disabled(plane)
    except PasswordLoginDisabled:
        whose = f"login:disabled:{network_of(origin.address) or origin.address}"
        tell = partial(_record_refusal, plane, origin, email, "user", reason="password login is disabled")
        limits.tell_once(plane, whose, limits.FAILURES_S, tell)
        raise


def _record_failure(plane: Plane, origin: Origin, email: str, realm: Realm, attempt: LoginAttempt) -> None:
    wait_s = attempt.failed()
    _record_refusal(plane, origin, email, realm, **({"wait_s": wait_s} if wait_s else {}))


def _record_refusal(plane: Plane, origin: Origin, email: str, realm: Realm, **more: Any) -> None:
    with plane.database.transaction():
        audit.record(
            plane,
            EventTag.SESSION_LOGIN_REFUSED,
            stranger(origin),
            target=("user", email),
            after={"realm": realm, **more},
            result="refused",
        )


def _adopt_session(plane: Plane, wire: str, realm: Realm, origin: Origin) -> tuple[Any, ...] | None:
    """Take over a session that RAGFlow made: its signature, and the value that the user row holds now.

    RAGFlow's rules: at least 32 characters, not ``INVALID_…``, an account of status "1".
    """
    value = plane.keys.unsign(wire)
    if value is None or len(value) < 32 or value.startswith("INVALID_"):
        return None
    found = plane.database.one("SELECT id, access_token FROM user WHERE access_token = ? AND status = '1'", (value,))
    if found is None or found[1] != value:
        return None
    try:
        with plane.database.transaction():
            _take_over(plane, wire, value, found[0], realm, origin)
    except Taken:
        # A page asks several things at once: another of its requests has just done it.
        log.debug("a session of RAGFlow's was taken over by two requests at once")
    return plane.database.one(_SESSION, (hashed(wire),))


def _take_over(plane: Plane, wire: str, value: str, user_id: str, realm: Realm, origin: Origin) -> None:
    """Write RAGFlow's session as one of this plane's, unless it has been one that is over. Raises Taken."""
    account = accounts.hold(plane, user_id)
    # A login or a logout may have come in between: it must end nothing that has taken this one's place.
    if account is None or plane.database.one("SELECT access_token FROM user WHERE id = ?", (user_id,)) != (value,):
        return
    known = plane.database.all(
        "SELECT realm, created_at, expires_at, ended_at, last_seen_at FROM rk_session WHERE value_hash = ?",
        (hashed(value),),
    )
    now = plane.now_ms()
    if any(is_over(Lifetime(*life), limits_of(plane, of_realm), now) for of_realm, *life in known):
        return
    end(plane, "user_id = ? AND value_hash <> ? AND ended_at IS NULL", (user_id, hashed(value)), "ragflow")
    # When the password was given to RAGFlow is not known here.
    session_id = insert(plane, origin, user_id, realm, token_hash=hashed(wire), value_hash=hashed(value), proven=False)
    ended = end_beyond_most(plane, user_id, session_id)
    who = principal_of(plane, account, origin, credential=f"session:{session_id}")
    after = {"realm": realm, **({"ended": ended} if ended else {})}
    audit.record(plane, EventTag.SESSION_ADOPT, who, target=account.target, after=after)


def check_basic(plane: Plane, origin: Origin, email: str | None, password: str | None) -> None:
    """HTTP Basic as RAGFlow's oldest client sends it: the password is base64 of the plain text, or the plain text.

    Raises NotSignedIn without credentials, LoginRefused, Forbidden without an administrative permission, and
    PasswordChangeDue while that is all that the account may do, also from here on for a password that is too short for
    an administrator. Opens no session.
    """
    if not email or password is None:
        raise NotSignedIn("Unauthorized")
    accounts.require_any(plane)
    account = accounts.find(plane, email)
    stored = account.password if account else None
    with _attempt(plane, origin, email, "admin") as attempt:
        checked = passwords.check(plane, stored, password)
        if not checked.right and decode_from_hash_form(password.encode()) is not None:
            checked = passwords.check_opened(plane, stored, password.encode())
        if account is None or not checked.right or not account.may_sign_in:
            _record_failure(plane, origin, email, "admin", attempt)
            raise LoginRefused
        attempt.succeeded()
        refuse_non_administrators(plane, origin, account)
        with plane.database.transaction():
            now = accounts.hold(plane, account.id)
            who = principal_of(plane, now or account, origin)
            audit.record(plane, EventTag.SESSION_PROVE, who, target=account.target)
            # Another password that has taken its place meanwhile was measured when it was chosen; whoever has renewed
            # the hash of this one has measured it.
            if now is not None and now.password == stored:
                passwords.demand_longer(plane, who, checked.opened)
    if accounts.owes_password(plane, account.id):
        raise PasswordChangeDue
