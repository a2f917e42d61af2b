"""Loopback ports for servers that are about to start."""

from __future__ import annotations

import random
import socket

# Below those that the kernel gives to connections, one of which could take a port before its server does.
_FROM, _TO = 10_000, 32_000
# Of its own: the tests' seed is the same in every process of a run.
_chance = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on just now."""
    listeners: list[socket.socket] = []
    try:
        while len(listeners) < count:
            try:
                listeners.append(socket.create_server(("127.0.0.1", _chance.randrange(_FROM, _TO))))
            except OSError:
                continue
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
