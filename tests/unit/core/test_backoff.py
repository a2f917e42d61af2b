from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.backoff import LONGEST_WAIT_S, wait_s


def test_waits_double_from_5_seconds_up_to_15_minutes() -> None:
    assert [wait_s(attempt) for attempt in range(1, 11)] == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_jitter_takes_away_up_to_half() -> None:
    assert wait_s(1, 1.0) == 2.5
    assert wait_s(1, 0.5) == 3.75


@given(attempt=st.integers(1, 10**9), jitter=st.floats(0, 1))
def test_a_wait_is_never_longer_than_the_longest_nor_nothing(attempt: int, jitter: float) -> None:
    assert 2.5 <= wait_s(attempt, jitter) <= LONGEST_WAIT_S


@pytest.mark.parametrize(("attempt", "jitter"), [(0, 0.0), (-1, 0.0), (1, -0.1), (1, 1.1), (1, float("nan"))])
def test_it_refuses_what_makes_no_sense(attempt: int, jitter: float) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the two messages are for programmers
        wait_s(attempt, jitter)
