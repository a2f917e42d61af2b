"""The members of a tenant: listed, added, given another role, removed."""

from __future__ import annotations

from typing import Any, Literal

from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.emails import email_key
from common.core.errors import BadField, MemberNotFound
from common.models.base import http_date
from common.services import accounts, audit, invitations, memberships, tenant_limits
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.services.principal import Principal

Role = Literal["owner", "normal", "invite"]

_INVITED = """
    FROM rk_invitation i LEFT JOIN rk_account a ON a.email_key = i.email_key
    LEFT JOIN user_tenant x ON x.user_id = a.user_id AND x.tenant_id = i.tenant_id AND x.status = '1'
    LEFT JOIN rk_membership c ON c.user_id = a.user_id AND c.tenant_id = i.tenant_id
"""
_UNCLAIMED = f"{_INVITED} WHERE i.tenant_id = ? AND i.expires_at > ? AND x.id IS NULL AND c.user_id IS NULL"
# Memberships of existing accounts. Parameters: tenant, invited since. MySQL, which alone reads the comment in it, may
# want to look for a page of one tenant among all memberships by id, which takes long where its own come late.
_ACCOUNTS = """
    SELECT m.id AS id, m.user_id AS user_id, m.role AS role, m.create_time AS since, u.nickname AS nickname,
        u.email AS email, u.avatar AS avatar, u.is_authenticated AS is_authenticated, u.is_active AS is_active,
        u.is_anonymous AS is_anonymous, u.is_superuser AS is_superuser, u.update_time AS update_time
    FROM user_tenant m /*! IGNORE INDEX (PRIMARY) */ JOIN user u ON u.id = m.user_id AND u.status = '1'
    WHERE m.tenant_id = ? AND m.status = '1' AND (m.role <> 'invite' OR m.create_time IS NULL OR m.create_time > ?)
"""
# Invitations of addresses that nobody has registered with, which go by their own id.
_ADDRESSES = "i.id, i.id, 'invite', i.created_at, '', i.email, NULL, '0', '0', '0', 0, i.created_at"
# Parameters: tenant, invited since, tenant, now.
_MEMBERS = f"{_ACCOUNTS} UNION ALL SELECT {_ADDRESSES} {_UNCLAIMED}"


def listed(plane: Plane, tenant_id: str) -> list[dict[str, Any]]:
    """Everybody but the owners, as RAGFlow's team page reads them, pending invitations too.

    Items: ``{id, user_id, status, role, nickname, email, avatar, is_authenticated, is_active, is_anonymous,
    is_superuser, update_date, delta_seconds}``; ``delta_seconds`` are those since the account was last changed.
    """
    rows = plane.database.all(
        f"SELECT * FROM ({_MEMBERS}) AS members WHERE role <> 'owner' ORDER BY since, id",
        _params(plane, tenant_id),
    )
    return memberships.strongest([_shown(plane, row) for row in rows], "user_id")


def page(plane: Plane, tenant_id: str, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """A page of everybody, owners too: ``{users, next_cursor}``. Raises TenantNotFound, BadField.

    Accounts come first, then addresses, each by id; a page with some of the latter may have less than ``limit``.
    """
    memberships.require(plane, tenant_id)
    addresses_only, after = decode_cursor(cursor, (int, str)) if cursor is not None else (0, "")
    accounts_shown: list[tuple[Any, ...]] = []
    if not addresses_only:
        rows = plane.database.all(
            f"{_ACCOUNTS} AND m.id > ? ORDER BY m.id LIMIT ?",
            (tenant_id, memberships.invited_since(plane), after, limit + 1),
        )
        accounts_shown, after = rows[:limit], ""
        if len(rows) > limit:
            users = [_shown(plane, row) for row in accounts_shown]
            return {"users": users, "next_cursor": encode_cursor([0, users[-1]["id"]])}
    addresses, next_after = _addresses(plane, tenant_id, after, limit - len(accounts_shown))
    return {
        "users": [_shown(plane, row) for row in (*accounts_shown, *addresses)],
        "next_cursor": None if next_after is None else encode_cursor([1, next_after]),
    }


def _addresses(plane: Plane, tenant_id: str, after: str, limit: int) -> tuple[list[tuple[Any, ...]], str | None]:
    """What stands of ``limit`` pending invitations among the members, and the id to go on after, if there are more.

    Those of accounts are left out: they stand there as memberships.
    """
    rows = plane.database.all(
        f"SELECT {_ADDRESSES}, COALESCE(x.id, c.user_id) {_INVITED} "
        "WHERE i.tenant_id = ? AND i.expires_at > ? AND i.id > ? ORDER BY i.id LIMIT ?",
        (tenant_id, plane.now_ms(), after, limit + 1),
    )
    next_after = None if len(rows) <= limit else rows[limit - 1][0] if limit else after
    return [row for row in rows[:limit] if row[-1] is None], next_after


def remove(plane: Plane, who: Principal, tenant_id: str, user_id: str) -> None:
    """As owner remove a member or withdraw an invitation; as anybody leave, or refuse to join.

    ``user_id`` may be an invitation's id. Nothing happens when there is nobody of that id. Raises NotYourTenant, and
    OwnerStays for oneself as owner.
    """
    with plane.database.transaction():
        memberships.lock(plane)
        account = accounts.by_id(plane, user_id)
        # By the id of the row: MySQL finds it under other spellings too.
        if account is not None and account.id == who.user_id:
            memberships.require_reach(who, tenant_id)
            memberships.refuse_to_leave_as_owner(plane, tenant_id, account.id)
        else:
            memberships.require_role(plane, who, tenant_id, ("owner",))
        if account is not None:
            _remove(plane, who, tenant_id, account)
        elif not invitations.withdraw(plane, who, tenant_id, user_id):
            # A membership of an account that RAGFlow has deleted.
            memberships.remove(plane, tenant_id, user_id)


def add_as_admin(plane: Plane, actor: Principal, tenant_id: str, email: str, role: Role) -> dict[str, Any]:
    """Make an account member or owner at once, or invite an address; returns ``{id, avatar, email, nickname}``.

    Raises TenantNotFound, UserNotFound (but for an invitation), AlreadyMember, BadField, LimitReached, and
    GivesMoreThanHeld when the account or an owner of the tenant holds more than the actor.
    """
    with memberships.administering(plane, actor, tenant_id) as actor:
        if role == "invite":
            return invitations.place(plane, actor, tenant_id, email)
        account = accounts.get(plane, email)
        accounts.refuse_to_act_on_superiors(plane, actor, account)
        if memberships.role_in(plane, account.id, tenant_id) in (None, "invite"):
            tenant_limits.make_sure_of_room(plane, tenant_id, "members")
        if memberships.role_in(plane, account.id, tenant_id) == "invite":
            memberships.remove(plane, tenant_id, account.id)
        memberships.add(
            plane, tenant_id=tenant_id, user_id=account.id, role=role, invited_by=actor.user_id or account.id
        )
        invitations.forget(plane, tenant_id, account.email)
        _record(plane, EventTag.TENANT_MEMBER_ADD, actor, tenant_id, account, after=role)
        return invitations.invited(plane, account)


def change_as_admin(plane: Plane, actor: Principal, tenant_id: str, whom: str, role: Role) -> bool:
    """Give a member (``whom``: e-mail or id) the role ``owner`` or ``normal``; returns whether that changed anything.

    Raises TenantNotFound, MemberNotFound, OwnerStays, BadField, GivesMoreThanHeld.
    """
    if role == "invite":
        raise BadField("role: must be owner or normal.", field="role")
    with memberships.administering(plane, actor, tenant_id) as actor:
        account = _member(plane, tenant_id, whom)
        accounts.refuse_to_act_on_superiors(plane, actor, account)
        before = memberships.role_in(plane, account.id, tenant_id)
        if before == role:
            return False
        if before == "invite":
            tenant_limits.make_sure_of_room(plane, tenant_id, "members")
        memberships.set_role(plane, tenant_id, account.id, role)
        invitations.forget(plane, tenant_id, account.email)
        _record(plane, EventTag.TENANT_MEMBER_UPDATE, actor, tenant_id, account, before=before, after=role)
        return True


def remove_as_admin(plane: Plane, actor: Principal, tenant_id: str, whom: str) -> None:
    """Remove a member or withdraw an invitation (``whom``: e-mail, or id of either).

    Raises TenantNotFound, MemberNotFound, OwnerStays, GivesMoreThanHeld.
    """
    with memberships.administering(plane, actor, tenant_id) as actor:
        invitation = plane.database.one(
            f"SELECT i.id {_UNCLAIMED} AND (i.id = ? OR i.email_key = ?)",
            (tenant_id, plane.now_ms(), whom, email_key(whom)),
        )
        if invitation is not None:
            invitations.withdraw(plane, actor, tenant_id, invitation[0])
            return
        account = _member(plane, tenant_id, whom)
        accounts.refuse_to_act_on_superiors(plane, actor, account)
        _remove(plane, actor, tenant_id, account)


def _remove(plane: Plane, actor: Principal, tenant_id: str, account: AccountRow) -> None:
    role = memberships.role_in(plane, account.id, tenant_id)
    memberships.remove(plane, tenant_id, account.id)
    invitations.forget(plane, tenant_id, account.email)
    if role == "invite":
        by_oneself = actor.user_id == account.id
        tag = EventTag.TENANT_REFUSE if by_oneself else EventTag.TENANT_INVITE_WITHDRAW
        _record(plane, tag, actor, tenant_id, account, before=role)
    elif role is not None:
        _record(plane, EventTag.TENANT_MEMBER_REMOVE, actor, tenant_id, account, before=role)


def _member(plane: Plane, tenant_id: str, whom: str) -> AccountRow:
    account = accounts.find(plane, whom) if "@" in whom else accounts.by_id(plane, whom)
    if account is None or memberships.role_in(plane, account.id, tenant_id) is None:
        raise MemberNotFound(whom)
    return account


def _record(
    plane: Plane,
    tag: EventTag,
    actor: Principal,
    tenant_id: str,
    account: AccountRow,
    *,
    before: str | None = None,
    after: str | None = None,
) -> None:
    audit.record(
        plane,
        tag,
        actor,
        target=("tenant", tenant_id),
        before={"email": account.email, "role": before} if before else None,
        after={"email": account.email, "role": after} if after else None,
    )


def _params(plane: Plane, tenant_id: str) -> tuple[Any, ...]:
    return (tenant_id, memberships.invited_since(plane), tenant_id, plane.now_ms())


def _shown(plane: Plane, row: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "id": row[0],
        "user_id": row[1],
        "status": "1",
        "role": row[2],
        "nickname": row[4],
        "email": row[5],
        "avatar": row[6],
        "is_authenticated": row[7],
        "is_active": row[8],
        "is_anonymous": row[9],
        "is_superuser": bool(row[10]),
        "update_date": http_date(row[11]),
        "delta_seconds": seconds_since(plane, row[11]),
    }


def seconds_since(plane: Plane, at_ms: int | None) -> float:
    """Seconds from a moment to now; 0 where no moment is known."""
    return 0.0 if at_ms is None else (plane.now_ms() - at_ms) / 1000
