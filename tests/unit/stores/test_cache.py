"""The contract of the cache, for every implementation, and what the embedded one does about its file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from common.conf.sections import RedisSection
from common.core.errors import StoreUnavailable
from common.stores.cache import SqliteCache
from common.stores.redis_cache import RedisCache

PATIENCE_S = 10.0


def sqlite_cache(folder, clock):
    return SqliteCache(folder / "cache.sqlite3", clock=clock, busy_timeout_s=0.05)


class Embedded:
    """The embedded cache, whose time a test moves."""

    def __init__(self, folder, clock):
        self.cache = sqlite_cache(folder, clock)
        self.pass_ = clock.pass_
        self.close = self.cache.close
        self.program = "from common.stores.cache import SqliteCache; from pathlib import Path;"
        self.program += f"cache = SqliteCache(Path({str(folder / 'cache.sqlite3')!r}), clock=lambda: {clock()!r});"


class Server:
    """The cache on a real Redis, whose own clock can't be moved: what is left of every key's time is shortened there,
    and what has none left is waited for until the server itself has let it go."""

    def __init__(self, server):
        self.client = server.client(db=3)
        section = f"host={server.address!r}, password={server.password!r}, db=3"
        self.cache = RedisCache(RedisSection(host=server.address, password=server.password, db=3))
        self.program = (
            "from common.stores.redis_cache import RedisCache; from common.conf.sections import RedisSection;"
        )
        self.program += f"cache = RedisCache(RedisSection({section}));"

    def pass_(self, seconds):
        over = []
        for key in self.client.keys("*"):
            left_ms = self.client.pttl(key)
            if left_ms >= 0:
                after_ms = left_ms - round(seconds * 1000)
                self.client.pexpire(key, max(1, after_ms))
                over += [key] if after_ms <= 0 else []
        gone(self.client, over)

    def close(self):
        self.cache.close()
        self.client.close()


def gone(client, keys):
    """Returns when the server has none of the keys any more."""
    deadline = time.monotonic() + PATIENCE_S
    while keys and client.exists(*keys):
        assert time.monotonic() < deadline, f"still there: {keys}"


@pytest.fixture(params=["sqlite", "redis"])
def twin(request, tmp_path, clock):
    if request.param == "sqlite":
        twin = Embedded(tmp_path, clock)
    else:
        twin = Server(request.getfixturevalue("redis_server"))
    twin.cache.prepare()
    yield twin
    twin.close()


@pytest.fixture
def cache(twin):
    return twin.cache


@pytest.fixture
def pass_(twin):
    """Lets so many seconds pass."""
    return twin.pass_


@pytest.fixture
def embedded(tmp_path, clock):
    cache = sqlite_cache(tmp_path, clock)
    cache.prepare()
    yield cache
    cache.close()


def assert_counts(count, value, resets_in):
    """A server's time goes on while the test looks."""
    assert count.value == value
    assert resets_in - 2 < count.resets_in <= resets_in


def test_a_value_is_there_until_its_time_is_over(cache, pass_):
    cache.set("otp", "123456", ttl_s=60)
    pass_(59)
    assert cache.get("otp") == "123456"
    pass_(1)
    assert cache.get("otp") is None


def test_a_value_without_a_time_stays(cache, pass_):
    cache.set("k", "v")
    pass_(10**9)
    assert cache.get("k") == "v"


def test_a_value_replaces_the_one_before_and_its_time(cache, pass_):
    cache.set("k", "old", ttl_s=1)
    cache.set("k", "new")
    pass_(2)
    assert cache.get("k") == "new"


def test_deleting_tells_whether_there_was_something(cache, pass_):
    cache.set("k", "v", ttl_s=5)
    assert cache.delete("k") is True
    assert cache.get("k") is None
    assert cache.delete("k") is False
    cache.set("k", "v", ttl_s=5)
    pass_(6)
    assert cache.delete("k") is False


def test_a_value_is_redeemed_for_another_once(cache, pass_):
    cache.set("code", "v", ttl_s=5)
    cache.set("proof", "older")
    assert cache.redeem("code", "proof", "new", 60) is True
    assert (cache.get("code"), cache.get("proof")) == (None, "new")
    assert cache.redeem("code", "proof", "newer", 60) is False
    assert cache.get("proof") == "new"
    pass_(60)
    assert cache.get("proof") is None


def test_a_value_whose_time_is_over_is_redeemed_for_nothing(cache, pass_):
    cache.set("code", "v", ttl_s=5)
    pass_(5)
    assert cache.redeem("code", "proof", "new", 60) is False
    assert cache.get("proof") is None


def test_a_counter_starts_again_after_the_window_that_its_first_increment_opened(cache, pass_):
    assert_counts(cache.incr("login", 60), 1, 60)
    pass_(40)
    assert_counts(cache.incr("login", 60), 2, 20)
    pass_(20)
    assert_counts(cache.incr("login", 60), 1, 60)


def test_a_deleted_counter_starts_again(cache):
    cache.incr("login", 60)
    cache.delete("login")
    assert cache.incr("login", 60).value == 1


@pytest.mark.parametrize("stored", ["what somebody else stores here", "9" * 400])
def test_a_number_that_was_set_is_counted_and_what_is_none_is_refused(cache, stored):
    assert cache.counted("login") == 0
    cache.set("login", "5", ttl_s=60)
    assert cache.counted("login") == 5
    cache.set("login", stored, ttl_s=60)
    with pytest.raises(StoreUnavailable) as refused:
        cache.counted("login")
    assert refused.value.reason == "a value that is no number"
    assert refused.value.lost is False


def test_a_clock_that_was_put_back_locks_nobody_out_longer_than_the_window(cache, pass_):
    cache.incr("login", 60)
    pass_(-86_400)
    assert_counts(cache.incr("login", 60), 2, 60)


@pytest.mark.race
def test_threads_that_count_together_get_every_number_once(twin, tmp_path, clock):
    # Without the short wait for other writers that the other tests give the embedded one.
    cache = SqliteCache(tmp_path / "cache.sqlite3", clock=clock) if isinstance(twin, Embedded) else twin.cache
    seen = []
    start = threading.Barrier(4)

    def count():
        start.wait()
        seen.extend([cache.incr("n", 60).value for _ in range(50)])
        cache.close()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert sorted(seen) == list(range(1, 201))


@pytest.mark.race
def test_of_many_that_want_a_free_lease_one_gets_it(twin, tmp_path, clock):
    cache = SqliteCache(tmp_path / "cache.sqlite3", clock=clock) if isinstance(twin, Embedded) else twin.cache
    got = []
    start = threading.Barrier(6)

    def want(owner):
        start.wait()
        if cache.acquire_lease("scheduler", owner, 30):
            got.append(owner)
        cache.close()

    threads = [threading.Thread(target=want, args=(f"owner {number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_a_lease_has_one_owner_until_it_expires(cache, pass_):
    assert cache.acquire_lease("scheduler", "a", 30) is True
    assert cache.acquire_lease("scheduler", "b", 30) is False
    pass_(30)
    assert cache.acquire_lease("scheduler", "b", 30) is True
    assert cache.acquire_lease("scheduler", "a", 30) is False


def test_the_owner_prolongs_a_lease_and_another_can_not(cache, pass_):
    cache.acquire_lease("scheduler", "a", 30)
    pass_(20)
    assert cache.acquire_lease("scheduler", "b", 30) is False
    assert cache.acquire_lease("scheduler", "a", 30) is True
    pass_(20)
    assert cache.acquire_lease("scheduler", "b", 30) is False


def test_an_owner_who_lost_the_lease_is_told_so(cache, pass_):
    cache.acquire_lease("scheduler", "a", 30)
    pass_(31)
    assert cache.release_lease("scheduler", "a") is False


def test_a_lease_is_ended_whoever_holds_it(cache):
    cache.acquire_lease("scheduler", "a", 30)
    assert cache.release_lease("scheduler", "b") is False
    assert cache.release_lease("scheduler", None) is True
    assert cache.release_lease("scheduler", None) is False
    assert cache.acquire_lease("scheduler", "b", 30) is True


def test_a_clock_that_was_put_back_leaves_a_lease_no_longer_than_anybody_takes_it_for(cache, pass_):
    for name in ("scheduler", "wait"):
        cache.acquire_lease(name, "a", 30)
    pass_(-86_400)
    assert cache.acquire_lease("scheduler", "b", 30) is False
    assert cache.acquire_lease("wait", "b", 30, 900) is False
    pass_(30)
    assert cache.acquire_lease("scheduler", "b", 30) is True
    assert cache.acquire_lease("wait", "b", 30, 900) is False
    pass_(870)
    assert cache.acquire_lease("wait", "b", 30, 900) is True


def test_who_asks_for_a_lease_for_less_time_takes_none_of_it(cache, pass_):
    cache.acquire_lease("wait", "a", 900, 900)
    assert cache.acquire_lease("wait", "b", 30, 900) is False
    pass_(899)
    assert cache.acquire_lease("wait", "b", 30, 900) is False


def test_a_released_lease_is_free_and_only_its_owner_releases_it(cache):
    cache.acquire_lease("scheduler", "a", 30)
    assert cache.release_lease("scheduler", "b") is False
    assert cache.acquire_lease("scheduler", "b", 30) is False
    assert cache.release_lease("scheduler", "a") is True
    assert cache.acquire_lease("scheduler", "b", 30) is True


def test_heartbeats_come_by_executor_oldest_first(cache):
    cache.beat("task_executor_b", {"pid": 2}, at=1000)
    cache.beat("task_executor_a", {"pid": 1, "n": 2}, at=1030)
    cache.beat("task_executor_a", {"pid": 1, "n": 1}, at=1000)
    assert cache.heartbeats(since=0) == {
        "task_executor_a": [{"pid": 1, "n": 1}, {"pid": 1, "n": 2}],
        "task_executor_b": [{"pid": 2}],
    }


def test_a_silent_executor_is_listed_with_no_heartbeats(cache):
    cache.beat("task_executor_a", {"n": 1}, at=1000)
    assert cache.heartbeats(since=1001) == {"task_executor_a": []}
    assert cache.heartbeats(since=1000) == {"task_executor_a": [{"n": 1}]}


def test_a_beat_drops_those_over_thirty_minutes_old(cache):
    cache.beat("task_executor_a", {"n": 1}, at=1000)
    cache.beat("task_executor_a", {"n": 2}, at=1000.5)
    cache.beat("task_executor_a", {"n": 3}, at=1000.5 + 1800)
    assert cache.heartbeats(since=0) == {"task_executor_a": [{"n": 2}, {"n": 3}]}


def test_a_removed_executor_is_gone_with_its_heartbeats(cache):
    cache.beat("task_executor_a", {}, at=1000)
    cache.beat("task_executor_b", {}, at=1000)
    cache.remove_executor("task_executor_a")
    assert sorted(cache.heartbeats(since=0)) == ["task_executor_b"]
    assert cache.heartbeats(since=0) == {"task_executor_b": [{}]}


def test_a_lease_and_a_value_of_one_name_are_two_things(cache):
    cache.set("scheduler", "v")
    assert cache.acquire_lease("scheduler", "a", 30) is True
    cache.delete("scheduler")
    assert cache.acquire_lease("scheduler", "b", 30) is False


def test_a_value_is_given_back_as_it_was(cache):
    for value in ("", "ünïcödé ✓ \u0000 \n", "1", "x" * 100_000):
        cache.set("k", value)
        assert cache.get("k") == value


def test_a_purge_leaves_what_is_not_over(cache, pass_):
    cache.set("old", "v", ttl_s=10)
    cache.set("young", "v", ttl_s=100)
    cache.set("eternal", "v")
    cache.acquire_lease("young", "a", 100)
    pass_(10)
    while cache.purge_expired(limit=3):
        pass
    assert (cache.get("old"), cache.get("young"), cache.get("eternal")) == (None, "v", "v")
    assert cache.acquire_lease("young", "b", 1) is False


def test_what_one_process_stores_another_sees(twin):
    twin.cache.set("k", "v")
    shown = subprocess.run(
        [sys.executable, "-c", f"{twin.program} print(cache.get('k'))"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert shown.stdout.strip() == "v"


def test_health_tells_the_time_it_took(cache):
    assert 0 <= cache.health() < 5000


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_opens_its_own_connection(twin):
    cache = twin.cache
    cache.set("k", "parent")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        seen = cache.get("k")
        cache.set("k", "child")
        os.write(writer, seen.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"parent"
    os.close(reader)
    os.close(writer)
    assert cache.get("k") == "child"
    assert cache.incr("n", 60).value == 1


# The embedded one


def test_a_purge_deletes_expired_things_only_and_no_more_than_its_limit(embedded, clock):
    cache = embedded
    for number in range(5):
        cache.set(f"old{number}", "v", ttl_s=10)
    cache.set("young", "v", ttl_s=100)
    cache.set("eternal", "v")
    cache.acquire_lease("old", "a", 10)
    cache.acquire_lease("young", "a", 100)
    clock.pass_(10)
    assert cache.purge_expired(limit=3) == 4
    assert cache.purge_expired(limit=3) == 2
    assert cache.purge_expired(limit=3) == 0
    assert (cache.get("young"), cache.get("eternal")) == ("v", "v")
    assert cache.acquire_lease("young", "b", 1) is False


def test_health_tells_the_time_it_took_and_writes_nothing(embedded, tmp_path):
    def stored():
        # Not `-shm`: memory that readers share, where each notes how far it reads.
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.match("*-shm")}

    before = stored()
    assert 0 <= embedded.health() < 5000
    assert stored() == before


def test_health_sees_a_full_disk(embedded, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_blocks=9, f_bavail=0))
    with pytest.raises(StoreUnavailable) as raised:
        embedded.health()
    assert (raised.value.store, raised.value.reason) == ("cache", "its disk is full")


def test_health_does_not_make_a_missing_file(tmp_path, clock):
    cache = sqlite_cache(tmp_path, clock)
    with pytest.raises(StoreUnavailable) as raised:
        cache.health()
    assert raised.value.store == "cache"
    assert list(tmp_path.iterdir()) == []


def test_health_does_not_wait_for_a_writer(embedded, tmp_path):
    writer = sqlite3.connect(tmp_path / "cache.sqlite3", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert embedded.health() < 5000
    writer.close()


def test_a_file_that_another_holds_locked_is_an_unavailable_store_and_recovers(embedded, tmp_path):
    writer = sqlite3.connect(tmp_path / "cache.sqlite3", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable) as raised:
        embedded.incr("n", 60)
    with pytest.raises(StoreUnavailable):
        embedded.beat("task_executor_a", {}, at=1000)
    assert (raised.value.store, raised.value.reason) == ("cache", "SQLITE_BUSY")
    writer.execute("ROLLBACK")
    writer.close()
    assert embedded.incr("n", 60).value == 1


def test_a_missing_folder_is_an_unavailable_store_until_it_is_back(tmp_path, clock):
    folder = tmp_path / "home"
    folder.mkdir()
    cache = sqlite_cache(folder, clock)
    cache.set("k", "v")
    folder.rename(tmp_path / "away")
    with pytest.raises(StoreUnavailable):
        cache.set("k", "lost")
    with pytest.raises(StoreUnavailable):
        cache.health()
    (tmp_path / "away").rename(folder)
    assert cache.get("k") == "v"
    cache.close()


def test_a_removed_file_is_not_written_to_any_more_but_made_anew(embedded, tmp_path, clock):
    embedded.set("k", "v")
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(StoreUnavailable):
        embedded.health()
    assert embedded.get("k") is None
    embedded.set("k", "again")
    other = sqlite_cache(tmp_path, clock)
    assert other.get("k") == "again"
    other.close()


def test_a_file_that_is_no_database_is_an_unavailable_store_until_it_is_replaced(tmp_path, clock):
    path = tmp_path / "cache.sqlite3"
    path.write_bytes(b"garbage, and enough of it to look like a page" * 100)
    cache = sqlite_cache(tmp_path, clock)
    for call in (cache.prepare, cache.health, lambda: cache.get("k")):
        with pytest.raises(StoreUnavailable) as raised:
            call()
        assert raised.value.reason == "SQLITE_NOTADB"
    path.unlink()
    cache.set("k", "v")
    assert cache.get("k") == "v"
    cache.close()


def test_the_error_names_no_path_to_the_caller(tmp_path, clock):
    cache = sqlite_cache(tmp_path / "missing", clock)
    with pytest.raises(StoreUnavailable) as raised:
        cache.get("k")
    assert str(tmp_path) not in raised.value.message + raised.value.reason


def test_the_file_is_for_its_owner_only(embedded, tmp_path):
    embedded.set("k", "v")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_thread_keeps_its_connection(embedded, monkeypatch):
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: opened.append(1) or connect(*args, **kwargs))
    for _ in range(3):
        embedded.incr("n", 60)
    embedded.health()
    assert opened == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_opens_the_file_anew(embedded, monkeypatch):
    embedded.set("k", "parent")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        opened = []
        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: opened.append(1) or connect(*args, **kwargs))
        seen = embedded.get("k")
        embedded.set("k", "child")
        os.write(writer, f"{seen} {len(opened)}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"parent 1"
    os.close(reader)
    os.close(writer)
    assert embedded.get("k") == "child"


@pytest.mark.race
def test_processes_that_start_together_make_one_file(tmp_path):
    program = (
        "import sys; from pathlib import Path; from common.stores.cache import SqliteCache;"
        "cache = SqliteCache(Path(sys.argv[1])); sys.stdin.read(); cache.prepare(); cache.incr('n', 60)"
    )
    starting = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "cache.sqlite3")], stdin=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in starting:
        process.stdin.close()
    assert [process.wait(timeout=30) for process in starting] == [0, 0, 0, 0]
    cache = SqliteCache(tmp_path / "cache.sqlite3")
    assert cache.incr("n", 60).value == 5
    cache.close()


@pytest.mark.parametrize("busy_timeout_s", [0, 5.1])
def test_a_wait_that_is_not_bounded_to_five_seconds_is_refused(tmp_path, busy_timeout_s):
    with pytest.raises(ValueError, match="busy_timeout_s"):
        SqliteCache(tmp_path / "cache.sqlite3", busy_timeout_s=busy_timeout_s)
