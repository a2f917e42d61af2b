"""The metadata store on a real MariaDB: every way in which the server can fail, how long that may take, and what is
left of a transaction then."""

from __future__ import annotations

import os
import struct
import threading
import time
from contextlib import contextmanager, nullcontext, suppress

import pymysql
import pytest
import trustme

from common.conf.file import SettingsError
from common.conf.sections import MySqlSection
from common.core.errors import BadField, StoreUnavailable
from common.migrations.runner import migrate
from common.models.operation import Job, LockRow, State
from common.stores import mysql_connection
from common.stores.database import Taken
from common.stores.mysql_connection import translated
from common.stores.mysql_errors import meaning_of
from common.stores.mysql_store import MysqlStore
from tests.backends.mariadb import USER, running_mariadb
from tests.backends.proxy import fault_proxy
from tests.people import START_MS
from tests.ports import free_ports
from tests.ragflow.schema import statements
from tests.unit.stores.servers import hang, raw_server

TIMEOUT_S = 0.5
# What a loaded machine may add to a deadline.
GRACE_S = 0.4
PATIENCE_S = 10.0
READ = "SELECT value FROM rk_state WHERE name = 'n'"
WRITE = "UPDATE rk_state SET value = value + 1 WHERE name = 'n'"


@pytest.fixture
def section(mariadb_server, schema):
    """Leads to a schema with one counter, ``n``."""
    section = mariadb_server.section(schema, timeout=TIMEOUT_S)
    store = MysqlStore(section)
    for model in (State, LockRow, Job):
        store.create(model)
    store.insert(State, name="n", value=0)
    store.close()
    return section


@pytest.fixture
def store(section):
    store = MysqlStore(section)
    store.one(READ)
    yield store
    store.close()


@pytest.fixture
def proxy(mariadb_server):
    with fault_proxy(mariadb_server.port) as proxy:
        yield proxy


@pytest.fixture
def behind(section, proxy):
    """The store on the other side of the fault proxy, with a connection that is kept."""
    store = MysqlStore(section.model_copy(update={"port": proxy.port}))
    store.one(READ)
    yield store
    store.close()


@contextmanager
def server_variable(server, name, value):
    """While a variable of the server has another value."""
    ((before,),) = server.ask(f"SELECT @@global.{name}")
    server.ask(f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        server.ask(f"SET GLOBAL {name} = {before}")


def failure(call, *args):
    with pytest.raises(StoreUnavailable) as raised:
        call(*args)
    assert raised.value.store == "metadata"
    return raised.value


def refusal(call, *args):
    """Why the server did not do it, although it is there."""
    error = failure(call, *args)
    assert not error.lost
    return error.reason


def outage(call, *args):
    """Why the server counts as lost, and how many seconds it took to find out."""
    began = time.monotonic()
    error = failure(call, *args)
    assert error.lost
    return error.reason, time.monotonic() - began


def soon(call):
    """What a call gives as soon as the store is available again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except StoreUnavailable:
            assert time.monotonic() < deadline


def connection_id(store):
    return store.one("SELECT CONNECTION_ID()")[0]


def in_a_transaction(store, *calls):
    with store.transaction():
        for call in calls:
            call()


def in_another_thread(call):
    """Runs beside the test; joined by the value that this gives."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join():
        thread.join(PATIENCE_S)
        return outcome[0]

    return join


# How a session is set up


def test_a_session_is_strict_and_sees_what_is_committed_meanwhile(store):
    modes, isolation, wait, most = store.one(
        "SELECT @@sql_mode, @@tx_isolation, @@innodb_lock_wait_timeout, @@group_concat_max_len"
    )
    assert {"STRICT_TRANS_TABLES", "ONLY_FULL_GROUP_BY"} <= set(modes.split(","))
    assert (isolation, wait) == ("READ-COMMITTED", mysql_connection.LOCK_WAIT_S)
    assert most >= 1 << 20


@pytest.mark.parametrize("use", ["one", "transaction"])
def test_a_connection_that_took_the_place_of_another_is_set_up_as_that_one_was(mariadb_server, store, use):
    roles, length = "SELECT LENGTH(GROUP_CONCAT(REPEAT('r', 64))) FROM seq_1_to_1000", 65 * 1000 - 1
    # MySQL's default, which would cut them.
    with server_variable(mariadb_server, "group_concat_max_len", 1024):
        first = connection_id(store)
        assert store.one(roles) == (length,)
        mariadb_server.ask(f"KILL {first}")
        with store.transaction() if use == "transaction" else nullcontext():
            assert store.one(roles) == (length,)
        assert connection_id(store) != first


def test_it_knows_mariadb_from_mysql(store):
    assert store.connection().mariadb
    assert store.peewee.mariadb
    assert store.peewee.server_version >= (10, 11)


def test_keys_are_exact_and_ids_are_compared_as_ragflows(mariadb_server, schema):
    mariadb_server.ask("ALTER DATABASE COLLATE utf8mb4_general_ci", schema=schema)
    for statement in statements("0.22", "mysql", "utf8mb4_unicode_ci"):
        mariadb_server.ask(statement, schema=schema)
    store = MysqlStore(mariadb_server.section(schema))
    migrate(store, START_MS)
    columns = dict(
        store.all(
            "SELECT column_name, collation_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = 'rk_account' AND collation_name IS NOT NULL"
        )
    )
    store.close()
    assert columns == {
        "user_id": "utf8mb4_unicode_ci",
        "email_key": "utf8mb4_bin",
        "nickname_key": "utf8mb4_bin",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT ?", "SELECT %s"),
        ("SELECT '?', \"?\", `?`, ?", "SELECT '?', \"?\", `?`, %s"),
        ("SELECT 'it''s ?', ?", "SELECT 'it''s ?', %s"),
        ("SELECT 7 % ?, '50%'", "SELECT 7 %% %s, '50%%'"),
        ("SELECT '`?' || ?", "SELECT '`?' || %s"),
    ],
)
def test_marks_are_translated_outside_of_quotes(text, expected):
    assert translated(text) == expected


# What is a value's fault, and what is none of the store's


def test_a_value_that_does_not_fit_is_the_fields(store):
    with pytest.raises(BadField, match="name: is too long") as raised:
        store.insert(State, name="x" * 65, value=1)
    assert raised.value.field == "name"
    with pytest.raises(BadField, match="value: is too large"):
        store.run("UPDATE rk_state SET value = ?", (2**63,))


def test_a_wrong_statement_is_not_called_an_outage(store):
    with pytest.raises(pymysql.err.ProgrammingError):
        store.one("SELECT nothing FROM")
    with pytest.raises(pymysql.err.OperationalError, match="Unknown column"):
        store.one("SELECT nothing FROM rk_state")
    assert store.one(READ) == (0,)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1021, "its disk is full"),
        (1114, "it is full"),
        (1026, "it can't write to its disk"),
        (1037, "it is out of memory"),
        (1129, "it has blocked this host after many broken connections (FLUSH HOSTS)"),
        (1142, "the user may not do that to one of its tables"),
        (1836, "it is read-only"),
        (3024, "the statement took too long"),
        (1047, "it takes no statements now; a node of a cluster may have left it"),
        (3101, "it takes no statements now; a node of a cluster may have left it"),
        (1180, "it could not commit"),
    ],
)
def test_refusals_are_told_in_words_and_are_no_outage(code, reason):
    error = meaning_of(pymysql.err.OperationalError(code, "secret words of the server"))
    assert isinstance(error, StoreUnavailable)
    assert (error.reason, error.lost) == (reason, False)


def test_a_full_disk_is_told_from_a_broken_one():
    full = meaning_of(pymysql.err.OperationalError(1030, 'Got error 28 "No space left on device" from storage engine'))
    broken = meaning_of(pymysql.err.OperationalError(1030, "Got error 5 from storage engine"))
    assert (full.reason, broken.reason) == ("its disk is full", "its storage failed")


# Refused, while the server is well


def test_wrong_credentials_are_refused_at_once(section):
    store = MysqlStore(section.model_copy(update={"user": "nobody"}))
    began = time.monotonic()
    assert refusal(store.one, READ) == "it refuses the user name or the password"
    assert refusal(store.health) == "it refuses the user name or the password"
    assert time.monotonic() - began < TIMEOUT_S


def test_a_database_that_there_is_not_or_is_not_for_this_user(mariadb_server, section):
    missing = MysqlStore(section.model_copy(update={"name": "rk_test_missing"}))
    assert refusal(missing.one, "SELECT 1") == "it has no database of this name"
    foreign = MysqlStore(section.model_copy(update={"name": "mysql"}))
    assert refusal(foreign.one, "SELECT 1") == "the user may not use this database"


def test_new_credentials_are_read_when_the_old_ones_are_refused(mariadb_server, section):
    read = []

    def reread():
        read.append(1)
        return section

    store = MysqlStore(mariadb_server.section(section.name, password="outdated"), reread=reread)
    assert store.one(READ) == (0,)
    store.close()
    assert store.one(READ) == (0,)
    assert read == [1]
    store.close()


def test_credentials_that_are_refused_again_are_not_tried_for_ever(mariadb_server, section):
    outdated = mariadb_server.section(section.name, password="outdated")
    read = []
    store = MysqlStore(outdated, reread=lambda: read.append(1) or outdated)
    assert refusal(store.one, READ) == "it refuses the user name or the password"
    assert read == [1]


def test_a_read_only_server_is_read_and_its_writes_are_refused(mariadb_server, store):
    with server_variable(mariadb_server, "read_only", 1):
        assert store.one(READ) == (0,)
        assert refusal(store.run, WRITE) == "it is read-only"
        assert refusal(in_a_transaction, store, lambda: store.run(WRITE)) == "it is read-only"
        assert refusal(store.health) == "it is read-only"
        assert store.one(READ) == (0,)
    assert store.run(WRITE) == 1
    assert store.health() >= 0, "its health tells it by itself, and remembers nothing"


def test_a_connection_to_a_server_that_became_read_only_is_left(mariadb_server, store):
    def connection():
        return store.one("SELECT CONNECTION_ID()")

    with server_variable(mariadb_server, "read_only", 1):
        first = connection()
        assert connection() == first
        refusal(store.run, WRITE)
        second = connection()
        assert second != first
        refusal(in_a_transaction, store, lambda: store.run(WRITE))
        assert connection() not in (first, second)


def test_a_connection_to_a_node_that_left_its_cluster_is_left(store):
    first = store.one("SELECT CONNECTION_ID()")

    assert "left it" in refusal(store.run, "SIGNAL SQLSTATE '08S01' SET MYSQL_ERRNO = 1047")

    assert store.one("SELECT CONNECTION_ID()") != first


def test_health_writes_nothing(mariadb_server, store):
    def writes():
        names = ("Handler_write", "Handler_update", "Handler_delete")
        return dict(mariadb_server.ask(f"SHOW GLOBAL STATUS WHERE Variable_name IN {names}"))

    before = writes()
    store.health()
    assert writes() == before
    store.insert(State, name="m", value=0)
    assert writes() == before | {"Handler_write": str(int(before["Handler_write"]) + 1)}, "the server counts it"


def test_health_of_a_user_who_may_not_write(mariadb_server, section):
    mariadb_server.ask(f"CREATE OR REPLACE USER reader@127.0.0.1 IDENTIFIED BY '{mariadb_server.password}'")
    mariadb_server.ask(f"GRANT SELECT ON {section.name}.* TO reader@127.0.0.1")
    store = MysqlStore(section.model_copy(update={"user": "reader"}))
    assert store.one(READ) == (0,)
    assert refusal(store.health) == "the user may not do that to one of its tables"
    store.close()
    mariadb_server.ask("DROP USER reader@127.0.0.1")


def test_a_server_that_takes_no_more_connections_goes_on_with_those_it_has(mariadb_server, section):
    limit = f"GRANT USAGE ON *.* TO '{USER}'@'127.0.0.1' WITH MAX_USER_CONNECTIONS"
    mariadb_server.ask(f"{limit} 1")
    try:
        store, other = MysqlStore(section), MysqlStore(section)
        assert store.one(READ) == (0,)
        assert "max_user_connections" in refusal(other.one, READ)
        assert store.run(WRITE) == 1
    finally:
        mariadb_server.ask(f"{limit} 0")
    assert other.one(READ) == (1,)
    for each in (store, other):
        each.close()


def test_a_server_at_its_limit_of_connections_says_so(tmp_path):
    with running_mariadb(tmp_path, max_connections=10) as server:
        schema = server.make_schema()
        stores = [MysqlStore(server.section(schema)) for _ in range(10)]
        for store in stores:
            store.one("SELECT 1")
        late = MysqlStore(server.section(schema))
        assert refusal(late.one, "SELECT 1") == "it accepts no more connections (max_connections)"
        assert stores[0].one("SELECT 1") == (1,)
        for store in stores:
            store.close()
        assert soon(lambda: late.one("SELECT 1")) == (1,)
        late.close()


def test_a_server_that_is_full_can_be_read_and_health_says_so_once_it_has_refused(tmp_path):
    with running_mariadb(tmp_path, innodb_file_per_table=0, innodb_data_file_path="ibdata1:12M") as server:
        section, refusals = server.section(server.make_schema()), tmp_path / "metadata.refused"
        store, other = MysqlStore(section, refusals=refusals), MysqlStore(section, refusals=refusals)
        for model in (State, Job):
            store.create(model)
        store.insert(State, name="n", value=0)
        job = Job.insert(kind="k", payload="x" * 1_000_000, state="ready", visible_at=0, created_at=0)

        def fill():
            for _ in range(30):
                store.execute(job)

        assert store.health() >= 0
        why = refusal(fill)
        assert why in ("it is full", "its disk is full")
        assert store.one(READ) == other.one(READ) == (0,)
        assert refusal(store.health) == refusal(other.health) == f"it refused a change: {why}"
        elsewhere = MysqlStore(section)
        assert elsewhere.health() >= 0, "nobody has told it"
        assert refusal(in_a_transaction, elsewhere, lambda: elsewhere.execute(job)) == why
        assert refusal(elsewhere.health) == f"it refused a change: {why}"
        for each in (store, other, elsewhere):
            each.close()


def test_a_statement_that_is_too_large_is_refused(mariadb_server, store):
    with server_variable(mariadb_server, "max_allowed_packet", 65536):
        store.close()
        job = Job.insert(kind="k", payload="x" * 100_000, state="ready", visible_at=0, created_at=0)
        assert not failure(store.execute, job).lost
    store.close()
    assert store.one(READ) == (0,)


def test_a_read_that_takes_too_long_is_no_outage(store):
    began = time.monotonic()
    assert refusal(store.one, "SELECT SLEEP(30)") == "the statement took too long"
    assert time.monotonic() - began < TIMEOUT_S + GRACE_S
    assert store.one(READ) == (0,)


# Transactions that meet


@pytest.fixture
def holding(section):
    """Another one's transaction that has changed the counter and is not over."""
    other = MysqlStore(section)
    begun, over = threading.Event(), threading.Event()

    def hold():
        with other.transaction():
            other.run(WRITE)
            begun.set()
            over.wait(PATIENCE_S)
        other.close()

    join = in_another_thread(hold)
    begun.wait(PATIENCE_S)
    yield over
    over.set()
    assert join() is None


def test_a_reader_waits_for_nobody(store, holding):
    assert store.one(READ) == (0,)


def test_a_writer_waits_longer_than_a_reader_may(store, holding):
    writing = in_another_thread(lambda: store.run(WRITE))
    threading.Event().wait(TIMEOUT_S * 2)
    holding.set()
    assert writing() == 1
    assert store.one(READ) == (2,)


@pytest.fixture
def impatient(monkeypatch, section):
    monkeypatch.setattr(mysql_connection, "LOCK_WAIT_S", 1)
    store = MysqlStore(section)
    yield store
    store.close()


def test_one_who_waited_in_vain_keeps_nothing(impatient, holding):
    calls = (lambda: impatient.insert(State, name="mine", value=1), lambda: impatient.run(WRITE))
    said = refusal(in_a_transaction, impatient, *calls)
    assert said == "another transaction held what was needed for too long"
    assert impatient.one("SELECT 1 FROM rk_state WHERE name = 'mine'") is None


@pytest.fixture
def locked(mariadb_server, schema):
    """Another session has the counter's table for itself."""
    with mariadb_server.root(schema) as cursor:
        cursor.execute("LOCK TABLES rk_state WRITE")
        yield


def test_a_reader_of_a_locked_table_is_told_within_the_timeout_and_others_go_on(store, locked):
    began = time.monotonic()
    assert refusal(store.one, READ) == "the statement took too long"
    assert time.monotonic() - began < TIMEOUT_S + GRACE_S
    assert store.all("SELECT id FROM rk_job") == []


def test_those_who_queue_up_behind_a_reader_of_a_locked_table_do_not_wait_each_in_turn(store, mariadb_server, schema):
    with mariadb_server.root(schema) as cursor:
        cursor.execute("LOCK TABLES rk_state WRITE")
        began = time.monotonic()
        assert refusal(store.one, READ) == "the statement took too long"
        for _ in range(20):
            assert refusal(store.one, READ) == "the statement took too long just now"
        assert time.monotonic() - began < TIMEOUT_S + GRACE_S
        assert store.all("SELECT id FROM rk_job") == []
    assert soon(lambda: store.one(READ)) == (0,)


def test_a_writer_to_a_locked_table_is_told_as_one_who_waits_for_a_row(impatient, locked):
    began = time.monotonic()
    assert refusal(impatient.run, WRITE) == "another transaction held what was needed for too long"
    assert time.monotonic() - began < 1 + TIMEOUT_S + GRACE_S
    assert impatient.all("SELECT id FROM rk_job") == []


def test_a_writer_who_waits_for_a_table_and_then_for_a_row_is_told_in_time(impatient, holding):
    # As long as a wait for each of the two after the other.
    impatient.run("SET SESSION innodb_lock_wait_timeout = 10")
    assert refusal(impatient.run, WRITE) == "the statement took too long"
    assert impatient.one(READ) == (0,)


def test_what_a_stopped_process_has_locked_is_free_again_after_a_while(section, store, monkeypatch):
    monkeypatch.setattr(mysql_connection, "IDLE_IN_TRANSACTION_S", 1)
    stopped = MysqlStore(section)

    def stop_within():
        stopped.run(WRITE)
        assert store.run(WRITE) == 1

    assert refusal(in_a_transaction, stopped, stop_within) == "the connection was cut"
    assert store.one(READ) == (1,)


def test_of_two_that_wait_for_each_other_one_is_undone_and_one_is_kept(section):
    setup = MysqlStore(section)
    for name in ("a", "b"):
        setup.insert(State, name=name, value=0)
    barrier = threading.Barrier(2)

    def change(first, second):
        store = MysqlStore(section)
        try:
            with store.transaction():
                store.run("UPDATE rk_state SET value = value + 1 WHERE name = ?", (first,))
                barrier.wait(PATIENCE_S)
                store.run("UPDATE rk_state SET value = value + 1 WHERE name = ?", (second,))
        finally:
            store.close()

    joins = [in_another_thread(lambda names=names: change(*names)) for names in (("a", "b"), ("b", "a"))]
    outcomes = [join() for join in joins]
    (undone,) = [each for each in outcomes if each is not None]
    assert (undone.reason, undone.lost) == (
        "another transaction was in the way, and this one was undone (deadlock)",
        False,
    )
    assert setup.all("SELECT value FROM rk_state WHERE name IN ('a', 'b')") == [(1,), (1,)]
    setup.close()


def test_a_single_statement_that_was_in_a_deadlock_is_repeated(store, monkeypatch):
    execute, said = pymysql.cursors.Cursor.execute, []

    def deadlocked(cursor, query, args=None):
        if "UPDATE" in query and len(said) < 2:
            said.append(query)
            raise pymysql.err.OperationalError(1213, "Deadlock found when trying to get lock")
        return execute(cursor, query, args)

    monkeypatch.setattr(pymysql.cursors.Cursor, "execute", deadlocked)
    assert store.run(WRITE) == 1
    assert len(said) == 2


def test_what_a_caller_makes_of_an_error_does_not_save_a_doomed_transaction(mariadb_server, store):
    def swallow():
        store.insert(State, name="mine", value=1)
        mariadb_server.ask(f"KILL {connection_id(store)}")
        with suppress(StoreUnavailable):
            store.run(WRITE)
        with suppress(StoreUnavailable), store.transaction():
            store.insert(State, name="inner", value=1)
        with suppress(StoreUnavailable):
            store.insert(State, name="other", value=1)

    assert "nothing of this transaction is kept" in refusal(in_a_transaction, store, swallow)
    assert store.all("SELECT name FROM rk_state WHERE name IN ('mine', 'inner', 'other')") == []
    assert store.run(WRITE) == 1


def test_a_value_that_is_taken_dooms_nothing(store):
    def taken():
        with pytest.raises(Taken):
            store.insert(State, name="n", value=1)

    in_a_transaction(store, taken, lambda: store.run(WRITE))
    assert store.one(READ) == (1,)


# Connections that end


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.one(READ),
        lambda store: store.run(WRITE),
        lambda store: store.insert(State, name="new", value=1),
        lambda store: in_a_transaction(store, lambda: store.run(WRITE)),
    ],
    ids=["read", "write", "insert", "transaction"],
)
@pytest.mark.parametrize("how", ["killed", "idle", "cut"])
def test_a_kept_connection_that_has_died_is_replaced_unseen(mariadb_server, behind, proxy, use, how):
    if how == "killed":
        mariadb_server.ask(f"KILL {connection_id(behind)}")
    elif how == "idle":
        behind.run("SET SESSION wait_timeout = 1")
    else:
        proxy.cut_once()
    deadline = time.monotonic() + PATIENCE_S
    while not behind.connection().is_stale():
        assert time.monotonic() < deadline
    use(behind)


def test_a_restart_of_the_server_is_not_noticed(tmp_path):
    with running_mariadb(tmp_path) as server:
        store = MysqlStore(server.section(server.make_schema()))
        store.create(State)
        store.insert(State, name="n", value=7)
        server.stop()
        server.start()
        assert store.one(READ) == (7,)
        server.kill()
        server.start()
        assert store.run(WRITE) == 1
        assert store.one(READ) == (8,)
        store.close()


def test_a_connection_that_ends_in_the_middle_of_a_transaction_is_not_replaced(mariadb_server, store):
    first = connection_id(store)

    def kill():
        mariadb_server.ask(f"KILL {first}")

    calls = (lambda: store.insert(State, name="mine", value=1), kill, lambda: store.run(WRITE))
    assert refusal(in_a_transaction, store, *calls) == "the connection was cut"
    assert store.one("SELECT 1 FROM rk_state WHERE name = 'mine'") is None
    assert connection_id(store) != first


def test_a_commit_without_an_answer_is_no_success(behind, proxy):
    reason, _ = outage(in_a_transaction, behind, lambda: behind.run(WRITE), proxy.hang)
    assert reason == "no answer in time"
    proxy.pass_through()
    assert soon(lambda: behind.one(READ)) in ((0,), (1,))


def test_a_write_whose_answer_was_cut_is_not_repeated(behind, proxy):
    proxy.slow(0.2)
    cutting = threading.Timer(0.1, proxy.cut_once)
    cutting.start()
    assert refusal(behind.run, WRITE) == "the connection was cut"
    cutting.join()
    proxy.pass_through()
    assert soon(lambda: behind.one(READ)) == (1,)


# Servers that hang


def test_a_refused_port_is_found_at_once(section):
    reason, seconds = outage(MysqlStore(section.model_copy(update={"port": free_ports(1)[0]})).one, READ)
    assert reason == "the connection was refused"
    assert seconds < GRACE_S


def test_a_server_that_is_frozen_costs_one_deadline_and_then_none(mariadb_server, store, section):
    other = MysqlStore(section)
    mariadb_server.freeze()
    try:
        for frozen in (store, other):
            reason, seconds = outage(frozen.one, READ)
            assert reason == "no answer in time"
            assert TIMEOUT_S * 0.9 < seconds < TIMEOUT_S + GRACE_S
            reason, seconds = outage(frozen.run, WRITE)
            assert "not asked again" in reason
            assert seconds < 0.1
        reason, seconds = outage(store.health)
        assert seconds < TIMEOUT_S + GRACE_S
    finally:
        mariadb_server.thaw()
    began = time.monotonic()
    assert soon(lambda: store.one(READ)) == (0,)
    assert soon(lambda: other.one(READ)) == (0,)
    assert time.monotonic() - began < PATIENCE_S
    other.close()


@pytest.mark.parametrize("fault", ["hang", "hang_mid_answer", "slow"])
def test_faults_of_the_network_end_in_time(behind, proxy, fault):
    fresh = MysqlStore(_section_of(behind))
    {"hang": proxy.hang, "hang_mid_answer": lambda: proxy.hang_mid_answer(5), "slow": lambda: proxy.slow(2)}[fault]()
    for store in (behind, fresh):
        reason, seconds = outage(store.one, READ)
        assert reason == "no answer in time"
        assert seconds < TIMEOUT_S + GRACE_S
    reason, seconds = outage(behind.health)
    assert seconds < TIMEOUT_S + GRACE_S
    proxy.pass_through()
    assert soon(lambda: behind.run(WRITE)) == 1


@pytest.mark.parametrize("fault", ["refuse", "cut"])
def test_faults_that_are_seen_at_once_take_no_time(behind, proxy, fault):
    getattr(proxy, fault)()
    reason, seconds = outage(behind.one, READ)
    assert reason in ("the connection was refused", "the connection was cut")
    assert seconds < GRACE_S
    proxy.pass_through()
    assert soon(lambda: behind.one(READ)) == (0,)


def _section_of(store):
    return MySqlSection(
        name=store._name,
        user=store._credentials.user,
        password=store._credentials.password,
        host=store._host,
        port=store._port,
        timeout=TIMEOUT_S,
    )


def test_a_server_that_drips_meets_the_deadline_too(section):
    def drip(connection, over):
        connection.sendall(struct.pack("<I", 80))
        while not over.wait(0.02):
            connection.sendall(b"x")

    with raw_server(drip) as port:
        reason, seconds = outage(MysqlStore(section.model_copy(update={"port": port})).one, READ)
    assert reason == "no answer in time"
    assert seconds < TIMEOUT_S + GRACE_S


def test_a_server_that_says_nothing_meets_the_deadline(section):
    with raw_server(hang) as port:
        reason, seconds = outage(MysqlStore(section.model_copy(update={"port": port})).one, READ)
    assert reason == "no answer in time"
    assert seconds < TIMEOUT_S + GRACE_S


def test_another_programs_server_is_told_from_a_database(section):
    def greet(connection, over):
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + b"x" * 3_000_000)
        over.wait()

    with raw_server(greet) as port:
        error = failure(MysqlStore(section.model_copy(update={"port": port})).one, READ)
    assert error.lost
    assert error.reason in ("it does not speak the protocol of MySQL", "no answer in time", "the connection was cut")


def test_a_host_name_that_nobody_knows(section):
    store = MysqlStore(section.model_copy(update={"host": "no-such-host.invalid"}))
    reason, seconds = outage(store.one, READ)
    assert reason in ("its host name is not known", "the host name was not resolved in time", "no answer in time")
    assert seconds < TIMEOUT_S + GRACE_S


def test_health_asks_also_while_the_breaker_is_open_and_closes_it(behind, proxy):
    proxy.refuse()
    outage(behind.one, READ)
    assert outage(behind.health)[0] == "the connection was refused"
    assert "not asked again" in outage(behind.one, READ)[0]
    proxy.pass_through()
    assert behind.health() >= 0
    assert behind.one(READ) == (0,)


def test_a_transaction_that_runs_is_not_ended_by_what_others_meet(store, monkeypatch):
    def down(*_):
        raise StoreUnavailable("metadata", "still down")

    with monkeypatch.context() as patch:
        patch.setattr(MysqlStore, "_look", down)
        with store.transaction():
            store.run(WRITE)
            with suppress(StoreUnavailable):
                store.health()
            assert "not asked again" in in_another_thread(lambda: outage(store.one, READ))()[0]
            store.run(WRITE)
    assert soon(lambda: store.one(READ)) == (2,)


# Processes, TLS, settings


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_uses_no_connection_of_its_parent(store):
    parents = connection_id(store)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(connection_id(store)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reader, 100)) != parents
    os.close(reader)
    os.close(writer)
    assert connection_id(store) == parents


def test_each_thread_has_a_connection_of_its_own_and_keeps_it(store):
    mine = connection_id(store)

    def theirs():
        found = {connection_id(store) for _ in range(3)}
        store.close()
        return found

    assert len(in_another_thread(theirs)() - {mine}) == 1
    assert connection_id(store) == mine


def test_it_speaks_tls_and_believes_only_whom_it_should(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    files = {"ssl_ca": tmp_path / "ca.pem", "ssl_cert": tmp_path / "cert.pem", "ssl_key": tmp_path / "key.pem"}
    with running_mariadb(tmp_path / "own", **files) as server:
        schema = server.make_schema()
        store = MysqlStore(server.section(schema, ssl=True, ssl_ca_certs=str(tmp_path / "ca.pem")))
        assert store.one("SELECT variable_value <> '' FROM information_schema.session_status "
                         "WHERE variable_name = 'Ssl_cipher'") == (1,)  # fmt: skip
        store.close()

        stranger = MysqlStore(server.section(schema, ssl=True, ssl_ca_certs=str(tmp_path / "other.pem")))
        assert outage(stranger.one, "SELECT 1")[0].startswith("its certificate is not trusted")


def test_tls_files_that_can_not_be_used_stop_the_start(tmp_path):
    with pytest.raises(SettingsError, match=r"mysql: .*missing\.pem"):
        MysqlStore(MySqlSection(host="db", ssl=True, ssl_ca_certs=str(tmp_path / "missing.pem")))


def test_tls_with_a_server_that_has_none_is_refused(section):
    error = failure(MysqlStore(section.model_copy(update={"ssl": True})).one, READ)
    assert error.reason == "it does not offer TLS"


def test_no_error_has_a_credential_in_it(mariadb_server, section, caplog):
    stores = [
        MysqlStore(section.model_copy(update={"user": "nobody"})),
        MysqlStore(section.model_copy(update={"port": free_ports(1)[0]})),
    ]
    for store in stores:
        error = failure(store.one, READ)
        said = f"{error} {error.reason} {error.data} {caplog.text}"
        assert mariadb_server.password not in said
        assert "nobody" not in said
