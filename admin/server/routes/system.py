"""The system as its operators see it: environment, configured services, log levels."""

from __future__ import annotations

from typing import Any

from common.http.fields import Item
from common.http.log_level_body import LogLevel, LogLevelChange
from common.http.requirement import Holds
from common.http.route import Call, Routes
from common.services import log_levels, supervision

routes = Routes("system", "admin", "/api/v1/admin")

READ = Holds("setting", "read")
WRITE = Holds("setting", "write")


class EnvironmentVariable(Item):
    """A variable and its value; null when it isn't set."""

    env: str
    value: str | None


class ServiceConfiguration(Item):
    """A service as it is configured, without secrets."""

    id: int
    name: str
    host: str
    port: int | str
    service_type: str
    extra: dict[str, Any]


@routes.get(
    "/environments",
    requires=READ,
    data=list[EnvironmentVariable],
    summary="List RAGFlow's variables that choose its stores",
)
def environments(call: Call) -> list[dict[str, str | None]]:
    settings = call.plane.settings
    values = {
        "DOC_ENGINE": settings.doc_engine,
        "DEFAULT_SUPERUSER_EMAIL": settings.default_superuser_email,
        "DB_TYPE": settings.db_type,
        "DEVICE": settings.device,
        "STORAGE_IMPL": settings.storage_impl,
    }
    return [{"env": name, "value": value} for name, value in values.items()]


@routes.get("/configs", requires=READ, data=list[ServiceConfiguration], summary="List the configured services")
def configs(call: Call) -> list[dict[str, Any]]:
    return supervision.get_configs(call.plane)


@routes.get("/log_levels", requires=READ, data=dict[str, str], summary="Log levels by package")
def levels(call: Call) -> dict[str, str]:
    return log_levels.get_log_levels(call.plane)


@routes.put(
    "/log_levels",
    requires=WRITE,
    body=LogLevelChange,
    names=("pkg_name",),
    data=LogLevel,
    summary="Set a package's log level",
)
def set_level(call: Call) -> dict[str, str]:
    return log_levels.set_log_level(call.plane, call.who, call.body.pkg_name, call.body.level)
