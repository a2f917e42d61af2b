"""The texts of mails, in the languages that an account can have."""

# ruff: noqa: RUF001 - Chinese punctuation is what it should be here

from __future__ import annotations

from typing import NamedTuple


class MailText(NamedTuple):
    """A mail's subject, one line, and its plain text."""

    subject: str
    body: str


_INVITATION = {
    "English": MailText(
        "You are invited to join {tenant}",
        "Hello,\n\n"
        "{inviter} invites {address} to join the team {tenant}.\n\n"
        "Sign in with this address, or register with it, and accept the invitation in your profile under Team.\n"
        "{link}"
        "The invitation is valid until {expires} UTC.\n\n"
        "If you do not know the sender, ignore this mail: nothing happens unless you accept.\n",
    ),
    "Chinese": MailText(
        "邀请您加入 {tenant}",
        "您好：\n\n"
        "{inviter} 邀请 {address} 加入团队 {tenant}。\n\n"
        "请使用此邮箱登录或注册，然后在个人设置的“团队”页面接受邀请。\n"
        "{link}"
        "邀请有效期至 {expires}（UTC）。\n\n"
        "如果您不认识发件人，请忽略此邮件：未经您接受，不会有任何变更。\n",
    ),
}


def invitation(
    language: str | None, *, tenant: str, inviter: str, address: str, expires: str, link: str = ""
) -> MailText:
    """The mail that invites ``address`` to a tenant, in the inviter's language (else in English).

    ``link`` is where to sign in, if that is known. Names come from people: each is brought onto one line.
    """
    text = _INVITATION.get(language or "", _INVITATION["English"])
    values = {"tenant": tenant, "inviter": inviter, "address": address, "expires": expires}
    values = {name: " ".join(value.split()) for name, value in values.items()}
    values["link"] = f"{link}\n\n" if link else "\n"
    return MailText(text.subject.format(**values), text.body.format(**values))
