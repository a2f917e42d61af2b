"""API tokens of the tenant that one acts in and owns, and RAGFlow's older, dialog-scoped ones."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.core.errors import BadField
from common.http.bodies import Body, MissingFields, Query
from common.http.key_bodies import ApiKey, ApiKeyPage, KeyRotation, NewKey, NewPlainKey, PageQuery, RotatedKey
from common.http.requirement import SIGNED_IN
from common.http.route import Call, Routes
from common.services import token_rotation, tokens
from common.services.token_rotation import Rotation
from common.services.tokens import Wish

routes = Routes("token", "ragflow")

DialogId = Annotated[str, Field(max_length=32)]


class NewDialogKey(NewPlainKey):
    """For a dialog, or an agent as ``canvas_id``."""

    dialog_id: DialogId | None = None
    canvas_id: DialogId | None = None


class DialogQuery(Query):
    """Which dialog, or which agent."""

    dialog_id: DialogId | None = None
    canvas_id: DialogId | None = None


class DoomedKeys(Body):
    """Tokens to delete, each by value, id or display form."""

    tokens: Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=100)]
    tenant_id: Annotated[str, Field(max_length=64)]


@routes.post(
    "/v1/system/new_token",
    "/api/v1/system/tokens",
    requires=SIGNED_IN.within("create:token"),
    body=NewKey,
    data=ApiKey,
    summary="Create an API token; it is shown whole this once",
)
def new_token(call: Call) -> dict[str, Any]:
    return tokens.create(call.plane, call.who, Wish(**call.body.model_dump()))


@routes.get(
    "/v1/system/token_list",
    "/api/v1/system/tokens",
    requires=SIGNED_IN.within("read:token"),
    query=PageQuery,
    at_once=True,
    data=list[ApiKey] | ApiKeyPage,
    summary="List the tenant's API tokens, whole or by page",
)
def token_list(call: Call) -> Any:
    if not call.query.model_fields_set:
        return tokens.own(call.plane, call.who)
    return tokens.own_page(call.plane, call.who, **call.query.model_dump())


@routes.delete(
    "/v1/system/token/<token>",
    "/api/v1/system/tokens/<token>",
    requires=SIGNED_IN.within("delete:token"),
    data=bool,
    statuses=(409,),
    summary="Delete an API token by value, id or display form",
)
def delete_token(call: Call, token: str) -> bool:
    tokens.delete(call.plane, call.who, [token])
    return True


@routes.post(
    "/api/v1/system/tokens/<token>/rotate",
    requires=SIGNED_IN.within("create:token"),
    body=KeyRotation,
    body_optional=True,
    data=RotatedKey,
    dialect="own",
    statuses=(404, 409, 429),
    summary="Replace an API token of one's own by a new one; both are good for a while",
)
def rotate_token(call: Call, token: str) -> dict[str, Any]:
    rotation = Rotation(**call.body.model_dump()) if call.body else Rotation()
    return token_rotation.rotate_own(call.plane, call.who, token, rotation)


@routes.post(
    "/v1/api/new_token",
    requires=SIGNED_IN.within("create:token"),
    body=NewDialogKey,
    data=ApiKey,
    summary="Create an API token for a dialog or an agent",
)
def new_dialog_token(call: Call) -> dict[str, Any]:
    asked = call.body.model_dump(exclude={"dialog_id", "canvas_id"})
    source = "agent" if call.body.canvas_id is not None else None
    return tokens.create(call.plane, call.who, Wish(**asked, dialog_id=_dialog_id(call.body), source=source))


@routes.get(
    "/v1/api/token_list",
    requires=SIGNED_IN.within("read:token"),
    query=DialogQuery,
    data=list[ApiKey],
    summary="List the API tokens of a dialog or an agent",
)
def dialog_token_list(call: Call) -> list[dict[str, Any]]:
    return tokens.own_of_dialog(call.plane, call.who, _dialog_id(call.query))


@routes.post(
    "/v1/api/rm",
    requires=SIGNED_IN.within("delete:token"),
    body=DoomedKeys,
    data=bool,
    statuses=(409,),
    summary="Delete API tokens of a tenant one owns",
)
def remove_tokens(call: Call) -> bool:
    tokens.delete(call.plane, call.who, call.body.tokens, tenant_id=call.body.tenant_id)
    return True


def _dialog_id(given: NewDialogKey | DialogQuery) -> str:
    field = "canvas_id" if given.canvas_id is not None else "dialog_id"
    named: str | None = getattr(given, field)
    if named is None:
        raise MissingFields(["dialog_id"], "ragflow")
    if not named:
        raise BadField(f"{field}: must not be empty.", field=field)
    return named
