"""Roles and permissions, as administrators hand them out."""

from __future__ import annotations

from typing import Annotated, Any

from flask import request
from pydantic import Field

from common.core.errors import BadField
from common.core.names import ROLE_DESCRIPTION_MAX_LENGTH
from common.http import etag
from common.http.bodies import Body, Query
from common.http.fields import Cursor, DryRunQuery, Item, PageLimit
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import roles

routes = Routes("roles", "admin", "/api/v1/admin")

READ = Holds("role", "read")
CREATE = Holds("role", "create")
WRITE = Holds("role", "write")
DELETE = Holds("role", "delete")

DRY_RUN = "This is what would change; nothing was changed."

RoleName = Annotated[str, Field(max_length=1024, description="Compared without case.")]
Description = Annotated[str, Field(max_length=ROLE_DESCRIPTION_MAX_LENGTH)]
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


class NamedParents(Body):
    """Roles to inherit from, or to inherit from no more."""

    parents: Annotated[Parents, Field(min_length=1, max_length=64)]


class DeletionQuery(DryRunQuery):
    """What whoever holds the role, or inherits from it, gets in its place; without it, only an unused role goes."""

    reassign_to: RoleName | None = None


class HolderQuery(Query):
    """A page of the accounts that hold a role."""

    limit: PageLimit = 50
    cursor: Cursor | None = None


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


class Holder(Item):
    """An account that holds a role."""

    email: str
    granted_by: str | None
    granted_at: str | None


class RoleDetails(RoleShape):
    """A role with what it grants and inherits, the roles below it, and a page of the accounts that hold it."""

    children: list[str]
    permissions: Booleans
    inherited: Booleans
    holders: list[Holder]
    next_cursor: str | None
    version: str


class ChangedRole(RoleShape):
    """A role after a change; ``version`` is its ETag."""

    version: str


class RoleEffect(Item):
    """What a role would gain and lose."""

    role_name: str
    gains: list[str]
    loses: list[str]


class AccountEffect(Item):
    """What an account would gain and lose."""

    email: str
    gains: list[str]
    loses: list[str]


class Effects(Item):
    """What a change would do; nothing was written. ``complete`` says whether all that is reached is named."""

    dry_run: bool
    roles: list[RoleEffect]
    role_count: int
    users: list[AccountEffect]
    user_count: int
    complete: bool


class PermissionRow(Item):
    """One permission and the role that grants it."""

    resource: str
    action: str
    source: str


class ResourceTypes(Item):
    """What can be granted."""

    resource_types: list[str]
    actions: dict[str, list[str]]


@routes.get("/roles", requires=READ, data=RoleList, summary="List roles")
def list_roles(call: Call) -> dict[str, Any]:
    return roles.list_roles(call.plane)


@routes.post(
    "/roles",
    requires=CREATE,
    body=NewRole,
    names=("role_name", "parents"),
    query=DryRunQuery,
    data=ChangedRole | Effects,
    statuses=(409,),
    summary="Create a role",
)
def create_role(call: Call) -> Reply:
    made = roles.create_role(
        call.plane,
        call.who,
        role_name=call.body.role_name,
        description=call.body.description or "",
        parents=call.body.parents or (),
        dry_run=call.query.dry_run,
    )
    return _changed(call, made, "Role created successfully.")


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
    return roles.resource_types(call.plane)


@routes.get(
    "/roles/<name>",
    requires=READ,
    query=HolderQuery,
    data=RoleDetails,
    statuses=(404,),
    summary="Show a role, what it inherits from, what inherits from it, and who holds it",
)
def show_role(call: Call, name: str) -> Reply:
    shown = roles.show_role(call.plane, name, limit=call.query.limit, cursor=call.query.cursor)
    return Reply(shown, headers=etag.headers(shown["version"]))


@routes.put(
    "/roles/<name>",
    requires=WRITE,
    body=RoleChange,
    names=("parents",),
    query=DryRunQuery,
    data=ChangedRole | Effects,
    statuses=(404, 409, 412),
    summary="Change a role's description or parents",
)
def update_role(call: Call, name: str) -> Reply:
    if call.body.description is None and call.body.parents is None:
        raise BadField("Required fields are missing: description, or parents.", field="description")
    changed = roles.update_role_description(
        call.plane,
        call.who,
        name,
        description=call.body.description,
        parents=call.body.parents,
        expected=etag.expected_versions(request),
        dry_run=call.query.dry_run,
    )
    return _changed(call, changed, "Role updated successfully.")


@routes.delete(
    "/roles/<name>",
    requires=DELETE,
    query=DeletionQuery,
    names=("reassign_to",),
    data=Effects | None,
    statuses=(404, 409, 412),
    summary="Delete a role that nobody holds or inherits from, or give them another one instead",
)
def delete_role(call: Call, name: str) -> Reply:
    planned = roles.delete_role(
        call.plane,
        call.who,
        name,
        reassign_to=call.query.reassign_to,
        expected=etag.expected_versions(request),
        dry_run=call.query.dry_run,
    )
    return Reply(planned, message=DRY_RUN if call.query.dry_run else "Role deleted successfully.")


@routes.post(
    "/roles/<name>/parents",
    requires=WRITE,
    body=NamedParents,
    names=("parents",),
    query=DryRunQuery,
    data=ChangedRole | Effects,
    statuses=(404, 409, 412),
    summary="Let a role inherit from further ones",
)
def add_parents(call: Call, name: str) -> Reply:
    changed = roles.add_role_parents(
        call.plane,
        call.who,
        name,
        call.body.parents,
        expected=etag.expected_versions(request),
        dry_run=call.query.dry_run,
    )
    return _changed(call, changed, "Role updated successfully.")


@routes.delete(
    "/roles/<name>/parents",
    requires=WRITE,
    body=NamedParents,
    names=("parents",),
    query=DryRunQuery,
    data=ChangedRole | Effects,
    statuses=(404, 409, 412),
    summary="Let a role inherit from some no more",
)
def remove_parents(call: Call, name: str) -> Reply:
    changed = roles.remove_role_parents(
        call.plane,
        call.who,
        name,
        call.body.parents,
        expected=etag.expected_versions(request),
        dry_run=call.query.dry_run,
    )
    return _changed(call, changed, "Role updated successfully.")


@routes.get(
    "/roles/<name>/permission",
    requires=READ,
    data=list[PermissionRow],
    statuses=(404,),
    summary="What a role holds, as flat rows",
)
def role_permission(call: Call, name: str) -> Reply:
    held = roles.get_role_permission(call.plane, name)
    return Reply(held, headers=etag.headers(roles.version_of_role(call.plane, name)))


@routes.get(
    "/roles/<name>/permissions",
    requires=READ,
    data=RolePermissions,
    statuses=(404,),
    summary="What a role grants and inherits",
)
def role_permissions(call: Call, name: str) -> Reply:
    held = roles.role_permissions(call.plane, name)
    return Reply(held, headers=etag.headers(roles.version_of_role(call.plane, name)))


@routes.post(
    "/roles/<name>/permission",
    requires=WRITE,
    body=Grant,
    names=("resource", "actions", "new_permissions"),
    query=DryRunQuery,
    data=list[PermissionRow] | Effects,
    statuses=(404, 409, 412),
    summary="Grant a role permissions",
)
def grant(call: Call, name: str) -> Reply:
    held = roles.grant_role_permission(
        call.plane,
        call.who,
        name,
        call.body.model_dump(exclude_unset=True),
        expected=etag.expected_versions(request),
        dry_run=call.query.dry_run,
    )
    return Reply(held, message=DRY_RUN if call.query.dry_run else "Permissions granted successfully.")


@routes.delete(
    "/roles/<name>/permission",
    requires=WRITE,
    body=Revocation,
    names=("resource", "actions", "revoke_permissions"),
    query=DryRunQuery,
    data=list[PermissionRow] | Effects,
    statuses=(404, 409, 412),
    summary="Revoke permissions of a role's own",
)
def revoke(call: Call, name: str) -> Reply:
    held = roles.revoke_role_permission(
        call.plane,
        call.who,
        name,
        call.body.model_dump(exclude_unset=True),
        expected=etag.expected_versions(request),
        dry_run=call.query.dry_run,
    )
    return Reply(held, message=DRY_RUN if call.query.dry_run else "Permissions revoked successfully.")


def _changed(call: Call, changed: dict[str, Any], message: str) -> Reply:
    if call.query.dry_run:
        return Reply(changed, message=DRY_RUN)
    return Reply(changed, message=message, headers=etag.headers(changed["version"]))
