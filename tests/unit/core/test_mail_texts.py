"""The texts of mails."""

from __future__ import annotations

import pytest

from common.core import mail_texts

VALUES = {
    "tenant": "Blue",
    "inviter": "Ann (ann@b.co)",
    "address": "you@b.co",
    "expires": "2026-10-01 10:00",
}


@pytest.mark.parametrize(
    ("language", "sign"),
    [("English", "invites"), ("Chinese", "邀请您加入"), ("Klingon", "invites"), (None, "invites")],
)
def test_the_text_is_in_the_language_asked_for_or_english(language: str | None, sign: str) -> None:
    text = mail_texts.invitation(language, **VALUES)

    assert sign in text.subject + text.body
    for value in VALUES.values():
        assert value in text.body


def test_names_stay_on_their_line_and_braces_are_just_text() -> None:
    text = mail_texts.invitation("English", **{**VALUES, "tenant": "Blue\r\nBcc: all@b.co {expires}"})

    assert text.subject == "You are invited to join Blue Bcc: all@b.co {expires}"


def test_the_link_stands_on_a_line_of_its_own_where_there_is_one() -> None:
    assert "\nhttps://rag.test\n" in mail_texts.invitation("English", **VALUES, link="https://rag.test").body
    assert "http" not in mail_texts.invitation("English", **VALUES).body


@pytest.mark.parametrize("language", ["English", "Chinese"])
def test_every_text_says_what_it_is_about(language: str) -> None:
    code = mail_texts.reset_code(language, address="you@b.co", code="QWERTZ", minutes=5)
    expiry = mail_texts.token_expiry(
        language, token="ci", address="you@b.co", expires="2026-10-01 10:00", link="https://rag.test/api"
    )

    assert all(said in code.body for said in ("QWERTZ", "you@b.co", "5"))
    assert "QWERTZ" not in code.subject, "subjects show on locked screens"
    assert all(said in expiry.body for said in ("ci", "2026-10-01 10:00", "https://rag.test/api"))


def test_characters_that_do_not_print_are_left_out() -> None:
    assert "\0" not in mail_texts.invitation("English", **{**VALUES, "tenant": "A\0B\u202eC"}).subject
