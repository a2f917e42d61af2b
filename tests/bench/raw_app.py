"""R0, the reference: the least that an authenticated read can be, a hash, a look-up and about 250 bytes of JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from common.http.bridge import Bridge

TOKEN = "ragflow-" + "r" * 43
PATH = "/"

_USER = {
    "email": "user-0000001@bench.ragkeeper.test",
    "nickname": "User 1",
    "create_date": "Tue, 22 Sep 2026 06:13:20 GMT",
    "is_active": "1",
    "is_superuser": False,
    "role": "member",
    "status": "1",
}
_KNOWN = {hashlib.sha256(TOKEN.encode()).hexdigest(): _USER}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer 200 with the user behind the bearer token, or 401."""
    token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
    user = _KNOWN.get(hashlib.sha256(token.encode()).hexdigest())
    if user is None:
        start_response("401 Unauthorized", [("Content-Length", "0")])
        return []
    body = orjson.dumps({"code": 0, "message": "Success", "data": user})
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def bridged() -> Bridge:
    """The same app as the product serves its own."""
    return Bridge(app, fixed={}, max_body=1024, drain_s=0)
