"""Tenants and who belongs to them, as administrators handle them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field

from common.http.bodies import Body, Query
from common.http.fields import Cursor, EmailText, Item, PageLimit
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.http.tenant_items import Invited, JoinedTenant, Member
from common.services import members, tenants

routes = Routes("tenants", "admin", "/api/v1/admin")

READ = Holds("tenant", "read")
WRITE = Holds("tenant", "write")


class PageOf(Query):
    """Which page."""

    limit: PageLimit = 50
    cursor: Cursor | None = None


class NewMember(Body):
    """Whom to add at once as ``normal`` or ``owner``, or to ``invite``."""

    email: EmailText
    role: members.Role = "normal"


Whom = Annotated[
    str,
    Field(
        max_length=1024,
        validation_alias=AliasChoices("email", "user_id"),
        description="An e-mail, or an account's id as user_id.",
    ),
]


class ChangedMember(Body):
    """A member, by ``email`` or ``user_id``, and the role to have: ``normal`` or ``owner``."""

    email: Whom
    role: members.Role


class LeavingMember(Body):
    """A member or an invited address, by ``email``, or by ``user_id`` of the list."""

    email: Whom


class ListedTenant(Item):
    """A tenant in a list; ``member_count`` has owners and pending invitations of accounts.

    It is null for a tenant of more than 1000: ask for the tenant itself.
    """

    tenant_id: str
    name: str
    status: str | None
    owner_email: str | None
    create_date: str | None
    update_date: str | None
    member_count: int | None


class TenantPage(Item):
    """A page of tenants."""

    tenants: list[ListedTenant]
    next_cursor: str | None


class TenantDetails(ListedTenant):
    """A tenant."""

    member_count: int
    owners: list[str]
    parser_ids: str
    llm_id: str
    embd_id: str
    asr_id: str
    img2txt_id: str
    rerank_id: str
    tts_id: str | None


class MemberPage(Item):
    """A page of members."""

    users: list[Member]
    next_cursor: str | None


@routes.get("/tenants", requires=READ, query=PageOf, data=TenantPage, summary="List tenants by page")
def list_tenants(call: Call) -> dict[str, Any]:
    return tenants.page_of_tenants(call.plane, **call.query.model_dump())


@routes.get("/tenants/<tenant_id>", requires=READ, data=TenantDetails, statuses=(404,), summary="Show a tenant")
def show_tenant(call: Call, tenant_id: str) -> dict[str, Any]:
    return tenants.details(call.plane, tenant_id)


@routes.get(
    "/tenants/<tenant_id>/users",
    requires=READ,
    query=PageOf,
    data=MemberPage,
    statuses=(404,),
    summary="List a tenant's owners, members and pending invitations by page",
)
def list_members(call: Call, tenant_id: str) -> dict[str, Any]:
    return members.page(call.plane, tenant_id, **call.query.model_dump())


@routes.post(
    "/tenants/<tenant_id>/users",
    requires=WRITE,
    body=NewMember,
    names=("email", "role"),
    data=Invited,
    statuses=(404, 409),
    summary="Add an account to a tenant, or invite an address",
)
def add_member(call: Call, tenant_id: str) -> Reply:
    added = members.add_as_admin(call.plane, call.who, tenant_id, call.body.email, call.body.role)
    return Reply(added, message="Invited." if call.body.role == "invite" else f"Added as {call.body.role}.")


@routes.put(
    "/tenants/<tenant_id>/users",
    requires=WRITE,
    body=ChangedMember,
    names=("email", "role"),
    statuses=(404, 409),
    summary="Give a member of a tenant another role",
)
def change_member(call: Call, tenant_id: str) -> Reply:
    changed = members.change_as_admin(call.plane, call.who, tenant_id, call.body.email, call.body.role)
    return Reply(message=f"Role is {'now' if changed else 'already'} {call.body.role}.")


@routes.delete(
    "/tenants/<tenant_id>/users",
    requires=WRITE,
    body=LeavingMember,
    names=("email",),
    statuses=(404, 409),
    summary="Remove a member from a tenant, or withdraw an invitation",
)
def remove_member(call: Call, tenant_id: str) -> Reply:
    members.remove_as_admin(call.plane, call.who, tenant_id, call.body.email)
    return Reply(message="Removed.")


@routes.get(
    "/users/<email>/tenants",
    requires=READ,
    data=list[JoinedTenant],
    statuses=(404,),
    summary="List the tenants that an account owns, has joined or is invited to",
)
def tenants_of_user(call: Call, email: str) -> list[dict[str, Any]]:
    return tenants.of_user(call.plane, email)
