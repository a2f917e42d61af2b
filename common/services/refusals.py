"""Refused acts in the audit trail."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from common.core import features
from common.core.audit_tags import EventTag
from common.core.errors import BadField, Forbidden, ForeignTenant, NotYourTenant, RefusedByRule, StoreUnavailable
from common.core.tokens import display_form, looks_like_token
from common.secret import Secret
from common.services import audit
from common.services.plane import Plane
from common.services.principal import Principal

log = logging.getLogger(__name__)

#: The errors that say that somebody who is known was refused something.
REFUSED = (Forbidden, NotYourTenant, RefusedByRule)
#: The name of the tenant that a request wants to act in.
TENANT = "X-Tenant"
# What the first parameter of a path names, by the part before it: the kind of target that its changes have.
_KINDS = {
    "users": "user",
    "roles": "role",
    "tenants": "tenant",
    "tenant": "tenant",
    "agree": "tenant",
    "settings": "setting",
    "features": "setting",
    "jobs": "job",
    "whitelist": "whitelist",
    "token": "token",
    "tokens": "token",
}
_FIRST_PARAMETER = re.compile(r"/(\w+)/<(\w+)>")
# The events of changes have what stands under the number.
_BY_NUMBER = frozenset({"entry_id"})
_ID = re.compile(r"[0-9a-f]{32}")
_CREDENTIALS = frozenset({"token", "key"})
# A path may be far longer than anything that is there under it.
_LONGEST = 255
# And a body may name more than anybody reads.
_MOST_NAMED = 50


def record(
    plane: Plane,
    who: Principal,
    route: str,
    named: Mapping[str, str],
    asked: Mapping[str, str | Sequence[str]],
    error: Forbidden | NotYourTenant | RefusedByRule,
) -> None:
    """Record that a caller was refused a route. The refusal stands also when the trail can't be written.

    ``named`` has the values of the path's parameters, and under TENANT the tenant to act in, if one was named;
    ``asked`` what body and query name.
    """
    told: dict[str, object] = {"route": route, "reason": error.message}
    shown = {name: _all_shown(name, value) for name, value in {**asked, **named}.items()}
    after = {**told, "named": shown} if shown else told
    try:
        try:
            _write(plane, who, _target(plane, route, named, error), after)
        except BadField:
            # A database may take fewer characters than a path may have.
            _write(plane, who, ("route", route), told)
    except StoreUnavailable as unavailable:
        log.warning("refusal of %s not recorded: %s", route, unavailable.reason)


def _write(plane: Plane, who: Principal, target: tuple[str, str], after: Mapping[str, object]) -> None:
    with plane.database.transaction():
        audit.record(plane, EventTag.ACCESS_REFUSED, who, target=target, after=after, result="refused")


def _target(plane: Plane, route: str, named: Mapping[str, str], error: Exception) -> tuple[str, str]:
    """On whom or what, as the events of changes have it; the route where that can't be told."""
    found = _FIRST_PARAMETER.search(route)
    if found is not None and found[1] in _KINDS and not isinstance(error, ForeignTenant):
        name = _name_of(plane, found[1], found[2], named[found[2]])
        if name is not None:
            return _KINDS[found[1]], name
    tenant_id = named.get(TENANT, "")
    # Anybody may name anything to act in.
    return ("tenant", tenant_id) if _ID.fullmatch(tenant_id) else ("route", route)


def _name_of(plane: Plane, part: str, parameter: str, value: str) -> str | None:
    """What a path names, as the events of its changes call it; None where that can't be told."""
    if parameter in _BY_NUMBER:
        return None
    if part == "features":
        # A feature flag is a setting.
        return features.PREFIX + value
    if _KINDS[part] != "token":
        return value
    if _ID.fullmatch(value):
        row = plane.database.one("SELECT display FROM rk_token WHERE id = ?", (value,))
        return row[0] if row else None
    return display_form(value) if looks_like_token(value) else None


def _all_shown(name: str, value: str | Sequence[str]) -> str | Secret | list[str | Secret]:
    if isinstance(value, str):
        return _shown(name, value)
    more = [f"… and {len(value) - _MOST_NAMED} more"] if len(value) > _MOST_NAMED else []
    return [*(_shown(name, each) for each in value[:_MOST_NAMED]), *more]


def _shown(name: str, value: str) -> str | Secret:
    if name in _CREDENTIALS and not _ID.fullmatch(value):
        return Secret(value)
    cut = value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut)
