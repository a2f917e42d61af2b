"""What a tenant's assistants were used for, a number a day, as RAGFlow's statistics page draws it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from common.core.errors import BadField, TenantNotFound
from common.models.base import local_date
from common.services.plane import Plane
from common.services.principal import Principal

DEFAULT_DAYS = 7
_MEASURES = ("pv", "uv", "speed", "tokens", "round", "thumb_up")
# The date's first ten characters are the day on every store, whatever type it gives a day.
_BY_DAY = """
    SELECT SUBSTR(c.create_date, 1, 10), COUNT(*), COUNT(DISTINCT c.user_id), SUM(c.tokens), SUM(c.duration),
        AVG(c.round), SUM(c.thumb_up)
    FROM api_4_conversation c WHERE c.create_date >= ? AND c.create_date <= ? AND c.dialog_id IN ({owned})
    GROUP BY SUBSTR(c.create_date, 1, 10) ORDER BY 1
"""


def by_day(
    plane: Plane, who: Principal, *, from_date: str | None, to_date: str | None, canvas_id: str | None
) -> dict[str, list[tuple[str, float]]]:
    """``{pv, uv, speed, tokens, round, thumb_up}``, each a list of (day, number), of the tenant the caller acts in.

    Conversations over the API with the tenant's dialogs, or with the agent ``canvas_id``: how many; of how many users;
    tokens a second; thousands of tokens; mean rounds; thumbs up. Dates are ``YYYY-MM-DD`` or ``YYYY-MM-DD HH:MM:SS`` in
    the plane's zone, by default the last seven days. Where RAGFlow's tables are absent there was no conversation.
    Raises TenantNotFound, BadField.
    """
    if who.tenant_id is None:
        raise TenantNotFound
    now = local_date(plane.now_ms(), plane.zone)
    since = _moment(from_date, "from_date") or datetime.combine(now.date(), datetime.min.time()) - timedelta(
        days=DEFAULT_DAYS
    )
    until = _moment(to_date, "to_date", end_of_day=True) or now
    if since > until:
        raise BadField("from_date: must not lie after to_date.", field="from_date")
    days: dict[str, list[tuple[str, float]]] = {measure: [] for measure in _MEASURES}
    for day, *numbers in _rows(plane, who.tenant_id, canvas_id, since, until):
        for measure, number in zip(_MEASURES, _measured(*numbers), strict=True):
            days[measure].append((day, number))
    return days


def _rows(
    plane: Plane, tenant_id: str, canvas_id: str | None, since: datetime, until: datetime
) -> list[tuple[Any, ...]]:
    present = plane.database.tables()
    if "api_4_conversation" not in present or (canvas_id is None and "dialog" not in present):
        return []
    owned = "SELECT id FROM dialog WHERE tenant_id = ?"
    params: tuple[str, ...] = (tenant_id,)
    if canvas_id is not None:
        owned, params = "SELECT id FROM user_canvas WHERE user_id = ? AND id = ?", (tenant_id, canvas_id)
    return plane.database.all(_BY_DAY.format(owned=owned), (since.isoformat(" "), until.isoformat(" "), *params))


def _measured(
    conversations: int, users: int, tokens: int | None, duration: float | None, rounds: float | None, up: int | None
) -> tuple[float, ...]:
    """One day's numbers in the order of ``_MEASURES``; RAGFlow adds 0.1 s, so that there is no division by zero."""
    speed = float(tokens or 0) / (float(duration or 0) + 0.1)
    return conversations, users, speed, float(tokens or 0) / 1000, float(rounds or 0), int(up or 0)


def _moment(text: str | None, field: str, *, end_of_day: bool = False) -> datetime | None:
    if text is None:
        return None
    for form, whole_day in (("%Y-%m-%d", True), ("%Y-%m-%d %H:%M:%S", False), ("%Y-%m-%dT%H:%M:%S", False)):
        try:
            at = datetime.strptime(text, form)  # noqa: DTZ007 - a wall-clock time of the plane's zone, as the column holds
        except ValueError:
            continue
        return at.replace(hour=23, minute=59, second=59) if whole_day and end_of_day else at
    raise BadField(f"{field}: must be YYYY-MM-DD or YYYY-MM-DD HH:MM:SS.", field=field)
