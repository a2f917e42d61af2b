"""The rules for names that people choose: a role's, and an account's nickname."""

from __future__ import annotations

import re
import unicodedata

from common.core.errors import BadField

# The column of RAGFlow's table.
NICKNAME_MAX_LENGTH = 100

_ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
# Control characters, halves of surrogate pairs (which no store can encode), line and paragraph separators.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


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

    It has 1 to 100 characters, at least one of which can be seen, and no control characters.
    """
    if not isinstance(value, str):
        raise BadField("The nickname must be a string.", field=field)
    nickname = value.strip()
    if len(nickname) > NICKNAME_MAX_LENGTH:
        raise BadField(f"The nickname may have at most {NICKNAME_MAX_LENGTH} characters.", field=field)
    categories = {unicodedata.category(character) for character in nickname}
    if categories & _REFUSED_CATEGORIES:
        raise BadField("The nickname must not contain control characters.", field=field)
    if all(category[0] in "CZ" for category in categories):
        raise BadField("The nickname must not be blank.", field=field)
    return nickname
