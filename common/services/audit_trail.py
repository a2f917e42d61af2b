"""Reading the audit trail: pages by any filter, newest first, each read off an index; and all of it, for an export."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO, Literal

import orjson

from common.core.audit_chain import PARTS, uids_from
from common.core.audit_filter import prefix_range
from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.models.base import rfc3339
from common.services import audit
from common.services.audit import name_key
from common.services.plane import Plane
from common.services.principal import Principal, system

_COLUMNS = (
    "uid, at, tag, result, actor_id, actor_email, actor_roles, credential, address, agent, request_id, "
    "target_kind, target, `before`, `after`, key_id, mac"
)
#: A line of JSON for each event, or CSV.
Form = Literal["jsonl", "csv"]
# A search by prefix looks for each name by itself, as actor or as target, while there are few of them; one for what an
# account did as well, for each name that this had.
_NAMES = 32
_KEY_OF = dict(zip(PARTS, ("actor_key", "target_key"), strict=True))
# Beyond, it goes through so many events a page at most, newest first, those of the account if that has few names; the
# page may then have fewer than it could.
_LOOKED_AT = 2000
_PIECE = 500
# Of each set of filters, the index that has its events side by side in the order of pages. It is named in the
# statement: by its estimates MariaDB at times goes through all events instead, from the newest, where half are wanted.
_INDEX_OF: dict[frozenset[str], str] = {
    frozenset(): "rk_audit_uid",
    frozenset({"actor_key"}): "rk_audit_by_actor",
    frozenset({"tag"}): "rk_audit_by_tag",
    frozenset({"target_key"}): "rk_audit_by_target",
    frozenset({"actor_key", "tag"}): "rk_audit_by_actor_tag",
    frozenset({"actor_key", "target_key"}): "rk_audit_by_actor_target",
    frozenset({"tag", "target_key"}): "rk_audit_by_tag_target",
    frozenset({"actor_key", "tag", "target_key"}): "rk_audit_by_all",
}
_INDEX_OF_NAMES = "rk_audit_by_actor_name"
#: The columns of each index that pages are read off.
INDEXES = {name: (*keys, "uid") for keys, name in _INDEX_OF.items()} | {
    _INDEX_OF_NAMES: ("actor_id", "actor_key", "uid")
}
# Of the ids that events have; what somebody has put there can be longer, and have a NUL, which cursors don't take.
_UID_LENGTH = 28
_NUL = "\x1a"
# OWASP, CSV injection; the last four are what spreadsheets in East Asian scripts take for the first four.
_OF_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
#: The columns of an export.
EXPORTED = (
    *("id", "seq", "at", "tag", "result", "actor_id", "actor", "actor_roles", "credential", "address", "agent"),
    *("request_id", "target_kind", "target", "before", "after", "key_id", "mac"),
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are asked for. ``actor`` is an e-mail, or an account's id with whatever e-mail it had, ``target`` a
    whole name, ``q`` what the actor's or the target's name begins with; case does not matter. Moments are UTC
    milliseconds: from the first one on, before the second.
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

    conditions: tuple[str, ...] = ()
    params: tuple[Any, ...] = ()
    keys: frozenset[str] = frozenset()

    def of(self, key: str, value: str | None) -> _Lane:
        return replace(self.also(f"{key} = ?", value), keys=self.keys | {key})

    def also(self, condition: str, *params: Any) -> _Lane:
        return replace(self, conditions=(*self.conditions, condition), params=(*self.params, *params))

    def within(self, other: _Lane) -> _Lane:
        """The events that are in the other one, too."""
        return _Lane(self.conditions + other.conditions, self.params + other.params, self.keys | other.keys)

    def select(self, plane: Plane, columns: str) -> str:
        index = plane.database.by_index(_INDEX_OF[self.keys])
        where = " AND ".join(self.conditions)
        return f"SELECT {columns} FROM rk_audit_event {index} WHERE {where} ORDER BY uid DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class _Choice:
    """Lanes of which an event has to be in any; and the same condition on all events, for where those are too many."""

    lanes: Sequence[_Lane]
    all_events: _Lane


def page(plane: Plane, wanted: Filter, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """A page of events, newest first: ``{events, next_cursor}``.

    Where ``q`` begins many names, a page can have fewer events than ``limit``, or none, and yet not be the last one:
    that is the one without ``next_cursor``. Raises BadField for a cursor that is not one of this list.
    """
    lane = _lane(wanted, _place_of(cursor))
    choices = []
    if wanted.actor is not None:
        choices.append(_of_actor(plane, wanted.actor))
    if wanted.q is not None:
        choices.append(_of_prefix(plane, wanted.q))
    rows, end = _found(plane, lane, choices, limit)
    more = rows[limit - 1][0] if len(rows) > limit else end
    following = encode_cursor([_place(more)]) if more else None
    return {"events": [_shown(row) for row in rows[:limit]], "next_cursor": following}


def _place(uid: str) -> str:
    """What a cursor of pages has of an id: of one that is no text, which somebody has put there, where ids end that
    begin so, and of one that is longer than any the beginning, which comes before it and behind all that it hides."""
    begins = uid[: _UID_LENGTH + 1].replace("\0", _NUL)
    return begins if _is_unicode(begins) else begins.encode("ascii", "replace").decode().partition("?")[0] + "\x7f"


def _place_after(uid: str) -> str:
    """``_place`` for the order of an export."""
    return (uid if len(uid) <= _UID_LENGTH else uid[:_UID_LENGTH] + "\x7f").replace("\0", _NUL)


def _place_of(cursor: str | None) -> str | None:
    return decode_cursor(cursor, (str,))[0].replace(_NUL, "\0") if cursor is not None else None


def _lane(wanted: Filter, before: str | None) -> _Lane:
    """The lane of all but ``actor`` and ``q``."""
    lane = _Lane()
    if wanted.tag is not None:
        lane = lane.of("tag", wanted.tag.value)
    if wanted.target is not None:
        lane = lane.of("target_key", name_key(wanted.target))
    if wanted.from_ms is not None:
        lane = lane.also("uid >= ?", uids_from(wanted.from_ms))
    ends = [end for end in (before, uids_from(wanted.to_ms) if wanted.to_ms is not None else None) if end is not None]
    # Also without an end, so that a lane never lacks a condition; ids that are there begin below it.
    return lane.also("uid < ?", min(ends, default="g"))


def _of_actor(plane: Plane, actor: str) -> _Choice:
    """What an account did, by its e-mail or id; by its id also under a name that it had once, when it was deleted, and
    when another one has its e-mail now.
    """
    names = _names_of(plane, actor) if "@" not in actor else []
    if not names:
        lane = _Lane().of("actor_key", name_key(actor))
        return _Choice([lane], lane)
    # In a form that no index is looked up for: pages are in the order of that of the keys.
    of_id = _Lane().also("COALESCE(actor_id, '') = ?", actor)
    return _Choice([of_id.of("actor_key", name).also("uid BETWEEN ? AND ?", *ends) for name, *ends in names], of_id)


def _names_of(plane: Plane, actor_id: str) -> list[tuple[str, str, str]]:
    """The names under which an account is in the trail, one more than are looked for at most; each with its first and
    its last event there, so that those of whoever had or has the name otherwise aren't gone through.
    """
    table = f"rk_audit_event {{}} {plane.database.by_index(_INDEX_OF_NAMES)}"
    first = (
        f"SELECT f.uid FROM {table.format('f')} WHERE f.actor_id = e.actor_id AND f.actor_key = e.actor_key "
        "ORDER BY f.uid LIMIT 1"
    )
    found: list[tuple[str, str, str]] = []
    while len(found) <= _NAMES:
        further, params = (" AND e.actor_key < ?", (found[-1][0],)) if found else ("", ())
        row = plane.database.one(
            f"SELECT e.actor_key, ({first}), e.uid FROM {table.format('e')} "
            f"WHERE e.actor_id = ?{further} ORDER BY e.actor_key DESC, e.uid DESC LIMIT 1",
            (actor_id, *params),
        )
        if row is None or row[0] is None:
            break
        found.append((row[0], row[1], row[2]))
    return found


def _of_prefix(plane: Plane, prefix: str) -> _Choice:
    """Events whose actor's or target's name begins like this."""
    least, beyond = prefix_range(prefix)
    names = plane.database.all(
        "SELECT name, part FROM rk_audit_name WHERE name >= ? AND name < ? AND part IN (?, ?) "
        "ORDER BY name, part LIMIT ?",
        (least, beyond, *PARTS, _NAMES + 1),
    )
    between = "(target_key >= ? AND target_key < ? OR actor_key >= ? AND actor_key < ?)"
    return _Choice(
        [_Lane().of(_KEY_OF[part], name) for name, part in names],
        _Lane().also(between, least, beyond, least, beyond),
    )


def _found(
    plane: Plane, lane: _Lane, choices: Sequence[_Choice], limit: int
) -> tuple[list[tuple[Any, ...]], str | None]:
    """Up to ``limit + 1`` events of a lane that are in one of each choice, and where to go on if not all that there are
    were looked at.
    """
    lanes = [lane]
    for choice in choices:
        lanes = _within_each(lanes, choice)
    if len(lanes) > _NAMES:
        few = [choice for choice in choices if len(choice.lanes) <= _NAMES]
        kept = min(few, key=lambda choice: len(choice.lanes), default=None)
        further = _Lane()
        for choice in choices:
            if choice is not kept:
                further = further.within(choice.all_events)
        return _looked_through(plane, [lane] if kept is None else _within_each([lane], kept), further, limit)
    return _rows(plane, lanes[0], limit + 1) if len(lanes) == 1 else _merged(plane, lanes, limit + 1), None


def _within_each(lanes: Sequence[_Lane], choice: _Choice) -> list[_Lane]:
    return [lane.within(other) for lane in lanes for other in choice.lanes]


def _rows(plane: Plane, lane: _Lane, count: int) -> list[tuple[Any, ...]]:
    return plane.database.all(lane.select(plane, _COLUMNS), (*lane.params, count))


def _merged(plane: Plane, lanes: Sequence[_Lane], count: int) -> list[tuple[Any, ...]]:
    """The newest events of all lanes together."""
    if not lanes:
        return []
    each = " UNION ".join(
        f"SELECT uid FROM ({lane.select(plane, 'uid')}) AS lane_{number}" for number, lane in enumerate(lanes)
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
    plane: Plane, lanes: Sequence[_Lane], further: _Lane, limit: int
) -> tuple[list[tuple[Any, ...]], str | None]:
    """The events of lanes that fulfil further conditions, out of their newest, of which so many are looked at."""
    edges = " UNION ALL ".join(
        f"SELECT uid FROM ({lane.select(plane, 'uid')} OFFSET ?) AS lane_{number}" for number, lane in enumerate(lanes)
    )
    params = [param for lane in lanes for param in (*lane.params, 1, max(_LOOKED_AT // len(lanes), 1) - 1)]
    edge = plane.database.one(f"SELECT MAX(uid) FROM ({edges}) AS edges", params)
    end = edge[0] if edge else None
    wanted = [lane.within(further) if end is None else lane.also("uid >= ?", end).within(further) for lane in lanes]
    return _merged(plane, wanted, limit + 1), end


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    uid, at, *texts = row[:13]
    (tag, result, actor_id, email, roles, credential, address, agent, request_id, kind, target) = map(_text, texts)
    return {
        "id": _text(uid),
        "at": _moment(at),
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
        "before": _values(row[13]),
        "after": _values(row[14]),
    }


def _moment(stored: Any) -> str | None:
    """A moment. Whoever has written something else there, or into a text, must not hide the events around it."""
    try:
        return rfc3339(stored)
    except (TypeError, ValueError, OverflowError, OSError):
        return ascii(stored)


def _text(stored: Any) -> str | None:
    """A text, of which SQLite takes any bytes, or another kind of value."""
    if stored is None or (isinstance(stored, str) and (stored.isascii() or _is_unicode(stored))):
        return stored
    return ascii(stored)


def _is_unicode(text: str) -> bool:
    return text == text.encode("utf-8", "replace").decode()


def _values(stored: Any) -> dict[str, Any] | None:
    """What an event says has changed."""
    if not stored:
        return None
    try:
        values = orjson.loads(stored)
        # What is nested so deep that it is read, and not written again in the middle of an answer.
        orjson.dumps([[[[[[[[values]]]]]]]])
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        values = None
    return values if isinstance(values, dict) else {"unreadable": ascii(stored)}


def export(plane: Plane, sink: BinaryIO, form: Form, *, from_ms: int | None, to_ms: int | None) -> int:
    """Write every event between two moments, oldest first, and an event that says so, also if the sink takes no more;
    how many were written."""
    count = 0
    try:
        sink.write(_head(form))
        for event in exported(plane, from_ms=from_ms, to_ms=to_ms):
            sink.write(_line(event, form))
            count += 1
        sink.flush()
    finally:
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
    events = list(islice(exported(plane, from_ms=from_ms, to_ms=to_ms, after=_place_of(cursor)), limit + 1))
    _record_export(plane, actor, len(events[:limit]), form, from_ms, to_ms)
    lines = [_line(event, form) for event in events[:limit]]
    more = encode_cursor([_place_after(events[limit - 1]["id"])]) if len(events) > limit else None
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
        # What has an id that is no text is no event, and no page can begin behind it.
        yield from (as_exported(row) for row in rows if _is_unicode(row[0]))
        last = rows[-1][0]


def sealed_events(plane: Plane, after: int, end: int, limit: int) -> list[dict[str, Any]]:
    """Up to ``limit`` events behind one number of the chain up to another, in order, in the form of an export."""
    columns = ", ".join(f"e.{column}" for column in _COLUMNS.split(", "))
    rows = plane.database.all(
        f"SELECT {columns}, s.seq FROM rk_audit_seal s JOIN rk_audit_event e ON e.uid = s.uid "
        "WHERE s.seq > ? AND s.seq <= ? ORDER BY s.seq LIMIT ?",
        (after, end, limit),
    )
    return [as_exported(row) for row in rows]


def as_exported(row: tuple[Any, ...]) -> dict[str, Any]:
    """An event in the form of an export."""
    shown = _shown(row[:15]) | {"key_id": _text(row[15]), "mac": _text(row[16]), "seq": row[17]}
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
    return f"'{text}" if text.startswith(_OF_FORMULAS) else text
