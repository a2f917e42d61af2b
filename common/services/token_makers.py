"""Who made a token for somebody else, and so has its value: it is dead while they may not act on its account.

Else whoever makes a token for an account that is nobody yet would be what that account becomes.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.core.delegation import missing_to_act_on
from common.core.permissions import RoleGraph, Standing
from common.services.plane import Plane
from common.services.principal import Principal

_SEPARATOR = ","
# Who is gone or switched off holds nothing.
_NOTHING = Standing(frozenset(), False)


def of_new(actor: Principal, user_id: str) -> tuple[str, ...]:
    """The accounts that have the value of a token which the actor makes for the account ``user_id``, but for that one.

    With a token that somebody else made they are the makers of that one, too: they could have shown it.
    """
    having = (*actor.makers, actor.user_id)
    return tuple(dict.fromkeys(each for each in having if each is not None and each != user_id))


def stored(makers: Sequence[str]) -> str | None:
    """The form in which ``makers_of`` reads them; None for nobody."""
    return _SEPARATOR.join(makers) or None


def makers_of(made_by: str | None) -> tuple[str, ...]:
    """The ids of the accounts that stand stored like this."""
    return tuple(made_by.split(_SEPARATOR)) if made_by else ()


def are_outranked(plane: Plane, graph: RoleGraph, makers: Sequence[str], account: Standing) -> bool:
    """Whether an account holds an administrative permission that one of its token's makers lacks now.

    Costs a statement only where a token has makers and its account holds such a permission.
    """
    if not makers or not missing_to_act_on(_NOTHING, account):
        return False
    held = _standings(plane, graph, makers)
    return any(missing_to_act_on(held.get(maker, _NOTHING), account) for maker in makers)


def _standings(plane: Plane, graph: RoleGraph, user_ids: Sequence[str]) -> dict[str, Standing]:
    """By its id what each of these accounts amounts to that may sign in."""
    marks = ", ".join("?" * len(user_ids))
    rows = plane.database.all(
        "SELECT u.id, u.is_superuser, (SELECT GROUP_CONCAT(h.role_id) FROM rk_user_role h WHERE h.user_id = u.id) "
        f"FROM user u WHERE u.is_active = '1' AND u.status = '1' AND u.id IN ({marks})",
        user_ids,
    )
    return {
        user_id: graph.standing(tuple(roles.split(",")) if roles else (), bool(is_superuser))
        for user_id, is_superuser, roles in rows
    }
