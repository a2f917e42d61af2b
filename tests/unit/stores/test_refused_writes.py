"""What health says of a store that refused to write: for how long, in which processes, and when it says nothing."""

from __future__ import annotations

import os
import time

import pytest

from common.core.errors import StoreUnavailable
from common.stores.refused_writes import SHOWN_S, RefusedWrites
from tests.unit.stores.conftest import Clock

FULL, WORN_OUT = "it is full", "its disk is worn out"


@pytest.fixture
def clock():
    # Files have the times of the machine.
    return Clock(time.time())


@pytest.fixture
def shared(tmp_path):
    return tmp_path / "metadata.refused"


@pytest.fixture
def process(shared, clock):
    """Gives what another process of the same home has."""
    return lambda: RefusedWrites("metadata", {FULL, WORN_OUT}, shared, clock=clock)


def said(refused):
    """Why health says that the store is not well, None where it is."""
    try:
        refused.check()
    except StoreUnavailable as error:
        return error.reason.removeprefix("it refused a change: ")
    return None


def test_it_is_said_by_every_process_of_the_home_and_not_for_ever(process, clock):
    met, other = process(), process()
    assert [said(met), said(other)] == [None, None]
    met.note(FULL)
    assert [said(met), said(other), said(process())] == [FULL] * 3
    clock.pass_(SHOWN_S - 0.5)
    assert [said(met), said(other)] == [FULL] * 2
    clock.pass_(1)
    assert [said(met), said(other), said(process())] == [None] * 3


def test_it_is_said_as_long_as_writes_are_refused(process, clock, shared):
    met, other = process(), process()
    for _ in range(10):
        met.note(FULL)
        os.utime(shared, (clock.now, clock.now))
        clock.pass_(SHOWN_S - 1)
        assert [said(met), said(other)] == [FULL] * 2


def test_the_store_is_named_and_does_not_count_as_lost(process):
    met = process()
    met.note(FULL)
    with pytest.raises(StoreUnavailable) as raised:
        met.check()
    assert (raised.value.store, raised.value.lost) == ("metadata", False)


def test_the_last_reason_counts(process):
    met, other = process(), process()
    met.note(WORN_OUT)
    met.note(FULL)
    assert [said(met), said(other)] == [FULL] * 2


def test_a_refusal_for_another_reason_says_nothing(process, shared):
    met = process()
    met.note("another transaction was in the way")
    met.note("")
    assert said(met) is None
    assert not shared.exists()


def test_others_are_told_at_most_once_a_second(process, clock, shared):
    met = process()
    met.note(FULL)
    shared.unlink()
    clock.pass_(0.5)
    met.note(FULL)
    assert not shared.exists()
    clock.pass_(0.6)
    met.note(FULL)
    assert shared.exists()


def test_only_its_owner_reads_it(process, shared):
    process().note(FULL)
    assert shared.stat().st_mode & 0o777 == 0o600


def test_a_home_that_can_not_be_written_costs_what_others_are_told_and_nothing_else(tmp_path, clock):
    nowhere = tmp_path / "missing" / "metadata.refused"
    for path in (nowhere, None):
        met, other = (RefusedWrites("metadata", {FULL}, path, clock=clock) for _ in range(2))
        met.note(FULL)
        assert [said(met), said(other)] == [FULL, None]


@pytest.mark.parametrize("content", [b"", b"it is quite well", b"\xff\xfe"])
def test_what_is_no_reason_says_nothing(process, shared, content):
    shared.write_bytes(content)
    assert said(process()) is None


def test_a_clock_that_was_set_back_does_not_make_it_last(process, clock):
    met = process()
    met.note(FULL)
    clock.pass_(-3600)
    assert [said(met), said(process())] == [None, None]
