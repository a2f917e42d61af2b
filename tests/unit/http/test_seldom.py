"""What may be said in the log, and when again."""

from __future__ import annotations

from common.http.seldom import Seldom


def test_the_same_is_due_once_a_second_and_something_else_at_once() -> None:
    now = [100.0]
    seldom = Seldom(lambda: now[0])

    assert [seldom.is_due("cache", "gone"), seldom.is_due("cache", "gone"), seldom.is_due("cache", "full")] == [
        True,
        False,
        True,
    ]
    now[0] += 0.9
    assert not seldom.is_due("cache", "gone")
    now[0] += 0.2
    assert seldom.is_due("cache", "gone")
