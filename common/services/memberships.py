"""Who belongs to a tenant in which role: the check behind every tenant that a request names, and the changes.

Every change stands in a transaction that holds ``lock``, so that what was read before it still holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from common.core.errors import AlreadyMember, NotYourTenant, OwnerStays, TenantNotFound
from common.models.base import touched
from common.models.tenant import UserTenant
from common.services import accounts, retired_tokens
from common.services.plane import Plane
from common.services.principal import Principal
from common.services.retired_tokens import Retired

# A pending invitation counts for seven days.
INVITATION_MS = 7 * 24 * 3600 * 1000
STRENGTH = ("owner", "admin", "normal", "invite")


def role_in(plane: Plane, user_id: str | None, tenant_id: str) -> str | None:
    """``owner``, ``normal``, ``invite``, or None when there is no membership; an expired invitation is none.

    RAGFlow's tables may hold double rows; the strongest counts.
    """
    return _strongest(plane, [row[:2] for row in _rows_in(plane, user_id, tenant_id)])


def _rows_in(plane: Plane, user_id: str | None, tenant_id: str) -> list[tuple[str, int | None, str]]:
    """Role, creation and tenant of the rows of a membership; MySQL finds a tenant under other spellings, too."""
    return plane.database.all(
        "SELECT role, create_time, tenant_id FROM user_tenant WHERE tenant_id = ? AND user_id = ? AND status = '1'",
        (tenant_id, user_id),
    )


def _strongest(plane: Plane, rows: Iterable[tuple[str, int | None]]) -> str | None:
    since = invited_since(plane)
    roles = {role for role, at in rows if role != "invite" or at is None or at > since}
    return next((role for role in STRENGTH if role in roles), None)


def invited_since(plane: Plane) -> int:
    """An invitation that was made at this moment (UTC milliseconds) or before has expired."""
    return plane.now_ms() - INVITATION_MS


def require_role(plane: Plane, who: Principal, tenant_id: str, roles: Collection[str]) -> None:
    """Raises NotYourTenant unless the caller has one of the roles there now; a token acts in its own tenant only.

    A tenant is named by its exact characters: what is written, or counts, under another spelling is nobody's.
    """
    require_reach(who, tenant_id)
    rows = _rows_in(plane, who.user_id, tenant_id)
    if _strongest(plane, [row[:2] for row in rows if row[2] == tenant_id]) not in roles:
        raise NotYourTenant


def require_reach(who: Principal, tenant_id: str) -> None:
    """Raises NotYourTenant for a token that was made for another tenant."""
    if who.session_id is None and tenant_id != who.tenant_id:
        raise NotYourTenant


def act_in(plane: Plane, who: Principal, tenant_id: str) -> Principal:
    """The caller acting in another tenant of theirs, named as in ``require_role``. Raises NotYourTenant."""
    require_reach(who, tenant_id)
    rows = plane.database.all(
        "SELECT m.role, m.create_time, m.tenant_id, l.requests_per_minute FROM user_tenant m "
        "LEFT JOIN rk_tenant_limit l ON l.tenant_id = m.tenant_id "
        "WHERE m.tenant_id = ? AND m.user_id = ? AND m.status = '1'",
        (tenant_id, who.user_id),
    )
    role = _strongest(plane, [row[:2] for row in rows if row[2] == tenant_id])
    if role not in ("owner", "normal"):
        raise NotYourTenant
    return replace(who, tenant_id=tenant_id, tenant_role=role, tenant_calls=rows[0][3])


def home_of(plane: Plane, user_id: str) -> str | None:
    """The tenant that an account owns and acts in by default: the one of its own id, else its oldest; or None."""
    row = plane.database.one(
        "SELECT tenant_id FROM user_tenant WHERE user_id = ? AND role = 'owner' AND status = '1' "
        "ORDER BY tenant_id <> user_id, create_time, tenant_id LIMIT 1",
        (user_id,),
    )
    return row[0] if row else None


def owners(plane: Plane, tenant_id: str) -> list[str]:
    """Ids of the existing accounts that own a tenant; the one whose home it is first, then the longest-standing."""
    rows = plane.database.all(
        "SELECT DISTINCT m.user_id, m.user_id <> m.tenant_id, m.create_time FROM user_tenant m "
        "JOIN user u ON u.id = m.user_id AND u.status = '1' "
        "WHERE m.tenant_id = ? AND m.role = 'owner' AND m.status = '1' ORDER BY 2, 3, 1",
        (tenant_id,),
    )
    return list(dict.fromkeys(user_id for user_id, _, _ in rows))


def lock(plane: Plane) -> None:
    """Within a transaction: wait for every other change of memberships."""
    plane.database.lock("tenants")


def require(plane: Plane, tenant_id: str) -> None:
    """Raises TenantNotFound, also for another spelling of one that there is."""
    if plane.database.one("SELECT id FROM tenant WHERE id = ?", (tenant_id,)) != (tenant_id,):
        raise TenantNotFound


@contextmanager
def administering(plane: Plane, actor: Principal, tenant_id: str) -> Iterator[Principal]:
    """A transaction in which an administrator may change what is the tenant's; gives the actor as it is now.

    Whoever owns a tenant makes tokens that RAGFlow takes for its home user, so changing a superior's tenant is acting
    on the superior. Raises TenantNotFound, NotSignedIn, GivesMoreThanHeld.
    """
    with plane.database.transaction():
        # Owners are not held: what the actor is measured with must not change before they have been looked at.
        plane.database.lock("roles")
        lock(plane)
        actor = accounts.acting_now(plane, actor)
        require(plane, tenant_id)
        for owner_id in owners(plane, tenant_id):
            owner = accounts.by_id(plane, owner_id)
            if owner is not None:
                accounts.refuse_to_act_on_superiors(plane, actor, owner)
        yield actor


def add(plane: Plane, *, tenant_id: str, user_id: str, role: str, invited_by: str, at_ms: int | None = None) -> str:
    """Add a membership that counts from ``at_ms`` (now, if None), in place of an expired invitation; returns its id.

    Raises AlreadyMember, also for a pending invitation.
    """
    current = role_in(plane, user_id, tenant_id)
    if current is not None:
        raise AlreadyMember(_already(current))
    # What is left: an expired invitation, or a claim whose row RAGFlow has deleted.
    _delete_rows(plane, tenant_id, user_id)
    return accounts.add_membership(
        plane, tenant_id=tenant_id, user_id=user_id, role=role, invited_by=invited_by, at_ms=at_ms
    )


def set_role(plane: Plane, tenant_id: str, user_id: str, role: str) -> None:
    """Give a member another role; whoever stops being an owner loses their tokens there. Raises OwnerStays."""
    if role != "owner" and role_in(plane, user_id, tenant_id) == "owner":
        _keep_an_owner(plane, tenant_id, user_id)
        _delete_tokens(plane, tenant_id, user_id)
    stamps = touched(plane.now_ms(), plane.zone)
    plane.database.execute(
        UserTenant.update(role=role, **stamps).where(
            (UserTenant.tenant_id == tenant_id) & (UserTenant.user_id == user_id) & (UserTenant.status == "1")
        )
    )


def remove(plane: Plane, tenant_id: str, user_id: str) -> None:
    """End a membership or an invitation; an owner's tokens there go with it. Raises OwnerStays."""
    if role_in(plane, user_id, tenant_id) == "owner":
        _keep_an_owner(plane, tenant_id, user_id)
        _delete_tokens(plane, tenant_id, user_id)
    _delete_rows(plane, tenant_id, user_id)


def remove_expired_invitation(plane: Plane, tenant_id: str, user_id: str) -> None:
    """Delete what stands of an invitation that has expired; one that RAGFlow accepts or makes just now stays."""
    plane.database.run(
        "DELETE FROM user_tenant WHERE tenant_id = ? AND user_id = ? AND role = 'invite' AND create_time <= ?",
        (tenant_id, user_id, invited_since(plane)),
    )
    plane.database.run(
        "DELETE FROM rk_membership WHERE tenant_id = ? AND user_id = ? AND NOT EXISTS (SELECT 1 FROM user_tenant m "
        "WHERE m.tenant_id = rk_membership.tenant_id AND m.user_id = rk_membership.user_id)",
        (tenant_id, user_id),
    )


def refuse_to_leave_as_owner(plane: Plane, tenant_id: str, user_id: str) -> None:
    """Raises OwnerStays for an owner: nobody gives a tenant up by leaving it."""
    if role_in(plane, user_id, tenant_id) == "owner":
        raise OwnerStays("An owner can't leave the tenant.")


def _keep_an_owner(plane: Plane, tenant_id: str, user_id: str) -> None:
    if tenant_id == user_id:
        raise OwnerStays("This is the account's home tenant: it stays its owner.")
    if not [owner for owner in owners(plane, tenant_id) if owner != user_id]:
        raise OwnerStays("This is the tenant's last owner: make another one first.")


def delete_doubles(plane: Plane, tenant_id: str, user_id: str) -> None:
    """Of several rows of one membership keep the one with the strongest role."""
    rows = plane.database.all(
        "SELECT id, role FROM user_tenant WHERE tenant_id = ? AND user_id = ? AND status = '1' ORDER BY id",
        (tenant_id, user_id),
    )
    for row_id, _ in sorted(rows, key=lambda row: _rank(row[1]))[1:]:
        plane.database.run("DELETE FROM user_tenant WHERE id = ?", (row_id,))


def _delete_rows(plane: Plane, tenant_id: str, user_id: str) -> None:
    for table in ("user_tenant", "rk_membership"):
        plane.database.run(f"DELETE FROM {table} WHERE tenant_id = ? AND user_id = ?", (tenant_id, user_id))


def _delete_tokens(plane: Plane, tenant_id: str, user_id: str) -> None:
    """A token acts for its maker; were they to own the tenant again some day, it would come back to life."""
    made = plane.database.all(
        "SELECT stored, id FROM rk_token WHERE tenant_id = ? AND user_id = ?", (tenant_id, user_id)
    )
    plane.database.run(
        "DELETE FROM api_token WHERE tenant_id = ? AND token IN "
        "(SELECT stored FROM rk_token WHERE tenant_id = ? AND user_id = ?)",
        (tenant_id, tenant_id, user_id),
    )
    plane.database.run("DELETE FROM rk_token WHERE tenant_id = ? AND user_id = ?", (tenant_id, user_id))
    reason = "its owner lost the tenant"
    gone = [Retired(stored, token_id, tenant_id, user_id, reason) for stored, token_id in made]
    retired_tokens.keep(plane.database, plane.now_ms(), gone)


def _already(role: str) -> str:
    return {
        "owner": "This user is the owner of the tenant.",
        "invite": "This user is invited already; the invitation is pending.",
    }.get(role, "This user is a member of the tenant already.")


def strongest(rows: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The rows with one for each value of ``key``: the one with the strongest role, in the place of the first."""
    kept: dict[Any, dict[str, Any]] = {}
    for row in rows:
        known = kept.get(row[key])
        if known is None or _rank(row["role"]) < _rank(known["role"]):
            kept[row[key]] = row
    return list(kept.values())


def _rank(role: str) -> int:
    return STRENGTH.index(role) if role in STRENGTH else len(STRENGTH)
