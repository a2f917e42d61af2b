"""Which role an account has in a tenant: the check behind every tenant that a request names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from common.core.errors import NotYourTenant
from common.services.plane import Plane
from common.services.principal import Principal


def role_in(plane: Plane, user_id: str | None, tenant_id: str) -> str | None:
    """``owner``, ``normal``, ``invite``, or None when there is no membership.

    RAGFlow's tables may hold double rows; the strongest counts.
    """
    rows = plane.database.all(
        "SELECT role FROM user_tenant WHERE tenant_id = ? AND user_id = ? AND status = '1'",
        (tenant_id, user_id),
    )
    roles = {role for (role,) in rows}
    return next((role for role in ("owner", "normal", "invite") if role in roles), None)


def require_role(plane: Plane, who: Principal, tenant_id: str, roles: Collection[str]) -> None:
    """Raises NotYourTenant unless the caller has one of the roles there now; a token acts in its own tenant only."""
    if who.session_id is None and tenant_id != who.tenant_id:
        raise NotYourTenant
    if role_in(plane, who.user_id, tenant_id) not in roles:
        raise NotYourTenant


def act_in(plane: Plane, who: Principal, tenant_id: str) -> Principal:
    """The caller acting in another tenant of theirs. Raises NotYourTenant."""
    require_role(plane, who, tenant_id, ("owner", "normal"))
    return replace(who, tenant_id=tenant_id, tenant_role=role_in(plane, who.user_id, tenant_id))
