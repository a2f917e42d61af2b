from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.verdicts import (
    Heartbeat,
    Verdict,
    cluster_verdict,
    executors_verdict,
    heartbeat_verdict,
    parse_heartbeat,
)

NOW = 1_700_000_000.0


@pytest.mark.parametrize("status", ["green", "GREEN", "yellow"])
def test_a_green_or_yellow_cluster_is_well(status: str) -> None:
    assert cluster_verdict(status).word == "ok"


@pytest.mark.parametrize("status", ["red", "Red", "", "unknown", None, 1, ["green"]])
def test_a_red_cluster_and_one_without_a_known_status_are_not(status: object) -> None:
    verdict = cluster_verdict(status)
    assert verdict.word == "nok"
    assert verdict.reason


def test_a_cluster_that_reports_an_error_is_not_well_whatever_its_colour() -> None:
    assert cluster_verdict("green", "index not found") == Verdict(False, "index not found")


@pytest.mark.parametrize(("age_s", "ok"), [(0, True), (30, True), (90, True), (90.5, False), (3600, False)])
def test_a_heartbeat_is_well_for_90_seconds(age_s: float, ok: bool) -> None:
    assert heartbeat_verdict(NOW - age_s, NOW).ok is ok


def test_no_heartbeat_is_not_well() -> None:
    assert not heartbeat_verdict(None, NOW).ok


def test_a_clock_that_is_a_little_fast_is_forgiven_and_a_wild_one_is_not() -> None:
    assert heartbeat_verdict(NOW + 5, NOW).ok
    assert "clocks" in heartbeat_verdict(NOW + 600, NOW).reason


def test_one_executor_that_is_alive_is_enough() -> None:
    assert executors_verdict({"a": NOW - 500, "b": NOW - 5}, NOW).ok
    verdict = executors_verdict({"a": NOW - 500, "b": None}, NOW)
    assert verdict.reason == "no executor is alive: a: the last heartbeat is 500 s old; b: no heartbeat"
    assert not executors_verdict({}, NOW).ok


def test_a_heartbeat_in_ragflows_form_is_read() -> None:
    wire = {
        "ip_address": "10.0.0.7", "pid": 42, "name": "te", "now": "2023-11-14T22:13:20.250+00:00",
        "boot_at": "2023-11-14T22:12:20.000+00:00", "pending": 3, "lag": 2, "done": 10, "failed": 1,
        "current": {"job-1": {"kind": "purge"}},
    }  # fmt: skip
    beat = Heartbeat("te", NOW + 0.25, NOW - 60, "10.0.0.7", 42, 3, 2, 10, 1, {"job-1": {"kind": "purge"}})
    for member in (json.dumps(wire), json.dumps(wire).encode()):
        assert parse_heartbeat(member, name="another") == beat


def test_a_heartbeat_of_another_zone_is_the_same_moment() -> None:
    beat = parse_heartbeat('{"now": "2023-11-15T06:13:20.000+08:00"}', name="te")
    assert beat is not None
    assert beat.now_s == NOW


def test_a_heartbeat_without_an_offset_counts_as_utc() -> None:
    beat = parse_heartbeat('{"now": "2023-11-14T22:13:20.000"}', name="te")
    assert beat is not None
    assert beat.now_s == NOW


def test_what_a_heartbeat_does_not_say_is_filled_in() -> None:
    assert parse_heartbeat("{}", name="te", score_s=NOW) == Heartbeat("te", NOW, NOW)


def test_strange_fields_do_not_make_an_executor_dead() -> None:
    member = {
        "now": 5,
        "boot_at": "x",
        "pid": "42",
        "pending": None,
        "lag": -1,
        "done": 7.0,
        "failed": True,
        "current": [],
    }
    beat = parse_heartbeat(json.dumps(member), name="te", score_s=NOW)
    assert beat == Heartbeat("te", NOW, NOW, pid=42, done=7)


def test_numbers_that_are_none_count_as_nothing() -> None:
    beat = parse_heartbeat('{"pid": Infinity, "lag": NaN, "done": -Infinity}', name="te", score_s=NOW)
    assert beat == Heartbeat("te", NOW, NOW)


@pytest.mark.parametrize(
    "member", ["", "alive", "[]", "7", "null", b"\xff\xfe\xfa", "[" * 100_000, "{}", '{"now": "no"}']
)
def test_what_is_no_heartbeat_or_has_no_time_is_none(member: str | bytes) -> None:
    assert parse_heartbeat(member, name="te") is None


JSON_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.dictionaries(st.sampled_from([field.name.removesuffix("_s") for field in fields(Heartbeat)]), JSON_VALUES))
def test_no_member_breaks_the_parser(member: dict[str, object]) -> None:
    beat = parse_heartbeat(json.dumps(member), name="te", score_s=NOW)
    assert beat is not None
    assert min(beat.pid, beat.pending, beat.lag, beat.done, beat.failed) >= 0
