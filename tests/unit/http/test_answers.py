"""Bodies of answers."""

from __future__ import annotations

import json

import pytest

from common.http.answers import json_response


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1000, 1001])
def test_an_iterator_is_sent_as_the_list_of_what_it_gives(count: int) -> None:
    items = ({"number": number} for number in range(count))

    assert json.loads(json_response({"data": items}).get_data()) == {"data": [{"number": n} for n in range(count)]}


def test_what_json_does_not_know_is_an_error_and_not_its_repr() -> None:
    with pytest.raises(TypeError):
        json_response({"data": object()})
