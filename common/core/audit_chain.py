"""The audit trail's proof against changes behind its back: what is signed of an event, and how events are chained.

Each event carries a keyed MAC over its content from the start. Later it is *sealed*: given the next number, and a
keyed digest over the digest before it, that number and the event. So whoever lacks the key can neither change an event,
nor take one out, put one in or move one, without a digest that does not fit. Now and then an *anchor*
signs the head of the chain; anchors are chained too, and what lies between two of them is a segment.

HMAC-SHA-256 (RFC 2104) throughout, written in hexadecimal.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

#: What an event's MAC is over, in this order.
CONTENT = (
    "uid",
    "at",
    "tag",
    "result",
    "actor_id",
    "actor_email",
    "actor_roles",
    "credential",
    "address",
    "agent",
    "request_id",
    "target_kind",
    "target",
    "before",
    "after",
    "actor_key",
    "target_key",
)
#: The parts that an event's names have, in the order of CONTENT's last fields: actor and target.
PARTS = ("a", "t")
#: The digest before the first event, and the MAC before the first anchor.
NOTHING = "0" * 64
#: A segment ends with the batch that brings it to so many events, or with the first one after so long.
SEGMENT_EVENTS = 1000
SEGMENT_MS = 3600 * 1000

_UID_MS_DIGITS = 12

Scalar = str | int | None
Keys = Mapping[str, bytes]
Kind = Literal["broken", "missing", "moved", "inserted", "truncated", "anchor", "key", "hidden"]


class Problem(NamedTuple):
    """The first thing that is wrong: its kind, a sentence, and the event and its number where they are known."""

    kind: Kind
    text: str
    uid: str | None = None
    seq: int | None = None


class Event(NamedTuple):
    """An event as it is stored: the values of CONTENT, and its signature."""

    content: tuple[Scalar, ...]
    key_id: str | None
    mac: str | None

    @property
    def uid(self) -> str | None:
        """Its id, which begins with its moment."""
        return self.content[0] if isinstance(self.content[0], str) else None

    @property
    def at(self) -> int:
        """Its moment (UTC milliseconds); 0 where somebody has put something else there."""
        return self.content[1] if isinstance(self.content[1], int) else 0

    @property
    def names(self) -> list[tuple[str, str]]:
        """The names that a search by prefix finds it by, each with its part."""
        found = zip(self.content[-len(PARTS) :], PARTS, strict=True)
        return [(name, part) for name, part in found if isinstance(name, str) and name]


class Seal(NamedTuple):
    """An event's place in the chain."""

    seq: int
    uid: str
    key_id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """The head of the chain at a moment, signed; ``newest_at`` is the latest moment of any event up to here.

    ``previous`` is the MAC of the anchor before. Of a dropped segment, ``dropped_at`` and ``drop_mac`` say that its
    events were removed when their time was over.
    """

    number: int
    seq: int
    digest: str
    newest_at: int
    at: int
    previous: str
    key_id: str
    mac: str
    dropped_at: int | None = None
    drop_key_id: str | None = None
    drop_mac: str | None = None


def canonical(values: Sequence[Scalar]) -> bytes:
    """One text for each list of values, and another one for every other list: each value's kind, length and bytes."""
    return b"".join(map(_part, values))


def _part(value: object) -> bytes:
    if value is None:
        return b"n;"
    if isinstance(value, str):
        kind, text = b"s", value
    elif isinstance(value, int):
        kind, text = b"i", str(value)
    else:
        # Nothing of this plane's, but SQLite keeps a value of any kind that somebody puts there.
        kind, text = b"x", repr(value)
    content = text.encode("utf-8", "surrogatepass")
    return b"%s%d:%s;" % (kind, len(content), content)


def event_mac(key: bytes, content: Sequence[Scalar]) -> str:
    """The MAC of an event, over the values of CONTENT."""
    return _mac(key, "event", content)


def link(key: bytes, previous: str, seq: int, uid: str, mac: str) -> str:
    """The digest of the chain once an event is sealed under the next number."""
    return _mac(key, "link", (previous, seq, uid, mac))


def is_linked(keys: Keys, previous: str, seal: Seal, mac: object) -> bool:
    """Whether this plane sealed the event with this MAC behind the digest before."""
    key = keys.get(seal.key_id)
    return key is not None and isinstance(mac, str) and same(seal.digest, link(key, previous, seal.seq, seal.uid, mac))


def anchor_mac(key: bytes, number: int, seq: int, digest: str, newest_at: int, at: int, previous: str) -> str:
    """The MAC of an anchor."""
    return _mac(key, "anchor", (number, seq, digest, newest_at, at, previous))


def drop_mac(key: bytes, anchor: str, dropped_at: int) -> str:
    """The proof that the segment before the anchor with this MAC was removed by its plane."""
    return _mac(key, "drop", (anchor, dropped_at))


def head_mac(key: bytes, seq: int, digest: str, at: int) -> str:
    """The MAC of a note of the head that is kept outside the database."""
    return _mac(key, "head", (seq, digest, at))


def _mac(key: bytes, what: str, values: Sequence[Scalar]) -> str:
    return hmac.digest(key, canonical(("ragkeeper audit 1", what, *values)), "sha256").hex()


def same(found: object, expected: str) -> bool:
    """Whether a stored MAC is the right one; it may be of any kind."""
    return isinstance(found, str) and hmac.compare_digest(found.encode("utf-8", "surrogatepass"), expected.encode())


def uid_of(at_ms: int, turn: int, chance: str) -> str:
    """An event's id, 28 hexadecimal digits: its moment, its turn within that, and 12 digits of chance.

    Ids sort as their moments do.
    """
    return f"{at_ms:0{_UID_MS_DIGITS}x}{min(turn, 0xFFFF):04x}{chance:.12}"


def uids_from(at_ms: int) -> str:
    """What no id of an event before this moment reaches, and each one from it on does."""
    return f"{min(max(at_ms, 0), 16**_UID_MS_DIGITS - 1):0{_UID_MS_DIGITS}x}"


def anchor_is_due(seq: int, now_ms: int, last: Anchor | None) -> bool:
    """Whether the chain, whose head is at ``seq`` now, needs another anchor."""
    return last is None or seq - last.seq >= SEGMENT_EVENTS or (seq > last.seq and now_ms - last.at >= SEGMENT_MS)


def problem_of_event(event: Event, keys: Keys) -> Problem | None:
    """What is wrong with an event by itself."""
    uid = event.uid
    if event.key_id is None or event.mac is None:
        return Problem("inserted", f"event {uid} has no signature: it was inserted behind the trail's back", uid)
    key = keys.get(event.key_id)
    if key is None:
        return Problem("key", f"event {uid} was signed with key {event.key_id}, which this home does not have", uid)
    if not same(event.mac, event_mac(key, event.content)):
        return Problem("broken", f"event {uid} was changed, or inserted, behind the trail's back", uid)
    return None


class Walk:
    """Follows the chain from a place that is known to be good: feed it each seal with its event, in order.

    ``newest_at`` is the latest moment of the events on the way.
    """

    def __init__(self, keys: Keys, seq: int = 0, digest: str = NOTHING) -> None:
        self._keys = keys
        self.seq = seq
        self.digest = digest
        self.newest_at = 0

    def step(self, seal: Seal, event: Event | None) -> Problem | None:
        """Go on by one; what is wrong there, if anything is, in which case this walk is over."""
        number, uid = self.seq + 1, seal.uid
        if seal.seq != number:
            return Problem("missing", f"event number {number} is missing: the next one is {seal.seq}", None, number)
        if event is None:
            return Problem("missing", f"event {uid} (number {number}) is missing: its row was removed", uid, number)
        wrong = problem_of_event(event, self._keys)
        if wrong is not None:
            return wrong._replace(seq=number)
        key = self._keys.get(seal.key_id)
        if key is None:
            text = f"event {uid} (number {number}) was sealed with key {seal.key_id}, which this home does not have"
            return Problem("key", text, uid, number)
        if not same(seal.digest, link(key, self.digest, number, uid, event.mac or "")):
            text = f"event {uid} is not what was sealed as number {number}: moved, inserted, or one before it is gone"
            return Problem("moved", text, uid, number)
        self.seq, self.digest = number, seal.digest
        self.newest_at = max(self.newest_at, event.at)
        return None

    def arrive(self, anchor: Anchor) -> Problem | None:
        """What is wrong with an anchor of this plane's at the place where this walk is."""
        if (self.seq, self.digest) != (anchor.seq, anchor.digest):
            text = f"the chain up to number {anchor.seq} is not the one that anchor {anchor.number} signed"
        elif self.newest_at > anchor.newest_at:
            text = f"anchor {anchor.number} was signed while events before it said that they were older than they are"
        else:
            return None
        return Problem("anchor", text, None, anchor.seq)


def problem_of_anchor(anchor: Anchor, before: Anchor | None, keys: Keys) -> Problem | None:
    """What is wrong with an anchor by itself, or with its place after the one before."""
    number, previous = (before.number + 1, before.mac) if before else (1, NOTHING)
    if anchor.number != number:
        return Problem("anchor", f"anchor {number} is missing: the next one is {anchor.number}", None, anchor.seq)
    for key_id in (anchor.key_id, anchor.drop_key_id or anchor.key_id):
        if key_id not in keys:
            return Problem("key", f"anchor {number} was signed with key {key_id}, which this home does not have")
    fields = (anchor.number, anchor.seq, anchor.digest, anchor.newest_at, anchor.at, previous)
    right = anchor_mac(keys[anchor.key_id], *fields)
    if anchor.previous != previous or not same(anchor.mac, right) or (before and before.seq >= anchor.seq):
        return Problem("anchor", f"anchor {number} was changed behind the trail's back", None, anchor.seq)
    if anchor.dropped_at is None or _is_drop(anchor, keys):
        return None
    return Problem("missing", f"the events up to number {anchor.seq} were not removed by this plane", None, anchor.seq)


def is_own(anchor: Anchor, keys: Keys) -> bool:
    """Whether this plane made an anchor, wherever it stands."""
    key = keys.get(anchor.key_id)
    fields = (anchor.number, anchor.seq, anchor.digest, anchor.newest_at, anchor.at, anchor.previous)
    return key is not None and same(anchor.mac, anchor_mac(key, *fields))


def is_own_drop(anchor: Anchor, keys: Keys) -> bool:
    """Whether this plane made an anchor, wherever it stands, and removed the segment before it."""
    return is_own(anchor, keys) and _is_drop(anchor, keys)


def _is_drop(anchor: Anchor, keys: Keys) -> bool:
    key = keys.get(anchor.drop_key_id or "")
    if key is None or anchor.dropped_at is None:
        return False
    return same(anchor.drop_mac, drop_mac(key, anchor.mac, anchor.dropped_at))
