"""Threads that serve requests."""

from __future__ import annotations

import asyncio
import threading

import pytest

from common.http.lanes import Lane, LaneFull


def test_a_call_runs_in_a_thread_and_gives_its_result_or_raises() -> None:
    async def run() -> None:
        lane = Lane(asyncio.get_running_loop(), "test", threads=1, waiting=1)

        assert await lane.run(lambda number: (number + 1, threading.current_thread().name), 1) == (2, "test-0")
        with pytest.raises(ZeroDivisionError):
            await lane.run(lambda number: 1 / number, 0)
        assert await lane.run(str, 5) == "5"

    asyncio.run(run())


def test_calls_beyond_what_may_wait_are_refused_and_the_others_come_in_order() -> None:
    go, seen = threading.Event(), []

    def call(number: int) -> int:
        assert go.wait(10)
        seen.append(number)
        return number

    async def run() -> None:
        lane = Lane(asyncio.get_running_loop(), "test", threads=1, waiting=2)
        calls = [asyncio.create_task(lane.run(call, number)) for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(LaneFull):
            await lane.run(call, 3)
        go.set()
        assert await asyncio.gather(*calls) == [0, 1, 2]
        assert await lane.run(call, 4) == 4

    asyncio.run(run())
    assert seen == [0, 1, 2, 4]


def test_a_call_whose_client_has_gone_is_finished_all_the_same() -> None:
    go, done = threading.Event(), threading.Event()

    def call(_: object) -> None:
        assert go.wait(10)
        done.set()

    async def run() -> None:
        lane = Lane(asyncio.get_running_loop(), "test", threads=1, waiting=0)
        waiting = asyncio.create_task(lane.run(call, None))
        await asyncio.sleep(0)
        waiting.cancel()
        go.set()
        assert await asyncio.to_thread(done.wait, 10)

    asyncio.run(run())
