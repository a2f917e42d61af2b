"""The first migration: Ragkeeper's own tables, and RAGFlow's where they are absent."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import uuid4

from common.core.permissions import BUILT_IN_ROLES
from common.models.account import Account, Session, User
from common.models.base import RagflowTable, Table
from common.models.content import File, Knowledgebase, UserCanvas
from common.models.operation import AuditEvent, Job, LockRow, ServiceId, State
from common.models.role import Role, RoleGrant, RoleHolder, RoleParent
from common.models.tenant import Invitation, MembershipClaim, Tenant, UserTenant
from common.models.token import ApiToken, LangfuseProject, TenantLangfuse, TokenRecord
from common.settings import SettingsError
from common.stores.database import Database, Taken

RAGFLOW: tuple[type[RagflowTable], ...] = (
    User,
    Tenant,
    UserTenant,
    ApiToken,
    TenantLangfuse,
    File,
    Knowledgebase,
    UserCanvas,
)
OWN: tuple[type[Table], ...] = (
    Account,
    Session,
    MembershipClaim,
    Invitation,
    TokenRecord,
    LangfuseProject,
    Role,
    RoleParent,
    RoleGrant,
    RoleHolder,
    Job,
    AuditEvent,
    ServiceId,
    State,
    LockRow,
)
LOCKS = ("superusers", "roles", "tenants")


def apply(database: Database, now_ms: int) -> None:
    """Make the tables, and note whether a RAGFlow was here first."""
    present = database.tables()
    _refuse_strangers(database, present)
    for model in OWN:
        database.create(model)
    for name in LOCKS:
        _insert_once(database, LockRow, name=name)
    _insert_once(database, State, name="role_version", value=1)
    # Before our own ``user`` is made: where this is repeated after it broke off, the first finding stands.
    _insert_once(database, State, name="shared_database", value=int(User._meta.table_name in present))
    for model in RAGFLOW:
        if model._meta.table_name not in present:
            database.create(model)
    _add_builtin_roles(database, now_ms)


def _refuse_strangers(database: Database, present: set[str]) -> None:
    """Raises SettingsError for tables of RAGFlow's names that are another program's, before anything is made."""
    for model in RAGFLOW:
        table = model._meta.table_name
        if table in present:
            found = {column.name for column in database.peewee.get_columns(table)}
            lacking = sorted({field.column_name for field in model._meta.sorted_fields} - found)
            if lacking:
                raise SettingsError(
                    f"The database has a table {table} that is not RAGFlow's (it lacks {', '.join(lacking)}): give "
                    "Ragkeeper a database of its own, or a RAGFlow's. `ragkeeper doctor --database` tells more."
                )


def _insert_once(database: Database, model: type[Table], **row: Any) -> None:
    with suppress(Taken):
        database.insert(model, **row)


def _add_builtin_roles(database: Database, now_ms: int) -> None:
    # What a built-in role grants stands in the code, so that a new version can widen it; only its id is a row.
    for role in BUILT_IN_ROLES.values():
        _insert_once(
            database,
            Role,
            id=uuid4().hex,
            name=role.name,
            description=role.description,
            builtin=True,
            created_at=now_ms,
            updated_at=now_ms,
        )
