"""What both servers give where the limits of a tenant are shown."""

from __future__ import annotations

from common.http.fields import Item


class LimitValues(Item):
    """Limits by name; 0 is no limit."""

    members: int
    tokens: int
    datasets: int
    requests_per_minute: int


class OwnLimits(Item):
    """A tenant's own limits; null where the default holds."""

    members: int | None
    tokens: int | None
    datasets: int | None
    requests_per_minute: int | None


class UsedUp(Item):
    """How many of each there are."""

    members: int
    tokens: int
    datasets: int


class TenantLimits(Item):
    """What a tenant may have, where that comes from, and what it has."""

    tenant_id: str
    limits: LimitValues
    own: OwnLimits
    defaults: LimitValues
    used: UsedUp
