"""The cache on a real Redis: RAGFlow's keys, every way in which the server can fail, and how long that may take."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
import trustme
from redis.exceptions import ResponseError

from common.conf.file import SettingsError
from common.conf.sections import RedisSection
from common.core.errors import StoreUnavailable
from common.stores.redis_cache import SHARED_SECRET, RedisCache
from common.stores.redis_connection import is_read_only, reason_of
from tests.backends.proxy import fault_proxy
from tests.backends.redis import running_redis
from tests.ports import free_ports
from tests.unit.stores.servers import drip, raw_server, say

DB = 2
TIMEOUT_S = 0.4
# What a loaded machine may add to a deadline.
GRACE_S = 0.3
PATIENCE_S = 10.0


def section_for(server, **changes):
    return RedisSection.model_validate(
        {"host": server.address, "password": server.password, "db": DB, "timeout": TIMEOUT_S, **changes}
    )


@pytest.fixture
def cache(redis_server):
    cache = RedisCache(section_for(redis_server))
    yield cache
    cache.close()


@pytest.fixture
def client(redis_server):
    """A client beside the cache, to look at what is really stored."""
    with redis_server.client(DB) as client:
        yield client


@pytest.fixture
def proxy(redis_server):
    with fault_proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def behind(redis_server, proxy):
    """The cache on the other side of the fault proxy."""
    cache = RedisCache(section_for(redis_server, host=proxy.address))
    cache.set("k", "v")
    yield cache
    cache.close()


def reason(call, *args):
    """Why a call did not reach the store."""
    with pytest.raises(StoreUnavailable) as raised:
        call(*args)
    assert raised.value.store == "cache"
    return raised.value.reason


def soon(call):
    """What a call gives as soon as the store is available again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except StoreUnavailable:
            assert time.monotonic() < deadline


def took(call, *args):
    began = time.monotonic()
    said = reason(call, *args)
    return said, time.monotonic() - began


# RAGFlow's keys


def test_heartbeats_are_under_ragflows_keys_in_its_format(cache, client):
    cache.beat("task_executor_a", {"name": "task_executor_a", "pid": 7}, at=1_700_000_000.25)
    assert client.smembers("TASKEXE") == {"task_executor_a"}
    ((member, score),) = client.zrange("task_executor_a", 0, -1, withscores=True)
    assert (json.loads(member), score) == ({"name": "task_executor_a", "pid": 7}, 1_700_000_000.25)


def test_heartbeats_that_ragflow_wrote_are_read(cache, client):
    client.sadd("TASKEXE", "task_executor_0")
    beat = {"name": "task_executor_0", "now": "2026-01-01T00:00:00.000+08:00", "current": {"t": {"id": "t"}}}
    client.zadd("task_executor_0", {json.dumps(beat): 1_700_000_000.5})
    assert cache.heartbeats(since=1_700_000_000) == {"task_executor_0": [beat]}


def test_everything_else_is_under_our_prefix(cache, client):
    cache.set("k", "v")
    cache.incr("n", 60)
    cache.acquire_lease("scheduler", "a", 30)
    assert all(key.startswith("ragkeeper:") for key in client.keys("*"))


def test_the_cleaning_takes_turns_with_ragflows_executors(cache, client):
    client.set("clean_task_executor", "one of RAGFlow's", px=60_000)
    assert cache.acquire_lease("clean_task_executor", "ours", 30) is False
    assert client.pttl("clean_task_executor") > 30_000


BROKEN = {
    "no JSON": "{",
    "no UTF-8": b"\xff\xfe",
    "no object": "[1]",
    "half a character": '"\\ud800"',
    "half a character inside": '{"name": "\\ud800"}',
    "too deep": '{"a":' * 300 + "1" + "}" * 300,
    "no number": '{"pid": NaN}',
}


@pytest.mark.parametrize("member", BROKEN.values(), ids=BROKEN)
def test_a_heartbeat_that_is_broken_is_passed_over_and_the_others_are_not(cache, client, member):
    cache.beat("task_executor_a", {"pid": 1}, at=1000)
    client.zadd("task_executor_a", {member: 1001})
    assert cache.heartbeats(since=0) == {"task_executor_a": [{"pid": 1}]}


def test_a_key_of_another_type_under_an_executors_name_is_an_executor_without_heartbeats(cache, client):
    client.sadd("TASKEXE", "task_executor_a", b"\xffname")
    client.set("task_executor_a", "a text")
    assert cache.heartbeats(since=0) == {"task_executor_a": [], "\N{REPLACEMENT CHARACTER}name": []}


def test_a_registry_of_another_type_is_no_executors(cache, client):
    client.set("TASKEXE", "a text")
    assert cache.heartbeats(since=0) == {}
    assert cache.heartbeats(since=0) == {}
    assert "another type" in reason(cache.beat, "task_executor_a", {}, 1000.0)
    assert cache.get("k") is None, "the store itself is not lost"


def test_a_list_of_heartbeats_that_another_filled_is_not_read_whole(cache, client):
    client.sadd("TASKEXE", "task_executor_a")
    client.zadd("task_executor_a", {json.dumps({"n": number}): number for number in range(5000)})
    beats = cache.heartbeats(since=0)["task_executor_a"]
    assert (len(beats), beats[-1]) == (240, {"n": 4999})


def test_the_shared_secret_is_ragflows_where_there_is_one(cache, client):
    client.set(SHARED_SECRET, "a" * 64)
    assert cache.shared_secret("b" * 64) == "a" * 64
    assert client.get(SHARED_SECRET) == "a" * 64


def test_the_first_offer_of_a_secret_is_everybodys(cache, client):
    assert cache.shared_secret("a" * 64) == "a" * 64
    assert cache.shared_secret("b" * 64) == "a" * 64
    assert client.ttl(SHARED_SECRET) == -1


# Times are the server's


def test_a_value_and_a_lease_go_when_their_time_is_over(cache):
    cache.set("k", "v", ttl_s=0.05)
    cache.acquire_lease("scheduler", "a", 0.05)
    deadline = time.monotonic() + PATIENCE_S
    while cache.get("k") is not None or not cache.acquire_lease("scheduler", "b", 30):
        assert time.monotonic() < deadline


def test_a_counter_ends_with_its_window(cache):
    assert cache.incr("n", 0.05).value == 1
    deadline = time.monotonic() + PATIENCE_S
    values = [cache.incr("n", 0.05).value]
    while values[-1] != 1:
        assert time.monotonic() < deadline
        values.append(cache.incr("n", 0.05).value)
    assert values[:-1] == list(range(2, len(values) + 1))


# Health


def test_health_writes_nothing(cache, client):
    cache.health()
    written = client.info("persistence")["rdb_changes_since_last_save"]
    keys = client.keys("*")
    cache.health()
    assert client.info("persistence")["rdb_changes_since_last_save"] == written
    assert client.keys("*") == keys == []


def test_info_is_ragflows_selection(cache):
    assert cache.info().keys() == {
        "redis_version",
        "server_mode",
        "used_memory",
        "total_system_memory",
        "mem_fragmentation_ratio",
        "connected_clients",
        "blocked_clients",
        "instantaneous_ops_per_sec",
        "total_commands_processed",
    }


def test_a_user_who_may_not_see_info_gets_none_and_a_good_health(redis_server, client):
    client.acl_setuser("little", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all", "-@dangerous"])
    cache = RedisCache(section_for(redis_server, username="little", password="secret"))
    assert cache.health() >= 0
    assert cache.info() == {}
    cache.close()
    client.acl_deluser("little")


def test_a_replica_is_known_by_what_a_script_says_of_it_too():
    old = ResponseError(
        "Error running script (call to f_1f): @user_script:2: @user_script: 2: -READONLY You can't write against a "
        "read only replica. script: 1f, on @user_script:2."
    )

    assert is_read_only(old)
    assert reason_of(old) == "it is a read-only replica"
    assert not is_read_only(ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"))
    assert not is_read_only(b"-READONLY ")


def test_a_replica_reads_and_is_not_well(redis_server, tmp_path):
    with running_redis(tmp_path / "replica", replicaof=f"127.0.0.1 {redis_server.port}") as replica:
        with replica.client() as admin:
            admin.config_set("masterauth", redis_server.password)
        cache = RedisCache(section_for(replica))
        cache.get("k")
        with replica.client() as admin:
            kept = {client["id"] for client in admin.client_list() if client["cmd"] == "get"}
        assert reason(cache.set, "k", "v") == "it is a read-only replica"
        cache.get("k")
        with replica.client() as admin:
            assert len(kept) == 1
            assert kept.isdisjoint(client["id"] for client in admin.client_list())
        assert reason(cache.health) == "it is a read-only replica"
        assert cache.get("k") is None
        with replica.client() as admin:
            admin.replicaof("NO", "ONE")
        assert cache.health() >= 0
        cache.close()


def test_a_server_that_is_full_reads_and_is_not_well(cache, client):
    cache.set("k", "v")
    client.config_set("maxmemory", 1)
    try:
        assert reason(cache.set, "k", "w") == "it is full: its memory limit is reached"
        assert reason(cache.incr, "n", 60) == "it is full: its memory limit is reached"
        assert reason(cache.health) == "it is full: its memory limit is reached"
        assert cache.get("k") == "v"
    finally:
        client.config_set("maxmemory", 0)
    cache.set("k", "w")
    assert cache.health() >= 0


def test_a_server_that_can_not_save_is_not_well(redis_server, tmp_path):
    with running_redis(tmp_path / "own", appendonly="no", save="3600 1") as server:
        cache = RedisCache(section_for(server))
        cache.set("k", "v")
        with server.client() as admin:
            # A name whose folder is missing: the snapshot fails as on a disk that is full.
            (server.folder / "dump.rdb").mkdir()
            admin.bgsave()
            deadline = time.monotonic() + PATIENCE_S
            while admin.info("persistence")["rdb_last_bgsave_status"] == "ok":
                assert time.monotonic() < deadline
        assert reason(cache.health) == "it takes no writes: it can't save to its disk"
        assert cache.get("k") == "v"
        cache.close()
        # At an orderly end it would try to save once more.
        server.kill()


# Credentials


def test_a_wrong_password_is_said_at_once_and_without_it(redis_server):
    cache = RedisCache(section_for(redis_server, password="s3cr3t-of-the-test"))
    said, seconds = took(cache.get, "k")
    assert said == "it refuses the user name or the password"
    assert seconds < TIMEOUT_S


def test_no_password_where_one_is_wanted(redis_server):
    assert reason(RedisCache(section_for(redis_server, password=None)).get, "k") == "it wants a password"


def test_a_database_that_there_is_not(redis_server):
    cache = RedisCache(section_for(redis_server, db=99))
    assert reason(cache.get, "k") == "it has no database of that number"


def test_credentials_that_are_refused_are_read_again(redis_server, client):
    configured = [section_for(redis_server)]
    cache = RedisCache(configured[0], reread=lambda: configured[0])
    cache.set("k", "v")
    client.config_set("requirepass", "the next one")
    try:
        configured[0] = section_for(redis_server, password="the next one")
        cache.close()
        assert cache.get("k") == "v"
    finally:
        client.config_set("requirepass", redis_server.password)
        cache.close()


# Faults


def test_a_server_that_is_gone_refuses_at_once_and_recovers(tmp_path):
    with running_redis(tmp_path / "own") as server:
        cache = RedisCache(section_for(server))
        cache.set("k", "v")
        server.kill()
        assert "connection" in reason(cache.get, "k")
        said, seconds = took(cache.health)
        assert said == "the connection was refused"
        assert seconds < TIMEOUT_S
        server.start()
        assert soon(lambda: cache.get("k")) == "v"
        cache.close()


def test_a_restart_between_two_calls_is_not_noticed(tmp_path):
    with running_redis(tmp_path / "own") as server:
        cache = RedisCache(section_for(server))
        cache.set("k", "v")
        server.stop()
        server.start()
        assert cache.get("k") == "v"
        cache.close()


def test_a_server_that_hangs_costs_its_time_limit_and_no_more(tmp_path):
    with running_redis(tmp_path / "own") as server:
        cache = RedisCache(section_for(server))
        cache.set("k", "v")
        server.freeze()
        said, seconds = took(cache.get, "k")
        assert said == "no answer in time"
        assert TIMEOUT_S * 0.9 <= seconds < TIMEOUT_S + GRACE_S
        server.thaw()
        assert soon(lambda: cache.get("k")) == "v"
        cache.close()


HANGS = {
    "after accepting": lambda proxy: proxy.hang(),
    "in the middle of an answer": lambda proxy: proxy.hang_mid_answer(2),
    "for longer than the limit before each answer": lambda proxy: proxy.slow(TIMEOUT_S + 1),
}


@pytest.mark.parametrize("fault", HANGS.values(), ids=HANGS)
@pytest.mark.parametrize("connected", [True, False])
def test_a_hang_costs_the_time_limit_and_no_more(behind, proxy, fault, connected):
    if not connected:
        behind.close()
    fault(proxy)
    said, seconds = took(behind.get, "k")
    assert said == "no answer in time"
    assert TIMEOUT_S * 0.9 <= seconds < TIMEOUT_S + GRACE_S
    proxy.pass_through()
    assert soon(lambda: behind.get("k")) == "v"


def test_a_log_in_of_several_slow_answers_has_one_time_limit(behind, proxy):
    # AUTH, SELECT and GET: each within the limit, all three beyond it.
    behind.close()
    proxy.slow(TIMEOUT_S * 0.6)
    said, seconds = took(behind.get, "k")
    assert said == "no answer in time"
    assert seconds < TIMEOUT_S + GRACE_S


def test_an_answer_that_drips_has_the_same_time_limit():
    with raw_server(drip(b"$1000\r\n")) as port:
        cache = RedisCache(RedisSection(host=f"127.0.0.1:{port}", db=0, timeout=TIMEOUT_S))
        said, seconds = took(cache.get, "k")
        assert said == "no answer in time"
        assert seconds < TIMEOUT_S + GRACE_S


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one(behind, proxy):
    behind.set("first", "1")
    behind.set("second", "2")
    proxy.hang_mid_answer(0)
    assert reason(behind.get, "first") == "no answer in time"
    proxy.pass_through()
    assert soon(lambda: behind.get("second")) == "2"


def test_a_connection_that_is_cut_while_idle_is_not_noticed(behind, proxy):
    proxy.cut_once()
    assert behind.get("k") == "v"


def test_connections_that_are_cut_are_said_to_be(behind, proxy):
    proxy.cut()
    assert reason(behind.get, "k") == "the connection was cut"
    proxy.pass_through()
    assert soon(lambda: behind.get("k")) == "v"


def test_a_server_without_room_for_another_connection(tmp_path):
    with running_redis(tmp_path / "own", maxclients=1) as server:
        first = server.client()
        first.ping()
        cache = RedisCache(section_for(server))
        assert reason(cache.get, "k") == "it accepts no more connections (maxclients)"
        first.close()
        assert soon(lambda: cache.get("k")) is None
        cache.close()


def test_a_server_that_still_loads_its_data(tmp_path):
    with running_redis(tmp_path / "own") as server:
        with server.client(DB) as client, client.pipeline(transaction=False) as pipeline:
            for number in range(10_000):
                pipeline.set(f"ragkeeper:value:{number}", "v")
            pipeline.execute()
        server.stop()
        server.configure(key_load_delay=300)
        server.launch()
        cache = RedisCache(section_for(server, timeout=5))
        deadline = time.monotonic() + PATIENCE_S
        said = ""
        while said != "it is still loading its data":
            assert time.monotonic() < deadline, said
            said = reason(cache.health)
        assert soon(lambda: cache.get("1")) == "v"
        cache.close()


def test_a_host_name_that_there_is_not(redis_server):
    cache = RedisCache(section_for(redis_server, host="no-such-host.invalid:6379"))
    assert reason(cache.get, "k") in ("its host name is not known", "no answer in time")


def test_a_server_of_another_protocol():
    with raw_server(say(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        cache = RedisCache(RedisSection(host=f"127.0.0.1:{port}", db=0, timeout=TIMEOUT_S))
        assert reason(cache.get, "k") == "it does not speak the protocol of Redis"


def test_no_reason_tells_a_secret_or_an_address(redis_server, proxy):
    port = free_ports(1)[0]
    for changes in (
        {"password": "s3cr3t-of-the-test"},
        {"host": f"127.0.0.1:{port}", "password": "s3cr3t-of-the-test"},
        {"username": "s3cr3t-of-the-test"},
    ):
        with pytest.raises(StoreUnavailable) as raised:
            RedisCache(section_for(redis_server, **changes)).get("s3cr3t-of-the-test")
        told = raised.value.reason + raised.value.message + str(raised.value.data)
        assert "s3cr3t" not in told
        assert redis_server.password not in told
        assert "127.0.0.1" not in told


# The breaker


def test_after_one_missed_deadline_nobody_waits_and_one_probe_finds_the_recovery(behind, proxy):
    proxy.hang()
    assert took(behind.get, "k")[1] >= TIMEOUT_S * 0.9
    before = proxy.accepted
    waits = []

    def call():
        waits.append(took(behind.get, "k")[1])

    callers = [threading.Thread(target=call) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(waits) == 20
    assert max(waits) < 0.05
    assert proxy.accepted - before <= 1, "at most one probe asks the server"

    proxy.pass_through()
    began = time.monotonic()
    assert soon(lambda: behind.get("k")) == "v"
    assert time.monotonic() - began < PATIENCE_S


def test_health_asks_also_while_the_breaker_is_open_and_closes_it(behind, proxy):
    proxy.refuse()
    assert "connection" in reason(behind.get, "k")
    assert reason(behind.health) == "the connection was refused"
    assert "not asked again" in reason(behind.get, "k")
    proxy.pass_through()
    assert behind.health() >= 0
    assert behind.get("k") == "v"


# Processes, TLS, settings


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_uses_no_connection_of_its_parent(cache, redis_server):
    def connections():
        with redis_server.client() as looking:
            return {each["id"] for each in looking.client_list() if each["db"] == str(DB)}

    cache.set("k", "v")
    parents = connections()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        cache.get("k")
        os.write(writer, str(len(connections())).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"2"
    os.close(reader)
    os.close(writer)
    assert cache.get("k") == "v"
    assert connections() == parents


def test_close_ends_this_threads_connection_only(cache, client, redis_server):
    done, over = threading.Event(), threading.Event()

    def other():
        cache.get("k")
        done.set()
        over.wait(PATIENCE_S)
        cache.close()

    thread = threading.Thread(target=other)
    thread.start()
    done.wait(PATIENCE_S)
    client.ping()
    cache.get("k")
    cache.close()
    deadline = time.monotonic() + PATIENCE_S
    # The other thread's, and the one that asks.
    while len([each for each in client.client_list() if each["db"] == str(DB)]) != 2:
        assert time.monotonic() < deadline
    over.set()
    thread.join()


def test_it_speaks_tls_and_believes_only_whom_it_should(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with running_redis(
        tmp_path / "own",
        tls_port=(tls_port := free_ports(1)[0]),
        tls_cert_file=tmp_path / "server.pem",
        tls_key_file=tmp_path / "server.pem",
        tls_ca_cert_file=tmp_path / "ca.pem",
        tls_auth_clients="no",
    ) as server:
        where = {"host": f"127.0.0.1:{tls_port}", "ssl": True}
        cache = RedisCache(section_for(server, **where, ssl_ca_certs=str(tmp_path / "ca.pem")))
        cache.set("k", "v")
        assert cache.get("k") == "v"
        cache.close()

        stranger = RedisCache(section_for(server, **where, ssl_ca_certs=str(tmp_path / "other.pem")))
        assert reason(stranger.get, "k").startswith("its certificate is not trusted")


def test_tls_files_that_can_not_be_used_stop_the_start(tmp_path):
    with pytest.raises(SettingsError, match=r"redis: .*missing\.pem"):
        RedisCache(RedisSection(host="redis", ssl=True, ssl_ca_certs=str(tmp_path / "missing.pem")))


def test_tls_to_a_server_that_has_none_ends_in_time(redis_server):
    cache = RedisCache(section_for(redis_server, ssl=True))
    said, seconds = took(cache.get, "k")
    assert said in ("the TLS handshake failed", "the connection was cut", "no answer in time")
    assert seconds < TIMEOUT_S + GRACE_S
