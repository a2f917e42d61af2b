"""Who may give what, and act on whom: nobody gives more than they hold or acts on someone who holds more."""

from __future__ import annotations

from common.core.errors import BadField, GivesMoreThanHeld, NotOnYourself, RoleImmutable
from common.core.permissions import (
    ADMINISTRATIVE_PERMISSIONS,
    ALL_PERMISSIONS,
    BUILT_IN_ROLES,
    SUPERUSER,
    Permission,
    RoleGraph,
    Standing,
)


def missing_to_give(actor: Standing, given: Standing) -> list[str]:
    """What the actor would have to hold besides to give this; empty when they may.

    ``resource:action`` in order, and ``superuser`` last where that is lacking: whoever holds every permission
    without being a superuser can't make one.
    """
    return _missing(actor, given.permissions, given.is_superuser)


def missing_to_act_on(actor: Standing, target: Standing) -> list[str]:
    """What the actor would have to hold besides to act on this account; empty when they may.

    Only administrative permissions rank one account above another.
    """
    return _missing(actor, target.permissions & ADMINISTRATIVE_PERMISSIONS, target.is_superuser)


def check_may_give(actor: Standing, given: Standing) -> None:
    """Raise GivesMoreThanHeld if the actor would give more than they hold."""
    missing = missing_to_give(actor, given)
    if missing:
        raise GivesMoreThanHeld(f"You can't give what you do not hold: {', '.join(missing)}.", missing)


def check_may_act_on(actor: Standing, target: Standing) -> None:
    """Raise GivesMoreThanHeld if the account holds an administrative permission that the actor doesn't."""
    missing = missing_to_act_on(actor, target)
    if missing:
        raise GivesMoreThanHeld(
            f"This account holds what you do not, so you can't act on it: {', '.join(missing)}.", missing
        )


def is_administrative(standing: Standing) -> bool:
    """Whether a role is none to be given to strangers unless a superuser says so."""
    return standing.is_superuser or not ADMINISTRATIVE_PERMISSIONS.isdisjoint(standing.permissions)


def check_may_make_default(actor: Standing, role: Standing) -> None:
    """Raise BadField for a superuser's role, and GivesMoreThanHeld if the actor may not give a role to all who come."""
    if role.is_superuser:
        raise BadField("default_role: not every new account can be a superuser.", field="default_role")
    check_may_give(actor, role)
    if is_administrative(role):
        check_may_give(actor, Standing(ALL_PERMISSIONS, True))


def of_newcomers(graph: RoleGraph, name: str) -> Standing:
    """What somebody who comes amounts to where this is the default role; a member where there is no such role."""
    role_id = graph.id_of(name) if name.isascii() else None
    return graph.standing([] if role_id is None else [role_id])


def check_may_change_default(actor: Standing, before: RoleGraph, after: RoleGraph, name: str) -> None:
    """Raise GivesMoreThanHeld if, by a change of roles, all who come would get more than the actor may give them.

    ``name`` is the default role, made and deleted like any other. Only a superuser lets it hold more that is
    administrative.
    """
    gained = of_newcomers(after, name).permissions - of_newcomers(before, name).permissions
    missing = missing_to_give(actor, Standing(gained, not ADMINISTRATIVE_PERMISSIONS.isdisjoint(gained)))
    if missing:
        raise GivesMoreThanHeld(
            f"New accounts get the role '{name}' (setting default_role), and would get by this what you can't give to "
            f"all who come: {', '.join(missing)}.",
            missing,
        )


def check_may_take_default(actor: Standing, graph: RoleGraph, name: str) -> None:
    """Raise GivesMoreThanHeld if all who come would get more than the actor holds where this is the default no more."""
    check_may_give(actor, Standing(of_newcomers(graph, "").permissions - of_newcomers(graph, name).permissions))


def check_may_edit(actor: Standing, graph: RoleGraph, role_id: str, *, reaches_heirs: bool) -> None:
    """Raise RoleImmutable, and GivesMoreThanHeld if what is to be changed holds more than the actor.

    What changes the permissions of a role changes those of its heirs, so these are asked about too.
    """
    if graph.name_of(role_id) in BUILT_IN_ROLES:
        raise RoleImmutable(graph.name_of(role_id))
    for changed_id in (role_id, *(graph.heirs_of(role_id) if reaches_heirs else ())):
        missing = missing_to_give(actor, graph.standing([changed_id]))
        if missing:
            raise GivesMoreThanHeld(
                f"You can't change this: role '{graph.name_of(changed_id)}' holds what you do not: "
                f"{', '.join(missing)}.",
                missing,
            )


def check_may_reassign(
    actor: Standing, before: Standing, after: Standing, given: Standing | None, *, on_oneself: bool
) -> None:
    """Judge a change of an account's roles from what it amounts to before to what it does after.

    ``given`` is what the roles that are named amount to, None where they are taken away. Raises GivesMoreThanHeld, and
    NotOnYourself for a superuser who would demote themselves.
    """
    # What is taken away may leave more than was held: whoever has no role at all is a member.
    gained = Standing(after.permissions - before.permissions, after.is_superuser and not before.is_superuser)
    check_may_give(actor, gained if given is None else given)
    if on_oneself and before.is_superuser and not after.is_superuser:
        raise NotOnYourself("You can't take the superuser's role from your own account.")


def _missing(actor: Standing, wanted: frozenset[Permission], wants_superuser: bool) -> list[str]:
    if actor.is_superuser:
        return []
    missing = [str(permission) for permission in sorted(wanted - actor.permissions)]
    return [*missing, SUPERUSER] if wants_superuser else missing
