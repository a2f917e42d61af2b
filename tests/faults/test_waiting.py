"""Those who wait for health while a store hangs: they hold up nobody else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.services.probing import SHARED_S
from tests.faults.book import Entry
from tests.faults.ground import TIMEOUT_S, Ground, Watch, ask
from tests.faults.kinds import STORES, fault

# Many times the threads that serve.
WAITING = 100
LIMIT_S = 2.0


@pytest.mark.parametrize("store", STORES)
def test_a_hundred_who_wait_for_health_hold_up_nobody(ground: Ground, store: str) -> None:
    entry = Entry(store, "hundred-wait-for-health")
    port = ground.live.api_port
    paths = ["/v1/system/healthz", "/readyz"] * (WAITING // 2)
    with Watch(ground) as watch, ThreadPoolExecutor(WAITING) as clients, fault(store, "hanging")(ground.servers):
        # What was seen before it hung is shared for so long.
        threading.Event().wait(SHARED_S + 0.1)
        waiting = [clients.submit(ask, port, "GET", path) for path in paths]
        own = ground.everyday()["own account"]
        others = [own() for _ in range(10)]
        answers = [each.result() for each in waiting]
    entry.healthz_ms = max(answer.seconds for answer in answers) * 1000
    entry.livez_ms, entry.ping_ms = watch.livez_s * 1000, watch.ping_s * 1000
    entry.others = {f"{number}": each.status for number, each in enumerate(others)}
    entry.others_ms = sorted(each.seconds for each in others)[-3] * 1000
    entry.verdict = "passed"
    entry.write()
    assert {answer.status for answer in answers} <= {200, 500, 503}
    assert {each.status for each in others} == {503 if store == "metadata" else 200}
    assert entry.healthz_ms < (TIMEOUT_S + LIMIT_S) * 1000
    # Each of the two processes may have one find out that the store hangs.
    assert entry.others_ms < LIMIT_S * 1000
    assert watch.silent == []
    assert max(watch.livez_s, watch.ping_s) < LIMIT_S
