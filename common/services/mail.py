"""Mails that jobs send."""

from __future__ import annotations

from email.message import EmailMessage
from email.utils import formataddr, formatdate, make_msgid
from typing import Any

from common.conf.sections import SmtpSection
from common.core import mail_texts
from common.core.mail_texts import MailText
from common.models.base import rfc3339
from common.services.jobs import GiveUp, Task
from common.services.plane import Plane
from common.stores import smtp

INVITATION = "mail.invitation"


def is_configured(plane: Plane) -> bool:
    """Whether there is a mail server to send by."""
    return plane.settings.smtp is not None and bool(plane.settings.smtp.mail_server)


def send_invitation(task: Task) -> None:
    """The job ``mail.invitation`` ``{invitation_id}``: mail the invited address, in the inviter's language.

    Nothing is sent for an invitation that is accepted, refused, withdrawn or expired meanwhile; progress says so.
    Raises GiveUp without a mail server and for what the server refuses for good, MailUnsent for what may go better
    later.
    """
    plane = task.plane
    row = plane.database.one(
        "SELECT i.email, i.expires_at, COALESCE(t.name, i.tenant_id), u.nickname, u.email, u.language "
        "FROM rk_invitation i LEFT JOIN tenant t ON t.id = i.tenant_id LEFT JOIN user u ON u.id = i.invited_by "
        "WHERE i.id = ?",
        (task.job.payload["invitation_id"],),
    )
    if row is None or row[1] <= plane.now_ms():
        task.save({"sent": False, "reason": "The invitation is no longer open."})
        return
    server = plane.settings.smtp
    if server is None or not server.mail_server:
        raise GiveUp("No mail server is configured: set smtp.mail_server and retry.")
    message = _message(server, row[0], _invitation_text(server, row))
    try:
        smtp.send(server, message)
    except smtp.MailRefused as refused:
        raise GiveUp(str(refused)) from refused
    task.save({"sent": True, "message_id": message["Message-ID"]})


def _invitation_text(server: SmtpSection, row: tuple[Any, ...]) -> MailText:
    address, expires_at, tenant, nickname, inviter_email, language = row
    inviter = f"{nickname} ({inviter_email})" if nickname else inviter_email or "Somebody"
    return mail_texts.invitation(
        language,
        tenant=tenant,
        inviter=inviter,
        address=address,
        expires=(rfc3339(expires_at) or "")[:16].replace("T", " "),
        link=server.mail_frontend_url,
    )


def _message(server: SmtpSection, address: str, text: MailText) -> EmailMessage:
    """A plain-text message from the configured sender, or else the account that logs in."""
    name, sender = server.mail_default_sender
    sender = sender or server.mail_username
    message = EmailMessage()
    message["From"] = formataddr((name, sender)) if name else sender
    message["To"] = address
    message["Subject"] = text.subject
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2] or "localhost")
    # So that holiday notices and the like are not sent back (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text.body)
    return message
