"""How much a tenant may have: a default for all, a value of its own where it has one; 0 is no limit.

This plane holds a tenant to its members, tokens and requests. Datasets are told to those who serve them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from common.core.audit_tags import EventTag
from common.core.errors import LimitReached, TooManyInGrace
from common.models.variable import TenantLimit
from common.services import audit, memberships, settings
from common.services.plane import Plane
from common.services.principal import Principal

Name = Literal["members", "tokens", "datasets", "requests_per_minute"]
NAMES: tuple[Name, ...] = ("members", "tokens", "datasets", "requests_per_minute")
#: The settings that hold the defaults.
DEFAULTS: Mapping[Name, str] = {
    "members": "tenant_limit.members",
    "tokens": "tenant_limit.tokens",
    "datasets": "tenant_limit.datasets",
    "requests_per_minute": "limit.tenant_calls",
}

_COUNTED = {
    "members": "SELECT COUNT(DISTINCT m.user_id) FROM user_tenant m JOIN user u ON u.id = m.user_id "
    "WHERE m.tenant_id = ? AND m.status = '1' AND m.role <> 'invite' AND COALESCE(u.status, '1') <> '0'",
    "tokens": "SELECT COUNT(*) FROM api_token k LEFT JOIN rk_token t ON t.stored = k.token AND "
    "t.tenant_id = k.tenant_id WHERE k.tenant_id = ? AND (t.expires_at IS NULL OR t.expires_at > ?)",
    "datasets": "SELECT COUNT(*) FROM knowledgebase WHERE tenant_id = ? AND status = '1'",
}


def limit(plane: Plane, tenant_id: str, name: Name) -> int:
    """What the tenant may have of this now; 0 is no limit."""
    row = plane.database.one(f"SELECT {name} FROM rk_tenant_limit WHERE tenant_id = ?", (tenant_id,))
    own = row[0] if row else None
    return plane.variables.integer(DEFAULTS[name]) if own is None else own


def make_sure_of_room(plane: Plane, tenant_id: str, name: Literal["members", "tokens"]) -> None:
    """Within a transaction that holds the memberships' lock, before one more is added: raises LimitReached.

    Everything that adds members or tokens here holds that lock, so no two of them take the last place. What a RAGFlow
    in the same database adds is counted, and can't be refused.
    """
    most = limit(plane, tenant_id, name)
    if most and _counted(plane, tenant_id, name) >= most:
        raise LimitReached(name, most)


def make_sure_of_grace(plane: Plane, tenant_id: str) -> None:
    """Within a transaction that holds the memberships' lock, before a token gets one that replaces it and goes on for a
    while: raises TooManyInGrace where more are in their grace than the tenant may have tokens.

    So a tenant that has all that it may have can rotate each, and one of them again whose answer was lost.
    """
    most = limit(plane, tenant_id, "tokens")
    if not most:
        return
    row = plane.database.one(
        "SELECT COUNT(*) FROM rk_token t JOIN rk_token_trait r ON r.token_id = t.id "
        "WHERE t.tenant_id = ? AND t.expires_at > ? AND r.replaced_by IS NOT NULL",
        (tenant_id, plane.now_ms()),
    )
    if row is not None and row[0] > most:
        raise TooManyInGrace(most)


def of_tenant(plane: Plane, tenant_id: str) -> dict[str, Any]:
    """``{tenant_id, limits, own, defaults, used}``, each by name; ``own`` is None where the default holds.

    ``used`` has members, tokens and datasets. Raises TenantNotFound.
    """
    memberships.require(plane, tenant_id)
    own, defaults = _own(plane, tenant_id), get_defaults(plane)
    return {
        "tenant_id": tenant_id,
        "limits": {name: defaults[name] if own[name] is None else own[name] for name in NAMES},
        "own": own,
        "defaults": defaults,
        "used": {name: _counted(plane, tenant_id, name) for name in _COUNTED},
    }


def set_of_tenant(plane: Plane, actor: Principal, tenant_id: str, changes: Mapping[str, int | None]) -> dict[str, Any]:
    """Give a tenant limits of its own; None goes back to the default, what is left out stays. Returns ``of_tenant``.

    A limit below what there is takes nothing away. Raises TenantNotFound, BadField, and GivesMoreThanHeld when an owner
    of the tenant holds more than the actor.
    """
    with memberships.administering(plane, actor, tenant_id) as actor:
        before = _own(plane, tenant_id)
        after = before | {name: changes[name] for name in NAMES if name in changes}
        if after != before:
            audit.record(plane, EventTag.TENANT_LIMITS, actor, target=("tenant", tenant_id), before=before, after=after)
            plane.database.run("DELETE FROM rk_tenant_limit WHERE tenant_id = ?", (tenant_id,))
            if any(value is not None for value in after.values()):
                stamps = {"updated_at": plane.now_ms(), "updated_by": actor.email}
                plane.database.insert(TenantLimit, tenant_id=tenant_id, **after, **stamps)
        return of_tenant(plane, tenant_id)


def get_defaults(plane: Plane) -> dict[str, int]:
    """The limits of tenants that have none of their own, by name."""
    return {name: plane.variables.integer(setting) for name, setting in DEFAULTS.items()}


def set_defaults(plane: Plane, actor: Principal, changes: Mapping[str, int]) -> dict[str, int]:
    """Change the defaults; what is left out stays. Returns ``get_defaults``. Raises BadField, PermissionMissing."""
    settings.update_config(plane, actor, {DEFAULTS[name]: changes[name] for name in NAMES if name in changes})
    return get_defaults(plane)


def _counted(plane: Plane, tenant_id: str, name: str) -> int:
    params = (tenant_id, plane.now_ms()) if name == "tokens" else (tenant_id,)
    row = plane.database.one(_COUNTED[name], params)
    return row[0] if row else 0


def _own(plane: Plane, tenant_id: str) -> dict[str, int | None]:
    row = plane.database.one(f"SELECT {', '.join(NAMES)} FROM rk_tenant_limit WHERE tenant_id = ?", (tenant_id,))
    return dict(zip(NAMES, row or (None,) * len(NAMES), strict=True))
