"""The audit trail."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Response
from pydantic import Field

from common.core.audit_filter import moment_ms
from common.core.audit_tags import EventTag
from common.http.bodies import Query
from common.http.fields import Cursor, Digits, Item, PageLimit
from common.http.requirement import Holds
from common.http.route import Call, Routes
from common.services import audit_trail
from common.services.audit_trail import Filter

routes = Routes("audit", "admin", "/api/v1/admin")

Name = Annotated[str, Field(min_length=1, max_length=255)]
Moment = Annotated[str, Field(max_length=64, description="RFC 3339 with an offset, such as 2026-11-25T08:30:00Z.")]


class AuditQuery(Query):
    """A page of events, newest first. ``actor`` is an e-mail or an account's id, ``target`` the whole name of what was
    acted on, ``q`` what the name of either begins with; events are from ``from`` on and before ``to``.
    """

    limit: PageLimit = 50
    cursor: Cursor | None = None
    actor: Name | None = None
    tag: EventTag | None = None
    target: Name | None = None
    from_: Annotated[Moment | None, Field(alias="from")] = None
    to: Moment | None = None
    q: Name | None = None


class Event(Item):
    """Who did what to whom, from where and with what result; ``before`` and ``after`` are what changed, secrets as
    ``***``.
    """

    id: str
    at: str
    tag: EventTag
    result: str
    actor_id: str | None
    actor: str | None
    actor_roles: list[str]
    credential: str | None
    address: str | None
    agent: str | None
    request_id: str | None
    target_kind: str | None
    target: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class EventPage(Item):
    """A page of events. It may have fewer than it could and not be the last one, which has no ``next_cursor``."""

    events: list[Event]
    next_cursor: str | None


class ExportQuery(Query):
    """Events from ``from`` on and before ``to``, oldest first; ``cursor`` is X-Next-Cursor of the answer before."""

    format: audit_trail.Form = "jsonl"
    from_: Annotated[Moment | None, Field(alias="from")] = None
    to: Moment | None = None
    limit: Annotated[int, Digits, Field(ge=1, le=5000)] = 1000
    cursor: Cursor | None = None


@routes.get(
    "/audit/export",
    requires=Holds("audit", "export"),
    query=ExportQuery,
    data=str,
    media_type="application/x-ndjson",
    dialect="bare",
    changes=True,
    summary="Export audit events with their signatures, as lines of JSON or CSV; that is an event itself",
)
def export_events(call: Call) -> Response:
    asked = call.query
    content, more = audit_trail.export_page(
        call.plane,
        call.who,
        asked.format,
        from_ms=_moment(asked.from_, "from"),
        to_ms=_moment(asked.to, "to"),
        limit=asked.limit,
        cursor=asked.cursor,
    )
    form = "text/csv; charset=utf-8" if asked.format == "csv" else "application/x-ndjson"
    return Response(content, content_type=form, headers={"X-Next-Cursor": more} if more else None)


def _moment(text: str | None, field: str) -> int | None:
    return moment_ms(text, field=field) if text is not None else None


@routes.get("/audit", requires=Holds("audit", "read"), query=AuditQuery, data=EventPage, summary="List audit events")
def list_events(call: Call) -> dict[str, Any]:
    asked = call.query
    wanted = Filter(
        actor=asked.actor,
        tag=asked.tag,
        target=asked.target,
        from_ms=_moment(asked.from_, "from"),
        to_ms=_moment(asked.to, "to"),
        q=asked.q,
    )
    return audit_trail.page(call.plane, wanted, limit=asked.limit, cursor=asked.cursor)
