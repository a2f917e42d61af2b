"""The admin server's app."""

from __future__ import annotations

from flask import Flask

from admin.server.routes import (
    approvals,
    assignments,
    audit,
    deletion,
    features,
    jobs,
    keys,
    limits,
    reset_links,
    roles,
    services,
    session,
    sessions,
    settings,
    system,
    tenants,
    users,
    whitelist,
)
from common.http import document_routes, health_routes
from common.http.app import build_app
from common.http.requirement import ADMINISTRATOR
from common.http.route import Route, all_routes
from common.http.session_routes import session_routes
from common.services.plane import Plane


def admin_routes() -> list[Route]:
    """Every route of port 9381."""
    return all_routes(
        (
            document_routes.routes,
            health_routes.routes,
            approvals.routes,
            assignments.routes,
            audit.routes,
            deletion.routes,
            features.routes,
            jobs.routes,
            keys.routes,
            limits.routes,
            reset_links.routes,
            roles.routes,
            services.routes,
            session.routes,
            session_routes("admin", "admin", ADMINISTRATOR),
            sessions.routes,
            settings.routes,
            system.routes,
            tenants.routes,
            users.routes,
            whitelist.routes,
        )
    )


def create_app(plane: Plane) -> Flask:
    """The admin server on an opened plane."""
    return build_app(plane, "admin", admin_routes())
