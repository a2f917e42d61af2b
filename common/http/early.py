"""Answers that are given in front of the apps, or because they can't be asked: the envelope, or problem details."""

from __future__ import annotations

from http import HTTPStatus

import orjson

Headers = list[tuple[bytes, bytes]]

PROBLEM = "application/problem+json"


def refusal(status: int, message: str, *, accept: str = "", request_id: str = "") -> tuple[int, Headers, bytes]:
    """Status, headers and body of a refusal, in the form that the ``Accept`` header asks for."""
    if PROBLEM in accept:
        title = HTTPStatus(status).phrase
        kind, body = PROBLEM, {"type": "about:blank", "title": title, "status": status, "detail": message}
    else:
        kind, body = "application/json", {"code": status, "message": message, "data": None}
    content = orjson.dumps(body)
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if request_id:
        headers.append((b"x-request-id", request_id.encode()))
    return status, headers, content
