"""The token that a page proves with that a request is its own and not another site's (OWASP, CSRF prevention)."""

from __future__ import annotations

import base64
import hmac


def csrf_token(session: str) -> str:
    """The token that belongs to a session, given its wire form: 43 characters.

    Keyed with the session's 256 random bits, which no page can read: so nothing needs to be stored, and a token of one
    session is none of another.
    """
    return base64.urlsafe_b64encode(hmac.digest(session.encode(), b"ragkeeper csrf", "sha256")).rstrip(b"=").decode()


def is_csrf_token(given: str, session: str) -> bool:
    """Whether this is the token of the session."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), csrf_token(session).encode())
