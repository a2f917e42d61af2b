from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import BadField
from common.core.passwords import (
    ADMIN_MIN_LENGTH,
    PasswordPolicy,
    check_password,
    ciphertext_of,
    composed,
    decode_from_hash_form,
    encode_for_hash,
    guesses_left,
    is_plain_form,
    is_shorter,
    words_of,
)

BLOCK = bytes(range(256))
ENCRYPTED = base64.b64encode(BLOCK).decode()


@pytest.mark.parametrize(
    "plain",
    [
        "correct horse",
        "correct hors",
        "correct horse battery staple " * 4 + "and more now",
        "pässwörter und",
        "床前明月光疑是地上霜举头",
    ],
)
def test_the_standard_policy_takes_12_to_128_characters(plain: str) -> None:
    check_password(plain, PasswordPolicy.STANDARD, field="password")


@pytest.mark.parametrize(
    "plain",
    [
        "",
        "correct hor",
        "x" * 129,
        "\ufdfa",
        "e\u0301" * 8,
        "\ufdfa" * 12,
        "line ends here\n",
        "nul \0 in the middle",
        "half a pair \ud800",
    ],
    ids=[
        "empty",
        "11",
        "129",
        "one ligature",
        "8 composed",
        "expands to 216",
        "line end",
        "NUL",
        "surrogate",
    ],
)
def test_the_standard_policy_refuses_and_names_the_field(plain: str) -> None:
    with pytest.raises(BadField) as caught:
        check_password(plain, PasswordPolicy.STANDARD, field="new_password")
    assert caught.value.field == "new_password"
    assert not plain or plain not in caught.value.message


def test_an_administrator_needs_15_characters() -> None:
    check_password("fifteen letters", PasswordPolicy.STANDARD, field="password", least=ADMIN_MIN_LENGTH)

    with pytest.raises(BadField, match="15 characters"):
        check_password("fourteen signs", PasswordPolicy.STANDARD, field="password", least=ADMIN_MIN_LENGTH)


@pytest.mark.parametrize(
    ("plain", "shorter"),
    [("fourteen signs", True), ("fifteen letters", False), ("e\u0301" * 14, True), ("\ufb01" * 8, False)],
)
def test_one_in_use_is_as_long_as_what_is_hashed_of_it(plain: str, shorter: bool) -> None:
    assert is_shorter(plain, 15) is shorter


@pytest.mark.parametrize(
    ("plain", "left"),
    [
        ("xxxxxxxxxxxx", 1),
        ("abcabcabcabcab", 2),
        ("passwordpassword", 8),
        ("qwerqwerqwerq", 4),
        ("PasswordpassworD", 8),
        ("12345678901234", 2),
        ("acegikmoqsuwy", 2),
        ("zyxwvutsrqponm", 2),
        ("alice liddell 99", 4),
        ("Alice-Alice-Alice", 2),
        ("alicealice liddell99x", 4),
        ("alice@wonderland.test", 1),
        ("ALICE@wonderland.test!", 2),
        ("\uff21lice2024!!!!", 9),
        ("ragkeeper-2024-login", 12),
        ("correct horse battery", 21),
        ("the malice of crowds", 16),
    ],
)
def test_names_and_repetitions_count_as_one_character(plain: str, left: int) -> None:
    words = words_of(["alice@wonderland.test", "Alice Liddell", "ragkeeper", "ai"])

    assert guesses_left(plain, words) == left


def test_who_would_take_their_own_name_is_told_why_not() -> None:
    with pytest.raises(BadField, match="names of yours") as caught:
        check_password("Alice.Liddell.1862", PasswordPolicy.STANDARD, field="p", words=words_of(["Alice Liddell"]))

    assert "Alice" not in caught.value.message


def test_a_name_is_known_however_a_keyboard_composes_it() -> None:
    assert guesses_left("alice99", words_of(["\uff21lice"])) == 3


def test_the_words_of_names_have_four_letters_at_least() -> None:
    assert words_of(["Bo_Li.meyer@mail.example.org", ""]) == {
        "bo_li.meyer@mail.example.org", "meyer", "mail", "example",
    }  # fmt: skip


@given(st.text(max_size=128), st.lists(st.text(max_size=20), max_size=5))
def test_no_password_has_more_to_guess_than_it_has_characters(plain: str, names: list[str]) -> None:
    plain = plain.replace("\0", "")

    assert guesses_left(plain, words_of(names)) <= len(composed(plain).casefold())


def test_however_a_keyboard_composes_a_password_it_is_the_same() -> None:
    assert composed("e\u0301") == composed("\u00e9") == "\u00e9"
    assert composed("\uff41") == "a"


def test_without_a_policy_any_password_does_that_is_not_empty() -> None:
    check_password("a", PasswordPolicy.OFF, field="password")


@pytest.mark.parametrize("plain", ["", "x" * 129, "a\0", "\udfff"])
def test_without_a_policy_empty_overlong_and_broken_ones_are_refused_all_the_same(plain: str) -> None:
    with pytest.raises(BadField):
        check_password(plain, PasswordPolicy.OFF, field="password")


def test_it_knows_the_encrypted_form_with_line_breaks_within() -> None:
    broken = "\n".join(ENCRYPTED[i : i + 64] for i in range(0, 344, 64)) + " \r\n"
    assert ciphertext_of(ENCRYPTED) == ciphertext_of(broken) == BLOCK


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a" * 344,
        ENCRYPTED[:-1],
        ENCRYPTED + "A",
        "*" + ENCRYPTED[1:],
        "é" + ENCRYPTED[1:],
        ENCRYPTED + " " * 9999,
    ],
)
def test_nothing_else_is_taken_for_the_encrypted_form(value: str) -> None:
    assert ciphertext_of(value) is None


@given(st.text(max_size=500) | st.binary(min_size=256, max_size=256).map(lambda b: base64.b64encode(b).decode()))
def test_no_text_has_both_forms(value: str) -> None:
    assert not (is_plain_form(value) and ciphertext_of(value) is not None)


def test_a_plain_text_is_no_longer_than_a_password_may_be() -> None:
    assert is_plain_form("x" * 128)
    assert not is_plain_form("x" * 129)


def test_the_form_for_hashing_is_base64_of_utf8() -> None:
    assert encode_for_hash("admin") == b"YWRtaW4="
    assert encode_for_hash("é") == base64.b64encode(b"\xc3\xa9")


@given(st.text())
def test_what_is_encoded_can_be_read_back(plain: str) -> None:
    assert decode_from_hash_form(encode_for_hash(plain)) == plain


def test_encoding_takes_even_half_a_surrogate_pair() -> None:
    assert decode_from_hash_form(encode_for_hash("\ud800")) is None


@pytest.mark.parametrize("encoded", [b"admin", b"YWRtaW4", b"YWRtaW5=", b"YW Rt", b"/w==", b"\xff\xfe", b"YQ==YQ=="])
def test_bytes_that_encoding_never_gives_are_not_decoded(encoded: bytes) -> None:
    assert decode_from_hash_form(encoded) is None
