"""What a tenant has in a RAGFlow: rows in every table, objects in its buckets, chunks in its index."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from common.models.token import LangfuseProject
from common.services.plane import Plane
from tests.ragflow.database import RagflowDatabase, beside
from tests.ragflow.schema import columns

#: The tables of a tenant's rows that a plane does not make for itself.
TABLES = (
    "api_4_conversation", "connector", "connector2kb", "conversation", "dialog", "document", "file2document",
    "invitation_code", "mcp_server", "pipeline_operation_log", "search", "sync_logs", "task", "tenant_llm",
    "user_canvas_version",
)  # fmt: skip


def make_tables(plane: Plane) -> None:
    """Make RAGFlow's tables that are missing, empty."""
    present = plane.database.tables()
    database = beside(plane)
    database.make_tables(collation=None, but=[table for table in columns(database.version) if table in present])


def fill(plane: Plane, tenant_id: str, *, datasets: int = 2, documents: int = 3) -> None:
    """Give a tenant rows in every table, objects in its buckets, and documents in its index."""
    tenant = _Tenant(plane, tenant_id)
    with plane.database.transaction():
        folder = tenant.row("file", parent_id="root", created_by=tenant_id, name="f", type="folder")
        connector = tenant.row("connector")
        for _ in range(datasets):
            kb_id = tenant.row("knowledgebase", name="d", permission="me", created_by=tenant_id, parser_id="naive")
            tenant.row("connector2kb", connector_id=connector, kb_id=kb_id)
            tenant.row("sync_logs", connector_id=connector, kb_id=kb_id)
            for number in range(documents):
                tenant.document(kb_id, folder, f"{number}.txt")
        tenant.agents_and_chats()
        for table in ("search", "mcp_server", "invitation_code"):
            tenant.row(table)
        for name in ("a", "b"):
            tenant.row("tenant_llm", llm_factory="OpenAI", llm_name=name)
        tenant.langfuse()


class _Tenant:
    """Writes for one tenant."""

    def __init__(self, plane: Plane, tenant_id: str) -> None:
        self._plane = plane
        self._id = tenant_id
        self._database: RagflowDatabase = beside(plane)
        self._columns = {table: {column.name for column in of} for table, of in columns("0.22").items()}

    def row(self, table: str, **values: Any) -> str:
        """A row of the tenant's; its id."""
        if "tenant_id" in self._columns[table]:
            values["tenant_id"] = self._id
        return self._database.insert(table, id=uuid4().hex, **values)

    def document(self, kb_id: str, folder: str, name: str) -> None:
        """A document with its file, its task and log, its object twice (dataset and folder), and four chunks."""
        document = self.row("document", kb_id=kb_id, created_by=self._id, location=name)
        self.row("task", doc_id=document)
        self.row("pipeline_operation_log", kb_id=kb_id, document_id=document)
        location = f"{kb_id}-{name}"
        file_id = self.row("file", parent_id=folder, created_by=self._id, name=name, location=location, type="doc")
        self.row("file2document", file_id=file_id, document_id=document)
        self._plane.objects.put(kb_id, name, b"content")
        self._plane.objects.put(folder, location, b"content")
        chunks = [{"id": f"{document}-{number}", "kb_id": kb_id} for number in range(4)]
        self._plane.documents.bulk_write(f"ragflow_{self._id}", chunks)

    def agents_and_chats(self) -> None:
        """An agent and a dialog, and what was said to them."""
        dialog = self.row("dialog")
        canvas = self.row("user_canvas", user_id=self._id, title="An agent", permission="me")
        self.row("conversation", dialog_id=dialog, user_id=self._id)
        for talked_to in (dialog, canvas):
            self.row("api_4_conversation", dialog_id=talked_to, user_id=self._id)
        self.row("user_canvas_version", user_canvas_id=canvas)

    def langfuse(self) -> None:
        """Langfuse's keys, and the project that they are of."""
        if not self._database.one("SELECT 1 FROM tenant_langfuse WHERE tenant_id = ?", (self._id,)):
            self.row("tenant_langfuse", secret_key="s", public_key="p", host="http://langfuse.test")
        self._plane.database.insert(
            LangfuseProject, tenant_id=self._id, project_id="p", project_name="P", verified_at=0
        )
