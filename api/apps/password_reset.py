"""A forgotten password, in RAGFlow's three forms: of 0.22, of 0.23 to 0.25, and below ``/api/v1/auth``."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Response
from pydantic import Field

from common.http.bodies import Body, Query
from common.http.fields import WirePassword
from common.http.requirement import PUBLIC
from common.http.route import Call, Reply, Routes
from common.http.signing_in import login_headers
from common.services import captcha_image, password_reset, profile

routes = Routes("user", "ragflow")

Address = Annotated[str, Field(min_length=1, max_length=255, description="An e-mail address.")]
Code = Annotated[str, Field(min_length=1, max_length=64, description="As typed; case does not matter.")]
NewPassword = Annotated[
    WirePassword,
    Field(min_length=1, description="base64 of the plain text, the plain text, or RAGFlow's encrypted form."),
]


class Forgetful(Query):
    """Who forgot."""

    email: Address


class CodeWish(Body):
    """The address and what the image said."""

    email: Address
    captcha: Code


class MailedCode(Body):
    """The address and the code that was mailed to it."""

    email: Address
    otp: Code


class NewPasswords(Body):
    """A new password, twice, for an address whose code was verified; or with the code itself."""

    email: Address
    new_password: NewPassword
    confirm_new_password: NewPassword
    otp: Code | None = None


class CodeAndPasswords(NewPasswords):
    """Code and new password at once."""

    otp: Code


_IMAGE: dict[str, Any] = {
    "requires": PUBLIC,
    "query": Forgetful,
    "media_type": captcha_image.MEDIA_TYPE,
    "summary": "An image to be read by whoever forgot a password",
}


@routes.get("/v1/user/forget/captcha", **_IMAGE)
@routes.post("/api/v1/auth/password/forgot/captcha", **_IMAGE)
def captcha(call: Call) -> Response:
    image = password_reset.captcha(call.plane, call.query.email)
    return Response(image, mimetype=captcha_image.MEDIA_TYPE, headers={"Cache-Control": "no-store"})


@routes.post(
    "/v1/user/forget/otp",
    "/api/v1/auth/password/forgot/otp",
    requires=PUBLIC,
    body=CodeWish,
    data=bool,
    summary="Mail a code to an address whose image was read",
)
def send_code(call: Call) -> Reply:
    password_reset.send_code(call.plane, call.who.origin, call.body.email, call.body.captcha)
    return Reply(True, message="If the address belongs to an account, a code is on its way.")


@routes.post(
    "/v1/user/forget/verify-otp",
    "/api/v1/auth/password/forgot/otp/verify",
    requires=PUBLIC,
    body=MailedCode,
    data=bool,
    summary="Verify the mailed code, before the new password is sent by the same client",
)
def verify(call: Call) -> Reply:
    password_reset.verify(call.plane, call.who.origin, call.body.email, call.body.otp)
    return Reply(True, message="The code is right.")


_RESETTING: dict[str, Any] = {
    "requires": PUBLIC,
    "data": dict[str, Any],
    "hashes": True,
    "summary": "Set a new password and log in",
}


@routes.post("/v1/user/forget", body=CodeAndPasswords, **_RESETTING)
@routes.post("/v1/user/forget/reset-password", "/api/v1/auth/password/reset", body=NewPasswords, **_RESETTING)
def reset(call: Call) -> Reply:
    body = call.body
    who, wire = password_reset.reset(
        call.plane, call.who.origin, body.email, body.new_password, body.confirm_new_password, body.otp
    )
    return Reply(
        profile.own_profile(call.plane, who),
        message="The password is changed. Welcome back!",
        headers=login_headers(wire),
    )
