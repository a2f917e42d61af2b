"""The metadata store's embedded twin."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from peewee import SchemaManager

from common.core.errors import StoreUnavailable
from common.models.operation import State
from common.stores.database import SqliteStore, Taken


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "metadata.db")
    SchemaManager(State, database=opened.peewee).create_all()
    yield opened
    opened.close()


def test_a_transaction_that_fails_leaves_nothing(store: SqliteStore) -> None:
    def fail() -> None:
        with store.transaction():
            store.insert(State, name="a", value=1)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert store.all("SELECT * FROM rk_state") == []


def test_an_inner_transaction_that_fails_leaves_the_outer_one_alone(store: SqliteStore) -> None:
    def fail() -> None:
        with store.transaction():
            store.insert(State, name="lost", value=1)
            store.insert(State, name="kept", value=2)

    with store.transaction():
        store.insert(State, name="kept", value=1)
        with pytest.raises(Taken):
            fail()

    assert store.all("SELECT name, value FROM rk_state") == [("kept", 1)]


def test_a_taken_value_is_told_apart_from_a_missing_one(store: SqliteStore) -> None:
    store.insert(State, name="a", value=1)

    with pytest.raises(Taken):
        store.insert(State, name="a", value=2)
    with pytest.raises(Exception, match="NOT NULL"):
        store.run("INSERT INTO rk_state (name) VALUES ('b')")


def test_writers_take_turns_even_when_they_read_first(store: SqliteStore) -> None:
    store.insert(State, name="count", value=0)
    failures: list[BaseException] = []

    def add() -> None:
        try:
            for _ in range(25):
                with store.transaction():
                    row = store.one("SELECT value FROM rk_state WHERE name = 'count'")
                    assert row
                    store.run("UPDATE rk_state SET value = ? WHERE name = 'count'", (row[0] + 1,))
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            failures.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert failures == []
    assert store.one("SELECT value FROM rk_state") == (100,)


def test_a_file_that_is_no_database_is_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 50)

    with pytest.raises(StoreUnavailable) as caught:
        SqliteStore(path).all("SELECT 1 FROM rk_state")

    assert caught.value.data == {"store": "metadata"}


def test_a_folder_that_is_gone_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path / "gone" / "metadata.db").one("SELECT 1")


def test_a_wrong_statement_is_not_called_an_outage(store: SqliteStore) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        store.all("SELECT * FROM no_such")


def test_every_commit_is_on_disk_before_it_is_acknowledged(store: SqliteStore) -> None:
    assert store.one("PRAGMA synchronous") == (2,)
    assert store.one("PRAGMA journal_mode") == ("wal",)
