"""The token that shows that a request is a page's own."""

from __future__ import annotations

import pytest

from common.core.csrf import csrf_token, is_csrf_token


def test_a_token_belongs_to_one_session_and_does_not_tell_it() -> None:
    token = csrf_token("a session")

    assert is_csrf_token(token, "a session")
    assert not is_csrf_token(token, "another session")
    assert "session" not in token


@pytest.mark.parametrize("given", ["", "x", "\udc80", "ÿ" * 43])
def test_what_is_no_token_is_refused(given: str) -> None:
    assert not is_csrf_token(given, "a session")
