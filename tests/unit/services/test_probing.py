"""Probes run side by side, within deadlines, and share what they found."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.core.errors import StoreUnavailable
from common.core.verdicts import Verdict
from common.services.probing import SHARED_S, Finding, Probe, Prober
from common.settings import HealthConfig
from tests.people import Clock

WELL = Finding(Verdict(True), {"type": "test"})
QUICKLY = HealthConfig(timeout=0.05)


class Hanging:
    """A service that answers nobody until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.entered = threading.Event()
        self.free = threading.Event()

    def look(self, _left_s: float) -> Finding:
        self.asked += 1
        self.entered.set()
        self.free.wait(20)
        return WELL


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    service = Hanging()
    yield service
    service.free.set()


class Seconds:
    """A monotonic clock that tests move."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __call__(self) -> float:
        return self.clock() / 1000


def probes_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"probe-{name}"]


def wait_for_probes_of(name: str) -> None:
    for thread in probes_of(name):
        thread.join(10)


def test_a_service_that_answers_well_is_alive_with_its_details() -> None:
    found = Prober().run({"one": Probe(lambda _: WELL)})["one"]

    assert (found.status, found.ok, found.details) == ("alive", True, {"type": "test"})
    assert found.elapsed == f"{found.elapsed_ms:.1f}"


def test_a_service_that_hangs_times_out_and_delays_no_other(hanging: Hanging) -> None:
    started = time.monotonic()
    found = Prober().run({"stuck": Probe(hanging.look, HealthConfig(timeout=0.2)), "well": Probe(lambda _: WELL)})

    assert {name: each.status for name, each in found.items()} == {"stuck": "timeout", "well": "alive"}
    assert time.monotonic() - started < 2


def test_two_services_that_hang_take_no_longer_than_one(hanging: Hanging) -> None:
    slow = HealthConfig(timeout=0.5)
    started = time.monotonic()
    Prober().run({name: Probe(hanging.look, slow) for name in "abcdefgh"})

    assert time.monotonic() - started < 2


def test_a_service_that_is_stuck_is_not_asked_again_until_it_returns(hanging: Hanging, clock: Clock) -> None:
    prober = Prober(Seconds(clock))
    for _ in range(20):
        assert prober.run({"never twice": Probe(hanging.look, QUICKLY)})["never twice"].status == "timeout"
        clock.forward(seconds=SHARED_S + 60)

    assert hanging.asked == 1
    assert len(probes_of("never twice")) == 1


def test_a_service_that_is_stuck_is_answered_for_at_once(hanging: Hanging) -> None:
    prober = Prober()
    probe = {"stuck": Probe(hanging.look, HealthConfig(timeout=0.3))}
    prober.run(probe)

    started = time.monotonic()
    assert prober.run(probe)["stuck"].status == "timeout"
    assert time.monotonic() - started < 0.2


def test_an_answer_that_comes_after_the_deadline_is_no_good_answer(hanging: Hanging, clock: Clock) -> None:
    prober = Prober(Seconds(clock))
    with ThreadPoolExecutor(1) as others:
        asking = others.submit(prober.run, {"late": Probe(hanging.look, HealthConfig(timeout=5))})
        assert hanging.entered.wait(5)
        clock.forward(seconds=6)
        hanging.free.set()
        assert asking.result(10)["late"].status == "timeout"


def test_a_service_that_was_stuck_is_asked_again_once_it_has_returned(hanging: Hanging, clock: Clock) -> None:
    prober = Prober(Seconds(clock))
    with ThreadPoolExecutor(1) as others:
        asking = others.submit(prober.run, {"late": Probe(hanging.look, HealthConfig(timeout=5))})
        assert hanging.entered.wait(5)
        clock.forward(seconds=6)
        hanging.free.set()
        asking.result(10)
    wait_for_probes_of("late")
    clock.forward(seconds=SHARED_S + 0.1)

    assert prober.run({"late": Probe(hanging.look)})["late"].status == "alive"
    assert hanging.asked == 2


def test_those_who_ask_together_share_one_look(hanging: Hanging) -> None:
    prober = Prober()
    probe = {"one": Probe(hanging.look, HealthConfig(timeout=20))}
    with ThreadPoolExecutor(6) as others:
        asking = [others.submit(prober.run, probe) for _ in range(6)]
        assert hanging.entered.wait(5)
        hanging.free.set()
        assert {each.result(10)["one"].status for each in asking} == {"alive"}

    assert hanging.asked == 1


def test_an_outcome_is_shared_for_as_long_as_whoever_asks_wants(clock: Clock) -> None:
    answers = iter((WELL, Finding(Verdict(False, "gone"))))
    prober = Prober(Seconds(clock))
    seldom = {"one": Probe(lambda _: next(answers), HealthConfig(check_interval=60))}
    often = {"one": Probe(lambda _: next(answers), HealthConfig(check_interval=5))}

    assert prober.run(seldom)["one"].status == "alive"
    clock.forward(seconds=59)
    assert prober.run(seldom)["one"].status == "alive"
    assert prober.run(often)["one"].status == "fail"


def test_an_outcome_is_shared_for_a_second_and_no_longer(clock: Clock) -> None:
    answers = iter((WELL, Finding(Verdict(False, "gone"))))
    prober = Prober(Seconds(clock))
    probe = {"one": Probe(lambda _: next(answers))}

    assert prober.run(probe)["one"].status == "alive"
    clock.forward(seconds=SHARED_S)
    assert prober.run(probe)["one"].status == "alive"
    clock.forward(seconds=0.1)
    assert prober.run(probe)["one"].status == "fail"


def test_a_further_try_may_save_a_service_within_the_deadline() -> None:
    answers = iter((Finding(Verdict(False, "hiccup")), WELL))

    found = Prober().run({"one": Probe(lambda _: next(answers), HealthConfig(retry_count=1))})["one"]

    assert found.status == "alive"


def test_no_try_begins_after_the_deadline(clock: Clock) -> None:
    asked = []

    def look(left_s: float) -> Finding:
        asked.append(left_s)
        clock.forward(seconds=1.5)
        return Finding(Verdict(False, "slow"))

    Prober(Seconds(clock)).run({"one": Probe(look, HealthConfig(timeout=2, retry_count=9))})

    assert len(asked) == 2
    assert 0 < asked[1] <= 0.5


def test_a_probe_that_breaks_is_a_failure_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    def look(_left_s: float) -> Finding:
        raise RuntimeError("password=hunter2")

    found = Prober().run({"one": Probe(look)})["one"]

    assert (found.status, found.reason) == ("fail", "RuntimeError")
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]


def test_a_store_that_is_down_fails_with_its_reason() -> None:
    def look(_left_s: float) -> Finding:
        raise StoreUnavailable("cache", "its file is missing")

    found = Prober().run({"one": Probe(look)})["one"]

    assert (found.status, found.reason) == ("fail", "its file is missing")


def test_whoever_cannot_wait_is_told_before_the_deadline(hanging: Hanging) -> None:
    started = time.monotonic()
    found = Prober().run({"stuck": Probe(hanging.look, HealthConfig(timeout=20))}, wait_s=0.05)

    assert found["stuck"].status == "timeout"
    assert time.monotonic() - started < 2


def test_a_change_for_the_worse_is_logged_once(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    prober = Prober(Seconds(clock))
    for _ in range(3):
        prober.run({"worse": Probe(lambda _: Finding(Verdict(False, "gone")))})
        clock.forward(seconds=2)

    # A name of its own: a probe that another test left hanging may end, and be logged, meanwhile.
    assert [record.levelname for record in caplog.records if "probe of worse" in record.message] == ["WARNING"]


def test_on_an_event_loop_nobody_who_waits_holds_a_thread(hanging: Hanging) -> None:
    prober = Prober()

    async def ask() -> list[str]:
        asked = {"stuck": Probe(hanging.look, HealthConfig(timeout=0.3)), "well": Probe(lambda _: WELL)}
        before = threading.active_count()
        waiting = [asyncio.create_task(prober.run_aside(asked)) for _ in range(50)]
        await asyncio.to_thread(hanging.entered.wait, 10)
        # One for each probe, and the thread of this test's own wait.
        assert threading.active_count() <= before + 3
        return [outcomes["stuck"].status + outcomes["well"].status for outcomes in await asyncio.gather(*waiting)]

    assert asyncio.run(ask()) == ["timeoutalive"] * 50
    assert hanging.asked == 1


def test_an_event_loop_is_told_as_soon_as_the_probe_ends(hanging: Hanging) -> None:
    prober = Prober()

    async def ask() -> str:
        waiting = asyncio.create_task(prober.run_aside({"one": Probe(hanging.look, HealthConfig(timeout=60))}))
        await asyncio.to_thread(hanging.entered.wait, 10)
        hanging.free.set()
        async with asyncio.timeout(10):
            return (await waiting)["one"].status

    assert asyncio.run(ask()) == "alive"


def test_who_waits_on_an_event_loop_may_give_up_before_the_deadline(hanging: Hanging) -> None:
    prober = Prober()

    async def ask() -> str:
        async with asyncio.timeout(10):
            found = await prober.run_aside({"one": Probe(hanging.look, HealthConfig(timeout=60))}, wait_s=0.05)
        return found["one"].status

    assert asyncio.run(ask()) == "timeout"
