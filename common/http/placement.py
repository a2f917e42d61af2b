"""Which core a server process serves on.

The event loop of a server process and the threads behind it share one lock, Python's, so they use one core at a time.
Spread over several cores by the kernel, every request wakes another core, twice, which costs more than the request;
on one core a hand-over is a change of threads. What hashes runs without that lock, and on every core.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence

log = logging.getLogger(__name__)


def least_taken(cores: Sequence[int], taken: Sequence[int | None], *, first: int = 0) -> int:
    """The core that the fewest have, the ``first`` one of these, counted round."""
    begin = first % len(cores)
    return min([*cores[begin:], *cores[:begin]], key=taken.count)


def stay_on(cores: Collection[int]) -> None:
    """Let this thread, and those that it starts from now on, run on these cores only; all go on where it may not be."""
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        log.warning("threads stay where the system puts them: %s", error.strerror)
