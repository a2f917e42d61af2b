"""How much tenants may have, as administrators set it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.http.bodies import Body
from common.http.limit_items import LimitValues, TenantLimits
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import tenant_limits

routes = Routes("limits", "admin", "/api/v1/admin")

Count = Annotated[int, Field(ge=0, le=1_000_000_000, description="0 is no limit.")]


class LimitDefaults(Body):
    """Limits of tenants that have none of their own; what is left out stays."""

    members: Count = 0
    tokens: Count = 0
    datasets: Count = 0
    requests_per_minute: Count = 0


class LimitChange(Body):
    """A tenant's own limits; null goes back to the default, what is left out stays."""

    members: Count | None = None
    tokens: Count | None = None
    datasets: Count | None = None
    requests_per_minute: Count | None = None


@routes.get(
    "/limits/defaults",
    requires=Holds("setting", "read"),
    data=LimitValues,
    summary="Show the limits of tenants that have none of their own",
)
def show_defaults(call: Call) -> dict[str, int]:
    return tenant_limits.get_defaults(call.plane)


@routes.put(
    "/limits/defaults",
    requires=Holds("setting", "write"),
    body=LimitDefaults,
    data=LimitValues,
    summary="Set the limits of tenants that have none of their own",
)
def set_defaults(call: Call) -> Reply:
    changes = call.body.model_dump(exclude_unset=True)
    return Reply(tenant_limits.set_defaults(call.plane, call.who, changes), message="Limits set.")


@routes.get(
    "/tenants/<tenant_id>/limits",
    requires=Holds("tenant", "read"),
    data=TenantLimits,
    statuses=(404,),
    summary="Show what a tenant may have, and what it has",
)
def show_limits(call: Call, tenant_id: str) -> dict[str, Any]:
    return tenant_limits.of_tenant(call.plane, tenant_id)


@routes.put(
    "/tenants/<tenant_id>/limits",
    requires=Holds("tenant", "write"),
    body=LimitChange,
    data=TenantLimits,
    statuses=(404,),
    summary="Give a tenant limits of its own",
)
def set_limits(call: Call, tenant_id: str) -> Reply:
    changes = call.body.model_dump(exclude_unset=True)
    return Reply(tenant_limits.set_of_tenant(call.plane, call.who, tenant_id, changes), message="Limits set.")
