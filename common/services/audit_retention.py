"""Dropping what has been in the audit trail for as long as it is kept: whole segments, the oldest first.

Of a segment its anchor stays, with a signed note that this plane removed it, so the chain still begins where it did.
"""

from __future__ import annotations

from typing import Any

from common.core.audit_chain import Anchor, drop_mac
from common.core.audit_tags import EventTag
from common.services import audit
from common.services.audit_delivery import delivered_to
from common.services.audit_sealing import PARTS
from common.services.plane import Plane
from common.services.principal import system

_DAY_MS = 24 * 3600 * 1000
_PIECE = 500


def drop_segment(plane: Plane) -> int:
    """Drop the oldest segment, if its newest event is older than ``audit.retention_days``; how many events went.

    One that an outlet still waits for stays. Raises StoreUnavailable.
    """
    days = plane.variables.integer("audit.retention_days")
    if not days:
        return 0
    with plane.database.transaction():
        plane.database.lock("audit_seal")
        found = _oldest(plane)
        if found is None:
            return 0
        anchor, start = found
        if anchor.newest_at >= plane.now_ms() - days * _DAY_MS or anchor.seq > delivered_to(plane):
            return 0
        events = _remove(plane, start, anchor.seq)
        key_id, key = next(iter(plane.keys.audit_keys().items()))
        now = plane.now_ms()
        plane.database.run(
            "UPDATE rk_audit_anchor SET dropped_at = ?, drop_key_id = ?, drop_mac = ? WHERE number = ?",
            (now, key_id, drop_mac(key, anchor.mac, now), anchor.number),
        )
        after = {"events": events, "up_to": anchor.seq, "digest": anchor.digest}
        audit.record(
            plane, EventTag.AUDIT_DROP, system("retention"), target=("segment", str(anchor.number)), after=after
        )
    return events


def _oldest(plane: Plane) -> tuple[Anchor, int] | None:
    """The anchor of the oldest segment that is there, and the number of the last event before it."""
    row = plane.database.one("SELECT number FROM rk_audit_anchor WHERE dropped_at IS NULL ORDER BY number LIMIT 1")
    if row is None:
        return None
    columns = "number, seq, digest, newest_at, at, previous, key_id, mac"
    rows = plane.database.all(
        f"SELECT {columns} FROM rk_audit_anchor WHERE number IN (?, ?) ORDER BY number", (row[0] - 1, row[0])
    )
    return Anchor(*rows[-1]), rows[0][1] if len(rows) == 2 else 0


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
