"""Roles: what they grant and inherit, and who may change them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import uuid4

from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.delegation import check_may_give
from common.core.errors import BadField, RoleCycle, RoleExists, RoleHeld, RoleNotFound
from common.core.grants import as_rows, as_tree, parse_grant, parse_revoke
from common.core.names import parse_role_name
from common.core.permissions import (
    BUILT_IN_ROLES,
    SUPERUSER,
    Permission,
    RoleGraph,
    Standing,
)
from common.core.versions import check_version, version_of
from common.models.base import http_date, rfc3339
from common.models.role import Role, RoleGrant, RoleHolder, RoleParent
from common.services import accounts, audit, default_role, role_effects
from common.services.assignments import update_user_role as update_user_role
from common.services.decisions import get_user_permission as get_user_permission
from common.services.plane import Plane
from common.services.principal import Principal
from common.services.role_effects import Move
from common.services.role_rules import alone, id_of, next_version, refuse_to_edit

# How many of those who hold a role, or inherit from it, a refusal names.
NAMED_HOLDERS = 5

_ASSIGNED = """
    SELECT h.user_id, u.email, g.email, h.granted_at FROM rk_user_role h JOIN user u ON u.id = h.user_id
    LEFT JOIN user g ON g.id = h.granted_by WHERE h.role_id = ? AND h.user_id > ? AND u.status = '1'
    ORDER BY h.user_id LIMIT ?
"""
_FLAGGED = """
    SELECT u.id, u.email, NULL, NULL FROM user u WHERE u.is_superuser = ? AND u.status = '1' AND u.id > ?
    ORDER BY u.id LIMIT ?
"""
_ROW = "SELECT id, name, description, builtin, created_at, updated_at FROM rk_role"


def list_roles(plane: Plane) -> dict[str, Any]:
    """Every role in the order of their names: ``{roles, total}``.

    Items: ``{id, role_name, description, parents, builtin, create_date, update_date}``.
    """
    graph = accounts.role_graph(plane)
    listed = [_shown(graph, row) for row in plane.database.all(f"{_ROW} ORDER BY name")]
    return {"roles": listed, "total": len(listed)}


def roles_with_permission(plane: Plane) -> dict[str, Any]:
    """``list_roles`` with ``permissions``, the role's own grants, and ``inherited``, the rest of what it holds."""
    graph = accounts.role_graph(plane)
    rows = plane.database.all(f"{_ROW} ORDER BY name")
    listed = [{**_shown(graph, row), **_own_and_inherited(graph, row[0])} for row in rows]
    return {"roles": listed, "total": len(listed)}


def role_permissions(plane: Plane, name: str) -> dict[str, Any]:
    """One role: ``{role: {id, name, description, parents}, permissions, inherited}``. Raises RoleNotFound."""
    graph = accounts.role_graph(plane)
    shown = _one(graph, _stored(plane, graph, id_of(graph, name)))
    role = {key: shown[key] for key in ("id", "name", "description", "parents")}
    return {"role": role, **_own_and_inherited(graph, shown["id"])}


def get_role_permission(plane: Plane, name: str) -> list[dict[str, str]]:
    """What a role holds as flat rows ``{resource, action, source}``; ``source`` is the role that grants it.

    Raises RoleNotFound.
    """
    graph = accounts.role_graph(plane)
    return as_rows(graph.sources([id_of(graph, name)]))


def resource_types(plane: Plane) -> dict[str, Any]:
    """What can be granted: ``{resource_types: [resource], actions: {resource: [action]}}``."""
    actions = plane.roles.registry.actions
    return {"resource_types": list(actions), "actions": {name: list(each) for name, each in actions.items()}}


def show_role(plane: Plane, name: str, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """One role with everything around it: as ``create_role``, and ``{children, permissions, inherited, holders,
    next_cursor, version}``.

    ``children`` are the roles that inherit from it directly; ``holders`` a page of the accounts that hold it:
    ``{email, granted_by, granted_at}``, those of ``superuser`` by their flag. Who counts as ``member`` for want of any
    role is not listed there. Raises RoleNotFound, BadField.
    """
    graph = accounts.role_graph(plane)
    role_id = id_of(graph, name)
    after = decode_cursor(cursor, (str,))[0] if cursor is not None else ""
    rows = plane.database.all(*_holders(graph, role_id, after, limit + 1))
    holders = [{"email": email, "granted_by": by, "granted_at": rfc3339(at)} for _, email, by, at in rows[:limit]]
    stored = _stored(plane, graph, role_id)
    return {
        **_one(graph, stored),
        "children": sorted(graph.name_of(child_id) for child_id in graph.children_of(role_id)),
        **_own_and_inherited(graph, role_id),
        "holders": holders,
        "next_cursor": encode_cursor([rows[limit - 1][0]]) if len(rows) > limit else None,
        "version": _version(graph, stored),
    }


def version_of_role(plane: Plane, name: str) -> str:
    """The version of a role's description, parents and own grants, for ETag. Raises RoleNotFound."""
    graph = accounts.role_graph(plane)
    return _version(graph, _stored(plane, graph, id_of(graph, name)))


def create_role(
    plane: Plane,
    actor: Principal,
    *,
    role_name: str,
    description: str = "",
    parents: Sequence[str] = (),
    dry_run: bool = False,
) -> dict[str, Any]:
    """Make a role that grants nothing itself and holds what its parents hold.

    Returns ``{id, name, role_name, description, parents, builtin, create_date, update_date, version}``. With
    ``dry_run`` nothing changes, and what would is returned (``role_effects``); so with every change here. Raises
    BadField, RoleExists, RoleCycle, and GivesMoreThanHeld for parents that hold more than the actor.
    """
    name = parse_role_name(role_name)
    with alone(plane) as graph:
        if graph.id_of(name) is not None:
            raise RoleExists(name)
        if name in (parent.lower() for parent in parents):
            raise RoleCycle([name, name])
        role_id = uuid4().hex
        changed = graph.with_role(role_id, name).with_parents(role_id, _parent_ids(graph, parents))
        standing = accounts.acting_now(plane, actor).standing
        check_may_give(standing, changed.standing([role_id]))
        default_role.refuse_to_widen(plane, standing, graph, changed)
        if dry_run:
            return role_effects.of_roles(plane, graph, changed, role_id)
        after = {"description": description, "parents": _parent_names(changed, role_id)}
        audit.record(plane, EventTag.ROLE_CREATE, actor, target=("role", name), after=after)
        now = plane.now_ms()
        plane.database.insert(
            Role,
            id=role_id,
            name=name,
            description=description,
            builtin=False,
            created_at=now,
            updated_at=now,
        )
        _write_parents(plane, changed, role_id)
        next_version(plane)
        return _shown_now(plane, changed, role_id)


def update_role_description(
    plane: Plane,
    actor: Principal,
    name: str,
    *,
    description: str | None = None,
    parents: Sequence[str] | None = None,
    expected: Collection[str] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Change a role's description, its parents or both; what is None stays. Returns the role as ``create_role``.

    ``expected`` are the versions that the change is meant for, None for any; so with every change here. Raises
    RoleNotFound, LostUpdate, RoleImmutable, BadField, RoleCycle naming the circle, and GivesMoreThanHeld when the role,
    before or after, or one that inherits from it holds more than the actor.
    """

    def wanted(graph: RoleGraph, role_id: str) -> list[str] | None:
        return None if parents is None else _parent_ids(graph, parents)

    return _update(plane, actor, name, wanted, description, expected, dry_run)


def add_role_parents(
    plane: Plane,
    actor: Principal,
    name: str,
    parents: Sequence[str],
    *,
    expected: Collection[str] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Let a role inherit from further ones; returns and raises what ``update_role_description`` does."""

    def wanted(graph: RoleGraph, role_id: str) -> list[str]:
        return [*graph.parents_of(role_id), *_parent_ids(graph, parents)]

    return _update(plane, actor, name, wanted, None, expected, dry_run)


def remove_role_parents(
    plane: Plane,
    actor: Principal,
    name: str,
    parents: Sequence[str],
    *,
    expected: Collection[str] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Let a role inherit from these no more, whether or not it did; as ``add_role_parents``."""

    def wanted(graph: RoleGraph, role_id: str) -> list[str]:
        gone = _parent_ids(graph, parents)
        return [parent_id for parent_id in graph.parents_of(role_id) if parent_id not in gone]

    return _update(plane, actor, name, wanted, None, expected, dry_run)


def _update(
    plane: Plane,
    actor: Principal,
    name: str,
    wanted: Callable[[RoleGraph, str], list[str] | None],
    description: str | None,
    expected: Collection[str] | None,
    dry_run: bool,
) -> dict[str, Any]:
    """``wanted`` gives the parents' ids that the role is to have, or None where they stay."""
    with alone(plane) as graph:
        role_id = id_of(graph, name)
        stored = _stored(plane, graph, role_id)
        check_version(_version(graph, stored), expected)
        parent_ids = wanted(graph, role_id)
        changed = graph if parent_ids is None else graph.with_parents(role_id, parent_ids)
        standing = refuse_to_edit(plane, graph, actor, role_id, reaches_heirs=parent_ids is not None)
        check_may_give(standing, changed.standing([role_id]))
        default_role.refuse_to_widen(plane, standing, graph, changed)
        if dry_run:
            return role_effects.of_roles(plane, graph, changed, role_id)
        shown = _one(graph, stored)
        before = {key: shown[key] for key in ("description", "parents")}
        after = {
            "description": before["description"] if description is None else description,
            "parents": _parent_names(changed, role_id),
        }
        if after == before:
            return {**shown, "version": _version(graph, stored)}
        audit.record(plane, EventTag.ROLE_UPDATE, actor, target=("role", shown["name"]), before=before, after=after)
        if after["parents"] != before["parents"]:
            _write_parents(plane, changed, role_id)
        _touch(plane, role_id, description=after["description"])
        next_version(plane)
        return _shown_now(plane, changed, role_id)


def delete_role(
    plane: Plane,
    actor: Principal,
    name: str,
    *,
    reassign_to: str | None = None,
    expected: Collection[str] | None = None,
    dry_run: bool = False,
) -> dict[str, Any] | None:
    """Delete a role that nobody holds or inherits from, or give whoever does ``reassign_to`` instead.

    Raises RoleNotFound, LostUpdate, RoleImmutable, RoleHeld saying by whom, and GivesMoreThanHeld when the role holds
    more than the actor. With ``reassign_to`` also PermissionMissing unless the actor may assign roles, and edit them
    where one inherits; BadField for a role that can't take over; and GivesMoreThanHeld when that role, or one that
    inherits, holds more than the actor.
    """
    with alone(plane) as graph:
        role_id = id_of(graph, name)
        stored = _stored(plane, graph, role_id)
        check_version(_version(graph, stored), expected)
        actor = accounts.acting_now(plane, actor)
        standing = refuse_to_edit(plane, graph, actor, role_id, reaches_heirs=reassign_to is not None)
        heir_ids, move = graph.children_of(role_id), None
        if reassign_to is None:
            _refuse_if_held(plane, graph, role_id)
        else:
            move = _move(graph, actor, standing, role_id, reassign_to, inherited=bool(heir_ids))
        changed = graph.without_role(role_id, move.instead_id if move else None)
        for heir_id in heir_ids:
            check_may_give(standing, changed.standing([heir_id]))
        default_role.refuse_to_widen(plane, standing, graph, changed)
        if dry_run:
            return role_effects.of_roles(plane, graph, changed, role_id, move)
        _record_deletion(plane, actor, graph, stored, move)
        if move is not None:
            _hand_over(plane, actor, move)
            for heir_id in heir_ids:
                _write_parents(plane, changed, heir_id)
                _touch(plane, heir_id)
        # Assignments can be left over from accounts that are no more.
        for model in (RoleHolder, RoleGrant, RoleParent):
            plane.database.execute(model.delete().where(model.role_id == role_id))
        plane.database.execute(Role.delete().where(Role.id == role_id))
        next_version(plane)
    return None


def _move(
    graph: RoleGraph, actor: Principal, standing: Standing, role_id: str, instead: str, *, inherited: bool
) -> Move:
    """Raises what ``delete_role`` says about ``reassign_to``."""
    actor.require("role", "assign")
    if inherited:
        actor.require("role", "write")
    instead_id = graph.id_of(parse_role_name(instead, field="reassign_to"))
    if instead_id is None:
        raise BadField(f"reassign_to: there is no role '{instead.lower()}'.", field="reassign_to")
    if instead_id == role_id:
        raise BadField("reassign_to: name another role than the one that goes.", field="reassign_to")
    if graph.name_of(instead_id) == SUPERUSER:
        raise BadField("reassign_to: superusers are made one by one.", field="reassign_to")
    check_may_give(standing, graph.standing([instead_id]))
    return Move(role_id, instead_id)


def _record_deletion(
    plane: Plane, actor: Principal, graph: RoleGraph, stored: tuple[Any, ...], move: Move | None
) -> None:
    shown = _one(graph, stored)
    before = {
        **{key: shown[key] for key in ("description", "parents")},
        **_granted(graph.own(shown["id"])),
    }
    after = None
    if move is not None:
        held = plane.database.one("SELECT COUNT(*) FROM rk_user_role WHERE role_id = ?", (move.role_id,))
        after = {"reassigned_to": graph.name_of(move.instead_id), "users": held[0] if held else 0}
        before["children"] = sorted(graph.name_of(child_id) for child_id in graph.children_of(move.role_id))
    audit.record(plane, EventTag.ROLE_DELETE, actor, target=("role", shown["name"]), before=before, after=after)


def _hand_over(plane: Plane, actor: Principal, move: Move) -> None:
    """Let whoever holds the one role hold the other one too, from the same moment on."""
    plane.database.run(
        "INSERT INTO rk_user_role (user_id, role_id, granted_by, granted_at) "
        "SELECT h.user_id, ?, ?, h.granted_at FROM rk_user_role h WHERE h.role_id = ? AND NOT EXISTS ("
        "SELECT 1 FROM rk_user_role o WHERE o.user_id = h.user_id AND o.role_id = ?)",
        (move.instead_id, actor.user_id, move.role_id, move.instead_id),
    )


def grant_role_permission(
    plane: Plane,
    actor: Principal,
    name: str,
    body: Mapping[str, object],
    *,
    expected: Collection[str] | None = None,
    dry_run: bool = False,
) -> list[dict[str, str]] | dict[str, Any]:
    """Grant a role permissions, named in either form of ``parse_grant``; returns ``get_role_permission``.

    Raises RoleNotFound, LostUpdate, RoleImmutable, BadField, and GivesMoreThanHeld when a permission, the role or one
    that inherits from it is more than the actor holds.
    """
    wanted = frozenset(parse_grant(body, plane.roles.registry))
    with alone(plane) as graph:
        role_id = id_of(graph, name)
        check_version(_version(graph, _stored(plane, graph, role_id)), expected)
        standing = refuse_to_edit(plane, graph, actor, role_id, reaches_heirs=True)
        check_may_give(standing, Standing(wanted))
        own = graph.own(role_id)
        changed = graph.with_own(role_id, own | wanted)
        default_role.refuse_to_widen(plane, standing, graph, changed)
        if dry_run:
            return role_effects.of_roles(plane, graph, changed, role_id)
        new = wanted - own
        if new:
            _record_grants(plane, EventTag.ROLE_GRANT, actor, graph.name_of(role_id), own, own | wanted)
            rows = [{"role_id": role_id, **permission._asdict()} for permission in sorted(new)]
            plane.database.execute(RoleGrant.insert_many(rows))
            _touch(plane, role_id)
            next_version(plane)
    return get_role_permission(plane, name)


def revoke_role_permission(
    plane: Plane,
    actor: Principal,
    name: str,
    body: Mapping[str, object],
    *,
    expected: Collection[str] | None = None,
    dry_run: bool = False,
) -> list[dict[str, str]] | dict[str, Any]:
    """Take permissions of a role's own away, named in either form of ``parse_revoke``; returns what it holds then.

    What is inherited stays, as does what it never had. Raises RoleNotFound, LostUpdate, RoleImmutable, BadField, and
    GivesMoreThanHeld when the role or one that inherits from it holds more than the actor.
    """
    named = frozenset(parse_revoke(body, plane.roles.registry))
    with alone(plane) as graph:
        role_id = id_of(graph, name)
        check_version(_version(graph, _stored(plane, graph, role_id)), expected)
        refuse_to_edit(plane, graph, actor, role_id, reaches_heirs=True)
        own = graph.own(role_id)
        if dry_run:
            return role_effects.of_roles(plane, graph, graph.with_own(role_id, own - named), role_id)
        gone = own & named
        if gone:
            _record_grants(plane, EventTag.ROLE_REVOKE, actor, graph.name_of(role_id), own, own - named)
            pairs = [pair for permission in sorted(gone) for pair in permission]
            either = " OR ".join(["(resource = ? AND action = ?)"] * len(gone))
            plane.database.run(f"DELETE FROM rk_role_grant WHERE role_id = ? AND ({either})", (role_id, *pairs))
            _touch(plane, role_id)
            next_version(plane)
    return get_role_permission(plane, name)


def _parent_ids(graph: RoleGraph, names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        role_id = graph.id_of(parse_role_name(name, field="parents"))
        if role_id is None:
            raise BadField(f"parents: there is no role '{name}' to inherit from.", field="parents")
        found.append(role_id)
    return found


def _parent_names(graph: RoleGraph, role_id: str) -> list[str]:
    return sorted(graph.name_of(parent_id) for parent_id in graph.parents_of(role_id))


def _write_parents(plane: Plane, graph: RoleGraph, role_id: str) -> None:
    plane.database.execute(RoleParent.delete().where(RoleParent.role_id == role_id))
    rows = [{"role_id": role_id, "parent_id": parent_id} for parent_id in graph.parents_of(role_id)]
    if rows:
        plane.database.execute(RoleParent.insert_many(rows))


def _touch(plane: Plane, role_id: str, **columns: Any) -> None:
    plane.database.execute(Role.update(updated_at=plane.now_ms(), **columns).where(Role.id == role_id))


def _refuse_if_held(plane: Plane, graph: RoleGraph, role_id: str) -> None:
    holders = plane.database.all(
        "SELECT u.email, COUNT(*) OVER () FROM rk_user_role h JOIN user u ON u.id = h.user_id "
        "WHERE h.role_id = ? AND u.status = '1' ORDER BY h.user_id LIMIT ?",
        (role_id, NAMED_HOLDERS),
    )
    heirs = graph.children_of(role_id)
    if holders or heirs:
        raise RoleHeld(
            graph.name_of(role_id),
            [email for email, _ in holders],
            sorted(graph.name_of(heir_id) for heir_id in heirs)[:NAMED_HOLDERS],
            user_count=holders[0][1] if holders else 0,
            role_count=len(heirs),
        )


def _record_grants(
    plane: Plane,
    tag: EventTag,
    actor: Principal,
    name: str,
    own: Collection[Permission],
    then: Collection[Permission],
) -> None:
    audit.record(plane, tag, actor, target=("role", name), before=_granted(own), after=_granted(then))


def _granted(permissions: Collection[Permission]) -> dict[str, list[str]]:
    return {"permissions": [str(permission) for permission in sorted(permissions)]}


def _stored(plane: Plane, graph: RoleGraph, role_id: str) -> tuple[Any, ...]:
    row = plane.database.one(f"{_ROW} WHERE id = ?", (role_id,))
    if row is None:
        raise RoleNotFound(graph.name_of(role_id))
    return row


def _one(graph: RoleGraph, stored: tuple[Any, ...]) -> dict[str, Any]:
    shown = _shown(graph, stored)
    return {**shown, "name": shown["role_name"]}


def _shown_now(plane: Plane, graph: RoleGraph, role_id: str) -> dict[str, Any]:
    stored = _stored(plane, graph, role_id)
    return {**_one(graph, stored), "version": _version(graph, stored)}


def _version(graph: RoleGraph, stored: tuple[Any, ...]) -> str:
    shown = _shown(graph, stored)
    own = sorted(str(permission) for permission in graph.own(shown["id"]))
    return version_of(shown["id"], shown["description"], shown["parents"], own)


def _holders(graph: RoleGraph, role_id: str, after: str, limit: int) -> tuple[str, tuple[Any, ...]]:
    """The statement for a page of who holds a role, by id: ``(id, email, granted_by, granted_at)``."""
    if graph.name_of(role_id) == SUPERUSER:
        return _FLAGGED, (True, after, limit)
    return _ASSIGNED, (role_id, after, limit)


def _shown(graph: RoleGraph, row: tuple[Any, ...]) -> dict[str, Any]:
    role_id, name, description, builtin, created_at, updated_at = row
    # A built-in role is described by the code, which may be newer than the row.
    return {
        "id": role_id,
        "role_name": name,
        "description": BUILT_IN_ROLES[name].description if name in BUILT_IN_ROLES else description or "",
        "parents": _parent_names(graph, role_id),
        "builtin": bool(builtin),
        "create_date": http_date(created_at),
        "update_date": http_date(updated_at),
    }


def _own_and_inherited(graph: RoleGraph, role_id: str) -> dict[str, Any]:
    own, inherited = graph.own(role_id), graph.inherited(role_id)
    return {"permissions": as_tree(own, graph.registry), "inherited": as_tree(inherited, graph.registry)}
