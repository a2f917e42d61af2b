"""Which roles an account holds, and who may give and take them.

The role ``superuser`` and the flag ``is_superuser`` are one fact: giving, taking and replacing roles writes the flag,
and no row says it a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from common.core.audit_tags import EventTag
from common.core.delegation import check_may_reassign
from common.core.errors import BadField
from common.core.names import parse_role_name
from common.core.permissions import MAX_NAMED, SUPERUSER, RoleGraph
from common.models.base import rfc3339
from common.models.role import RoleHolder
from common.services import accounts, audit, role_effects, users
from common.services.plane import Plane
from common.services.principal import Principal
from common.services.role_rules import alone, id_of

# What is held and what is named, as ids; gives what is held then.
_Change = Callable[[Sequence[str], Sequence[str]], list[str]]


def user_roles(plane: Plane, email: str) -> dict[str, Any]:
    """The roles that count for an account, oldest first: ``{email, roles: [{role_name, granted_by, granted_at}]}``.

    ``granted_by`` is an e-mail; both are None for ``superuser``, which is a flag, and ``member``, which is what is held
    without any role. Raises UserNotFound.
    """
    account = accounts.get(plane, email)
    graph = accounts.role_graph(plane)
    rows = plane.database.all(
        "SELECT h.role_id, g.email, h.granted_at FROM rk_user_role h LEFT JOIN user g ON g.id = h.granted_by "
        "WHERE h.user_id = ? ORDER BY h.granted_at, h.role_id",
        (account.id,),
    )
    given = {role_id: (by, at) for role_id, by, at in rows}
    listed = [
        {"role_name": graph.name_of(role_id), "granted_by": by, "granted_at": rfc3339(at)}
        for role_id in graph.account_roles(list(given), account.is_superuser)
        for by, at in [given.get(role_id, (None, None))]
    ]
    return {"email": account.email, "roles": listed}


def update_user_role(
    plane: Plane, actor: Principal, email: str, role_name: str, *, dry_run: bool = False
) -> dict[str, Any]:
    """Replace all roles of an account, the superuser flag included, by this one; returns ``{email, role_name}``.

    With ``dry_run`` nothing changes, and what would is returned (``role_effects``). Raises BadField, UserNotFound,
    RoleNotFound; NotOnYourself for a superuser who would demote themselves; LastSuperuser; GivesMoreThanHeld when the
    role, or the account, holds more than the actor.
    """
    name = parse_role_name(role_name)
    done = _change(plane, actor, email, [name], lambda held, named: list(named), all_given=True, dry_run=dry_run)
    return done if dry_run else {"email": done["email"], "role_name": name}


def add_user_roles(
    plane: Plane, actor: Principal, email: str, role_names: Sequence[str], *, dry_run: bool = False
) -> dict[str, Any]:
    """Give an account further roles; returns ``{email, roles}``, all that count for it then.

    Whoever held none was a member, and is one no more unless that role is given too. ``dry_run`` and errors as in
    ``update_user_role``.
    """
    names = _parsed(role_names)
    return _change(plane, actor, email, names, lambda held, named: [*held, *named], all_given=True, dry_run=dry_run)


def remove_user_roles(
    plane: Plane, actor: Principal, email: str, role_names: Sequence[str], *, dry_run: bool = False
) -> dict[str, Any]:
    """Take roles from an account; what it did not hold is passed over. Returns ``{email, roles}``.

    Whoever holds none afterwards is a member. ``dry_run`` and errors as in ``update_user_role``: also for becoming a
    member, if that is more than was held and than the actor may give.
    """
    names = _parsed(role_names)

    def without(held: Sequence[str], named: Sequence[str]) -> list[str]:
        return [each for each in held if each not in named]

    return _change(plane, actor, email, names, without, all_given=False, dry_run=dry_run)


def _parsed(role_names: Sequence[str]) -> list[str]:
    if not 0 < len(role_names) <= MAX_NAMED:
        raise BadField(f"roles: name 1 to {MAX_NAMED} roles.", field="roles")
    return list(dict.fromkeys(parse_role_name(name, field="roles") for name in role_names))


def _change(
    plane: Plane,
    actor: Principal,
    email: str,
    names: Sequence[str],
    change: _Change,
    *,
    all_given: bool,
    dry_run: bool,
) -> dict[str, Any]:
    """``all_given`` says that every role that is named is given, and so must be the actor's to give."""
    with alone(plane) as graph:
        # Before anything is read that the count of superusers depends on.
        plane.database.lock("superusers")
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        named = [id_of(graph, name) for name in names]
        assigned = accounts.held_roles(plane, account.id)
        superuser_id = id_of(graph, SUPERUSER)
        held = [*([superuser_id] if account.is_superuser else []), *assigned]
        then = list(dict.fromkeys(change(held, named)))
        before = graph.standing(assigned, account.is_superuser)
        after = graph.standing([each for each in then if each != superuser_id], superuser_id in then)
        given, on_oneself = graph.standing(named) if all_given else None, actor.user_id == account.id
        check_may_reassign(actor.standing, before, after, given, on_oneself=on_oneself)
        if dry_run:
            if superuser_id not in then:
                accounts.keep_a_superuser(plane, account)
            return role_effects.of_account(account.email, before.permissions, after.permissions)
        if then != held:
            _write(plane, actor, graph, account, held, then)
        return {"email": account.email, "roles": _names(graph, then)}


def _names(graph: RoleGraph, role_ids: Sequence[str]) -> list[str]:
    return [graph.name_of(role_id) for role_id in graph.account_roles(role_ids, False)]


def _write(
    plane: Plane,
    actor: Principal,
    graph: RoleGraph,
    account: accounts.AccountRow,
    held: Collection[str],
    then: Sequence[str],
) -> None:
    audit.record(
        plane,
        EventTag.USER_ROLE,
        actor,
        target=account.target,
        before={"roles": _names(graph, list(held))},
        after={"roles": _names(graph, then)},
    )
    superuser_id = id_of(graph, SUPERUSER)
    if account.is_superuser != (superuser_id in then):
        users.set_superuser(plane, actor, account, superuser_id in then)
    gone = [each for each in held if each not in then and each != superuser_id]
    if gone:
        plane.database.execute(
            RoleHolder.delete().where((RoleHolder.user_id == account.id) & RoleHolder.role_id.in_(gone))
        )
    last = plane.database.one("SELECT MAX(granted_at) FROM rk_user_role WHERE user_id = ?", (account.id,))
    # A moment for each, so that the first role stays the first.
    at = max(plane.now_ms(), ((last and last[0]) or 0) + 1)
    given = [
        {"user_id": account.id, "role_id": role_id, "granted_by": actor.user_id, "granted_at": at + place}
        for place, role_id in enumerate(each for each in then if each not in held and each != superuser_id)
    ]
    if given:
        plane.database.execute(RoleHolder.insert_many(given))
