"""What belongs to a tenant in the metadata store: how each table hangs on one, and its removal in batches.

The map covers every table of RAGFlow 0.22 that holds a tenant's rows. A table that does not exist here is skipped, so a
plane without RAGFlow and a database that RAGFlow made are treated alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from common.services.plane import Plane

#: Rows that one statement removes.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Link:
    """A column by which rows belong to a tenant: it holds the tenant's id, or the id of a row of ``parent``."""

    column: str
    parent: str | None = None


class Selection(NamedTuple):
    """Rows whose ``column`` has one of these values."""

    column: str
    values: tuple[str, ...]


# Children stand before their parents: as long as a parent's row is there, its children are found. A row belongs to a
# tenant when any of its links leads there.
LINKS: dict[str, tuple[Link, ...]] = {
    "task": (Link("doc_id", "document"),),
    "file2document": (Link("file_id", "file"), Link("document_id", "document")),
    "pipeline_operation_log": (Link("tenant_id"), Link("kb_id", "knowledgebase")),
    "sync_logs": (Link("connector_id", "connector"), Link("kb_id", "knowledgebase")),
    "connector2kb": (Link("connector_id", "connector"), Link("kb_id", "knowledgebase")),
    "document": (Link("kb_id", "knowledgebase"),),
    "conversation": (Link("dialog_id", "dialog"),),
    "api_4_conversation": (Link("dialog_id", "dialog"), Link("dialog_id", "user_canvas")),
    "user_canvas_version": (Link("user_canvas_id", "user_canvas"),),
    "dialog": (Link("tenant_id"),),
    "user_canvas": (Link("user_id"),),
    "search": (Link("tenant_id"),),
    "mcp_server": (Link("tenant_id"),),
    "connector": (Link("tenant_id"),),
    "file": (Link("tenant_id"),),
    "knowledgebase": (Link("tenant_id"),),
    "tenant_llm": (Link("tenant_id"),),
    "invitation_code": (Link("tenant_id"),),
    "user_tenant": (Link("tenant_id"),),
    "rk_membership": (Link("tenant_id"),),
    "rk_invitation": (Link("tenant_id"),),
    "rk_token": (Link("tenant_id"),),
    "rk_retired_token": (Link("tenant_id"),),
    "api_token": (Link("tenant_id"),),
    "rk_langfuse_project": (Link("tenant_id"),),
    "rk_tenant_limit": (Link("tenant_id"),),
    "tenant_langfuse": (Link("tenant_id"),),
    "tenant": (Link("id"),),
}
#: What goes in the request that deletes an account: nobody acts in the tenant, or as its member, any more.
AT_ONCE = (
    "user_tenant",
    "rk_membership",
    "rk_invitation",
    "api_token",
    "rk_token",
    "rk_retired_token",
    "rk_langfuse_project",
    "rk_tenant_limit",
    "tenant_langfuse",
    "tenant",
)
#: By one of these columns a table's rows belong to a tenant, as far as can be told of one that the map lacks.
TENANT_COLUMNS = ("tenant_id", "kb_id")
# No single column identifies their rows. A tenant has few of them: they go in one statement.
_WITHOUT_ID = {
    "tenant_llm",
    "rk_membership",
    "rk_retired_token",
    "api_token",
    "rk_langfuse_project",
    "rk_tenant_limit",
    "tenant_langfuse",
}


def unknown_among(tables: Iterable[str]) -> list[str]:
    """Of tables that have one of TENANT_COLUMNS those that a purge leaves alone, because the map lacks them."""
    return sorted(table for table in tables if table not in LINKS and not table.startswith("rk_"))


def left_alone(plane: Plane) -> list[str]:
    """The tables here that may hold a tenant's rows and are not purged, such as those of a later RAGFlow."""
    return unknown_among(plane.database.tables_with(TENANT_COLUMNS))


def purged_tables(plane: Plane) -> list[str]:
    """The tables that exist here and can hold a tenant's rows, children before parents."""
    present = plane.database.tables()
    return [table for table in LINKS if table in present and _conditions(table, present)]


def count(plane: Plane, tenant_id: str) -> dict[str, int]:
    """How many rows of each table belong to a tenant; tables without any are left out."""
    present = plane.database.tables()
    counts = {}
    for table in purged_tables(plane):
        conditions = _conditions(table, present)
        sql = f"SELECT COUNT(*) FROM {table} WHERE {conditions[0]}"
        if len(conditions) > 1:
            # An OR would have a server look at every row; a row that both links lead to counts once.
            each = (f"SELECT id FROM {table} WHERE {condition}" for condition in conditions)
            sql = f"SELECT COUNT(*) FROM ({' UNION '.join(each)}) AS found"
        row = plane.database.one(sql, [tenant_id] * sql.count("?"))
        if row and row[0]:
            counts[table] = int(row[0])
    return counts


def selections(plane: Plane, table: str, tenant_id: str) -> Iterator[Selection]:
    """All of a tenant's rows in a table, as selections of which ``remove`` takes some until none is left.

    They are found from their parents downwards, each step by an index: so the work grows with the tenant's rows and
    with nobody else's, and no statement has to look through all of them.
    """
    present = plane.database.tables()
    for link in LINKS[table]:
        if link.parent is None:
            yield Selection(link.column, (tenant_id,))
        elif link.parent in present:
            ids = _row_ids(plane, link.parent, tenant_id, present)
            while some := tuple(islice(ids, BATCH)):
                yield Selection(link.column, some)


def remove(plane: Plane, table: str, selection: Selection, *, limit: int = BATCH) -> int:
    """Delete up to ``limit`` rows of a selection, in the running transaction; how many went."""
    marks = ", ".join("?" * len(selection.values))
    condition = f"{selection.column} IN ({marks})"
    if table in _WITHOUT_ID:
        return plane.database.run(f"DELETE FROM {table} WHERE {condition}", selection.values)
    rows = plane.database.all(f"SELECT id FROM {table} WHERE {condition} LIMIT ?", (*selection.values, limit))
    if not rows:
        return 0
    marks = ", ".join("?" * len(rows))
    return plane.database.run(f"DELETE FROM {table} WHERE id IN ({marks})", [row_id for (row_id,) in rows])


def _row_ids(plane: Plane, table: str, tenant_id: str, present: set[str]) -> Iterator[str]:
    """The ids of a tenant's rows in a table that others hang on."""
    for link in LINKS[table]:
        values = iter((tenant_id,)) if link.parent is None else _row_ids(plane, link.parent, tenant_id, present)
        if link.parent is None or link.parent in present:
            for value in values:
                yield from _ids(plane, table, f"{link.column} = ?", value)


def remove_at_once(plane: Plane, tenant_id: str) -> dict[str, int]:
    """Delete a tenant, its memberships, invitations and credentials in the running transaction; rows per table."""
    removed = {}
    for table in AT_ONCE:
        rows = plane.database.run(f"DELETE FROM {table} WHERE {LINKS[table][0].column} = ?", (tenant_id,))
        if rows:
            removed[table] = rows
    return removed


def buckets(plane: Plane, tenant_id: str) -> Iterator[str]:
    """A tenant's buckets: its own, its downloads, one per dataset and one per folder. ``Neighbours`` may be in them."""
    yield tenant_id
    yield f"{tenant_id}-downloads"
    yield from _ids(plane, "knowledgebase", "tenant_id = ?", tenant_id)
    yield from _ids(plane, "file", "tenant_id = ? AND type = 'folder'", tenant_id)


class Neighbours:
    """The tenants that stay when some go, and the objects that their rows name.

    A file names the object of its location in the bucket of its folder, a document that in the bucket of its dataset.
    """

    def __init__(self, plane: Plane, going: Sequence[str]) -> None:
        self._plane = plane
        self._going = tuple(going)
        self._stays = f"NOT IN ({', '.join('?' * len(going))})"
        self._have_documents = {"document", "knowledgebase"} <= plane.database.tables()

    def name_any_in(self, bucket: str) -> bool:
        """Whether they name any object of a bucket, be it there or not."""
        return self._plane.database.one(f"{self._named('')} LIMIT 1", self._params(bucket)) is not None

    def named_in(self, bucket: str, names: Sequence[str]) -> set[str]:
        """Those of up to a listing's names that they name in a bucket; one statement."""
        marks = ", ".join("?" * len(names))
        rows = self._plane.database.all(self._named(f"IN ({marks})"), self._params(bucket, names))
        # The database may take names for one that differ in case.
        return {name for (name,) in rows}.intersection(names)

    def strays(self, tenant_id: str, *, after: str = "") -> list[tuple[str, str, str]]:
        """Files of a tenant that goes, in folders that stay: up to BATCH of (file id, bucket, object), by file id.

        Such a bucket is a neighbour's, so it must not go whole, nor an object that a neighbour's row names.
        """
        going = ", ".join("?" * len(self._going))
        sql = (
            "SELECT f.id, f.parent_id, f.location FROM file f WHERE f.tenant_id = ? AND f.id > ? "
            "AND f.type <> 'folder' AND f.location <> '' AND NOT EXISTS "
            f"(SELECT 1 FROM file p WHERE p.id = f.parent_id AND p.tenant_id IN ({going}) AND p.type = 'folder') "
            "AND NOT EXISTS (SELECT 1 FROM file o WHERE o.parent_id = f.parent_id AND o.location = f.location "
            f"AND o.tenant_id {self._stays})"
        )
        params = [tenant_id, after, *self._going, *self._going]
        if self._have_documents:
            sql += (
                " AND NOT EXISTS (SELECT 1 FROM document d JOIN knowledgebase k ON k.id = d.kb_id "
                f"WHERE d.kb_id = f.parent_id AND d.location = f.location AND k.tenant_id {self._stays})"
            )
            params += self._going
        rows = self._plane.database.all(f"{sql} ORDER BY f.id LIMIT ?", (*params, BATCH))
        return [(file_id, bucket, name) for file_id, bucket, name in rows]

    def _named(self, among: str) -> str:
        """The statement for the names in a bucket, of which ``among`` is a condition."""
        of_file, of_document = (f"AND {column} {among} " if among else "" for column in ("f.location", "d.location"))
        sql = (
            "SELECT f.location FROM file f "
            f"WHERE f.parent_id = ? AND f.location <> '' {of_file}AND f.tenant_id {self._stays}"
        )
        if self._have_documents:
            sql += (
                " UNION ALL SELECT d.location FROM document d JOIN knowledgebase k ON k.id = d.kb_id "
                f"WHERE d.kb_id = ? AND d.location <> '' {of_document}AND k.tenant_id {self._stays}"
            )
        return sql

    def _params(self, bucket: str, names: Sequence[str] = ()) -> list[str]:
        return [bucket, *names, *self._going] * (2 if self._have_documents else 1)


def _ids(plane: Plane, table: str, condition: str, value: str) -> Iterator[str]:
    last = ""
    while True:
        rows = plane.database.all(
            f"SELECT id FROM {table} WHERE {condition} AND id > ? ORDER BY id LIMIT ?", (value, last, BATCH)
        )
        if not rows:
            return
        yield from (row_id for (row_id,) in rows)
        last = rows[-1][0]


def _conditions(table: str, present: set[str]) -> list[str]:
    """The conditions under which a row belongs to a tenant, one a link; each ``?`` is the tenant's id.

    Links over a table that does not exist here are left out; no condition means that none is left.
    """
    conditions = []
    for link in LINKS[table]:
        if link.parent is None:
            conditions.append(f"{link.column} = ?")
        elif link.parent in present:
            conditions += [
                f"{link.column} IN (SELECT id FROM {link.parent} WHERE {inner})"
                for inner in _conditions(link.parent, present)
            ]
    return conditions
