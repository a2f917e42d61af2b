"""When a session is over, and for how long a password counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.session_limits import PROOF_MS, SEEN_EVERY_MS, Lifetime, Limits, is_over, proof_is_old

LIMITS = Limits(idle_ms=1_800_000, absolute_ms=43_200_000)
HOUR = 3_600_000


@pytest.mark.parametrize(
    ("life", "now", "over"),
    [
        (Lifetime(0, 100 * HOUR, None, 0), 0, False),
        (Lifetime(0, 100 * HOUR, 5, 0), 10, True),
        (Lifetime(0, 100 * HOUR, None, 12 * HOUR - 1), 12 * HOUR - 1, False),
        (Lifetime(0, 100 * HOUR, None, 12 * HOUR - 1), 12 * HOUR, True),
        (Lifetime(0, HOUR, None, HOUR - 1), HOUR, True),
        (Lifetime(0, 100 * HOUR, None, 0), LIMITS.idle_ms + SEEN_EVERY_MS, False),
        (Lifetime(0, 100 * HOUR, None, 0), LIMITS.idle_ms + SEEN_EVERY_MS + 1, True),
    ],
    ids=["new", "ended", "before its end", "at its end", "by what was promised", "in use", "idle"],
)
def test_a_session_is_over_when_it_was_ended_or_is_too_old_or_idle(life: Lifetime, now: int, over: bool) -> None:
    assert is_over(life, LIMITS, now) is over


@given(used=st.integers(0, 10 * HOUR), behind=st.integers(0, SEEN_EVERY_MS), later=st.integers(0, 2 * HOUR))
def test_a_row_that_is_behind_never_ends_a_session_in_use_nor_keeps_an_idle_one(
    used: int, behind: int, later: int
) -> None:
    life = Lifetime(-SEEN_EVERY_MS, 100 * HOUR, None, used - behind)

    over = is_over(life, LIMITS, used + later)

    if later <= LIMITS.idle_ms:
        assert not over
    if later > LIMITS.idle_ms + SEEN_EVERY_MS:
        assert over


def test_of_two_limits_the_shorter_holds() -> None:
    assert Limits(1, 4).and_also(Limits(2, 3)) == Limits(1, 3)


def test_a_password_counts_for_ten_minutes() -> None:
    assert not proof_is_old(1000, 1000 + PROOF_MS - 1)
    assert proof_is_old(1000, 1000 + PROOF_MS)


def test_a_password_counts_no_longer_for_a_clock_that_was_put_back() -> None:
    assert not proof_is_old(1000 + 5 * 60_000, 1000), "clocks of several machines differ"
    assert proof_is_old(1000 + HOUR, 1000)
