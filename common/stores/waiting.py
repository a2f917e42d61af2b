"""Work that may have to wait, and the event loop, on which nothing may: there everybody else would wait too."""

from __future__ import annotations

import asyncio


class MustWait(BaseException):
    """What was begun on an event loop is for a thread; nothing was done yet.

    Like ``asyncio.CancelledError`` no Exception: whoever deals with errors on the way must not take it for one.
    """


def on_event_loop() -> bool:
    """Whether this thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def refuse_on_event_loop() -> None:
    """For whatever may wait, before it does anything. Raises MustWait on an event loop."""
    if on_event_loop():
        raise MustWait
