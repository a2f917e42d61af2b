"""Settings that are changed while the plane runs: read, checked, changed, and put back to what they were."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from common.core import features, variables
from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.delegation import check_may_give, check_may_make_default, check_may_take_default, is_administrative
from common.core.errors import BadField, SettingChangeNotFound, SettingNotFound
from common.core.names import parse_role_name
from common.core.permissions import ALL_PERMISSIONS, SUPERUSER, Standing
from common.core.variables import VARIABLES, Value, Variable, as_text, found, known, parsed
from common.core.versions import check_version, version_of
from common.models.base import created, rfc3339, touched
from common.models.variable import StoredVariable, SystemSetting, VariableChange
from common.secret import MASK, Secret
from common.services import accounts, audit
from common.services.plane import Plane
from common.services.principal import Principal
from common.services.ragflow_settings import RagflowSettings
from common.services.variables import VERSION, StoredText

#: Settings that one request may change.
MAX_CHANGES = 200
_MAX_ID = 2**63 - 1


class Change(NamedTuple):
    """A setting's change: texts in their stored form, None for the registered default."""

    variable: Variable
    before: str | None
    after: str | None


def get_config(plane: Plane) -> tuple[dict[str, Any], str]:
    """Every registered setting by name: ``{settings}``; feature flags have a list of their own.

    And the version of all settings and flags, for If-Match.

    Items: ``{name, type, default, least, most, choices, takes, secret, permission, restart, help, value, is_set,
    updated_at, updated_by}``; a secret's value is ``***`` where it is set, else "".
    """
    stored = plane.variables.stored()
    return {"settings": [_shown(variable, stored.get(name)) for name, variable in VARIABLES.items()]}, _version(stored)


def get_variables(plane: Plane, var_name: str | None = None) -> list[dict[str, str]]:
    """Settings as RAGFlow's admin API lists them, by name: ``{data_type, name, setting_type: "config", value}``.

    With ``var_name`` the one of exactly that name, else those whose names begin with it. A secret's value is ``***``
    where it is set. Raises BadField when there is none.
    """
    stored = plane.variables.stored()
    names = sorted({*VARIABLES, *(name for name in stored if found(name))})
    if var_name is not None:
        names = [var_name] if var_name in names else [name for name in names if name.startswith(var_name)]
        if not var_name or not names:
            raise BadField(f"var_name: there is no setting {var_name!r}, and none that begins so.", field="var_name")
    return [_listed(known(name), stored.get(name)) for name in names]


def validate_config(changes: Mapping[str, object], *, field: str = "settings") -> dict[str, Value | None]:
    """The values to set in their kinds; None is the registered default. Raises BadField, naming the setting.

    The ``***`` that stands for a secret leaves it as it is.
    """
    if len(changes) > MAX_CHANGES:
        raise BadField(f"{field}: at most {MAX_CHANGES} settings at once.", field=field)
    read: dict[str, Value | None] = {}
    for name, value in changes.items():
        variable = found(name)
        if variable is None:
            raise BadField(f"{field}: there is no setting {name!r:.80}.", field=field)
        if variable.secret and value == MASK:
            continue
        read[name] = None if value is None else parsed(variable, value, field=f"{field}.{name}")
    return read


def update_config(
    plane: Plane,
    actor: Principal,
    changes: Mapping[str, object],
    *,
    expected: Collection[str] | None = None,
    dry_run: bool = False,
    tag_of: EventTag = EventTag.SETTING_UPDATE,
) -> dict[str, Any]:
    """Set any number of settings, all or none: ``{changes: [{name, before, after}], dry_run}``.

    What is so already is no change. With ``dry_run`` everything is checked and nothing written. ``expected`` are the
    versions of which the settings must have one still. Raises BadField, PermissionMissing, GivesMoreThanHeld,
    LostUpdate.
    """
    wanted = validate_config(changes)
    with plane.database.transaction():
        stored = alone(plane, *wanted)
        actor = accounts.acting_now(plane, actor)
        check_version(_version(stored), expected)
        _refuse_new_flags(wanted, stored)
        found_changes = [
            change
            for name, value in wanted.items()
            if (change := _change(plane, known(name), stored.get(name), value)) is not None
        ]
        for change in found_changes:
            name = change.variable.name
            _refuse(plane, actor, change)
            if features.is_setting_name(name) and change.after is not None:
                wants = features.feature_of(json.loads(change.after))
                refuse_strangers(
                    plane, wants.tenants, flag_of(name, stored.get(name)).tenants, field=f"settings.{name}"
                )
        if found_changes and not dry_run:
            write(plane, actor, found_changes, tag_of)
    return {"changes": [_told(change) for change in found_changes], "dry_run": dry_run}


def set_variable(
    plane: Plane, actor: Principal, var_name: str, var_value: object, *, expected: Collection[str] | None = None
) -> None:
    """Set one setting, as RAGFlow's admin API does. ``expected`` and errors as in ``update_config``."""
    variable = known(var_name)
    if not (variable.secret and var_value == MASK):
        parsed(variable, var_value)
        update_config(plane, actor, {var_name: var_value}, expected=expected)


def history(plane: Plane, name: str, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """A page of a setting's changes, newest first: ``{changes: [{id, before, after, at, by}], next_cursor}``.

    None is the registered default, ``***`` a secret. What a RAGFlow changed is not among them. Raises SettingNotFound,
    and BadField for a cursor.
    """
    variable = _of_path(name)
    (last_id,) = decode_cursor(cursor, (int,)) if cursor is not None else (_MAX_ID,)
    rows = plane.database.all(
        "SELECT id, value, at, `by` FROM rk_variable_change WHERE name = ? AND id < ? ORDER BY id DESC LIMIT ?",
        (name, last_id, limit + 1),
    )
    shown = [
        {
            "id": row[0],
            "before": _value_shown(variable, rows[index + 1][1] if index + 1 < len(rows) else None),
            "after": _value_shown(variable, row[1]),
            "at": rfc3339(row[2]),
            "by": row[3],
        }
        for index, row in enumerate(rows[:limit])
    ]
    return {"changes": shown, "next_cursor": encode_cursor([shown[-1]["id"]]) if len(rows) > limit else None}


def roll_back(
    plane: Plane, actor: Principal, name: str, change_id: int, *, expected: Collection[str] | None = None
) -> dict[str, Any]:
    """Give a setting the value again that it had after a change of its history; the form of ``update_config``.

    Raises SettingNotFound, SettingChangeNotFound, BadField for a secret that no key opens, and as ``update_config``.
    """
    variable = _of_path(name)
    with plane.database.transaction():
        stored = alone(plane, name)
        actor = accounts.acting_now(plane, actor)
        check_version(_version(stored), expected)
        row = plane.database.one(
            "SELECT value FROM rk_variable_change WHERE name = ? AND id = ?", (name, min(change_id, _MAX_ID))
        )
        if row is None:
            raise SettingChangeNotFound(name, change_id)
        # The rule may have become narrower since.
        value = row[0] if row[0] is None or variable.secret else parsed(variable, row[0], field=name)
        if variable.secret and row[0] is not None and plane.keys.unseal(row[0], name) is None:
            raise BadField(f"id: no key opens what {name} was then; set it anew.", field="id")
        change = Change(variable, _text_of(stored.get(name)), row[0])
        changes = [] if change.before == change.after else [change]
        if changes and change.before is None and features.is_setting_name(name):
            make_sure_of_room_for_a_flag(stored)
        if changes:
            _refuse(plane, actor, Change(variable, change.before, None if value is None else as_text(value)))
            write(plane, actor, changes, EventTag.SETTING_ROLLBACK)
    return {"changes": [_told(each) for each in changes], "dry_run": False}


def _of_path(name: str) -> Variable:
    """The variable of which a path is. Raises SettingNotFound."""
    variable = found(name)
    if variable is None:
        raise SettingNotFound(name)
    return variable


def alone(plane: Plane, *names: str) -> dict[str, StoredText]:
    """Within a transaction, before any other lock: wait for whoever else changes settings; what is stored then.

    Where the default role is among the ``names`` that are to change, nobody changes roles meanwhile either: who makes
    a role the default agrees to what it holds.
    """
    if "default_role" in names:
        plane.database.lock("roles")
    plane.database.lock("settings")
    return plane.variables.stored()


def make_sure_of_room_for_a_flag(stored: Mapping[str, StoredText]) -> None:
    """Before one more flag is made or comes back: raises BadField (``name``) where there are as many as may be."""
    if len(list(filter(features.is_setting_name, stored))) >= features.MAX_FLAGS:
        raise BadField(f"name: there are {features.MAX_FLAGS} flags already; delete one first.", field="name")


def write(plane: Plane, actor: Principal, changes: Collection[Change], tag_of: EventTag) -> None:
    """Write changes, with their events, into the running transaction that is ``alone``.

    The version goes up at the very end: whoever reads the values for a version then never keeps others.
    """
    ragflow = RagflowSettings(plane.database, plane.sharing.known)
    now = plane.now_ms()
    by = actor.email or (actor.origin.agent if actor.credential == "system" else None)
    for change in changes:
        name = change.variable.name
        told = _told(change)
        audit.record(
            plane,
            tag_of,
            actor,
            target=("setting", name),
            before={"value": told["before"]},
            after={"value": told["after"]},
        )
        plane.database.run("DELETE FROM rk_variable WHERE name = ?", (name,))
        if change.after is not None:
            plane.database.insert(
                StoredVariable,
                name=name,
                value=change.after,
                updated_at=now,
                updated_by=by,
                by_superuser=actor.is_superuser and _needs_superuser(plane, change),
            )
        plane.database.insert(VariableChange, name=name, value=change.after, at=now, by=by)
        if change.variable.ragflow and ragflow.present():
            _write_beside(plane, change.variable, change.after)
    next_version(plane)


def next_version(plane: Plane) -> None:
    """Have every process read the settings again, once the running transaction is committed; at its very end."""
    plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = ?", (VERSION,))
    plane.variables.forget()


def _write_beside(plane: Plane, variable: Variable, text: str | None) -> None:
    """Have RAGFlow's row say the same; of a secret it says nothing, for there it would stand in the clear."""
    if variable.secret:
        text = ""
    elif text is None:
        text = as_text(variable.default)
    now = plane.now_ms()
    columns = {"value": text, **touched(now, plane.zone)}
    if plane.database.one("SELECT 1 FROM system_settings WHERE name = ?", (variable.name,)):
        plane.database.execute(SystemSetting.update(**columns).where(SystemSetting.name == variable.name))
        return
    # Made before it was changed: else it would look like one that nobody has changed.
    columns = {**created(now - 1, plane.zone), **columns}
    plane.database.insert(SystemSetting, name=variable.name, source="admin", data_type=variable.kind, **columns)


def _change(plane: Plane, variable: Variable, stored: StoredText | None, value: Value | None) -> Change | None:
    """What setting the value changes, or None. A secret is sealed; it is a change unless it is the one that is set."""
    before = _text_of(stored)
    if value is None or not variable.secret:
        after = None if value is None else as_text(value)
    elif value == "":
        after = None
    else:
        known_secret = plane.keys.unseal(before, variable.name) if before else None
        if known_secret is not None and known_secret == Secret(as_text(value)):
            return None
        after = plane.keys.seal(Secret(as_text(value)), variable.name)
    return None if before == after else Change(variable, before, after)


def _refuse(plane: Plane, actor: Principal, change: Change) -> None:
    """Raises PermissionMissing or GivesMoreThanHeld where the actor may not make this change, BadField as told."""
    actor.require("setting", "write")
    if change.variable.permission == SUPERUSER:
        check_may_give(actor.standing, Standing(ALL_PERMISSIONS, True))
    else:
        actor.require(*change.variable.permission.split(":"))
    if change.variable.name == "default_role":
        _refuse_default_role(plane, actor, change)


def _refuse_default_role(plane: Plane, actor: Principal, change: Change) -> None:
    """Whoever makes a role the default gives it to everybody who comes; who takes it away lets them be members."""
    graph = accounts.role_graph(plane)
    if not change.after:
        check_may_take_default(actor.standing, graph, change.before or "")
        return
    name = parse_role_name(change.after, field="default_role")
    role_id = graph.id_of(name)
    if role_id is None:
        raise BadField(f"default_role: there is no role '{name}'.", field="default_role")
    check_may_make_default(actor.standing, graph.standing([role_id]))


def _needs_superuser(plane: Plane, change: Change) -> bool:
    """Whether what is set counts only because a superuser sets it: of the default role, an administrative one. What it
    comes to hold later is not what that one has agreed to."""
    if change.variable.name != "default_role":
        return True
    graph = accounts.role_graph(plane)
    role_id = graph.id_of(change.after or "")
    return role_id is not None and is_administrative(graph.standing([role_id]))


def _refuse_new_flags(wanted: Mapping[str, Value | None], stored: Mapping[str, StoredText]) -> None:
    """Raises BadField: flags are made where their number is bounded and their tenants are looked for."""
    for name, value in wanted.items():
        if value is not None and name not in VARIABLES and name not in stored:
            raise BadField(f"settings: there is no flag {name!r:.80}; make it with POST /features.", field="settings")


def flag_of(name: str, stored: StoredText | None) -> features.Feature:
    """The flag that this setting holds; one that another program wrote otherwise counts as off, and may be set anew."""
    try:
        value = parsed(known(name), stored.text) if stored is not None else features.OFF
    except BadField:
        value = features.OFF
    return features.feature_of(value if isinstance(value, dict) else features.OFF)


def refuse_strangers(plane: Plane, tenants: Collection[str], named: Collection[str], *, field: str = "tenants") -> None:
    """Raises BadField for an id that no tenant has, and that the flag has not named before."""
    if len(tenants) > features.MAX_TENANTS:
        raise BadField(f"{field}: at most {features.MAX_TENANTS}.", field=field)
    added = sorted(set(tenants).difference(named))
    if not added:
        return
    marks = ", ".join("?" * len(added))
    there = {row[0] for row in plane.database.all(f"SELECT id FROM tenant WHERE id IN ({marks})", added)}
    unknown = [tenant_id for tenant_id in added if tenant_id not in there]
    if unknown:
        raise BadField(f"{field}: there is no tenant {reprlib.repr(unknown[0])}.", field=field)


def _text_of(stored: StoredText | None) -> str | None:
    return stored.text if stored is not None else None


def _version(stored: Mapping[str, StoredText]) -> str:
    return version_of({name: each.text for name, each in stored.items()})


def _told(change: Change) -> dict[str, Any]:
    return {
        "name": change.variable.name,
        "before": _value_shown(change.variable, change.before),
        "after": _value_shown(change.variable, change.after),
    }


def _value_shown(variable: Variable, text: str | None) -> Value | None:
    """A stored text as a value; what breaks the rule by now is shown as it is."""
    if text is None:
        return None
    if variable.secret:
        return MASK
    try:
        return parsed(variable, text)
    except BadField:
        return text


def _shown(variable: Variable, stored: StoredText | None) -> dict[str, Any]:
    value = _value_shown(variable, _text_of(stored))
    return {
        "name": variable.name,
        "type": variable.kind,
        "default": variable.default,
        "least": variable.least,
        "most": variable.most,
        "choices": list(variable.choices),
        "takes": variables.rule(variable),
        "secret": variable.secret,
        "permission": variable.permission,
        "restart": variable.restart,
        "help": variable.help,
        "value": variable.default if value is None else value,
        "is_set": stored is not None,
        "updated_at": rfc3339(stored.at) if stored else None,
        "updated_by": stored.by if stored else None,
    }


def _listed(variable: Variable, stored: StoredText | None) -> dict[str, str]:
    value = _value_shown(variable, _text_of(stored))
    text = as_text(variable.default if value is None else value)
    return {"data_type": variable.kind, "name": variable.name, "setting_type": "config", "value": text}
