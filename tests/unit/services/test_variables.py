"""Settings that change at run time, as the processes see them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import pytest

from common.core.errors import StoreUnavailable
from common.core.variables import Variable
from common.models.variable import StoredVariable
from common.services import variables
from common.services.plane import Plane
from common.services.variables import Variables
from tests.waiting import pause

COUNT = Variable("test.count", "integer", 3, "How many.", least=1)


class Hand:
    """A clock that a test moves, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variables, "VARIABLES", MappingProxyType({COUNT.name: COUNT}))


def store(plane: Plane, text: str) -> None:
    with plane.database.transaction():
        plane.database.run("DELETE FROM rk_variable")
        plane.database.insert(StoredVariable, name="test.count", value=text, updated_at=0)
        plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")


def test_without_a_stored_value_the_default_holds_and_a_stored_one_within_a_second(plane: Plane) -> None:
    clock = Hand()
    known = Variables(plane.database, clock)
    assert known.integer("test.count") == 3

    store(plane, "5")
    clock.now += variables.EVERY_S

    assert known.integer("test.count") == 5


def test_the_version_of_an_authentication_makes_it_hold_at_once(plane: Plane) -> None:
    known = Variables(plane.database, Hand())
    assert known.integer("test.count") == 3

    store(plane, "5")
    row = plane.database.one("SELECT value FROM rk_state WHERE name = 'variables_version'")
    assert row is not None
    known.follow(row[0])

    assert known.integer("test.count") == 5


def test_a_stored_value_that_breaks_the_rule_does_not_count(plane: Plane) -> None:
    store(plane, "0")

    assert Variables(plane.database, Hand()).integer("test.count") == 3


def test_while_the_database_is_down_the_last_value_holds_and_nobody_asks_more_than_once_a_second(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = Hand(), []
    known = Variables(plane.database, clock)
    store(plane, "5")
    assert known.integer("test.count") == 5

    def down(*_: object) -> None:
        asked.append(clock.now)
        raise StoreUnavailable("metadata", "down for the test")

    monkeypatch.setattr(plane.database, "one", down)
    clock.now += variables.EVERY_S

    assert [known.integer("test.count") for _ in range(3)] == [5, 5, 5]
    assert len(asked) == 1


def test_a_glance_waits_for_nothing_and_has_the_value_looked_up_meanwhile(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Variables(plane.database, Hand())
    hanging, ask = threading.Event(), plane.database.one
    store(plane, "5")

    def slow(sql: str, params: Sequence[Any] = ()) -> Any:
        assert hanging.wait(20)
        return ask(sql, params)

    monkeypatch.setattr(plane.database, "one", slow)
    assert known.glance("test.count") == 3
    hanging.set()

    deadline = time.monotonic() + 20
    while known.glance("test.count") != 5:
        assert time.monotonic() < deadline
        pause(0.01)


def test_no_thread_has_defaults_while_another_one_reads_for_the_first_time(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(plane, "5")
    known = Variables(plane.database)
    reading, go_on, read = threading.Event(), threading.Event(), plane.database.all

    def slow(sql: str, params: Sequence[Any] = ()) -> Any:
        reading.set()
        assert go_on.wait(20)
        return read(sql, params)

    def asked() -> int:
        try:
            return known.integer("test.count")
        finally:
            plane.database.close()

    monkeypatch.setattr(plane.database, "all", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(asked)
        assert reading.wait(20)
        second = pool.submit(asked)
        go_on.set()
        assert (first.result(20), second.result(20)) == (5, 5)


def test_no_thread_has_what_held_long_ago_while_another_one_looks(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Hand()
    known = Variables(plane.database, clock)
    assert known.integer("test.count") == 3
    store(plane, "5")
    clock.now += 3600
    looking, go_on, ask = threading.Event(), threading.Event(), plane.database.one

    def slow(sql: str, params: Sequence[Any] = ()) -> Any:
        looking.set()
        assert go_on.wait(20)
        return ask(sql, params)

    def asked() -> int:
        try:
            return known.integer("test.count")
        finally:
            plane.database.close()

    monkeypatch.setattr(plane.database, "one", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(asked)
        assert looking.wait(20)
        second = pool.submit(asked)
        pause(0.05)
        go_on.set()
        assert [first.result(20), second.result(20)] == [5, 5]


def test_while_the_database_hangs_the_last_value_holds_after_a_second_for_a_second(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Hand()
    known = Variables(plane.database, clock)
    assert known.integer("test.count") == 3
    clock.now += 3600
    looking, go_on = threading.Event(), threading.Event()

    def hang(sql: str, params: Sequence[Any] = ()) -> Any:
        looking.set()
        assert go_on.wait(20)
        raise StoreUnavailable("metadata", "hangs")

    monkeypatch.setattr(plane.database, "one", hang)
    monkeypatch.setattr(variables, "EVERY_S", 0.2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(known.integer, "test.count")
        assert looking.wait(20)
        began = time.monotonic()
        assert [known.integer("test.count") for _ in range(50)] == [3] * 50
        assert 0.2 <= time.monotonic() - began < 5
        go_on.set()
        assert first.result(20) == 3


def test_a_secret_that_no_key_opens_is_none(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Variable("test.secret", "string", "", "A secret.", secret=True)
    monkeypatch.setattr(variables, "VARIABLES", MappingProxyType({secret.name: secret}))
    plane.database.insert(StoredVariable, name=secret.name, value="rk2:garbage", updated_at=0)

    assert Variables(plane.database, Hand(), unseal=plane.keys.unseal).secret(secret.name) is None


def test_flags_are_known_with_the_other_values_and_an_unknown_one_is_off(plane: Plane) -> None:
    flags = {
        "everybody": {"state": "on"},
        "some": {"state": "tenants", "tenants": ["t1"]},
        "broken": {"state": 1},
    }
    for name, value in flags.items():
        plane.database.insert(StoredVariable, name=f"feature.{name}", value=json.dumps(value), updated_at=0)
    known = Variables(plane.database, Hand())

    assert {name: known.feature(name, "t1") for name in (*flags, "unknown")} == {
        "everybody": True,
        "some": True,
        "broken": False,
        "unknown": False,
    }
    assert not known.feature("some", "t2")
    assert not known.feature("some", None)


def test_what_is_stored_and_not_registered_is_passed_over(plane: Plane) -> None:
    plane.database.insert(StoredVariable, name="of.a.later.version", value="1", updated_at=0)

    assert Variables(plane.database, Hand()).integer("test.count") == 3
