"""The admin server's app."""

from __future__ import annotations

from flask import Flask

from admin.server.routes import assignments, deletion, jobs, keys, roles, services, session, system, tenants, users
from common.http import document_routes, health_routes
from common.http.app import build_app
from common.http.route import Route, all_routes
from common.services.plane import Plane


def admin_routes() -> list[Route]:
    """Every route of port 9381."""
    return all_routes(
        (
            document_routes.routes,
            health_routes.routes,
            assignments.routes,
            deletion.routes,
            jobs.routes,
            keys.routes,
            roles.routes,
            services.routes,
            session.routes,
            system.routes,
            tenants.routes,
            users.routes,
        )
    )


def create_app(plane: Plane) -> Flask:
    """The admin server on an opened plane."""
    return build_app(plane, "admin", admin_routes())
