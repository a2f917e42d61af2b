"""What can stand on the white list of those who may register: addresses, and domains as ``@example.org``."""

from __future__ import annotations

from common.core.emails import email_key, parse_email

#: The list is shown as a whole, so it has an end; a domain lets any number of addresses in.
MAX_ENTRIES = 10_000


def parse_pattern(value: object, *, field: str = "email") -> str:
    """An address, or ``@`` and a domain for every address there; ``*@example.org`` is taken for ``@example.org``.

    Subdomains are domains of their own. Raises BadEmail.
    """
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.startswith(("@", "*@")):
        domain = text.removeprefix("*")
        return parse_email(f"x{domain}", field=field).removeprefix("x")
    return parse_email(text, field=field)


def pattern_key(pattern: str) -> str:
    """The form in which patterns are compared, without case."""
    return email_key(pattern)


def keys_admitting(email: str) -> tuple[str, str]:
    """The keys of the two patterns that let an address in: its own, and its domain's."""
    return email_key(email), email_key(f"@{email.rpartition('@')[2]}")
