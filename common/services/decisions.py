"""What an account may, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.core.errors import BadField
from common.core.grants import as_rows, as_tree
from common.core.permissions import Permission, Registry, RoleGraph, Source
from common.services import accounts, users
from common.services.plane import Plane
from common.services.principal import Principal


def get_user_permission(plane: Plane, email: str) -> list[dict[str, str]]:
    """What an account may as flat rows ``{resource, action, source}``; ``source`` is the role that grants it.

    Raises UserNotFound.
    """
    _, graph, role_ids, _ = _roles_of(plane, email)
    return as_rows(graph.sources(role_ids))


def get_user_permissions(
    plane: Plane, email: str, *, explain: bool = False, resource: str | None = None, action: str | None = None
) -> dict[str, Any]:
    """What an account may, and why: ``{user: {id, username, role}, role_permissions, sources}``.

    ``sources`` is ``{resource: {action: [{role, path}]}}``: the granting role, and the names from the role that the
    account holds up to it. With ``explain`` also ``roles``, the names of those that count, and ``explanation``, for
    each registered pair, or those of the ``resource`` and ``action`` that are named: ``{resource, action, allowed,
    reason, paths}``. Raises UserNotFound, BadField.
    """
    account, graph, role_ids, shown_role = _roles_of(plane, email)
    found = graph.sources(role_ids)
    sources: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for permission, by in found.items():
        listed = [{"role": source.role, "path": list(source.path)} for source in by]
        sources.setdefault(permission.resource, {})[permission.action] = listed
    shown = {
        "user": {"id": account.id, "username": account.email, "role": shown_role},
        "role_permissions": as_tree(graph.effective(role_ids), graph.registry),
        "sources": sources,
    }
    if explain:
        names = [graph.name_of(role_id) for role_id in role_ids]
        asked = _asked_about(graph.registry, resource, action)
        shown["roles"] = names
        shown["explanation"] = [
            _explained(permission, found.get(permission, []), names, account) for permission in asked
        ]
    return shown


def _asked_about(registry: Registry, resource: str | None, action: str | None) -> list[Permission]:
    if resource is None and action is None:
        return [Permission(each, verb) for each, verbs in registry.actions.items() for verb in verbs]
    if resource is None:
        raise BadField("resource: name the resource that the action is on.", field="resource")
    known = registry.actions.get(resource.lower(), ())
    verbs = known if action is None and known else (action,)
    return [registry.permission(resource, verb) for verb in verbs]


def _explained(
    permission: Permission, found: Sequence[Source], roles: Sequence[str], account: accounts.AccountRow
) -> dict[str, Any]:
    reason = f"Granted by {_by(found[0])}." if found else f"None of the roles {', '.join(roles)} grants it."
    if not account.may_sign_in:
        reason += " The account is switched off, so nobody uses it."
    return {
        **permission._asdict(),
        "allowed": bool(found) and account.may_sign_in,
        "reason": reason,
        "paths": [list(source.path) for source in found],
    }


def check(plane: Plane, who: Principal, resource: str, action: str) -> dict[str, Any]:
    """Whether the caller may do this, by any of their roles: ``{allowed, reason}``.

    Owning a tenant adds nothing. Raises BadField for a pair that is not registered.
    """
    (decision,) = check_all(plane, who, [(resource, action)])
    return {"allowed": decision["allowed"], "reason": decision["reason"]}


def check_all(plane: Plane, who: Principal, asked: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """``check`` for several pairs: ``[{resource, action, allowed, reason}]`` in their order."""
    permissions = [plane.roles.registry.permission(resource, action) for resource, action in asked]
    graph = accounts.role_graph(plane)
    found = graph.sources(graph.account_roles(who.role_ids, who.is_superuser))
    return [_decided(who, permission, found.get(permission, [])) for permission in permissions]


def _decided(who: Principal, permission: Permission, found: Sequence[Source]) -> dict[str, Any]:
    by = f" is granted by {_by(found[0])}" if found else ""
    if who.may(*permission):
        reason = f"{permission}{by or ' is held'}."
    elif who.scope is not None and not who.scope.covers(permission):
        reason = f"The scope of this token does not reach {permission}."
    else:
        reason = f"None of your roles grants {permission}."
    return {**permission._asdict(), "allowed": who.may(*permission), "reason": reason}


def _by(source: Source) -> str:
    held, *_ = source.path
    return f"role {held}" if held == source.role else f"role {held}, which inherits it from {source.role}"


def _roles_of(plane: Plane, email: str) -> tuple[accounts.AccountRow, RoleGraph, tuple[str, ...], str]:
    """The account, the graph, the roles that count for it, and the one that clients with room for one show."""
    account = accounts.get(plane, email)
    graph = accounts.role_graph(plane)
    held = accounts.held_roles(plane, account.id)
    shown = users.shown_role(graph, held[0] if held else None, account.is_superuser)
    return account, graph, graph.account_roles(held, account.is_superuser), shown
