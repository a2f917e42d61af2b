"""Sealing: giving audit events their place in the chain, by one sealer at a time, and noting where the chain ends.

What must not happen twice is under a lock of the database. The lease on the cache store, which a sealer has besides,
only saves the others from looking.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from common.core.audit_chain import (
    CONTENT,
    NOTHING,
    PARTS,
    SEGMENT_EVENTS,
    Anchor,
    Keys,
    Seal,
    anchor_is_due,
    anchor_mac,
    event_mac,
    head_mac,
    is_linked,
    is_own,
    is_own_drop,
    link,
)
from common.models.audit import AuditAnchor, AuditName, AuditSeal
from common.services.plane import Plane
from common.stores.database import Database

log = logging.getLogger(__name__)

#: Events of one transaction, in which on embedded stores nobody else can write.
BATCH = 500
#: What the home keeps: every anchor that was made here, and where the chain ended when this home last saw it.
ANCHORS_FILE = "audit-anchors.jsonl"
HEAD_FILE = "audit-head.json"

_ANCHOR_COLUMNS = "number, seq, digest, newest_at, at, previous, key_id, mac, dropped_at, drop_key_id, drop_mac"
# The store takes none behind it.
_LAST_NUMBER = 2**63 - 1
_WAITING = """
    SELECT u.id, e.uid, e.mac, e.at, e.actor_key, e.target_key
    FROM rk_audit_unsealed u JOIN rk_audit_event e ON e.uid = u.uid LEFT JOIN rk_audit_seal s ON s.uid = u.uid
    WHERE e.mac IS NOT NULL AND s.uid IS NULL ORDER BY u.id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: the number of its last event and the digest there."""

    seq: int = 0
    digest: str = NOTHING


def seal_all(plane: Plane) -> int:
    """Seal what waits, batch by batch, and note the head in the home; how many were sealed. Raises StoreUnavailable."""
    total = 0
    while count := seal_batch(plane):
        total += count
        if count < BATCH:
            break
    return total


def seal_batch(plane: Plane) -> int:
    """Seal up to BATCH events in one transaction; how many. Raises StoreUnavailable."""
    if plane.database.one("SELECT 1 FROM rk_audit_unsealed LIMIT 1") is None and _has_begun(plane):
        return 0
    with plane.database.transaction():
        plane.database.lock("audit_seal")
        head, last = head_of(plane), last_anchor(plane)
        if last is None and head.seq == 0 and not _has_sealed(plane):
            _sign_what_was_before(plane)
        rows = plane.database.all(_WAITING, (_room(plane, head),))
        if not rows:
            return 0
        _take_out(plane, rows)
        ours = [row for row in rows if _may_be_ours(row)]
        if not ours:
            return len(rows)
        head = _append(plane, head, ours)
        anchor = _anchored(plane, head, last, max(at for _, _, _, at, _, _ in ours))
        _learn_names(plane, {(name, part) for row in ours for name, part in zip(row[4:], PARTS, strict=True) if name})
    _note(plane, head, anchor)
    return len(rows)


def _take_out(plane: Plane, rows: Sequence[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * len(rows))
    plane.database.run(f"DELETE FROM rk_audit_unsealed WHERE id IN ({marks})", [row[0] for row in rows])


def _room(plane: Plane, head: Head) -> int:
    """How many seals the next batch may have at most: the numbers behind the head that nobody else has taken."""
    taken = plane.database.one("SELECT seq FROM rk_audit_seal WHERE seq > ? ORDER BY seq LIMIT 1", (head.seq,))
    return min(taken[0] - head.seq - 1, BATCH) if taken is not None else BATCH


def _may_be_ours(row: tuple[Any, ...]) -> bool:
    """Whether a row that waits has values of the kinds that events have. SQLite takes any that somebody puts there,
    which must not stop the sealer; the event is one that has no seal, then, and none to come."""
    _, uid, mac, at, *names = row
    if isinstance(at, int) and all(map(_is_text, (uid, mac, *(name for name in names if name is not None)))):
        return True
    log.error("event %a is not sealed: it was put there behind the trail's back; run `ragkeeper audit verify`", uid)
    return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def head_of(plane: Plane) -> Head:
    """Where the chain ends now.

    A seal that somebody has put behind the end with a gap does not count: behind the last number that the store takes
    there would be none to go on with, and behind another one the gap would stay when it is taken out again.
    """
    row = plane.database.one(
        "SELECT s.seq, s.uid, s.key_id, s.digest, e.mac FROM rk_audit_seal s "
        "LEFT JOIN rk_audit_event e ON e.uid = s.uid WHERE s.seq > 0 ORDER BY s.seq DESC LIMIT 1"
    )
    if row is not None:
        seal = Seal(*row[:4])
        if is_linked(plane.keys.audit_keys(), digest_at(plane, seal.seq - 1), seal, row[4]):
            return Head(seal.seq, seal.digest)
    anchor = _newest(plane)
    # All that there was may have been dropped. Behind what no chain comes to there would be no number to go on with.
    is_chain = anchor is not None and 0 <= as_number(anchor.seq) <= _LAST_NUMBER // 2
    head = _behind_what_was_dropped(plane, anchor) if anchor is not None and is_chain else Head()
    return head if row is None else _without_a_gap(plane, head)


def _behind_what_was_dropped(plane: Plane, anchor: Anchor) -> Head:
    """The end of the segments that were dropped behind this anchor, by a plane with a key that this one may not know.

    No segment has more events than those with which it was due and a batch, so nobody can say so of many at once.
    """
    head = Head(as_number(anchor.seq), anchor.digest)
    row = plane.database.one("SELECT seq FROM rk_audit_seal WHERE seq > ? ORDER BY seq LIMIT 1", (head.seq,))
    for number, behind in enumerate(anchors(plane, anchor.number, BATCH), anchor.number + 1):
        seq = as_number(behind.seq)
        is_next = behind.number == number and head.seq < seq < head.seq + SEGMENT_EVENTS + BATCH
        if not is_next or behind.dropped_at is None or (row is not None and row[0] <= seq):
            break
        head = Head(seq, behind.digest)
    return head


def _without_a_gap(plane: Plane, head: Head) -> Head:
    """The last of the seals that follow on this head number by number."""
    while True:
        rows = plane.database.all(
            "SELECT seq, digest FROM rk_audit_seal WHERE seq > ? ORDER BY seq LIMIT ?", (head.seq, BATCH)
        )
        for seq, digest in rows:
            if seq > head.seq + 1:
                return head
            head = Head(seq, digest)
        if len(rows) < BATCH:
            return head


def digest_at(plane: Plane, seq: int) -> str:
    """The digest of the chain at this number."""
    row = plane.database.one("SELECT digest FROM rk_audit_seal WHERE seq = ?", (seq,))
    row = row or plane.database.one("SELECT digest FROM rk_audit_anchor WHERE seq = ?", (seq,))
    return row[0] if row else NOTHING


def put_behind(plane: Plane) -> tuple[str, int] | None:
    """The id and number of a seal that somebody has put behind the end of the chain."""
    row = plane.database.one("SELECT uid, seq FROM rk_audit_seal ORDER BY seq DESC LIMIT 1")
    # After it, for the chain may grow meanwhile.
    end = head_of(plane).seq
    return row if row is not None and row[1] > end else None


def anchors(plane: Plane, after: int, limit: int) -> list[Anchor]:
    """Up to ``limit`` anchors behind this number, in order."""
    rows = plane.database.all(
        f"SELECT {_ANCHOR_COLUMNS} FROM rk_audit_anchor WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
    )
    return [Anchor(*row) for row in rows]


def last_anchor(plane: Plane) -> Anchor | None:
    """The newest anchor, of which the next one is made. What somebody has put behind it with a gap does not count."""
    anchor = _newest(plane)
    if anchor is None:
        return None
    for behind in anchors(plane, anchor.number, BATCH):
        if behind.number == anchor.number + 1:
            anchor = behind
    # So that the next one can be made whatever somebody has put into this one.
    seq, newest_at, at = as_number(anchor.seq), as_number(anchor.newest_at), as_number(anchor.at)
    return replace(anchor, seq=seq, newest_at=newest_at, at=at, mac=anchor.mac if _is_text(anchor.mac) else NOTHING)


def _newest(plane: Plane) -> Anchor | None:
    """The newest anchor that this plane made; where none of the last ones is, the newest that another can follow."""
    keys, found = plane.keys.audit_keys(), None
    for limit in (1, BATCH):
        rows = plane.database.all(
            f"SELECT {_ANCHOR_COLUMNS} FROM rk_audit_anchor WHERE number > 0 AND number < ? "
            "ORDER BY number DESC LIMIT ?",
            (_LAST_NUMBER, limit),
        )
        last = [Anchor(*row) for row in rows]
        own = next((anchor for anchor in last if is_own(anchor, keys)), None)
        if own is not None:
            return own
        found = last[0] if last else None
    return found


def anchor_before(plane: Plane, at_ms: int) -> Anchor | None:
    """The newest anchor of this plane's whose events are all older than this moment."""
    rows = plane.database.all(
        f"SELECT {_ANCHOR_COLUMNS} FROM rk_audit_anchor WHERE newest_at < ? ORDER BY number DESC LIMIT ?",
        (at_ms, BATCH),
    )
    keys = plane.keys.audit_keys()
    return next((anchor for anchor in (Anchor(*row) for row in rows) if is_own(anchor, keys)), None)


def as_number(value: object) -> int:
    """A number as it is stored; 0 for what somebody has put in its place, of which SQLite takes any kind."""
    return value if isinstance(value, int) else 0


def last_drop(database: Database, keys: Keys) -> Anchor | None:
    """The newest anchor whose segment was dropped, if this plane did that: the database alone can say so of any."""
    row = database.one(
        f"SELECT {_ANCHOR_COLUMNS} FROM rk_audit_anchor WHERE dropped_at IS NOT NULL ORDER BY number DESC LIMIT 1"
    )
    anchor = Anchor(*row) if row else None
    return anchor if anchor is not None and is_own_drop(anchor, keys) else None


def _has_begun(plane: Plane) -> bool:
    return plane.database.one("SELECT 1 FROM rk_audit_anchor LIMIT 1") is not None


def _has_sealed(plane: Plane) -> bool:
    """Whether this home has seen a chain. Where that is gone it was removed, and what is unsigned was put there by
    whoever did that: once signed, it could be put into the chain that was removed."""
    return any((plane.settings.home / name).exists() for name in (HEAD_FILE, ANCHORS_FILE))


def _append(plane: Plane, head: Head, rows: Sequence[tuple[Any, ...]]) -> Head:
    key_id, key = next(iter(plane.keys.audit_keys().items()))
    seq, digest, seals = head.seq, head.digest, []
    # Once each, however often somebody has put them into the queue.
    for uid, mac in {row[1]: row[2] for row in rows}.items():
        seq += 1
        digest = link(key, digest, seq, uid, mac)
        seals.append((seq, uid, key_id, digest))
    fields = [AuditSeal.seq, AuditSeal.uid, AuditSeal.key_id, AuditSeal.digest]
    plane.database.execute(AuditSeal.insert_many(seals, fields))
    return Head(seq, digest)


def _anchored(plane: Plane, head: Head, last: Anchor | None, newest_at: int) -> Anchor | None:
    """Write an anchor at the head, if one is due. ``newest_at`` counts for events behind the last one."""
    now = plane.now_ms()
    if not anchor_is_due(head.seq, now, last) or (last is not None and last.number + 1 >= _LAST_NUMBER):
        return None
    row = plane.database.one(
        "SELECT MAX(e.at) FROM rk_audit_seal s JOIN rk_audit_event e ON e.uid = s.uid WHERE s.seq > ?",
        (last.seq if last else 0,),
    )
    newest_at = max(newest_at, as_number(row[0] if row else None), last.newest_at if last else 0)
    number, previous = (last.number + 1, last.mac) if last else (1, NOTHING)
    key_id, key = next(iter(plane.keys.audit_keys().items()))
    mac = anchor_mac(key, number, head.seq, head.digest, newest_at, now, previous)
    anchor = Anchor(number, head.seq, head.digest, newest_at, now, previous, key_id, mac)
    plane.database.insert(AuditAnchor, **_as_row(anchor))
    return anchor


def _as_row(anchor: Anchor) -> dict[str, Any]:
    names = ("number", "seq", "digest", "newest_at", "at", "previous", "key_id", "mac")
    return {name: getattr(anchor, name) for name in names}


def _learn_names(plane: Plane, parts: set[tuple[str, str]]) -> None:
    """Note the names that are new in their part, for searches by prefix."""
    if not parts:
        return
    names = sorted({name for name, _ in parts})
    marks = ", ".join("?" * len(names))
    known = plane.database.all(f"SELECT name, part FROM rk_audit_name WHERE name IN ({marks})", names)
    new = sorted(parts.difference((name, part) for name, part in known))
    if new:
        # To a server one that ends in spaces, which none of this plane's does, is the same as without.
        query = AuditName.insert_many(new, [AuditName.name, AuditName.part])
        plane.database.execute(query.on_conflict_ignore())


def _sign_what_was_before(plane: Plane) -> None:
    """Events that were written before there were signatures get theirs before anything is sealed, and never later: in
    a chain that has begun, one without a signature was put there by someone else."""
    key_id, key = plane.keys.audit_key()
    columns = ", ".join(f"`{name}`" for name in CONTENT)
    while rows := plane.database.all(
        f"SELECT id, {columns} FROM rk_audit_event WHERE mac IS NULL AND uid IS NOT NULL ORDER BY id LIMIT ?", (BATCH,)
    ):
        for row_id, *content in rows:
            plane.database.run(
                "UPDATE rk_audit_event SET key_id = ?, mac = ? WHERE id = ?", (key_id, event_mac(key, content), row_id)
            )
            plane.database.run("INSERT INTO rk_audit_unsealed (uid) VALUES (?)", (content[0],))


def _note(plane: Plane, head: Head, anchor: Anchor | None) -> None:
    """Keep in the home what the database can't take back. One that can't be written to stops no sealing."""
    try:
        if anchor is not None:
            log.info(
                "audit anchor %d: %d events, digest %s, MAC %s", anchor.number, anchor.seq, anchor.digest, anchor.mac
            )
            _append_line(plane.settings.home / ANCHORS_FILE, orjson.dumps(_as_row(anchor)))
        _move_head(plane, head)
    except OSError as error:
        log.warning("the end of the audit chain is not noted in the home: %s", error)


def _move_head(plane: Plane, head: Head) -> None:
    """Note the head, unless the chain no longer has the one that was noted: that must stay, as evidence."""
    path = plane.settings.home / HEAD_FILE
    noted = noted_head(path)
    if noted is not None and not is_in_chain(plane, noted):
        log.error(
            "the audit chain no longer has event number %d as %s says: its end was cut off or replaced; run "
            "`ragkeeper audit verify`",
            noted.seq,
            path,
        )
        return
    if noted is not None and noted.seq > head.seq:
        # Another sealer of this home was faster; or the chain was made to go on before its end, which then must stay
        # noted, or it could be cut off.
        return
    key_id, key = plane.keys.audit_key()
    at = plane.now_ms()
    note = {"seq": head.seq, "digest": head.digest, "at": at, "key_id": key_id}
    _replace(path, orjson.dumps({**note, "mac": head_mac(key, head.seq, head.digest, at)}) + b"\n")


def noted_head(path: Path) -> Head | None:
    """The head that a home has noted, whoever signed it; None where there is no note, or none that can be read."""
    note = read_note(path)
    seq, digest = note.get("seq"), note.get("digest")
    return Head(seq, digest) if isinstance(seq, int) and isinstance(digest, str) else None


def read_note(path: Path) -> dict[str, Any]:
    """What a note of the head says; empty where there is none, or none that can be read."""
    try:
        note = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return note if isinstance(note, dict) else {}


def is_in_chain(plane: Plane, noted: Head) -> bool:
    """Whether the chain has, or had before it was dropped, this head."""
    row = plane.database.one("SELECT digest FROM rk_audit_seal WHERE seq = ?", (noted.seq,))
    if row is not None:
        return bool(row[0] == noted.digest)
    dropped = last_drop(plane.database, plane.keys.audit_keys())
    return noted.seq == 0 or (dropped is not None and dropped.seq >= noted.seq)


def _append_line(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        # Else a power cut can leave an empty file, which would look like one that somebody has changed.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.replace(path)
