"""The breaker: its rules against a plain reference model, and what callers of a store that is down notice."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.core.errors import StoreUnavailable
from common.stores.breaker import FIRST_WAIT_S, LONGEST_WAIT_S, Breaker, Circuit

PATIENCE_S = 10.0


@pytest.fixture
def circuit(clock):
    return Circuit(clock)


def opened(circuit, reason="down"):
    assert circuit.fail(circuit.admit(), reason)
    return circuit


def test_a_closed_circuit_lets_everybody_try(circuit):
    assert circuit.admit() is not None
    assert circuit.admit() is not None
    assert circuit.claim_probe() is None


def test_one_failure_opens_it_for_everybody(circuit):
    opened(circuit, "no answer in time")
    assert circuit.admit() is None
    assert (circuit.is_open, circuit.reason) == (True, "no answer in time")


def test_a_probe_is_due_after_a_wait_and_only_one_may_make_it(circuit, clock):
    opened(circuit)
    assert circuit.claim_probe() is None
    clock.pass_(FIRST_WAIT_S)
    assert circuit.claim_probe() is not None
    assert circuit.claim_probe() is None
    assert circuit.admit() is None, "half-open: everybody else still may not"


def test_waits_grow_up_to_the_longest(circuit, clock):
    opened(circuit)
    waits = []
    for _ in range(10):
        waits.append(circuit.until_probe_s())
        clock.pass_(waits[-1] + 0.001)
        circuit.probe_failed(circuit.claim_probe(), "still down")
    assert waits == pytest.approx([min(FIRST_WAIT_S * 2**n, LONGEST_WAIT_S) for n in range(10)], abs=0.01)
    assert circuit.reason == "still down"


def test_a_probe_that_succeeds_closes_it_and_the_next_outage_begins_with_the_first_wait(circuit, clock):
    opened(circuit)
    clock.pass_(FIRST_WAIT_S)
    circuit.probe_failed(circuit.claim_probe(), "down")
    clock.pass_(LONGEST_WAIT_S)
    assert circuit.succeed(circuit.claim_probe())
    assert (circuit.is_open, circuit.reason) == (False, "")
    opened(circuit)
    assert circuit.until_probe_s() == pytest.approx(FIRST_WAIT_S)


def test_an_outcome_from_before_changes_nothing(circuit, clock):
    slow = circuit.admit()
    opened(circuit)
    assert circuit.succeed(slow) is False
    assert circuit.is_open, "it began before the outage"
    clock.pass_(FIRST_WAIT_S)
    circuit.succeed(circuit.claim_probe())
    assert circuit.fail(slow, "late") is False
    assert not circuit.is_open, "it began before the recovery"


class CircuitRules(RuleBasedStateMachine):
    """Any order of calls, against the rules in their plainest form."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.circuit = Circuit(lambda: self.now)
        self.down = False
        self.due_at = None
        self.failed_probes = 0
        self.tries = []
        self.stale = []
        self.claim = None

    def change(self, down):
        self.down = down
        self.stale += self.tries + ([self.claim] if self.claim is not None else [])
        self.tries, self.claim, self.failed_probes = [], None, 0
        self.due_at = self.now + FIRST_WAIT_S if down else None

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds):
        self.now += seconds

    @rule()
    def ask(self):
        epoch = self.circuit.admit()
        assert (epoch is None) == self.down
        if epoch is not None:
            self.tries.append(epoch)

    @precondition(lambda self: self.tries)
    @rule(data=st.data(), well=st.booleans())
    def a_try_ends(self, data, well):
        epoch = self.tries.pop(data.draw(st.integers(0, len(self.tries) - 1)))
        if well:
            assert self.circuit.succeed(epoch) is False
        else:
            assert self.circuit.fail(epoch, "down") is True
            self.change(down=True)

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), outcome=st.sampled_from(["succeed", "fail", "probe_failed"]))
    def a_try_from_before_ends(self, data, outcome):
        epoch = self.stale.pop(data.draw(st.integers(0, len(self.stale) - 1)))
        reasons = () if outcome == "succeed" else ("late",)
        assert not getattr(self.circuit, outcome)(epoch, *reasons)

    @rule()
    def claim_the_probe(self):
        epoch = self.circuit.claim_probe()
        may = self.down and self.claim is None and self.now >= self.due_at
        assert (epoch is not None) == may
        self.claim = epoch if may else self.claim

    @precondition(lambda self: self.claim is not None)
    @rule(well=st.booleans())
    def the_probe_ends(self, well):
        epoch, self.claim = self.claim, None
        if well:
            assert self.circuit.succeed(epoch) is True
            self.change(down=False)
        else:
            self.circuit.probe_failed(epoch, "down")
            self.failed_probes += 1
            self.due_at = self.now + min(FIRST_WAIT_S * 2**self.failed_probes, LONGEST_WAIT_S)

    @precondition(lambda self: self.down)
    @rule(well=st.booleans())
    def somebody_looks_while_it_is_down(self, well):
        if well:
            assert self.circuit.succeed(self.circuit.epoch) is True
            self.change(down=False)
        else:
            assert self.circuit.fail(self.circuit.epoch, "down") is False

    @invariant()
    def it_is_as_the_rules_say(self):
        assert self.circuit.is_open == self.down
        assert 0 <= self.circuit.until_probe_s() <= LONGEST_WAIT_S
        if self.down and self.claim is None:
            assert self.circuit.until_probe_s() == pytest.approx(max(0, self.due_at - self.now), abs=1e-6)


TestCircuitRules = CircuitRules.TestCase


class Store:
    """A store whose server is down or well, as a test has it."""

    def __init__(self, make_circuit=lambda: Circuit(first_wait_s=0.01, longest_wait_s=0.02)):
        self.error = None
        self.probes = []
        self.breaker = Breaker("cache", self.probe, make_circuit)

    def _ask(self):
        if self.error is not None:
            raise self.error

    def probe(self):
        self.probes.append(threading.current_thread().name)
        self._ask()

    def call(self):
        with self.breaker.guard():
            self._ask()

    def look(self):
        with self.breaker.observe():
            self._ask()

    def goes(self, error=None):
        self.error = error or StoreUnavailable("cache", "no answer in time")


def far_off():
    """No probe comes in the time of a test."""
    return Circuit(first_wait_s=3600)


def down(store):
    with pytest.raises(StoreUnavailable) as raised:
        store.call()
    return raised.value.reason


def well_again(store):
    deadline = time.monotonic() + PATIENCE_S
    while store.breaker.is_open:
        assert time.monotonic() < deadline
    store.call()


def test_after_a_failure_calls_fail_without_asking_until_a_probe_succeeds(caplog):
    caplog.set_level(logging.INFO)
    store = Store()
    store.call()
    store.goes()
    assert down(store) == "no answer in time"
    assert down(store) == "no answer in time; not asked again before a probe succeeds"
    store.error = None
    well_again(store)
    assert set(store.probes) == {"cache-prober"}
    deadline = time.monotonic() + PATIENCE_S
    # Said after calls are let through again.
    while caplog.messages[-1] != "the cache store is available again":
        assert time.monotonic() < deadline, caplog.messages
    assert [text for text in caplog.messages if "not available" in text] == [
        "the cache store is not available (no answer in time): calls fail at once until it is"
    ]


def test_probes_go_on_until_one_succeeds_though_nobody_calls():
    store = Store()
    store.goes()
    down(store)
    deadline = time.monotonic() + PATIENCE_S
    while len(store.probes) < 5:
        assert time.monotonic() < deadline
    store.error = None
    well_again(store)


def test_a_refusal_by_a_store_that_answers_opens_nothing():
    store = Store(far_off)
    store.goes(StoreUnavailable("cache", "read-only", lost=False))
    assert down(store) == "read-only"
    assert not store.breaker.is_open


def test_a_store_that_answers_its_probe_with_a_refusal_is_not_lost():
    store = Store()
    store.goes()
    down(store)
    store.goes(StoreUnavailable("cache", "read-only", lost=False))
    deadline = time.monotonic() + PATIENCE_S
    while store.breaker.is_open:
        assert time.monotonic() < deadline


def test_another_stores_outage_and_other_errors_open_nothing():
    store = Store(far_off)
    for error in (StoreUnavailable("metadata", "gone"), ValueError("a fault of the program")):
        store.goes(error)
        with pytest.raises(type(error)):
            store.call()
        assert not store.breaker.is_open


def test_a_probe_that_breaks_is_a_probe_that_failed(caplog):
    store = Store()
    store.goes()
    down(store)
    store.error = ValueError("a fault of the program")
    deadline = time.monotonic() + PATIENCE_S
    while "the probe of the cache store broke" not in caplog.text:
        assert time.monotonic() < deadline
    assert store.breaker.is_open
    store.error = None
    well_again(store)


def test_a_look_is_always_taken_and_opens_and_closes():
    store = Store(far_off)
    store.goes()
    with pytest.raises(StoreUnavailable):
        store.look()
    assert "not asked again" in down(store)
    store.error = None
    store.look()
    store.call()


def test_guards_may_be_nested():
    store = Store(far_off)
    with store.breaker.guard():
        store.call()
    store.goes()
    with pytest.raises(StoreUnavailable), store.breaker.guard():
        store.call()
    assert store.breaker.is_open


@pytest.mark.race
def test_one_thread_probes_for_any_number_of_callers():
    store = Store(far_off)
    store.goes()
    start = threading.Barrier(20)

    def call():
        start.wait()
        for _ in range(50):
            down(store)

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    probers = [thread for thread in threading.enumerate() if thread.name == "cache-prober"]
    assert len([thread for thread in probers if thread is store.breaker._present().prober]) == 1


def test_the_thread_ends_with_its_store():
    store = Store()
    store.goes()
    down(store)
    prober = store.breaker._present().prober
    # The exception that a test has caught holds the frames, and with them the store.
    del store
    gc.collect()
    prober.join(PATIENCE_S)
    assert not prober.is_alive()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_finds_out_for_itself():
    store = Store(far_off)
    store.goes()
    down(store)
    store.error = None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.call()
            os.write(writer, b"asked")
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"asked"
    os.close(reader)
    assert store.breaker.is_open, "the parent's own stays as it was"
