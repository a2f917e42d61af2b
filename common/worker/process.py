"""The worker as a process: settings, logging, signals, and stores that may not be there yet."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable

from common.core.errors import StoreUnavailable
from common.services import level_watch
from common.services.opening import open_plane
from common.services.plane import Plane
from common.settings import Settings, SettingsError, load
from common.worker.loop import run

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LONGEST_WAIT_S = 5.0


def main() -> int:
    """Work until SIGTERM or SIGINT; the process's exit status.

    A wrong setting is one sentence on standard error and status 2.
    """
    try:
        settings = load()
        level_watch.start_logging(settings.log_levels)
        return _work_until_told(settings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def open_when_reachable(
    settings: Settings, stop: threading.Event, opened: Callable[[Settings], Plane] = open_plane
) -> Plane | None:
    """The plane, as soon as its stores can be reached; None when told to stop before. Raises SettingsError."""
    wait_s = 1.0
    while not stop.is_set():
        try:
            return opened(settings)
        except StoreUnavailable as error:
            log.warning("the %s store is unavailable (%s); trying again in %.0f s", error.store, error.reason, wait_s)
            stop.wait(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
    return None


class _Work(threading.Thread):
    """The work, away from the main thread: a signal handler that sets an event can deadlock with a wait on it."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        super().__init__(name="worker")
        self._settings = settings
        self._told_to_stop = stop
        self.wrong_setting: SettingsError | None = None
        self.ended_well = False

    def run(self) -> None:
        try:
            plane = open_when_reachable(self._settings, self._told_to_stop)
            if plane is not None:
                run(plane, self._told_to_stop)
            self.ended_well = True
        except SettingsError as error:
            self.wrong_setting = error


def _work_until_told(settings: Settings) -> int:
    stop = threading.Event()
    work = _Work(settings, stop)
    # Blocked before the first thread starts, so that the signals reach no other place than the wait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    work.start()
    while work.is_alive():
        if signal.sigtimedwait(_SIGNALS, 0.5) is not None:
            stop.set()
            work.join()
    if work.wrong_setting is not None:
        raise work.wrong_setting
    return 0 if work.ended_well else 1
