"""Roles: what they grant and inherit, who may change them, who holds them, and what that allows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from common.core.audit_tags import EventTag
from common.core.delegation import check_may_give, missing_to_give
from common.core.errors import (
    BadField,
    Conflict,
    GivesMoreThanHeld,
    RoleCycle,
    RoleExists,
    RoleHeld,
    RoleImmutable,
    RoleNotFound,
)
from common.core.grants import as_booleans, as_grants, parse_grant, parse_revoke
from common.core.names import parse_role_name
from common.core.permissions import (
    ACTIONS,
    BUILT_IN_ROLES,
    RAGFLOW_RESOURCES,
    RESOURCES,
    SUPERUSER,
    Permission,
    RoleGraph,
    Source,
    Standing,
    registered,
)
from common.models.base import http_date
from common.models.role import Role, RoleGrant, RoleHolder, RoleParent
from common.services import accounts, audit, users
from common.services.plane import Plane
from common.services.principal import Principal

# How many of those who hold a role, or inherit from it, a refusal names.
NAMED_HOLDERS = 5

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
    shown = _one(plane, graph, _role_id(graph, name))
    role = {key: shown[key] for key in ("id", "name", "description", "parents")}
    return {"role": role, **_own_and_inherited(graph, shown["id"])}


def get_role_permission(plane: Plane, name: str) -> list[dict[str, str]]:
    """What a role holds as flat rows ``{resource, action, source}``; ``source`` is the role that grants it.

    Raises RoleNotFound.
    """
    graph = accounts.role_graph(plane)
    return _flat(graph.sources([_role_id(graph, name)]))


def resource_types() -> dict[str, Any]:
    """What can be granted: ``{resource_types: [resource], actions: {resource: [action]}}``."""
    return {"resource_types": list(RESOURCES), "actions": {name: list(ACTIONS[name]) for name in RESOURCES}}


def create_role(
    plane: Plane, actor: Principal, *, role_name: str, description: str = "", parents: Sequence[str] = ()
) -> dict[str, Any]:
    """Make a role that grants nothing itself and holds what its parents hold.

    Returns ``{id, name, role_name, description, parents, builtin, create_date, update_date}``. Raises BadField,
    RoleExists, RoleCycle, and GivesMoreThanHeld for parents that hold more than the actor.
    """
    name = parse_role_name(role_name)
    with _alone(plane) as graph:
        if graph.id_of(name) is not None:
            raise RoleExists(name)
        if name in (parent.lower() for parent in parents):
            raise RoleCycle([name, name])
        role_id = uuid4().hex
        changed = graph.with_role(role_id, name).with_parents(role_id, _parent_ids(graph, parents))
        check_may_give(accounts.acting_now(plane, actor).standing, changed.standing([role_id]))
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
        _next_version(plane)
        return _one(plane, changed, role_id)


def update_role_description(
    plane: Plane,
    actor: Principal,
    name: str,
    *,
    description: str | None = None,
    parents: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Change a role's description, its parents or both; what is None stays. Returns the role as ``create_role``.

    Raises RoleNotFound, RoleImmutable, BadField, RoleCycle naming the circle, and GivesMoreThanHeld when the role,
    before or after, or one that inherits from it holds more than the actor.
    """
    with _alone(plane) as graph:
        role_id = _role_id(graph, name)
        changed = graph
        if parents is not None:
            changed = graph.with_parents(role_id, _parent_ids(graph, parents))
        standing = _refuse_to_edit(plane, graph, actor, role_id, reaches_heirs=parents is not None)
        check_may_give(standing, changed.standing([role_id]))
        stored = _one(plane, graph, role_id)
        before = {key: stored[key] for key in ("description", "parents")}
        after = {
            "description": before["description"] if description is None else description,
            "parents": _parent_names(changed, role_id),
        }
        if after == before:
            return stored
        audit.record(plane, EventTag.ROLE_UPDATE, actor, target=("role", stored["name"]), before=before, after=after)
        if after["parents"] != before["parents"]:
            _write_parents(plane, changed, role_id)
        _touch(plane, role_id, description=after["description"])
        _next_version(plane)
        return _one(plane, changed, role_id)


def delete_role(plane: Plane, actor: Principal, name: str) -> None:
    """Delete a role that nobody holds or inherits from.

    Raises RoleNotFound, RoleImmutable, RoleHeld saying by whom, and GivesMoreThanHeld when it holds more than the
    actor.
    """
    with _alone(plane) as graph:
        role_id = _role_id(graph, name)
        _refuse_to_edit(plane, graph, actor, role_id, reaches_heirs=False)
        _refuse_if_held(plane, graph, role_id)
        stored = _one(plane, graph, role_id)
        before = {**{key: stored[key] for key in ("description", "parents")}, **_granted(graph.own(role_id))}
        audit.record(plane, EventTag.ROLE_DELETE, actor, target=("role", stored["name"]), before=before)
        # Assignments can be left over from accounts that are no more.
        for model in (RoleHolder, RoleGrant, RoleParent):
            plane.database.execute(model.delete().where(model.role_id == role_id))
        plane.database.execute(Role.delete().where(Role.id == role_id))
        _next_version(plane)


def grant_role_permission(
    plane: Plane, actor: Principal, name: str, body: Mapping[str, object]
) -> list[dict[str, str]]:
    """Grant a role permissions, named in either form of ``parse_grant``; returns ``get_role_permission``.

    Raises RoleNotFound, RoleImmutable, BadField, and GivesMoreThanHeld when a permission, the role or one that
    inherits from it is more than the actor holds.
    """
    wanted = frozenset(parse_grant(body))
    with _alone(plane) as graph:
        role_id = _role_id(graph, name)
        standing = _refuse_to_edit(plane, graph, actor, role_id, reaches_heirs=True)
        check_may_give(standing, Standing(wanted))
        own = graph.own(role_id)
        new = wanted - own
        if new:
            _record_grants(plane, EventTag.ROLE_GRANT, actor, graph.name_of(role_id), own, own | wanted)
            rows = [{"role_id": role_id, **permission._asdict()} for permission in sorted(new)]
            plane.database.execute(RoleGrant.insert_many(rows))
            _touch(plane, role_id)
            _next_version(plane)
    return get_role_permission(plane, name)


def revoke_role_permission(
    plane: Plane, actor: Principal, name: str, body: Mapping[str, object]
) -> list[dict[str, str]]:
    """Take permissions of a role's own away, named in either form of ``parse_revoke``; returns what it holds then.

    What is inherited stays, as does what it never had. Raises RoleNotFound, RoleImmutable, BadField, and
    GivesMoreThanHeld when the role or one that inherits from it holds more than the actor.
    """
    named = frozenset(parse_revoke(body))
    with _alone(plane) as graph:
        role_id = _role_id(graph, name)
        _refuse_to_edit(plane, graph, actor, role_id, reaches_heirs=True)
        own = graph.own(role_id)
        gone = own & named
        if gone:
            _record_grants(plane, EventTag.ROLE_REVOKE, actor, graph.name_of(role_id), own, own - named)
            pairs = [pair for permission in sorted(gone) for pair in permission]
            either = " OR ".join(["(resource = ? AND action = ?)"] * len(gone))
            plane.database.run(f"DELETE FROM rk_role_grant WHERE role_id = ? AND ({either})", (role_id, *pairs))
            _touch(plane, role_id)
            _next_version(plane)
    return get_role_permission(plane, name)


def update_user_role(plane: Plane, actor: Principal, email: str, role_name: str) -> dict[str, str]:
    """Replace all roles of an account, the superuser flag included, by this one; returns ``{email, role_name}``.

    Raises BadField, UserNotFound, RoleNotFound; Conflict for a superuser who would demote themselves; LastSuperuser;
    GivesMoreThanHeld when the role, or the account, holds more than the actor.
    """
    name = parse_role_name(role_name)
    with _alone(plane) as graph:
        # Before anything is read that the count of superusers depends on.
        plane.database.lock("superusers")
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        role_id = _role_id(graph, name)
        held = accounts.held_roles(plane, account.id)
        check_may_give(actor.standing, graph.standing([role_id]))
        if actor.user_id == account.id and account.is_superuser and name != SUPERUSER:
            raise Conflict("You can't take the superuser's role from your own account.")
        wanted = [] if name == SUPERUSER else [role_id]
        if held != wanted or account.is_superuser != (name == SUPERUSER):
            _assign(plane, actor, graph, account, held, name, wanted)
    return {"email": account.email, "role_name": name}


def get_user_permission(plane: Plane, email: str) -> list[dict[str, str]]:
    """What an account may as flat rows ``{resource, action, source}``; ``source`` is the role that grants it.

    Raises UserNotFound.
    """
    _, graph, role_ids, _ = _roles_of(plane, email)
    return _flat(graph.sources(role_ids))


def get_user_permissions(plane: Plane, email: str) -> dict[str, Any]:
    """What an account may, and why: ``{user: {id, username, role}, role_permissions, sources}``.

    ``sources`` is ``{resource: {action: [{role, path}]}}``: the granting role, and the names from the role that the
    account holds up to it. Raises UserNotFound.
    """
    account, graph, role_ids, shown_role = _roles_of(plane, email)
    sources: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for (resource, action), found in graph.sources(role_ids).items():
        listed = [{"role": source.role, "path": list(source.path)} for source in found]
        sources.setdefault(resource, {})[action] = listed
    return {
        "user": {"id": account.id, "username": account.email, "role": shown_role},
        "role_permissions": _tree(graph.effective(role_ids)),
        "sources": sources,
    }


def check(plane: Plane, who: Principal, resource: str, action: str) -> dict[str, Any]:
    """Whether the caller may do this, by any of their roles: ``{allowed, reason}``.

    Owning a tenant adds nothing. Raises BadField for a pair that is not registered.
    """
    permission = registered(resource, action)
    if not who.may(*permission):
        return {"allowed": False, "reason": f"None of your roles grants {permission}."}
    graph = accounts.role_graph(plane)
    found = graph.sources(graph.account_roles(who.role_ids, who.is_superuser)).get(permission, [])
    by = [_by(source) for source in found]
    return {"allowed": True, "reason": f"{permission} is granted by {by[0]}." if by else f"{permission} is held."}


def _by(source: Source) -> str:
    held, *_ = source.path
    return f"role {held}" if held == source.role else f"role {held}, which inherits it from {source.role}"


@contextmanager
def _alone(plane: Plane) -> Iterator[RoleGraph]:
    """A transaction in which nobody else changes roles or assigns them; gives the graph that it starts from.

    Within it, events are recorded before rows are written, and the version goes up at the very end: whoever reads
    the graph for a version then never keeps one that a roll-back takes back.
    """
    with plane.database.transaction():
        plane.database.lock("roles")
        yield accounts.role_graph(plane)


def _next_version(plane: Plane) -> None:
    plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'role_version'")


def _role_id(graph: RoleGraph, name: str) -> str:
    role_id = graph.id_of(name) if name.isascii() else None
    if role_id is None:
        raise RoleNotFound(name)
    return role_id


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


def _refuse_to_edit(plane: Plane, graph: RoleGraph, actor: Principal, role_id: str, *, reaches_heirs: bool) -> Standing:
    """Raises RoleImmutable, and GivesMoreThanHeld if what is to be changed holds more than the actor.

    What changes the permissions of a role changes those of its heirs, so these are asked about too. Returns the
    actor's standing.
    """
    if graph.name_of(role_id) in BUILT_IN_ROLES:
        raise RoleImmutable(graph.name_of(role_id))
    standing = accounts.acting_now(plane, actor).standing
    for changed_id in (role_id, *(graph.heirs_of(role_id) if reaches_heirs else ())):
        missing = missing_to_give(standing, graph.standing([changed_id]))
        if missing:
            raise GivesMoreThanHeld(
                f"You can't change this: role '{graph.name_of(changed_id)}' holds what you do not: "
                f"{', '.join(missing)}.",
                missing,
            )
    return standing


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


def _assign(
    plane: Plane,
    actor: Principal,
    graph: RoleGraph,
    account: accounts.AccountRow,
    held: list[str],
    name: str,
    wanted: list[str],
) -> None:
    before = {"roles": [graph.name_of(held_id) for held_id in graph.account_roles(held, account.is_superuser)]}
    audit.record(plane, EventTag.USER_ROLE, actor, target=account.target, before=before, after={"roles": [name]})
    if account.is_superuser != (name == SUPERUSER):
        users.set_superuser(plane, actor, account, name == SUPERUSER)
    plane.database.execute(RoleHolder.delete().where(RoleHolder.user_id == account.id))
    for role_id in wanted:
        plane.database.insert(
            RoleHolder,
            user_id=account.id,
            role_id=role_id,
            granted_by=actor.user_id,
            granted_at=plane.now_ms(),
        )


def _roles_of(plane: Plane, email: str) -> tuple[accounts.AccountRow, RoleGraph, tuple[str, ...], str]:
    """The account, the graph, the roles that count for it, and the one that clients with room for one show."""
    account = accounts.get(plane, email)
    graph = accounts.role_graph(plane)
    held = accounts.held_roles(plane, account.id)
    shown = users.shown_role(graph, held[0] if held else None, account.is_superuser)
    return account, graph, graph.account_roles(held, account.is_superuser), shown


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


def _one(plane: Plane, graph: RoleGraph, role_id: str) -> dict[str, Any]:
    row = plane.database.one(f"{_ROW} WHERE id = ?", (role_id,))
    if row is None:
        raise RoleNotFound(graph.name_of(role_id))
    shown = _shown(graph, row)
    return {**shown, "name": shown["role_name"]}


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
    return {"permissions": _tree(graph.own(role_id)), "inherited": _tree(graph.inherited(role_id))}


def _tree(permissions: Collection[Permission]) -> dict[str, dict[str, bool]]:
    """RAGFlow's resources with all their booleans, as its web client reads them; of the plane's own what is held."""
    further = frozenset(permission for permission in permissions if permission.resource not in RAGFLOW_RESOURCES)
    return as_booleans(permissions) | as_grants(further)


def _flat(sources: Mapping[Permission, Sequence[Source]]) -> list[dict[str, str]]:
    return [
        {**permission._asdict(), "source": role}
        for permission, found in sources.items()
        for role in dict.fromkeys(source.role for source in found)
    ]
