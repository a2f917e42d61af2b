from __future__ import annotations

import pytest

from common.core.errors import BadEmail
from common.core.whitelist import keys_admitting, parse_pattern, pattern_key


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        (" Alice@Example.org ", "Alice@Example.org"),
        ("@example.org", "@example.org"),
        ("*@example.org", "@example.org"),
        ("@sub.example.org", "@sub.example.org"),
    ],
)
def test_an_address_or_a_domain_can_be_listed(given: str, listed: str) -> None:
    assert parse_pattern(given) == listed


@pytest.mark.parametrize(
    "given", ["", "@", "*", "@org", "example.org", "*@*.org", "@a@b.org", "x*@", None, 7, ["@a.org"]]
)
def test_nothing_else_can(given: object) -> None:
    with pytest.raises(BadEmail) as caught:
        parse_pattern(given, field="email")

    assert caught.value.field == "email"


@pytest.mark.parametrize("pattern", ["ALICE@example.org", "@Example.ORG", "@\uff45xample.org"])
def test_case_and_width_do_not_matter(pattern: str) -> None:
    assert pattern_key(pattern) in keys_admitting("alice@EXAMPLE.org")


@pytest.mark.parametrize("pattern", ["@sub.example.org", "@ample.org", "@example.org.test", "bob@example.org"])
def test_another_domain_or_a_subdomain_lets_nobody_in(pattern: str) -> None:
    assert pattern_key(pattern) not in keys_admitting("alice@example.org")
