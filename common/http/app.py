"""Builds a Flask app out of declared routes: identify, authorize, validate, call, answer, log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from common.core.errors import (
    BadField,
    ForeignTenant,
    NotSignedIn,
    NotYourTenant,
    PasswordChangeDue,
    PlaneError,
    StoreUnavailable,
)
from common.core.permissions import Permission
from common.http import access, answers, bodies, counted, cross_origin, forwarded, session_cookie
from common.http.answers import Answer
from common.http.dispatch import DirectFlask
from common.http.requirement import Holds, Public
from common.http.route import Call, Dialect, Route
from common.http.seldom import Seldom
from common.http.wsgi_types import Environ
from common.services import memberships, misuse, proving, refusals, sessions
from common.services.misuse import Misused
from common.services.plane import Plane
from common.services.principal import Origin, Principal, Realm, stranger
from common.stores.waiting import refuse_on_event_loop

log = logging.getLogger("ragkeeper")


def build_app(plane: Plane, realm: Realm, routes: Iterable[Route]) -> Flask:
    """The app of one port. Raises ValueError at start for a route that names no requirement."""
    app = DirectFlask(f"ragkeeper-{realm}", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = plane.settings.max_content_length
    app.url_map.strict_slashes = False
    # A path with an empty part is an unknown one. The router would redirect, to a host that the caller named.
    app.url_map.merge_slashes = False
    app.extensions["ragkeeper"] = plane
    served = list(routes)
    app.extensions["ragkeeper.routes"] = served
    by_endpoint = {}
    for route in served:
        if getattr(route.requires, "check", None) is None:
            raise ValueError(f"{route.endpoint} names no requirement")
        by_endpoint[route.endpoint] = route
        app.add_url_rule(
            route.rule,
            endpoint=route.endpoint,
            view_func=_view(plane, realm, route),
            methods=[route.method],
            provide_automatic_options=False,
        )
    for rule in app.url_map.iter_rules():
        if by_endpoint[rule.endpoint].changes and rule.methods:
            # HEAD is to change nothing (RFC 9110, 9.2.1), though RAGFlow lets a GET.
            rule.methods.discard("HEAD")
    _answer_errors(app, realm, by_endpoint)
    app.refuse_hooks()
    # RAGFlow's user API may be used by pages of any origin; credentials are in a header that no browser adds by itself.
    front = cross_origin.readable_anywhere(app.wsgi_app) if realm == "user" else app.wsgi_app
    # Outermost, so that access lines, sessions and audit events have the client's address and not a proxy's.
    app.wsgi_app = forwarded.behind_proxies(  # type: ignore[method-assign]
        access.logging_access(front), plane.settings.trusted_proxies
    )
    return app


def _view(plane: Plane, realm: Realm, route: Route) -> Callable[..., Answer]:
    public = isinstance(route.requires, Public)
    needs = Permission(route.requires.resource, route.requires.action) if isinstance(route.requires, Holds) else None

    def view(**path: str) -> Answer:
        bodies.check_path(path)
        environ = request.environ
        environ[access.ROUTE] = route.rule
        try:
            who = stranger(_origin(environ)) if public else _identify(plane, realm, route, needs, environ)
        except Misused as misused:
            access.record_aside(environ, partial(misuse.record, plane, route.endpoint, misused))
            raise
        except refusals.REFUSED as error:
            access.record_aside(
                environ,
                partial(
                    refusals.record,
                    plane,
                    environ[access.WHO],
                    route.endpoint,
                    _named(realm, path),
                    _asked(route),
                    error,
                ),
            )
            raise
        if not public:
            # Not on public routes: pings and probes must not depend on a store that they don't ask about.
            plane.level_watch.follow_aside(plane.cache)
        try:
            return _admitted(plane, route, who, path)
        except Misused as misused:
            access.record_aside(environ, partial(misuse.record, plane, route.endpoint, misused))
            raise
        except refusals.REFUSED as error:
            if not public:
                named, asked = _named(realm, path), _asked(route)
                access.record_aside(environ, partial(refusals.record, plane, who, route.endpoint, named, asked, error))
            raise

    return view


def _named(realm: Realm, path: dict[str, str]) -> dict[str, str]:
    """What a request names apart from its body: by its path, and the tenant that it wants to act in, which on the admin
    server nobody does."""
    tenant_id = request.environ.get("HTTP_X_TENANT") if realm == "user" else None
    return path if tenant_id is None else {**path, refusals.TENANT: tenant_id}


def _asked(route: Route) -> dict[str, str | list[str]]:
    """What body and query say in the fields that the route declares as names; nothing of what can't be read."""
    found: dict[str, str | list[str]] = {}
    for read in (bodies.read_query, bodies.read_body) if route.names else ():
        try:
            given = read(request, route)
        except (PlaneError, HTTPException):
            continue
        for name in route.names:
            value = getattr(given, name) if given is not None and name in given.model_fields_set else None
            if value:
                found[name] = value if isinstance(value, str) else list(value)
    return found


def _admitted(plane: Plane, route: Route, who: Principal, path: dict[str, str]) -> Answer:
    """Raises Forbidden both where the route's requirement refuses and where the use-case's own rule does."""
    if route.method != "GET":
        session_cookie.refuse_foreign_pages(request.environ)
    if not route.fields_first:
        route.requires.check(plane, who, path)
    if route.sensitive:
        proving.require_recent_proof(plane, who)
    body, query = bodies.read_body(request, route), bodies.read_query(request, route)
    upload = bodies.read_upload(request, route.uploads) if route.uploads else b""
    if route.fields_first:
        route.requires.check(plane, who, path)
    return answers.success(route, route.function(Call(plane, who, body, query, upload), **path))


def _identify(plane: Plane, realm: Realm, route: Route, needs: Permission | None, environ: Environ) -> Principal:
    given = session_cookie.given(environ, takes_cookie=not (route.changes and route.method == "GET"))
    if given is None:
        raise NotSignedIn("Unauthorized")
    who = sessions.authenticate(plane, given.credential, realm, _origin(environ, needs))
    environ[access.WHO] = who
    if given.by_cookie:
        if who.session_id is None:
            raise NotSignedIn("Unauthorized")
        session_cookie.keep(environ, given.credential)
    if who.must_change and not route.even_if_password_due:
        raise PasswordChangeDue
    if realm == "user":
        return _counted(plane, who, environ)
    if who.token_id is not None:
        counted.count(plane, who, environ)
    return who


def _counted(plane: Plane, who: Principal, environ: Environ) -> Principal:
    """The caller in the tenant that is named, in which the call counts; at home for one that is not theirs."""
    tenant_id = environ.get("HTTP_X_TENANT")
    try:
        acting = who if tenant_id is None else memberships.act_in(plane, who, tenant_id)
    except NotYourTenant as error:
        counted.count(plane, who, environ)
        raise ForeignTenant from error
    counted.count(plane, acting, environ)
    return acting


def _origin(environ: Environ, needs: Permission | None = None) -> Origin:
    return Origin(environ.get("REMOTE_ADDR"), environ.get("HTTP_USER_AGENT"), environ[access.REQUEST_ID], needs)


def request_id() -> str:
    """The id of the current request."""
    return cast(str, request.environ[access.REQUEST_ID])


def _answer_errors(app: Flask, realm: Realm, by_endpoint: dict[str, Route]) -> None:
    # Each request that an outage refuses has its access line.
    seldom = Seldom()

    def dialect() -> Dialect:
        route = by_endpoint.get(request.endpoint or "")
        if route is None or route.dialect == "bare":
            return "admin" if realm == "admin" else "own"
        return route.dialect

    @app.errorhandler(PlaneError)
    def typed(error: PlaneError) -> Response:
        if isinstance(error, StoreUnavailable):
            # Whoever reads the log may keep its writers waiting.
            refuse_on_event_loop()
            if seldom.is_due(error.store, error.reason):
                log.warning("store %s unavailable: %s", error.store, error.reason)
        return answers.failure(error, dialect(), request)

    @app.errorhandler(HTTPException)
    def routed(error: HTTPException) -> Response:
        if error.code == 405 and request.method == "OPTIONS":
            return answers.options(error)
        if error.code == 400 and dialect() == "ragflow":
            return answers.failure(BadField(str(error.description)), "ragflow", request)
        return answers.routing_failure(error, dialect(), request)

    @app.errorhandler(Exception)
    def unforeseen(error: Exception) -> Response:
        refuse_on_event_loop()
        log.exception("unforeseen error, request %s %s", request.method, request.path)
        message = f"Something went wrong on this side; the log has it under request id {request_id()}."
        return answers.failure(PlaneError(message), "own", request)
