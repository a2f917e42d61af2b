"""Documents on a server behind the client of Elasticsearch: what is asked, every way to fail, and how long it may take.

The server is a stand-in, whose refusals are worded as Elasticsearch words them.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from contextlib import suppress

import pytest
import trustme

from common.conf.file import SettingsError
from common.conf.sections import ElasticsearchSection
from common.core.errors import BadField, StoreUnavailable
from common.stores.doc_engine import tenant_index
from common.stores.elasticsearch_engine import ElasticsearchEngine, selected
from tests.backends.elasticsearch import error_body, running_elasticsearch
from tests.backends.proxy import fault_proxy
from tests.ports import free_ports
from tests.unit.stores.servers import drip, http_server, raw_server, say, send

TIMEOUT_S = 0.4
# What a loaded machine may add to a deadline.
GRACE_S = 0.3
PATIENCE_S = 10.0
INDEX = tenant_index("a")


def engine_on(server, **changes):
    return ElasticsearchEngine(ElasticsearchSection.model_validate(server.section(timeout=TIMEOUT_S, **changes)))


@pytest.fixture
def server(elasticsearch_server):
    return elasticsearch_server


@pytest.fixture
def engine(server):
    return engine_on(server)


@pytest.fixture
def proxy(server):
    with fault_proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def behind(server, proxy):
    """The engine on the other side of the fault proxy, with one document in it."""
    engine = engine_on(server, hosts=f"http://{proxy.address}")
    engine.bulk_write(INDEX, [{"id": "c"}])
    return engine


def reason(call, *args):
    """Why a call did not reach the store."""
    with pytest.raises(StoreUnavailable) as raised:
        call(*args)
    assert raised.value.store == "documents"
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


# RAGFlow's layout


def test_a_tenants_index_is_ragflows_and_its_chunks_are_counted(engine, server):
    mapping = {"mappings": {"properties": {"kb_id": {"type": "keyword"}}}}
    server.ask("PUT", "/ragflow_a", mapping)
    for chunk in ("x", "y"):
        server.ask("PUT", f"/ragflow_a/_doc/{chunk}?refresh=true", {"kb_id": "kb1", "content_with_weight": "text"})
    assert engine.count(INDEX) == engine.count(INDEX, "kb1") == 2
    assert engine.time_range(INDEX, 0, 9) == ([], None)
    assert engine.delete_tenant("a") == 2


def test_the_index_goes_with_the_last_document_of_a_tenant_and_the_neighbours_stays(engine, server):
    for tenant in ("a", "ab"):
        engine.bulk_write(tenant_index(tenant), [{"id": "1"}, {"id": "2"}])
    assert engine.delete_tenant("a", limit=2) == 2
    assert server.indices() == ["ragflow_a", "ragflow_ab"]
    assert engine.delete_tenant("a", limit=2) == 0
    assert server.indices() == ["ragflow_ab"]


def test_an_empty_index_goes_too(engine, server):
    server.ask("PUT", "/ragflow_a", {})
    assert engine.delete_tenant("a") == 0
    assert server.indices() == []


def test_the_fields_that_are_asked_for_have_their_types_and_the_others_none(engine, server):
    engine.bulk_write("events", [{"id": "c", "kb_id": "KB 1", "time_ms": 5, "more": "x"}])
    properties = server.ask("GET", "/events/_mapping")["events"]["mappings"]["properties"]
    assert properties == {"id": {"type": "keyword"}, "kb_id": {"type": "keyword"}, "time_ms": {"type": "long"}}
    assert engine.count("events", "KB 1") == 1
    assert engine.count("events", "KB") == 0


def test_an_index_that_somebody_makes_at_the_same_moment_is_fine(engine, server):
    engine.bulk_write("events", [{"id": "a"}])
    server.answer("HEAD /events", 404, {})
    assert engine.bulk_write("events", [{"id": "b"}]) == 1


@pytest.mark.parametrize("index", ["*", "events,others", "_all", "Events", "-events", "a/b", ""])
def test_a_name_that_no_index_can_have_is_refused(engine, server, index):
    with pytest.raises(BadField) as raised:
        engine.bulk_write(index, [{"id": "c"}])
    assert raised.value.field == "index"
    assert server.asked == []


# Health and figures


def test_health_is_the_clusters_own_and_writes_nothing(engine, server):
    health = engine.health()
    assert (health["type"], health["status"], health["number_of_nodes"]) == ("elasticsearch", "green", 1)
    asked = [each.partition("?")[0] for each in server.asked]
    assert asked == ["GET /_cluster/health", "GET /_cluster/state/blocks"]


@pytest.mark.parametrize("colour", ["yellow", "red"])
def test_R15_health_tells_the_clusters_colour(engine, server, colour):
    server.colour(colour)
    assert engine.health()["status"] == colour


BLOCKS = {
    "flood": (12, "TOO_MANY_REQUESTS", "its disk is nearly full (flood-stage watermark)"),
    "read-only": (5, "FORBIDDEN", "an index of a tenant is read-only"),
    "no writes": (8, "FORBIDDEN", "an index of a tenant is read-only"),
    "read-only cluster": (6, "FORBIDDEN", "its cluster is read-only"),
    "read-only cluster but for deletions": (13, "FORBIDDEN", "its cluster is read-only"),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_health_tells_that_there_are_no_writes_and_why_and_that_is_no_outage(engine, server, block):
    engine.bulk_write(INDEX, [{"id": "c"}])
    number, status, words = BLOCKS[block]
    server.refuse_writes(403, "cluster_block_exception", f"blocked by: [{status}/{number}/so it is];")
    with pytest.raises(StoreUnavailable) as raised:
        engine.health()
    assert (raised.value.store, raised.value.lost) == ("documents", False)
    assert raised.value.reason == f"it takes no writes: {words}"
    assert engine.count(INDEX) == 1
    server.well()
    assert engine.health()["number_of_nodes"] == 1


STATE = r"GET /_cluster/state/blocks"


def block(*levels):
    return {"description": "by [10.0.0.1]", "retryable": False, "levels": list(levels)}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("1", "it is still starting"),
        ("2", "its cluster has no master"),
        ("99", "its cluster is blocked"),
    ],
)
def test_other_blocks_of_the_whole_cluster_are_told_too(engine, server, number, words):
    server.answer(STATE, 200, {"blocks": {"global": {number: block("write")}}})
    assert reason(engine.health) == words


HARMLESS = {
    "none": {},
    "an index of somebody else's": {"indices": {"logs": {"12": block("write", "metadata_write")}}},
    "a tenant's index that is closed": {"indices": {INDEX: {"4": block("read", "write")}}},
    "new indices": {"global": {"10": block("create_index")}},
    "reads": {"global": {"99": block("read", "metadata_read")}},
}


@pytest.mark.parametrize("blocks", HARMLESS)
def test_blocks_that_stop_no_writes_of_tenants_are_none(engine, server, blocks):
    server.answer(STATE, 200, {"blocks": HARMLESS[blocks]})
    assert engine.health()["status"] == "green"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 429, 500])
def test_a_server_that_does_not_tell_its_blocks_is_as_well_as_it_says(engine, server, status):
    server.answer(STATE, status, error_body(status, "security_exception", "action is unauthorized"))
    assert engine.health()["status"] == "green"
    assert engine.count(INDEX) == 0


@pytest.mark.parametrize("answer", [{}, {"blocks": []}, {"blocks": {"global": {"6": "read-only"}}}])
def test_blocks_in_another_form_say_nothing(engine, server, answer):
    server.answer(STATE, 200, answer)
    assert engine.health()["status"] == "green"


@pytest.mark.parametrize(("timeout_s", "within_s"), [(0.2, 0.45), (10.0, 0.5 + GRACE_S)])
def test_blocks_that_are_not_told_soon_do_not_make_it_ill_or_slow(timeout_s, within_s):
    over = threading.Event()

    def answer(handler):
        if "blocks" in handler.path:
            over.wait(PATIENCE_S)
        head = {"Content_Type": "application/json", "X_Elastic_Product": "Elasticsearch"}
        # Who has given up reads nothing any more.
        with suppress(OSError):
            send(handler, 200, b'{"status": "green"}', **head)

    with http_server(answer) as port:
        section = ElasticsearchSection.model_validate({"hosts": f"http://127.0.0.1:{port}", "timeout": timeout_s})
        engine = ElasticsearchEngine(section)
        began = time.monotonic()
        try:
            assert engine.health()["status"] == "green"
        finally:
            seconds = time.monotonic() - began
            over.set()
    assert seconds < within_s


def test_figures_are_the_clusters_and_none_where_they_may_not_be_seen(engine, server):
    assert engine.info()["nodes"] == 1
    server.answer("_cluster/stats", 403, error_body(403, "security_exception", "action is unauthorized"))
    assert engine.info() == {}


def test_figures_are_named_and_written_as_ragflow_does():
    stats = {
        "cluster_name": "c",
        "status": "green",
        "indices": {
            "count": 3,
            "shards": {"total": 6},
            "docs": {"count": 12, "deleted": 1},
            "store": {"size_in_bytes": 4_037_269_258, "total_data_set_size_in_bytes": 1_048_576},
            "mappings": {
                "total_field_count": 7,
                "total_deduplicated_field_count": 5,
                "total_deduplicated_mapping_size_in_bytes": 512,
            },
        },
        "nodes": {
            "count": {"total": 1},
            "versions": ["8.11.3"],
            "os": {"mem": {"total_in_bytes": 8_589_934_592, "used_in_bytes": 1024, "used_percent": 50}},
            "jvm": {
                "versions": [{"vm_version": "21.0.1"}],
                "mem": {"heap_used_in_bytes": 2_147_483_648, "heap_max_in_bytes": 2**52},
            },
        },
    }
    assert selected(stats) == {
        "cluster_name": "c",
        "status": "green",
        "indices": 3,
        "indices_shards": 6,
        "docs": 12,
        "docs_deleted": 1,
        "store_size": "3.76 GB",
        "total_dataset_size": "1.00 MB",
        "mappings_fields": 7,
        "mappings_deduplicated_fields": 5,
        "mappings_deduplicated_size": "512.00 B",
        "nodes": 1,
        "nodes_version": ["8.11.3"],
        "os_mem": "8.00 GB",
        "os_mem_used": "1.00 KB",
        "os_mem_used_percent": 50,
        "jvm_versions": "21.0.1",
        "jvm_heap_used": "2.00 GB",
        "jvm_heap_max": "4.00 PB",
    }
    assert selected({"nodes": {"jvm": {"versions": []}, "os": None}}) == {}


# Credentials


@pytest.mark.parametrize("wrong", [{"password": "s3cr3t-of-the-test"}, {"username": "nobody"}, {"username": ""}])
def test_wrong_credentials_are_said_at_once(server, wrong):
    engine = engine_on(server, **wrong)
    for call in (engine.health, lambda: engine.count(INDEX)):
        said, seconds = took(call)
        assert said == "it refuses the user name or the password"
        assert seconds < TIMEOUT_S


def test_user_and_password_may_stand_in_the_url(server):
    hosts = server.url.replace("http://", f"http://{server.username}:{server.password}@")
    engine = engine_on(server, hosts=hosts, username="", password=None)
    assert engine.health()["status"] == "green"


def test_credentials_that_are_refused_are_read_again(tmp_path):
    with running_elasticsearch(tmp_path / "own") as server:
        configured = [ElasticsearchSection.model_validate(server.section())]
        engine = ElasticsearchEngine(configured[0], reread=lambda: configured[0])
        engine.bulk_write(INDEX, [{"id": "c"}])
        server.password = "the next one"
        assert reason(engine.count, INDEX) == "it refuses the user name or the password"
        configured[0] = ElasticsearchSection.model_validate(server.section())
        assert engine.count(INDEX) == 1


# What the server says

REFUSALS = {
    "flood": (429, "cluster_block_exception", "disk usage exceeded flood-stage watermark, index has read-only block"),
    "read-only": (403, "cluster_block_exception", "index [events] blocked by: [FORBIDDEN/5/index read-only (api)];"),
    "rejected": (429, "es_rejected_execution_exception", "rejected execution of coordinating operation"),
    "memory": (429, "circuit_breaking_exception", "[parent] Data too large"),
    "no master": (503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/2/no master];"),
    "starting": (503, "cluster_block_exception", "blocked by: [.../1/state not recovered / initialized];"),
    "shards": (503, "unavailable_shards_exception", "primary shard is not active"),
    "forbidden": (403, "security_exception", "action is unauthorized for user [elastic]"),
    "media": (406, "media_type_header_exception", "Invalid media-type value on headers"),
    "other": (400, "illegal_argument_exception", "at 10.0.0.1: no"),
    "nothing said": (500, "At 10.0.0.1", ""),
}
MEANINGS = {
    "flood": "it takes no writes: its disk is nearly full (flood-stage watermark)",
    "read-only": "it takes no writes: the index is read-only",
    "rejected": "it is overloaded",
    "memory": "it is short of memory",
    "no master": "its cluster has no master",
    "starting": "it is still starting",
    "shards": "shards are missing: the cluster is red",
    "forbidden": "the user may not do that there",
    "media": "it does not speak as Elasticsearch 8 or 9 does",
    "other": "it refused the call (illegal_argument_exception)",
    "nothing said": "it refused the call (status 500)",
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_server_that_refuses_writes_is_not_lost_and_is_read(engine, server, refusal):
    engine.bulk_write(INDEX, [{"id": "c"}])
    server.refuse_writes(*REFUSALS[refusal])
    assert reason(engine.bulk_write, INDEX, [{"id": "d"}]) == MEANINGS[refusal]
    assert reason(engine.delete_tenant, "a") == MEANINGS[refusal]
    assert engine.count(INDEX) == 1
    server.well()
    assert engine.bulk_write(INDEX, [{"id": "d"}]) == 1


@pytest.mark.parametrize("refusal", REFUSALS)
def test_one_document_that_is_refused_is_no_success(engine, server, refusal):
    status, kind, why = REFUSALS[refusal]
    fine = {"index": {"_id": "a", "status": 201}}
    item = {"index": {"_id": "b", "status": status, "error": {"type": kind, "reason": why}}}
    server.answer("_bulk", 200, {"errors": True, "items": [fine, item]})
    assert reason(engine.bulk_write, INDEX, [{"id": "a"}, {"id": "b"}]) == MEANINGS[refusal]


def test_what_was_not_deleted_is_no_success(engine, server):
    engine.bulk_write(INDEX, [{"id": "c"}])
    cause = {"type": "cluster_block_exception", "reason": "index read-only / allow delete (api)"}
    failed = {"deleted": 0, "failures": [{"index": INDEX, "status": 403, "cause": cause}]}
    server.answer("_delete_by_query", 200, failed)
    assert reason(engine.delete_tenant, "a") == "it takes no writes: the index is read-only"
    server.answer("_delete_by_query", 200, {"deleted": 0, "version_conflicts": 1, "failures": []})
    assert reason(engine.delete_tenant, "a") == "documents were changed while they were deleted"
    assert engine.count(INDEX) == 1


@pytest.mark.parametrize("product", ["", "OpenSearch"])
def test_a_server_of_another_product_is_said_to_be(engine, server, product):
    server.product = product
    assert reason(engine.health) == "it is no Elasticsearch, or a proxy takes away what it says of itself"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'"text"'])
def test_an_answer_of_another_kind(body):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Elastic-Product: Elasticsearch\r\n"
    with raw_server(say(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)) as port:
        engine = ElasticsearchEngine(ElasticsearchSection.model_validate({"hosts": f"http://127.0.0.1:{port}"}))
        assert reason(engine.count, INDEX) == "its answer is not that of an Elasticsearch"
        assert reason(engine.delete_tenant, "a").startswith("its answer is not that of an Elasticsearch")


def test_a_server_of_another_protocol():
    with raw_server(say(b"-ERR unknown command\r\n")) as port:
        engine = ElasticsearchEngine(ElasticsearchSection.model_validate({"hosts": f"http://127.0.0.1:{port}"}))
        assert reason(engine.count, INDEX) == "the connection was cut"


# Faults


def test_a_server_that_is_gone_refuses_at_once_and_what_comes_back_empty_is_empty(tmp_path):
    with running_elasticsearch(tmp_path / "own") as server:
        engine = engine_on(server)
        engine.bulk_write(INDEX, [{"id": "c"}])
        server.stop()
        assert "connection" in reason(engine.count, INDEX)
        said, seconds = took(engine.health)
        assert said == "the connection was refused"
        assert seconds < TIMEOUT_S
        server.start()
        assert soon(lambda: engine.count(INDEX)) == 0
        assert engine.bulk_write(INDEX, [{"id": "c"}]) == 1


def test_a_server_that_is_killed_and_started_again(tmp_path):
    with running_elasticsearch(tmp_path / "own") as server:
        engine = engine_on(server)
        engine.health()
        server.osmem.kill()
        assert reason(engine.count, INDEX) == "the connection was cut"
        server.osmem.start()
        assert soon(lambda: engine.count(INDEX)) == 0


def test_a_restart_between_two_calls_is_not_noticed(tmp_path):
    with running_elasticsearch(tmp_path / "own") as server:
        engine = engine_on(server)
        engine.health()
        server.stop()
        server.start()
        assert engine.health()["status"] == "green"


def test_a_server_that_hangs_costs_its_time_limit_and_no_more(tmp_path):
    with running_elasticsearch(tmp_path / "own") as server:
        engine = engine_on(server)
        engine.bulk_write(INDEX, [{"id": "c"}])
        server.osmem.freeze()
        said, seconds = took(engine.count, INDEX)
        assert said == "no answer in time"
        assert TIMEOUT_S * 0.9 <= seconds < TIMEOUT_S + GRACE_S
        server.osmem.thaw()
        assert soon(lambda: engine.count(INDEX)) == 1


HANGS = {
    "after accepting": lambda proxy: proxy.hang(),
    "in the middle of an answer": lambda proxy: proxy.hang_mid_answer(20),
    "in the middle of a body": lambda proxy: proxy.hang_mid_answer(120),
    "for longer than the limit before each answer": lambda proxy: proxy.slow(TIMEOUT_S + 1),
}


@pytest.mark.parametrize("fault", HANGS.values(), ids=HANGS)
@pytest.mark.parametrize("kept", [True, False])
def test_a_hang_costs_the_time_limit_and_no_more(server, behind, proxy, fault, kept):
    engine = behind if kept else engine_on(server, hosts=f"http://{proxy.address}")
    fault(proxy)
    said, seconds = took(engine.count, INDEX)
    assert said == "no answer in time"
    assert TIMEOUT_S * 0.9 <= seconds < TIMEOUT_S + GRACE_S
    proxy.pass_through()
    assert soon(lambda: engine.count(INDEX)) == 1


def test_a_call_of_several_slow_answers_has_one_time_limit(behind, proxy):
    # To look for the index, and to write: each within the limit, both beyond it.
    proxy.slow(TIMEOUT_S * 0.6)
    said, seconds = took(behind.bulk_write, INDEX, [{"id": "d"}])
    assert said == "no answer in time"
    assert seconds < TIMEOUT_S + GRACE_S


@pytest.mark.parametrize("before", [b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_an_answer_that_drips_has_the_same_time_limit(before):
    with raw_server(drip(before)) as port:
        section = {"hosts": f"http://127.0.0.1:{port}", "timeout": TIMEOUT_S}
        said, seconds = took(ElasticsearchEngine(ElasticsearchSection.model_validate(section)).count, INDEX)
        assert said == "no answer in time"
        assert seconds < TIMEOUT_S + GRACE_S


def test_a_connection_that_is_cut_while_idle_is_not_noticed(behind, proxy):
    proxy.cut_once()
    assert behind.count(INDEX) == 1


def test_connections_that_are_cut_are_said_to_be(behind, proxy):
    proxy.cut()
    assert reason(behind.count, INDEX) == "the connection was cut"
    proxy.pass_through()
    assert soon(lambda: behind.count(INDEX)) == 1


def test_a_host_that_is_gone_costs_nothing_while_there_is_another(server):
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    engine = engine_on(server, hosts=f"{dead}, {server.url}")
    assert [engine.health()["status"] for _ in range(4)] == ["green"] * 4
    assert "refused" in reason(engine_on(server, hosts=f"{dead},{dead}").health)


def test_a_host_name_that_there_is_not(server):
    engine = engine_on(server, hosts="http://no-such-host.invalid:9200")
    assert reason(engine.health) in ("its host name is not known", "no answer in time")


def test_no_reason_and_no_log_tells_a_secret(server, caplog):
    for logger in ("", "elastic_transport", "urllib3"):
        caplog.set_level("DEBUG", logger)
    port = free_ports(1)[0]
    for changes in (
        {"password": "s3cr3t-of-the-test"},
        {"hosts": f"http://user:s3cr3t-of-the-test@127.0.0.1:{port}", "username": ""},
    ):
        with pytest.raises(StoreUnavailable) as raised:
            engine_on(server, **changes).count(INDEX, "kb1")
        told = raised.value.reason + raised.value.message + str(raised.value.data)
        assert "127.0.0.1" not in told
        assert "s3cr3t" not in told + caplog.text
        assert server.password not in told + caplog.text


# The breaker


def test_after_one_missed_deadline_nobody_waits_and_one_probe_finds_the_recovery(behind, proxy):
    proxy.hang()
    assert took(behind.count, INDEX)[1] >= TIMEOUT_S * 0.9
    before = proxy.accepted
    waits = []

    def call():
        waits.append(took(behind.count, INDEX)[1])

    callers = [threading.Thread(target=call) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(waits) == 20
    assert max(waits) < 0.05
    assert proxy.accepted - before <= 1, "at most one probe asks the server"
    proxy.pass_through()
    assert soon(lambda: behind.count(INDEX)) == 1


def test_health_asks_also_while_the_breaker_is_open_and_closes_it(behind, proxy):
    proxy.refuse()
    assert "connection" in reason(behind.count, INDEX)
    assert reason(behind.health) == "the connection was refused"
    assert "not asked again" in reason(behind.count, INDEX)
    proxy.pass_through()
    assert behind.health()["number_of_nodes"] == 1
    assert behind.count(INDEX) == 1


# Processes, TLS, settings


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_uses_no_connection_of_its_parent(behind, proxy):
    before = proxy.accepted
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(behind.count(INDEX)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"1"
    os.close(reader)
    os.close(writer)
    assert proxy.accepted == before + 1
    assert behind.count(INDEX) == 1
    assert proxy.accepted == before + 1, "the parent goes on with its own"


def test_it_speaks_tls_and_believes_only_whom_it_should(server, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with fault_proxy(server.port, tls=tls) as proxy:

        def secured(**changes):
            return engine_on(server, hosts=f"https://{proxy.address}", **changes)

        engine = secured(ssl_ca_certs=str(tmp_path / "ca.pem"))
        assert engine.bulk_write(INDEX, [{"id": "c"}]) == 1
        assert secured(verify=False).count(INDEX) == 1
        for stranger in (secured(), secured(ssl_ca_certs=str(tmp_path / "other.pem"))):
            assert reason(stranger.health).startswith("its certificate is not trusted")
        proxy.hang()
        said, seconds = took(engine.count, INDEX)
        assert said == "no answer in time"
        assert seconds < TIMEOUT_S + GRACE_S
        proxy.pass_through()
        assert soon(lambda: engine.count(INDEX)) == 1


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"hosts": ""}, r"es\.hosts: expected http"),
        ({"hosts": "ftp://es:9200"}, r"es\.hosts: expected http"),
        ({"hosts": "https://es:9200", "ssl_ca_certs": "/missing.pem"}, r"es: /missing\.pem"),
    ],
)
def test_a_section_that_can_not_be_used_stops_the_start(section, words):
    with pytest.raises(SettingsError, match=words):
        ElasticsearchEngine(ElasticsearchSection.model_validate(section))
