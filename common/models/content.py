"""RAGFlow's content tables, as far as this plane lists, counts or creates rows in them."""

from __future__ import annotations

from peewee import CharField, DateTimeField, FloatField, IntegerField, TextField

from common.models.base import LongTextField, RagflowTable


class File(RagflowTable):
    """A file or folder; a tenant's root folder is its own parent."""

    id = CharField(max_length=32, primary_key=True)
    parent_id = CharField(max_length=32, index=True)
    tenant_id = CharField(max_length=32, index=True)
    created_by = CharField(max_length=32, index=True)
    name = CharField(max_length=255, index=True)
    location = CharField(max_length=255, null=True, index=True)
    size = IntegerField(default=0)
    type = CharField(max_length=32)
    source_type = CharField(max_length=128, default="")

    class Meta:
        table_name = "file"


class Knowledgebase(RagflowTable):
    """A dataset."""

    id = CharField(max_length=32, primary_key=True)
    avatar = TextField(null=True)
    tenant_id = CharField(max_length=32, index=True)
    name = CharField(max_length=128, index=True)
    language = CharField(max_length=32, null=True)
    description = TextField(null=True)
    embd_id = CharField(max_length=128)
    permission = CharField(max_length=16, default="me")
    created_by = CharField(max_length=32, index=True)
    doc_num = IntegerField(default=0)
    token_num = IntegerField(default=0)
    chunk_num = IntegerField(default=0)
    similarity_threshold = FloatField(default=0.2)
    vector_similarity_weight = FloatField(default=0.3)
    parser_id = CharField(max_length=32, default="naive")
    pipeline_id = CharField(max_length=32, null=True, index=True)
    parser_config = LongTextField(default="{}")
    pagerank = IntegerField(default=0)
    graphrag_task_id = CharField(max_length=32, null=True, index=True)
    graphrag_task_finish_at = DateTimeField(null=True)
    raptor_task_id = CharField(max_length=32, null=True, index=True)
    raptor_task_finish_at = DateTimeField(null=True)
    mindmap_task_id = CharField(max_length=32, null=True, index=True)
    mindmap_task_finish_at = DateTimeField(null=True)
    status = CharField(max_length=1, null=True, default="1")

    class Meta:
        table_name = "knowledgebase"


class UserCanvas(RagflowTable):
    """An agent or data flow."""

    id = CharField(max_length=32, primary_key=True)
    avatar = TextField(null=True)
    user_id = CharField(max_length=255, index=True)
    title = CharField(max_length=255, null=True)
    permission = CharField(max_length=16, default="me")
    description = TextField(null=True)
    canvas_type = CharField(max_length=32, null=True)
    canvas_category = CharField(max_length=32, default="agent_canvas")
    dsl = LongTextField(null=True)

    class Meta:
        table_name = "user_canvas"
