"""Roles and permissions, as administrators hand them out."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.core.errors import BadField
from common.http.bodies import Body
from common.http.fields import Item
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import roles

routes = Routes("roles", "admin", "/api/v1/admin")

READ = Holds("role", "read")
CREATE = Holds("role", "create")
WRITE = Holds("role", "write")
DELETE = Holds("role", "delete")
ASSIGN = Holds("role", "assign")
READ_USER = Holds("user", "read")

RoleName = Annotated[str, Field(max_length=1024, description="Compared without case.")]
Description = Annotated[str, Field(max_length=4096)]
Parents = Annotated[list[RoleName], Field(description="Names of the roles to inherit from.")]
Booleans = dict[str, dict[str, bool]]


class NewRole(Body):
    """A role to make; it grants nothing itself yet."""

    role_name: RoleName
    description: Description | None = None
    parents: Parents | None = None


class RoleChange(Body):
    """What to change of a role: at least one of the two."""

    description: Description | None = None
    parents: Parents | None = None


class Grant(Body):
    """``actions`` on a ``resource``, or a tree in which true grants."""

    actions: list[str] | None = None
    resource: str | None = None
    new_permissions: Booleans | None = None


class Revocation(Body):
    """``actions`` on a ``resource``, or a tree in which every action named is revoked."""

    actions: list[str] | None = None
    resource: str | None = None
    revoke_permissions: Booleans | None = None


class RoleAssignment(Body):
    """The role to hold from now on, instead of all others."""

    role_name: RoleName


class ListedRole(Item):
    """A role in a list."""

    id: str
    role_name: str
    description: str
    parents: list[str]
    builtin: bool
    create_date: str | None
    update_date: str | None


class RoleShape(ListedRole):
    """A role."""

    name: str


class RoleList(Item):
    """Every role."""

    roles: list[ListedRole]
    total: int


class RoleWithPermission(ListedRole):
    """A role, its own grants, and what it inherits beside them."""

    permissions: Booleans
    inherited: Booleans


class RoleWithPermissionList(Item):
    """Every role with what it holds."""

    roles: list[RoleWithPermission]
    total: int


class DescribedRole(Item):
    """A role's name and description."""

    id: str
    name: str
    description: str
    parents: list[str]


class RolePermissions(Item):
    """One role's own grants, and what it inherits beside them."""

    role: DescribedRole
    permissions: Booleans
    inherited: Booleans


class PermissionRow(Item):
    """One permission and the role that grants it."""

    resource: str
    action: str
    source: str


class ResourceTypes(Item):
    """What can be granted."""

    resource_types: list[str]
    actions: dict[str, list[str]]


class AssignedRole(Item):
    """The one role of an account."""

    email: str
    role_name: str


class PermissionSource(Item):
    """The granting role, and the names from the role that is held up to it."""

    role: str
    path: list[str]


class PermissionHolder(Item):
    """An account."""

    id: str
    username: str
    role: str


class UserPermissions(Item):
    """What an account may, and where that comes from."""

    user: PermissionHolder
    role_permissions: Booleans
    sources: dict[str, dict[str, list[PermissionSource]]]


@routes.get("/roles", requires=READ, data=RoleList, summary="List roles")
def list_roles(call: Call) -> dict[str, Any]:
    return roles.list_roles(call.plane)


@routes.post("/roles", requires=CREATE, body=NewRole, data=RoleShape, statuses=(409,), summary="Create a role")
def create_role(call: Call) -> Reply:
    made = roles.create_role(
        call.plane,
        call.who,
        role_name=call.body.role_name,
        description=call.body.description or "",
        parents=call.body.parents or (),
    )
    return Reply(made, message="Role created successfully.")


@routes.get(
    "/roles_with_permission",
    requires=READ,
    data=RoleWithPermissionList,
    summary="List roles with what they grant and inherit",
)
def roles_with_permission(call: Call) -> dict[str, Any]:
    return roles.roles_with_permission(call.plane)


@routes.get("/roles/resource", requires=READ, data=ResourceTypes, summary="What can be granted")
def resource_types(call: Call) -> dict[str, Any]:
    return roles.resource_types()


@routes.put(
    "/roles/<name>",
    requires=WRITE,
    body=RoleChange,
    data=RoleShape,
    statuses=(404, 409),
    summary="Change a role's description or parents",
)
def update_role(call: Call, name: str) -> Reply:
    if call.body.description is None and call.body.parents is None:
        raise BadField("Required fields are missing: description, or parents.", field="description")
    changed = roles.update_role_description(
        call.plane, call.who, name, description=call.body.description, parents=call.body.parents
    )
    return Reply(changed, message="Role updated successfully.")


@routes.delete(
    "/roles/<name>",
    requires=DELETE,
    statuses=(404, 409),
    summary="Delete a role that nobody holds or inherits from",
)
def delete_role(call: Call, name: str) -> Reply:
    roles.delete_role(call.plane, call.who, name)
    return Reply(message="Role deleted successfully.")


@routes.get(
    "/roles/<name>/permission",
    requires=READ,
    data=list[PermissionRow],
    statuses=(404,),
    summary="What a role holds, as flat rows",
)
def role_permission(call: Call, name: str) -> list[dict[str, str]]:
    return roles.get_role_permission(call.plane, name)


@routes.get(
    "/roles/<name>/permissions",
    requires=READ,
    data=RolePermissions,
    statuses=(404,),
    summary="What a role grants and inherits",
)
def role_permissions(call: Call, name: str) -> dict[str, Any]:
    return roles.role_permissions(call.plane, name)


@routes.post(
    "/roles/<name>/permission",
    requires=WRITE,
    body=Grant,
    data=list[PermissionRow],
    statuses=(404, 409),
    summary="Grant a role permissions",
)
def grant(call: Call, name: str) -> Reply:
    held = roles.grant_role_permission(call.plane, call.who, name, call.body.model_dump(exclude_unset=True))
    return Reply(held, message="Permissions granted successfully.")


@routes.delete(
    "/roles/<name>/permission",
    requires=WRITE,
    body=Revocation,
    data=list[PermissionRow],
    statuses=(404, 409),
    summary="Revoke permissions of a role's own",
)
def revoke(call: Call, name: str) -> Reply:
    held = roles.revoke_role_permission(call.plane, call.who, name, call.body.model_dump(exclude_unset=True))
    return Reply(held, message="Permissions revoked successfully.")


@routes.put(
    "/users/<email>/role",
    requires=ASSIGN,
    body=RoleAssignment,
    data=AssignedRole,
    statuses=(404, 409),
    summary="Give an account one role instead of all it has",
)
def assign(call: Call, email: str) -> Reply:
    assigned = roles.update_user_role(call.plane, call.who, email, call.body.role_name)
    return Reply(assigned, message="Role assigned successfully.")


@routes.get(
    "/users/<email>/permission",
    requires=READ_USER,
    data=list[PermissionRow],
    statuses=(404,),
    summary="What an account may, as flat rows",
)
def user_permission(call: Call, email: str) -> list[dict[str, str]]:
    return roles.get_user_permission(call.plane, email)


@routes.get(
    "/users/<email>/permissions",
    requires=READ_USER,
    data=UserPermissions,
    statuses=(404,),
    summary="What an account may, and where that comes from",
)
def user_permissions(call: Call, email: str) -> dict[str, Any]:
    return roles.get_user_permissions(call.plane, email)
