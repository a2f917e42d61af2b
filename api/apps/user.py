"""Accounts, as their owners use them: login, registration, profile."""

from __future__ import annotations

from typing import Annotated, Any

from flask import request
from pydantic import Field

from common.core.errors import LoginRefused
from common.http import session_cookie
from common.http.bodies import Body
from common.http.fields import EmailText, WirePassword
from common.http.requirement import IDENTIFIED, PUBLIC, SIGNED_IN
from common.http.route import Call, Reply, Routes
from common.http.signing_in import SessionWish, logged_in, login_headers
from common.services import profile, sessions

routes = Routes("user", "ragflow")


class Login(SessionWish):
    """E-mail and password (an absent one is refused like a wrong one), and how the session is to be held."""

    email: EmailText = ""
    password: WirePassword = ""


class Registration(Body):
    """A new account."""

    nickname: Annotated[str, Field(max_length=1024)]
    email: EmailText
    password: WirePassword


class ProfileChange(Body):
    """What to change of one's own row: null empties all but the nickname, a new password needs the current one."""

    nickname: Annotated[str, Field(max_length=1024)] | None = None
    avatar: Annotated[str, Field(max_length=60_000)] | None = None
    language: Annotated[str, Field(max_length=32)] | None = None
    color_schema: Annotated[str, Field(max_length=32)] | None = None
    timezone: Annotated[str, Field(max_length=64)] | None = None
    password: WirePassword | None = None
    new_password: WirePassword | None = None


@routes.post(
    "/v1/user/login",
    "/api/v1/auth/login",
    requires=PUBLIC,
    body=Login,
    data=dict[str, Any],
    hashes=True,
    summary="Log in",
)
def login(call: Call) -> Reply:
    if not call.body.email:
        raise LoginRefused
    return logged_in(call, "user")


@routes.post(
    "/v1/user/register",
    "/api/v1/users",
    requires=PUBLIC,
    body=Registration,
    data=dict[str, Any],
    hashes=True,
    summary="Register and log in; or ask for an account, where an administrator has to agree",
)
def register(call: Call) -> Reply:
    session = profile.register(
        call.plane,
        call.who.origin,
        email=call.body.email,
        nickname=call.body.nickname,
        password=call.body.password,
    )
    if session is None:
        # Whoever asks is told the same whether or not the address has an account.
        told = "Your registration awaits an administrator's approval. You can log in once it is given."
        return Reply({"awaits_approval": True}, message=told)
    who, wire = session
    return Reply(
        profile.own_profile(call.plane, who),
        message=f"{who.nickname}, welcome aboard!",
        headers=login_headers(wire),
    )


@routes.add(
    "GET POST",
    "/v1/user/logout",
    "/api/v1/auth/logout",
    requires=SIGNED_IN,
    data=bool,
    even_if_password_due=True,
    changes=True,
    summary="End this session",
)
def logout(call: Call) -> Reply:
    sessions.log_out(call.plane, call.who)
    return Reply(True, headers=session_cookie.clearing(request.environ))


@routes.get("/v1/user/info", "/api/v1/users/me", requires=IDENTIFIED, data=dict[str, Any], summary="One's own profile")
def info(call: Call) -> dict[str, Any]:
    return profile.own_profile(call.plane, call.who)


_CHANGING: dict[str, Any] = {
    "requires": SIGNED_IN,
    "body": ProfileChange,
    "data": bool,
    "even_if_password_due": True,
    "hashes": True,
    "summary": "Change one's own profile or password",
}


@routes.add("POST", "/v1/user/setting", **_CHANGING)
@routes.add("PATCH", "/api/v1/users/me", **_CHANGING)
def setting(call: Call) -> bool:
    changes = call.body.model_dump(exclude={"password", "new_password"}, exclude_unset=True)
    profile.update_profile(
        call.plane, call.who, changes, password=call.body.password, new_password=call.body.new_password
    )
    return True
