"""Deleting an account with all that only it owns."""

from __future__ import annotations

from typing import Any

from common.http.bodies import Query
from common.http.fields import Item
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import deletion

routes = Routes("users", "admin", "/api/v1/admin")


class DeletionQuery(Query):
    """``dry_run=true`` lists what would go and changes nothing."""

    dry_run: bool = False


class TenantName(Item):
    """A tenant."""

    id: str
    name: str


class Deleted(Item):
    """What went in the request, as rows per table, and the job that removes the rest."""

    email: str
    tenants: list[TenantName]
    kept_tenants: list[TenantName]
    removed: dict[str, int]
    job_id: int


class DeletionPlan(Item):
    """What a deletion would remove, by store, and tables that it leaves; ``blocked_by`` says what would refuse it."""

    email: str
    tenants: list[TenantName]
    kept_tenants: list[TenantName]
    metadata: dict[str, int]
    documents: int
    objects: dict[str, Any]
    left_alone: list[str]
    blocked_by: str | None


@routes.delete(
    "/users/<email>",
    requires=Holds("user", "delete"),
    query=DeletionQuery,
    data=Deleted | DeletionPlan,
    statuses=(404, 409),
    summary="Delete a switched-off account and the tenants that only it owns",
)
def delete_user(call: Call, email: str) -> Reply:
    result = deletion.delete_user(call.plane, call.who, email, dry_run=call.query.dry_run)
    return Reply(result, message=deletion.message(result))
