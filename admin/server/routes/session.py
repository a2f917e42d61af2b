"""Logging in and out on the admin server."""

from __future__ import annotations

from typing import Any

from flask import request
from werkzeug.datastructures import Authorization

from common.http.bodies import Body
from common.http.fields import EmailText, Item, WirePassword
from common.http.requirement import ADMINISTRATOR, PUBLIC, SIGNED_IN
from common.http.route import Call, Reply, Routes
from common.http.signing_in import login_headers
from common.services import profile, sessions
from common.version import version_text

routes = Routes("session", "admin", "/api/v1/admin")


class Login(Body):
    """E-mail and password."""

    email: EmailText
    password: WirePassword


class VersionShape(Item):
    """The running version."""

    version: str


@routes.get("/ping", requires=PUBLIC, data=str, summary="Answer pong")
def ping(call: Call) -> Reply:
    return Reply("PONG", message="pong")


@routes.post(
    "/login",
    requires=PUBLIC,
    body=Login,
    data=dict[str, Any],
    statuses=(401, 403),
    hashes=True,
    summary="Log in as administrator; the session is in the Authorization header of the answer",
)
def login(call: Call) -> Reply:
    who, wire = sessions.log_in(call.plane, call.who.origin, call.body.email, call.body.password, "admin")
    # Beside RAGFlow's fields: where the command finds the other server, of whose port nothing else tells.
    data = {**profile.own_profile(call.plane, who), "api_port": call.plane.settings.api_port}
    return Reply(data, message="Welcome back!", headers=login_headers(wire))


@routes.add(
    "GET POST",
    "/logout",
    requires=SIGNED_IN,
    data=bool,
    even_if_password_due=True,
    changes=True,
    summary="End this session",
)
def logout(call: Call) -> bool:
    sessions.log_out(call.plane, call.who)
    return True


@routes.get(
    "/auth",
    requires=PUBLIC,
    statuses=(401, 403),
    hashes=True,
    summary="Check HTTP Basic credentials of an administrator",
)
def authorize_basic(call: Call) -> Reply:
    given = _basic()
    sessions.check_basic(
        call.plane, call.who.origin, given.username if given else None, given.password if given else None
    )
    return Reply(None, message="Authorized.")


def _basic() -> Authorization | None:
    """The credentials, or None where there are none that can be read."""
    try:
        return request.authorization
    except ValueError:
        # werkzeug reads base64 from text, and no letter of that is beyond ASCII.
        return None


@routes.get("/version", requires=ADMINISTRATOR, data=VersionShape, summary="The running version")
def version(call: Call) -> dict[str, str]:
    return {"version": version_text()}


@routes.get("/public-key", requires=PUBLIC, data=dict[str, str], summary="The public key for passwords on the wire")
def public_key(call: Call) -> dict[str, str]:
    return {"public_key": call.plane.keys.public_pem}
