"""Asking what one may: the decision point for programs beside the plane."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.core.errors import BadField
from common.http.bodies import Body
from common.http.fields import Item
from common.http.requirement import IDENTIFIED
from common.http.route import Call, Routes
from common.services import decisions

routes = Routes("authorization", "own")

Name = Annotated[str, Field(max_length=64)]


class Question(Body):
    """An action on a kind of resource, both from the registry."""

    resource: Name
    action: Name


class Asked(Body):
    """One question, or up to 100 of them as ``checks``."""

    resource: Name | None = None
    action: Name | None = None
    checks: Annotated[list[Question], Field(min_length=1, max_length=100)] | None = None


class Decision(Item):
    """Whether the caller may, and why."""

    allowed: bool
    reason: str


class NamedDecision(Decision):
    """A decision beside what it is about."""

    resource: str
    action: str


class Decisions(Item):
    """The decisions in the order of the questions."""

    results: list[NamedDecision]


@routes.post(
    "/api/v1/authz/check",
    requires=IDENTIFIED,
    body=Asked,
    at_once=True,
    data=Decision | Decisions,
    summary="Whether the caller may do something, or several things",
)
def check(call: Call) -> dict[str, Any]:
    asked: Asked = call.body
    if asked.checks is not None:
        pairs = [(each.resource, each.action) for each in asked.checks]
        return {"results": decisions.check_all(call.plane, call.who, pairs)}
    for name in ("resource", "action"):
        if getattr(asked, name) is None:
            raise BadField(f"Required fields are missing: {name}; or checks.", field=name)
    return decisions.check(call.plane, call.who, str(asked.resource), str(asked.action))
