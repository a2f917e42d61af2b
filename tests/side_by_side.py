"""Requests that two threads make at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from werkzeug.test import TestResponse

from common.stores.database import Database
from tests.people import World

Act = Callable[[], TestResponse]
_ACT = "act"


@contextmanager
def neck_and_neck(world: World) -> Iterator[None]:
    """Let acts enter their first transaction only when two of them have come as far: past authentication.

    Threads that write beside them, such as the notes of last uses, are no acts.
    """
    kind: Any = type(world.plane.database)
    starting, begin = threading.Barrier(2), kind.transaction
    entered = threading.local()

    @contextmanager
    def together(store: Database) -> Iterator[None]:
        if threading.current_thread().name.startswith(_ACT) and not getattr(entered, "once", False):
            entered.once = True
            starting.wait(timeout=20)
        with begin(store):
            yield

    with patch.object(kind, "transaction", together):
        yield


def at_once(world: World, *acts: Act) -> list[int]:
    """The statuses of requests that run side by side."""
    with neck_and_neck(world):
        return begun_at_once(world, *acts)


def begun_at_once(world: World, *acts: Act) -> list[int]:
    """The statuses of requests of which none begins before the others; what they do then takes its course."""
    together = threading.Barrier(len(acts))

    def run(act: Act) -> int:
        try:
            together.wait()
            return act().status_code
        finally:
            for store in (world.plane.database, world.plane.cache, world.plane.documents):
                store.close()

    with ThreadPoolExecutor(len(acts), _ACT) as pool:
        return list(pool.map(run, acts))
