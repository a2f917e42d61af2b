"""Accounts, as administrators handle them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field

from common.core.errors import BadField
from common.http.bodies import Body, Query
from common.http.fields import Cursor, EmailText, Item, PageLimit, WirePassword
from common.http.requirement import Holds, OwnOr
from common.http.route import Call, Reply, Routes
from common.services import users

routes = Routes("users", "admin", "/api/v1/admin")

READ = Holds("user", "read")
CREATE = Holds("user", "create")
WRITE = Holds("user", "write")
# Clients from 0.21.1 to 0.23.1, which alone send this, take one account as object and not as list.
OBJECT_CLIENTS = "RAGFlow-CLI/0.2"


class UserListQuery(Query):
    """Any of these asks for a page; none of them for the whole list."""

    limit: PageLimit = 50
    cursor: Cursor | None = None
    q: Annotated[str, Field(max_length=255, description="Prefix of e-mail or nickname.")] | None = None
    sort: users.Sort = "email"


class NewUser(Body):
    """``username`` is the e-mail; older clients call it ``user_name``."""

    username: EmailText = Field(validation_alias=AliasChoices("username", "user_name"))
    password: WirePassword
    role: Annotated[str, Field(max_length=64)] = "user"


class NewPassword(Body):
    """The password to set; for one's own also the current one, as ``password``, or a login of the last ten minutes."""

    new_password: WirePassword
    password: WirePassword | None = None


class ActivateStatus(Body):
    """``on`` or ``off``, in any case."""

    activate_status: Annotated[str, Field(max_length=16)]


class ListedUser(Item):
    """An account in a list."""

    email: str
    nickname: str
    create_date: str | None
    is_active: str
    is_superuser: bool
    role: str


class UserPage(Item):
    """A page of accounts."""

    users: list[ListedUser]
    next_cursor: str | None


class UserDetails(ListedUser):
    """An account."""

    avatar: str | None
    language: str | None
    last_login_time: str | None
    is_anonymous: str
    login_channel: str | None
    status: str
    update_date: str | None
    roles: list[str]


@routes.get(
    "/users",
    requires=READ,
    query=UserListQuery,
    data=list[ListedUser] | UserPage,
    summary="List accounts, whole or by page",
)
def list_users(call: Call) -> Any:
    if not call.query.model_fields_set:
        return users.get_all_users(call.plane)
    return users.page_of_users(call.plane, **call.query.model_dump())


@routes.post(
    "/users",
    requires=CREATE,
    body=NewUser,
    names=("username", "role"),
    data=dict[str, Any],
    statuses=(409,),
    hashes=True,
    summary="Create an account",
)
def create_user(call: Call) -> Reply:
    if call.body.role not in ("user", "admin"):
        raise BadField("role: must be user or admin; assign other roles with PUT /users/{email}/role.", field="role")
    made = users.create_user(
        call.plane,
        call.who,
        email=call.body.username,
        password=call.body.password,
        is_superuser=call.body.role == "admin",
    )
    return Reply(made, message="User created successfully.")


@routes.get(
    "/users/<email>",
    requires=READ,
    data=list[UserDetails] | UserDetails,
    statuses=(404,),
    at_once=True,
    summary="Show an account",
)
def show_user(call: Call, email: str) -> Any:
    details = users.get_user_details(call.plane, email)
    wants_object = (call.who.origin.agent or "").startswith(OBJECT_CLIENTS)
    return details if wants_object else [details]


@routes.put(
    "/users/<email>/password",
    requires=OwnOr(WRITE),
    body=NewPassword,
    statuses=(404,),
    even_if_password_due=True,
    hashes=True,
    summary="Set an account's password; its sessions end, of one's own all but this one",
)
def set_password(call: Call, email: str) -> Reply:
    users.refuse_if_password_due_for_another(call.who, email)
    body = call.body
    changed = users.update_user_password(call.plane, call.who, email, body.new_password, current=body.password)
    return Reply(message="Password updated successfully." if changed else "Same password, nothing to update.")


@routes.put(
    "/users/<email>/activate",
    requires=WRITE,
    body=ActivateStatus,
    statuses=(404, 409),
    summary="Switch an account on or off",
)
def activate(call: Call, email: str) -> Reply:
    status = call.body.activate_status.lower()
    if status not in ("on", "off"):
        raise BadField("activate_status: must be on or off.", field="activate_status")
    changed = users.update_user_activate_status(call.plane, call.who, email, active=status == "on")
    return Reply(message=f"User is {'now' if changed else 'already'} {status}.")


@routes.put("/users/<email>/admin", requires=WRITE, statuses=(404, 409), summary="Make an account superuser")
def grant_superuser(call: Call, email: str) -> Reply:
    changed = users.update_user_superuser(call.plane, call.who, email, superuser=True)
    return Reply(message=f"User is {'now' if changed else 'already'} a superuser.")


@routes.delete(
    "/users/<email>/admin",
    requires=WRITE,
    statuses=(404, 409),
    summary="Make a superuser an ordinary account",
)
def revoke_superuser(call: Call, email: str) -> Reply:
    changed = users.update_user_superuser(call.plane, call.who, email, superuser=False)
    return Reply(message=f"User is {'no longer' if changed else 'not'} a superuser.")


@routes.get(
    "/users/<email>/datasets",
    requires=READ,
    data=list[dict[str, Any]],
    statuses=(404,),
    summary="Datasets that an account sees",
)
def datasets(call: Call, email: str) -> list[dict[str, Any]]:
    return users.get_user_datasets(call.plane, email)


@routes.add(
    "GET POST",
    "/users/<email>/agents",
    requires=READ,
    data=list[dict[str, Any]],
    statuses=(404,),
    summary="Agents that an account sees",
)
def agents(call: Call, email: str) -> list[dict[str, Any]]:
    return users.get_user_agents(call.plane, email)
