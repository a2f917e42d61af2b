"""gunicorn's configuration for a test: the second process is told to stop before it has handlers of its own."""

from __future__ import annotations

import os
import signal
from typing import Any

from common.http.server_hooks import pre_fork

__all__ = ["post_fork", "pre_fork"]

SECOND = 2


def post_fork(server: Any, worker: Any) -> None:
    """In the process that was just made."""
    if worker.age == SECOND:
        os.write(1, f"told early: {worker.pid}\n".encode())
        os.kill(worker.pid, signal.SIGTERM)
