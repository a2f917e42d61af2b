"""The codes of a forgotten password."""

from __future__ import annotations

from common.core import reset_codes


def test_codes_are_six_capital_letters_and_never_the_same() -> None:
    codes = {reset_codes.new_code() for _ in range(200)}

    assert len(codes) == 200
    assert all(len(code) == 6 and code.isalpha() and code.isupper() and code.isascii() for code in codes)


def test_images_have_six_letters_or_digits_that_can_be_told_apart() -> None:
    texts = {reset_codes.new_captcha() for _ in range(200)}

    assert len(texts) == 200
    assert all(len(text) == 6 for text in texts)
    assert not set("".join(texts)) & set("0O1IL")


def test_what_is_typed_counts_whatever_its_case_and_the_space_around_it() -> None:
    assert reset_codes.as_typed(" qwErtz\n") == "QWERTZ"
