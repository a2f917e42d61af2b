"""Settings that change at run time, as the processes see them."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from common.core.errors import StoreUnavailable
from common.core.variables import Variable
from common.models.variable import StoredVariable
from common.services import variables
from common.services.plane import Plane
from common.services.variables import Variables

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
