"""Which core serves: gunicorn's configuration, read by its master.

The event loop of a server process and the threads behind it share one lock, Python's, so they use one core at a time.
Spread over several cores by the kernel, every request wakes another core, twice, which costs more than the request;
on one core a hand-over is a change of threads. What hashes runs without that lock, and on every core.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from typing import Any

log = logging.getLogger(__name__)


def pre_fork(server: Any, worker: Any) -> None:
    """gunicorn's hook: choose the core of a process that is about to be made."""
    others = [each.core for each in server.WORKERS.values()]
    # Servers of one machine don't know each other; by their ports they begin at different cores.
    port = next((address[1] for address in server.cfg.address if isinstance(address, tuple)), 0)
    worker.core = least_taken(sorted(os.sched_getaffinity(0)), others, first=port * server.cfg.workers)


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
