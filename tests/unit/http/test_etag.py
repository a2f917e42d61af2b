from __future__ import annotations

import time

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from common.core.errors import BadField
from common.http import etag


def asked(header: str | None) -> Request:
    return Request(EnvironBuilder(headers={} if header is None else {"If-Match": header}).get_environ())


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("*", None),
        ('"abc"', {"abc"}),
        ('"abc", "d-e,f" ,"" ', {"abc", "d-e,f", ""}),
        (' ,"abc" , "d", ', {"abc", "d"}),
        # Weak ones never match where a change depends on it.
        ('W/"abc"', set()),
        ('W/"abc", "def"', {"def"}),
    ],
)
def test_if_match_names_the_versions_that_a_change_is_meant_for(header: str | None, expected: set[str] | None) -> None:
    assert etag.expected_versions(asked(header)) == expected


@pytest.mark.parametrize("header", ["abc", '"abc', '"a" "b"', "", '*, "a"', "w/x"])
def test_what_is_no_list_of_tags_is_refused_rather_than_passed_over(header: str) -> None:
    with pytest.raises(BadField) as caught:
        etag.expected_versions(asked(header))
    assert caught.value.field == "If-Match"


def test_a_header_full_of_spaces_is_read_once() -> None:
    """Where each space is tried in several ways, four times as many take sixteen times as long."""

    def seconds(spaces: int) -> float:
        request, began = asked('"a"' + " " * spaces + "x"), time.thread_time()
        with pytest.raises(BadField):
            etag.expected_versions(request)
        return time.thread_time() - began

    seconds(1)
    assert seconds(32_000) < 0.1


def test_what_an_answer_names_is_what_a_change_may_expect() -> None:
    (tag,) = etag.headers("0123abcd").values()

    assert etag.expected_versions(asked(tag)) == {"0123abcd"}
