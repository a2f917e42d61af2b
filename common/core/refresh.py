"""Refresh tokens: their forms, and what becomes of one that is presented (RFC 9700, 4.14.2).

All tokens of a session begin with its family key, so that one whose row is gone is still known to have been this
session's. A refresh token counts once; whoever presents it again has a copy, and nobody knows which of the two is the
thief: the session ends.
"""

from __future__ import annotations

import re
import secrets
from enum import Enum

ACCESS_MS = 900_000
# Pages of one browser that share a token refresh at the same time, and an answer can get lost on its way.
GRACE_MS = 10_000
# More pages than that don't ask at once.
MOST_TWINS = 32

_ACCESS = re.compile(r"rka_[A-Za-z0-9_-]{43}")
_REFRESH = re.compile(r"rkr_([A-Za-z0-9_-]{22})\.[A-Za-z0-9_-]{43}")


class Verdict(Enum):
    """What becomes of a refresh token: it is used now, its user gets another one beside, or its session ends."""

    ROTATE = "rotate"
    TWIN = "twin"
    REUSE = "reuse"


def judge(*, used_at: int | None, heirs: int, used_heirs: int, now_ms: int) -> Verdict:
    """What becomes of a token that was used at ``used_at`` (or not yet) and given for ``heirs`` others.

    In the grace it is good again, as long as it is the direct parent of tokens of which none was used.
    """
    if used_at is None:
        return Verdict.ROTATE
    if now_ms <= used_at + GRACE_MS and not used_heirs and heirs < MOST_TWINS:
        return Verdict.TWIN
    return Verdict.REUSE


def new_family() -> str:
    """A fresh family key: 128 random bits."""
    return secrets.token_urlsafe(16)


def new_access() -> str:
    """A fresh access token: 256 random bits behind a prefix."""
    return f"rka_{secrets.token_urlsafe(32)}"


def new_refresh(family: str) -> str:
    """A fresh refresh token of a family: its key, then 256 random bits."""
    return f"rkr_{family}.{secrets.token_urlsafe(32)}"


def is_access_form(credential: str) -> bool:
    """Whether a credential has the form of an access token, and so can be nothing else."""
    return _ACCESS.fullmatch(credential) is not None


def family_of(token: str) -> str | None:
    """The family key in a refresh token; None for what is none."""
    found = _REFRESH.fullmatch(token)
    return found[1] if found else None
