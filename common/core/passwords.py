"""The password policy, and the forms that a password has on the wire and before it is hashed.

RAGFlow's clients send base64(RSA(base64(password))); other clients may send the plain text. The two can't be
confused: a plain text has at most 128 code points, the encrypted form 344 characters. Decrypting needs a key
and is no part of this.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from enum import StrEnum

from common.core.errors import BadField

# OWASP ASVS 5 asks for 8 at least (6.2.1), and that 64 be permitted (6.2.9), as does NIST SP 800-63B-4.
# The upper limit also keeps plain texts apart from the encrypted form.
MIN_LENGTH = 12
MAX_LENGTH = 128

# 256 bytes, one block of RSA with 2048 bits, in base64.
_ENCRYPTED = re.compile(r"[A-Za-z0-9+/]{342}==")
_WHITE_SPACE = re.compile(r"\s+")
# Longer texts are not searched for white space: RAGFlow's own fixtures break lines at 64 to 76 characters.
_MAX_WIRE_LENGTH = 1024


class PasswordPolicy(StrEnum):
    """``standard`` asks for a length; ``off`` takes any password that isn't empty."""

    STANDARD = "standard"
    OFF = "off"


def check_password(plain: str, policy: PasswordPolicy, *, field: str) -> None:
    """Raise BadField unless this may become somebody's password.

    Lengths are in code points, and hold for the text as typed and for its compatibility form (NFKC): one
    ligature can stand for many characters, and two code points for one. Control characters are refused under
    every policy (RFC 8265, OpaqueString): they come by accident, as line ends do, and can't be typed later.
    """
    if not plain:
        raise BadField("The password must not be empty.", field=field)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in plain):
        raise BadField("The password must not contain control characters or broken Unicode.", field=field)
    lengths = (len(plain), len(unicodedata.normalize("NFKC", plain)))
    if max(lengths) > MAX_LENGTH:
        raise BadField(f"The password may have at most {MAX_LENGTH} characters.", field=field)
    if policy is PasswordPolicy.STANDARD and min(lengths) < MIN_LENGTH:
        raise BadField(
            f"The password must have at least {MIN_LENGTH} characters; several words in a row do well.",
            field=field,
        )


def is_plain_form(value: str) -> bool:
    """Whether a password field holds a plain text: anything that isn't longer than a password may be."""
    return len(value) <= MAX_LENGTH


def ciphertext_of(value: str) -> bytes | None:
    """The 256 bytes to be decrypted; None when the field doesn't hold the encrypted form."""
    if len(value) > _MAX_WIRE_LENGTH:
        return None
    packed = _WHITE_SPACE.sub("", value)
    return base64.b64decode(packed) if _ENCRYPTED.fullmatch(packed) else None


def encode_for_hash(plain: str) -> bytes:
    """base64 of the UTF-8 text: what RAGFlow encrypts and hashes.

    It never raises: a lone surrogate, which the policy lets nobody choose, becomes bytes that match no hash.
    """
    return base64.b64encode(plain.encode("utf-8", errors="surrogatepass"))


def decode_from_hash_form(encoded: bytes) -> str | None:
    """The plain text of what ``encode_for_hash`` gave; None for bytes that it can't have given."""
    try:
        plain = base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    # Bits that base64 leaves over would give a second spelling, whose hash no other client could meet.
    return plain if encode_for_hash(plain) == encoded else None
