from __future__ import annotations

import pytest

from common.core.errors import LostUpdate
from common.core.versions import check_version, version_of


def test_the_version_follows_the_content_and_nothing_else() -> None:
    assert version_of("name", ["a", "b"], {"x": 1, "y": 2}) == version_of("name", ["a", "b"], {"y": 2, "x": 1})
    assert (
        len({version_of("name", ["a"]), version_of("name", ["b"]), version_of("name", "a"), version_of("namea")}) == 4
    )


def test_a_change_is_made_to_an_expected_version_only() -> None:
    current = version_of("now")

    check_version(current, None)
    check_version(current, {"other", current})
    for expected in ({"other"}, frozenset[str]()):
        with pytest.raises(LostUpdate) as caught:
            check_version(current, expected)
        assert (caught.value.status, caught.value.code) == (412, 412)
