"""One's own sessions, refreshing one and giving the password again: on both ports, in the dialect of each."""

from __future__ import annotations

from typing import Annotated, Any

from flask import request
from pydantic import Field

from common.core.session_limits import PROOF_MS
from common.http import session_cookie
from common.http.bodies import Body, Query
from common.http.fields import Cursor, Item, PageLimit, WirePassword
from common.http.requirement import PUBLIC, Requirement
from common.http.route import Call, Dialect, Reply, Routes
from common.http.signing_in import login_headers, pair_fields
from common.models.base import rfc3339
from common.services import proving, refreshing, session_lists
from common.services.principal import Realm
from common.services.session_rows import Kind


class SessionListQuery(Query):
    """A page of sessions."""

    limit: PageLimit = 50
    cursor: Cursor | None = None


class ListedSession(Item):
    """An open session; its password was given last at ``authenticated_at``, and ``current`` marks the one that asks."""

    id: str
    realm: Realm
    kind: Kind
    address: str | None
    agent: str | None
    created_at: str
    last_seen_at: str
    expires_at: str
    authenticated_at: str | None
    current: bool


class OwnSession(ListedSession):
    """A session of one's own; ``csrf_token`` is for the one that asks, if it is in a cookie."""

    csrf_token: str | None


class SessionPage(Item):
    """A page of sessions, newest first."""

    sessions: list[ListedSession]
    next_cursor: str | None


class Ended(Item):
    """How many sessions were ended."""

    ended: int


class RefreshRequest(Body):
    """The refresh token; it counts once."""

    refresh_token: Annotated[str, Field(max_length=256)]


class TokenPair(Item):
    """An access token (``expires_in`` seconds) and the refresh token that gets the next one."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str


class Proof(Body):
    """One's password."""

    password: WirePassword


class Proven(Item):
    """When the password was given, and until when that counts for what is sensitive."""

    authenticated_at: str
    until: str


def session_routes(dialect: Dialect, realm: Realm, requires: Requirement) -> Routes:
    """The routes of one port, for whoever meets ``requires`` there."""
    routes = Routes("session", dialect)

    @routes.get(
        "/api/v1/sessions",
        requires=requires,
        query=SessionListQuery,
        data=SessionPage,
        summary="List one's open sessions, newest first",
    )
    def list_sessions(call: Call) -> dict[str, Any]:
        return session_lists.own_page(call.plane, call.who, **call.query.model_dump())

    @routes.delete(
        "/api/v1/sessions",
        requires=requires,
        data=Ended,
        sensitive=True,
        summary="End all of one's sessions but this one",
    )
    def end_others(call: Call) -> dict[str, int]:
        return {"ended": session_lists.end_others(call.plane, call.who)}

    @routes.get(
        "/api/v1/sessions/<session_id>",
        requires=requires,
        data=OwnSession,
        statuses=(404,),
        # A page that was loaded anew gets here what changing the password in a cookie's session takes.
        even_if_password_due=True,
        summary="Show one of one's sessions by id, or this one as `current`",
    )
    def show_session(call: Call, session_id: str) -> dict[str, Any]:
        shown = session_lists.own(call.plane, call.who, session_id)
        return {**shown, "csrf_token": session_cookie.token_of(request.environ) if shown["current"] else None}

    @routes.delete(
        "/api/v1/sessions/<session_id>",
        requires=requires,
        statuses=(404,),
        sensitive=True,
        summary="End one of one's sessions by id, or this one as `current`",
    )
    def end_session(call: Call, session_id: str) -> Reply:
        session_lists.end_own(call.plane, call.who, session_id)
        is_this = session_id in ("current", call.who.session_id)
        return Reply(
            message="The session is ended.", headers=session_cookie.clearing(request.environ) if is_this else {}
        )

    @routes.post(
        "/api/v1/auth/refresh",
        requires=PUBLIC,
        body=RefreshRequest,
        data=TokenPair,
        statuses=(401, 403) if realm == "admin" else (401,),
        summary="Get the next access token for a refresh token, which counts once",
    )
    def refresh(call: Call) -> Reply:
        pair = refreshing.rotate(call.plane, call.who.origin, call.body.refresh_token, realm)
        return Reply(pair_fields(pair), headers=login_headers(pair.access))

    @routes.post(
        "/api/v1/auth/reauthenticate",
        requires=requires,
        body=Proof,
        data=Proven,
        statuses=(429,),
        hashes=True,
        # Changing it may ask for this.
        even_if_password_due=True,
        summary="Give one's password again, which sensitive acts ask for after ten minutes",
    )
    def reauthenticate(call: Call) -> dict[str, Any]:
        at = proving.prove(call.plane, call.who, call.body.password)
        return {"authenticated_at": rfc3339(at), "until": rfc3339(at + PROOF_MS)}

    return routes
