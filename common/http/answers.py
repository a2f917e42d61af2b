"""Answers: the envelope, RAGFlow's two dialects of errors, and problem details for those who ask for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Union

import orjson
from flask import Request, Response
from werkzeug.exceptions import HTTPException, Unauthorized
from werkzeug.http import HTTP_STATUS_CODES

from common.core import limits
from common.core.errors import NotSignedIn, PlaneError, TooMany
from common.http.early import PROBLEM
from common.http.route import Dialect, Reply, Route
from common.http.wsgi_types import Environ

# RAGFlow's business codes, which its user routes send with HTTP 200.
_BUSINESS_CODES = range(10, 110)
_PIECE = 500
# With these its clients look for false where the answer would have been true.
_FALSE_DATA = (10, 109)
_UNAUTHORIZED_TEXT = "<Unauthorized '401: Unauthorized'>"


Answer = Union[Response, "JsonAnswer"]


class JsonAnswer:
    """What a route gave, as JSON: the answer to most requests, without what a ``Response`` can be asked and told, which
    is most of its cost."""

    __slots__ = ("_content", "_headers", "_status")

    def __init__(self, body: Any, status: int, headers: dict[str, str]) -> None:
        self._content = _encoded(body)
        self._status = status
        self._headers = headers

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(self._content)))]
        headers.extend(self._headers.items())
        start_response(f"{self._status} {HTTP_STATUS_CODES[self._status]}", headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else (self._content,)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; ``body`` may hold iterators, which are sent as lists, and whose typed errors are raised."""
    return Response(_encoded(body), status, headers, content_type="application/json")


def _encoded(body: Any) -> bytes:
    try:
        return orjson.dumps(body, default=_plain)
    except orjson.JSONEncodeError as error:
        # What an iterator raises has gone through orjson, which calls it something that it can't write.
        if isinstance(error.__cause__, PlaneError):
            raise error.__cause__ from None
        raise


def success(route: Route, result: Any) -> Answer:
    """What a route function gave, in the envelope of its dialect; a Response is sent as it is."""
    if isinstance(result, Response):
        return result
    reply = result if isinstance(result, Reply) else Reply(result)
    if route.dialect == "bare":
        return JsonAnswer(reply.data, reply.status, reply.headers)
    default = "Success" if route.dialect == "admin" else "success"
    body = {"code": 0, "message": reply.message or default, "data": reply.data}
    return JsonAnswer(body, reply.status, reply.headers)


def failure(error: PlaneError, dialect: Dialect, request: Request) -> Response:
    """A typed error as the caller's dialect says it; a message about a field names the field."""
    headers = {}
    if error.field and error.field not in error.message:
        error.message = f"{error.field}: {error.message}"
    if isinstance(error, TooMany):
        headers["Retry-After"] = str(math.ceil(error.data["resets_in"]))
        if error.policy is not None:
            headers |= limits.headers(error.policy, error.data["resets_in"])
    as_problem = wants_problem(request)
    is_business = not as_problem and dialect == "ragflow" and error.code in _BUSINESS_CODES
    if error.status == 401 and not is_business:
        headers["WWW-Authenticate"] = "Bearer"
    if as_problem:
        return _problem(error, dialect, headers)
    if is_business:
        body = {"code": error.code, "message": error.message, "data": False if error.code in _FALSE_DATA else None}
        return json_response(body, 200, headers)
    if isinstance(error, NotSignedIn):
        if dialect == "admin" and not wants_json(request):
            return _html(Unauthorized())
        message = error.message if dialect == "admin" else _UNAUTHORIZED_TEXT
        return json_response({"code": 401, "message": message, "data": None}, 401, headers)
    body = {"code": error.status, "message": error.message, "data": None, **_asking(error)}
    return json_response(body, error.status, headers)


def _asking(error: PlaneError) -> dict[str, str]:
    """What programs are told to do about the error, where they can do something."""
    return {} if error.asks_for is None else {"reason": error.asks_for}


def options(error: HTTPException) -> Response:
    """The answer to OPTIONS on a known path (RFC 9110, 9.3.7): which methods it has, and no body."""
    return Response(status=204, headers={"Allow": ", ".join(sorted({*_methods(error), "OPTIONS"}))})


def routing_failure(error: HTTPException, dialect: Dialect, request: Request) -> Response:
    """An answer of the router or the body reader: unknown path, unknown method, body too large, malformed request."""
    status = error.code or 500
    name = HTTP_STATUS_CODES.get(status, "Error")
    allowed = _methods(error)
    headers = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
    message = f"Not Found: {request.path}" if status == 404 else f"{name}: {error.description}"
    if wants_problem(request):
        body: dict[str, Any] = {"type": "about:blank", "title": name, "status": status, "detail": message}
        response = json_response(body, status, headers)
        response.mimetype = PROBLEM
        return response
    body = {"code": status, "message": message, "data": None}
    if dialect != "admin" and status == 404:
        body["error"] = "Not Found"
    return json_response(body, status, headers)


def _methods(error: HTTPException) -> list[str]:
    """The methods that a path has, where that is what the router found wrong."""
    return list(getattr(error, "valid_methods", None) or ())


def wants_problem(request: Request) -> bool:
    """Whether the caller asked for RFC 9457 problem details."""
    return PROBLEM in request.headers.get("Accept", "")


def wants_json(request: Request) -> bool:
    """Whether an unauthenticated caller of the admin server can read JSON; others get RAGFlow's HTML page."""
    return request.headers.get("User-Agent", "").startswith(
        "RAGFlow-CLI/"
    ) or "application/json" in request.headers.get("Accept", "")


def _problem(error: PlaneError, dialect: Dialect, headers: dict[str, str]) -> Response:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES.get(error.status, "Error"),
        "status": error.status,
        "detail": error.message,
        # As in the envelope.
        "code": error.code if dialect == "ragflow" else error.status,
        **_asking(error),
    }
    if error.field:
        body["field"] = error.field
    response = json_response(body, error.status, headers)
    response.mimetype = PROBLEM
    return response


def _html(error: HTTPException) -> Response:
    response = Response(error.get_body(), error.code, mimetype="text/html")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _plain(value: object) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Iterator):
        return orjson.Fragment(_in_pieces(value))
    raise TypeError(f"{type(value).__name__} can't stand in an answer")


def _in_pieces(items: Iterator[Any]) -> bytes:
    """A JSON array of what comes, of which only a piece at a time exists as objects."""
    written = bytearray(b"[")
    while piece := list(islice(items, _PIECE)):
        written += orjson.dumps(piece, default=_plain)[1:-1] + b","
    written[-1:] = b"]" if len(written) > 1 else b"[]"
    return bytes(written)
