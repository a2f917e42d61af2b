"""The settings that can be changed while the plane runs: a closed, typed registry.

What is not registered can be neither set nor read. Values have one of four kinds, RAGFlow's data types; their text form
is the one that RAGFlow's ``variables`` routes speak.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from common.core import features
from common.core.errors import BadField
from common.core.permissions import SUPERUSER

Kind = Literal["string", "integer", "bool", "json"]
Value = str | int | bool | dict[str, Any] | list[Any]

#: The longest value, in characters of its text form.
MAX_LENGTH = 65_536


class Form(NamedTuple):
    """What a value must look like beyond its kind: in words, and as a test of a value of that kind."""

    words: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Variable:
    """A setting: what it takes, what holds without it, and what it is for (``help``: one sentence, with the unit).

    ``least`` and ``most`` bound an integer, or the length of a string. ``choices`` are the only strings taken, where
    there are any, and ``form`` is a further rule. The value of a ``secret`` one is never shown. ``restart`` says that
    processes read it only when they start. ``permission`` is ``resource:action``, needed beside ``setting:write``, or
    ``superuser`` where only superusers may set it. ``ragflow`` says that the name is RAGFlow's own: where a RAGFlow
    with a table of settings shares the database, its row there is the value.
    """

    name: str
    kind: Kind
    default: Value
    help: str
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    restart: bool = False
    permission: str = "setting:write"
    form: Form | None = None
    ragflow: bool = False


_ADDRESS = r"[^<>@,;\"\s]+@[^<>@,;\"\s]+"
_NAMED_ADDRESS = re.compile(rf"{_ADDRESS}|[^<>@,;\"]*<{_ADDRESS}>")


def _is_sender(text: str) -> bool:
    return not text or (text.isprintable() and _NAMED_ADDRESS.fullmatch(text) is not None)


def _is_web_address(text: str) -> bool:
    if not text:
        return True
    if not text.startswith(("http://", "https://")) or not text.isprintable() or " " in text or "\\" in text:
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        return False


def _is_callable(text: str) -> bool:
    """Not every address can be called that a page can have: beyond the host there is ASCII alone."""
    return _is_web_address(text) and (not text or "".join(urlsplit(text)[2:4]).isascii())


def _is_host(text: str) -> bool:
    return text.isprintable() and " " not in text and "/" not in text


_SENDER = Form("an e-mail address, alone or as Name <address>, or nothing", _is_sender)
# Addresses are shown to whoever may read settings and the trail, and nothing here sends a user name or password in one.
_WEB_ADDRESS = Form(
    "an http or https address with a host, and without a user name or password in it, or nothing", _is_web_address
)
_CALLED = Form(
    "an http or https address with a host, ASCII behind it, and without a user name or password in it, or nothing",
    _is_callable,
)
_HOST = Form("a host name or an address without a port, or nothing", _is_host)


def _is_file_name(text: str) -> bool:
    return not text or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None


# Whoever could name a path could have lines of their own appended to any file of the plane's.
_FILE_NAME = Form("a file name of letters, digits, dots, lines and underscores, or nothing", _is_file_name)


def _registry(variables: Iterable[Variable]) -> Mapping[str, Variable]:
    found = {variable.name: variable for variable in sorted(variables, key=lambda each: each.name)}
    return MappingProxyType(found)


_LIMITS = (
    Variable(
        "limit.login_failures",
        "integer",
        5,
        "Failed logins in a row of one account before it has to wait, 30 s at first and 15 min at last.",
        least=1,
        most=100,
    ),
    Variable(
        "limit.login_address",
        "integer",
        100,
        "Failed logins from one address in 15 minutes; successful ones don't count.",
        least=1,
        most=1_000_000,
    ),
    Variable(
        "limit.login_network",
        "integer",
        1000,
        "Failed logins from one /24 (IPv4) or /64 (IPv6) in 15 minutes.",
        least=1,
        most=1_000_000,
    ),
    Variable(
        "limit.registration",
        "integer",
        60,
        "Registrations from one address (of IPv6 one /64) in an hour; 0 for any number.",
        least=0,
        most=1_000_000,
    ),
    Variable(
        "limit.forgotten_password",
        "integer",
        60,
        "Codes for forgotten passwords that one address (of IPv6 one /64) may ask for in an hour; 0 for any number.",
        least=0,
        most=1_000_000,
    ),
    Variable(
        "limit.invitation",
        "integer",
        200,
        "Invitations by one account in an hour; 0 for any number.",
        least=0,
        most=1_000_000,
    ),
    Variable(
        "limit.token_creation",
        "integer",
        300,
        "API tokens that one account may make in an hour; 0 for any number.",
        least=0,
        most=1_000_000,
    ),
    Variable(
        "limit.token_calls",
        "integer",
        0,
        "Calls with one API token in a minute; 0 for any number.",
        least=0,
        most=1_000_000_000,
    ),
    Variable(
        "limit.tenant_calls",
        "integer",
        0,
        "Calls of the user API, and with tokens of the admin server too, in a minute within a tenant that has no limit "
        "of its own; 0 for any number.",
        least=0,
        most=1_000_000_000,
    ),
)
_MINUTE_S, _YEAR_S = 60, 365 * 24 * 3600

_SESSIONS = (
    Variable(
        "session.most",
        "integer",
        10,
        "Sessions that an account has at once; a further login ends the one that was used least recently.",
        least=1,
        most=1000,
    ),
    *(
        Variable(f"session.{name}_s", "integer", default, text, least=5 * _MINUTE_S, most=_YEAR_S)
        for name, default, text in (
            ("admin_idle", 1800, "Seconds after which a session that administers ends when it is not used."),
            ("admin_absolute", 12 * 3600, "Seconds after which a session that administers ends in any case."),
            ("user_idle", 24 * 3600, "Seconds after which a session of the user API ends when it is not used."),
            ("user_absolute", 30 * 24 * 3600, "Seconds after which a session of the user API ends in any case."),
        )
    ),
)
# Who is mailed by which server decides who gets the codes for forgotten passwords, so superusers alone say that.
_MAIL: dict[str, Any] = {"permission": SUPERUSER, "ragflow": True}

VARIABLES: Mapping[str, Variable] = _registry(
    (
        *_LIMITS,
        *_SESSIONS,
        Variable(
            "password.must_change_after_reset",
            "bool",
            False,
            "Whoever's password an administrator has set must change it at the next login.",
        ),
        Variable(
            "password.show_reset_link",
            "bool",
            False,
            "Who makes a link to reset a password sees it, and not only who is mailed it.",
            permission=SUPERUSER,
        ),
        Variable(
            "password.reset_page",
            "string",
            "",
            "The page that takes the token of a link to reset a password, which is put behind it as #token=…; empty: "
            "mails carry the token alone.",
            most=1024,
            permission=SUPERUSER,
            form=_WEB_ADDRESS,
        ),
        Variable(
            "registration.mode",
            "string",
            "open",
            "Who can register: anybody (open), listed addresses (whitelist), invited addresses (invitation), anybody "
            "once an administrator agrees (approval), nobody (closed).",
            choices=("open", "whitelist", "invitation", "approval", "closed"),
        ),
        Variable("enable_whitelist", "bool", False, "Only addresses on the white list can register.", ragflow=True),
        Variable(
            "default_role",
            "string",
            "",
            "The role that new accounts get; empty: none, so that they hold what member holds.",
            most=64,
            permission="role:assign",
            ragflow=True,
        ),
        Variable(
            "mail.server",
            "string",
            "",
            "The mail server, in place of the whole smtp section of the configuration file; empty: that section.",
            most=255,
            form=_HOST,
            **_MAIL,
        ),
        Variable(
            "mail.port",
            "integer",
            0,
            "The mail server's port; 0: 465 with mail.use_ssl, 587 with mail.use_tls, else 25.",
            least=0,
            most=65_535,
            **_MAIL,
        ),
        Variable("mail.username", "string", "", "What to log in with at the mail server.", most=255, **_MAIL),
        Variable("mail.password", "string", "", "The password for it.", most=1024, secret=True, **_MAIL),
        Variable(
            "mail.default_sender",
            "string",
            "",
            "Whom mails are from; empty: mail.username.",
            most=320,
            form=_SENDER,
            **_MAIL,
        ),
        Variable("mail.use_ssl", "bool", False, "Speak TLS with the mail server from the start.", **_MAIL),
        Variable("mail.use_tls", "bool", False, "Upgrade to TLS by STARTTLS; wins over mail.use_ssl.", **_MAIL),
        Variable(
            "mail.timeout",
            "integer",
            10,
            "Seconds for connecting to the mail server, and for each of its answers.",
            least=1,
            most=60,
            **_MAIL,
        ),
        Variable(
            "mail.frontend_url",
            "string",
            "",
            "Where the web client is, which mails link to; empty: as in the smtp section.",
            most=1024,
            permission=SUPERUSER,
            form=_WEB_ADDRESS,
        ),
        Variable(
            "probe.check_interval",
            "integer",
            0,
            "Seconds for which what a probe found is given to everybody who asks; 0: as in the configuration file.",
            least=0,
            most=60,
        ),
        Variable(
            "probe.timeout",
            "integer",
            0,
            "Seconds for a whole probe, all tries together; 0: as in the configuration file.",
            least=0,
            most=60,
        ),
        Variable(
            "probe.retry_count",
            "integer",
            -1,
            "Further tries of a probe after the first; -1: as in the configuration file.",
            least=-1,
            most=10,
        ),
        *(
            Variable(
                f"tenant_limit.{name}",
                "integer",
                0,
                f"{what} that a tenant may have which has no limit of its own; 0: any number.",
                least=0,
                most=1_000_000_000,
            )
            for name, what in (
                ("members", "Members, owners included,"),
                ("tokens", "API tokens"),
                ("datasets", "Datasets"),
            )
        ),
        Variable(
            "audit.webhook_url",
            "string",
            "",
            "Where sealed audit events are posted to, in batches; empty: nowhere.",
            most=1024,
            permission=SUPERUSER,
            form=_CALLED,
        ),
        Variable(
            "audit.webhook_secret",
            "string",
            "",
            "What the bodies of those posts are signed with.",
            most=1024,
            secret=True,
            permission=SUPERUSER,
        ),
        Variable(
            "audit.file",
            "string",
            "",
            "The file in the home's folder audit that sealed audit events are appended to; empty: none.",
            most=64,
            permission=SUPERUSER,
            form=_FILE_NAME,
        ),
        Variable(
            "audit.retention_days",
            "integer",
            0,
            "Days after which whole segments of the audit trail are dropped; 0: never.",
            least=0,
            most=36_500,
            permission=SUPERUSER,
        ),
    )
)


def found(name: object) -> Variable | None:
    """The variable of this name, feature flags (``feature.<name>``) included, or None."""
    if not isinstance(name, str):
        return None
    return VARIABLES.get(name) or _feature(name)


def _feature(name: str) -> Variable | None:
    if not features.is_setting_name(name):
        return None
    return Variable(
        name,
        "json",
        features.OFF,
        "A feature flag.",
        form=Form(features.RULE, features.is_feature),
    )


def known(name: object) -> Variable:
    """The variable of this name, feature flags included. Raises BadField (``var_name``)."""
    variable = found(name)
    if variable is None:
        raise BadField(f"There is no setting {reprlib.repr(name)}.", field="var_name")
    return variable


def parsed(variable: Variable, value: object, *, field: str = "var_value") -> Value:
    """The value in the variable's kind, from that kind or from its text form. Raises BadField, which says the rule."""
    read = _of_kind(variable, value)
    if read is None or not _within(variable, read):
        raise BadField(f"{variable.name} takes {rule(variable)}.", field=field)
    return read


def as_text(value: Value) -> str:
    """The text form of a value, which ``parsed`` reads again."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def rule(variable: Variable) -> str:
    """What the variable takes, in words."""
    if variable.form is not None:
        return variable.form.words
    if variable.choices:
        return f"one of {', '.join(variable.choices)}"
    if variable.kind == "bool":
        return "true or false"
    if variable.kind == "json":
        return f"a JSON {'list' if isinstance(variable.default, list) else 'object'}"
    what = "a whole number" if variable.kind == "integer" else "a text"
    unit = "" if variable.kind == "integer" else " characters"
    if variable.least is not None and variable.most is not None:
        return f"{what} of {variable.least} to {variable.most}{unit}"
    if variable.most is not None:
        return f"{what} of at most {variable.most}{unit}"
    return what if variable.least is None else f"{what} of at least {variable.least}{unit}"


def _of_kind(variable: Variable, value: object) -> Value | None:
    match variable.kind:
        case "string":
            return value if isinstance(value, str) else None
        case "bool":
            return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else _bool(value)
        case "integer":
            return _integer(value)
        case "json":
            return _json(variable, value)


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _integer(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.removeprefix("-").isdecimal() and value.isascii() and len(value) <= 20:
        return int(value)
    return None


def _json(variable: Variable, value: object) -> Value | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list if isinstance(variable.default, list) else dict) else None


def _within(variable: Variable, value: Value) -> bool:
    if variable.choices and value not in variable.choices:
        return False
    if variable.form is not None and not variable.form.fits(value):
        return False
    if variable.kind in ("string", "json") and len(as_text(value)) > MAX_LENGTH:
        return False
    if isinstance(value, bool) or not isinstance(value, int | str):
        return True
    size = len(value) if isinstance(value, str) else value
    return (variable.least is None or size >= variable.least) and (variable.most is None or size <= variable.most)
