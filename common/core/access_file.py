"""A file of roles, assignments, settings and flags: what is in it, and what has to be done so that it holds.

What the file does not name is left as it is. What it names is as it says afterwards, so applying it again does nothing.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from common.core.emails import parse_email
from common.core.errors import BadField
from common.core.names import parse_role_name
from common.core.permissions import BUILT_IN, BUILT_IN_ROLES, MEMBER, Permission, Registry
from common.core.variables import as_text
from common.secret import MASK

VERSION = 1
_PARTS = ("version", "roles", "assignments", "settings", "features")
_OF_ROLE = ("description", "parents", "grants")


class Role(NamedTuple):
    """A role as the file wants it, or as it is."""

    description: str
    parents: tuple[str, ...]
    grants: frozenset[Permission]


@dataclass(frozen=True)
class Access:
    """What a file names, or what there is: roles by name, the roles of accounts, settings and flags by name."""

    roles: Mapping[str, Role] = field(default_factory=dict)
    assignments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Act(NamedTuple):
    """One request to the admin server, and what it does in words; its path is ``parts``, below /api/v1/admin."""

    text: str
    method: str
    parts: tuple[str, ...]
    body: Mapping[str, Any]


def parse(document: object, registry: Registry = BUILT_IN) -> Access:
    """The file's content, checked as far as that goes; ``registry`` is what the server can grant.

    Raises BadField, naming the place.
    """
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise BadField(f"the file must begin with `version: {VERSION}`.", field="version")
    _refuse_others(document, _PARTS, "the file")
    roles = {
        parse_role_name(_text(name, "roles"), field=f"roles.{name!r}"): _role(name, told, registry)
        for name, told in _mapping(document, "roles").items()
    }
    built_in = roles.keys() & BUILT_IN_ROLES.keys()
    if built_in:
        raise BadField(f"roles.{min(built_in)}: built-in roles can't be changed.", field=f"roles.{min(built_in)}")
    assignments = {
        parse_email(_text(email, "assignments"), field="assignments"): _assigned(f"assignments.{email}", told)
        for email, told in _mapping(document, "assignments").items()
    }
    settings = {_text(name, "settings"): value for name, value in _mapping(document, "settings").items()}
    features = {_text(name, "features"): _feature(name, told) for name, told in _mapping(document, "features").items()}
    return Access(roles, assignments, settings, features)


def as_document(access: Access) -> dict[str, Any]:
    """The content of a file that names all of this, in a fixed order."""
    return {
        "version": VERSION,
        "roles": {
            name: {
                "description": role.description,
                "parents": sorted(role.parents),
                "grants": _by_resource(role.grants),
            }
            for name, role in sorted(access.roles.items())
        },
        "assignments": {
            email: roles[0] if len(roles) == 1 else list(roles) for email, roles in sorted(access.assignments.items())
        },
        "settings": dict(sorted(access.settings.items())),
        "features": {name: dict(flag) for name, flag in sorted(access.features.items())},
    }


def plan(wanted: Access, now: Access, *, defaults: Mapping[str, Any], secrets: Sequence[str]) -> list[Act]:
    """What has to be asked of the server, in order, so that what is wanted holds.

    ``defaults`` are those of the settings that there are, by name; ``secrets`` names those that no file may hold.
    Raises BadField.
    """
    return [
        *_plan_roles(wanted.roles, now.roles),
        *_plan_settings(wanted.settings, now.settings, defaults, secrets),
        *_plan_features(wanted.features, now.features),
        *_plan_assignments(wanted.assignments, now.assignments),
    ]


def _plan_roles(wanted: Mapping[str, Role], now: Mapping[str, Role]) -> Iterator[Act]:
    """Roles are made bare, then granted to, and only then inherit: by then every parent is there."""
    for name, role in wanted.items():
        if name not in now:
            body = {"role_name": name, "description": role.description}
            yield Act(f"+ role {name}", "POST", ("roles",), body)
    for name, role in wanted.items():
        own = now[name].grants if name in now else frozenset[Permission]()
        for resource, actions in _by_resource(role.grants - own).items():
            text = f"+ role {name}: {', '.join(actions)} on {resource}"
            yield Act(text, "POST", ("roles", name, "permission"), {"resource": resource, "actions": actions})
        for resource, actions in _by_resource(own - role.grants).items():
            text = f"- role {name}: {', '.join(actions)} on {resource}"
            yield Act(text, "DELETE", ("roles", name, "permission"), {"resource": resource, "actions": actions})
    yield from _plan_parents(wanted, now)


def _plan_parents(wanted: Mapping[str, Role], now: Mapping[str, Role]) -> Iterator[Act]:
    """And descriptions. Where a new parent would meet an old one in a circle, the old ones go first."""
    if _meets_itself(wanted, now):
        for name, kept in _kept_parents(wanted, now).items():
            text = f"~ role {name}: parents {_shown(now[name].parents)} -> {_shown(kept)}"
            yield Act(text, "PUT", ("roles", name), {"parents": sorted(kept)})
            now = {**now, name: now[name]._replace(parents=kept)}
    for name, role in wanted.items():
        before = now.get(name, Role(role.description, (), frozenset()))
        change: dict[str, Any] = {}
        if role.description != before.description:
            change["description"] = role.description
        if set(role.parents) != set(before.parents):
            change["parents"] = sorted(role.parents)
        if change:
            told = [f"{key} {_shown(getattr(before, key))} -> {_shown(change[key])}" for key in change]
            yield Act(f"~ role {name}: {'; '.join(told)}", "PUT", ("roles", name), change)


def _meets_itself(wanted: Mapping[str, Role], now: Mapping[str, Role]) -> bool:
    """Whether some order of the steps would make a circle of what is still there and what is there already."""
    edges = {name: {*role.parents} for name, role in now.items()}
    for name, role in wanted.items():
        edges[name] = edges.get(name, set()).union(role.parents)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError:
        return True
    return False


def _kept_parents(wanted: Mapping[str, Role], now: Mapping[str, Role]) -> dict[str, tuple[str, ...]]:
    """The parents that each role keeps which loses some."""
    kept = {
        name: tuple(parent for parent in now[name].parents if parent in role.parents)
        for name, role in wanted.items()
        if name in now
    }
    return {name: parents for name, parents in kept.items() if len(parents) < len(now[name].parents)}


def _plan_settings(
    wanted: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any], secrets: Sequence[str]
) -> Iterator[Act]:
    changes: dict[str, Any] = {}
    told = []
    for name, value in wanted.items():
        if name not in defaults:
            raise BadField(f"settings: there is no setting {reprlib.repr(name)}.", field="settings")
        if name in secrets:
            if value not in (MASK, None):
                raise BadField(
                    f"settings.{name}: a secret does not belong in a file; use `ragkeeper setting set {name}`.",
                    field=f"settings.{name}",
                )
            if value == MASK or name not in now:
                continue
        if value is None and name not in now:
            continue
        before = now.get(name, defaults[name])
        if value is not None and _same(value, before):
            continue
        changes[name] = value
        after = defaults[name] if value is None else value
        told.append(f"~ setting {name}: {_shown(before)} -> {_shown(after)}")
    if changes:
        yield Act("\n".join(told), "PATCH", ("settings",), {"settings": changes})


def _plan_features(wanted: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> Iterator[Act]:
    for name, flag in wanted.items():
        if name not in now:
            yield Act(f"+ flag {name}: {_shown(flag['state'])}", "POST", ("features",), {"name": name, **flag})
        elif dict(flag) != dict(now[name]):
            told = [
                f"{key} {_shown(now[name][key])} -> {_shown(flag[key])}" for key in flag if flag[key] != now[name][key]
            ]
            yield Act(f"~ flag {name}: {'; '.join(told)}", "PUT", ("features", name), dict(flag))


def _plan_assignments(wanted: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> Iterator[Act]:
    """One role replaces what there is at once; of several what is missing is given before what is too much is taken."""
    for email, roles in wanted.items():
        missing, too_much = sorted(set(roles) - set(now[email])), sorted(set(now[email]) - set(roles))
        if not missing and not too_much:
            continue
        text = f"~ {email}: {_shown(now[email])} -> {_shown(roles)}"
        if len(roles) == 1:
            yield Act(text, "PUT", ("users", email, "role"), {"role_name": roles[0]})
            continue
        if missing:
            yield Act(text, "POST", ("users", email, "roles"), {"roles": missing})
        # Whoever had no role was a member, and is one no more when given another.
        taken = [role for role in too_much if role != MEMBER] if missing else too_much
        if taken:
            yield Act(f"- {email}: {', '.join(taken)}", "DELETE", ("users", email, "roles"), {"roles": taken})


def granted(tree: Mapping[str, Mapping[str, bool]]) -> frozenset[Permission]:
    """The permissions that are true in a tree as the admin server answers it."""
    return frozenset(
        Permission(resource, action) for resource, actions in tree.items() for action, held in actions.items() if held
    )


def _assigned(place: str, told: object) -> tuple[str, ...]:
    named = [told] if isinstance(told, str) else _texts(told, place)
    if not named:
        raise BadField(f"{place}: must name a role; {MEMBER} is that of an account without any.", field=place)
    return tuple(dict.fromkeys(parse_role_name(role, field=place) for role in named))


def _role(name: object, told: object, registry: Registry) -> Role:
    place = f"roles.{name}"
    if not isinstance(told, dict):
        raise BadField(f"{place}: must be a mapping of {', '.join(_OF_ROLE)}.", field=place)
    _refuse_others(told, _OF_ROLE, place)
    parents = _texts(told.get("parents") or [], f"{place}.parents")
    grants = [
        registry.permission(
            resource, action, resource_field=f"{place}.grants", action_field=f"{place}.grants.{resource}"
        )
        for resource, actions in _mapping(told, "grants", f"{place}.grants").items()
        for action in _texts(actions, f"{place}.grants.{resource}")
    ]
    return Role(
        _text(told.get("description") or "", f"{place}.description"),
        tuple(parse_role_name(parent, field=f"{place}.parents") for parent in parents),
        frozenset(grants),
    )


def _feature(name: object, told: object) -> dict[str, Any]:
    place = f"features.{name}"
    if not isinstance(told, dict):
        raise BadField(f"{place}: must be a mapping of state, tenants and description.", field=place)
    _refuse_others(told, ("state", "tenants", "description"), place)
    # To YAML the words on and off are true and false.
    state = {True: "on", False: "off"}.get(told.get("state", "off"), told.get("state", "off"))
    return {
        "state": _text(state, f"{place}.state"),
        "tenants": sorted(set(_texts(told.get("tenants") or [], f"{place}.tenants"))),
        "description": _text(told.get("description") or "", f"{place}.description"),
    }


def _mapping(parent: Mapping[Any, Any], key: str, place: str | None = None) -> Mapping[Any, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadField(f"{place or key}: must be a mapping.", field=place or key)
    return value


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise BadField(f"{place}: must be text, in quotes where it looks like something else.", field=place)
    return value


def _texts(value: object, place: str) -> list[str]:
    if not isinstance(value, list):
        raise BadField(f"{place}: must be a list of texts.", field=place)
    return [_text(each, place) for each in value]


def _refuse_others(told: Mapping[Any, Any], names: Sequence[str], place: str) -> None:
    for name in told:
        if name not in names:
            raise BadField(f"{place}: knows {', '.join(names)}, and no {reprlib.repr(name)}.", field=place)


def _by_resource(permissions: frozenset[Permission]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for resource, action in sorted(permissions):
        found.setdefault(resource, []).append(action)
    return found


def _same(wanted: Any, now: Any) -> bool:
    """Whether two values of a setting are one; a text may stand for any kind."""
    return bool(wanted == now and isinstance(wanted, bool) == isinstance(now, bool)) or (
        isinstance(wanted, str) and not isinstance(now, str) and wanted == as_text(now)
    )


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(sorted(value)) or "none"
    return (value or '""') if isinstance(value, str) else as_text(value)
