"""Invitations to a tenant: by address, registered or not; pending for seven days, then as if they had never been.

``rk_invitation`` holds every invitation that was made here. One to an account also stands in ``user_tenant`` with role
``invite``, where RAGFlow looks and writes too, and counts from that row's ``create_time``.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from common.core.audit_tags import EventTag
from common.core.emails import email_key, parse_email
from common.core.errors import AlreadyMember, BadEmail, BadField, NotInvited
from common.models.tenant import Invitation
from common.services import accounts, audit, jobs, limits, mail, memberships, tenant_limits
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.services.principal import Principal


def invite(plane: Plane, who: Principal, tenant_id: str, email: str) -> dict[str, Any]:
    """Invite an address as normal member; returns ``{id, avatar, email, nickname}``.

    ``id`` is the account's, or the invitation's while nobody has registered with the address. A mail goes out where a
    mail server is configured. Raises NotYourTenant unless the caller owns the tenant, BadField, AlreadyMember, and
    LimitReached where the tenant has as many members as it may.
    """
    limits.invitation(plane, who)
    with plane.database.transaction():
        memberships.lock(plane)
        memberships.require_role(plane, who, tenant_id, ("owner",))
        return place(plane, who, tenant_id, email)


def place(plane: Plane, actor: Principal, tenant_id: str, email: str) -> dict[str, Any]:
    """``invite`` without asking who invites, within a transaction that holds the memberships' lock."""
    try:
        address = parse_email(email)
    except BadEmail as error:
        raise BadField(error.message, field="email") from error
    now = plane.now_ms()
    account = accounts.find(plane, address)
    if account is None:
        _refuse_if_pending(plane, tenant_id, address)
    else:
        memberships.add(
            plane,
            tenant_id=tenant_id,
            user_id=account.id,
            role="invite",
            invited_by=actor.user_id or account.id,
            at_ms=now,
        )
    tenant_limits.make_sure_of_room(plane, tenant_id, "members")
    forget(plane, tenant_id, address)
    invitation_id = uuid4().hex
    plane.database.insert(
        Invitation,
        id=invitation_id,
        tenant_id=tenant_id,
        email=address,
        email_key=email_key(address),
        role="normal",
        invited_by=actor.user_id or "",
        created_at=now,
        expires_at=now + memberships.INVITATION_MS,
    )
    if mail.is_configured(plane):
        jobs.enqueue(plane, mail.INVITATION, {"invitation_id": invitation_id})
    audit.record(plane, EventTag.TENANT_INVITE, actor, target=("tenant", tenant_id), after={"email": address})
    if account is None:
        return {"id": invitation_id, "avatar": None, "email": address, "nickname": ""}
    return invited(plane, account)


def agree(plane: Plane, who: Principal, tenant_id: str) -> None:
    """Accept the caller's pending invitation.

    Raises NotInvited when there is none, and for a member or owner, and LimitReached where there is no room any more.
    """
    with plane.database.transaction():
        memberships.lock(plane)
        memberships.require_reach(who, tenant_id)
        user_id = str(who.user_id)
        role = memberships.role_in(plane, user_id, tenant_id)
        if role is None:
            claim(plane, user_id, str(who.email), only_tenant=tenant_id)
            role = memberships.role_in(plane, user_id, tenant_id)
        if role != "invite":
            raise NotInvited("There is no pending invitation to this tenant.")
        tenant_limits.make_sure_of_room(plane, tenant_id, "members")
        memberships.set_role(plane, tenant_id, user_id, "normal")
        forget(plane, tenant_id, str(who.email))
        audit.record(plane, EventTag.TENANT_JOIN, who, target=("tenant", tenant_id), after={"role": "normal"})


def claim(plane: Plane, user_id: str, email: str, *, only_tenant: str | None = None) -> None:
    """Turn what is pending for an address into invitations of the account that has it now.

    A claim without a membership is one that RAGFlow has deleted: the invitation was refused or taken back there.
    Belongs into the transaction that makes the account, so that no invitation made meanwhile is missed.
    """
    memberships.lock(plane)
    rows = plane.database.all(
        "SELECT i.tenant_id, i.invited_by, i.created_at FROM rk_invitation i JOIN tenant t ON t.id = i.tenant_id "
        "WHERE i.email_key = ? AND i.expires_at > ? AND NOT EXISTS "
        "(SELECT 1 FROM rk_membership c WHERE c.tenant_id = i.tenant_id AND c.user_id = ?)",
        (email_key(email), plane.now_ms(), user_id),
    )
    for tenant_id, invited_by, created_at in rows:
        if only_tenant not in (None, tenant_id) or memberships.role_in(plane, user_id, tenant_id) is not None:
            continue
        memberships.add(
            plane,
            tenant_id=tenant_id,
            user_id=user_id,
            role="invite",
            invited_by=invited_by or user_id,
            at_ms=created_at,
        )


def deliver(plane: Plane, *, limit: int = 500) -> int:
    """Show RAGFlow the invitations of addresses that have registered there meanwhile; how many accounts that were."""
    rows = plane.database.all(
        "SELECT DISTINCT u.id, u.email FROM rk_invitation i JOIN rk_account a ON a.email_key = i.email_key "
        "JOIN user u ON u.id = a.user_id AND u.status = '1' JOIN tenant t ON t.id = i.tenant_id "
        "WHERE i.expires_at > ? AND NOT EXISTS "
        "(SELECT 1 FROM rk_membership c WHERE c.tenant_id = i.tenant_id AND c.user_id = a.user_id) AND NOT EXISTS "
        "(SELECT 1 FROM user_tenant m WHERE m.tenant_id = i.tenant_id AND m.user_id = a.user_id AND m.status = '1') "
        "LIMIT ?",
        (plane.now_ms(), limit),
    )
    for user_id, email in rows:
        with plane.database.transaction():
            claim(plane, user_id, email)
    return len(rows)


def withdraw(plane: Plane, actor: Principal, tenant_id: str, invitation_id: str) -> bool:
    """Take back an invitation by its id, in the running transaction; returns whether there was one."""
    row = plane.database.one(
        "SELECT email FROM rk_invitation WHERE id = ? AND tenant_id = ?", (invitation_id, tenant_id)
    )
    if row is None:
        return False
    account = accounts.find(plane, row[0])
    if account is not None and memberships.role_in(plane, account.id, tenant_id) in (None, "invite"):
        memberships.remove(plane, tenant_id, account.id)
    forget(plane, tenant_id, row[0])
    audit.record(plane, EventTag.TENANT_INVITE_WITHDRAW, actor, target=("tenant", tenant_id), before={"email": row[0]})
    return True


def forget(plane: Plane, tenant_id: str, email: str) -> None:
    """Delete what is noted of an invitation, pending or not, in the running transaction."""
    plane.database.run("DELETE FROM rk_invitation WHERE tenant_id = ? AND email_key = ?", (tenant_id, email_key(email)))


def prune(plane: Plane, *, limit: int = 1000) -> int:
    """Delete up to ``limit`` expired invitations, with what stands of them in ``user_tenant``; returns how many."""
    with plane.database.transaction():
        memberships.lock(plane)
        old = plane.database.all(
            "SELECT i.id, i.tenant_id, a.user_id FROM rk_invitation i "
            "LEFT JOIN rk_account a ON a.email_key = i.email_key WHERE i.expires_at <= ? LIMIT ?",
            (plane.now_ms(), limit),
        )
        for invitation_id, tenant_id, user_id in old:
            if user_id is not None and memberships.role_in(plane, user_id, tenant_id) is None:
                memberships.remove_expired_invitation(plane, tenant_id, user_id)
            plane.database.run("DELETE FROM rk_invitation WHERE id = ?", (invitation_id,))
    return len(old)


def _refuse_if_pending(plane: Plane, tenant_id: str, email: str) -> None:
    pending = plane.database.one(
        "SELECT 1 FROM rk_invitation WHERE tenant_id = ? AND email_key = ? AND expires_at > ?",
        (tenant_id, email_key(email), plane.now_ms()),
    )
    if pending is not None:
        raise AlreadyMember("This address is invited already; the invitation is pending.")


def invited(plane: Plane, account: AccountRow) -> dict[str, Any]:
    """An account as the answer to its invitation shows it: ``{id, avatar, email, nickname}``."""
    row = plane.database.one("SELECT avatar FROM user WHERE id = ?", (account.id,))
    avatar = row[0] if row else None
    return {"id": account.id, "avatar": avatar, "email": account.email, "nickname": account.nickname}
