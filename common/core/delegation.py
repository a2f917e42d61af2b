"""Who may give what, and act on whom: nobody gives more than they hold or acts on someone who holds more."""

from __future__ import annotations

from common.core.errors import GivesMoreThanHeld
from common.core.permissions import ADMINISTRATIVE_PERMISSIONS, SUPERUSER, Permission, Standing


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


def _missing(actor: Standing, wanted: frozenset[Permission], wants_superuser: bool) -> list[str]:
    if actor.is_superuser:
        return []
    missing = [str(permission) for permission in sorted(wanted - actor.permissions)]
    return [*missing, SUPERUSER] if wants_superuser else missing
