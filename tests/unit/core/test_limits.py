"""The arithmetic of limits."""

from __future__ import annotations

import pytest

from common.core.limits import Policy, headers, login_wait_s, network_of, source_of


def test_waits_begin_after_the_free_failures_and_double_up_to_a_quarter_of_an_hour() -> None:
    waits = [login_wait_s(failures, 5) for failures in range(1, 13)]

    assert waits == [0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900, 900]
    assert login_wait_s(10**9, 5) == 900


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", None),
        (None, None),
        ("unix:/run/x", None),
    ],
)
def test_the_network_of_an_address(address: str | None, network: str | None) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.77", "192.0.2.77/32"),
        ("::ffff:192.0.2.77", "192.0.2.77/32"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unix:/run/x", None),
    ],
)
def test_what_counts_as_one_address(address: str, source: str | None) -> None:
    assert source_of(address) == source


def test_what_headers_say_of_a_limit_that_is_reached() -> None:
    assert headers(Policy("registration", 60, 3600.0), 12.3) == {
        "RateLimit-Policy": '"registration";q=60;w=3600',
        "RateLimit": '"registration";r=0;t=13',
    }
