"""The rules of a forgotten password: what the codes look like, how long they hold, how often one may try.

The times and counts are RAGFlow's.
"""

from __future__ import annotations

import secrets
import string

CAPTCHA_LENGTH = 6
CAPTCHA_S = 60.0
CODE_LENGTH = 6
CODE_S = 300.0
#: Seconds between two mails to one address.
COOL_DOWN_S = 60.0
#: Wrong codes for one address before it is locked.
TRIES = 5
LOCK_S = 1800.0

# Without what looks alike when it is bent: 0, O and Q, 1, I, J and L, 2 and Z, 5 and S, 8 and B, C and G, U and V.
_CAPTCHA_CHARACTERS = "ACDEFHKMNPRTWXY34679"


def new_captcha() -> str:
    """A text to be read from an image."""
    return "".join(secrets.choice(_CAPTCHA_CHARACTERS) for _ in range(CAPTCHA_LENGTH))


def new_code() -> str:
    """A code to be mailed: six capital letters, 28 random bits, which five tries in half an hour don't search."""
    return "".join(secrets.choice(string.ascii_uppercase) for _ in range(CODE_LENGTH))


def as_typed(text: str) -> str:
    """The form in which what somebody typed is compared: without surrounding space, in capitals."""
    return text.strip().upper()
