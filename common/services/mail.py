"""Mails that jobs send: whom to, from whom, and what becomes of a job whose mail was not taken."""

from __future__ import annotations

import hashlib
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from typing import Any

import orjson

from common.conf.sections import SmtpSection
from common.core import mail_texts
from common.core.emails import email_key, parse_email
from common.core.errors import BadEmail
from common.core.mail_texts import MailText
from common.models.base import rfc3339
from common.services.jobs import Claimed, GiveUp, Task, TryLater
from common.services.plane import Plane
from common.stores import smtp

INVITATION = "mail.invitation"


def is_configured(plane: Plane) -> bool:
    """Whether there is a mail server to send by."""
    return server_of(plane) is not None


def server_of(plane: Plane) -> SmtpSection | None:
    """The mail server to send by: that of the settings ``mail.*``, which count as a whole, else of the file's section.

    A password that no key opens any more is none.
    """
    told, section = plane.variables, plane.settings.smtp
    host = told.text("mail.server")
    if not host:
        return section if section is not None and section.mail_server else None
    use_tls, use_ssl = told.flag("mail.use_tls"), told.flag("mail.use_ssl")
    usual_port = 587 if use_tls else 465 if use_ssl else 25
    return SmtpSection(
        mail_server=host,
        mail_port=told.integer("mail.port") or usual_port,
        mail_use_ssl=use_ssl,
        mail_use_tls=use_tls,
        mail_username=told.text("mail.username"),
        mail_password=told.secret("mail.password"),
        mail_default_sender=parseaddr(told.text("mail.default_sender")),
    )


def deliver(task: Task, address: str, text: MailText) -> None:
    """Hand a mail to the mail server, once as far as this job's progress knows, and note that.

    A job that was interrupted between the two sends again, under the same Message-ID. Raises GiveUp without a mail
    server and for what the server refuses for good (5xx), TryLater for what may go better later (4xx, no answer).
    """
    if (task.job.progress or {}).get("sent"):
        return
    server = server_of(task.plane)
    if server is None:
        raise GiveUp("No mail server is configured: set mail.server, or smtp.mail_server in the file, and retry.")
    message = _message(task, server, address, text)
    answer_s = _answer_s(task.plane)
    try:
        smtp.send(server, message, answer_s=answer_s, total_s=max(smtp.TOTAL_S, 2 * answer_s))
    except smtp.MailRefused as refused:
        raise GiveUp(str(refused)) from refused
    except smtp.MailUnsent as unsent:
        raise TryLater(str(unsent)) from unsent
    task.save({"sent": True, "message_id": message["Message-ID"]})


def leave_unsent(task: Task, reason: str) -> None:
    """Note why a mail that was asked for is not sent any more."""
    task.save({"sent": False, "reason": reason})


def send_invitation(task: Task) -> None:
    """The job ``mail.invitation`` ``{invitation_id}``: mail the invited address, registered or not.

    In the invited account's language, else in the inviter's. Nothing is sent for an invitation that is accepted,
    refused, withdrawn or expired meanwhile. Raises as ``deliver``.
    """
    plane = task.plane
    row = plane.database.one(
        "SELECT i.email, i.expires_at, COALESCE(t.name, i.tenant_id), u.nickname, u.email, u.language "
        "FROM rk_invitation i LEFT JOIN tenant t ON t.id = i.tenant_id LEFT JOIN user u ON u.id = i.invited_by "
        "WHERE i.id = ?",
        (task.job.payload["invitation_id"],),
    )
    if row is None or row[1] <= plane.now_ms():
        leave_unsent(task, "The invitation is no longer open.")
        return
    address, expires_at, tenant, nickname, inviter_email, inviter_language = row
    invited = plane.database.one(
        "SELECT u.language FROM rk_account a JOIN user u ON u.id = a.user_id WHERE a.email_key = ?",
        (email_key(address),),
    )
    text = mail_texts.invitation(
        invited[0] if invited else inviter_language,
        tenant=tenant,
        inviter=f"{nickname} ({inviter_email})" if nickname else inviter_email or "Somebody",
        address=address,
        expires=minute(expires_at),
        link=frontend_link(plane, "/user-setting/team" if invited else "/login"),
    )
    deliver(task, address, text)


def frontend_link(plane: Plane, path: str) -> str:
    """A page of the web client at ``mail.frontend_url``, else the section's; empty where neither is a web address.

    The paths are those of RAGFlow's web client.
    """
    of_section = plane.settings.smtp.mail_frontend_url.strip() if plane.settings.smtp else ""
    base = plane.variables.text("mail.frontend_url") or of_section
    if not base.startswith(("http://", "https://")) or any(character.isspace() for character in base):
        return ""
    return base.rstrip("/") + path


def _answer_s(plane: Plane) -> float:
    """Seconds for each answer; the setting belongs to the server that the settings name."""
    return float(plane.variables.integer("mail.timeout")) if plane.variables.text("mail.server") else smtp.ANSWER_S


def minute(at_ms: int) -> str:
    """A moment as people read it, in UTC, to the minute."""
    return (rfc3339(at_ms) or "")[:16].replace("T", " ")


def _message(task: Task, server: SmtpSection, address: str, text: MailText) -> EmailMessage:
    """Plain text with a page beside it, from the configured sender, or else the account that logs in."""
    try:
        # An address of RAGFlow's table may be anything, also two addresses, or a header of its own.
        recipient = parse_email(address)
    except BadEmail as error:
        raise GiveUp(f"The address can't be mailed to: {error.message}") from error
    name, sender = server.mail_default_sender
    sender = sender or server.mail_username
    message = EmailMessage()
    local, _, domain = sender.partition("@")
    try:
        message["From"] = Address(name, local, domain) if name else sender
    except (ValueError, LookupError) as error:
        # A user name, or what the file says, may be anything.
        raise GiveUp(f"Mails can't be from {sender!r:.80}: set mail.default_sender, and retry.") from error
    message["To"] = recipient
    message["Subject"] = text.subject
    message["Date"] = formatdate(task.plane.now_ms() / 1000, usegmt=True)
    message["Message-ID"] = _message_id(task.job, sender.rpartition("@")[2] or "localhost")
    # So that holiday notices and the like are not sent back (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text.body)
    message.add_alternative(text.as_html, subtype="html")
    return message


def _message_id(job: Claimed, domain: str) -> str:
    """One for each job, so that whoever receives a mail twice can tell."""
    task: dict[str, Any] = {"kind": job.kind, "payload": job.payload}
    digest = hashlib.sha256(orjson.dumps(task, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return f"<job-{job.id}.{digest[:20]}@{domain}>"
