from __future__ import annotations

import hashlib
import re

import pytest

from common.core.tokens import (
    display_form,
    extract_credential,
    looks_like_token,
    lookup_forms,
    new_beta,
    new_token,
    stored_form,
)


def test_a_new_token_has_ragflows_form_and_is_never_the_same() -> None:
    token = new_token()
    assert re.fullmatch(r"ragflow-[A-Za-z0-9_-]{43}", token)
    assert looks_like_token(token)
    assert len({new_token() for _ in range(50)}) == 50


def test_a_new_beta_has_32_characters_and_is_no_token() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", new_beta())
    assert new_beta() != new_beta()


def test_it_shows_the_ends_only() -> None:
    assert display_form("ragflow-abcd" + "M" * 35 + "wxyz") == "ragflow-abcd…wxyz"
    assert display_form("abcd" + "M" * 24 + "wxyz") == "abcd…wxyz"


@pytest.mark.parametrize(("token", "shown"), [("ragflow-short", "ragflow-…"), ("abcdefgh", "…"), ("", "…")])
def test_it_shows_nothing_of_what_is_too_short_to_hide(token: str, shown: str) -> None:
    assert display_form(token) == shown


def test_it_stores_a_digest_that_fits_ragflows_column() -> None:
    assert stored_form("ragflow-x") == "sha256:" + hashlib.sha256(b"ragflow-x").hexdigest()
    assert len(stored_form(new_token())) == 71


def test_a_token_is_looked_up_hashed_and_as_ragflow_stores_it() -> None:
    token = new_token()
    assert lookup_forms(token) == (stored_form(token), token)


def test_a_stolen_digest_opens_nothing() -> None:
    stolen = stored_form(new_token())
    assert stolen not in lookup_forms(stolen)
    assert not looks_like_token(stolen)


@pytest.mark.parametrize(
    "credential",
    ["", "ragflow-", "ragflow-short", "RAGFLOW-" + "a" * 43, "ragflow-" + "a" * 248, "ragflow-a b" * 4],
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
