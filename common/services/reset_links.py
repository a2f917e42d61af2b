"""Links with which somebody sets a new password: made by an administrator, good once, for half an hour.

A link is over as soon as the password is another one, whoever changed it: it names the stored hash that it replaces.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from common.core import mail_texts
from common.core.audit_tags import EventTag
from common.core.delegation import missing_to_act_on
from common.core.errors import Conflict, LinkDead, NotOnYourself, NoWayToTell
from common.core.permissions import registered
from common.models.account import Account
from common.models.base import rfc3339
from common.models.registration import ResetLink
from common.secret import Secret
from common.services import accounts, audit, jobs, limits, mail, passwords, sessions, tokens
from common.services.accounts import AccountRow
from common.services.jobs import GiveUp, Task
from common.services.plane import Plane
from common.services.principal import Origin, Principal, stranger
from common.services.session_rows import hashed

MAIL = "mail.reset_link"
VALID_MS = 30 * 60 * 1000
#: What it takes to make a link.
MAKING = registered("user", "write")
_TOKEN_BYTES = 32


class _Found(NamedTuple):
    """A link that is good, as far as rows tell: the account, and who made it, by the id of an account or a token."""

    account: AccountRow
    made_by: str


def make(plane: Plane, actor: Principal, email: str) -> dict[str, Any]:
    """Make a link for an account, in place of an earlier one, and mail it where a mail server is configured.

    ``{email, expires_at, mailed, token, link}``: ``token`` is None unless the setting ``password.show_reset_link``
    says that administrators see it, ``link`` also where no page takes tokens. Raises UserNotFound, GivesMoreThanHeld,
    NotOnYourself, Conflict for an account that is off, and, of whoever may make it, NoWayToTell where there is neither
    mail nor that setting.
    """
    shown, mailed = plane.variables.flag("password.show_reset_link"), mail.is_configured(plane)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    now = plane.now_ms()
    with plane.database.transaction():
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        _refuse(actor, account)
        if not shown and not mailed:
            raise NoWayToTell
        plane.database.run("DELETE FROM rk_reset_link WHERE user_id = ?", (account.id,))
        plane.database.insert(
            ResetLink,
            user_id=account.id,
            token_hash=hashed(token),
            stored_hash=_hash_of(account),
            made_by=actor.token_id or actor.user_id or "",
            created_at=now,
            expires_at=now + VALID_MS,
        )
        if mailed:
            task = {"user_id": account.id, "token": plane.keys.encrypt(Secret(token)), "expires_at": now + VALID_MS}
            jobs.enqueue(plane, MAIL, task)
        after = {"mailed": mailed, "shown": shown}
        audit.record(plane, EventTag.USER_RESET_LINK, actor, target=account.target, after=after)
    return {
        "email": account.email,
        "expires_at": rfc3339(now + VALID_MS),
        "mailed": mailed,
        "token": token if shown else None,
        "link": (_page(plane, token) or None) if shown else None,
    }


def _refuse(actor: Principal, account: AccountRow) -> None:
    if actor.user_id == account.id:
        raise NotOnYourself("A link for yourself would need no current password: change your password instead.")
    if not account.may_sign_in:
        raise Conflict(f"User '{account.email}' is switched off: switch the account on first.")


def use(plane: Plane, origin: Origin, token: str, new_password: str) -> None:
    """Set the password of the account whose link this is, once; all its sessions end.

    ``new_password`` is as it came over the wire. Raises LinkDead for a link that was used, has expired, is none, or
    whose maker may not act on the account any more; and BadField, after which the link is still good.
    """
    found = _find(plane, token)
    owner = passwords.owner_of(plane, found.account)
    new_hash = passwords.new_hash(plane, new_password, owner, field="new_password")
    with plane.database.transaction():
        plane.database.hold("user", found.account.id)
        # Whatever has changed while the hash was computed counts: of two who use a link at once the second comes late.
        account = _find(plane, token).account
        plane.database.run("DELETE FROM rk_reset_link WHERE user_id = ?", (account.id,))
        accounts.change(plane, account.id, password=new_hash)
        plane.database.execute(Account.update(must_change=False).where(Account.user_id == account.id))
        sessions.end_sessions(plane, account.id, "password")
        by = {"by": "link"}
        audit.record(plane, EventTag.USER_PASSWORD, stranger(origin), target=account.target, after=by)
        limits.forget_failures(plane, account.email)


def _find(plane: Plane, token: str) -> _Found:
    """The account of a link that is good now. Raises LinkDead."""
    row = plane.database.one(
        "SELECT user_id, stored_hash, made_by FROM rk_reset_link WHERE token_hash = ? AND expires_at > ?",
        (hashed(token), plane.now_ms()),
    )
    account = accounts.by_id(plane, row[0]) if row else None
    if row is None or account is None or not account.may_sign_in or _hash_of(account) != row[1]:
        raise LinkDead
    if not _may_still_act_on(plane, row[2], account):
        raise LinkDead
    return _Found(account, row[2])


def _may_still_act_on(plane: Plane, made_by: str, account: AccountRow) -> bool:
    """Whether who made a link could make it now: the account may have risen since, and its maker may have fallen."""
    maker = accounts.by_id(plane, made_by)
    if maker is None:
        # A token's holder could have no more done by a link than by the token.
        standing = tokens.standing_of(plane, made_by)
    else:
        standing = accounts.standing_of(plane, maker) if maker.may_sign_in else None
    if standing is None or MAKING not in standing.permissions:
        return False
    return not missing_to_act_on(standing, accounts.standing_of(plane, account))


def _hash_of(account: AccountRow) -> str:
    return hashed(account.password or "")


def send(task: Task) -> None:
    """The job ``mail.reset_link`` ``{user_id, token (encrypted), expires_at}``. Raises as ``mail.deliver``."""
    plane, payload = task.plane, task.job.payload
    token = plane.keys.decrypt(payload["token"])
    if token is None:
        raise GiveUp("The link can't be decrypted: the secret key was changed meanwhile.")
    try:
        account = _find(plane, token.reveal()).account
    except LinkDead:
        mail.leave_unsent(task, "The link is no longer good.")
        return
    row = plane.database.one("SELECT language FROM user WHERE id = ?", (account.id,))
    text = mail_texts.reset_link(
        row[0] if row else None,
        address=account.email,
        token=token.reveal(),
        expires=mail.minute(payload["expires_at"]),
        link=_page(plane, token.reveal()),
    )
    mail.deliver(task, account.email, text)


def _page(plane: Plane, token: str) -> str:
    """The page that takes the token, which stands where it is sent to no server; empty where none is set."""
    base = plane.variables.text("password.reset_page").strip()
    if not base.startswith(("http://", "https://")) or any(character.isspace() for character in base):
        return ""
    return f"{base}#token={token}"


def prune(plane: Plane, *, limit: int = 1000) -> int:
    """Delete up to ``limit`` links that have expired; returns how many."""
    old = plane.database.all("SELECT user_id FROM rk_reset_link WHERE expires_at <= ? LIMIT ?", (plane.now_ms(), limit))
    if not old:
        return 0
    marks = ", ".join("?" * len(old))
    return plane.database.run(
        f"DELETE FROM rk_reset_link WHERE expires_at <= ? AND user_id IN ({marks})",
        (plane.now_ms(), *(user_id for (user_id,) in old)),
    )
