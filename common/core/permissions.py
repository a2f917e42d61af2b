"""What can be allowed, the roles that are built in, and what a role's holder may do through inheritance.

Code may only ask for, and a role may only be granted, a pair that is registered: those of this module, and those that
the configuration adds for programs beside the plane.
"""

from __future__ import annotations

import copy
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import NamedTuple

from common.core.errors import BadField, RoleCycle, RoleImmutable

# Inheritance steps from a role to its remotest ancestor, and direct parents of one role. Far above what an
# organisation can oversee; they keep the work of one authorization bounded.
MAX_DEPTH = 32
MAX_PARENTS = 64
#: Roles that one request gives or takes away.
MAX_NAMED = 100
# Pairs that a configuration may add.
MAX_FURTHER = 512
# Combinations of roles whose sets a graph keeps; people mostly hold one of a few.
_MOST_COMBINATIONS = 4096
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Permission(NamedTuple):
    """One action on one kind of resource; prints as ``resource:action``."""

    resource: str
    action: str

    def __str__(self) -> str:
        return f"{self.resource}:{self.action}"


class BuiltInRole(NamedTuple):
    """A role that exists everywhere and can't be changed."""

    name: str
    description: str
    permissions: frozenset[Permission]


class Standing(NamedTuple):
    """What an account, or a role that is about to be given, amounts to."""

    permissions: frozenset[Permission]
    is_superuser: bool = False


class Source(NamedTuple):
    """Where a permission comes from: the granting role, and the names from the held role up to it."""

    role: str
    path: tuple[str, ...]


RAGFLOW_RESOURCES = ("dataset", "chat", "agent", "search", "file", "team", "memory")
RAGFLOW_ACTIONS = ("enable", "read", "write", "share")

_PLANE_ACTIONS: dict[str, tuple[str, ...]] = {
    "user": ("read", "create", "write", "delete"),
    "role": ("read", "create", "write", "delete", "assign"),
    "tenant": ("read", "create", "write", "delete"),
    "token": ("read", "create", "write", "delete"),
    "session": ("read", "delete"),
    "service": ("read", "control"),
    "setting": ("read", "write"),
    "audit": ("read", "export"),
    "alert": ("read", "write"),
    "metric": ("read",),
    "job": ("read", "write"),
    "langfuse": ("read", "write", "delete"),
}

ACTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict.fromkeys(RAGFLOW_RESOURCES, RAGFLOW_ACTIONS) | _PLANE_ACTIONS
)
RESOURCES = tuple(ACTIONS)


def _every(resources: Iterable[str]) -> frozenset[Permission]:
    return frozenset(Permission(resource, action) for resource in resources for action in ACTIONS[resource])


def _reads(resources: Iterable[str]) -> frozenset[Permission]:
    return frozenset(Permission(resource, "read") for resource in resources)


ALL_PERMISSIONS = _every(RESOURCES)
ADMINISTRATIVE_PERMISSIONS = _every(_PLANE_ACTIONS)
_MEMBER_PERMISSIONS = _every(RAGFLOW_RESOURCES)

SUPERUSER = "superuser"
MEMBER = "member"

BUILT_IN_ROLES: Mapping[str, BuiltInRole] = MappingProxyType(
    {
        role.name: role
        for role in (
            BuiltInRole(SUPERUSER, "Everything.", ALL_PERMISSIONS),
            BuiltInRole(
                "user-manager",
                "Manages users, tenants, sessions and tokens; gives roles that hold no more than this one.",
                _MEMBER_PERMISSIONS
                | _every(("user", "tenant", "session", "token"))
                | {Permission("role", "read"), Permission("role", "assign")},
            ),
            BuiltInRole(
                "service-operator",
                "Watches and controls services, jobs, metrics and alerts.",
                _every(("service", "job", "metric", "alert")),
            ),
            BuiltInRole(
                "auditor",
                "Reads everything administrative, and reads and exports the audit trail.",
                _reads(_PLANE_ACTIONS) | _every(("audit",)),
            ),
            BuiltInRole(
                "viewer",
                "Reads everything administrative but the audit trail.",
                _reads(resource for resource in _PLANE_ACTIONS if resource != "audit"),
            ),
            BuiltInRole(
                MEMBER,
                "Uses RAGFlow's resources; held by every account that has no role.",
                _MEMBER_PERMISSIONS,
            ),
        )
    }
)


class Registry:
    """The pairs that can be asked for and granted: the built-in ones, and further ones ``{resource: [action]}``.

    A further action may be one on a built-in resource. What is added is held by superusers only until a role is
    granted it, opens no door of the admin server, and ranks no account above another. Raises BadField (``permissions``)
    for a name that is none, and for more than MAX_FURTHER pairs.
    """

    def __init__(self, further: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        actions = dict(ACTIONS)
        for resource, added in further.items():
            for name in (resource, *added):
                if not _NAME.fullmatch(name):
                    raise BadField(
                        f"{reprlib.repr(name)} can't be the name of a resource or an action: expected are 1 to 64 "
                        "lower-case letters, digits, '_' and '-', first a letter.",
                        field="permissions",
                    )
            actions[resource] = tuple(dict.fromkeys((*actions.get(resource, ()), *added)))
        self.actions: Mapping[str, tuple[str, ...]] = MappingProxyType(actions)
        self.resources = tuple(actions)
        self.all = frozenset(Permission(resource, action) for resource in actions for action in actions[resource])
        if len(self.all) > len(ALL_PERMISSIONS) + MAX_FURTHER:
            raise BadField(f"At most {MAX_FURTHER} pairs can be added.", field="permissions")

    def permission(
        self, resource: object, action: object, *, resource_field: str = "resource", action_field: str = "action"
    ) -> Permission:
        """The registered permission of these two names, whatever their case.

        Raises BadField, which says what is allowed and whose field is that of the name at fault.
        """
        actions = self.actions.get(resource.lower()) if isinstance(resource, str) else None
        if not isinstance(resource, str) or actions is None:
            raise BadField(
                f"There is no resource {reprlib.repr(resource)}; there are: {', '.join(self.resources)}.",
                field=resource_field,
            )
        if not isinstance(action, str) or action.lower() not in actions:
            raise BadField(
                f"{resource.lower()} has no action {reprlib.repr(action)}; there are: {', '.join(actions)}.",
                field=action_field,
            )
        return Permission(resource.lower(), action.lower())


BUILT_IN = Registry()
#: The built-in pair of two names: what the plane's own code may ask for.
registered = BUILT_IN.permission


class RoleGraph:
    """Roles, their parents and their grants; answers what holding them allows, and why.

    It is built from plain rows: ``roles`` (id, name), ``parents`` (role id, parent's id) and ``grants``
    (role id, resource, action). Rows about unknown roles or unregistered pairs count for nothing. A built-in
    role holds what BUILT_IN_ROLES says, whatever rows exist about it, and is there without a row too, then
    with the id ``builtin:<name>``. A circle that got into the rows is lived with: its roles hold the same.

    A graph never changes; what a role holds in all is worked out when first asked for, and kept.
    """

    def __init__(
        self,
        roles: Iterable[tuple[str, str]],
        parents: Iterable[tuple[str, str]] = (),
        grants: Iterable[tuple[str, str, str]] = (),
        registry: Registry = BUILT_IN,
    ) -> None:
        self.registry = registry
        self._names = dict(roles)
        self._ids = {name.lower(): role_id for role_id, name in self._names.items()}
        for name in BUILT_IN_ROLES.keys() - self._ids.keys():
            self._names[f"builtin:{name}"] = name
            self._ids[name] = f"builtin:{name}"
        self._built_in = {role_id for role_id, name in self._names.items() if name.lower() in BUILT_IN_ROLES}

        found: dict[str, dict[str, None]] = {role_id: {} for role_id in self._names}
        for role_id, parent_id in parents:
            if role_id in found and parent_id in found and role_id not in self._built_in:
                found[role_id][parent_id] = None
        self._link({role_id: tuple(ids) for role_id, ids in found.items()})

        granted: dict[str, set[Permission]] = {role_id: set() for role_id in self._names}
        for role_id, resource, action in grants:
            if role_id in granted and (resource, action) in registry.all:
                granted[role_id].add(Permission(resource, action))
        built_in = {name: role.permissions for name, role in BUILT_IN_ROLES.items()} | {SUPERUSER: registry.all}
        self._own = {
            role_id: built_in[self._names[role_id].lower()] if role_id in self._built_in else frozenset(permissions)
            for role_id, permissions in granted.items()
        }

    def _link(self, parents: dict[str, tuple[str, ...]]) -> None:
        children: dict[str, list[str]] = {role_id: [] for role_id in parents}
        for role_id, parent_ids in parents.items():
            for parent_id in parent_ids:
                children[parent_id].append(role_id)
        self._parents = parents
        self._children = {role_id: tuple(ids) for role_id, ids in children.items()}
        self._compiled: dict[str, frozenset[Permission]] = {}
        self._combined: dict[tuple[str, ...], frozenset[Permission]] = {}

    def id_of(self, name: str) -> str | None:
        """The id of the role with this name, compared without case; None when there is none."""
        return self._ids.get(name.lower())

    def name_of(self, role_id: str) -> str:
        """The name of a role; its id when there is no such role any more."""
        return self._names.get(role_id, role_id)

    def parents_of(self, role_id: str) -> tuple[str, ...]:
        """The ids of the roles that this one inherits from directly; none for an unknown role."""
        return self._parents.get(role_id, ())

    def children_of(self, role_id: str) -> tuple[str, ...]:
        """The ids of the roles that inherit from this one directly; none for an unknown role."""
        return self._children.get(role_id, ())

    def heirs_of(self, role_id: str) -> tuple[str, ...]:
        """The ids of all roles that inherit from this one, directly or not; never the role itself."""
        found = {role_id: None}
        queue = [role_id]
        for current in queue:
            for child_id in self.children_of(current):
                if child_id not in found:
                    found[child_id] = None
                    queue.append(child_id)
        del found[role_id]
        return tuple(found)

    def own(self, role_id: str) -> frozenset[Permission]:
        """What is granted to the role itself."""
        return self._own.get(role_id, frozenset())

    def inherited(self, role_id: str) -> frozenset[Permission]:
        """What the role holds through its ancestors only."""
        return self.effective([role_id]) - self.own(role_id)

    def effective(self, role_ids: Iterable[str]) -> frozenset[Permission]:
        """What these roles allow together, their ancestors' grants included; nothing for no role."""
        together = tuple(role_ids)
        known = self._combined.get(together)
        if known is None:
            if len(self._combined) >= _MOST_COMBINATIONS:
                self._combined.clear()
            held = [self._compile(role_id) for role_id in together if role_id in self._names]
            known = self._combined[together] = frozenset[Permission]().union(*held)
        return known

    def sources(self, role_ids: Iterable[str]) -> dict[Permission, list[Source]]:
        """Where each permission of ``effective(role_ids)`` comes from.

        One entry for each pair of a held role and a role that grants the permission, by a shortest path.
        """
        found: dict[Permission, list[Source]] = {}
        for held in dict.fromkeys(role_ids):
            for role_id, path in self._paths_up(held).items():
                source = Source(self._names[role_id], path)
                for permission in self._own[role_id]:
                    found.setdefault(permission, []).append(source)
        return {permission: found[permission] for permission in sorted(found)}

    def account_roles(self, role_ids: Sequence[str], is_superuser: bool) -> tuple[str, ...]:
        """The roles that count for an account: those assigned, ``superuser`` by flag, else ``member``.

        An account whose only roles have vanished holds nothing: it had a role, so it isn't a plain member.
        """
        counted = [*role_ids, self._ids[SUPERUSER]] if is_superuser else list(role_ids)
        return tuple(dict.fromkeys(counted or [self._ids[MEMBER]]))

    def standing(self, role_ids: Sequence[str], is_superuser: bool = False) -> Standing:
        """What an account with these roles and this flag amounts to; the role superuser sets the flag."""
        counted = self.account_roles(role_ids, is_superuser)
        return Standing(self.effective(counted), is_superuser or self._ids[SUPERUSER] in counted)

    def with_role(self, role_id: str, name: str) -> RoleGraph:
        """This graph with a further role, which grants nothing and inherits from nothing yet."""
        changed = copy.copy(self)
        changed._names = self._names | {role_id: name}
        changed._ids = self._ids | {name.lower(): role_id}
        changed._own = self._own | {role_id: frozenset()}
        changed._link(self._parents | {role_id: ()})
        return changed

    def with_own(self, role_id: str, permissions: Iterable[Permission]) -> RoleGraph:
        """This graph with what is granted to the role itself replaced. Raises RoleImmutable for a built-in role."""
        if role_id in self._built_in:
            raise RoleImmutable(self._names[role_id])
        changed = copy.copy(self)
        changed._own = self._own | {role_id: frozenset(permissions)}
        changed._link(self._parents)
        return changed

    def without_role(self, role_id: str, heir_parent_id: str | None = None) -> RoleGraph:
        """This graph without a role; its children inherit from ``heir_parent_id`` instead, where one is given.

        Raises what ``with_parents`` raises for the children.
        """
        if role_id in self._built_in:
            raise RoleImmutable(self._names[role_id])
        changed = self
        for child_id in self.children_of(role_id):
            kept = [parent_id for parent_id in self.parents_of(child_id) if parent_id != role_id]
            changed = changed.with_parents(child_id, kept if heir_parent_id is None else [*kept, heir_parent_id])
        changed = copy.copy(changed)
        changed._names = {each: name for each, name in changed._names.items() if each != role_id}
        changed._ids = {name: each for name, each in changed._ids.items() if each != role_id}
        changed._own = {each: own for each, own in changed._own.items() if each != role_id}
        changed._link({each: parent_ids for each, parent_ids in changed._parents.items() if each != role_id})
        return changed

    def with_parents(self, role_id: str, parent_ids: Sequence[str]) -> RoleGraph:
        """This graph with the role's parents replaced.

        Raises RoleImmutable for a built-in role, RoleCycle naming the circle from the role back to itself,
        BadField (``parents``) for an unknown parent, too many of them, or a chain deeper than MAX_DEPTH.
        Taking parents away is never refused for depth, so that what is stored can always be mended.
        """
        if role_id in self._built_in:
            raise RoleImmutable(self._names[role_id])
        wanted = tuple(dict.fromkeys(parent_ids))
        if len(wanted) > MAX_PARENTS:
            raise BadField(f"A role has at most {MAX_PARENTS} parents, not {len(wanted)}.", field="parents")
        for parent_id in wanted:
            if parent_id not in self._names:
                raise BadField(f"There is no role {reprlib.repr(parent_id)} to inherit from.", field="parents")
            circle = self._paths_up(parent_id).get(role_id)
            if circle is not None:
                raise RoleCycle([self._names[role_id], *circle])
        changed = copy.copy(self)
        changed._link(self._parents | {role_id: wanted})
        if set(wanted) - set(self._parents[role_id]):
            changed._check_depth(role_id)
        return changed

    def _check_depth(self, role_id: str) -> None:
        if _longest_walk(self._parents, role_id) + _longest_walk(self._children, role_id) > MAX_DEPTH:
            raise BadField(
                f"Roles inherit over at most {MAX_DEPTH} steps; these parents would make a longer chain.",
                field="parents",
            )

    def _paths_up(self, role_id: str) -> dict[str, tuple[str, ...]]:
        """Each ancestor, the role itself first, with the names of a shortest path to it."""
        if role_id not in self._names:
            return {}
        paths: dict[str, tuple[str, ...]] = {role_id: (self._names[role_id],)}
        queue = [role_id]
        for current in queue:
            for parent_id in self._parents[current]:
                if parent_id not in paths:
                    paths[parent_id] = (*paths[current], self._names[parent_id])
                    queue.append(parent_id)
        return paths

    def _compile(self, role_id: str) -> frozenset[Permission]:
        if role_id in self._compiled:
            return self._compiled[role_id]
        pending = self._uncompiled_lineage(role_id)
        try:
            order = list(TopologicalSorter(pending).static_order())
        except CycleError:
            # Within a circle no role is finished before the others, so only the role asked for is kept.
            reached = {ancestor for parent_ids in pending.values() for ancestor in parent_ids} | {role_id}
            self._compiled[role_id] = frozenset[Permission]().union(
                *(self._compiled.get(ancestor, self._own[ancestor]) for ancestor in reached)
            )
            return self._compiled[role_id]
        for current in order:
            if current not in self._compiled:
                self._compiled[current] = self._own[current].union(
                    *(self._compiled[parent_id] for parent_id in self._parents[current])
                )
        return self._compiled[role_id]

    def _uncompiled_lineage(self, role_id: str) -> dict[str, tuple[str, ...]]:
        """The parents of the role and of every ancestor on the way up to those already compiled."""
        lineage: dict[str, tuple[str, ...]] = {}
        queue = [role_id]
        for current in queue:
            if current not in lineage and current not in self._compiled:
                lineage[current] = self._parents[current]
                queue.extend(self._parents[current])
        return lineage


def _longest_walk(edges: Mapping[str, tuple[str, ...]], start: str) -> int:
    """Steps of the longest walk from ``start``, counted to one beyond MAX_DEPTH, so that circles end too."""
    reached = {start}
    for steps in range(MAX_DEPTH + 1):
        reached = {after for current in reached for after in edges[current]}
        if not reached:
            return steps
    return MAX_DEPTH + 1
