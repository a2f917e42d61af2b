"""Statistics of a tenant's conversations over the API."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.http.bodies import Query
from common.http.fields import Item
from common.http.requirement import SIGNED_IN
from common.http.route import Call, Routes
from common.services import statistics

routes = Routes("statistics", "ragflow")

Date = Annotated[str, Field(max_length=32, description="YYYY-MM-DD, or YYYY-MM-DD HH:MM:SS.")]
DayNumbers = list[tuple[str, float]]


class Period(Query):
    """Which days, and of which agent; without one, of every dialog."""

    from_date: Date | None = None
    to_date: Date | None = None
    canvas_id: Annotated[str, Field(max_length=64)] | None = None


class Statistics(Item):
    """Lists of [day, number]."""

    pv: DayNumbers
    uv: DayNumbers
    speed: DayNumbers
    tokens: DayNumbers
    round: DayNumbers
    thumb_up: DayNumbers


@routes.get(
    "/v1/api/stats",
    "/api/v1/system/stats",
    requires=SIGNED_IN.within("read:metric"),
    query=Period,
    data=Statistics,
    summary="Conversations over the API by day",
)
def stats(call: Call) -> dict[str, Any]:
    return statistics.by_day(call.plane, call.who, **call.query.model_dump())
