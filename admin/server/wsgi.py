"""What gunicorn loads for port 9381."""

from __future__ import annotations

from admin.server.app import create_app
from common.http.bridge import ADMIN_PONG, PONG, Bridge
from common.http.serving import opened_plane, served


def application() -> Bridge:
    """The admin server on the configured stores; liveness and pings are answered before Flask."""
    plane, once_open = opened_plane(make_administrator=True)
    pings = {"/api/v1/admin/ping": ADMIN_PONG, "/v1/system/ping": PONG, "/api/v1/system/ping": PONG}
    return served(plane, create_app(plane), pings, once_open)
