"""Dropping what has been in the audit trail for as long as it is kept: whole segments, the oldest first.

Of a segment its anchor stays, with a signed note that this plane removed it, so the chain still begins where it did.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson

from common.core.audit_chain import (
    CONTENT,
    NOTHING,
    PARTS,
    Anchor,
    Event,
    Problem,
    Walk,
    drop_mac,
    is_own,
    problem_of_event,
)
from common.core.audit_tags import EventTag
from common.services import audit
from common.services.audit_check import printed, problem_since, walk_on
from common.services.audit_delivery import delivered_to
from common.services.audit_sealing import anchors, as_number
from common.services.plane import Plane
from common.services.principal import system

log = logging.getLogger(__name__)

_SETTING = "audit.retention_days"
_EVENT = f"SELECT key_id, mac, {', '.join(f'`{name}`' for name in CONTENT)} FROM rk_audit_event"
_KEY = audit.name_key(_SETTING)
_TAG_AT, _TARGET_KEY_AT = CONTENT.index("tag"), CONTENT.index("target_key")
_DAY_MS = 24 * 3600 * 1000
_PIECE = 500


def drop_segment(plane: Plane) -> int:
    """Drop the oldest segment, if its newest event is older than ``audit.retention_days``; how many events went.

    One that an outlet still waits for stays, and so does one that is not as it was written, and all while the trail
    does not say, whole from there on, that it is kept for so long. Raises StoreUnavailable, and OSError for notes of
    the home that can't be read.
    """
    days = plane.variables.integer(_SETTING)
    if not days or _due(plane, days) is None:
        return 0
    said = _said(plane, days)
    if said is None:
        log.error(
            "nothing of the audit trail is dropped: %s is %d, and the newest event about it does not say so, or is a "
            "forged one; run `ragkeeper audit verify`",
            _SETTING,
            days,
        )
        return 0
    # Before the transaction, for it can be long, and nobody else writes to embedded stores meanwhile.
    problem = problem_since(plane, said, _is_about_it)
    # It may have been set anew meanwhile.
    if _said(plane, days) != said or _is_refused(problem):
        return 0
    with plane.database.transaction():
        plane.database.lock("audit_seal")
        # Who sets another time meanwhile comes before or after: the newest event about it then says what is set.
        plane.database.lock("settings")
        found = _due(plane, days)
        if found is None or _said(plane, days) != said:
            return 0
        before, anchor = found
        if _is_refused(_problem_of_segment(plane, before, anchor)):
            return 0
        events = _remove(plane, before.seq if before else 0, anchor.seq)
        key_id, key = next(iter(plane.keys.audit_keys().items()))
        now = plane.now_ms()
        plane.database.run(
            "UPDATE rk_audit_anchor SET dropped_at = ?, drop_key_id = ?, drop_mac = ? WHERE number = ?",
            (now, key_id, drop_mac(key, anchor.mac, now), anchor.number),
        )
        after = {"value": days, "events": events, "up_to": anchor.seq, "digest": anchor.digest}
        audit.record(
            plane, EventTag.AUDIT_DROP, system("retention"), target=("segment", str(anchor.number)), after=after
        )
    return events


def _due(plane: Plane, days: int) -> tuple[Anchor | None, Anchor] | None:
    """The anchor of the oldest segment that is there, and the one before it, if it says that the time is over."""
    row = plane.database.one(
        "SELECT number FROM rk_audit_anchor WHERE dropped_at IS NULL AND number > 0 ORDER BY number LIMIT 1"
    )
    if row is None:
        return None
    near = {anchor.number: anchor for anchor in anchors(plane, row[0] - 2, 2)}
    anchor = near.get(row[0])
    if anchor is None:
        return None
    newest_at, now = as_number(anchor.newest_at), plane.now_ms()
    if newest_at > now + _DAY_MS:
        log.warning(
            "nothing of the audit trail is dropped for %d days: number %s or one before it is of a clock that was "
            "ahead; docs/audit.md has the way out",
            (newest_at - now) // _DAY_MS + days,
            printed(anchor.seq),
        )
    if newest_at >= now - days * _DAY_MS:
        return None
    if as_number(anchor.seq) > delivered_to(plane):
        return None
    return near.get(row[0] - 1), anchor


def _is_refused(problem: Problem | None) -> bool:
    if problem is not None:
        log.error("nothing of the audit trail is dropped: %s; run `ragkeeper audit verify`", printed(problem.text))
    return problem is not None


def _problem_of_segment(plane: Plane, before: Anchor | None, anchor: Anchor) -> Problem | None:
    """Why a segment that says that its time is over is not to go: its anchors, or its events, are not this plane's.

    Who can write to the database can have it say so for as long as it takes, and put it right afterwards.
    """
    keys = plane.keys.audit_keys()
    previous = (before.number + 1, before.mac) if before else (1, NOTHING)
    if not all(is_own(each, keys) for each in (before, anchor) if each) or (anchor.number, anchor.previous) != previous:
        return Problem("anchor", f"anchor {anchor.number} was changed behind the trail's back", None, anchor.seq)
    walk = Walk(keys, before.seq, before.digest) if before else Walk(keys)
    return walk_on(plane, walk, anchor.seq) or walk.arrive(anchor)


def _said(plane: Plane, days: int) -> Event | None:
    """The newest event about it, if that says that the trail is kept for so long.

    Whoever can only write to the database must not have the plane itself drop, and sign for, what they would have gone.
    """
    # What was dropped by it says so too: the event of who set it goes with its segment.
    asked: tuple[tuple[str, tuple[str | None, ...]], ...] = (
        ("tag = ? AND target_key = ?", (EventTag.SETTING_UPDATE.value, _KEY)),
        ("tag = ? AND target_key = ?", (EventTag.SETTING_ROLLBACK.value, _KEY)),
        ("tag = ?", (EventTag.AUDIT_DROP.value,)),
    )
    rows = [plane.database.one(f"{_EVENT} WHERE {where} ORDER BY uid DESC LIMIT 1", params) for where, params in asked]
    found = [Event(tuple(row[2:]), row[0], row[1]) for row in rows if row is not None]
    # Bytes in the place of an id, which SQLite takes, come before all ids and stand for what they hide.
    newest = max(found, key=lambda event: (event.uid is None, event.uid), default=None)
    if newest is None or problem_of_event(newest, plane.keys.audit_keys()) is not None:
        return None
    said = dict(zip(CONTENT, newest.content, strict=True))["after"]
    return newest if isinstance(said, str) and orjson.loads(said).get("value") == days else None


def _is_about_it(event: Event) -> bool:
    """Whether ``_said`` would look at this event."""
    tag, key = event.content[_TAG_AT], event.content[_TARGET_KEY_AT]
    is_change = tag in (EventTag.SETTING_UPDATE.value, EventTag.SETTING_ROLLBACK.value) and key == _KEY
    return is_change or tag == EventTag.AUDIT_DROP.value


def _remove(plane: Plane, start: int, end: int) -> int:
    """Remove the events with these numbers, their seals, and the names that no other event has."""
    removed = 0
    for first in range(start, end, _PIECE):
        bounds = (first, min(first + _PIECE, end))
        rows = plane.database.all(
            "SELECT e.uid, e.actor_key, e.target_key FROM rk_audit_seal s JOIN rk_audit_event e ON e.uid = s.uid "
            "WHERE s.seq > ? AND s.seq <= ?",
            bounds,
        )
        if rows:
            removed += _run_in(plane, "DELETE FROM rk_audit_event WHERE uid IN ({})", [row[0] for row in rows])
        plane.database.run("DELETE FROM rk_audit_seal WHERE seq > ? AND seq <= ?", bounds)
        for column, part in enumerate(PARTS, 1):
            names = sorted({row[column] for row in rows if row[column] is not None})
            if names:
                key = ("actor_key", "target_key")[column - 1]
                _run_in(
                    plane,
                    f"DELETE FROM rk_audit_name WHERE part = '{part}' AND name IN ({{}}) "
                    f"AND NOT EXISTS (SELECT 1 FROM rk_audit_event e WHERE e.{key} = rk_audit_name.name)",
                    names,
                )
    return removed


def _run_in(plane: Plane, statement: str, values: list[Any]) -> int:
    return plane.database.run(statement.format(", ".join("?" * len(values))), values)
