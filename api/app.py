"""The user API's app."""

from __future__ import annotations

from flask import Flask

from api.apps import (
    authz,
    features,
    forward,
    langfuse,
    password_reset,
    reset_link,
    statistics,
    system,
    tenant,
    token,
    user,
)
from common.http import document_routes, health_routes
from common.http.app import build_app
from common.http.requirement import SIGNED_IN
from common.http.route import Route, all_routes
from common.http.session_routes import session_routes
from common.services.plane import Plane


def user_routes() -> list[Route]:
    """Every route of port 9380."""
    return all_routes(
        (
            document_routes.routes,
            health_routes.routes,
            authz.routes,
            features.routes,
            forward.routes,
            langfuse.routes,
            password_reset.routes,
            reset_link.routes,
            session_routes("own", "user", SIGNED_IN),
            statistics.routes,
            system.routes,
            tenant.routes,
            token.routes,
            user.routes,
        )
    )


def create_app(plane: Plane) -> Flask:
    """The user API on an opened plane. Raises SettingsError for a table of RAGFlow's routes that can't be used."""
    if plane.settings.forward_auth_secret is not None:
        plane.route_file.table()
    return build_app(plane, "user", user_routes())
