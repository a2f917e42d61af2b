"""Asking what one may: the decision point for programs beside the plane."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.http.bodies import Body
from common.http.fields import Item
from common.http.requirement import IDENTIFIED
from common.http.route import Call, Routes
from common.services import roles

routes = Routes("authorization", "own")

Name = Annotated[str, Field(max_length=64)]


class Question(Body):
    """An action on a kind of resource, both from the registry."""

    resource: Name
    action: Name


class Decision(Item):
    """Whether the caller may, and why."""

    allowed: bool
    reason: str


@routes.post(
    "/api/v1/authz/check",
    requires=IDENTIFIED,
    body=Question,
    data=Decision,
    summary="Whether the caller may do something",
)
def check(call: Call) -> dict[str, Any]:
    return roles.check(call.plane, call.who, call.body.resource, call.body.action)
