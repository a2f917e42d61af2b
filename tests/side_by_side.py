"""Requests that two threads make at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest.mock import patch

from werkzeug.test import TestResponse

from common.stores.database import SqliteStore
from tests.people import World

Act = Callable[[], TestResponse]


@contextmanager
def neck_and_neck() -> Iterator[None]:
    """Let threads enter their first transaction only when two of them have come as far: past authentication."""
    starting, begin = threading.Barrier(2), SqliteStore.transaction
    entered = threading.local()

    @contextmanager
    def together(store: SqliteStore) -> Iterator[None]:
        if not getattr(entered, "once", False):
            entered.once = True
            starting.wait(timeout=20)
        with begin(store):
            yield

    with patch.object(SqliteStore, "transaction", together):
        yield


def at_once(world: World, *acts: Act) -> list[int]:
    """The statuses of requests that run side by side."""

    def run(act: Act) -> int:
        try:
            return act().status_code
        finally:
            for store in (world.plane.database, world.plane.cache, world.plane.documents):
                store.close()

    with neck_and_neck(), ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))
