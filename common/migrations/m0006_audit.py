"""Signed and sealed audit events, and the indexes that pages of them are read off under any filter."""

from __future__ import annotations

from secrets import token_hex

from common.core.audit_chain import uid_of
from common.core.emails import email_key
from common.models.audit import AuditAnchor, AuditName, AuditSeal, Unsealed
from common.models.operation import AuditEvent
from common.stores.database import Database

MAKES = (Unsealed, AuditSeal, AuditAnchor, AuditName)
_TABLE = "rk_audit_event"
_COLUMNS = (
    AuditEvent.uid,
    AuditEvent.actor_key,
    AuditEvent.target_key,
    AuditEvent.key_id,
    AuditEvent.mac,
)
# One for each set of filters, ended by what pages go by.
_INDEXES = {
    "rk_audit_by_actor": "actor_key, uid",
    "rk_audit_by_tag": "tag, uid",
    "rk_audit_by_target": "target_key, uid",
    "rk_audit_by_actor_tag": "actor_key, tag, uid",
    "rk_audit_by_actor_target": "actor_key, target_key, uid",
    "rk_audit_by_tag_target": "tag, target_key, uid",
    "rk_audit_by_all": "actor_key, tag, target_key, uid",
}
_PIECE = 1000


def apply(database: Database, now_ms: int) -> None:
    """Make tables, columns and indexes; events of before get their ids. They are signed when the first seal is made."""
    for model in MAKES:
        database.create(model)
    present = {column.name for column in database.peewee.get_columns(_TABLE)}
    for field in _COLUMNS:
        if field.column_name not in present:
            database.add_column(_TABLE, field)
    _fill(database)
    database.create_index("rk_audit_uid", _TABLE, "uid", unique=True)
    for name, columns in _INDEXES.items():
        database.create_index(name, _TABLE, columns)


def _fill(database: Database) -> None:
    last = 0
    while rows := database.all(
        f"SELECT id, at, actor_email, target FROM {_TABLE} WHERE id > ? AND uid IS NULL ORDER BY id LIMIT ?",
        (last, _PIECE),
    ):
        for row_id, at, email, target in rows:
            keys = [email_key(name) if name else None for name in (email, target)]
            database.run(
                f"UPDATE {_TABLE} SET uid = ?, actor_key = ?, target_key = ? WHERE id = ?",
                (uid_of(at, row_id % 0x10000, token_hex(6)), *keys, row_id),
            )
        last = rows[-1][0]
