from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.emails import email_key, parse_email
from common.core.errors import BadField


@pytest.mark.parametrize(
    "email",
    [
        "admin@ragflow.io",
        "Ada.Lovelace+lists@Mail.Example.org",
        "o'neil_x-1@a-b.co",
        "użytkownik@przykład.pl",
        "用户@例子.公司",
        "a@under_score.example.com",
        "a" * 64 + "@example.org",
    ],
)
def test_it_takes_an_address_as_written(email: str) -> None:
    assert parse_email(email) == email


def test_surrounding_white_space_does_not_count() -> None:
    assert parse_email(" ada@example.org\n") == "ada@example.org"


def test_an_address_is_composed() -> None:
    assert parse_email("rene\u0301@example.org") == "ren\u00e9@example.org"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ada",
        "ada@",
        "@example.org",
        "ada@@example.org",
        "ada/love@example.org",
        "ada@x@example.org",
        "ada@localhost",
        "ada@example.o",
        "ada@.example.org",
        "ada@example..org",
        "ada@example.org.",
        "ada@-example.org",
        "ada@example-.org",
        "ada@" + "x" * 64 + ".org",
        ".ada@example.org",
        "ada.@example.org",
        "a..da@example.org",
        "a da@example.org",
        '"a da"@example.org',
        "ada@[127.0.0.1]",
        "a\0da@example.org",
        "ada@exam\nple.org",
        "ada\r\nBcc: x@example.org",
        "<ada@example.org>",
        "a,b@example.org",
        "ad\ud800a@example.org",
        "a" * 65 + "@example.org",
        "a@" + "x." * 130 + "org",
        "a" * 10_000,
        " " * 10_000 + "ada@example.org",
        None,
        7,
        True,
        ["ada@example.org"],
        {"email": "ada@example.org"},
    ],
)
def test_it_refuses_anything_else_and_names_the_field(value: object) -> None:
    with pytest.raises(BadField) as caught:
        parse_email(value)
    assert caught.value.field == "email"
    assert len(caught.value.message) < 200


@given(st.text())
def test_no_text_breaks_it(value: str) -> None:
    try:
        email = parse_email(value)
    except BadField:
        return
    assert parse_email(email) == email


def test_addresses_are_compared_without_case() -> None:
    assert email_key(" Admin@RAGFlow.IO ") == email_key("admin@ragflow.io") == "admin@ragflow.io"
    assert email_key("REN\u00c9@example.org") == email_key("rene\u0301@EXAMPLE.org")
    assert email_key("\u039f\u0394\u039f\u03a3@example.org") == email_key("\u03bf\u03b4\u03bf\u03c2@example.org")
    assert email_key("STRA\u1e9eE@example.org") == email_key("stra\u00dfe@example.org")
    assert email_key("a@example.org") != email_key("b@example.org")


def test_no_letter_is_folded_into_others() -> None:
    assert email_key("stra\u00dfe@example.org") != email_key("strasse@example.org")
    assert email_key("a@stra\u00dfe.org") != email_key("a@strasse.org")
    assert email_key("\ufb01@example.org") != email_key("fi@example.org")


def test_a_domain_in_full_width_letters_is_the_usual_one_and_a_name_is_not() -> None:
    assert email_key("a@\uff25xample.org") == email_key("a@example.org")
    assert email_key("\uff21@example.org") != email_key("a@example.org")


def test_a_key_fits_its_column_and_is_the_addresss_own() -> None:
    long = [f"a@{chr(0xFDFA) * 60}.{end}.org" for end in ("one", "two")]

    assert [len(email_key(address)) for address in long] == [255, 255]
    assert len(set(map(email_key, long))) == 2


@given(st.text())
def test_a_key_is_its_own_key(value: str) -> None:
    assert email_key(email_key(value)) == email_key(value)


def test_a_key_has_no_line_end() -> None:
    assert email_key("two\nlines@example.org") == "two lines@example.org"
