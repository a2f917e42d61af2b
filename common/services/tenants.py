"""Tenants: those one belongs to, organisations that owners create, a tenant's models, and what administrators see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid1

from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.emails import email_key
from common.core.errors import TenantNotFound
from common.core.names import parse_tenant_name
from common.models.base import http_date, touched
from common.models.tenant import Tenant
from common.services import accounts, audit, memberships
from common.services.members import seconds_since
from common.services.plane import Plane
from common.services.principal import Principal

MODELS = ("llm_id", "embd_id", "asr_id", "img2txt_id", "rerank_id", "tts_id")
# What an owner may write of a tenant's row; everything else in a body is ignored.
CHANGEABLE = ("name", *MODELS)

# The owner that a tenant is shown with: the one whose home it is, else the longest-standing. The former is looked for
# by user: of MariaDB's indexes the one on the tenant may be read else, with every member.
_SHOWN_OWNER = """COALESCE((
    SELECT o.user_id FROM user_tenant o
    WHERE o.user_id = t.id AND COALESCE(o.tenant_id, '') = t.id AND o.role = 'owner' AND o.status = '1' LIMIT 1), (
    SELECT o.user_id FROM user_tenant o WHERE o.tenant_id = t.id AND o.role = 'owner' AND o.status = '1'
    ORDER BY o.create_time, o.user_id LIMIT 1))
"""
# Parameters: user, the key of the user's e-mail, user, the moment since which invitations count, user. An invitation
# whose claim has lost its membership was refused in RAGFlow.
_OWN = f"""
    SELECT t.id, m.role, t.name, u.nickname, u.email, u.avatar, u.update_time
    FROM (
        SELECT tenant_id, role, create_time FROM user_tenant WHERE user_id = ? AND status = '1'
        UNION ALL
        SELECT i.tenant_id, 'invite', i.created_at FROM rk_invitation i WHERE i.email_key = ? AND NOT EXISTS (
            SELECT 1 FROM rk_membership c WHERE c.tenant_id = i.tenant_id AND c.user_id = ?)
    ) AS m JOIN tenant t ON t.id = m.tenant_id LEFT JOIN user u ON u.id = {_SHOWN_OWNER}
    WHERE COALESCE(t.status, '1') = '1' AND (m.role <> 'invite' OR m.create_time IS NULL OR m.create_time > ?)
    ORDER BY t.id <> ?, m.create_time, t.id
"""
# Of a larger tenant a list doesn't count the members: one such tenant would cost more than the page.
COUNTED_IN_LISTS = 1000
# Parameter: the moment since which invitations count.
_COUNT = """(
    SELECT COUNT(DISTINCT c.user_id) FROM user_tenant c WHERE c.tenant_id = t.id AND c.status = '1' AND
    (c.role <> 'invite' OR c.create_time IS NULL OR c.create_time > ?))
"""
_COUNT_IN_LIST = f"""
    CASE WHEN (SELECT 1 FROM user_tenant c WHERE c.tenant_id = t.id LIMIT 1 OFFSET {COUNTED_IN_LISTS}) IS NULL
    THEN {_COUNT} END
"""
_TENANT = f"SELECT t.id, t.name, t.status, t.create_time, t.update_time, {_SHOWN_OWNER} AS owner_id, "


def own(plane: Plane, who: Principal) -> list[dict[str, Any]]:
    """The tenants that the caller owns, has joined or is invited to; the home tenant first.

    Items: ``{tenant_id, role, name, nickname, email, avatar, update_date, delta_seconds}``; all but the first three are
    of an owner, as RAGFlow has it.
    """
    return _of_account(plane, str(who.user_id), str(who.email))


def of_user(plane: Plane, email: str) -> list[dict[str, Any]]:
    """``own`` of any account. Raises UserNotFound."""
    account = accounts.get(plane, email)
    return _of_account(plane, account.id, account.email)


def _of_account(plane: Plane, user_id: str, email: str) -> list[dict[str, Any]]:
    rows = plane.database.all(_OWN, (user_id, email_key(email), user_id, memberships.invited_since(plane), user_id))
    listed = [
        {
            "tenant_id": tenant_id,
            "role": role,
            "name": name or "",
            "nickname": nickname or "",
            "email": owner_email or "",
            "avatar": avatar,
            "update_date": http_date(update_time),
            "delta_seconds": seconds_since(plane, update_time),
        }
        for tenant_id, role, name, nickname, owner_email, avatar, update_time in rows
    ]
    return memberships.strongest(listed, "tenant_id")


def create_organisation(plane: Plane, who: Principal, name: str) -> dict[str, str]:
    """Make a further tenant that the caller owns; returns ``{tenant_id, name, role}``.

    Raises BadField, and NotSignedIn when the account has been switched off or deleted meanwhile.
    """
    name = parse_tenant_name(name)
    tenant_id = uuid1().hex
    with plane.database.transaction():
        memberships.lock(plane)
        who = accounts.acting_now(plane, who)
        accounts.make_tenant(plane, tenant_id=tenant_id, owner_id=str(who.user_id), name=name)
        audit.record(plane, EventTag.TENANT_CREATE, who, target=("tenant", tenant_id), after={"name": name})
    return {"tenant_id": tenant_id, "name": name, "role": "owner"}


def tenant_info(plane: Plane, who: Principal) -> dict[str, Any]:
    """The tenant that the caller acts in: ``{tenant_id, name, llm_id, embd_id, rerank_id, asr_id, img2txt_id, tts_id,
    parser_ids, role}``. Raises TenantNotFound."""
    if who.tenant_id is None:
        raise TenantNotFound
    return {**_models(plane, who.tenant_id), "role": who.tenant_role}


def set_tenant_info(plane: Plane, who: Principal, tenant_id: str, changes: Mapping[str, str | None]) -> None:
    """Write ``CHANGEABLE`` columns of a tenant that the caller owns. Raises NotYourTenant, BadField.

    None means no model; where RAGFlow's column takes no NULL it is written as "".
    """
    columns = {name: value for name, value in changes.items() if name in CHANGEABLE}
    if columns.get("name") is None:
        columns.pop("name", None)
    else:
        columns["name"] = parse_tenant_name(columns["name"])
    for name in MODELS:
        if name in columns and columns[name] is None and name != "tts_id":
            columns[name] = ""
    with plane.database.transaction():
        plane.database.hold("tenant", tenant_id)
        memberships.require_role(plane, who, tenant_id, ("owner",))
        stored = _models(plane, tenant_id)
        changed = {name: value for name, value in columns.items() if value != stored[name]}
        if not changed:
            return
        stamps = touched(plane.now_ms(), plane.zone)
        plane.database.execute(Tenant.update(**changed, **stamps).where(Tenant.id == tenant_id))
        audit.record(
            plane,
            EventTag.TENANT_UPDATE,
            who,
            target=("tenant", tenant_id),
            before={name: stored[name] for name in changed},
            after=changed,
        )


def page_of_tenants(plane: Plane, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """A page of all tenants, by id: ``{tenants, next_cursor}``. Raises BadField for a cursor of another list.

    Items: ``{tenant_id, name, status, owner_email, create_date, update_date, member_count}``; the count has owners and
    pending invitations of accounts, and is None beyond ``COUNTED_IN_LISTS``.
    """
    after = decode_cursor(cursor, (str,)) if cursor is not None else ("",)
    rows = plane.database.all(
        _with_owner(f"{_COUNT_IN_LIST} AS members FROM tenant t WHERE t.id > ? ORDER BY t.id LIMIT ?"),
        (memberships.invited_since(plane), *after, limit + 1),
    )
    tenants = [_listed(row) for row in rows[:limit]]
    next_cursor = encode_cursor([tenants[-1]["tenant_id"]]) if len(rows) > limit else None
    return {"tenants": tenants, "next_cursor": next_cursor}


def details(plane: Plane, tenant_id: str) -> dict[str, Any]:
    """An item of ``page_of_tenants`` with ``parser_ids``, models, and ``owners`` as e-mails; every member is counted.

    Raises TenantNotFound.
    """
    row = plane.database.one(
        _with_owner(f"{_COUNT} AS members FROM tenant t WHERE t.id = ?"), (memberships.invited_since(plane), tenant_id)
    )
    if row is None:
        raise TenantNotFound
    owners = plane.database.all(
        "SELECT DISTINCT u.email FROM user_tenant m JOIN user u ON u.id = m.user_id "
        "WHERE m.tenant_id = ? AND m.role = 'owner' AND m.status = '1' ORDER BY u.email",
        (tenant_id,),
    )
    return {**_models(plane, tenant_id), **_listed(row), "owners": [email for (email,) in owners]}


def _with_owner(count_from: str) -> str:
    # The owner is found before the join: within its condition MariaDB looks three times.
    return (
        "SELECT p.id, p.name, p.status, u.email, p.create_time, p.update_time, p.members "
        f"FROM ({_TENANT}{count_from}) AS p LEFT JOIN user u ON u.id = p.owner_id ORDER BY p.id"
    )


def _models(plane: Plane, tenant_id: str) -> dict[str, Any]:
    row = plane.database.one(f"SELECT id, name, parser_ids, {', '.join(MODELS)} FROM tenant WHERE id = ?", (tenant_id,))
    if row is None:
        raise TenantNotFound
    return dict(zip(("tenant_id", "name", "parser_ids", *MODELS), row, strict=True))


def _listed(row: tuple[Any, ...]) -> dict[str, Any]:
    tenant_id, name, status, owner_email, create_time, update_time, member_count = row
    return {
        "tenant_id": tenant_id,
        "name": name or "",
        "status": status,
        "owner_email": owner_email,
        "create_date": http_date(create_time),
        "update_date": http_date(update_time),
        "member_count": member_count,
    }
