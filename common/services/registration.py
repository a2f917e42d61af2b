"""Who may register, and who awaits an administrator's decision.

The mode is a setting (``registration.mode``). ``REGISTER_ENABLED=0`` closes registration whatever the setting says,
and RAGFlow's setting ``enable_whitelist`` asks for a listed address in every mode.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from common.core import mail_texts
from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.emails import email_key
from common.core.errors import ApprovalNotFound, RegistrationDisabled, RegistrationRefused
from common.core.whitelist import keys_admitting
from common.models.base import rfc3339
from common.models.registration import Registration
from common.services import accounts, audit, default_role, invitations, jobs, mail, memberships
from common.services.jobs import Task
from common.services.plane import Plane
from common.services.principal import Origin, Principal, stranger
from common.stores.database import Taken

Mode = Literal["open", "whitelist", "invitation", "approval", "closed"]

DECISION_MAIL = "mail.registration"
#: So long a registration awaits a decision; then it is as if it had never been.
PENDING_MS = 14 * 24 * 3600 * 1000


def mode(plane: Plane) -> Mode:
    """How registration is ruled now."""
    if not plane.settings.register_enabled:
        return "closed"
    return cast(Mode, plane.variables.text("registration.mode"))


def require_open(plane: Plane) -> Mode:
    """The mode in which somebody may register. Raises RegistrationDisabled where nobody may."""
    ruled = mode(plane)
    if ruled == "closed":
        raise RegistrationDisabled
    return ruled


def require_admission(plane: Plane, ruled: Mode, email: str) -> None:
    """Raises RegistrationRefused unless this address may register, or ask for it, in this mode."""
    if (ruled == "whitelist" or plane.variables.flag("enable_whitelist")) and not _is_listed(plane, email):
        raise RegistrationRefused
    if ruled == "invitation" and not _is_invited(plane, email):
        raise RegistrationRefused


def _is_listed(plane: Plane, email: str) -> bool:
    keys = keys_admitting(email)
    return plane.database.one("SELECT 1 FROM rk_whitelist WHERE pattern_key IN (?, ?) LIMIT 1", keys) is not None


def _is_invited(plane: Plane, email: str) -> bool:
    row = plane.database.one(
        "SELECT 1 FROM rk_invitation WHERE email_key = ? AND expires_at > ? LIMIT 1",
        (email_key(email), plane.now_ms()),
    )
    return row is not None


def ask(plane: Plane, origin: Origin, email: str, nickname: str, password_hash: str) -> None:
    """Note that somebody wants an account. Who asks isn't told whether the address has one, or has asked before.

    The first who asks for an address counts, until the decision.
    """
    now = plane.now_ms()
    with plane.database.transaction():
        if accounts.find(plane, email) is not None or not _insert(
            plane,
            email=email,
            email_key=email_key(email),
            nickname=nickname,
            password=password_hash,
            address=origin.address,
            created_at=now,
            expires_at=now + PENDING_MS,
        ):
            audit.record(plane, EventTag.USER_REGISTER, stranger(origin), target=("user", email), result="refused")
            return
        after = {"awaits": "approval"}
        audit.record(plane, EventTag.REGISTRATION_ASK, stranger(origin), target=("user", email), after=after)


def _insert(plane: Plane, **row: Any) -> bool:
    plane.database.run(
        "DELETE FROM rk_registration WHERE email_key = ? AND expires_at <= ?", (row["email_key"], row["created_at"])
    )
    try:
        # A transaction within: what is taken must not spoil the outer one.
        with plane.database.transaction():
            plane.database.insert(Registration, **row)
    except Taken:
        return False
    return True


def page(plane: Plane, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """A page of those who await a decision, the first who asked first: ``{approvals, next_cursor}``.

    Items: ``{id, email, nickname, address, created_at, expires_at}``. Raises BadField.
    """
    (after,) = decode_cursor(cursor, (int,)) if cursor is not None else (0,)
    rows = plane.database.all(
        "SELECT id, email, nickname, address, created_at, expires_at FROM rk_registration "
        "WHERE id > ? AND expires_at > ? ORDER BY id LIMIT ?",
        (after, plane.now_ms(), limit + 1),
    )
    shown = [
        {
            "id": number,
            "email": email,
            "nickname": nickname,
            "address": address,
            "created_at": rfc3339(created_at),
            "expires_at": rfc3339(expires_at),
        }
        for number, email, nickname, address, created_at, expires_at in rows[:limit]
    ]
    return {"approvals": shown, "next_cursor": encode_cursor([shown[-1]["id"]]) if len(rows) > limit else None}


def approve(plane: Plane, actor: Principal, approval_id: str) -> dict[str, Any]:
    """Make the account that was asked for; ``{id, email, nickname}``. Its owner is mailed where that is configured.

    It gets the default role. Raises ApprovalNotFound, UserExists when the address got an account meanwhile, and
    GivesMoreThanHeld when that role is more than the actor holds.
    """
    with plane.database.transaction():
        has_default = default_role.lock(plane)
        memberships.lock(plane)
        actor = accounts.acting_now(plane, actor)
        email, nickname, password_hash = _take(plane, approval_id)
        account = accounts.make(plane, email=email, nickname=nickname, password_hash=password_hash)
        role = default_role.give(plane, actor, account, has_default=has_default)
        invitations.claim(plane, account.id, account.email)
        _tell(plane, account.email, approved=True)
        after = {"role": role} if role else None
        audit.record(plane, EventTag.REGISTRATION_APPROVE, actor, target=account.target, after=after)
    return {"id": account.id, "email": account.email, "nickname": account.nickname}


def reject(plane: Plane, actor: Principal, approval_id: str) -> str:
    """Make no account; returns the address, which is mailed where that is configured. Raises ApprovalNotFound."""
    with plane.database.transaction():
        actor = accounts.acting_now(plane, actor)
        email, _, _ = _take(plane, approval_id)
        _tell(plane, email, approved=False)
        audit.record(plane, EventTag.REGISTRATION_REJECT, actor, target=("user", email))
    return email


def _take(plane: Plane, approval_id: str) -> tuple[str, str, str]:
    """E-mail, nickname and hash of who awaits a decision, which is made now. Raises ApprovalNotFound."""
    number = int(approval_id) if approval_id.isascii() and approval_id.isdecimal() and len(approval_id) < 19 else 0
    row = plane.database.one(
        "SELECT email, nickname, password FROM rk_registration WHERE id = ? AND expires_at > ?",
        (number, plane.now_ms()),
    )
    # Of two who decide at once, one does.
    if row is None or not plane.database.run("DELETE FROM rk_registration WHERE id = ?", (number,)):
        raise ApprovalNotFound(approval_id)
    return row[0], row[1], row[2]


def _tell(plane: Plane, email: str, *, approved: bool) -> None:
    if mail.is_configured(plane):
        jobs.enqueue(plane, DECISION_MAIL, {"email": email, "approved": approved})


def send_decision(task: Task) -> None:
    """The job ``mail.registration`` ``{email, approved}``. Raises as ``mail.deliver``."""
    plane, payload = task.plane, task.job.payload
    text = mail_texts.registration(
        plane.settings.lang,
        address=payload["email"],
        approved=payload["approved"],
        link=mail.frontend_link(plane, "/login"),
    )
    mail.deliver(task, payload["email"], text)


def prune(plane: Plane, *, limit: int = 1000) -> int:
    """Delete up to ``limit`` registrations that nobody decided on in time; returns how many."""
    old = plane.database.all("SELECT id FROM rk_registration WHERE expires_at <= ? LIMIT ?", (plane.now_ms(), limit))
    if not old:
        return 0
    marks = ", ".join("?" * len(old))
    return plane.database.run(f"DELETE FROM rk_registration WHERE id IN ({marks})", [number for (number,) in old])
