"""The forms in which clients send and read permissions (RAGFlow's command line and its web client)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from common.core.errors import BadField
from common.core.permissions import BUILT_IN, RAGFLOW_ACTIONS, RAGFLOW_RESOURCES, Permission, Registry, Source


def as_booleans(permissions: Collection[Permission]) -> dict[str, dict[str, bool]]:
    """``{resource: {enable, read, write, share: bool}}`` over RAGFlow's seven: the web client's form."""
    return {
        resource: {action: Permission(resource, action) in permissions for action in RAGFLOW_ACTIONS}
        for resource in RAGFLOW_RESOURCES
    }


def as_grants(permissions: Collection[Permission], registry: Registry = BUILT_IN) -> dict[str, dict[str, bool]]:
    """``{resource: {action: true}}`` of what is held, over every resource, in the registry's order."""
    held: dict[str, dict[str, bool]] = {}
    for resource, actions in registry.actions.items():
        for action in actions:
            if Permission(resource, action) in permissions:
                held.setdefault(resource, {})[action] = True
    return held


def as_tree(permissions: Collection[Permission], registry: Registry = BUILT_IN) -> dict[str, dict[str, bool]]:
    """RAGFlow's resources with all their booleans, as its web client reads them; of the plane's own what is held."""
    tree = as_booleans(permissions)
    for resource, actions in as_grants(permissions, registry).items():
        tree.setdefault(resource, {}).update(actions)
    return tree


def as_rows(sources: Mapping[Permission, Sequence[Source]]) -> list[dict[str, str]]:
    """Flat rows ``{resource, action, source}``, one for each role that grants the permission."""
    return [
        {**permission._asdict(), "source": role}
        for permission, found in sources.items()
        for role in dict.fromkeys(source.role for source in found)
    ]


def parse_grant(body: Mapping[str, object], registry: Registry = BUILT_IN) -> list[Permission]:
    """What a body asks to grant, in either client's form.

    ``{actions: [str], resource: str}``, or ``{new_permissions: {resource: {action: bool}}}``, in which an
    action that is false is not granted. Both forms in one body add up. Raises BadField.
    """
    return _parse(body, "new_permissions", registry, only_true=True)


def parse_revoke(body: Mapping[str, object], registry: Registry = BUILT_IN) -> list[Permission]:
    """What a body asks to revoke, in either client's form.

    ``{actions: [str], resource: str}``, or ``{revoke_permissions: {resource: {action: bool}}}``, in which
    every action named is revoked, whatever its boolean. Both forms in one body add up. Raises BadField.
    """
    return _parse(body, "revoke_permissions", registry, only_true=False)


def _parse(body: Mapping[str, object], tree_field: str, registry: Registry, *, only_true: bool) -> list[Permission]:
    named: list[Permission] = []
    if tree_field in body:
        named += _from_tree(body[tree_field], tree_field, registry, only_true=only_true)
    if tree_field not in body or "actions" in body or "resource" in body:
        named += _from_list(body, registry)
    return list(dict.fromkeys(named))


def _from_list(body: Mapping[str, object], registry: Registry) -> list[Permission]:
    actions = body.get("actions")
    if not isinstance(actions, list) or not actions:
        raise BadField("actions must be a list that names at least one action.", field="actions")
    resource = body.get("resource")
    if not isinstance(resource, str):
        raise BadField("resource must be the name of a resource.", field="resource")
    return [registry.permission(resource, action, action_field="actions") for action in actions]


def _from_tree(tree: object, field: str, registry: Registry, *, only_true: bool) -> list[Permission]:
    if not isinstance(tree, dict):
        raise BadField(f"{field} must be an object: {{resource: {{action: boolean}}}}.", field=field)
    named = []
    for resource, actions in tree.items():
        if not isinstance(actions, dict):
            raise BadField(f"{field}: each resource has an object {{action: boolean}}.", field=field)
        for action, value in actions.items():
            permission = registry.permission(resource, action, resource_field=field, action_field=field)
            if not isinstance(value, bool):
                raise BadField(f"{field}: {permission} must be true or false.", field=field)
            if value or not only_true:
                named.append(permission)
    return named
