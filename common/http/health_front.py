"""Readiness and healthz on the event loop: who waits for a probe holds no thread, so a store that hangs takes none."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import orjson

from common import health_utils
from common.services.plane import Plane

_HEALTHZ = ("/v1/system/healthz", "/api/v1/system/healthz")
Answer = tuple[int, bytes]


class HealthFront:
    """Answers what strangers ask about health. What it leaves is for the app: there it needs no more waiting."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def answer(self, scope: dict[str, Any]) -> Answer | None:
        """Status and JSON body of a GET or HEAD; None where the app has to answer."""
        path = scope["path"]
        if path in _HEALTHZ:
            return await self._healthz(scope)
        return await self._readyz(scope) if path == "/readyz" else None

    async def _healthz(self, scope: dict[str, Any]) -> Answer | None:
        outcomes = await self._plane.prober.run_aside(health_utils.store_probes(self._plane))
        body, well = health_utils.healthz_body(outcomes)
        # Operators are told the reasons; whether it is one is for the app to find out.
        if not well and any(name == b"authorization" for name, _ in scope["headers"]):
            return None
        return 200 if well else 500, orjson.dumps(body)

    async def _readyz(self, scope: dict[str, Any]) -> Answer | None:
        stores = _asked(scope["query_string"])
        if stores is None:
            return None
        outcomes = await self._plane.prober.run_aside(
            health_utils.store_probes(self._plane, stores), wait_s=health_utils.READINESS_WAIT_S
        )
        down = health_utils.not_well(outcomes)
        return 503 if down else 200, orjson.dumps(health_utils.readiness(down))


def _asked(query: bytes) -> tuple[str, ...] | None:
    """The stores that a query string names, all of them without one; None for one that the app must refuse."""
    if not query:
        return health_utils.STORES
    match parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        case [("store", name)] if name in health_utils.STORES:
            return (name,)
    return None
