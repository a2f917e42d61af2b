"""Liveness, answered in front of Flask: it touches nothing, so it says only that this process takes requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_ALIVE = b'{"status":"ok"}'


def answering_probes(app: Application) -> Application:
    """The app with ``GET /livez`` and ``HEAD /livez`` answered before it."""

    def front(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/livez" and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(_ALIVE))),
                ("Cache-Control", "no-store"),
            ]
            start_response("200 OK", headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [_ALIVE]
        return app(environ, start_response)

    return front
