"""When a session is over, and for how long the proof of a password lasts."""

from __future__ import annotations

from typing import NamedTuple

# When a session was seen last is written at least this often, so the row may be so much behind.
SEEN_EVERY_MS = 60_000
# What needs the password to have been given a short while ago (ASVS 5, 7.5) takes one of ten minutes.
PROOF_MS = 600_000


class Limits(NamedTuple):
    """For how long a session lasts without being used, and in all; milliseconds."""

    idle_ms: int
    absolute_ms: int

    def and_also(self, other: Limits) -> Limits:
        """The shorter of each."""
        return Limits(min(self.idle_ms, other.idle_ms), min(self.absolute_ms, other.absolute_ms))


class Lifetime(NamedTuple):
    """What is known of a session's time; UTC milliseconds. ``last_seen_at`` may be ``SEEN_EVERY_MS`` behind."""

    created_at: int
    expires_at: int
    ended_at: int | None
    last_seen_at: int


def is_over(life: Lifetime, limits: Limits, now_ms: int) -> bool:
    """Whether a session was ended, has reached its absolute limit, or was idle for too long.

    A session that is in use is never taken for idle: it gets the time that its row may be behind.
    """
    return (
        life.ended_at is not None
        or now_ms >= min(life.expires_at, life.created_at + limits.absolute_ms)
        or now_ms > life.last_seen_at + limits.idle_ms + SEEN_EVERY_MS
    )


def proof_is_old(authenticated_at: int, now_ms: int) -> bool:
    """Whether the password was given too long ago for what is sensitive.

    As long before: beyond that the clock was put back since, and the proof would count until it has caught up.
    """
    return abs(now_ms - authenticated_at) >= PROOF_MS
