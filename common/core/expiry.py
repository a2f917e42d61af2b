"""When something that is made now ends: what a client may say about it, and what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from common.core.errors import BadField

# The last millisecond of the year 9999, beyond which no RFC 3339 date reaches.
LATEST_MS = 253_402_300_799_999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_expiry(expires_at: str | int | None, expires_in: int | None, now_ms: int) -> int | None:
    """The moment in UTC milliseconds that the two fields name together, or None when they name none.

    ``expires_at`` is RFC 3339 text with an offset, or UTC milliseconds; ``expires_in`` is seconds from now. Raises
    BadField when both are given, and for a moment that is past, beyond the year 9999 or not a moment at all.
    """
    if expires_at is not None and expires_in is not None:
        raise BadField("expires_in: give either this or expires_at, not both.", field="expires_in")
    field = "expires_at" if expires_in is None else "expires_in"
    if expires_in is not None:
        at_ms = now_ms + expires_in * 1000
    elif isinstance(expires_at, str):
        at_ms = _from_text(expires_at)
    elif expires_at is not None:
        at_ms = expires_at
    else:
        return None
    if not now_ms < at_ms <= LATEST_MS:
        raise BadField(f"{field}: must lie in the future and before the year 10000.", field=field)
    return at_ms


def _from_text(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise BadField(
            "expires_at: must be a date and time with an offset, such as 2030-01-31T12:00:00Z, or UTC milliseconds.",
            field="expires_at",
        )
    return (at - _EPOCH) // timedelta(milliseconds=1)
