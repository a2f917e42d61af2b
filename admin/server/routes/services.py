"""Services: which there are and how they are."""

from __future__ import annotations

from typing import Any

from common.http.fields import Item
from common.http.requirement import Holds
from common.http.route import Call, Routes
from common.services import supervision

routes = Routes("services", "admin", "/api/v1/admin")

READ = Holds("service", "read")
CONTROL = Holds("service", "control")


class ListedService(Item):
    """A service; ``extra`` tells its kind, ``status`` is alive, timeout, fail or unknown."""

    id: int
    name: str
    host: str
    port: int | str
    service_type: str
    extra: dict[str, Any]
    status: str


class ServiceDetails(Item):
    """What a service says of itself, or what is wrong with it."""

    service_name: str
    status: str
    message: str | dict[str, Any] | list[Any]


@routes.get(
    "/services", requires=READ, waits=True, data=list[ListedService], summary="List the services, probed just now"
)
def list_services(call: Call) -> list[dict[str, Any]]:
    return supervision.get_all_services(call.plane)


@routes.get(
    "/services/<service_id>",
    requires=READ,
    waits=True,
    data=ServiceDetails,
    statuses=(404,),
    summary="Show a service",
)
def show_service(call: Call, service_id: str) -> dict[str, Any]:
    return supervision.get_service_details(call.plane, service_id)


@routes.delete("/services/<service_id>", requires=CONTROL, statuses=(404, 409), summary="Stop a service")
def stop_service(call: Call, service_id: str) -> None:
    supervision.shutdown_service(call.plane, service_id)


@routes.put("/services/<service_id>", requires=CONTROL, statuses=(404, 409), summary="Restart a service")
def restart_service(call: Call, service_id: str) -> None:
    supervision.restart_service(call.plane, service_id)


@routes.get(
    "/service_types/<service_type>",
    requires=READ,
    waits=True,
    data=list[ListedService],
    statuses=(404,),
    summary="List the services of a type",
)
def list_services_of_type(call: Call, service_type: str) -> list[dict[str, Any]]:
    return supervision.get_services_by_type(call.plane, service_type)
