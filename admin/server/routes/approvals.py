"""Registrations that await an administrator's decision."""

from __future__ import annotations

from typing import Any

from common.http.bodies import Query
from common.http.fields import Cursor, Item, PageLimit
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import registration

routes = Routes("registration", "admin", "/api/v1/admin")

DECIDE = Holds("user", "create")


class PageOf(Query):
    """Which page."""

    limit: PageLimit = 50
    cursor: Cursor | None = None


class Approval(Item):
    """Somebody who awaits a decision; ``address`` is where the registration came from."""

    id: int
    email: str
    nickname: str
    address: str | None
    created_at: str
    expires_at: str


class ApprovalPage(Item):
    """A page of those who await a decision."""

    approvals: list[Approval]
    next_cursor: str | None


class MadeAccount(Item):
    """The account that was made."""

    id: str
    email: str
    nickname: str


@routes.get(
    "/approvals",
    requires=Holds("user", "read"),
    query=PageOf,
    data=ApprovalPage,
    summary="List registrations that await a decision, by page",
)
def list_approvals(call: Call) -> dict[str, Any]:
    return registration.page(call.plane, **call.query.model_dump())


@routes.post(
    "/approvals/<approval_id>/approve",
    requires=DECIDE,
    data=MadeAccount,
    statuses=(404, 409),
    summary="Make the account that somebody has asked for",
)
def approve(call: Call, approval_id: str) -> Reply:
    made = registration.approve(call.plane, call.who, approval_id)
    return Reply(made, message=f"{made['email']} has an account now.")


@routes.post(
    "/approvals/<approval_id>/reject",
    requires=DECIDE,
    statuses=(404,),
    summary="Make no account for somebody who has asked for one",
)
def reject(call: Call, approval_id: str) -> Reply:
    email = registration.reject(call.plane, call.who, approval_id)
    return Reply(message=f"The registration of {email} is rejected.")
