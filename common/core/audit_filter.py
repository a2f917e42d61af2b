"""Which events a page of the audit trail has: moments as they are written, and the range of names behind a prefix."""

from __future__ import annotations

from datetime import datetime

from common.core.emails import email_key
from common.core.errors import BadField

# Above every character that a prefix can continue with.
_LAST_CHARACTER = "\U0010ffff"


def moment_ms(text: str, *, field: str) -> int:
    """UTC milliseconds of an RFC 3339 date and time with its offset. Raises BadField."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadField("A moment looks like 2026-11-25T08:30:00Z, with an offset.", field=field)
    try:
        return max(0, round(moment.timestamp() * 1000))
    except (OverflowError, ValueError):
        raise BadField("This moment is out of range.", field=field) from None


def prefix_range(prefix: str) -> tuple[str, str]:
    """The least name that begins like this, in the form in which names are compared, and what all of them are below."""
    least = email_key(prefix)
    return least, least + _LAST_CHARACTER
