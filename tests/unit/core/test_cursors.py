from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.cursors import decode_cursor, encode_cursor
from common.core.errors import BadField

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=255)
INTS = st.integers(-(2**63) + 1, 2**63 - 1)


def packed(json_text: str) -> str:
    return base64.urlsafe_b64encode(json_text.encode()).rstrip(b"=").decode()


@given(number=INTS, text=TEXTS)
def test_it_gives_back_what_it_stands_for(number: int, text: str) -> None:
    cursor = encode_cursor([number, text])
    assert decode_cursor(cursor, (int, str)) == (number, text)
    assert cursor.isascii()
    assert not set(cursor) & set("+/= ")


@pytest.mark.parametrize(
    "cursor",
    [
        None,
        7,
        ["a"],
        "",
        "!",
        "a",
        "....",
        "\ud800",
        "caf\u00e9",
        "\0",
        "x" * 5_000,
        packed("[" * 1_500),
        packed("9" * 1_500),
        packed('[1,"a"]') + "!!!!",
        packed("null"),
        packed('{"0":1}'),
        packed("[]"),
        packed("[1]"),
        packed('["1","a"]'),
        packed("[1,2]"),
        packed('[true,"a"]'),
        packed('[1.0,"a"]'),
        packed('[NaN,"a"]'),
        packed('[1,"a",2]'),
        packed('[1,["a"]]'),
        packed('[1,"\\u0000"]'),
        packed('[1,"\\ud800"]'),
        packed(f'[{2**63},"a"]'),
        packed(f'[{-(2**63) - 1},"a"]'),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_it_refuses_an_absurd_cursor(cursor: object) -> None:
    with pytest.raises(BadField) as caught:
        decode_cursor(cursor, (int, str))
    assert caught.value.field == "cursor"


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_no_text_breaks_it(cursor: str) -> None:
    try:
        (value,) = decode_cursor(cursor, (str,))
    except BadField:
        return
    assert type(value) is str
