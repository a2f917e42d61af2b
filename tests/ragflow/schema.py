"""RAGFlow's tables as its versions 0.22, 0.24 and 0.27 have them: types, what may be NULL, indexes; no defaults.

A table is written as ``column type`` by commas. Types: ``v32`` VARCHAR(32), ``text``, ``longtext``, ``int``, ``float``,
``bool``, ``date`` DATETIME; ``?`` may be NULL, ``*`` has an index of its own, ``!`` a unique one. Every table has
``id v32`` as key, unless KEYS says otherwise, and the four time columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Version = Literal["0.22", "0.24", "0.27"]
Dialect = Literal["mysql", "sqlite"]
VERSIONS: tuple[Version, ...] = ("0.22", "0.24", "0.27")

TIMES = "create_time bigint?*, create_date date?*, update_time bigint?*, update_date date?*"
KEYS = {
    "api_token": ("tenant_id", "token"),
    "tenant_langfuse": ("tenant_id",),
    "tenant_llm": ("tenant_id", "llm_factory", "llm_name"),
    "llm": ("fid", "llm_name"),
    "llm_factories": ("name",),
    "system_settings": ("name",),
}
_TABLES = {
    "user": "access_token v255?*, nickname v100*, password v255?*, email v255*, avatar text?, language v32?*, "
    "color_schema v32?*, timezone v64?*, last_login_time date?*, is_authenticated v1*, is_active v1*, "
    "is_anonymous v1*, login_channel v255?*, status v1?*, is_superuser bool?*",
    "tenant": "name v100?*, public_key v255?*, llm_id v128*, embd_id v128*, asr_id v128*, img2txt_id v128*, "
    "rerank_id v128*, tts_id v256?*, parser_ids v256*, credit int*, status v1?*",
    "user_tenant": "user_id v32*, tenant_id v32*, role v32*, invited_by v32*, status v1?*",
    "invitation_code": "code v32*, visit_time date?*, user_id v32?*, tenant_id v32?*, status v1?*",
    "api_token": "tenant_id v32*, token v255*, dialog_id v32?*, source v16?*, beta v255?*",
    "tenant_langfuse": "tenant_id v32, secret_key v2048*, public_key v2048*, host v128*",
    "tenant_llm": "tenant_id v32*, llm_factory v128*, model_type v128?*, llm_name v128*, api_key text?, "
    "api_base v255?, max_tokens int*, used_tokens int*, status v1*",
    "llm_factories": "name v128, logo text?, tags v255*, status v1?*",
    "llm": "fid v128*, llm_name v128*, model_type v128*, max_tokens int, tags v255*, is_tools bool, status v1?*",
    "file": "parent_id v32*, tenant_id v32*, created_by v32*, name v255*, location v255?*, size int*, type v32*, "
    "source_type v128*",
    "knowledgebase": "avatar text?, tenant_id v32*, name v128*, language v32?*, description text?, embd_id v128*, "
    "permission v16*, created_by v32*, doc_num int*, token_num int*, chunk_num int*, similarity_threshold float*, "
    "vector_similarity_weight float*, parser_id v32*, pipeline_id v32?*, parser_config longtext, pagerank int, "
    "graphrag_task_id v32?*, graphrag_task_finish_at date?, raptor_task_id v32?*, raptor_task_finish_at date?, "
    "mindmap_task_id v32?*, mindmap_task_finish_at date?, status v1?*",
    "document": "thumbnail text?, kb_id v256*, parser_id v32*, pipeline_id v32?*, parser_config longtext, "
    "source_type v128*, type v32*, created_by v32*, name v255?*, location v255?*, size int*, token_num int*, "
    "chunk_num int*, progress float*, progress_msg text?, process_begin_at date?*, process_duration float, "
    "meta_fields longtext?, suffix v32*, run v1?*, status v1?*",
    "task": "doc_id v32*, from_page int, to_page int, task_type v32, priority int, begin_at date?*, "
    "process_duration float, progress float*, progress_msg text?, retry_count int, digest text?, chunk_ids longtext?",
    "file2document": "file_id v32?*, document_id v32?*",
    "dialog": "tenant_id v32*, name v255?*, description text?, icon text?, language v32?*, llm_id v128, "
    "llm_setting longtext, prompt_type v16*, prompt_config longtext, meta_data_filter longtext?, "
    "similarity_threshold float, vector_similarity_weight float, top_n int, top_k int, do_refer v1, rerank_id v128, "
    "kb_ids longtext, status v1?*",
    "conversation": "dialog_id v32*, name v255?*, message longtext?, reference longtext?, user_id v255?*",
    "api_4_conversation": "dialog_id v32*, user_id v255*, message longtext?, reference longtext?, tokens int, "
    "source v16?*, dsl longtext?, duration float*, round int*, thumb_up int*, errors text?",
    "user_canvas": "avatar text?, user_id v255*, title v255?, permission v16*, description text?, canvas_type v32?*, "
    "canvas_category v32*, dsl longtext?",
    "canvas_template": "avatar text?, title longtext?, description longtext?, canvas_type v32?*, canvas_category v32*, "
    "dsl longtext?",
    "user_canvas_version": "user_canvas_id v255*, title v255?, description text?, dsl longtext?",
    "search": "avatar text?, tenant_id v32*, name v128*, description text?, created_by v32*, search_config longtext, "
    "status v1?*",
    "mcp_server": "name v255, tenant_id v32*, url v2048, server_type v32, description text?, variables longtext?, "
    "headers longtext?",
    "connector": "tenant_id v32*, name v128, source v128*, input_type v128*, config longtext, refresh_freq int, "
    "prune_freq int, timeout_secs int, indexing_start date?*, status v16*",
    "connector2kb": "connector_id v32*, kb_id v32*, auto_parse v1",
    "sync_logs": "connector_id v32*, status v128*, from_beginning v1?, new_docs_indexed int, total_docs_indexed int, "
    "docs_removed_from_index int, error_msg text, error_count int, full_exception_trace text?, time_started date?*, "
    "poll_range_start date?*, poll_range_end date?*, kb_id v32*",
    "pipeline_operation_log": "document_id v32*, tenant_id v32*, kb_id v32*, pipeline_id v32?*, pipeline_title v32?*, "
    "parser_id v32*, document_name v255, document_suffix v255, document_type v255, source_from v255, progress float*, "
    "progress_msg text?, process_begin_at date?*, process_duration float, dsl longtext?, task_type v32, "
    "operation_status v32, avatar text?, status v1?*",
}
_MODELS = ("llm", "embd", "asr", "img2txt", "rerank", "tts", "ocr")
# What a version adds to the one before it, table by table.
_SINCE_24 = {"user_canvas": "release bool?", "system_settings": "name v128, source v32, data_type v32, value text"}
_SINCE_27 = {
    "tenant": ", ".join([*(f"tenant_{model}_id v32?*" for model in _MODELS), "ocr_id v128?"]),
    "user_canvas": "tags v512?",
}


@dataclass(frozen=True)
class Column:
    """A column: its name, its type as above, and what is true of it."""

    name: str
    type: str
    nullable: bool
    indexed: bool
    unique: bool

    def sql(self, dialect: Dialect) -> str:
        """Its definition."""
        words = {"int": "INTEGER", "bigint": "BIGINT", "date": "DATETIME", "float": "FLOAT", "bool": "BOOL"}
        if dialect == "sqlite":
            words |= {"bool": "SMALLINT"}
        kind = f"VARCHAR({self.type[1:]})" if self.type[0] == "v" else words.get(self.type, self.type.upper())
        return f"`{self.name}` {kind}{'' if self.nullable else ' NOT NULL'}"


@lru_cache
def columns(version: Version) -> dict[str, list[Column]]:
    """Every table's columns, the key first."""
    texts = dict(_TABLES)
    for since, additions in (("0.24", _SINCE_24), ("0.27", _SINCE_27)):
        if version >= since:
            for table, text in additions.items():
                texts[table] = f"{texts[table]}, {text}" if table in texts else text
    if version == "0.27":
        # Unique since 0.25; the indexes on 2048 characters are gone since 0.27.
        texts["user"] = texts["user"].replace("email v255*", "email v255!")
        texts["tenant_langfuse"] = texts["tenant_langfuse"].replace("*", "")
    return {
        table: [_column(part) for part in f"{'' if table in KEYS else 'id v32, '}{text}, {TIMES}".split(", ")]
        for table, text in texts.items()
    }


def statements(version: Version, dialect: Dialect, collation: str | None = None) -> list[str]:
    """What makes the tables, empty; without a collation they have the database's, as where RAGFlow makes them."""
    made = []
    options = f" DEFAULT CHARSET=utf8mb4 COLLATE={collation}" if collation else ""
    for table, of_table in columns(version).items():
        parts = [*(c.sql(dialect) for c in of_table), f"PRIMARY KEY ({', '.join(KEYS.get(table, ('id',)))})"]
        indexed = [c for c in of_table if c.indexed]
        if dialect == "mysql":
            # With the table, not after it: a test waits for each statement that changes a schema.
            parts += [f"{'UNIQUE ' if c.unique else ''}INDEX {table}_{c.name} (`{c.name}`)" for c in indexed]
            made.append(f"CREATE TABLE {table} ({', '.join(parts)}){options}")
        else:
            made.append(f"CREATE TABLE {table} ({', '.join(parts)})")
            made += [
                f"CREATE {'UNIQUE ' if c.unique else ''}INDEX {table}_{c.name} ON {table} (`{c.name}`)" for c in indexed
            ]
    return made


def _column(text: str) -> Column:
    name, kind = text.split(" ")
    marks = kind[len(kind.rstrip("?*!")) :]
    return Column(name, kind.rstrip("?*!"), "?" in marks, "*" in marks or "!" in marks, "!" in marks)
