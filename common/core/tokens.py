"""The form of API tokens: made, shown, stored, and found in a header."""

from __future__ import annotations

import hashlib
import re
import secrets

TOKEN_PREFIX = "ragflow-"
STORED_PREFIX = "sha256:"
_BETA_LENGTH = 32

# RFC 6750's b64token within the 255 characters of RAGFlow's column. RAGFlow's own tokens have had several
# lengths, so the length says little.
_TOKEN = re.compile(r"ragflow-[A-Za-z0-9._~+/=-]{16,247}")
_CREDENTIAL = re.compile(r"[\x21-\x7e]+")
# An Authorization header beyond this holds nothing that was made here or by RAGFlow.
_MAX_HEADER_LENGTH = 4096
SHOWN_AT_EACH_END = 4
_SHORTEST_SHOWN_BODY = 16


def new_token() -> str:
    """A fresh API token: ``ragflow-`` and 256 random bits as 43 characters, as RAGFlow makes them."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


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
    """``sha256:`` and the digest in hexadecimal, 71 characters.

    A digest without salt or stretching is enough for 112 random bits and more (OWASP ASVS 5, 6.5.2).
    """
    return STORED_PREFIX + hashlib.sha256(token.encode("utf-8", errors="surrogatepass")).hexdigest()


def is_stored_form(text: str) -> bool:
    """Whether this is a digest that ``stored_form`` made, and not a value."""
    return text.startswith(STORED_PREFIX)


def lookup_forms(token: str) -> tuple[str, ...]:
    """What a presented token may stand as in the database: hashed, or plain where RAGFlow wrote it.

    What looks like a stored form is never looked up as it stands, or a stolen table would be a bunch of keys.
    """
    if is_stored_form(token):
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
