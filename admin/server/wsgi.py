"""What gunicorn loads for port 9381."""

from __future__ import annotations

from admin.server.app import create_app
from common.http.probes import answering_probes
from common.http.serving import Application, opened_plane


def application() -> Application:
    """The admin server on the configured stores, probes answered before Flask."""
    return answering_probes(create_app(opened_plane()))
