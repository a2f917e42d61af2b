"""Which roles accounts hold, and what that lets them do."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from admin.server.routes.roles import DRY_RUN, Booleans, Effects, PermissionRow, RoleName
from common.core.errors import BadField
from common.core.names import parse_role_name
from common.core.permissions import MAX_NAMED
from common.http.bodies import Body, Query
from common.http.fields import DryRunQuery, Item
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import assignments, decisions

routes = Routes("roles", "admin", "/api/v1/admin")

ASSIGN = Holds("role", "assign")
READ_USER = Holds("user", "read")


class RoleAssignment(Body):
    """The role to hold from now on, instead of all others."""

    role_name: RoleName


class NamedRoles(Body):
    """One role, or several."""

    role_name: RoleName | None = None
    roles: Annotated[list[RoleName], Field(max_length=MAX_NAMED)] | None = None

    @model_validator(mode="after")
    def _names_some(self) -> NamedRoles:
        if not self.roles and not self.role_name:
            raise BadField("roles: name a role as role_name, or some as roles.", field="roles")
        return self

    @property
    def named(self) -> list[str]:
        """All that are named. Raises BadField for what is no name of a role in ``role_name``."""
        return [*(self.roles or ()), *([parse_role_name(self.role_name)] if self.role_name else [])]


class ExplainQuery(Query):
    """``explain=1`` adds a reason for each pair of the registry, or for the named ones."""

    explain: bool = False
    resource: Annotated[str, Field(max_length=64)] | None = None
    action: Annotated[str, Field(max_length=64)] | None = None


class AssignedRole(Item):
    """The one role of an account."""

    email: str
    role_name: str


class AssignedRoles(Item):
    """The roles that count for an account, the first one first."""

    email: str
    roles: list[str]


class HeldRole(Item):
    """A role of an account, and who gave it."""

    role_name: str
    granted_by: str | None
    granted_at: str | None


class HeldRoles(Item):
    """The roles that count for an account."""

    email: str
    roles: list[HeldRole]


class PermissionSource(Item):
    """The granting role, and the names from the role that is held up to it."""

    role: str
    path: list[str]


class PermissionHolder(Item):
    """An account."""

    id: str
    username: str
    role: str


class Explanation(Item):
    """Whether an account may do something, why, and by which ways through its roles."""

    resource: str
    action: str
    allowed: bool
    reason: str
    paths: list[list[str]]


class UserPermissions(Item):
    """What an account may, and where that comes from."""

    user: PermissionHolder
    role_permissions: Booleans
    sources: dict[str, dict[str, list[PermissionSource]]]
    roles: list[str] | None = None
    explanation: list[Explanation] | None = None


@routes.put(
    "/users/<email>/role",
    requires=ASSIGN,
    body=RoleAssignment,
    names=("role_name",),
    query=DryRunQuery,
    data=AssignedRole | Effects,
    statuses=(404, 409),
    summary="Give an account one role instead of all it has",
)
def assign(call: Call, email: str) -> Reply:
    assigned = assignments.update_user_role(
        call.plane, call.who, email, call.body.role_name, dry_run=call.query.dry_run
    )
    return Reply(assigned, message=DRY_RUN if call.query.dry_run else "Role assigned successfully.")


@routes.get(
    "/users/<email>/roles",
    requires=READ_USER,
    data=HeldRoles,
    statuses=(404,),
    summary="The roles of an account, and who gave them",
)
def user_roles(call: Call, email: str) -> dict[str, Any]:
    return assignments.user_roles(call.plane, email)


@routes.post(
    "/users/<email>/roles",
    requires=ASSIGN,
    body=NamedRoles,
    names=("role_name", "roles"),
    query=DryRunQuery,
    data=AssignedRoles | Effects,
    statuses=(404, 409),
    summary="Give an account further roles",
)
def add_roles(call: Call, email: str) -> Reply:
    held = assignments.add_user_roles(call.plane, call.who, email, call.body.named, dry_run=call.query.dry_run)
    return Reply(held, message=DRY_RUN if call.query.dry_run else "Roles added successfully.")


@routes.delete(
    "/users/<email>/roles",
    requires=ASSIGN,
    body=NamedRoles,
    names=("role_name", "roles"),
    query=DryRunQuery,
    data=AssignedRoles | Effects,
    statuses=(404, 409),
    summary="Take roles from an account",
)
def remove_roles(call: Call, email: str) -> Reply:
    held = assignments.remove_user_roles(call.plane, call.who, email, call.body.named, dry_run=call.query.dry_run)
    return Reply(held, message=DRY_RUN if call.query.dry_run else "Roles removed successfully.")


@routes.get(
    "/users/<email>/permission",
    requires=READ_USER,
    data=list[PermissionRow],
    statuses=(404,),
    summary="What an account may, as flat rows",
)
def user_permission(call: Call, email: str) -> list[dict[str, str]]:
    return decisions.get_user_permission(call.plane, email)


@routes.get(
    "/users/<email>/permissions",
    requires=READ_USER,
    query=ExplainQuery,
    data=UserPermissions,
    statuses=(404,),
    summary="What an account may, and where that comes from",
)
def user_permissions(call: Call, email: str) -> dict[str, Any]:
    return decisions.get_user_permissions(
        call.plane, email, explain=call.query.explain, resource=call.query.resource, action=call.query.action
    )
