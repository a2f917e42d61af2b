"""The audit trail."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.core.audit_filter import moment_ms
from common.core.audit_tags import EventTag
from common.http.bodies import Query
from common.http.fields import Cursor, Item, PageLimit
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


@routes.get("/audit", requires=Holds("audit", "read"), query=AuditQuery, data=EventPage, summary="List audit events")
def list_events(call: Call) -> dict[str, Any]:
    asked = call.query
    wanted = Filter(
        actor=asked.actor,
        tag=asked.tag,
        target=asked.target,
        from_ms=moment_ms(asked.from_, field="from") if asked.from_ is not None else None,
        to_ms=moment_ms(asked.to, field="to") if asked.to is not None else None,
        q=asked.q,
    )
    return audit_trail.page(call.plane, wanted, limit=asked.limit, cursor=asked.cursor)
