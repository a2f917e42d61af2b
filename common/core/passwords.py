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
from collections.abc import Collection, Iterable
from enum import StrEnum
from itertools import pairwise

from common.core.errors import BadField

# NIST SP 800-63B-4 (3.1.1.2) asks for 15 where a password alone lets somebody in, and for 8 beside a second factor;
# OWASP ASVS 5 for 8, better 15 (6.2.1). Both ask that 64 be permitted (6.2.9), and for no composition rule (6.2.5).
MIN_LENGTH = 12
#: For whoever holds an administrative permission.
ADMIN_MIN_LENGTH = 15
# The upper limit also keeps plain texts apart from the encrypted form.
MAX_LENGTH = 128
#: Words that say where a password is for, beside those that are known of its owner (ASVS 5, 6.1.2).
PRODUCT_WORDS = ("ragkeeper", "ragflow")

# Shorter words, such as the "com" of an address, are parts of too many good passwords.
_SHORTEST_WORD = 4
# Stands for a word that can be guessed; no password has one (see ``check_password``).
_KNOWN = "\0"

# 256 bytes, one block of RSA with 2048 bits, in base64.
_ENCRYPTED = re.compile(r"[A-Za-z0-9+/]{342}==")
_WHITE_SPACE = re.compile(r"\s+")
# Longer texts are not searched for white space: RAGFlow's own fixtures break lines at 64 to 76 characters.
_MAX_WIRE_LENGTH = 1024


class PasswordPolicy(StrEnum):
    """``standard`` asks for a length and for what nobody guesses; ``off`` takes any password that isn't empty."""

    STANDARD = "standard"
    OFF = "off"


def check_password(
    plain: str, policy: PasswordPolicy, *, field: str, least: int = MIN_LENGTH, words: Collection[str] = ()
) -> None:
    """Raise BadField unless this may become the password of somebody of whom these ``words`` are known.

    Lengths are in code points, and hold for the text as typed and for its compatibility form (NFKC): one
    ligature can stand for many characters, and two code points for one. Control characters are refused under
    every policy (RFC 8265, OpaqueString): they come by accident, as line ends do, and can't be typed later.
    """
    if not plain:
        raise BadField("The password must not be empty.", field=field)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in plain):
        raise BadField("The password must not contain control characters or broken Unicode.", field=field)
    lengths = (len(plain), len(composed(plain)))
    if max(lengths) > MAX_LENGTH:
        raise BadField(f"The password may have at most {MAX_LENGTH} characters.", field=field)
    if policy is PasswordPolicy.OFF:
        return
    if min(lengths) < least:
        raise BadField(
            f"The password must have at least {least} characters; several words in a row do well.",
            field=field,
        )
    if guesses_left(plain, words) < least:
        raise BadField(
            "The password is too easy to guess: names of yours or of this service, and what is repeated, count as "
            f"one character, and with that it has less than {least}.",
            field=field,
        )


def common_password(field: str) -> BadField:
    """The error for a password that stands in a list of those in use."""
    return BadField(
        "This password is one that many people use, and that is tried first; choose several words that do not "
        "belong together.",
        field=field,
    )


def composed(plain: str) -> str:
    """The compatibility form (NFKC), in which a password is hashed: however a keyboard composes it, it is the same."""
    return plain if plain.isascii() else unicodedata.normalize("NFKC", plain)


def is_shorter(plain: str, least: int) -> bool:
    """Whether a password that is in use has fewer characters than this.

    They are counted in the form that is hashed, for it may have been typed in another one when it was chosen.
    """
    return len(composed(plain)) < least


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """The words in names and addresses that are no secret: each text as a whole, and each of its words."""
    found: set[str] = set()
    for text in texts:
        folded = composed(text).casefold()
        found.update((folded, *re.split(r"[\W_]+", folded)))
    return frozenset(word for word in found if len(word) >= _SHORTEST_WORD)


def guesses_left(plain: str, words: Collection[str] = ()) -> int:
    """The code points of a password when each known word counts as one, and so does what is repeated.

    Repeated is a part that the whole consists of, or a step from each character to the next (``abcdef``, ``97531``).
    """
    text = composed(plain).casefold()
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, _KNOWN)
    text = _repeated_part(re.sub(f"{_KNOWN}+", _KNOWN, text))
    return min(len(text), 2) if _is_run(text) else len(text)


def _repeated_part(text: str) -> str:
    """The shortest part that the text consists of, the last time perhaps cut off; the text itself if there is none."""
    # The first place where the text, moved there, lies on itself (the border of Knuth, Morris and Pratt's search).
    for length in range(1, len(text) // 2 + 1):
        if text.startswith(text[length:]):
            return text[:length]
    return text


def _is_run(text: str) -> bool:
    """Whether every character follows the one before in the same distance; digits go round."""
    modulus = 10 if text.isdecimal() else 0x110000
    steps = {(ord(after) - ord(before)) % modulus for before, after in pairwise(text)}
    return len(steps) == 1


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
