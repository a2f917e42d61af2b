"""The rules for names that people choose: a role's, an account's nickname, a tenant's, a token's."""

from __future__ import annotations

import re
import unicodedata

from common.core.errors import BadField

# The columns of RAGFlow's tables.
NICKNAME_MAX_LENGTH = 100
TENANT_NAME_MAX_LENGTH = 100
TOKEN_NAME_MAX_LENGTH = 128
ROLE_DESCRIPTION_MAX_LENGTH = 4096

_ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
# Control characters, halves of surrogate pairs (which no store can encode), line and paragraph separators.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Format characters turn the direction of what stands beside them, or make two names look alike. Needed are the joiners
# (Persian, Indic scripts, emoji) and the signs that can be seen (Arabic, Syriac and Kaithi number marks).
_NEEDED_FORMATS = frozenset(
    "\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)


def parse_role_name(value: object, *, field: str = "role_name") -> str:
    """The name in the lower-case form in which it is stored and compared; raises BadField.

    ASCII is asked for before lower-casing: a few other letters, such as the Kelvin sign, become ASCII by it.
    """
    if isinstance(value, str) and value.isascii():
        name = value.lower()
        if _ROLE_NAME.fullmatch(name):
            return name
    raise BadField(
        "A role's name has 1 to 64 characters: letters, digits, '_', '.' and '-'; first a letter or digit.",
        field=field,
    )


def parse_nickname(value: object, *, field: str = "nickname") -> str:
    """The nickname without surrounding white space; raises BadField.

    It has 1 to 100 characters, at least one of which can be seen, no control characters, and none that turn the
    direction of writing or are otherwise invisible.
    """
    return _parse_label(value, "The nickname", NICKNAME_MAX_LENGTH, field)


def parse_tenant_name(value: object, *, field: str = "name") -> str:
    """The tenant's name by the rule of ``parse_nickname``; raises BadField."""
    return _parse_label(value, "The tenant's name", TENANT_NAME_MAX_LENGTH, field)


def parse_token_name(value: object, *, field: str = "name") -> str:
    """The token's name by the rule of ``parse_nickname``, up to 128 characters; raises BadField."""
    return _parse_label(value, "The token's name", TOKEN_NAME_MAX_LENGTH, field)


def _parse_label(value: object, what: str, max_length: int, field: str) -> str:
    if not isinstance(value, str):
        raise BadField(f"{what} must be a string.", field=field)
    label = value.strip()
    if len(label) > max_length:
        raise BadField(f"{what} may have at most {max_length} characters.", field=field)
    categories = {unicodedata.category(character) for character in label}
    if categories & _REFUSED_CATEGORIES:
        raise BadField(f"{what} must not contain control characters.", field=field)
    if any(unicodedata.category(each) == "Cf" and each not in _NEEDED_FORMATS for each in label):
        raise BadField(
            f"{what} must not contain invisible characters, such as those that turn the direction of writing.",
            field=field,
        )
    if all(category[0] in "CZ" for category in categories):
        raise BadField(f"{what} must not be blank.", field=field)
    return label
