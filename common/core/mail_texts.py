"""The texts of mails, in the languages that an account can have."""

# ruff: noqa: RUF001 - Chinese punctuation is what it should be here

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import NamedTuple

_LINK = re.compile(r"https?://\S+")


class MailText(NamedTuple):
    """A mail's subject, one line, and its plain text."""

    subject: str
    body: str

    @property
    def as_html(self) -> str:
        """The same text as a plain page: paragraphs and links, everything else escaped."""
        paragraphs = [_LINK.sub(_anchor, html.escape(part)) for part in self.body.strip().split("\n\n")]
        shown = "".join(f"<p>{paragraph.replace(chr(10), '<br>')}</p>\n" for paragraph in paragraphs)
        return f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"></head><body>\n{shown}</body></html>\n'


def _anchor(link: re.Match[str]) -> str:
    return f'<a href="{link[0]}">{link[0]}</a>'


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
_RESET_CODE = {
    "English": MailText(
        "Your code for a new password",
        "Hello,\n\n"
        "somebody, probably you, asked for a new password for {address}.\n\n"
        "The code is: {code}\n\n"
        "It is valid for {minutes} minutes. Nobody of us will ever ask you for it.\n\n"
        "If you did not ask, ignore this mail: your password stays as it is.\n",
    ),
    "Chinese": MailText(
        "重置密码的验证码",
        "您好：\n\n"
        "有人（可能是您本人）请求为 {address} 重置密码。\n\n"
        "验证码：{code}\n\n"
        "验证码 {minutes} 分钟内有效。我们绝不会向您索要验证码。\n\n"
        "如果这不是您本人的操作，请忽略此邮件：您的密码不会改变。\n",
    ),
}
_RESET_LINK = {
    "English": MailText(
        "A new password for {address}",
        "Hello,\n\n"
        "an administrator lets you set a new password for {address}.\n"
        "{link}"
        "The key for it, which counts once and until {expires} UTC, is: {token}\n\n"
        "If you did not ask for it, ignore this mail: your password stays as it is.\n",
    ),
    "Chinese": MailText(
        "为 {address} 设置新密码",
        "您好：\n\n"
        "管理员允许您为 {address} 设置新密码。\n"
        "{link}"
        "一次性密钥（{expires} UTC 前有效）：{token}\n\n"
        "如果您没有提出申请，请忽略此邮件：您的密码不会改变。\n",
    ),
}
_REGISTRATION = {
    True: {
        "English": MailText(
            "Your account {address} is ready",
            "Hello,\n\n"
            "an administrator has approved the registration of {address}: log in with the password that you chose.\n"
            "{link}"
            "If you did not register, set another password (forgotten password) or tell the administrator.\n",
        ),
        "Chinese": MailText(
            "您的账号 {address} 已开通",
            "您好：\n\n"
            "管理员已批准 {address} 的注册：请使用您设置的密码登录。\n"
            "{link}"
            "如果您没有注册，请通过“忘记密码”重置密码，或联系管理员。\n",
        ),
    },
    False: {
        "English": MailText(
            "Your registration of {address}",
            "Hello,\n\nan administrator has not approved the registration of {address}; there is no account.\n",
        ),
        "Chinese": MailText(
            "您的注册申请 {address}",
            "您好：\n\n管理员未批准 {address} 的注册申请，账号未创建。\n",
        ),
    },
}
_TOKEN_EXPIRY = {
    "English": MailText(
        "Your API token {token} expires on {expires}",
        "Hello,\n\n"
        "the API token {token} of {address} expires on {expires} UTC; after that, programs that use it are refused.\n\n"
        "Make a new one in your profile under API, give it to the programs, and delete the old one.\n"
        "{link}",
    ),
    "Chinese": MailText(
        "您的 API 令牌 {token} 将于 {expires} 到期",
        "您好：\n\n"
        "{address} 的 API 令牌 {token} 将于 {expires}（UTC）到期；到期后，使用它的程序将被拒绝访问。\n\n"
        "请在个人设置的“API”页面创建新的令牌，替换程序中的旧令牌，然后将旧令牌删除。\n"
        "{link}",
    ),
}


def invitation(
    language: str | None, *, tenant: str, inviter: str, address: str, expires: str, link: str = ""
) -> MailText:
    """The mail that invites ``address`` to a tenant. ``link`` is where to go, if that is known."""
    names = {"tenant": tenant, "inviter": inviter, "address": address, "expires": expires}
    return _filled(_INVITATION, language, names, link)


def reset_code(language: str | None, *, address: str, code: str, minutes: int) -> MailText:
    """The mail with the code that proves who asks for a new password."""
    return _filled(_RESET_CODE, language, {"address": address, "code": code, "minutes": str(minutes)})


def reset_link(language: str | None, *, address: str, token: str, expires: str, link: str = "") -> MailText:
    """The mail with the token to set a new password by. ``link`` is the page that takes it, if there is one."""
    return _filled(_RESET_LINK, language, {"address": address, "token": token, "expires": expires}, link)


def registration(language: str | None, *, address: str, approved: bool, link: str = "") -> MailText:
    """The mail that tells what an administrator has decided on a registration."""
    return _filled(_REGISTRATION[approved], language, {"address": address}, link)


def token_expiry(language: str | None, *, token: str, address: str, expires: str, link: str = "") -> MailText:
    """The mail that an API token will expire. ``token`` is its name or display form."""
    return _filled(_TOKEN_EXPIRY, language, {"token": token, "address": address, "expires": expires}, link)


def _filled(texts: Mapping[str, MailText], language: str | None, values: Mapping[str, str], link: str = "") -> MailText:
    """The text in a language, else in English. Names come from people: each is brought onto one printable line."""
    text = texts.get(language or "", texts["English"])
    lines = {name: _one_line(value) for name, value in values.items()}
    lines["link"] = f"{link}\n\n" if link else "\n"
    return MailText(text.subject.format(**lines), text.body.format(**lines))


def _one_line(value: str) -> str:
    return "".join(character for character in " ".join(value.split()) if character.isprintable())
