"""What an account does with itself: register, look at its profile, change it."""

from __future__ import annotations

from typing import Any

from common.core.audit_tags import EventTag
from common.core.emails import parse_email
from common.core.errors import (
    BadField,
    Forbidden,
    NotSignedIn,
    PasswordChangeDue,
    WrongCurrentPassword,
)
from common.core.names import parse_nickname
from common.models.account import Account
from common.models.base import http_date
from common.services import (
    accounts,
    audit,
    claims,
    default_role,
    invitations,
    limits,
    memberships,
    passwords,
    proving,
    registration,
    sessions,
)
from common.services.plane import Plane
from common.services.principal import Origin, Principal, stranger

# What an account may write of its own row; everything else in a body is ignored.
CHANGEABLE = ("nickname", "avatar", "language", "color_schema", "timezone")

_SHOWN = (
    "id", "email", "nickname", "avatar", "language", "color_schema", "timezone",
    "is_active", "is_anonymous", "is_authenticated", "login_channel", "status",
)  # fmt: skip


def own_profile(plane: Plane, who: Principal) -> dict[str, Any]:
    """The caller's row without its secrets, plus ``is_superuser``, ``permissions`` and ``must_change_password``."""
    row = plane.database.one(
        f"SELECT {', '.join(f'u.{column}' for column in _SHOWN)}, u.is_superuser, a.last_login_at, u.create_time, "
        "u.update_time, a.must_change FROM user u LEFT JOIN rk_account a ON a.user_id = u.id WHERE u.id = ?",
        (who.user_id,),
    )
    if row is None:
        raise NotSignedIn("Unauthorized")
    last_login_at, create_time, update_time = row[-4:-1]
    return {
        **dict(zip(_SHOWN, row, strict=False)),
        "is_superuser": bool(row[-5]),
        "last_login_time": http_date(last_login_at),
        "create_time": create_time,
        "create_date": http_date(create_time),
        "update_time": update_time,
        "update_date": http_date(update_time),
        "permissions": [str(permission) for permission in sorted(who.permissions)],
        "must_change_password": bool(row[-1]),
    }


def register(plane: Plane, origin: Origin, *, email: str, nickname: str, password: str) -> tuple[Principal, str] | None:
    """Create an account for a stranger and log it in; returns its principal and the session's wire form.

    None where an administrator has to agree first: there is no account yet then. Raises RegistrationDisabled,
    RegistrationRefused, PasswordLoginDisabled, BadField, UserExists (RAGFlow's clients need to be told).
    """
    passwords.refuse_where_disabled(plane)
    ruled = registration.require_open(plane)
    limits.registration(plane, origin)
    nickname, email = parse_nickname(nickname), parse_email(email)
    registration.require_admission(plane, ruled, email)
    owner = passwords.new_owner(email, nickname, administers=default_role.administers(plane))
    password_hash = passwords.new_hash(plane, password, owner)
    if ruled == "approval":
        registration.ask(plane, origin, email, nickname, password_hash)
        return None
    with plane.database.transaction():
        has_default = default_role.lock(plane)
        memberships.lock(plane)
        account = accounts.make(plane, email=email, nickname=nickname, password_hash=password_hash)
        role = default_role.give(plane, None, account, has_default=has_default)
        invitations.claim(plane, account.id, account.email)
        after = {"role": role} if role else None
        audit.record(plane, EventTag.USER_REGISTER, stranger(origin), target=account.target, after=after)
        return sessions.open_session(plane, origin, account, "user")


def update_profile(
    plane: Plane,
    who: Principal,
    changes: dict[str, Any],
    *,
    password: str | None = None,
    new_password: str | None = None,
) -> None:
    """Write the caller's own columns (``CHANGEABLE``; None empties all but the nickname), and a new password.

    The current password has to be right wherever it is given, and to be given with a new one, which ends every session
    but the one in use. Raises WrongCurrentPassword, TooManyLogins, BadField, Forbidden for a caller with a token
    instead of a session, and PasswordChangeDue while anything else than that is due.
    """
    if who.must_change and new_password is None:
        raise PasswordChangeDue
    columns = {name: value for name, value in changes.items() if name in CHANGEABLE}
    if "nickname" in columns:
        columns["nickname"] = parse_nickname(columns["nickname"])
    checked = new_hash = None
    if password or new_password is not None:
        account = _proven(plane, who, password or "")
        checked = account.password
        new_hash = None if new_password is None else _new_hash(plane, who, account, new_password)
    with plane.database.transaction():
        if new_hash is not None:
            _hold_unchanged(plane, who, checked)
        if columns:
            before, after = _told(plane, who, columns)
            accounts.change(plane, str(who.user_id), **columns)
            audit.record(plane, EventTag.USER_UPDATE, who, target=("user", who.email), before=before, after=after)
        if "nickname" in columns:
            key = claims.nickname_key(columns["nickname"])
            plane.database.execute(Account.update(nickname_key=key).where(Account.user_id == who.user_id))
        if new_hash is not None:
            _write_password(plane, who, new_hash)


def _told(plane: Plane, who: Principal, columns: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What these columns hold and will hold, for the audit trail; of an image how long its text is."""
    names = sorted(columns)
    row = plane.database.one(f"SELECT {', '.join(names)} FROM user WHERE id = ?", (who.user_id,))
    told = [dict(zip(names, row or (), strict=False)), {name: columns[name] for name in names}]
    for values in told:
        if values.get("avatar"):
            values["avatar"] = f"{len(values['avatar'])} characters"
    return told[0], told[1]


def _proven(plane: Plane, who: Principal, password: str) -> accounts.AccountRow:
    """The caller's account, whose password this is."""
    if who.session_id is None:
        raise Forbidden("A token can't change the password; log in first.")
    account = accounts.by_id(plane, str(who.user_id))
    if account is None:
        raise NotSignedIn("Unauthorized")
    proving.require_current_password(plane, who, account, password)
    return account


def _new_hash(plane: Plane, who: Principal, account: accounts.AccountRow, new_password: str) -> str:
    if who.must_change and passwords.matches(plane, account.password, new_password):
        raise BadField("new_password: choose another one than the current password.", field="new_password")
    return passwords.new_hash(plane, new_password, passwords.owner_of(plane, account), field="new_password")


def _hold_unchanged(plane: Plane, who: Principal, checked: str | None) -> None:
    """Hold the caller's account, whose password may have been set by somebody else while hashes were computed.

    Raises NotSignedIn and WrongCurrentPassword: whoever took the password away must not lose to the one who had it.
    """
    held = accounts.hold(plane, str(who.user_id))
    if held is None or not held.may_sign_in:
        raise NotSignedIn("Unauthorized")
    if held.password != checked:
        raise WrongCurrentPassword


def _write_password(plane: Plane, who: Principal, new_hash: str) -> None:
    accounts.change(plane, str(who.user_id), password=new_hash)
    plane.database.execute(Account.update(must_change=False).where(Account.user_id == who.user_id))
    sessions.end_sessions(plane, str(who.user_id), "password", keep=who.session_id)
    audit.record(plane, EventTag.USER_PASSWORD, who, target=("user", who.email))
