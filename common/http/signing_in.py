"""How a client gets its session: as one bare token, in a cookie, or as access and refresh token."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from flask import request

from common.core.csrf import csrf_token
from common.core.errors import BadField, UnsupportedBody
from common.http import session_cookie
from common.http.bodies import Body
from common.http.route import Call, Reply
from common.services import profile, refreshing, sessions
from common.services.principal import Principal, Realm
from common.services.refreshing import Pair


class SessionWish(Body):
    """How the session is to be held; without either, as one token that lasts as long as the session."""

    grant: Literal["refresh"] | None = None
    cookie: bool = False


def logged_in(call: Call, realm: Realm, **more: Any) -> Reply:
    """Log in with the e-mail and password of the body, as it wishes; the profile with what belongs to the session.

    Raises as ``sessions.admit``, BadField for two wishes at once.
    """
    wish: Any = call.body
    who, held, headers = _open(call, wish, realm)
    data = {**profile.own_profile(call.plane, who), **held, **more}
    return Reply(data, message="Welcome back!", headers=headers)


def _open(call: Call, wish: Any, realm: Realm) -> tuple[Principal, dict[str, Any], dict[str, str]]:
    if wish.cookie and wish.grant is not None:
        raise BadField("cookie: a session in a cookie has no refresh token; ask for one of the two.", field="cookie")
    if wish.cookie and not request.is_json:
        # What a page of another site can send without asking is a form, or a text.
        raise UnsupportedBody("For a session in a cookie send the body as application/json.")
    admitted = partial(sessions.admit, call.plane, call.who.origin, wish.email, wish.password, realm)
    if wish.grant == "refresh":
        who, pair = admitted(refreshing.open_family)
        return who, pair_fields(pair), login_headers(pair.access)
    if wish.cookie:
        who, wire = admitted(partial(sessions.open_session, kind="cookie"))
        return who, {"csrf_token": csrf_token(wire)}, session_cookie.setting(request.environ, wire)
    who, wire = admitted(sessions.open_session)
    return who, {}, login_headers(wire)


def pair_fields(pair: Pair) -> dict[str, Any]:
    """A pair as clients know it (RFC 6749, 5.1)."""
    return {
        "access_token": pair.access,
        "token_type": "Bearer",
        "expires_in": pair.expires_in,
        "refresh_token": pair.refresh,
    }


def login_headers(wire: str) -> dict[str, str]:
    """The session in ``Authorization``, readable by a web client of another origin as RAGFlow's login answers are."""
    return {
        "Authorization": wire,
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Method": "*",
        "Access-Control-Allow-Headers": "*",
        "Access-Control-Expose-Headers": "Authorization",
    }
