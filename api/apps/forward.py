"""The decision in front of RAGFlow, as a proxy asks for it: nginx's ``auth_request``, Traefik's ForwardAuth."""

from __future__ import annotations

from contextlib import suppress

from flask import Response, request

from common.core.errors import Forbidden, NotSignedIn, PasswordChangeDue, StoreUnavailable
from common.core.route_table import Rule
from common.core.tokens import extract_credential
from common.http import access, counted
from common.http.requirement import PUBLIC
from common.http.route import Call, Routes
from common.services import forwarding, sessions
from common.services.plane import Plane
from common.services.principal import Principal

routes = Routes("authorization", "bare")

SECRET = "X-Ragkeeper-Forward-Secret"
# What a proxy says of the request that it holds: nginx as the shipped file has it, and Traefik by itself.
_METHODS = ("X-Original-Method", "X-Forwarded-Method")
_TARGETS = ("X-Original-URI", "X-Forwarded-Uri")
# Some frameworks do what these say instead of what the request line does.
_OVERRIDES = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL")


RULE = "/api/v1/authz/forward"


@routes.get(
    RULE,
    requires=PUBLIC,
    statuses=(401, 403, 429),
    media_type="text/plain",
    at_once=True,
    summary="Whether a request that a proxy holds may go on to RAGFlow, and with which Authorization",
)
def forward(call: Call) -> Response:
    forwarding.check_proxy(call.plane, request.headers.get(SECRET))
    credential = extract_credential(request.headers.get("Authorization"))
    try:
        rule, target = _asked(call.plane)
    except Forbidden:
        # Nobody gets through, and no store is needed for that.
        with suppress(NotSignedIn, StoreUnavailable):
            _identified(call, credential)
        raise
    if rule.kind == "public":
        return _passed(None)
    who = _identified(call, credential)
    if who.must_change:
        raise PasswordChangeDue
    counted.count(call.plane, who, request.environ)
    return _passed(forwarding.admit(call.plane, rule, who, str(credential), target))


def _asked(plane: Plane) -> tuple[Rule, str]:
    """What the request that is held asks of its caller, and its target. Raises Forbidden where nobody gets through."""
    if any(name in request.headers for name in _OVERRIDES):
        raise Forbidden("A request that asks to be taken for another one does not go on.")
    method, target = _said(_METHODS), _said(_TARGETS)
    return forwarding.rule_of(plane, method, target), target


def _identified(call: Call, credential: str | None) -> Principal:
    """Whose credential this is, also in the access line, for it says who was refused too. Raises NotSignedIn."""
    if credential is None:
        raise NotSignedIn("Unauthorized")
    who = sessions.authenticate(call.plane, credential, "user", call.who.origin)
    request.environ[access.WHO] = who
    return who


def _passed(authorization: str | None) -> Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    return Response(status=200, headers=headers, mimetype="text/plain")


def _said(names: tuple[str, ...]) -> str:
    """What the proxy says under one of these names. Raises Forbidden where it says nothing, or two things, be it under
    one name: a client may have sent the header that this proxy doesn't write, or only adds to."""
    said = {request.headers[name] for name in names if name in request.headers}
    repeated = request.environ.get(access.REPEATED, ())
    if len(said) != 1 or any(f"HTTP_{name.upper().replace('-', '_')}" in repeated for name in names):
        raise Forbidden(f"The proxy must say one thing as {' or '.join(names)}.")
    return said.pop()
