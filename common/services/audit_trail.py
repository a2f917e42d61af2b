"""Reading the audit trail: pages by any filter, newest first, each read off an index; and all of it, for an export."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Literal

import orjson

from common.core.audit_chain import uids_from
from common.core.audit_filter import prefix_range
from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.models.base import rfc3339
from common.services import audit
from common.services.audit import name_key
from common.services.audit_sealing import PARTS
from common.services.plane import Plane
from common.services.principal import Principal, system

_COLUMNS = (
    "uid, at, tag, result, actor_id, actor_email, actor_roles, credential, address, agent, request_id, "
    "target_kind, target, `before`, `after`, key_id, mac"
)
#: A line of JSON for each event, or CSV.
Form = Literal["jsonl", "csv"]
# A search by prefix looks for each name by itself, as actor or as target, while there are few of them.
_NAMES = 32
_KEY_OF = dict(zip(PARTS, ("actor_key", "target_key"), strict=True))
# Beyond, it goes through so many events a page at most, newest first; the page may then have fewer than it could.
_LOOKED_AT = 2000
_PIECE = 500
#: The columns of an export.
EXPORTED = (
    *("id", "seq", "at", "tag", "result", "actor_id", "actor", "actor_roles", "credential", "address", "agent"),
    *("request_id", "target_kind", "target", "before", "after", "key_id", "mac"),
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are asked for. ``actor`` is an e-mail or an account's id, ``target`` a whole name, ``q`` what the
    actor's or the target's name begins with; case does not matter. Moments are UTC milliseconds: from the first one on,
    before the second.
    """

    actor: str | None = None
    tag: EventTag | None = None
    target: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True)
class _Lane:
    """Events that one index has side by side, in the order of pages."""

    conditions: tuple[str, ...]
    params: tuple[Any, ...]

    def also(self, condition: str, *params: Any) -> _Lane:
        return _Lane((*self.conditions, condition), (*self.params, *params))

    def select(self, columns: str) -> str:
        return f"SELECT {columns} FROM rk_audit_event WHERE {' AND '.join(self.conditions)} ORDER BY uid DESC LIMIT ?"


def page(plane: Plane, wanted: Filter, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """A page of events, newest first: ``{events, next_cursor}``.

    Where ``q`` begins many names, a page can have fewer events than ``limit``, or none, and yet not be the last one:
    that is the one without ``next_cursor``. Raises BadField for a cursor that is not one of this list.
    """
    lane = _lane(plane, wanted, decode_cursor(cursor, (str,))[0] if cursor is not None else None)
    rows, end = _searched(plane, lane, wanted, limit) if wanted.q else (_rows(plane, lane, limit + 1), None)
    more = rows[limit - 1][0] if len(rows) > limit else end
    return {"events": [_shown(row) for row in rows[:limit]], "next_cursor": encode_cursor([more]) if more else None}


def _lane(plane: Plane, wanted: Filter, before: str | None) -> _Lane:
    """The lane of all but ``q``."""
    lane = _Lane((), ())
    if wanted.actor is not None:
        lane = lane.also("actor_key = ?", _actor_key(plane, wanted.actor))
    if wanted.tag is not None:
        lane = lane.also("tag = ?", wanted.tag.value)
    if wanted.target is not None:
        lane = lane.also("target_key = ?", name_key(wanted.target))
    if wanted.from_ms is not None:
        lane = lane.also("uid >= ?", uids_from(wanted.from_ms))
    ends = [end for end in (before, uids_from(wanted.to_ms) if wanted.to_ms is not None else None) if end is not None]
    # Also without an end: ids that are there begin below it, and the index for pages is named by the condition.
    return lane.also("uid < ?", min(ends, default="g"))


def _actor_key(plane: Plane, actor: str) -> str | None:
    row = plane.database.one("SELECT email FROM user WHERE id = ?", (actor,)) if "@" not in actor else None
    return name_key(row[0] if row else actor)


def _rows(plane: Plane, lane: _Lane, count: int) -> list[tuple[Any, ...]]:
    return plane.database.all(lane.select(_COLUMNS), (*lane.params, count))


def _searched(plane: Plane, lane: _Lane, wanted: Filter, limit: int) -> tuple[list[tuple[Any, ...]], str | None]:
    """Up to ``limit + 1`` events that ``q`` matches, and where to go on if not all that there are were looked at."""
    least, beyond = prefix_range(wanted.q or "")
    names = plane.database.all(
        "SELECT name, part FROM rk_audit_name WHERE name >= ? AND name < ? ORDER BY name, part LIMIT ?",
        (least, beyond, _NAMES + 1),
    )
    if len(names) > _NAMES:
        return _looked_through(plane, lane, least, beyond, limit)
    lanes = [lane.also(f"{_KEY_OF[part]} = ?", name) for name, part in names]
    return _merged(plane, lanes, limit + 1), None


def _merged(plane: Plane, lanes: Sequence[_Lane], count: int) -> list[tuple[Any, ...]]:
    """The newest events of all lanes together."""
    if not lanes:
        return []
    each = " UNION ".join(
        f"SELECT uid FROM ({lane.select('uid')}) AS lane_{number}" for number, lane in enumerate(lanes)
    )
    params = [param for lane in lanes for param in (*lane.params, count)]
    found = plane.database.all(f"SELECT uid FROM ({each}) AS found ORDER BY uid DESC LIMIT ?", (*params, count))
    if not found:
        return []
    marks = ", ".join("?" * len(found))
    return plane.database.all(
        f"SELECT {_COLUMNS} FROM rk_audit_event WHERE uid IN ({marks}) ORDER BY uid DESC", [uid for (uid,) in found]
    )


def _looked_through(
    plane: Plane, lane: _Lane, least: str, beyond: str, limit: int
) -> tuple[list[tuple[Any, ...]], str | None]:
    edge = plane.database.one(f"{lane.select('uid')} OFFSET ?", (*lane.params, 1, _LOOKED_AT - 1))
    end = edge[0] if edge else None
    if end is not None:
        lane = lane.also("uid >= ?", end)
    between = "(target_key >= ? AND target_key < ? OR actor_key >= ? AND actor_key < ?)"
    return _rows(plane, lane.also(between, least, beyond, least, beyond), limit + 1), end


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    (uid, at, tag, result, actor_id, email, roles, credential, address, agent, request_id, kind, target) = row[:13]
    return {
        "id": uid,
        "at": rfc3339(at),
        "tag": tag,
        "result": result,
        "actor_id": actor_id,
        "actor": email,
        "actor_roles": roles.split(",") if roles else [],
        "credential": credential,
        "address": address,
        "agent": agent,
        "request_id": request_id,
        "target_kind": kind,
        "target": target,
        "before": orjson.loads(row[13]) if row[13] else None,
        "after": orjson.loads(row[14]) if row[14] else None,
    }


def export(plane: Plane, sink: BinaryIO, form: Form, *, from_ms: int | None, to_ms: int | None) -> int:
    """Write every event between two moments, oldest first, and an event that says so; how many were written."""
    count = 0
    sink.write(_head(form))
    for event in exported(plane, from_ms=from_ms, to_ms=to_ms):
        sink.write(_line(event, form))
        count += 1
    _record_export(plane, system("audit export"), count, form, from_ms, to_ms)
    return count


def export_page(
    plane: Plane,
    actor: Principal,
    form: Form,
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    limit: int = 1000,
    cursor: str | None = None,
) -> tuple[bytes, str | None]:
    """Up to ``limit`` events between two moments, oldest first, in the form of an export, and the cursor of what
    follows; an event says that they were taken. Raises BadField for a cursor that is not one of this list.
    """
    after = decode_cursor(cursor, (str,))[0] if cursor is not None else None
    events = list(islice(exported(plane, from_ms=from_ms, to_ms=to_ms, after=after), limit + 1))
    _record_export(plane, actor, len(events[:limit]), form, from_ms, to_ms)
    lines = [_line(event, form) for event in events[:limit]]
    more = encode_cursor([events[limit - 1]["id"]]) if len(events) > limit else None
    return b"".join([_head(form) if cursor is None else b"", *lines]), more


def _head(form: Form) -> bytes:
    return as_csv_line(EXPORTED).encode() if form == "csv" else b""


def _line(event: dict[str, Any], form: Form) -> bytes:
    return as_json_line(event) if form == "jsonl" else as_csv_line(list(event.values())).encode()


def _record_export(
    plane: Plane, actor: Principal, count: int, form: Form, from_ms: int | None, to_ms: int | None
) -> None:
    after = {"events": count, "format": form, "from": rfc3339(from_ms), "to": rfc3339(to_ms)}
    with plane.database.transaction():
        audit.record(plane, EventTag.AUDIT_EXPORT, actor, after=after)


def exported(
    plane: Plane, *, from_ms: int | None = None, to_ms: int | None = None, after: str | None = None
) -> Iterator[dict[str, Any]]:
    """Every event between two moments, oldest first, with its number in the chain and its signature; of those with a
    later id than ``after``.
    """
    last = max(uids_from(from_ms or 0), after or "")
    end = uids_from(to_ms) if to_ms is not None else "g"
    columns = ", ".join(f"e.{column}" for column in _COLUMNS.split(", "))
    while rows := plane.database.all(
        f"SELECT {columns}, s.seq FROM rk_audit_event e LEFT JOIN rk_audit_seal s ON s.uid = e.uid "
        "WHERE e.uid > ? AND e.uid < ? ORDER BY e.uid LIMIT ?",
        (last, end, _PIECE),
    ):
        yield from map(as_exported, rows)
        last = rows[-1][0]


def sealed_events(plane: Plane, after: int, limit: int) -> list[dict[str, Any]]:
    """Up to ``limit`` events behind this number of the chain, in its order, in the form of an export."""
    columns = ", ".join(f"e.{column}" for column in _COLUMNS.split(", "))
    rows = plane.database.all(
        f"SELECT {columns}, s.seq FROM rk_audit_seal s JOIN rk_audit_event e ON e.uid = s.uid "
        "WHERE s.seq > ? ORDER BY s.seq LIMIT ?",
        (after, limit),
    )
    return [as_exported(row) for row in rows]


def as_exported(row: tuple[Any, ...]) -> dict[str, Any]:
    """An event in the form of an export."""
    shown = _shown(row[:15]) | {"key_id": row[15], "mac": row[16], "seq": row[17]}
    return {name: shown[name] for name in EXPORTED}


def as_json_line(event: dict[str, Any]) -> bytes:
    """An exported event as a line of JSON."""
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


def as_csv_line(values: Sequence[Any]) -> str:
    """Values as a line of CSV (RFC 4180). None of them is taken for a formula by a spreadsheet."""
    line = io.StringIO()
    csv.writer(line).writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        text = ",".join(map(str, value))
    else:
        text = orjson.dumps(value).decode() if isinstance(value, dict) else str(value)
    # OWASP, CSV injection.
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
