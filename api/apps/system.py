"""The system as users and their clients see it: version, what the login page needs, log levels."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response

from common import health_utils
from common.http.answers import json_response
from common.http.fields import Item
from common.http.log_level_body import LogLevel, LogLevelChange
from common.http.optional_caller import signed_in_caller
from common.http.requirement import IDENTIFIED, PUBLIC, SIGNED_IN, Holds
from common.http.route import Call, Routes
from common.services import log_levels, registration
from common.version import version_text

routes = Routes("system", "ragflow")


class SystemConfig(Item):
    """What the login page needs; version and status for those who are signed in."""

    registerEnabled: int  # noqa: N815 - RAGFlow's name on the wire
    disablePasswordLogin: bool  # noqa: N815
    version: str | None = None
    status: str | None = None


class EngineNotInUse(Item):
    """A whole answer, with RAGFlow's code for a document engine that is not in use."""

    code: Literal[500]
    message: str
    data: dict[str, str]


class RuntimeLanguage(Item):
    """What the server is written in."""

    language: str


@routes.get("/v1/system/version", requires=IDENTIFIED, at_once=True, data=str, summary="The running version")
@routes.get("/api/v1/system/version", requires=PUBLIC, at_once=True, data=str, summary="The running version")
def version(call: Call) -> str:
    return version_text()


@routes.get(
    "/v1/system/config",
    "/api/v1/system/config",
    requires=PUBLIC,
    waits=True,
    data=SystemConfig,
    summary="What the login page needs to know",
)
def config(call: Call) -> dict[str, Any]:
    settings = call.plane.settings
    told: dict[str, Any] = {
        "registerEnabled": int(registration.mode(call.plane) != "closed"),
        "disablePasswordLogin": settings.disable_password_login,
    }
    if signed_in_caller(call, "user") is not None:
        health, _ = health_utils.run_health_checks(call.plane)
        told |= {"version": version_text(), "status": health["status"]}
    return told


@routes.get(
    "/api/v1/system/public-key",
    requires=PUBLIC,
    dialect="own",
    data=dict[str, str],
    summary="The public key for passwords on the wire",
)
def public_key(call: Call) -> dict[str, str]:
    return {"public_key": call.plane.keys.public_pem}


@routes.get("/api/v1/language", requires=PUBLIC, data=RuntimeLanguage, summary="What the server is written in")
def language(call: Call) -> dict[str, str]:
    return {"language": "python"}


@routes.get(
    "/v1/user/login/channels",
    "/api/v1/auth/login/channels",
    requires=PUBLIC,
    data=list[dict[str, str]],
    summary="Ways of single sign-on; there are none",
)
def login_channels(call: Call) -> list[dict[str, str]]:
    return []


@routes.get(
    "/v1/system/oceanbase/status",
    "/api/v1/system/oceanbase/status",
    requires=SIGNED_IN.within("read:service"),
    dialect="bare",
    data=EngineNotInUse,
    summary="OceanBase, which is not in use: code 500",
)
def oceanbase_status(call: Call) -> Response:
    return _not_in_use("OceanBase")


@routes.get(
    "/api/v1/system/gaussdb/status",
    requires=SIGNED_IN.within("read:service"),
    dialect="bare",
    data=EngineNotInUse,
    summary="GaussDB, which is not in use: code 500",
)
def gaussdb_status(call: Call) -> Response:
    return _not_in_use("GaussDB")


def _not_in_use(engine: str) -> Response:
    """RAGFlow's answer: HTTP 200, code 500."""
    message = f"{engine} is not in use as document engine."
    return json_response({"code": 500, "message": message, "data": {"status": "error", "message": message}})


@routes.get(
    "/api/v1/system/config/log",
    requires=SIGNED_IN.within("read:setting"),
    data=dict[str, str],
    summary="Log levels by package",
)
def levels(call: Call) -> dict[str, str]:
    return log_levels.get_log_levels(call.plane)


@routes.put(
    "/api/v1/system/config/log",
    requires=Holds("setting", "write"),
    fields_first=True,
    body=LogLevelChange,
    names=("pkg_name",),
    data=LogLevel,
    statuses=(403,),
    summary="Set a package's log level",
)
def set_level(call: Call) -> dict[str, str]:
    return log_levels.set_log_level(call.plane, call.who, call.body.pkg_name, call.body.level)
