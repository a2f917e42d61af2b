"""gunicorn's configuration, read by its master: what is done around the making of a server process."""

from __future__ import annotations

import os
from typing import Any

from common.http.placement import least_taken


def pre_fork(server: Any, worker: Any) -> None:
    """Before a process is made: choose its core, and let it know where the master's signals are queued."""
    others = [each.core for each in server.WORKERS.values()]
    # Servers of one machine don't know each other; by their ports they begin at different cores.
    port = next((address[1] for address in server.cfg.address if isinstance(address, tuple)), 0)
    worker.core = least_taken(sorted(os.sched_getaffinity(0)), others, first=port * server.cfg.workers)
    worker.early_signals = server.SIG_QUEUE
