"""The sessions of accounts, as administrators see and end them."""

from __future__ import annotations

from typing import Any

from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.http.session_routes import Ended, SessionListQuery, SessionPage
from common.services import session_lists

routes = Routes("session", "admin", "/api/v1/admin")


@routes.get(
    "/users/<email>/sessions",
    requires=Holds("session", "read"),
    query=SessionListQuery,
    data=SessionPage,
    statuses=(404,),
    summary="List an account's open sessions, newest first",
)
def list_sessions(call: Call, email: str) -> dict[str, Any]:
    return session_lists.page_of_user(call.plane, call.who, email, **call.query.model_dump())


@routes.delete(
    "/users/<email>/sessions",
    requires=Holds("session", "delete"),
    data=Ended,
    statuses=(404,),
    summary="End all sessions of an account; to end one's own takes the password, as it does on /api/v1/sessions",
)
def end_sessions(call: Call, email: str) -> Reply:
    ended = session_lists.end_all_of_user(call.plane, call.who, email)
    return Reply({"ended": ended}, message=f"Ended {ended} session(s) of {email}.")


@routes.delete(
    "/users/<email>/sessions/<session_id>",
    requires=Holds("session", "delete"),
    statuses=(404,),
    summary="End one session of an account; one of one's own takes the password, as it does on /api/v1/sessions",
)
def end_session(call: Call, email: str, session_id: str) -> Reply:
    session_lists.end_of_user(call.plane, call.who, email, session_id)
    return Reply(message="The session is ended.")
