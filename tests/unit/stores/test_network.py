"""Connections that are made within a deadline."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from common.stores.network import connected


def spent(left_s: list[float]) -> Callable[[], float]:
    """A deadline with so much left, each time that somebody asks; then it is over."""

    def left() -> float:
        if not left_s:
            raise TimeoutError("the deadline is over")
        return left_s.pop(0)

    return left


@pytest.mark.parametrize("given", [[], [1.0]])
def test_a_deadline_that_ends_before_the_connection_is_begun_leaves_no_socket(given: list[float]) -> None:
    made: list[socket.socket] = []

    def make(family: socket.AddressFamily) -> socket.socket:
        made.append(socket.socket(family))
        return made[-1]

    with pytest.raises(TimeoutError):
        connected("127.0.0.1", 9, spent(given), lambda plain: plain, make)

    assert made == []


def test_a_refused_connection_leaves_no_socket() -> None:
    made: list[socket.socket] = []

    def make(family: socket.AddressFamily) -> socket.socket:
        made.append(socket.socket(family))
        return made[-1]

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            connected("127.0.0.1", bound.getsockname()[1], lambda: 1.0, lambda plain: plain, make)

    assert [each.fileno() for each in made] == [-1]
