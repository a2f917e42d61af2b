"""Bodies of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import Client

from common.core.errors import PlaneError
from common.http.answers import JsonAnswer, json_response


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1000, 1001])
def test_an_iterator_is_sent_as_the_list_of_what_it_gives(count: int) -> None:
    items = ({"number": number} for number in range(count))

    assert json.loads(json_response({"data": items}).get_data()) == {"data": [{"number": n} for n in range(count)]}


def test_what_json_does_not_know_is_an_error_and_not_its_repr() -> None:
    with pytest.raises(TypeError):
        json_response({"data": object()})


@pytest.mark.parametrize(("method", "content"), [("GET", b'{"a":"\xc3\xbc"}'), ("HEAD", b"")])
def test_what_a_route_gave_is_sent_with_its_status_headers_and_length(method: str, content: bytes) -> None:
    answer = Client(JsonAnswer({"a": "ü"}, 201, {"ETag": '"7"'})).open(method=method)

    assert answer.status == "201 Created"
    assert dict(answer.headers) == {"Content-Type": "application/json", "Content-Length": "10", "ETag": '"7"'}
    assert answer.data == content


def test_an_iterator_of_what_a_route_gave_raises_its_own_errors() -> None:
    def broken() -> Any:
        yield 1
        raise PlaneError("no more")

    with pytest.raises(PlaneError, match="no more"):
        JsonAnswer({"data": broken()}, 200, {})
