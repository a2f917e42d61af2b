"""Feature flags, which are settings named ``feature.<name>``: made, changed, deleted, and asked for by tenants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.core import features
from common.core.audit_tags import EventTag
from common.core.errors import FeatureExists, FeatureNotFound
from common.core.features import State
from common.core.variables import as_text, known, parsed
from common.models.base import rfc3339
from common.services import accounts, settings
from common.services.plane import Plane
from common.services.principal import Principal
from common.services.settings import Change
from common.services.variables import StoredText


def list_features(plane: Plane) -> dict[str, Any]:
    """Every flag by name: ``{features: [{name, state, tenants, description, updated_at, updated_by}]}``."""
    stored = plane.variables.stored()
    return {"features": [_shown(name, stored[name]) for name in sorted(filter(features.is_setting_name, stored))]}


def of_tenant(plane: Plane, who: Principal) -> dict[str, bool]:
    """Every flag by name, and whether it is on in the tenant that the caller acts in."""
    flags = plane.variables.features()
    return {name: flags[name].holds_for(who.tenant_id) for name in sorted(flags)}


def create_feature(
    plane: Plane,
    actor: Principal,
    name: str,
    *,
    state: State = "off",
    tenants: Sequence[str] = (),
    description: str = "",
) -> dict[str, Any]:
    """Make a flag; returns it as ``list_features`` shows it. Raises BadField, FeatureExists."""
    full_name = features.parse_feature_name(name)
    with plane.database.transaction():
        stored = settings.alone(plane)
        actor = _permitted(plane, actor)
        if full_name in stored:
            raise FeatureExists(name)
        settings.make_sure_of_room_for_a_flag(stored)
        wanted = {"state": state, "tenants": list(tenants), "description": description}
        return _write(plane, actor, full_name, None, wanted, EventTag.FEATURE_CREATE)


def change_feature(
    plane: Plane,
    actor: Principal,
    name: str,
    *,
    state: State | None = None,
    tenants: Sequence[str] | None = None,
    description: str | None = None,
) -> dict[str, Any]:
    """Change a flag; what is None stays. Returns it as ``list_features`` shows it. Raises FeatureNotFound, BadField."""
    with plane.database.transaction():
        stored = settings.alone(plane)
        actor = _permitted(plane, actor)
        full_name, before = _found(stored, name)
        flag = settings.flag_of(full_name, before)
        wanted = {
            "state": flag.state if state is None else state,
            "tenants": sorted(flag.tenants) if tenants is None else list(tenants),
            "description": flag.description if description is None else description,
        }
        return _write(plane, actor, full_name, before, wanted, EventTag.FEATURE_UPDATE)


def delete_feature(plane: Plane, actor: Principal, name: str) -> None:
    """Delete a flag, which is off for everybody then. Raises FeatureNotFound."""
    with plane.database.transaction():
        full_name, before = _found(settings.alone(plane), name)
        actor = _permitted(plane, actor)
        settings.write(plane, actor, [Change(known(full_name), before.text, None)], EventTag.FEATURE_DELETE)


def _permitted(plane: Plane, actor: Principal) -> Principal:
    """The actor as it is now. Raises NotSignedIn, PermissionMissing."""
    now = accounts.acting_now(plane, actor)
    now.require("setting", "write")
    return now


def _found(stored: dict[str, StoredText], name: str) -> tuple[str, StoredText]:
    full_name = features.PREFIX + name
    if not features.is_setting_name(full_name) or full_name not in stored:
        raise FeatureNotFound(name)
    return full_name, stored[full_name]


def _write(
    plane: Plane,
    actor: Principal,
    full_name: str,
    before: StoredText | None,
    wanted: dict[str, Any],
    tag: EventTag,
) -> dict[str, Any]:
    wanted["tenants"] = sorted(set(wanted["tenants"]))
    # Who was named before may be deleted by now, which is to keep nobody from switching the flag off.
    settings.refuse_strangers(plane, wanted["tenants"], settings.flag_of(full_name, before).tenants)
    variable = known(full_name)
    after = as_text(parsed(variable, wanted, field="tenants"))
    if before is None or before.text != after:
        settings.write(plane, actor, [Change(variable, before.text if before else None, after)], tag)
    return _shown(full_name, plane.variables.stored()[full_name])


def _shown(full_name: str, stored: StoredText) -> dict[str, Any]:
    flag = settings.flag_of(full_name, stored)
    return {
        "name": full_name.removeprefix(features.PREFIX),
        "state": flag.state,
        "tenants": sorted(flag.tenants),
        "description": flag.description,
        "updated_at": rfc3339(stored.at),
        "updated_by": stored.by,
    }
