"""Pipes that nobody reads."""

from __future__ import annotations

import os
from contextlib import suppress


def fill_pipe(writer: int) -> int:
    """Leave no room in a pipe; how much went into it. Opened anew: who else writes to it is to wait as before."""
    filled, own = 0, os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                filled += os.write(own, b"." * size)
    os.close(own)
    return filled
