"""Health, as both ports tell it: to load balancers and probes without a credential, to people who are signed in."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response
from pydantic import Field

from common import health_utils
from common.http.bodies import Query
from common.http.fields import Item
from common.http.optional_caller import signed_in_caller
from common.http.requirement import PUBLIC, SIGNED_IN
from common.http.route import Call, Reply, Routes
from common.services.system_status import get_system_status

routes = Routes("health", "bare")


class Alive(Item):
    """This process takes requests."""

    status: Literal["ok"]


class Readiness(Item):
    """Whether the stores are well, and the names of those that are not; ``draining`` before a server ends."""

    status: Literal["ok", "nok", "draining"]
    down: list[str]


class ReadinessQuery(Query):
    """Which store to ask; without it, all of them."""

    store: Literal["metadata", "cache", "documents", "objects"] | None = None


class Healthz(Item):
    """``ok`` or ``nok`` for each store and the whole; ``_meta`` tells how long each that failed took."""

    db: str
    redis: str
    doc_engine: str
    storage: str
    status: str
    meta: dict[str, dict[str, str]] = Field(alias="_meta")


class CacheStatus(Item):
    """The cache store. ``error`` where it is red; ``fallbacks`` for operators: how often the process that answers has
    counted by itself, since its start, what limits are judged by, because the cache store failed."""

    status: Literal["green", "red"]
    elapsed: str
    error: str = ""
    fallbacks: int = 0


class SystemStatus(Item):
    """Each part with its ``status`` and ``elapsed`` milliseconds; heartbeats are null when they can't be read."""

    doc_engine: dict[str, Any]
    storage: dict[str, str]
    database: dict[str, str]
    redis: CacheStatus
    task_executor: dict[str, str]
    task_executor_heartbeats: dict[str, list[dict[str, Any]]] | None


@routes.get(
    "/v1/system/ping",
    "/api/v1/system/ping",
    requires=PUBLIC,
    data=str,
    media_type="text/plain",
    summary="Answer pong, as plain text",
)
def ping(call: Call) -> Response:
    return Response("pong", mimetype="text/plain")


@routes.get("/livez", requires=PUBLIC, data=Alive, summary="Whether this process takes requests; asks no store")
def livez(call: Call) -> dict[str, str]:
    return {"status": "ok"}


@routes.get(
    "/readyz",
    requires=PUBLIC,
    query=ReadinessQuery,
    data=Readiness,
    statuses=(503,),
    summary="Whether the stores are well, told within a second",
)
def readyz(call: Call) -> Reply:
    stores = (call.query.store,) if call.query.store else health_utils.STORES
    down = health_utils.stores_down(call.plane, stores)
    return Reply(health_utils.readiness(down), status=503 if down else 200)


@routes.get(
    "/v1/system/healthz",
    "/api/v1/system/healthz",
    requires=PUBLIC,
    data=Healthz,
    statuses=(500,),
    summary="Whether each store is well; with errors for operators only",
)
def healthz(call: Call) -> Reply:
    body, well = health_utils.run_health_checks(call.plane)
    if not well and body["db"] == "ok" and _is_operator(call):
        body, well = health_utils.run_health_checks(call.plane, reasons=True)
    return Reply(body, status=200 if well else 500)


def _is_operator(call: Call) -> bool:
    who = signed_in_caller(call, "admin")
    return who is not None and who.may("service", "read")


@routes.get(
    "/v1/system/status",
    "/api/v1/system/status",
    requires=SIGNED_IN.within("read:service"),
    waits=True,
    dialect="ragflow",
    data=SystemStatus,
    summary="How the stores and the task executors are",
)
def status(call: Call) -> dict[str, Any]:
    return get_system_status(call.plane, call.who)
