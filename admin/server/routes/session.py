"""Logging in and out on the admin server."""

from __future__ import annotations

from typing import Any

from flask import request
from werkzeug.datastructures import Authorization

from common.http import session_cookie
from common.http.fields import EmailText, Item, WirePassword
from common.http.requirement import ADMINISTRATOR, PUBLIC, SIGNED_IN
from common.http.route import Call, Reply, Routes
from common.http.signing_in import SessionWish, logged_in
from common.services import sessions
from common.version import version_text

routes = Routes("session", "admin", "/api/v1/admin")


class Login(SessionWish):
    """E-mail and password, and how the session is to be held."""

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
    statuses=(401, 403, 429),
    hashes=True,
    summary="Log in as administrator; a bare session is in the Authorization header of the answer",
)
def login(call: Call) -> Reply:
    # Beside RAGFlow's fields: where the command finds the other server, of whose port nothing else tells.
    return logged_in(call, "admin", api_port=call.plane.settings.api_port)


@routes.add(
    "GET POST",
    "/logout",
    requires=SIGNED_IN,
    data=bool,
    even_if_password_due=True,
    changes=True,
    summary="End this session",
)
def logout(call: Call) -> Reply:
    sessions.log_out(call.plane, call.who)
    return Reply(True, headers=session_cookie.clearing(request.environ))


@routes.get(
    "/auth",
    requires=PUBLIC,
    statuses=(401, 403, 429),
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


@routes.get("/version", requires=ADMINISTRATOR.within("any"), data=VersionShape, summary="The running version")
def version(call: Call) -> dict[str, str]:
    return {"version": version_text()}


@routes.get("/public-key", requires=PUBLIC, data=dict[str, str], summary="The public key for passwords on the wire")
def public_key(call: Call) -> dict[str, str]:
    return {"public_key": call.plane.keys.public_pem}
