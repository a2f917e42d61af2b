"""The role that new accounts get: the setting ``default_role``."""

from __future__ import annotations

import logging
from typing import NamedTuple

from common.core.delegation import check_may_change_default, is_administrative, missing_to_act_on
from common.core.errors import GivesMoreThanHeld
from common.core.permissions import MEMBER, RoleGraph, Standing
from common.models.role import RoleHolder
from common.services import accounts
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.services.principal import Principal

log = logging.getLogger(__name__)


class _Default(NamedTuple):
    """The role that the setting names, as it stands; without an id where none is given, for the reason beside."""

    graph: RoleGraph
    name: str
    role_id: str | None
    why_none: str = ""


def lock(plane: Plane) -> bool:
    """In a transaction that makes an account, before any other lock: nobody deletes or changes the role meanwhile.

    Whether there is a default role, for ``give``: one that is set later than this is for whoever comes later.
    """
    has_default = bool(plane.variables.text("default_role"))
    if has_default:
        plane.database.lock("roles")
    return has_default


def give(plane: Plane, actor: Principal | None, account: AccountRow, *, has_default: bool) -> str | None:
    """Give a new account the default role, in the running transaction; its name, or None where there is none to give.

    An administrative role counts only while a superuser is who made it the default. ``actor`` is the administrator who
    makes the account, None for a registration. Raises GivesMoreThanHeld when the role holds administrative permissions
    that the actor lacks.
    """
    if not has_default:
        return None
    default = _default(plane)
    if default.role_id is None:
        log.warning("a new account gets no role: %s (setting default_role)", default.why_none)
        return None
    graph, role_id, name = default.graph, default.role_id, default.name
    standing = graph.standing([role_id])
    missing = missing_to_act_on(actor.standing, standing) if actor is not None else []
    if missing:
        raise GivesMoreThanHeld(
            f"New accounts get the role '{name}' (setting default_role), which holds what you do not: "
            f"{', '.join(missing)}.",
            missing,
        )
    if graph.name_of(role_id) == MEMBER:
        return None
    plane.database.insert(
        RoleHolder,
        user_id=account.id,
        role_id=role_id,
        granted_by=actor.user_id if actor is not None else None,
        granted_at=plane.now_ms(),
    )
    return graph.name_of(role_id)


def refuse_to_widen(plane: Plane, actor: Standing, before: RoleGraph, after: RoleGraph) -> None:
    """In a transaction that changes roles: raises as ``check_may_change_default``."""
    stored = plane.variables.stored().get("default_role")
    if stored is not None:
        check_may_change_default(actor, before, after, stored.text)


def administers(plane: Plane) -> bool:
    """Whether a new account holds an administrative permission from the start, so that its password must be as long."""
    if not plane.variables.text("default_role"):
        return False
    default = _default(plane)
    return default.role_id is not None and is_administrative(default.graph.standing([default.role_id]))


def _default(plane: Plane) -> _Default:
    stored = plane.variables.stored().get("default_role")
    name = stored.text if stored is not None else ""
    graph = accounts.role_graph(plane)
    role_id = graph.id_of(name) if name.isascii() else None
    if not name or role_id is None:
        return _Default(graph, name, None, f"there is no role {name!r}")
    standing = graph.standing([role_id])
    if is_administrative(standing) and (standing.is_superuser or stored is None or not stored.by_superuser):
        return _Default(graph, name, None, f"{name!r} is administrative, and no superuser made it the default")
    return _Default(graph, name, role_id)
