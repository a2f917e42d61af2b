"""What a change of roles would do: which roles and which accounts gain and lose what. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from common.core.permissions import Permission, RoleGraph
from common.services.plane import Plane

#: Roles that are looked at, in the order of their distance from the one that is changed.
MOST_ROLES = 1000
#: Roles, and accounts, that are named.
NAMED = 50


class Move(NamedTuple):
    """Whoever holds one role is to hold another one instead; ids."""

    role_id: str
    instead_id: str


def of_roles(
    plane: Plane, before: RoleGraph, after: RoleGraph, role_id: str, move: Move | None = None
) -> dict[str, Any]:
    """``{dry_run, roles, role_count, users, user_count, complete}`` of a change of one role.

    Items: ``{role_name, gains, loses}`` and ``{email, gains, loses}``, the first NAMED of each; permissions as
    ``resource:action``. ``user_count`` is how many hold a role that gains or loses. ``complete`` is False where more
    heirs than MOST_ROLES were to be looked at, or more accounts hold such a role than are named.
    """
    reached = list(dict.fromkeys((role_id, *before.heirs_of(role_id), *after.heirs_of(role_id))))
    looked_at = reached[:MOST_ROLES]
    changed = [
        (each, *_change(before.effective([each]), after.effective([each])))
        for each in looked_at
        if before.effective([each]) != after.effective([each]) or (move is not None and each == move.role_id)
    ]
    users, user_count = _users(plane, before, after, [each for each, _, _ in changed], move)
    return {
        "dry_run": True,
        "roles": [
            {"role_name": _name(before, after, each), "gains": gains, "loses": loses}
            for each, gains, loses in changed[:NAMED]
        ],
        "role_count": len(changed),
        "users": users,
        "user_count": user_count,
        "complete": len(looked_at) == len(reached) and len(changed) <= NAMED and user_count <= NAMED,
    }


def of_account(email: str, before: Iterable[Permission], after: Iterable[Permission]) -> dict[str, Any]:
    """The same of a change of one account's roles."""
    gains, loses = _change(frozenset(before), frozenset(after))
    users = [{"email": email, "gains": gains, "loses": loses}] if gains or loses else []
    return {
        "dry_run": True, "roles": [], "role_count": 0, "users": users, "user_count": len(users), "complete": True,
    }  # fmt: skip


def _users(
    plane: Plane, before: RoleGraph, after: RoleGraph, role_ids: Sequence[str], move: Move | None
) -> tuple[list[dict[str, Any]], int]:
    if not role_ids:
        return [], 0
    those = f"""
        FROM rk_user_role h JOIN user u ON u.id = h.user_id
        WHERE h.role_id IN ({_marks(role_ids)}) AND u.status = '1'
    """
    counted = plane.database.one(f"SELECT COUNT(DISTINCT h.user_id) {those}", role_ids)
    rows = plane.database.all(
        f"SELECT DISTINCT u.id, u.email, u.is_superuser {those} ORDER BY u.id LIMIT ?", (*role_ids, NAMED)
    )
    held: dict[str, list[str]] = {user_id: [] for user_id, _, _ in rows}
    if held:
        for user_id, role_id in plane.database.all(
            f"SELECT user_id, role_id FROM rk_user_role WHERE user_id IN ({_marks(held)})", list(held)
        ):
            held[user_id].append(role_id)
    users = []
    for user_id, email, is_superuser in rows:
        then = [move.instead_id if move is not None and each == move.role_id else each for each in held[user_id]]
        gains, loses = _change(
            before.standing(held[user_id], bool(is_superuser)).permissions,
            after.standing(then, bool(is_superuser)).permissions,
        )
        if gains or loses:
            users.append({"email": email, "gains": gains, "loses": loses})
    return users, counted[0] if counted else 0


def _name(before: RoleGraph, after: RoleGraph, role_id: str) -> str:
    name = before.name_of(role_id)
    return after.name_of(role_id) if name == role_id else name


def _change(before: frozenset[Permission], after: frozenset[Permission]) -> tuple[list[str], list[str]]:
    return [str(each) for each in sorted(after - before)], [str(each) for each in sorted(before - after)]


def _marks(values: Iterable[object]) -> str:
    return ", ".join("?" for _ in values)
