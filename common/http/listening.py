"""Ceasing to listen without losing a connection that was made a moment before."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# From linux/filter.h and asm-generic/socket.h.
_SO_ATTACH_FILTER = 26
_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
_TCP_FLAGS, _SYN, _SYN_ACK = 13, 0x02, 0x12
_DROP, _KEEP = 0, 0xFFFFFFFF
# Let through everything but what asks for a new connection: (code, jump if true, jump if false, operand) each.
_NO_NEW_CONNECTIONS = (
    (_LOAD_BYTE, 0, 0, _TCP_FLAGS),
    (_AND, 0, 0, _SYN_ACK),
    (_JUMP_IF_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, _DROP),
    (_RETURN, 0, 0, _KEEP),
)


def is_shared_with(pid: int, listener: socket.socket) -> bool:
    """Whether that process, which this one got the listener from, has it open still; True where nobody can say."""
    try:
        return os.path.samestat(Path(f"/proc/{pid}/fd/{listener.fileno()}").stat(), os.fstat(listener.fileno()))
    except FileNotFoundError:
        return not Path("/proc/self/fd").exists()
    except PermissionError:
        return True


def refuse_new(listener: socket.socket) -> None:
    """From now on attempts to connect get no answer, and try again by themselves a second later.

    Only then can the queue be emptied for good: whoever connects between the last look into it and the end of the
    listener would be cut off, with a request that it has sent already. It holds for all processes that listen there.
    """
    if not sys.platform.startswith("linux") or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = b"".join(struct.pack("HBBI", *each) for each in _NO_NEW_CONNECTIONS)
    kept = ctypes.create_string_buffer(program)
    header = struct.pack("HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(kept))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


def waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that were made and that nobody has taken yet. The listener must not block."""
    while True:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        yield connection
