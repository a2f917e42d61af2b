"""When something that is made now ends."""

from __future__ import annotations

import pytest

from common.core.errors import BadField
from common.core.expiry import LATEST_MS, parse_expiry

NOW = 1_790_000_000_000


def test_naming_no_end_means_none() -> None:
    assert parse_expiry(None, None, NOW) is None


@pytest.mark.parametrize(
    ("expires_at", "expires_in", "expected"),
    [
        (None, 1, NOW + 1000),
        (NOW + 1, None, NOW + 1),
        (LATEST_MS, None, LATEST_MS),
        ("2030-01-31T12:00:00Z", None, 1_896_091_200_000),
        ("2030-01-31T14:00:00.250+02:00", None, 1_896_091_200_250),
        ("9999-12-31T23:59:59-14:00", None, None),
    ],
)
def test_a_moment_is_utc_milliseconds_whatever_its_form(
    expires_at: str | int | None, expires_in: int | None, expected: int | None
) -> None:
    if expected is None:
        with pytest.raises(BadField, match="year 10000"):
            parse_expiry(expires_at, expires_in, NOW)
    else:
        assert parse_expiry(expires_at, expires_in, NOW) == expected


@pytest.mark.parametrize("expires_at", [NOW, 0, -1, LATEST_MS + 1, 2**70, "", "x", "2030-01-31", "2030-01-31T12:00:00"])
def test_what_is_past_too_far_off_or_no_moment_is_refused_by_name(expires_at: str | int) -> None:
    with pytest.raises(BadField) as refused:
        parse_expiry(expires_at, None, NOW)

    assert refused.value.field == "expires_at"


def test_two_ends_at_once_are_refused() -> None:
    with pytest.raises(BadField, match="not both"):
        parse_expiry(NOW + 5, 5, NOW)
