"""How long a failed job waits before it is tried again."""

from __future__ import annotations

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 15 * 60.0
# From here on the doubled wait is over the longest one; a greater power would only risk an overflow.
_LAST_DOUBLING = 8


def wait_s(attempt: int, jitter: float = 0.0) -> float:
    """Seconds to wait after the given failed attempt, the first being 1: 5 s, doubling, 15 min at most.

    ``jitter``, from 0 to 1, takes away up to half of the wait, so that jobs that failed together come back
    apart; the caller draws it. Raises ValueError for an attempt below 1 or a jitter out of range.
    """
    if attempt < 1:
        raise ValueError("attempts are counted from 1")
    if not 0.0 <= jitter <= 1.0:
        raise ValueError("jitter lies between 0 and 1")
    doubled = FIRST_WAIT_S * 2 ** min(attempt - 1, _LAST_DOUBLING)
    return float(min(doubled, LONGEST_WAIT_S) * (1.0 - jitter / 2.0))
