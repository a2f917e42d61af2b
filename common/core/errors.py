"""Every error that a rule or a use-case can raise, with what each means on the wire.

``status`` is the true HTTP status. ``code`` is the RetCode that RAGFlow's own user routes carry in a 200 answer
(10, 100-109), or the status itself where that dialect keeps true statuses too (401, 403, 404, 409, 413, 429, 5xx).
The HTTP layer reads both; nothing else does.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any

from common.core.limits import Policy


class PlaneError(Exception):
    """Something the caller can be told: what happened, to what, and what to do next."""

    status = 500
    code = 100
    #: What the caller's program has to do about it, in one word for programs.
    asks_for: str | None = None

    def __init__(self, message: str, *, field: str | None = None, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.data = data


class BadField(PlaneError):
    """A value that is missing, of the wrong type or outside its rule; ``field`` names it."""

    status = 400
    code = 101


class BadEmail(BadField):
    """A text that is no e-mail address; RAGFlow's registration answers 103 here."""

    code = 103


class BadLogLevel(BadField):
    """A log level that does not exist, or half of what is needed to set one; RAGFlow answers 102 here."""

    code = 102


class BadBody(PlaneError):
    """A body that can't be read at all: not JSON, not an object, not UTF-8."""

    status = 400
    code = 101


class UnsupportedBody(PlaneError):
    """A body in a form that the route doesn't take."""

    status = 415
    code = 101


class NotSignedIn(PlaneError):
    """No credential, or one that is unknown, expired or revoked; deliberately without saying which."""

    status = 401
    code = 401


class LoginRefused(PlaneError):
    """A login that failed; the text is one for every reason, so that it tells nothing about accounts."""

    status = 401
    code = 109

    def __init__(self) -> None:
        super().__init__("E-mail and password do not match an active account.")


class WrongCurrentPassword(PlaneError):
    """The current password, asked for before a change, is not right."""

    status = 403
    code = 109

    def __init__(self) -> None:
        super().__init__("The current password is not right.", field="password")


class WrongCode(PlaneError):
    """The text of an image, or a code that was mailed, is not the right one."""

    status = 403
    code = 109


class NotEffective(PlaneError):
    """What this step builds on has expired, was used, or never was."""

    status = 409
    code = 10


class MailNotConfigured(NotEffective):
    """There is no mail server, so nothing can be proven by mail; the same for everybody who asks."""

    def __init__(self) -> None:
        super().__init__("Mail is not configured on this server, so it can't send a code; ask an administrator.")


class LinkDead(NotEffective):
    """A link to reset a password that does not count; deliberately without saying why."""

    def __init__(self) -> None:
        super().__init__("This link was used, has expired or is none: ask for a new one.", field="token")


class Forbidden(PlaneError):
    """The caller is known and may not do this."""

    status = 403
    code = 403


class PermissionMissing(Forbidden):
    """The caller lacks the permission that the route names."""

    def __init__(self, resource: str, action: str) -> None:
        super().__init__(
            f"This needs the permission {resource}:{action}, which you do not hold.",
            permission=f"{resource}:{action}",
        )


class ScopeMissing(Forbidden):
    """A token's scope does not reach as far as the route, whatever its owner may do."""

    def __init__(self, scope: str | None) -> None:
        what = "no scope reaches this" if scope is None else f"this takes the scope {scope}"
        super().__init__(f"This token does less than its owner may: {what}.", scope=scope)


class GivesMoreThanHeld(Forbidden):
    """Somebody tried to give, or to act on someone who holds, more than they hold themselves."""

    def __init__(self, message: str, missing: Sequence[str]) -> None:
        super().__init__(message, missing=list(missing))


class ProofDue(Forbidden):
    """What was asked for is sensitive, and the session's password was given too long ago."""

    asks_for = "reauthenticate"

    def __init__(self) -> None:
        super().__init__("Give your password again first: POST /api/v1/auth/reauthenticate.")


class CsrfRefused(Forbidden):
    """A request with the cookie of a session did not show that it comes from the session's own page."""

    asks_for = "csrf"

    def __init__(self) -> None:
        super().__init__(
            "A session in a cookie needs the header X-CSRF-Token here; the login's answer and "
            "GET /api/v1/sessions/current have it as csrf_token."
        )


class PasswordChangeDue(Forbidden):
    """A password is in use that must not stay; nothing but changing it and logging out is allowed."""

    def __init__(self) -> None:
        super().__init__(
            "Change your password first: PUT /api/v1/admin/users/{your e-mail}/password or POST /v1/user/setting. "
            "It was generated, set by somebody else, or is too short for an administrator."
        )


class NotYourTenant(PlaneError):
    """A tenant that the caller has not the asked-for role in; RAGFlow answers 109 here."""

    status = 403
    code = 109

    def __init__(self) -> None:
        super().__init__("no authorization")


class ForeignTenant(NotYourTenant):
    """The tenant that a request names to act in is none that its caller may act in."""


class RegistrationDisabled(PlaneError):
    """Registration is switched off (RAGFlow's clients look for the fragment)."""

    status = 403
    code = 103

    def __init__(self) -> None:
        super().__init__("User registration is disabled.")


class RegistrationRefused(PlaneError):
    """This address may not register, as it is not listed or not invited; which of them is not told."""

    status = 403
    code = 103

    def __init__(self) -> None:
        super().__init__("This address can't register here; ask an administrator.")


class PasswordLoginDisabled(PlaneError):
    """People of the user API sign in by other means; administrators still have their passwords on the admin server."""

    status = 403
    code = 103

    def __init__(self) -> None:
        super().__init__("Password login is disabled here.")


class NotFound(PlaneError):
    """The thing that was asked for does not exist, or not for this caller."""

    status = 404
    code = 102


class UserNotFound(NotFound):
    """No account has this e-mail."""

    def __init__(self, email: str) -> None:
        super().__init__(f"User '{email}' not found.")


class SessionNotFound(NotFound):
    """The account has no open session with this id."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session '{session_id}' not found, or over already.")


class TokenNotFound(NotFound):
    """The user has no such token."""

    def __init__(self) -> None:
        super().__init__("API key not found or could not be deleted")


class MemberNotFound(NotFound):
    """The account is neither a member of the tenant nor invited to it."""

    def __init__(self, whom: str) -> None:
        super().__init__(f"'{whom}' is neither a member of this tenant nor invited to it.")


class RoleNotFound(NotFound):
    """No role has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Role '{name}' not found.")


class JobNotFound(NotFound):
    """No job has this id; those that are over are kept for some days only."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job '{job_id}' not found.")


class ApprovalNotFound(NotFound):
    """Nobody awaits a decision under this id: there was none, it is decided, or it has expired."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(f"No registration '{approval_id}' awaits a decision.")


class WhitelistNotFound(NotFound):
    """The white list has no such entry."""

    def __init__(self, what: str) -> None:
        super().__init__(f"'{what}' is not on the white list.")


class TenantNotFound(NotFound):
    """No tenant has this id, or the user has none."""

    def __init__(self, what: str = "Tenant not found.") -> None:
        super().__init__(what)


class SettingNotFound(NotFound):
    """No setting has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no setting {reprlib.repr(name)}.")


class SettingChangeNotFound(NotFound):
    """The setting has no such change in its history."""

    def __init__(self, name: str, change_id: int) -> None:
        super().__init__(f"{name} has no change {change_id} in its history.")


class FeatureNotFound(NotFound):
    """No feature flag has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Feature flag '{name}' not found.")


class ServiceNotFound(NotFound):
    """No service has this id."""

    def __init__(self, service_id: str) -> None:
        super().__init__(f"Service '{service_id}' not found.")


class ServiceTypeNotFound(NotFound):
    """There is no such type of service."""

    def __init__(self, service_type: str) -> None:
        super().__init__(f"Service type '{service_type}' not found.")


class Conflict(PlaneError):
    """The request fits no longer, or not yet, what is stored."""

    status = 409
    code = 409


class RefusedByRule(Conflict):
    """An act that nobody may do as things stand, whatever they hold; so it is in the audit trail as a forbidden one."""


class NotOnYourself(RefusedByRule):
    """An administrator's act that nobody may do to their own account."""


class UserExists(Conflict):
    """The e-mail belongs to an account already (RAGFlow's clients look for these fragments)."""

    code = 103

    def __init__(self, email: str) -> None:
        super().__init__(f"User '{email}' already exists. Email {email} has already registered.")


class WhitelistTaken(Conflict):
    """The white list has this entry already."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"'{pattern}' is on the white list already.", field="email")


class WhitelistFull(Conflict):
    """The white list has as many entries as it may."""

    def __init__(self, most: int) -> None:
        super().__init__(f"The white list has at most {most} entries: list a domain, as @example.org, or remove some.")


class NoWayToTell(Conflict):
    """A link can be made, but nobody would get to know it."""

    def __init__(self) -> None:
        super().__init__(
            "Mail is not configured on this server, and the setting password.show_reset_link does not let you see "
            "the link: set one of them."
        )


class StillActive(Conflict):
    """An account must be switched off before it is deleted."""

    def __init__(self, email: str) -> None:
        super().__init__(f"User '{email}' is still active: switch the account off first.")


class LastSuperuser(RefusedByRule):
    """The change would leave no active superuser."""

    def __init__(self) -> None:
        super().__init__("This is the last active superuser: make another one first.")


class RoleExists(Conflict):
    """A role has this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Role '{name}' already exists.")


class RoleImmutable(RefusedByRule):
    """A built-in role can't be changed or deleted."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Role '{name}' is built in and can't be changed; make a role that inherits from it.")


class RoleCycle(Conflict):
    """A parent would make the role its own ancestor; ``path`` names the circle in order."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__("Roles would inherit in a circle: " + " → ".join(path), path=list(path))


class RoleHeld(Conflict):
    """A role that is held or inherited can't be deleted; ``users`` and ``roles`` are a few of how many there are."""

    def __init__(
        self, name: str, users: Sequence[str], roles: Sequence[str], *, user_count: int, role_count: int
    ) -> None:
        by = []
        if user_count:
            by.append(f"held by {user_count} user(s) ({_some(users, user_count)})")
        if role_count:
            by.append(f"inherited by {role_count} role(s) ({_some(roles, role_count)})")
        super().__init__(
            f"Role '{name}' can't be deleted: it is {' and '.join(by)}.",
            users=list(users),
            roles=list(roles),
            user_count=user_count,
            role_count=role_count,
        )


def _some(names: Sequence[str], count: int) -> str:
    return ", ".join(names) + (", …" if count > len(names) else "")


class FeatureExists(Conflict):
    """A feature flag has this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Feature flag '{name}' already exists.")


class LimitReached(Conflict):
    """The tenant has as many of these as its limit allows."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(
            f"This tenant may have {limit} {what}, and has them: remove one, or have the limit raised.",
            limit=limit,
        )


class TooManyInGrace(Conflict):
    """More replaced tokens of the tenant are still good than it may have tokens."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"This tenant may have {limit} tokens, and more that were replaced are still good: rotate without a "
            "grace (grace_s 0), or delete one of those.",
            limit=limit,
        )


class JobNotDead(Conflict):
    """Only a job that was given up can be tried anew."""

    def __init__(self, job_id: int, state: str) -> None:
        super().__init__(f"Job {job_id} is {state}: only a dead job can be retried.")


class JobNotWaiting(Conflict):
    """Only a job that waits can be cancelled."""

    def __init__(self, job_id: int, state: str) -> None:
        super().__init__(f"Job {job_id} is {state}: only a ready job can be cancelled.")


class NoControlDriver(Conflict):
    """A service can't be stopped or restarted because nothing is configured that could do it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Service '{name}' can't be controlled: no control driver is configured for it.")


class AlreadyMember(Conflict):
    """Whoever is invited belongs to the tenant already, or is invited already; RAGFlow answers 102."""

    code = 102


class NotInvited(Conflict):
    """There is no pending invitation to accept, or it has expired; RAGFlow's dialect answers 102."""

    code = 102


class OwnerStays(RefusedByRule):
    """An owner's membership that must not go: of the last owner, of the home's owner, or one's own."""


class TokenReplaced(Conflict):
    """A token is rotated that another one has taken the place of already."""

    def __init__(self, successor: str) -> None:
        super().__init__(f"This token is being rotated already: rotate the one that replaces it, {successor}.")


class AmbiguousToken(Conflict):
    """Several tokens look like the display form that was given."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} tokens are shown like this: delete one by its id or its whole value.")


class LostUpdate(PlaneError):
    """What is to be changed is no longer what the caller has seen (``If-Match``)."""

    status = 412
    code = 412

    def __init__(self) -> None:
        super().__init__("This was changed since you read it: read it again, and repeat the change if it still fits.")


class TooMany(PlaneError):
    """A limit is reached for now; ``resets_in`` is in seconds."""

    status = 429
    code = 429

    def __init__(self, message: str, *, resets_in: float, policy: Policy | None = None) -> None:
        super().__init__(message, resets_in=resets_in)
        self.policy = policy


class CoolingDown(TooMany):
    """A code was sent a moment ago, or too many were wrong; RAGFlow answers 10 here."""

    code = 10

    def __init__(self, reason: str, *, resets_in: float) -> None:
        super().__init__(f"{reason} Try again in {math.ceil(resets_in)} seconds.", resets_in=resets_in)


class StoreUnavailable(PlaneError):
    """A store can't be reached; ``store`` is metadata, cache, documents or objects. The reason is for the log.

    ``lost`` is False for a store that answers and refuses this one operation, being read-only or full. A ``note`` ends
    the reason; ``why`` is the reason without it, which stays the same while an outage lasts.
    """

    status = 503
    code = 503

    def __init__(self, store: str, reason: str = "", *, lost: bool = True, note: str = "") -> None:
        super().__init__(f"The {store} store is not available just now; try again shortly.", store=store)
        self.store = store
        self.why = reason
        self.reason = f"{reason}; {note}" if note else reason
        self.lost = lost
