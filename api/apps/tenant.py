"""Tenants: one's own, their models, their members and invitations."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.http.bodies import Body
from common.http.fields import EmailText, Item
from common.http.requirement import SIGNED_IN, TENANT_OWNER
from common.http.route import Call, Routes
from common.http.tenant_items import Invited, JoinedTenant, Member
from common.services import invitations, members, tenants

routes = Routes("tenant", "ragflow")

ModelId = Annotated[str, Field(max_length=128)]
TenantId = Annotated[str, Field(max_length=64)]


class TenantModels(Body):
    """The models to use; null means none. ``name`` renames the tenant."""

    tenant_id: TenantId
    llm_id: ModelId
    embd_id: ModelId
    asr_id: ModelId
    img2txt_id: ModelId
    rerank_id: ModelId | None = None
    tts_id: Annotated[str, Field(max_length=256)] | None = None
    name: Annotated[str, Field(max_length=1024)] | None = None


class NewTenant(Body):
    """An organisation."""

    name: Annotated[str, Field(max_length=1024)]


class InvitedAddress(Body):
    """Whom to invite, registered or not."""

    email: EmailText


class LeavingMember(Body):
    """Whom to remove; for an address without an account the id of its invitation."""

    user_id: TenantId


class MadeTenant(Item):
    """A tenant that was made."""

    tenant_id: str
    name: str
    role: str


class TenantDetails(Item):
    """The tenant that one acts in."""

    tenant_id: str
    name: str | None
    llm_id: str
    embd_id: str
    rerank_id: str
    asr_id: str
    img2txt_id: str
    tts_id: str | None
    parser_ids: str
    role: str | None


@routes.get(
    "/v1/tenant/list",
    "/api/v1/tenants",
    requires=SIGNED_IN.within("read:team"),
    data=list[JoinedTenant],
    summary="List the tenants one owns, has joined or is invited to",
)
def list_tenants(call: Call) -> list[dict[str, Any]]:
    return tenants.own(call.plane, call.who)


@routes.post(
    "/api/v1/tenants",
    requires=SIGNED_IN.within("write:team"),
    body=NewTenant,
    data=MadeTenant,
    dialect="own",
    summary="Create an organisation of one's own",
)
def create_tenant(call: Call) -> dict[str, str]:
    return tenants.create_organisation(call.plane, call.who, call.body.name)


@routes.get(
    "/v1/user/tenant_info",
    "/api/v1/users/me/models",
    requires=SIGNED_IN.within("read:team"),
    data=TenantDetails,
    summary="Show the tenant one acts in and its models",
)
def tenant_info(call: Call) -> dict[str, Any]:
    return tenants.tenant_info(call.plane, call.who)


_SETTING: dict[str, Any] = {
    "requires": SIGNED_IN.within("write:team"),
    "body": TenantModels,
    "data": bool,
    "summary": "Set the models of a tenant one owns",
}


@routes.add("POST", "/v1/user/set_tenant_info", **_SETTING)
@routes.add("PATCH", "/api/v1/users/me/models", **_SETTING)
def set_tenant_info(call: Call) -> bool:
    changes = call.body.model_dump(exclude={"tenant_id"}, exclude_unset=True)
    tenants.set_tenant_info(call.plane, call.who, call.body.tenant_id, changes)
    return True


@routes.get(
    "/v1/tenant/<tenant_id>/user/list",
    "/api/v1/tenants/<tenant_id>/users",
    requires=TENANT_OWNER.within("read:team"),
    data=list[Member],
    summary="List a tenant's members and pending invitations",
)
def list_members(call: Call, tenant_id: str) -> list[dict[str, Any]]:
    return members.listed(call.plane, tenant_id)


@routes.post(
    "/v1/tenant/<tenant_id>/user",
    "/api/v1/tenants/<tenant_id>/users",
    requires=TENANT_OWNER.within("write:team"),
    body=InvitedAddress,
    names=("email",),
    data=Invited,
    summary="Invite an address to a tenant",
)
def invite(call: Call, tenant_id: str) -> dict[str, Any]:
    return invitations.invite(call.plane, call.who, tenant_id, call.body.email)


@routes.delete(
    "/v1/tenant/<tenant_id>/user/<user_id>",
    requires=SIGNED_IN.within("write:team"),
    data=bool,
    statuses=(409,),
    summary="Remove a member, withdraw an invitation, leave, or refuse to join",
)
def remove_member(call: Call, tenant_id: str, user_id: str) -> bool:
    members.remove(call.plane, call.who, tenant_id, user_id)
    return True


@routes.delete(
    "/api/v1/tenants/<tenant_id>/users",
    requires=SIGNED_IN.within("write:team"),
    body=LeavingMember,
    names=("user_id",),
    data=bool,
    statuses=(409,),
    summary="Remove a member, withdraw an invitation, leave, or refuse to join",
)
def remove_named_member(call: Call, tenant_id: str) -> bool:
    members.remove(call.plane, call.who, tenant_id, call.body.user_id)
    return True


_AGREEING: dict[str, Any] = {
    "requires": SIGNED_IN.within("write:team"),
    "data": bool,
    "summary": "Accept an invitation",
}


@routes.add("PUT", "/v1/tenant/agree/<tenant_id>", **_AGREEING)
@routes.add("PATCH", "/api/v1/tenants/<tenant_id>", **_AGREEING)
def agree(call: Call, tenant_id: str) -> bool:
    invitations.agree(call.plane, call.who, tenant_id)
    return True
