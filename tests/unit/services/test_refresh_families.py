"""Any sequence of logins, refreshes, thefts, ends and waits is judged as by a model that forgets nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from common.core.errors import NotSignedIn
from common.core.refresh import ACCESS_MS, GRACE_MS, MOST_TWINS
from common.core.session_limits import SEEN_EVERY_MS
from common.services import accounts, last_uses, refreshing, sessions
from common.services.plane import Plane
from common.services.principal import Origin, Principal
from common.services.refreshing import Pair
from tests.people import Clock

IDLE_MS, ABSOLUTE_MS = 24 * 3_600_000, 30 * 24 * 3_600_000
MOST = 10


@dataclass
class Family:
    """What the model knows of a session."""

    opened_at: int
    used_at: int
    ended: bool = False

    def is_over(self, now: int) -> bool:
        return self.ended or now >= self.opened_at + ABSOLUTE_MS or now > self.used_at + IDLE_MS + SEEN_EVERY_MS


@dataclass
class Given:
    """A pair that was given; no pair is ever forgotten here."""

    pair: Pair
    family: Family
    given_at: int
    used_at: int | None = None
    heirs: list[Given] = field(default_factory=list)


class Families(RuleBasedStateMachine):
    """One account that logs in now and then, whose tokens are used in any order."""

    pairs = Bundle("pairs")

    def __init__(self, plane: Plane, clock: Clock) -> None:
        super().__init__()
        self.plane, self.clock = plane, clock
        self.families: list[Family] = []
        self.given: list[Given] = []
        with plane.database.transaction():
            self.account = accounts.make(plane, email=f"{uuid4().hex}@x.test", nickname="", password_hash=None)

    @rule(target=pairs)
    def log_in(self) -> Given:
        # Two at one moment would be equally old.
        self.clock.forward(seconds=0.001)
        now = self.clock()
        with self.plane.database.transaction():
            _, pair = refreshing.open_family(self.plane, Origin(), self.account, "user")
        family = Family(now, now)
        open_ones = sorted(
            (each for each in self.families if not each.is_over(now)), key=lambda each: (each.used_at, each.opened_at)
        )
        for one_too_many in open_ones[: max(0, len(open_ones) - MOST + 1)]:
            one_too_many.ended = True
        self.families.append(family)
        return self.note(Given(pair, family, now))

    @rule(target=pairs, one=pairs)
    def refresh(self, one: Given) -> object:
        self.clock.forward(seconds=0.001)
        now, family = self.clock(), one.family
        try:
            pair = refreshing.rotate(self.plane, Origin(), one.pair.refresh, "user")
        except NotSignedIn:
            pair = None
        if family.is_over(now):
            assert pair is None
            return multiple()
        good = one.used_at is None or (
            now <= one.used_at + GRACE_MS
            and all(heir.used_at is None for heir in one.heirs)
            and len(one.heirs) < MOST_TWINS
        )
        assert (pair is not None) is good
        if pair is None:
            family.ended = True
            return multiple()
        family.used_at = now
        if one.used_at is None:
            one.used_at = now
        heir = self.note(Given(pair, family, now))
        one.heirs.append(heir)
        return heir

    @rule(one=pairs)
    def log_out(self, one: Given) -> None:
        if self.lets_in(one):
            sessions.log_out(self.plane, self.principal(one))
            one.family.ended = True

    @rule()
    def change_password(self) -> None:
        with self.plane.database.transaction():
            sessions.end_sessions(self.plane, self.account.id, "password")
        for family in self.families:
            family.ended = True

    @rule(seconds=st.sampled_from([1, 5, 9, 11, 60, 899, 901, 3600, 20 * 3600, 25 * 3600]))
    def wait(self, seconds: int) -> None:
        self.clock.forward(seconds=seconds)

    @invariant()
    def exactly_the_tokens_of_open_sessions_let_in(self) -> None:
        now = self.clock()
        for one in self.given:
            expected = not one.family.is_over(now) and now < one.given_at + ACCESS_MS
            assert self.lets_in(one) is expected

    def note(self, given: Given) -> Given:
        self.given.append(given)
        return given

    def lets_in(self, one: Given) -> bool:
        try:
            self.principal(one)
        except NotSignedIn:
            return False
        self.plane.session_uses.wait(10)
        one.family.used_at = self.clock()
        return True

    def principal(self, one: Given) -> Principal:
        return sessions.authenticate(self.plane, one.pair.access, "user", Origin())


def test_any_sequence_is_judged_as_by_the_model(plane: Plane, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every use is written: how many need not be is not what is looked at.
    monkeypatch.setattr(last_uses, "_EARLY_AT_ONCE", 10**9)
    run_state_machine_as_test(
        lambda: Families(plane, clock),
        settings=settings(max_examples=30, stateful_step_count=30, deadline=None),
    )
