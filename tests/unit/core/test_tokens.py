from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.tokens import (
    digest,
    digest_of_stored,
    display_form,
    extract_credential,
    has_scope,
    is_misspelt,
    is_stored_with_scope,
    looks_like_token,
    lookup_forms,
    new_beta,
    new_token,
    stored_form,
)

BASE62 = string.ascii_letters + string.digits


def test_a_new_token_has_ragflows_form_and_is_never_the_same() -> None:
    token = new_token()
    assert re.fullmatch(r"ragflow-[A-Za-z0-9]{43}_rk[A-Za-z0-9]{6}", token)
    assert looks_like_token(token)
    assert len({new_token() for _ in range(50)}) == 50


@given(st.booleans(), st.integers(min_value=0), st.sampled_from(BASE62))
def test_a_token_with_one_letter_wrong_is_told_without_asking(scoped: bool, place: int, letter: str) -> None:
    token = new_token(scoped=scoped)
    letters = [at for at, each in enumerate(token) if at >= len("ragflow-") and each in BASE62]
    # The mark's own two letters say which form it is.
    letters = [at for at in letters if at not in (52, 53)]
    at = letters[place % len(letters)]
    wrong = token[:at] + letter + token[at + 1 :]

    assert is_misspelt(wrong) == (wrong != token)


@given(st.booleans(), st.integers(min_value=8, max_value=49))
def test_a_token_with_two_letters_swapped_is_told_without_asking(scoped: bool, at: int) -> None:
    token = new_token(scoped=scoped)
    wrong = token[:at] + token[at + 1] + token[at] + token[at + 2 :]

    assert is_misspelt(wrong) == (wrong != token)


@given(st.sampled_from(["_rk", "_rs"]), st.text(BASE62, min_size=49, max_size=49))
def test_an_invention_of_the_form_is_told_without_asking(mark: str, letters: str) -> None:
    assert is_misspelt(f"ragflow-{letters[:43]}{mark}{letters[43:]}")


@given(st.booleans())
def test_a_token_is_not_misspelt(scoped: bool) -> None:
    token = new_token(scoped=scoped)
    assert not is_misspelt(token)
    assert has_scope(token) is scoped


@pytest.mark.parametrize("ending", ["_rk0GaSLD", "_rs0XzcE1"])
def test_a_token_that_an_earlier_version_made_is_not_misspelt(ending: str) -> None:
    assert not is_misspelt(f"ragflow-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg{ending}")


@given(st.integers(min_value=0), st.text(BASE62 + "._~+/=-", max_size=247))
def test_what_ragflow_makes_is_never_called_misspelt(seed: int, other: str) -> None:
    # The forms of its versions: 43 characters, 32 of a signed value, 32 hexadecimal digits; and whatever else.
    ragflows = [secrets.token_urlsafe(32), f"{seed:032x}"[-32:], "IjJmNzJmYTU2MDI5NTExZjFhZTBmYWE1"]
    for token in (*ragflows, other):
        assert not is_misspelt(f"ragflow-{token}")
        assert not has_scope(f"ragflow-{token}")


def test_a_mark_that_was_changed_is_misspelt_too() -> None:
    token = new_token()
    assert is_misspelt(token.replace("_rk", "_rs"))


def test_a_token_with_scopes_is_looked_up_in_one_form_that_no_header_holds() -> None:
    token = new_token(scoped=True)
    (form,) = lookup_forms(token)
    assert form == stored_form(token)
    assert is_stored_with_scope(form)
    assert extract_credential(f"Bearer {form}") is None
    assert len(form) <= 255
    assert lookup_forms(form) == (stored_form(form),)
    # Behind every digest, where pages of tokens without a record end.
    assert form > stored_form(new_token())


def test_a_new_beta_has_32_characters_and_is_no_token() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", new_beta())
    assert new_beta() != new_beta()


def test_it_shows_the_ends_only() -> None:
    assert display_form("ragflow-abcd" + "M" * 8 + "wxyz") == "ragflow-abcd…wxyz"
    assert display_form("ragflow-abcd" + "M" * 35 + "wxyz") == "ragflow-abcd…wxyz"
    assert display_form("abcd" + "M" * 24 + "wxyz") == "abcd…wxyz"


@pytest.mark.parametrize(("token", "shown"), [("ragflow-" + "M" * 15, "ragflow-…"), ("abcdefgh", "…"), ("", "…")])
def test_it_shows_nothing_of_what_is_too_short_to_hide(token: str, shown: str) -> None:
    assert display_form(token) == shown


def test_it_stores_a_digest_that_fits_ragflows_column() -> None:
    assert stored_form("ragflow-x") == "sha256:" + hashlib.sha256(b"ragflow-x").hexdigest()
    assert len(stored_form(new_token())) == 71


@pytest.mark.parametrize("stored_of", [stored_form, str], ids=["hashed", "in the clear"])
@pytest.mark.parametrize("scoped", [True, False])
def test_the_digest_of_a_token_is_known_from_what_is_stored(scoped: bool, stored_of: Callable[[str], str]) -> None:
    token = new_token(scoped=scoped)
    assert digest_of_stored(stored_of(token)) == digest(token)


def test_a_token_is_looked_up_hashed_and_as_ragflow_stores_it() -> None:
    token = new_token()
    assert lookup_forms(token) == (stored_form(token), token)


def test_a_stolen_digest_opens_nothing() -> None:
    stolen = stored_form(new_token())
    assert stolen not in lookup_forms(stolen)
    assert not looks_like_token(stolen)


@pytest.mark.parametrize(
    "credential",
    ["", "ragflow-", "ragflow-" + "a" * 15, "RAGFLOW-" + "a" * 43, "ragflow-" + "a" * 248, "ragflow-a b" * 4],
)
def test_other_credentials_do_not_look_like_tokens(credential: str) -> None:
    assert not looks_like_token(credential)


@pytest.mark.parametrize(
    "header",
    [
        "abc.def-1",
        "Bearer abc.def-1",
        "bearer abc.def-1",
        "BEARER   abc.def-1",
        "  abc.def-1 ",
        "Bearer abc.def-1\t",
    ],
)
def test_it_finds_the_credential_bare_or_after_bearer(header: str) -> None:
    assert extract_credential(header) == "abc.def-1"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "   ",
        "Bearer",
        "bearer  ",
        "Basic dXNlcjpwYXNz",
        "Bearer a b",
        "a b",
        "Bearer a\0b",
        "a\nb",
        "caf\u00e9",
        "\u00a0abc",
        "abc\x0b",
        "Bearer \u2026",
        "\ud800",
        "x" * 4097,
        "Bearer " + "x" * 4090,
    ],
)
def test_it_finds_no_credential_in_anything_else(header: str | None) -> None:
    assert extract_credential(header) is None


def test_a_credential_may_be_as_long_as_the_limit() -> None:
    assert extract_credential("x" * 4096) == "x" * 4096
