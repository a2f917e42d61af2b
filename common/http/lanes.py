"""Threads that serve requests: a few of them behind one queue of bounded length."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

log = logging.getLogger(__name__)

Call = Callable[[Any], Any]


class LaneFull(Exception):
    """So many calls wait already that another one would only wait in vain."""


@dataclass(frozen=True, slots=True)
class Onward:
    """What a call gives when the rest of it is for another lane: ``call(argument)`` there gives the result."""

    lane: Lane
    call: Call
    argument: Any


class Lane:
    """Takes calls from an event loop and runs them in its own threads, in the order they came.

    ``waiting`` is how many calls may wait beside those that run; one that goes on in another lane counts here. Cheaper
    than an executor of the standard library, which makes two futures for each call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, *, threads: int, waiting: int) -> None:
        self._loop = loop
        self._most = threads + waiting
        self._taken = 0
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Call, Any]] = SimpleQueue()
        for number in range(threads):
            # A request that is still running when the process has waited long enough must not keep it alive.
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    async def run(self, call: Call, argument: Any) -> Any:
        """What ``call(argument)`` gives in one of the threads; what it raises is raised here. Raises LaneFull."""
        future = self._taking_a_place()
        self._calls.put((future, call, argument))
        return await self._given(future)

    async def pass_on(self, rest: Onward) -> Any:
        """What comes of a call of this lane that was made on the event loop: it goes on elsewhere and counts here, like
        any other. Raises LaneFull."""
        future = self._taking_a_place()
        rest.lane._calls.put((future, rest.call, rest.argument))
        return await self._given(future)

    def _taking_a_place(self) -> asyncio.Future[Any]:
        if self._taken >= self._most:
            raise LaneFull
        self._taken += 1
        return self._loop.create_future()

    async def _given(self, future: asyncio.Future[Any]) -> Any:
        try:
            return await future
        finally:
            self._taken -= 1

    def _work(self) -> None:
        while True:
            future, call, argument = self._calls.get()
            try:
                result, error = call(argument), None
            except Exception as raised:  # noqa: BLE001 - the last resort of a server thread: the waiting side raises it
                result, error = None, raised
            if isinstance(result, Onward):
                # From here and not from the event loop, where nobody may be waiting any more.
                result.lane._calls.put((future, result.call, result.argument))
                continue
            try:
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                log.debug("the event loop ended before a call did")
                return


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    # Nobody waits any more when the client has gone.
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
