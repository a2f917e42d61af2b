"""What is switched on for a tenant, and how much it may have."""

from __future__ import annotations

from typing import Any

from common.http.limit_items import TenantLimits
from common.http.requirement import IDENTIFIED, InTenant
from common.http.route import Call, Routes
from common.services import feature_flags, tenant_limits

routes = Routes("features", "own")


@routes.get(
    "/api/v1/system/features",
    requires=IDENTIFIED,
    data=dict[str, bool],
    summary="Which features are on in the tenant one acts in",
)
def features(call: Call) -> dict[str, bool]:
    return feature_flags.of_tenant(call.plane, call.who)


@routes.get(
    "/api/v1/tenants/<tenant_id>/limits",
    requires=InTenant(("owner", "normal")).within("read:team"),
    data=TenantLimits,
    statuses=(404,),
    summary="Show what a tenant that one belongs to may have, and what it has",
)
def limits(call: Call, tenant_id: str) -> dict[str, Any]:
    return tenant_limits.of_tenant(call.plane, tenant_id)
