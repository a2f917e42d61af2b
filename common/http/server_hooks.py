"""gunicorn's configuration, read by its master: what is done around the making of a server process."""

from __future__ import annotations

from typing import Any


def on_starting(server: Any) -> None:
    """Once the app is loaded: have what gunicorn says go the way of the plane's own lines, which keep nobody waiting:
    not the master, who makes the processes anew, and no event loop of theirs."""
    server.log.error_log.handlers.clear()
    server.log.error_log.propagate = True


def on_reload(server: Any) -> None:
    """After a SIGHUP, which has set gunicorn's log up anew."""
    on_starting(server)


def pre_fork(server: Any, worker: Any) -> None:
    """Before a process is made: let it know where the signals are queued that the master's handlers hear in it."""
    worker.early_signals = server.SIG_QUEUE
