from __future__ import annotations

import pytest

from common.core.errors import BadField
from common.core.names import parse_nickname, parse_role_name, parse_tenant_name


@pytest.mark.parametrize(
    ("written", "name"),
    [("viewer", "viewer"), ("Team-Lead", "team-lead"), ("0.a_b-c", "0.a_b-c"), ("x" * 64, "x" * 64)],
)
def test_a_role_name_is_kept_in_lower_case(written: str, name: str) -> None:
    assert parse_role_name(written) == name


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x" * 65,
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "a\n",
        "a\0",
        "rôle",
        "\u212a",
        "\ud800",
        None,
        3,
        True,
        ["a"],
    ],
)
def test_it_refuses_a_role_name_outside_the_rule(value: object) -> None:
    with pytest.raises(BadField) as caught:
        parse_role_name(value)
    assert caught.value.field == "role_name"


@pytest.mark.parametrize("nickname", ["Ada", "Ada L. O'Neil-King", "李雷", "x" * 100, "👩‍🔬"])
def test_it_takes_a_nickname_as_written(nickname: str) -> None:
    assert parse_nickname(nickname) == nickname


def test_a_nickname_loses_surrounding_white_space() -> None:
    assert parse_nickname("  Ada ") == "Ada"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "   ",
        "\u200b",
        "\u3000\u200d",
        "x" * 101,
        "a\0b",
        "a\nb",
        "a\x7fb",
        "a\u2028b",
        "a\ud800",
        "ada\u202emoc.elpmaxe",
        "a\u2066b",
        "a\u200fb",
        "a\u200bb",
        "a\ufeffb",
        "a\U000e0041b",
        None,
        5,
    ],
)
def test_it_refuses_a_nickname_that_is_blank_long_or_holds_control_characters(value: object) -> None:
    with pytest.raises(BadField) as caught:
        parse_nickname(value)
    assert caught.value.field == "nickname"


@pytest.mark.parametrize(
    "name", ["\U0001f469\u200d\U0001f52c", "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc", "\u0639\u0627\u0645 \u06dd"]
)
def test_it_takes_joiners_and_format_characters_that_can_be_seen(name: str) -> None:
    assert parse_tenant_name(name) == name
