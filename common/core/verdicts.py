"""From what a probe saw to whether it is well; and heartbeats in RAGFlow's form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

# Three beats of 30 s: one may be late and one lost before an executor counts as gone.
HEARTBEAT_MAX_AGE_S = 90.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something is well and, if not, why; the reason is for operators, never for strangers."""

    ok: bool
    reason: str = ""

    @property
    def word(self) -> str:
        """``ok`` or ``nok``, as RAGFlow's healthz has it."""
        return "ok" if self.ok else "nok"


def cluster_verdict(status: object, error: str = "") -> Verdict:
    """The verdict on a search cluster's own colour.

    Green is well, and yellow too: a single node, which has no place for replicas, is always yellow, and it
    answers every query. Red, an unknown word and no word are not.
    """
    colour = status.lower() if isinstance(status, str) else ""
    if error:
        return Verdict(False, error)
    if colour == "green":
        return Verdict(True)
    if colour == "yellow":
        return Verdict(True, "the cluster is yellow: replicas are missing")
    if colour == "red":
        return Verdict(False, "the cluster is red: primary shards are missing")
    return Verdict(False, "the cluster gave no status that is known")


def heartbeat_verdict(beat_at_s: float | None, now_s: float) -> Verdict:
    """The verdict on an executor's last heartbeat; times are Unix seconds, None for no heartbeat at all.

    One older than 90 s is not well, nor is one as far in the future: with a wrong clock, age says nothing.
    """
    if beat_at_s is None:
        return Verdict(False, "no heartbeat")
    age_s = now_s - beat_at_s
    if age_s > HEARTBEAT_MAX_AGE_S:
        return Verdict(False, f"the last heartbeat is {age_s:.0f} s old")
    if age_s < -HEARTBEAT_MAX_AGE_S:
        return Verdict(False, f"the last heartbeat is {-age_s:.0f} s in the future: compare the clocks")
    return Verdict(True)


def executors_verdict(last_beats_s: Mapping[str, float | None], now_s: float) -> Verdict:
    """The verdict on all executors, given each one's last heartbeat: one that is alive is enough."""
    verdicts = [heartbeat_verdict(beat_at_s, now_s) for beat_at_s in last_beats_s.values()]
    if any(verdict.ok for verdict in verdicts):
        return Verdict(True)
    if not verdicts:
        return Verdict(False, "no executor has registered")
    return Verdict(False, "no executor is alive: " + _listed(last_beats_s, verdicts))


def _listed(names: Mapping[str, object], verdicts: list[Verdict]) -> str:
    return "; ".join(f"{name}: {verdict.reason}" for name, verdict in zip(names, verdicts, strict=True))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One sign of life of a task executor; times are Unix seconds, counts are of tasks."""

    name: str
    now_s: float
    boot_at_s: float
    ip_address: str = ""
    pid: int = 0
    pending: int = 0
    lag: int = 0
    done: int = 0
    failed: int = 0
    current: Mapping[str, Any] = field(default_factory=dict)


def parse_heartbeat(member: str | bytes, *, name: str, score_s: float | None = None) -> Heartbeat | None:
    """A heartbeat as some version of RAGFlow, or Ragkeeper, wrote it; None when it is none.

    ``name`` is the executor's key, ``score_s`` the time under which the member was filed; each stands in for
    what the member doesn't say. A time without offset counts as UTC. A field that can't be read takes its
    default: a strange task list doesn't make an executor dead.
    """
    try:
        found = json.loads(member)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    now_s = _seconds(found.get("now"))
    if now_s is None:
        now_s = score_s
    if now_s is None:
        return None
    boot_at_s = _seconds(found.get("boot_at"))
    current = found.get("current")
    return Heartbeat(
        name=_text(found.get("name")) or name,
        now_s=now_s,
        boot_at_s=now_s if boot_at_s is None else boot_at_s,
        ip_address=_text(found.get("ip_address")),
        pid=_count(found.get("pid")),
        pending=_count(found.get("pending")),
        lag=_count(found.get("lag")),
        done=_count(found.get("done")),
        failed=_count(found.get("failed")),
        current=current if isinstance(current, dict) else {},
    )


def _seconds(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    """A number that isn't negative, also where it was written as a float or in quotes; else 0."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return max(int(value), 0)
    return max(value, 0) if type(value) is int else 0
