"""Refused acts in the audit trail."""

from __future__ import annotations

import logging

from common.core.audit_tags import EventTag
from common.core.errors import Forbidden, StoreUnavailable
from common.services import audit
from common.services.plane import Plane
from common.services.principal import Principal

log = logging.getLogger(__name__)


def record(plane: Plane, who: Principal, route: str, error: Forbidden) -> None:
    """Record that a caller was refused a route. The refusal stands also when the trail can't be written."""
    try:
        with plane.database.transaction():
            audit.record(
                plane,
                EventTag.ACCESS_REFUSED,
                who,
                target=("route", route),
                after={"reason": error.message},
                result="refused",
            )
    except StoreUnavailable as unavailable:
        log.warning("refusal of %s not recorded: %s", route, unavailable.reason)
