"""The form of API tokens: made, shown, stored, and found in a header."""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib

TOKEN_PREFIX = "ragflow-"
STORED_PREFIX = "sha256:"
# A token with scopes stands in a table that a RAGFlow may read, and must open nothing there. No header holds a line
# end, so nobody can show a RAGFlow what stands in its table; and it sorts behind every digest, as lists expect.
SCOPED_STORED_PREFIX = "with-scope\n"
_BETA_LENGTH = 32

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# 62^43 > 2^256, and 62^6 > 2^32.
_RANDOM_LENGTH = 43
_CHECKSUM_LENGTH = 6
# Between the random part and the checksum; RAGFlow's own tokens are shorter than the whole.
_MARK, _SCOPED_MARK = "_rk", "_rs"
_CHECKED = re.compile(rf"(ragflow-[0-9A-Za-z]{{{_RANDOM_LENGTH}}}(_rk|_rs))([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})")

# RFC 6750's b64token within the 255 characters of RAGFlow's column. RAGFlow's own tokens have had several
# lengths, so the length says little.
_TOKEN = re.compile(r"ragflow-[A-Za-z0-9._~+/=-]{16,247}")
_CREDENTIAL = re.compile(r"[\x21-\x7e]+")
# An Authorization header beyond this holds nothing that was made here or by RAGFlow.
_MAX_HEADER_LENGTH = 4096
SHOWN_AT_EACH_END = 4
_SHORTEST_SHOWN_BODY = 16


def new_token(*, scoped: bool = False) -> str:
    """A fresh API token: ``ragflow-``, 256 random bits as 43 characters, a mark, and a checksum of all that.

    RAGFlow makes them without mark and checksum, and takes these too; but not those with scopes, see ``stored_form``.
    """
    body = "".join(secrets.choice(_BASE62) for _ in range(_RANDOM_LENGTH))
    beginning = f"{TOKEN_PREFIX}{body}{_SCOPED_MARK if scoped else _MARK}"
    return beginning + _checksum(beginning)


def is_misspelt(credential: str) -> bool:
    """Whether this has the form of ``new_token`` and not its checksum, so that nobody need be asked about it."""
    found = _CHECKED.fullmatch(credential)
    return found is not None and _checksum(found[1]) != found[3]


def has_scope(token: str) -> bool:
    """Whether this has the form of a token that was made with scopes."""
    found = _CHECKED.fullmatch(token)
    return found is not None and found[2] == _SCOPED_MARK


def _checksum(text: str) -> str:
    """CRC-32 in base 62, the most significant digit first: it tells slips and inventions, and guards no secret."""
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits


def new_beta() -> str:
    """A fresh value for embedded pages: 32 characters, 192 random bits, independent of the token."""
    return secrets.token_urlsafe(32)[:_BETA_LENGTH]


def display_form(token: str) -> str:
    """``ragflow-abcd…wxyz`` for a token, ``abcd…wxyz`` for a beta; neither end of one that is too short."""
    prefix = TOKEN_PREFIX if token.startswith(TOKEN_PREFIX) else ""
    body = token[len(prefix) :]
    if len(body) < _SHORTEST_SHOWN_BODY:
        return f"{prefix}…"
    return f"{prefix}{body[:SHOWN_AT_EACH_END]}…{body[-SHOWN_AT_EACH_END:]}"


def stored_form(token: str) -> str:
    """The digest in hexadecimal behind ``sha256:``, or for a token with scopes behind SCOPED_STORED_PREFIX.

    A digest without salt or stretching is enough for 112 random bits and more (OWASP ASVS 5, 6.5.2).
    """
    prefix = SCOPED_STORED_PREFIX if has_scope(token) else STORED_PREFIX
    return prefix + digest(token)


def digest(token: str) -> str:
    """The SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", errors="surrogatepass")).hexdigest()


def digest_of_stored(stored: str) -> str:
    """The ``digest`` of the token that stands in the database like this, be it in the clear or not."""
    for prefix in (STORED_PREFIX, SCOPED_STORED_PREFIX):
        if stored.startswith(prefix):
            return stored.removeprefix(prefix)
    return digest(stored)


def is_stored_form(text: str) -> bool:
    """Whether this is a digest that ``stored_form`` made, and not a value."""
    return text.startswith((STORED_PREFIX, SCOPED_STORED_PREFIX))


def is_stored_with_scope(stored: str) -> bool:
    """Whether this is the digest of a token that was made with scopes."""
    return stored.startswith(SCOPED_STORED_PREFIX)


def lookup_forms(token: str) -> tuple[str, ...]:
    """What a presented token may stand as in the database: hashed, or plain where RAGFlow reads it.

    What looks like a stored form is never looked up as it stands, or a stolen table would be a bunch of keys; nor is a
    token with scopes, which is never stored in the clear.
    """
    if is_stored_form(token) or has_scope(token):
        return (stored_form(token),)
    return (stored_form(token), token)


def looks_like_token(credential: str) -> bool:
    """Whether a credential has the form of an API token, and so can't be a session's."""
    return _TOKEN.fullmatch(credential) is not None


def extract_credential(header: str | None) -> str | None:
    """The credential in an Authorization header, bare or after ``Bearer`` in any case.

    None when there is none, for another scheme, for more than 4096 characters, and for anything but visible
    ASCII.
    """
    if header is None or len(header) > _MAX_HEADER_LENGTH:
        return None
    scheme, _, rest = header.strip(" \t").partition(" ")
    if scheme.lower() == "bearer":
        scheme, rest = rest.strip(" "), ""
    credential = "" if rest else scheme
    return credential if _CREDENTIAL.fullmatch(credential) else None
