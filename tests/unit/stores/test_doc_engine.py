"""The contract of the document engine, for every implementation, and the embedded one's file."""

from __future__ import annotations

import os
import sqlite3
from types import SimpleNamespace

import pytest

from common.conf.sections import ElasticsearchSection
from common.core.errors import BadField, StoreUnavailable
from common.stores.doc_engine import SqliteDocEngine, read_cursor, tenant_index, write_cursor
from common.stores.elasticsearch_engine import ElasticsearchEngine


def sqlite_engine(folder):
    return SqliteDocEngine(folder / "documents.sqlite3", busy_timeout_s=0.05)


def on_elasticsearch(request):
    server = request.getfixturevalue("elasticsearch_server")
    return ElasticsearchEngine(ElasticsearchSection.model_validate(server.section(timeout=10)))


IMPLEMENTATIONS = {
    "sqlite": lambda request: sqlite_engine(request.getfixturevalue("tmp_path")),
    "elasticsearch": on_elasticsearch,
}


@pytest.fixture(params=IMPLEMENTATIONS)
def engine(request):
    engine = IMPLEMENTATIONS[request.param](request)
    engine.prepare()
    yield engine
    engine.close()


@pytest.fixture
def embedded(tmp_path):
    engine = sqlite_engine(tmp_path)
    engine.prepare()
    yield engine
    engine.close()


def chunks(count, **fields):
    return [{"id": f"c{number:04}", "content_with_weight": f"text {number}", **fields} for number in range(count)]


def test_what_is_written_is_counted_by_index_and_knowledge_base(engine):
    assert engine.bulk_write("ragflow_a", chunks(3, kb_id="kb1")) == 3
    engine.bulk_write("ragflow_a", [{"id": "other", "kb_id": "kb2"}])
    engine.bulk_write("ragflow_b", chunks(2, kb_id="kb1"))
    assert engine.count("ragflow_a") == 4
    assert engine.count("ragflow_a", kb_id="kb1") == 3
    assert engine.count("ragflow_c") == 0


def test_a_document_replaces_the_one_with_its_id_in_that_index_only(engine):
    engine.bulk_write("ragflow_a", [{"id": "c", "time_ms": 1, "v": 1}])
    engine.bulk_write("ragflow_b", [{"id": "c", "time_ms": 1, "v": 1}])
    engine.bulk_write("ragflow_a", [{"id": "c", "time_ms": 1, "v": 2}])
    assert engine.time_range("ragflow_a", 0, 9).documents == [{"id": "c", "time_ms": 1, "v": 2}]
    assert engine.time_range("ragflow_b", 0, 9).documents == [{"id": "c", "time_ms": 1, "v": 1}]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({}, "id"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "\ud800"}, "id"),
        ({"id": "x" * 513}, "id"),
        ({"id": "c", "kb_id": 7}, "kb_id"),
        ({"id": "c", "kb_id": "\ud800"}, "kb_id"),
        ({"id": "c", "time_ms": "now"}, "time_ms"),
        ({"id": "c", "time_ms": 2**63}, "time_ms"),
    ],
)
def test_one_wrong_document_keeps_all_from_being_written(engine, wrong, field):
    with pytest.raises(BadField) as raised:
        engine.bulk_write("ragflow_a", [{"id": "good"}, wrong])
    assert raised.value.field == field
    assert engine.count("ragflow_a") == 0


@pytest.mark.parametrize("count", [0, 3])
def test_writing_again_changes_nothing(engine, count):
    for _ in range(2):
        assert engine.bulk_write("ragflow_a", chunks(count)) == count
    assert engine.count("ragflow_a") == count


def test_documents_need_not_agree_on_their_fields(engine):
    different = [{"id": "a", "v": 1}, {"id": "b", "v": {"w": "x"}}, {"id": "c", "v": ["text", None]}]
    engine.bulk_write("events", [{**each, "time_ms": 1} for each in different])
    assert engine.time_range("events", 0, 9).documents == [{**each, "time_ms": 1} for each in different]


def test_an_index_that_there_is_not_is_empty(engine):
    assert engine.time_range("ragflow_a", 0, 9) == ([], None)
    assert engine.delete_tenant("a") == 0


@pytest.mark.parametrize("pattern", ["*", "a*", "a,b", "<a-{now/d}>", "A", "", "a/_all", "a?x=y", "a#"])
def test_no_name_reaches_further_than_its_own_index(engine, pattern):
    engine.bulk_write(tenant_index("a"), chunks(1))
    engine.bulk_write(tenant_index("b"), chunks(1))
    assert engine.delete_tenant(pattern) == 0
    assert engine.count(tenant_index(pattern)) == 0
    assert engine.count(tenant_index("a")) == engine.count(tenant_index("b")) == 1


def test_a_time_range_holds_its_start_and_not_its_end(engine):
    engine.bulk_write("events", [{"id": str(time), "time_ms": time} for time in (9, 10, 11, 19, 20)])
    engine.bulk_write("events", [{"id": "timeless"}])
    page = engine.time_range("events", 10, 20)
    assert [document["time_ms"] for document in page.documents] == [10, 11, 19]
    assert page.next_cursor is None


def test_pages_follow_each_other_without_gap_or_repeat_though_times_are_equal(engine):
    engine.bulk_write("events", [{"id": f"e{number}", "time_ms": number // 3} for number in range(10)])
    seen, cursor = [], None
    while True:
        page = engine.time_range("events", 0, 100, limit=4, cursor=cursor)
        assert len(page.documents) <= 4
        seen += [document["id"] for document in page.documents]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [f"e{number}" for number in range(10)]


def test_a_cursor_does_not_reach_before_the_start(engine):
    engine.bulk_write("events", [{"id": "early", "time_ms": 5}, {"id": "late", "time_ms": 50}])
    page = engine.time_range("events", 10, 100, cursor=write_cursor(1, "x"))
    assert [document["id"] for document in page.documents] == ["late"]


def test_a_page_holds_no_more_than_a_thousand(engine):
    engine.bulk_write("events", [{"id": f"{number:05}", "time_ms": number} for number in range(1001)])
    page = engine.time_range("events", 0, 10_000, limit=10**9)
    assert len(page.documents) == 1000
    assert read_cursor(page.next_cursor) == (999, "00999")


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!!!", "é", "W10=", "WzEsMl0=", "WyJhIiwiYiJd", "W" * 9999, "WzFlOTk5LCJhIl0="]
)
def test_a_cursor_that_was_not_given_out_is_a_bad_field(engine, cursor):
    with pytest.raises(BadField) as raised:
        engine.time_range("events", 0, 10, cursor=cursor)
    assert raised.value.field == "cursor"


def test_a_tenant_is_deleted_in_bounded_steps_and_the_neighbour_stays(engine):
    engine.bulk_write(tenant_index("a"), chunks(5))
    engine.bulk_write(tenant_index("ab"), chunks(2))
    assert [engine.delete_tenant("a", limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert engine.count(tenant_index("a")) == 0
    assert engine.count(tenant_index("ab")) == 2


def test_health_names_the_engine_and_its_colour(engine):
    health = engine.health()
    assert health["status"] == "green"
    assert health["type"]


def test_health_writes_nothing(embedded, tmp_path):
    def stored():
        # Not `-shm`: memory that readers share, where each notes how far it reads.
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.match("*-shm")}

    before = stored()
    embedded.health()
    assert stored() == before


def test_health_sees_a_full_disk(embedded, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_blocks=9, f_bavail=0))
    with pytest.raises(StoreUnavailable) as raised:
        embedded.health()
    assert (raised.value.store, raised.value.reason) == ("documents", "its disk is full")


def test_a_missing_file_is_an_unavailable_store_and_no_empty_answer(embedded, tmp_path):
    embedded.bulk_write("ragflow_a", chunks(1))
    for path in tmp_path.iterdir():
        path.unlink()
    for call in (
        embedded.health,
        lambda: embedded.count("ragflow_a"),
        lambda: embedded.time_range("ragflow_a", 0, 1),
        lambda: embedded.delete_tenant("a"),
    ):
        with pytest.raises(StoreUnavailable) as raised:
            call()
        assert raised.value.store == "documents"
    assert list(tmp_path.iterdir()) == []


def test_an_emptied_file_is_an_unavailable_store(tmp_path):
    (tmp_path / "documents.sqlite3").touch()
    with pytest.raises(StoreUnavailable):
        sqlite_engine(tmp_path).count("ragflow_a")


def test_a_locked_file_loses_nothing_of_a_bulk_and_recovers(embedded, tmp_path):
    writer = sqlite3.connect(tmp_path / "documents.sqlite3", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        embedded.bulk_write("ragflow_a", chunks(3))
    writer.execute("ROLLBACK")
    writer.close()
    assert embedded.count("ragflow_a") == 0
    assert embedded.bulk_write("ragflow_a", chunks(3)) == 3


def test_the_full_text_index_follows_writing_rewriting_and_deleting(embedded, tmp_path):
    def found(word):
        connection = sqlite3.connect(tmp_path / "documents.sqlite3")
        sql = "SELECT count(*) FROM document_text WHERE document_text MATCH ?"
        count = connection.execute(sql, (word,)).fetchone()[0]
        connection.execute("INSERT INTO document_text (document_text) VALUES ('integrity-check')")
        connection.close()
        return count

    embedded.bulk_write("ragflow_a", [{"id": "c", "content_with_weight": "herons \ud800 fish"}])
    assert found("herons") == 1
    embedded.bulk_write("ragflow_a", [{"id": "c", "content_with_weight": "storks nest"}])
    assert (found("herons"), found("storks")) == (0, 1)
    embedded.delete_tenant("a")
    assert found("storks") == 0
