"""Speaking HTTP to a server: deadlines, and errors that say what to do."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from common.cli import profile
from common.cli.console import fail

TIMEOUT = httpx.Timeout(30.0, connect=3.0)
ADMIN = "/api/v1/admin"


def part(value: str) -> str:
    """A value as one part of a path."""
    return quote(value, safe="@")


def admin(method: str, path: str, body: Any = None, query: dict[str, Any] | None = None) -> Any:
    """Ask the admin server, below /api/v1/admin, with the stored session; the answer's ``{data, message}``.

    Ends the command with a sentence when it fails.
    """
    stored = profile.load()
    answer = send(method, stored.url + ADMIN + path, body, query, {"Authorization": stored.session})
    if answer.status_code == 401:
        fail(f"the session has ended; run `ragkeeper login {stored.url}`.")
    return _checked(answer)


def send(
    method: str,
    url: str,
    body: Any = None,
    query: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """One request; ends the command with a sentence when the server can't be reached."""
    given = {name: value for name, value in (query or {}).items() if value is not None}
    try:
        return httpx.request(
            method,
            url,
            json=body,
            params=given or None,
            headers={"Accept": "application/json", **(headers or {})},
            timeout=TIMEOUT,
            trust_env=False,
        )
    except httpx.TimeoutException:
        fail(f"{url} did not answer in time; is the server healthy? Try `ragkeeper health`.")
    except (httpx.TransportError, httpx.InvalidURL) as error:
        fail(f"{url} can't be reached ({error}); is it running, and is the address right?")


def _checked(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
        code, message = body["code"], body["message"]
    except (ValueError, KeyError, TypeError):
        fail(f"{answer.url} answered with status {answer.status_code} and no Ragkeeper envelope; is the address right?")
    if answer.status_code != 200 or code != 0:
        fail(message)
    return {"data": body.get("data"), "message": message}
