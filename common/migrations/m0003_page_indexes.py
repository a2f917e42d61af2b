"""The indexes that pages of tokens, tenants and members are read off, and the check behind every tenant.

``user_tenant`` gets its own only where this plane made it: RAGFlow's tables are left as they are, and MySQL reads the
same statements off RAGFlow's indexes, each of which has the row's id behind it.
"""

from __future__ import annotations

from common.stores.database import Database

_OWN = {
    "rk_token_of_tenant": ("rk_token", "tenant_id, created_at, id"),
    "rk_token_of_user": ("rk_token", "user_id, created_at, id"),
    "rk_token_of_user_display": ("rk_token", "user_id, display"),
    "rk_invitation_of_tenant": ("rk_invitation", "tenant_id, id"),
}
_UNSHARED = {
    "rk_user_tenant_pair": ("user_tenant", "user_id, tenant_id, status, role, create_time"),
    "rk_user_tenant_page": ("user_tenant", "tenant_id, id"),
    "rk_user_tenant_role": ("user_tenant", "tenant_id, role, status, create_time, user_id"),
}


def apply(database: Database, now_ms: int) -> None:
    """Make the indexes."""
    shared = database.one("SELECT value FROM rk_state WHERE name = 'shared_database'") == (1,)
    for name, (table, columns) in (_OWN if shared else {**_OWN, **_UNSHARED}).items():
        database.create_index(name, table, columns)
