"""The metadata store: what use-cases may rely on, on each of its twins, and what is the embedded one's alone."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peewee
import pytest

from common.core.errors import StoreUnavailable
from common.models.account import Account
from common.models.operation import Job, LockRow, State
from common.stores.database import Database, SqliteStore, Taken
from common.stores.mysql_store import MysqlStore
from common.stores.waiting import MustWait
from tests.breaking import locked_against_everybody

Open = Callable[[], Database]


@pytest.fixture(params=["sqlite", "mariadb"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same empty database again and again."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "metadata.db")
    server, schema = request.getfixturevalue("mariadb_server"), request.getfixturevalue("schema")
    return lambda: MysqlStore(server.section(schema))


@pytest.fixture
def store(opened: Open) -> Iterator[Database]:
    store = opened()
    for model in (State, LockRow, Job, Account):
        store.create(model)
    yield store
    store.close()


def together(*parts: Callable[[], object]) -> list[BaseException]:
    """What went wrong in several threads at once."""
    failures: list[BaseException] = []

    def run(part: Callable[[], object]) -> None:
        try:
            part()
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return failures


def test_a_transaction_that_fails_leaves_nothing(store: Database) -> None:
    def fail() -> None:
        with store.transaction():
            store.insert(State, name="a", value=1)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert store.all("SELECT * FROM rk_state") == []


def test_an_inner_transaction_that_fails_leaves_the_outer_one_alone(store: Database) -> None:
    def fail() -> None:
        with store.transaction():
            store.insert(State, name="lost", value=1)
            store.insert(State, name="kept", value=2)

    with store.transaction():
        store.insert(State, name="kept", value=1)
        with pytest.raises(Taken):
            fail()
        with store.transaction():
            store.insert(State, name="inner", value=3)

    assert store.all("SELECT name, value FROM rk_state ORDER BY name") == [("inner", 3), ("kept", 1)]


def test_what_waits_for_a_commit_is_called_after_it_and_not_where_it_was_undone(store: Database) -> None:
    called: list[tuple[str, int]] = []

    def wait(name: str) -> None:
        store.after_commit(lambda: called.append((name, len(store.all("SELECT * FROM rk_state WHERE name = 'seen'")))))

    def fail(name: str) -> None:
        with store.transaction():
            wait(name)
            raise LookupError

    with store.transaction():
        store.insert(State, name="seen", value=1)
        wait("outer")
        with pytest.raises(LookupError):
            fail("undone by itself")
        with store.transaction():
            wait("inner")
        assert called == []
    with pytest.raises(LookupError):
        fail("undone")
    wait("in none")

    assert called == [("outer", 1), ("inner", 1), ("in none", 1)]


def test_a_taken_value_leaves_the_transaction_as_it_was(store: Database) -> None:
    with store.transaction():
        store.insert(State, name="a", value=1)
        with pytest.raises(Taken):
            store.insert(State, name="a", value=2)
        store.insert(State, name="b", value=3)

    assert store.all("SELECT name, value FROM rk_state ORDER BY name") == [("a", 1), ("b", 3)]


def test_a_taken_value_is_told_apart_from_a_missing_one(store: Database) -> None:
    store.insert(State, name="a", value=1)

    with pytest.raises(Taken):
        store.insert(State, name="a", value=2)
    with pytest.raises(Exception, match=r"NOT NULL|default value") as caught:
        store.run("INSERT INTO rk_state (name) VALUES ('b')")
    assert not isinstance(caught.value, Taken)


def test_keys_are_compared_to_the_character(store: Database) -> None:
    for number, name in enumerate(("a", "A", "\u00e1", "b")):
        store.insert(State, name=name, value=number)

    assert store.one("SELECT value FROM rk_state WHERE name = ?", ("A",)) == (1,)
    assert [name for (name,) in store.all("SELECT name FROM rk_state ORDER BY name")] == ["A", "a", "b", "\u00e1"]


def test_parameters_are_marks_outside_of_quotes_alone(store: Database) -> None:
    store.insert(State, name="50 % of what?", value=7)

    row = store.one("SELECT '?', '%', '100 %s', name, ? FROM rk_state WHERE name LIKE '50 % of what?'", ("%s?'\"\\",))

    assert row == ("?", "%", "100 %s", "50 % of what?", "%s?'\"\\")


@pytest.mark.parametrize("text", ["", "\u2018\U0001f511\u4e2d", "\0\\'\";--", "x" * 200_000], ids=repr)
def test_texts_come_back_as_they_were(store: Database, text: str) -> None:
    job = Job.insert(kind="k", payload=text, state="ready", visible_at=0, created_at=0)

    job_id = store.execute(job)

    assert store.one("SELECT payload, progress FROM rk_job WHERE id = ?", (job_id,)) == (text, None)


def test_numbers_and_switches_come_back_as_they_were(store: Database) -> None:
    store.insert(State, name="large", value=2**63 - 1)
    store.insert(Account, user_id="u", email_key="k", nickname_key="n", must_change=True, created_at=0)

    assert store.one("SELECT value FROM rk_state") == (2**63 - 1,)
    row = store.one("SELECT must_change, last_login_at FROM rk_account WHERE must_change = ?", (True,))
    assert row == (1, None)


def test_a_change_counts_the_rows_that_it_found(store: Database) -> None:
    for name in ("a", "b"):
        store.insert(State, name=name, value=1)

    assert store.run("UPDATE rk_state SET value = ?", (2,)) == 2
    assert store.run("UPDATE rk_state SET value = ?", (2,)) == 2
    assert store.execute(State.update(value=2).where(State.name == "a")) == 1
    assert store.run("DELETE FROM rk_state WHERE name = 'c'") == 0


def test_ids_of_their_own_are_told_and_rise(store: Database) -> None:
    ids = [
        store.execute(Job.insert(kind="k", payload="{}", state="ready", visible_at=0, created_at=0)) for _ in range(3)
    ]

    assert ids == sorted(set(ids))
    assert store.all("SELECT id FROM rk_job ORDER BY id") == [(job_id,) for job_id in ids]


def test_a_lock_makes_what_was_read_true_until_the_end(store: Database) -> None:
    store.insert(State, name="count", value=0)

    def add() -> None:
        try:
            for _ in range(25):
                with store.transaction():
                    store.one("SELECT value FROM rk_state WHERE name = 'count'")
                    store.lock("counter")
                    row = store.one("SELECT value FROM rk_state WHERE name = 'count'")
                    assert row
                    store.run("UPDATE rk_state SET value = ? WHERE name = 'count'", (row[0] + 1,))
        finally:
            store.close()

    assert together(*[add] * 4) == []
    assert store.one("SELECT value FROM rk_state") == (100,)


def test_a_lock_of_a_name_that_is_new_to_everybody_is_one(store: Database) -> None:
    inside, most, barrier = [], [], threading.Barrier(4)

    def hold(name: str) -> None:
        try:
            barrier.wait(10)
            with store.transaction():
                store.lock(name)
                inside.append(1)
                most.append(len(inside))
                store.one("SELECT COUNT(*) FROM rk_state")
                inside.pop()
        finally:
            store.close()

    for round_ in range(10):
        assert together(*[lambda name=f"new {round_}": hold(name)] * 4) == []
    assert set(most) == {1}


def test_a_reader_sees_nothing_of_a_transaction_before_its_end(store: Database, opened: Open) -> None:
    other = opened()
    with store.transaction():
        store.insert(State, name="a", value=1)
        assert other.all("SELECT * FROM rk_state") == []
    assert other.all("SELECT name FROM rk_state") == [("a",)]
    other.close()


def test_what_is_there_already_is_not_made_again(store: Database) -> None:
    store.create(State)
    for _ in range(2):
        store.create_index("rk_state_value", "rk_state", "value, name")

    assert "rk_state" in store.tables()


def test_an_index_that_is_removed_is_gone(store: Database) -> None:
    store.create(State)
    store.create_index("rk_state_value", "rk_state", "value, name")
    by_it = f"SELECT name FROM rk_state {store.by_index('rk_state_value')} WHERE value = 1"
    assert store.all(by_it) == []

    for _ in range(2):
        store.drop_index("rk_state_value", "rk_state")

    with pytest.raises(store.defects):
        store.all(by_it)


def test_a_migration_is_alone(opened: Open) -> None:
    steps: list[str] = []

    def migrate() -> None:
        store = opened()
        try:
            with store.migrating():
                steps.append("begins")
                store.create(State)
                steps.append("ends")
        finally:
            store.close()

    assert together(*[migrate] * 3) == []
    assert steps == ["begins", "ends"] * 3


def test_health_is_in_milliseconds_and_says_when_nothing_was_migrated(opened: Open) -> None:
    store = opened()
    store.create(LockRow)
    with pytest.raises(StoreUnavailable) as caught:
        store.health()
    assert caught.value.reason == "its tables are missing"

    for model in (State, _Migration):
        store.create(model)
    assert 0 < store.health() < 10_000
    store.close()


class _Migration(peewee.Model):
    number = peewee.IntegerField(primary_key=True)

    class Meta:
        table_name = "rk_migration"


def test_moments_are_read_as_moments_or_as_their_text(store: Database) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as RAGFlow's columns hold it
    store.run("CREATE TABLE moments (at DATETIME)")
    store.run("INSERT INTO moments VALUES (?)", (at,))

    row = store.one("SELECT at FROM moments WHERE at >= ?", (at.isoformat(" "),))

    assert row
    assert str(row[0]) == "2026-01-02 03:04:05"


# The embedded twin


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "metadata.db", recheck_s=0)
    store.create(State)
    yield store
    store.close()


def test_health_sees_a_full_disk(embedded: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.create(_Migration)
    for f_bavail, reason in ((0, "its disk is full"), (1, None)):
        monkeypatch.setattr(os, "statvfs", lambda place, left=f_bavail: SimpleNamespace(f_blocks=9, f_bavail=left))
        assert reason_of(embedded.health) == reason


def test_health_knows_of_no_full_disk_where_none_is_told(
    embedded: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.create(_Migration)
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_blocks=0, f_bavail=0))
    assert reason_of(embedded.health) is None


def test_health_of_a_disk_that_can_not_be_asked_is_an_outage(
    embedded: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(place: Path) -> None:
        raise TimeoutError

    embedded.create(_Migration)
    monkeypatch.setattr(os, "statvfs", broken)
    assert reason_of(embedded.health) == "TimeoutError"


def reason_of(look: Callable[[], object]) -> str | None:
    """Why a store is unavailable; None where it isn't."""
    try:
        look()
    except StoreUnavailable as error:
        return error.reason
    return None


def test_writers_take_turns_even_when_they_read_first(embedded: SqliteStore) -> None:
    embedded.insert(State, name="count", value=0)

    def add() -> None:
        try:
            for _ in range(25):
                with embedded.transaction():
                    row = embedded.one("SELECT value FROM rk_state WHERE name = 'count'")
                    assert row
                    embedded.run("UPDATE rk_state SET value = ? WHERE name = 'count'", (row[0] + 1,))
        finally:
            embedded.close()

    assert together(*[add] * 4) == []
    assert embedded.one("SELECT value FROM rk_state") == (100,)


def test_a_file_that_is_no_database_is_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 50)

    with pytest.raises(StoreUnavailable) as caught:
        SqliteStore(path).all("SELECT 1 FROM rk_state")

    assert caught.value.data == {"store": "metadata"}


def test_a_folder_that_is_gone_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path / "gone" / "metadata.db").one("SELECT 1")


@pytest.mark.parametrize("depth", [1, 2])
def test_a_full_disk_is_an_outage_and_takes_the_whole_transaction(embedded: SqliteStore, depth: int) -> None:
    called: list[str] = []
    embedded.insert(State, name="before", value="v")
    [pages] = embedded.one("PRAGMA page_count") or ()
    embedded.peewee.execute_sql(f"PRAGMA max_page_count = {pages}")

    def write_too_much() -> None:
        with ExitStack() as stack:
            for _ in range(depth):
                stack.enter_context(embedded.transaction())
            embedded.after_commit(lambda: called.append("in it"))
            embedded.insert(State, name="in it", value="v")
            embedded.insert(State, name="large", value="v" * 100_000)

    with pytest.raises(StoreUnavailable) as raised:
        write_too_much()
    assert raised.value.reason == "database or disk is full"
    embedded.peewee.execute_sql("PRAGMA max_page_count = 1000000")
    with embedded.transaction():
        embedded.insert(State, name="after", value="v")
    assert embedded.all("SELECT name FROM rk_state ORDER BY name") == [("after",), ("before",)]
    assert called == []


def test_a_wrong_statement_is_not_called_an_outage(embedded: SqliteStore) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        embedded.all("SELECT no_such FROM rk_state")


def test_a_file_that_is_moved_away_is_an_outage_until_it_is_back(embedded: SqliteStore, tmp_path: Path) -> None:
    embedded.insert(State, name="kept", value=1)
    moved = tmp_path / "moved.db"
    embedded.path.rename(moved)

    for attempt in (
        lambda: embedded.one("SELECT 1"),
        lambda: embedded.all("SELECT 1"),
        lambda: embedded.run("DELETE FROM rk_state"),
        lambda: embedded.insert(State, name="lost", value=1),
        lambda: embedded.execute(State.delete()),
        lambda: embedded.transaction().__enter__(),
    ):
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                attempt()
    assert not embedded.path.exists()

    moved.rename(embedded.path)
    assert embedded.all("SELECT name FROM rk_state") == [("kept",)]


def test_a_file_that_is_replaced_is_read_and_written_at_once(embedded: SqliteStore, tmp_path: Path) -> None:
    embedded.insert(State, name="old", value=1)
    other = SqliteStore(tmp_path / "other.db")
    other.create(State)
    other.insert(State, name="new", value=1)
    other.close()

    for end in ("-wal", "-shm"):
        embedded.path.with_name(f"{embedded.path.name}{end}").unlink()
    other.path.replace(embedded.path)

    assert embedded.all("SELECT name FROM rk_state") == [("new",)]


def test_a_file_without_its_tables_is_an_outage(embedded: SqliteStore, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()

    empty.replace(embedded.path)

    with pytest.raises(StoreUnavailable):
        embedded.one("SELECT 1 FROM rk_state")


def test_every_commit_is_on_disk_before_it_is_acknowledged(embedded: SqliteStore) -> None:
    assert embedded.one("PRAGMA synchronous") == (2,)
    assert embedded.one("PRAGMA journal_mode") == ("wal",)


def on_an_event_loop(part: Callable[[], object]) -> Any:
    async def run() -> object:
        return part()

    return asyncio.run(run())


def test_on_an_event_loop_what_is_embedded_is_looked_up_and_nothing_is_waited_for(store: Database) -> None:
    store.insert(State, name="a", value=1)

    def look_up() -> list[Any]:
        return [store.one("SELECT value FROM rk_state"), *store.all("SELECT value FROM rk_state")]

    if isinstance(store, SqliteStore):
        assert on_an_event_loop(look_up) == [(1,), (1,)]
    else:
        with pytest.raises(MustWait):
            on_an_event_loop(look_up)


def test_on_an_event_loop_nothing_is_changed(store: Database) -> None:
    def within_a_transaction() -> None:
        with store.transaction():
            raise AssertionError("begun")

    changes: list[Callable[[], object]] = [
        lambda: store.run("INSERT INTO rk_state (name, value) VALUES (?, ?)", ("a", 1)),
        lambda: store.insert(State, name="a", value=1),
        lambda: store.execute(State.insert(name="a", value=1)),
        within_a_transaction,
    ]
    for change in changes:
        with pytest.raises(MustWait):
            on_an_event_loop(change)

    assert store.all("SELECT * FROM rk_state") == []


def test_on_an_event_loop_a_lock_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    store = SqliteStore(path)
    store.create(State)
    store.close()

    with locked_against_everybody(path), pytest.raises(MustWait):
        on_an_event_loop(lambda: store.one("SELECT value FROM rk_state"))
    assert on_an_event_loop(lambda: store.one("SELECT value FROM rk_state")) is None
    store.close()


def test_on_an_event_loop_many_rows_are_for_a_thread(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "metadata.db")
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n"

    with pytest.raises(MustWait):
        on_an_event_loop(lambda: store.all(counting, (101,)))
    assert len(store.all(counting, (101,))) == 101
    store.close()


def test_on_an_event_loop_a_statement_that_takes_long_is_broken_off(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "metadata.db")
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n"

    with pytest.raises(MustWait):
        on_an_event_loop(lambda: store.one(f"SELECT max(i) FROM ({counting})", (100_000,)))
    assert len(on_an_event_loop(lambda: store.all(counting, (100,)))) == 100
    store.close()
    assert len(store.all(counting, (100_000,))) == 100_000
    store.close()


def test_on_an_event_loop_nobody_who_opens_a_connection_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "metadata.db")
    store.create(State)
    store.close()
    opening, go_on, in_time = threading.Event(), threading.Event(), list[bool]()
    kind: Any = type(store.peewee)
    connect = kind._connect_patiently

    def waiting_for_the_file(database: Any) -> Any:
        opening.set()
        in_time.append(go_on.wait(10))
        return connect(database)

    def look_up() -> None:
        store.one("SELECT value FROM rk_state")
        store.close()

    monkeypatch.setattr(kind, "_connect_patiently", waiting_for_the_file)
    other = threading.Thread(target=look_up)
    other.start()
    assert opening.wait(10)

    assert on_an_event_loop(lambda: store.one("SELECT value FROM rk_state")) is None
    go_on.set()
    other.join()
    store.close()
    assert in_time == [True]


def test_on_an_event_loop_a_statement_on_a_file_that_has_just_come_is_broken_off_too(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "metadata.db", recheck_s=0)
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT max(i) FROM n"
    on_an_event_loop(lambda: store.one("SELECT 1"))
    new = SqliteStore(tmp_path / "new.db")
    new.create(State)
    new.close()
    (tmp_path / "new.db").rename(tmp_path / "metadata.db")

    with pytest.raises(MustWait):
        on_an_event_loop(lambda: store.one(counting))
    store.close()
