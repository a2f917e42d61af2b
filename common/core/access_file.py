"""A file of roles, assignments, settings and flags: what is in it, and what has to be done so that it holds.

What the file does not name is left as it is. What it names is as it says afterwards, so applying it again does nothing.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.core import features
from common.core.emails import email_key, parse_email
from common.core.errors import BadField, PlaneError
from common.core.names import ROLE_DESCRIPTION_MAX_LENGTH, parse_role_name
from common.core.permissions import BUILT_IN, BUILT_IN_ROLES, MAX_NAMED, MEMBER, Permission, Registry, RoleGraph
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
    version = document.get("version") if isinstance(document, dict) else None
    # To Python true is 1 too, and so is 1.0.
    if not isinstance(document, dict) or type(version) is not int or version != VERSION:
        raise BadField(f"the file must begin with `version: {VERSION}`.", field="version")
    _refuse_others(document, _PARTS, "the file")
    roles: dict[str, Role] = {}
    for name, told in _mapping(document, "roles").items():
        named = parse_role_name(_text(name, "roles"), field=f"roles.{name!r}")
        if named in roles:
            raise BadField(f"roles.{name}: this role is named before, in other letters.", field=f"roles.{name}")
        roles[named] = _role(name, told, registry)
    built_in = roles.keys() & BUILT_IN_ROLES.keys()
    if built_in:
        raise BadField(f"roles.{min(built_in)}: built-in roles can't be changed.", field=f"roles.{min(built_in)}")
    assignments = _assignments(document)
    settings = {_text(name, "settings"): _value(name, value) for name, value in _mapping(document, "settings").items()}
    flags = {_text(name, "features"): _feature(name, told) for name, told in _mapping(document, "features").items()}
    return Access(roles, assignments, settings, flags)


def graph_of(roles: Mapping[str, Role], registry: Registry = BUILT_IN) -> RoleGraph:
    """The graph of these roles and the built-in ones; a role's id is its name."""
    return RoleGraph(
        [(name, name) for name in {**BUILT_IN_ROLES, **roles}],
        [(name, parent) for name, role in roles.items() for parent in role.parents],
        [(name, *permission) for name, role in roles.items() for permission in role.grants],
        registry,
    )


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


def plan(
    wanted: Access, now: Access, *, defaults: Mapping[str, Any], secrets: Sequence[str], caller: str = ""
) -> list[Act]:
    """What has to be asked of the server, in order, so that what is wanted holds.

    ``defaults`` are those of the settings that there are, by name; ``secrets`` names those that no file may hold.
    ``caller`` is the e-mail of whoever asks, whose own roles change last. Raises BadField, also for parents that roles
    can't have and roles that there will not be.
    """
    _refuse_unknown_roles(wanted, now)
    return [
        *_plan_roles(wanted.roles, now.roles),
        *_plan_settings(wanted.settings, now.settings, defaults, secrets),
        *_plan_features(wanted.features, now.features),
        *_plan_assignments(wanted.assignments, now.assignments, caller),
    ]


def _refuse_unknown_roles(wanted: Access, now: Access) -> None:
    there = {**BUILT_IN_ROLES, **now.roles, **wanted.roles}
    for email, roles in wanted.assignments.items():
        for role in roles:
            if role not in there:
                raise BadField(f"assignments.{email}: there is no role '{role}'.", field=f"assignments.{email}")


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
    """And descriptions. Where old parents are in the way of new ones, in a circle or a long chain, they go first.

    Raises BadField for parents that can't be had in any order, naming the role.
    """
    bare = {name: Role(role.description, (), frozenset()) for name, role in wanted.items()}
    graph = graph_of({**bare, **now})
    changed = {
        name: role.parents
        for name, role in wanted.items()
        if set(role.parents) != set(now[name].parents if name in now else ())
    }
    try:
        _with_parents(graph, changed)
    except BadField:
        kept_parents = _kept_parents(wanted, now)
        _with_parents(_with_parents(graph, kept_parents), changed)
        for name, kept in kept_parents.items():
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


def _with_parents(graph: RoleGraph, parents: Mapping[str, Sequence[str]]) -> RoleGraph:
    """The graph after these changes, one after the other. Raises BadField for what the server would refuse."""
    for name, names in parents.items():
        try:
            graph = graph.with_parents(name, names)
        except PlaneError as error:
            raise BadField(f"roles.{name}: {error.message}", field=f"roles.{name}") from error
    return graph


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
    if len({*now, *wanted}) > max(len(now), features.MAX_FLAGS):
        raise BadField(
            f"features: there are {len(now)} flags already, and at most {features.MAX_FLAGS}; delete some first.",
            field="features",
        )
    for name, flag in wanted.items():
        if name not in now:
            yield Act(f"+ flag {name}: {_shown(flag['state'])}", "POST", ("features",), {"name": name, **flag})
        elif dict(flag) != dict(now[name]):
            told = [
                f"{key} {_shown(now[name][key])} -> {_shown(flag[key])}" for key in flag if flag[key] != now[name][key]
            ]
            yield Act(f"~ flag {name}: {'; '.join(told)}", "PUT", ("features", name), dict(flag))


def _plan_assignments(
    wanted: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]], caller: str
) -> Iterator[Act]:
    """One role replaces what there is at once; of several what is missing is given before what is too much is taken.

    One's own roles come last: what the other steps need may go with them.
    """
    for email, roles in sorted(wanted.items(), key=lambda each: email_key(each[0]) == email_key(caller)):
        missing, too_much = sorted(set(roles) - set(now[email])), sorted(set(now[email]) - set(roles))
        if not missing and not too_much:
            continue
        text = f"~ {email}: {_shown(now[email])} -> {_shown(roles)}"
        if len(roles) == 1:
            yield Act(text, "PUT", ("users", email, "role"), {"role_name": roles[0]})
            continue
        for some in _lots(missing):
            yield Act(text, "POST", ("users", email, "roles"), {"roles": some})
            text = f"+ {email}: further ones"
        # Whoever had no role was a member, and is one no more when given another.
        taken = [role for role in too_much if role != MEMBER] if missing else too_much
        for some in _lots(taken):
            yield Act(f"- {email}: {', '.join(some)}", "DELETE", ("users", email, "roles"), {"roles": some})


def _lots(names: Sequence[str]) -> Iterator[list[str]]:
    """As many at once as a request may name."""
    for start in range(0, len(names), MAX_NAMED):
        yield list(names[start : start + MAX_NAMED])


def granted(tree: Mapping[str, Mapping[str, bool]]) -> frozenset[Permission]:
    """The permissions that are true in a tree as the admin server answers it."""
    return frozenset(
        Permission(resource, action) for resource, actions in tree.items() for action, held in actions.items() if held
    )


def _assignments(document: Mapping[Any, Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    keys = set()
    for email, told in _mapping(document, "assignments").items():
        address = parse_email(_text(email, "assignments"), field="assignments")
        if email_key(address) in keys:
            raise BadField(f"assignments.{email}: this account is named before, in other letters.", field="assignments")
        keys.add(email_key(address))
        found[address] = _assigned(f"assignments.{email}", told)
    return found


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
    description = _text(told.get("description") or "", f"{place}.description")
    if len(description) > ROLE_DESCRIPTION_MAX_LENGTH:
        raise BadField(
            f"{place}.description: at most {ROLE_DESCRIPTION_MAX_LENGTH} characters.", field=f"{place}.description"
        )
    return Role(
        description,
        tuple(parse_role_name(parent, field=f"{place}.parents") for parent in parents),
        frozenset(grants),
    )


def _value(name: object, told: object) -> str | int | bool | None:
    """What the file sets a setting to: YAML has more kinds, dates among them, than settings do."""
    if told is None or isinstance(told, (str, int)):
        return told
    place = f"settings.{name}"
    raise BadField(f"{place}: must be text, a whole number, true, false or null.", field=place)


def _feature(name: object, told: object) -> dict[str, Any]:
    place = f"features.{name}"
    if not isinstance(told, dict):
        raise BadField(f"{place}: must be a mapping of state, tenants and description.", field=place)
    _refuse_others(told, ("state", "tenants", "description"), place)
    # To YAML the words on and off are true and false.
    state = told.get("state", "off")
    state = ("off", "on")[state] if isinstance(state, bool) else state
    flag = {
        "state": _text(state, f"{place}.state"),
        "tenants": sorted(set(_texts(told.get("tenants") or [], f"{place}.tenants"))),
        "description": _text(told.get("description") or "", f"{place}.description"),
    }
    features.parse_feature_name(_text(name, "features"), field=place)
    if not features.is_feature(flag):
        raise BadField(f"{place}: must be {features.RULE}.", field=place)
    return flag


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
