"""What gunicorn loads for port 9380."""

from __future__ import annotations

from api.app import create_app
from common.http.bridge import PONG, Bridge
from common.http.serving import opened_plane, served


def application() -> Bridge:
    """The user API on the configured stores; liveness and pings are answered before Flask."""
    plane, once_open = opened_plane(make_administrator=False)
    return served(plane, create_app(plane), {"/v1/system/ping": PONG, "/api/v1/system/ping": PONG}, once_open)
