"""Asking for the password again: what is sensitive takes a session whose owner has just given it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from common.core.audit_tags import EventTag
from common.core.errors import Forbidden, NotSignedIn, ProofDue, WrongCurrentPassword
from common.core.session_limits import proof_is_old
from common.models.account import SessionTrait
from common.services import accounts, audit, claims, limits, passwords
from common.services.accounts import AccountRow
from common.services.limits import LoginAttempt, TooManyLogins
from common.services.plane import Plane
from common.services.principal import Principal

# So often a password is checked that another one takes the place of meanwhile.
_LOOKS = 3


def require_recent_proof(plane: Plane, who: Principal) -> None:
    """Raises ProofDue for a session whose password was given too long ago. A token has none that could be asked for."""
    if who.authenticated_at is not None and proof_is_old(who.authenticated_at, plane.now_ms()):
        raise ProofDue


def prove(plane: Plane, who: Principal, password: str) -> int:
    """Take the caller's password for their session; returns when it was given (UTC milliseconds).

    ``password`` is as it came over the wire; wrong ones are limited like logins, and who administers with one
    that is too short for that has to change it first from here on. Raises WrongCurrentPassword, TooManyLogins,
    Forbidden for a caller with a token instead of a session, and NotSignedIn when the session was ended meanwhile.
    """
    if who.session_id is None:
        raise Forbidden("A token has no password; log in first.")
    if plane.shared:
        # RAGFlow may have made the account a moment ago: what it owes is noted in a row of this plane's.
        claims.meet(plane.database, str(who.email))
    with _attempt(plane, who, str(who.email), EventTag.SESSION_PROVE) as attempt:
        for _ in range(_LOOKS):
            account = accounts.by_id(plane, str(who.user_id))
            checked = passwords.check(plane, account.password if account else None, password)
            if not checked.right:
                attempt.failed()
                _record(plane, who, str(who.email), EventTag.SESSION_PROVE, result="refused")
                raise WrongCurrentPassword
            attempt.succeeded()
            now = plane.now_ms()
            with plane.database.transaction():
                held = accounts.hold(plane, str(who.user_id))
                if held is not None and account is not None and held.password == account.password:
                    _write(plane, str(who.user_id), who.session_id, now)
                    _record(plane, who, str(who.email), EventTag.SESSION_PROVE)
                    held_now = replace(who, permissions=accounts.standing_of(plane, held).permissions)
                    passwords.demand_longer(plane, held_now, checked.opened)
                    return now
            # The password was changed meanwhile, or its hash renewed by a login: what holds now is looked at.
    raise WrongCurrentPassword


def _write(plane: Plane, user_id: str, session_id: str, now: int) -> None:
    if plane.database.one("SELECT 1 FROM rk_session WHERE id = ? AND ended_at IS NULL", (session_id,)) is None:
        raise NotSignedIn("Unauthorized")
    if not plane.database.run(
        "UPDATE rk_session_trait SET authenticated_at = ? WHERE session_id = ?", (now, session_id)
    ):
        plane.database.insert(SessionTrait, session_id=session_id, user_id=user_id, kind="bearer", authenticated_at=now)


def require_current_password(plane: Plane, who: Principal, account: AccountRow, password: str) -> None:
    """Raises WrongCurrentPassword, and records it, unless this is the account's password now; else TooMany.

    ``password`` is as it came over the wire; wrong ones are limited like logins.
    """
    with _attempt(plane, who, account.email, EventTag.USER_PASSWORD) as attempt:
        if not passwords.matches(plane, account.password, password):
            attempt.failed()
            _record(plane, who, account.email, EventTag.USER_PASSWORD, result="refused")
            raise WrongCurrentPassword
        attempt.succeeded()


def _attempt(plane: Plane, who: Principal, email: str, tag: EventTag) -> LoginAttempt:
    """``limits.login_attempt`` of a session; one event for each wait says that a password was refused in it."""
    try:
        return limits.login_attempt(plane, who.origin, email, row="proof")
    except TooManyLogins as error:
        tell = partial(_record, plane, who, email, tag, result="refused", after=error.told)
        limits.tell_once(plane, f"{tag.value}:{error.whose}", error.again_s, tell)
        raise


def _record(
    plane: Plane,
    who: Principal,
    email: str,
    tag: EventTag,
    *,
    result: str = "ok",
    after: dict[str, Any] | None = None,
) -> None:
    with plane.database.transaction():
        audit.record(plane, tag, who, target=("user", email), after=after, result=result)
