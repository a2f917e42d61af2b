"""API tokens of accounts, as administrators handle them; each route under RAGFlow's name and its older one."""

from __future__ import annotations

from typing import Any

from common.http.key_bodies import ApiKey, ApiKeyPage, KeyRotation, NewKey, PageQuery, RotatedKey
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import token_rotation, tokens
from common.services.token_rotation import Rotation
from common.services.tokens import Wish

routes = Routes("keys", "admin", "/api/v1/admin")


@routes.post(
    "/users/<email>/keys",
    "/users/<email>/new_token",
    requires=Holds("token", "create"),
    body=NewKey,
    body_optional=True,
    data=ApiKey,
    statuses=(404,),
    summary="Create an API token of an account; it is shown whole this once",
)
def new_key(call: Call, email: str) -> Reply:
    wish = Wish(**call.body.model_dump()) if call.body else Wish()
    made = tokens.create_for(call.plane, call.who, email, wish)
    return Reply(made, message="API key generated successfully")


@routes.get(
    "/users/<email>/keys",
    "/users/<email>/token_list",
    requires=Holds("token", "read"),
    query=PageQuery,
    data=list[ApiKey] | ApiKeyPage,
    statuses=(404,),
    summary="List an account's API tokens, whole or by page",
)
def list_keys(call: Call, email: str) -> Any:
    if not call.query.model_fields_set:
        return tokens.of_user(call.plane, call.who, email)
    return tokens.page_of_user(call.plane, call.who, email, **call.query.model_dump())


@routes.post(
    "/users/<email>/keys/<key>/rotate",
    requires=Holds("token", "create"),
    body=KeyRotation,
    body_optional=True,
    data=RotatedKey,
    statuses=(404, 409, 429),
    summary="Replace an account's API token by a new one; both are good for a while",
)
def rotate_key(call: Call, email: str, key: str) -> dict[str, Any]:
    rotation = Rotation(**call.body.model_dump()) if call.body else Rotation()
    return token_rotation.rotate_of_user(call.plane, call.who, email, key, rotation)


@routes.delete(
    "/users/<email>/keys/<key>",
    "/users/<email>/token/<key>",
    requires=Holds("token", "delete"),
    statuses=(404, 409),
    summary="Delete an account's API token by value, id or display form",
)
def delete_key(call: Call, email: str, key: str) -> Reply:
    tokens.delete_of_user(call.plane, call.who, email, key)
    return Reply(message="API key deleted successfully")
