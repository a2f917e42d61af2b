"""RAGFlow's tables that this plane does not make, with the columns that say whose a row is; and rows for a tenant."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from common.models.content import File, Knowledgebase, UserCanvas
from common.models.token import LangfuseProject, TenantLangfuse
from common.services.plane import Plane

# As in RAGFlow 0.22.1: ids are texts of 32 characters, nothing has a default or a foreign key.
TABLES = {
    "tenant_llm": "tenant_id VARCHAR(32), llm_factory VARCHAR(128), llm_name VARCHAR(128), "
    "PRIMARY KEY (tenant_id, llm_factory, llm_name)",
    "document": "id VARCHAR(32) PRIMARY KEY, kb_id VARCHAR(256), created_by VARCHAR(32), location VARCHAR(255)",
    "task": "id VARCHAR(32) PRIMARY KEY, doc_id VARCHAR(32)",
    "file2document": "id VARCHAR(32) PRIMARY KEY, file_id VARCHAR(32), document_id VARCHAR(32)",
    "dialog": "id VARCHAR(32) PRIMARY KEY, tenant_id VARCHAR(32)",
    "conversation": "id VARCHAR(32) PRIMARY KEY, dialog_id VARCHAR(32), user_id VARCHAR(255)",
    "api_4_conversation": "id VARCHAR(32) PRIMARY KEY, dialog_id VARCHAR(32), user_id VARCHAR(255)",
    "user_canvas_version": "id VARCHAR(32) PRIMARY KEY, user_canvas_id VARCHAR(255)",
    "search": "id VARCHAR(32) PRIMARY KEY, tenant_id VARCHAR(32), created_by VARCHAR(32)",
    "mcp_server": "id VARCHAR(32) PRIMARY KEY, tenant_id VARCHAR(32), url VARCHAR(2048)",
    "connector": "id VARCHAR(32) PRIMARY KEY, tenant_id VARCHAR(32)",
    "connector2kb": "id VARCHAR(32) PRIMARY KEY, connector_id VARCHAR(32), kb_id VARCHAR(32)",
    "sync_logs": "id VARCHAR(32) PRIMARY KEY, connector_id VARCHAR(32), kb_id VARCHAR(32)",
    "pipeline_operation_log": "id VARCHAR(32) PRIMARY KEY, tenant_id VARCHAR(32), kb_id VARCHAR(32), "
    "document_id VARCHAR(32)",
    "invitation_code": "id VARCHAR(32) PRIMARY KEY, user_id VARCHAR(32), tenant_id VARCHAR(32)",
}


def make_tables(plane: Plane) -> None:
    """Make the tables, empty."""
    for name, columns in TABLES.items():
        plane.database.run(f"CREATE TABLE {name} ({columns})")


def fill(plane: Plane, tenant_id: str, *, datasets: int = 2, documents: int = 3) -> None:
    """Give a tenant rows in every table, objects in its buckets, and documents in its index."""
    row = _Rows(plane)
    with plane.database.transaction():
        folder = row.model(File, parent_id="root", tenant_id=tenant_id, created_by=tenant_id, name="f", type="folder")
        connector = row("connector", tenant_id=tenant_id)
        for _ in range(datasets):
            kb_id = row.model(Knowledgebase, tenant_id=tenant_id, name="d", embd_id="", created_by=tenant_id)
            row("connector2kb", connector_id=connector, kb_id=kb_id)
            row("sync_logs", connector_id=connector, kb_id=kb_id)
            for number in range(documents):
                _document(plane, row, tenant_id, kb_id, folder, f"{number}.txt")
        _agents_and_chats(row, tenant_id)
        for table in ("search", "mcp_server", "invitation_code"):
            row(table, tenant_id=tenant_id)
        for name in ("a", "b"):
            plane.database.run("INSERT INTO tenant_llm VALUES (?, 'OpenAI', ?)", (tenant_id, name))
        plane.database.insert(
            TenantLangfuse, tenant_id=tenant_id, secret_key="s", public_key="p", host="http://langfuse.test"
        )
        plane.database.insert(LangfuseProject, tenant_id=tenant_id, project_id="p", project_name="P", verified_at=0)


def _document(plane: Plane, row: _Rows, tenant_id: str, kb_id: str, folder: str, name: str) -> None:
    document = row("document", kb_id=kb_id, created_by=tenant_id, location=name)
    row("task", doc_id=document)
    row("pipeline_operation_log", tenant_id=tenant_id, kb_id=kb_id, document_id=document)
    file_id = row.model(
        File,
        parent_id=folder,
        tenant_id=tenant_id,
        created_by=tenant_id,
        name=name,
        location=f"{kb_id}-{name}",
        type="doc",
    )
    row("file2document", file_id=file_id, document_id=document)
    plane.objects.put(kb_id, name, b"content")
    plane.objects.put(folder, f"{kb_id}-{name}", b"content")
    plane.documents.bulk_write(f"ragflow_{tenant_id}", [{"id": f"{document}-{n}", "kb_id": kb_id} for n in range(4)])


def _agents_and_chats(row: _Rows, tenant_id: str) -> None:
    dialog = row("dialog", tenant_id=tenant_id)
    canvas = row.model(UserCanvas, user_id=tenant_id, title="An agent")
    row("conversation", dialog_id=dialog, user_id=tenant_id)
    row("api_4_conversation", dialog_id=dialog, user_id=tenant_id)
    row("api_4_conversation", dialog_id=canvas, user_id=tenant_id)
    row("user_canvas_version", user_canvas_id=canvas)


class _Rows:
    """Inserts rows with an id of their own."""

    def __init__(self, plane: Plane) -> None:
        self._database = plane.database

    def __call__(self, table: str, **values: Any) -> str:
        row_id = uuid4().hex
        columns = ", ".join(["id", *values])
        marks = ", ".join("?" * (len(values) + 1))
        self._database.run(f"INSERT INTO {table} ({columns}) VALUES ({marks})", (row_id, *values.values()))
        return row_id

    def model(self, model: type[Any], **values: Any) -> str:
        row_id = uuid4().hex
        self._database.insert(model, id=row_id, **values)
        return row_id
