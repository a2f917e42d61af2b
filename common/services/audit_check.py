"""Whether the audit trail is what was written: every signature, every place in the chain, every anchor, and the notes
of the home. Nothing is held but the batch that is looked at, and nothing is locked: the plane may be running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from common.core.audit_chain import (
    CONTENT,
    Anchor,
    Event,
    Keys,
    Problem,
    Seal,
    Walk,
    head_mac,
    is_own_drop,
    problem_of_anchor,
    problem_of_event,
    same,
)
from common.services import audit_written
from common.services.audit_sealing import (
    ANCHORS_FILE,
    HEAD_FILE,
    Head,
    anchor_before,
    anchors,
    head_of,
    is_in_chain,
    noted_head,
    put_behind,
    read_note,
)
from common.services.audit_trail import INDEXES
from common.services.plane import Plane

_BATCH = 1000
# Much longer than an event waits for its seal.
_UNSEALED_MS = 60_000
_GREATEST = 2**63 - 1
_CONTENT = ", ".join(f"e.`{name}`" for name in CONTENT)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found. ``sealed`` events were checked up to the first ``problem``, ``dropped`` ones were
    removed when their time was over, ``unsealed`` ones wait for the sealer. ``notes`` says what could not be checked.
    """

    problem: Problem | None
    sealed: int
    dropped: int
    unsealed: int
    anchors: int
    notes: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None


def verify(plane: Plane) -> Verdict:
    """Check the trail of this home. Raises StoreUnavailable, and OSError for notes that can't be read."""
    with audit_written.written(plane.settings.home) as written:
        return _Check(plane, written).verdict()


def problem_since(plane: Plane, event: Event, is_alike: Callable[[Event], bool]) -> Problem | None:
    """What is wrong with the trail from this event on: something newer was changed, or taken out, or put in, or it is
    alike, and this one is not the newest of its kind.

    Raises StoreUnavailable, and OSError for notes of the home that can't be read.
    """
    keys, uid = plane.keys.audit_keys(), event.uid
    noted = noted_head(plane.settings.home / HEAD_FILE)
    with audit_written.written(plane.settings.home) as written:
        gone = next(audit_written.missing(plane.database, keys, written), None)
    if gone is not None:
        return _gone(gone)
    is_sealed = plane.database.one("SELECT 1 FROM rk_audit_seal WHERE uid = ? LIMIT 1", (uid,)) is not None
    if not is_sealed and plane.now_ms() - event.at >= _UNSEALED_MS:
        return Problem("inserted", f"event {uid} should have been sealed by now", uid)
    # Not from its seal, which somebody may have taken out, also to have it sealed again, behind what came after it.
    before = anchor_before(plane, event.at)
    walk = Walk(keys, before.seq, before.digest) if before else Walk(keys)
    wrong = walk_on(plane, walk, head_of(plane).seq, lambda each: _newer(each, event) and is_alike(each))
    wrong = wrong or _problem_behind(plane)
    if wrong is None and noted is not None and not is_in_chain(plane, noted):
        return Problem(
            "truncated", f"event number {noted.seq} is not the one that this home saw sealed", None, noted.seq
        )
    return wrong


def printed(stored: object) -> str:
    """What somebody may have put in the place of an id or a name, as a text in one line that can be printed."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(stored))


def _gone(uid: str) -> Problem:
    return Problem("missing", f"event {uid} is missing: this home wrote it, and nothing is left of it", uid)


def _problem_behind(plane: Plane) -> Problem | None:
    row = put_behind(plane)
    if row is None:
        return None
    text = f"event {row[0]} is sealed as number {row[1]}, behind the last one: it was inserted"
    return Problem("inserted", text, *row)


def sealed_between(plane: Plane, after: int, end: int) -> list[tuple[Seal, Event | None]]:
    """The seals behind one number up to another, in order, each with its event where that is there."""
    rows = plane.database.all(
        f"SELECT s.seq, s.uid, s.key_id, s.digest, e.key_id, e.mac, {_CONTENT} "
        "FROM rk_audit_seal s LEFT JOIN rk_audit_event e ON e.uid = s.uid "
        "WHERE s.seq > ? AND s.seq <= ? ORDER BY s.seq",
        (after, end),
    )
    return [(Seal(*row[:4]), Event(tuple(row[6:]), row[4], row[5]) if row[6] is not None else None) for row in rows]


def _newer(event: Event, than: Event) -> bool:
    return (event.uid or "") > (than.uid or "")


def walk_on(plane: Plane, walk: Walk, end: int, is_hidden: Callable[[Event], bool] = lambda _: False) -> Problem | None:
    """Walk on to this number; what is wrong on the way, such as an event that was hidden from who is asking."""
    while walk.seq < end:
        batch = sealed_between(plane, walk.seq, min(end, walk.seq + _BATCH))
        if not batch:
            return missing_up_to(walk, end)
        for seal, event in batch:
            wrong = walk.step(seal, event)
            if wrong is not None:
                return wrong
            if event is not None and is_hidden(event):
                text = f"event {seal.uid} (number {seal.seq}) was hidden for a while, or from an index"
                return Problem("hidden", text, seal.uid, seal.seq)
    return None


def missing_up_to(walk: Walk, end: int) -> Problem:
    """That nothing is there where a walk should go on to this number."""
    number = walk.seq + 1
    return Problem("missing", f"event number {number} is missing, with all up to {end}", None, number)


class _Check:
    def __init__(self, plane: Plane, written: Iterator[str]) -> None:
        self._plane = plane
        self._written = written
        self._keys: Keys = plane.keys.audit_keys()
        self._sealed = 0
        self._dropped = 0
        self._unsealed = 0
        self._anchors = 0
        self._notes: list[str] = []
        # The notes of the home first: what they say was in the database by then. What comes in while this is under way
        # is for the next time.
        self._kept = _KeptAnchors(plane.settings.home / ANCHORS_FILE)
        self._noted, self._noted_problem = self._read_head()
        if not audit_written.is_noted(plane.settings.home):
            path = plane.settings.home / audit_written.WRITTEN_FILE
            self._notes.append(f"{path} is missing: events that were taken out before their seal would not be missed")
        self._found_noted = False
        self._end = head_of(plane)

    def verdict(self) -> Verdict:
        problem = self._chain() or self._noted_problem or self._tail() or self._strangers()
        if problem is not None:
            uid = None if problem.uid is None else printed(problem.uid)
            seq = problem.seq if isinstance(problem.seq, int) else None
            problem = problem._replace(text=printed(problem.text), uid=uid, seq=seq)
        return Verdict(problem, self._sealed, self._dropped, self._unsealed, self._anchors, tuple(self._notes))

    def _chain(self) -> Problem | None:
        """Segment by segment, then what is behind the last anchor."""
        row = self._plane.database.one("SELECT number FROM rk_audit_anchor WHERE number < 1 ORDER BY number LIMIT 1")
        if row is not None:
            return Problem("anchor", f"anchor {row[0]} stands before the first one: it was inserted")
        before: Anchor | None = None
        walk = Walk(self._keys)
        for anchor in self._stored_anchors():
            wrong = problem_of_anchor(anchor, before, self._keys) or self._kept.problem_with(anchor)
            wrong = wrong or self._segment(walk, anchor)
            if wrong is not None:
                return wrong
            before = anchor
            self._anchors += 1
        return self._kept.problem_at_end() or self._stretch(walk, max(walk.seq, self._end.seq))

    def _stored_anchors(self) -> Iterator[Anchor]:
        last = 0
        while batch := anchors(self._plane, last, _BATCH):
            yield from batch
            last = batch[-1].number

    def _segment(self, walk: Walk, anchor: Anchor) -> Problem | None:
        start = walk.seq, walk.digest
        if anchor.dropped_at is None:
            wrong = self._stretch(walk, anchor.seq) or walk.arrive(anchor)
            if wrong is None or not self._dropped_meanwhile(anchor):
                return wrong
        row = self._plane.database.one(
            "SELECT seq, uid FROM rk_audit_seal WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1", (start[0], anchor.seq)
        )
        if row is not None:
            text = f"event {row[1]} (number {row[0]}) stands where everything was removed when its time was over"
            return Problem("inserted", text, row[1], row[0])
        self._dropped += anchor.seq - start[0]
        if self._noted is not None and start[0] <= self._noted.seq <= anchor.seq:
            self._found_noted = self._noted.seq < anchor.seq or self._noted.digest == anchor.digest
        walk.seq, walk.digest = anchor.seq, anchor.digest
        return None

    def _dropped_meanwhile(self, anchor: Anchor) -> bool:
        (now,) = anchors(self._plane, anchor.number - 1, 1) or (anchor,)
        return now.mac == anchor.mac and is_own_drop(now, self._keys)

    def _stretch(self, walk: Walk, end: int) -> Problem | None:
        """Walk on to this number."""
        while walk.seq < end:
            batch = sealed_between(self._plane, walk.seq, min(end, walk.seq + _BATCH))
            if not batch:
                return missing_up_to(walk, end)
            for seal, event in batch:
                wrong = walk.step(seal, event)
                if wrong is not None:
                    return wrong
                self._sealed += 1
                if self._noted is not None and walk.seq == self._noted.seq:
                    self._found_noted = walk.digest == self._noted.digest
            hidden = self._hidden([(seal, event) for seal, event in batch if event is not None])
            if hidden is not None:
                return hidden
        return None

    def _hidden(self, batch: Sequence[tuple[Seal, Event]]) -> Problem | None:
        """Whether a search by prefix passes an event over, because one of its names is not among those it looks at."""
        names = sorted({name for _, event in batch for name, _ in event.names})
        if not names:
            return None
        marks = ", ".join("?" * len(names))
        known = set(self._plane.database.all(f"SELECT name, part FROM rk_audit_name WHERE name IN ({marks})", names))
        for seal, event in batch:
            if not known.issuperset(event.names) and self._is_there(event):
                text = (
                    f"event {event.uid} (number {seal.seq}) is hidden from searches: its actor or target was taken out "
                    "of rk_audit_name"
                )
                return Problem("hidden", text, event.uid, seal.seq)
        return None

    def _is_there(self, event: Event) -> bool:
        """Whether it was not dropped meanwhile, its time being over."""
        return self._plane.database.one("SELECT 1 FROM rk_audit_event WHERE uid = ?", (event.uid,)) is not None

    def _tail(self) -> Problem | None:
        """Whether the chain still has its end as this home noted it."""
        noted = self._noted
        if noted is None or noted.seq == 0 or self._found_noted:
            return None
        if noted.seq > self._end.seq:
            text = (
                f"the end is cut off: event number {noted.seq} was sealed, and the last one is number {self._end.seq}"
            )
            return Problem("truncated", text, None, self._end.seq + 1)
        text = f"the chain was replaced: event number {noted.seq} is not the one that this home saw sealed"
        return Problem("truncated", text, None, noted.seq)

    def _read_head(self) -> tuple[Head | None, Problem | None]:
        path = self._plane.settings.home / HEAD_FILE
        if not path.exists():
            self._notes.append(
                f"{path} is missing: events that were cut off behind the last anchor would not be missed"
            )
            return None, None
        note = read_note(path)
        key = self._keys.get(str(note.get("key_id")))
        try:
            right = head_mac(key, note["seq"], note["digest"], note["at"]) if key is not None else ""
            head = Head(note["seq"], note["digest"])
        except (KeyError, TypeError):
            right, head = "", Head()
        if not same(note.get("mac"), right) or key is None:
            return None, Problem("anchor", f"{path} was changed, or is another plane's")
        return head, None

    def _strangers(self) -> Problem | None:
        """Events that were never sealed: those that wait count, others were inserted."""
        last = ""
        while True:
            edge = self._plane.database.one(
                "SELECT MAX(uid) FROM (SELECT uid FROM rk_audit_event WHERE uid > ? ORDER BY uid LIMIT ?) AS piece",
                (last, _BATCH),
            )
            if edge is None or edge[0] is None:
                break
            # One statement, so that what is sealed just now is seen either waiting or sealed.
            for row in self._plane.database.all(
                f"SELECT w.uid, e.key_id, e.mac, {_CONTENT} FROM rk_audit_event e "
                "LEFT JOIN rk_audit_seal s ON s.uid = e.uid LEFT JOIN rk_audit_unsealed w ON w.uid = e.uid "
                "WHERE e.uid > ? AND e.uid <= ? AND s.uid IS NULL ORDER BY e.uid",
                (last, edge[0]),
            ):
                wrong = self._waiting(row)
                if wrong is not None:
                    return wrong
            last = edge[0]
        return (
            self._without_id()
            or self._outside_the_chain()
            or self._sealed_twice()
            or self._gone_before_their_seal()
            or self._gone_with_all_traces()
            or self._not_indexed()
        )

    def _waiting(self, row: tuple[Any, ...]) -> Problem | None:
        event = Event(tuple(row[3:]), row[1], row[2])
        wrong = problem_of_event(event, self._keys)
        if wrong is not None:
            return wrong
        if row[0] is None:
            text = f"event {event.uid} does not wait for a seal and has none: it was inserted behind the trail's back"
            return Problem("inserted", text, event.uid)
        self._unsealed += 1
        return None

    def _without_id(self) -> Problem | None:
        # Or with one that is below every id, where the look at all of them does not begin.
        row = self._plane.database.one("SELECT id FROM rk_audit_event WHERE uid IS NULL OR uid < '0' LIMIT 1")
        if row is None:
            return None
        return Problem(
            "inserted", f"row {row[0]} of rk_audit_event has no event id: it was inserted behind the trail's back"
        )

    def _outside_the_chain(self) -> Problem | None:
        row = self._plane.database.one("SELECT uid, seq FROM rk_audit_seal WHERE seq < 1 ORDER BY seq LIMIT 1")
        if row is None:
            return _problem_behind(self._plane)
        text = f"event {row[0]} is sealed as number {row[1]}, before the first one: it was inserted"
        return Problem("inserted", text, row[0], row[1])

    def _sealed_twice(self) -> Problem | None:
        last = ""
        # From the last one of the piece before on, so that two are met side by side where a piece ends, too.
        while rows := self._plane.database.all(
            "SELECT uid, seq FROM rk_audit_seal WHERE uid >= ? ORDER BY uid, seq LIMIT ?", (last, _BATCH)
        ):
            for (uid, _), (again, seq) in pairwise(rows):
                if uid == again:
                    text = f"event {uid} is sealed twice: it was put into the queue of the sealer again as number {seq}"
                    return Problem("inserted", text, uid, seq)
            if len(rows) < _BATCH:
                break
            last = rows[-1][0]
        return None

    def _gone_before_their_seal(self) -> Problem | None:
        row = self._plane.database.one(
            "SELECT w.uid FROM rk_audit_unsealed w LEFT JOIN rk_audit_event e ON e.uid = w.uid "
            "WHERE e.uid IS NULL ORDER BY w.id LIMIT 1"
        )
        if row is None:
            return None
        return Problem("missing", f"event {row[0]} is missing: its row was removed before it was sealed", row[0])

    def _gone_with_all_traces(self) -> Problem | None:
        for uid in audit_written.missing(self._plane.database, self._keys, self._written):
            return _gone(uid)
        return None

    def _not_indexed(self) -> Problem | None:
        """Whether a page passes an event over that the index which it is read off lacks, or a look here did so: whoever
        can write to the file of an embedded store can make one that does."""
        last = _GREATEST
        while last >= -_GREATEST - 1:
            edge = self._plane.database.one(
                "SELECT MIN(id) FROM (SELECT id FROM rk_audit_event WHERE id <= ? ORDER BY id DESC LIMIT ?) AS piece",
                (last, _BATCH),
            )
            if edge is None or edge[0] is None:
                break
            for index, columns in INDEXES.items():
                wrong = self._missing_in(index, columns, (edge[0], last))
                if wrong is not None:
                    return wrong
            last = edge[0] - 1
        return None

    def _missing_in(self, index: str, columns: Sequence[str], bounds: tuple[int, int]) -> Problem | None:
        alike = " AND ".join(f"i.{name} = e.{name}" for name in ("id", *columns))
        # In a form that no index is looked up for.
        has_all = " AND ".join(f"(e.{name} IS NULL) = 0" for name in columns)
        database = self._plane.database
        try:
            row = database.one(
                f"SELECT e.uid FROM rk_audit_event e LEFT JOIN rk_audit_event i {database.by_index(index)} ON {alike} "
                f"WHERE e.id BETWEEN ? AND ? AND {has_all} AND i.id IS NULL ORDER BY e.id LIMIT 1",
                bounds,
            )
        except database.defects as error:
            return Problem("hidden", f"index {index} of rk_audit_event is not as it was made: {error}")
        if row is None:
            return None
        return Problem("hidden", f"event {row[0]} is hidden from pages: index {index} does not have it", row[0])


class _KeptAnchors:
    """The anchors that the home has kept, gone through beside those of the database. Some are other homes'."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = self._read(path.stat().st_size if path.exists() else 0)
        self._next = next(self._lines, None)

    def _read(self, size: int) -> Iterator[dict[str, Any]]:
        if not size:
            return
        with self._path.open("rb") as file:
            while file.tell() < size and (line := file.readline()):
                try:
                    kept = orjson.loads(line)
                except orjson.JSONDecodeError:
                    # The last line of a process that was killed.
                    continue
                if isinstance(kept, dict) and isinstance(kept.get("number"), int):
                    yield kept

    def problem_with(self, anchor: Anchor) -> Problem | None:
        """Whether the home knows this anchor as another one."""
        while self._next is not None and self._next["number"] <= anchor.number:
            kept, self._next = self._next, next(self._lines, None)
            if kept["number"] == anchor.number and kept.get("mac") != anchor.mac:
                text = f"anchor {anchor.number} is not the one in {self._path}: the trail was replaced"
                return Problem("truncated", text, None, anchor.seq)
        return None

    def problem_at_end(self) -> Problem | None:
        """Whether the home knows an anchor behind the last one."""
        if self._next is None:
            return None
        number, seq = self._next["number"], self._next.get("seq")
        text = f"the end is cut off: anchor {number} in {self._path} signed {seq} events, and the trail has it no more"
        return Problem("truncated", text, None, seq if isinstance(seq, int) else None)
