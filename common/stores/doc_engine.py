"""The document engine: documents by index, counted, read by time, and deleted by tenant or knowledge base.

Deliberately no more than the plane needs of Elasticsearch: there is no search here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from common.core.errors import BadField
from common.stores.sqlite_file import SqliteFile

#: The field of a document that holds its time, in UTC milliseconds; without it, it is not read by time.
TIME_FIELD = "time_ms"
#: The most bytes that a document's id may have; Elasticsearch's limit.
ID_BYTES = 512
#: The most documents that one page holds.
PAGE_LIMIT = 1000


class Page(NamedTuple):
    """Some documents, oldest first, and where to go on (None: that was all)."""

    documents: list[dict[str, Any]]
    next_cursor: str | None


class DocEngine(Protocol):
    """What the plane asks of a document engine; every method raises ``StoreUnavailable("documents", …)``."""

    def prepare(self) -> None:
        """Makes what the store needs before its first use; repeating it changes nothing."""

    def health(self) -> dict[str, Any]:
        """The engine's own verdict, without writing; reaching it is not enough, callers judge ``status``.

        ``type`` names the engine, ``status`` is ``green``, ``yellow`` or ``red``; it may say more of itself.
        """

    def info(self) -> dict[str, Any]:
        """Figures that the engine shows of itself, named as in RAGFlow; {} where it shows none."""

    def bulk_write(self, index: str, documents: Sequence[Mapping[str, Any]]) -> int:
        """Writes all the documents, replacing those with the same ``id``; returns how many.

        When it raises, none has been acknowledged, and writing all of them again is right. A document is a JSON
        object with a string ``id``, perhaps a ``kb_id``, perhaps ``time_ms``; raises ``BadField`` for anything else.
        """

    def count(self, index: str, kb_id: str | None = None) -> int:
        """How many documents an index holds, or one knowledge base in it; 0 where there is no such index."""

    def time_range(
        self, index: str, start_ms: int, end_ms: int, *, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """A page of the documents from ``start_ms`` up to, without, ``end_ms``, oldest first, at most 1000.

        Raises ``BadField`` for a cursor that didn't come from here.
        """

    def delete_tenant(self, tenant_id: str, *, limit: int = 1000) -> int:
        """Deletes at most ``limit`` documents of a tenant's index; how many went. Call until it returns 0."""

    def close(self) -> None:
        """Closes what this thread holds open."""


def tenant_index(tenant_id: str) -> str:
    """The name of the index that holds a tenant's chunks, as RAGFlow names it."""
    return f"ragflow_{tenant_id}"


# The full-text table has no content of its own: triggers keep it in step with `document`.
_SCHEMA = (
    """CREATE TABLE document (
        number INTEGER PRIMARY KEY, index_name TEXT NOT NULL, id TEXT NOT NULL, kb_id TEXT, time_ms INTEGER,
        text TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (index_name, id)
    )""",
    "CREATE INDEX document_kb ON document (index_name, kb_id)",
    "CREATE INDEX document_time ON document (index_name, time_ms, id) WHERE time_ms IS NOT NULL",
    "CREATE VIRTUAL TABLE document_text USING fts5(text, content='document', content_rowid='number')",
    """CREATE TRIGGER document_written AFTER INSERT ON document BEGIN
        INSERT INTO document_text (rowid, text) VALUES (new.number, new.text);
    END""",
    """CREATE TRIGGER document_rewritten AFTER UPDATE ON document BEGIN
        INSERT INTO document_text (document_text, rowid, text) VALUES ('delete', old.number, old.text);
        INSERT INTO document_text (rowid, text) VALUES (new.number, new.text);
    END""",
    """CREATE TRIGGER document_deleted AFTER DELETE ON document BEGIN
        INSERT INTO document_text (document_text, rowid, text) VALUES ('delete', old.number, old.text);
    END""",
)

_COUNT = "SELECT count(*) FROM document WHERE index_name = ?"
_COUNT_KB = "SELECT count(*) FROM document WHERE index_name = ? AND kb_id = ?"
_DELETE = """
    DELETE FROM document WHERE number IN (SELECT number FROM document WHERE index_name = ? LIMIT ?)
"""
_WRITE = """
    INSERT INTO document (index_name, id, kb_id, time_ms, text, body) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (index_name, id) DO UPDATE SET
        kb_id = excluded.kb_id, time_ms = excluded.time_ms, text = excluded.text, body = excluded.body
"""


class SqliteDocEngine:
    """The embedded document engine: one SQLite file with a full-text index (FTS5).

    A missing file is made anew by writing only; reading one that is gone is an error and never an empty
    answer.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0) -> None:
        self._file = SqliteFile("documents", path, _SCHEMA, busy_timeout_s=busy_timeout_s)

    def prepare(self) -> None:
        """See ``DocEngine.prepare``."""
        self._file.prepare()

    def health(self) -> dict[str, Any]:
        """See ``DocEngine.health``."""
        self._file.check()
        return {"type": "sqlite", "status": "green"}

    def info(self) -> dict[str, Any]:
        """See ``DocEngine.info``."""
        return {}

    def bulk_write(self, index: str, documents: Sequence[Mapping[str, Any]]) -> int:
        """See ``DocEngine.bulk_write``."""
        rows = [_row(index, document) for document in documents]
        with self._file.transaction() as connection:
            connection.executemany(_WRITE, rows)
        return len(rows)

    def count(self, index: str, kb_id: str | None = None) -> int:
        """See ``DocEngine.count``."""
        with self._file.connection(create=False) as connection:
            if kb_id is None:
                found = connection.execute(_COUNT, (index,))
            else:
                found = connection.execute(_COUNT_KB, (index, kb_id))
            return int(found.fetchone()[0])

    def time_range(
        self, index: str, start_ms: int, end_ms: int, *, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """See ``DocEngine.time_range``."""
        after = first_place(cursor, start_ms)
        size = max(1, min(limit, PAGE_LIMIT))
        with self._file.connection(create=False) as connection:
            rows = connection.execute(
                "SELECT time_ms, id, body FROM document"
                " WHERE index_name = ? AND time_ms IS NOT NULL AND (time_ms, id) > (?, ?) AND time_ms < ?"
                " ORDER BY time_ms, id LIMIT ?",
                (index, *after, end_ms, size + 1),
            ).fetchall()
        documents = [json.loads(body) for _, _, body in rows[:size]]
        return Page(documents, write_cursor(*rows[size - 1][:2]) if len(rows) > size else None)

    def delete_tenant(self, tenant_id: str, *, limit: int = 1000) -> int:
        """See ``DocEngine.delete_tenant``."""
        return self._delete(_DELETE, (tenant_index(tenant_id), limit))

    def close(self) -> None:
        """See ``DocEngine.close``."""
        self._file.close()

    def _delete(self, sql: str, params: tuple[str | int, ...]) -> int:
        with self._file.connection(create=False) as connection:
            return connection.execute(sql, params).rowcount


def write_cursor(time_ms: int, document_id: str) -> str:
    """The opaque form of the place after a document; for URLs."""
    return base64.urlsafe_b64encode(json.dumps([time_ms, document_id]).encode()).decode()


def read_cursor(cursor: str) -> tuple[int, str]:
    """The place that a cursor stands for; raises ``BadField`` when it is not one."""
    try:
        place = json.loads(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True))
    except (UnicodeError, binascii.Error, json.JSONDecodeError, RecursionError):
        place = None
    match place:
        case [int(time_ms), str(document_id)] if abs(time_ms) < 2**63 and (not document_id or _text_bytes(document_id)):
            return time_ms, document_id
    raise BadField("The cursor is not one that this list gave out.", field="cursor")


def first_place(cursor: str | None, start_ms: int) -> tuple[int, str]:
    """The place after which a page begins; raises ``BadField`` for a cursor that isn't one."""
    return (start_ms, "") if cursor is None else max(read_cursor(cursor), (start_ms, ""))


class Identified(NamedTuple):
    """What of a document an engine looks into."""

    id: str
    kb_id: str | None
    time_ms: int | None


def check_document(document: Mapping[str, Any]) -> Identified:
    """Raises ``BadField`` for a document that no engine takes."""
    document_id, kb_id, time_ms = document.get("id"), document.get("kb_id"), document.get(TIME_FIELD)
    if not isinstance(document_id, str) or not 0 < _text_bytes(document_id) <= ID_BYTES:
        raise BadField(f"A document needs a text of at most {ID_BYTES} bytes as its id.", field="id")
    if not (kb_id is None or (isinstance(kb_id, str) and (not kb_id or _text_bytes(kb_id)))):
        raise BadField("A document's kb_id is a text.", field="kb_id")
    if not (time_ms is None or (isinstance(time_ms, int) and abs(time_ms) < 2**63)):
        raise BadField("A document's time is a whole number of milliseconds.", field=TIME_FIELD)
    return Identified(document_id, kb_id, time_ms)


def _row(index: str, document: Mapping[str, Any]) -> tuple[str, str, str | None, int | None, str, str]:
    return index, *check_document(document), _searchable(document), json.dumps(dict(document))


def _searchable(document: Mapping[str, Any]) -> str:
    # RAGFlow's name for a chunk's text. Half a surrogate pair can't be stored as text; the body keeps it.
    text = document.get("content_with_weight")
    return text.encode(errors="replace").decode() if isinstance(text, str) else ""


def _text_bytes(value: str) -> int:
    """The length in UTF-8, 0 for what is no text."""
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        return 0
