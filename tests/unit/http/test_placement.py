"""Which core a server process serves on."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from common.http import placement, server_hooks


@pytest.mark.parametrize(
    ("cores", "taken", "first", "chosen"),
    [
        ([0, 1], [], 0, 0),
        ([0, 1], [0], 0, 1),
        ([0, 1], [0, 1], 1, 1),
        ([2, 3, 5, 7], [], 6, 5),
        ([2, 3, 5, 7], [5, 7, 2], 6, 3),
        ([4], [4, 4], 9, 4),
        ([0, 1], [None, 0], 0, 1),
    ],
)
def test_a_process_gets_the_core_that_the_fewest_have(
    cores: list[int], taken: list[int | None], first: int, chosen: int
) -> None:
    assert placement.least_taken(cores, taken, first=first) == chosen


def test_the_master_spreads_its_processes_and_one_that_is_made_anew_takes_the_place_of_the_last() -> None:
    cores = sorted(os.sched_getaffinity(0))
    server = SimpleNamespace(WORKERS={}, SIG_QUEUE=None, cfg=SimpleNamespace(address=[("127.0.0.1", 9380)], workers=2))
    for pid in range(2 * len(cores)):
        server.WORKERS[pid] = SimpleNamespace()
        worker = server.WORKERS.pop(pid)
        server_hooks.pre_fork(server, worker)
        server.WORKERS[pid] = worker
    gone = server.WORKERS.pop(1)
    again = SimpleNamespace()
    server_hooks.pre_fork(server, again)

    assert sorted(each.core for each in [*server.WORKERS.values(), gone]) == sorted(cores * 2)
    assert again.core == gone.core


def test_threads_run_where_they_were_told_and_a_core_that_is_gone_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    core = min(os.sched_getaffinity(0))
    seen: list[set[int]] = []

    def work() -> None:
        placement.stay_on({core})
        placement.stay_on({100_000})
        started = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        started.start()
        started.join()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [{core}]
    assert "threads stay where the system puts them" in caplog.text
