"""Ceasing to listen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from common.http import listening


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A listener on a free port, which does not block."""
    address = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    with socket.create_server((address, 0), family=request.param) as made:
        made.setblocking(False)
        yield made


@contextmanager
def connected(listener: socket.socket, within_s: float = 5.0) -> Iterator[socket.socket]:
    with socket.socket(listener.family) as made:
        made.settimeout(within_s)
        made.connect(listener.getsockname())
        yield made


def test_who_has_connected_is_taken_and_nobody_comes_after(listener: socket.socket) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(connected(listener)) for _ in range(2))
        first.sendall(b"one")
        listening.refuse_new(listener)
        second.sendall(b"two")
        with pytest.raises(TimeoutError):
            stack.enter_context(connected(listener, 0.2))

        taken = [stack.enter_context(each) for each in listening.waiting(listener)]
        for each in taken:
            each.settimeout(5)
        assert [each.recv(10) for each in taken] == [b"one", b"two"]


def test_it_is_known_who_else_has_a_listener_open(listener: socket.socket) -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-S", "-c", code]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen(command, pass_fds=[listener.fileno()], **options) as heir,
        subprocess.Popen(command, **options) as other,
    ):
        for process in (heir, other):
            process.stdout.readline()
        assert listening.is_shared_with(heir.pid, listener)
        assert not listening.is_shared_with(other.pid, listener)
        assert listening.is_shared_with(os.getpid(), listener)
        for process in (heir, other):
            process.stdin.close()
