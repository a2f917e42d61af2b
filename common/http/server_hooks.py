"""gunicorn's configuration, read by its master: what is done around the making of a server process."""

from __future__ import annotations

from typing import Any


def pre_fork(server: Any, worker: Any) -> None:
    """Before a process is made: let it know where the signals are queued that the master's handlers hear in it."""
    worker.early_signals = server.SIG_QUEUE
