"""Every limit, as a function whose text says the rule; each counts for all processes together.

While the cache store is down each process counts for itself. How many are allowed is a setting (``limit.…``), where 0
means no limit, but for logins.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from uuid import uuid4

from common.core.emails import email_key
from common.core.errors import StoreUnavailable, TooMany
from common.core.limits import LONGEST_WAIT_S, Policy, login_wait_s, network_of, source_of
from common.services.counting import Counts
from common.services.plane import Plane
from common.services.principal import Origin, Principal
from common.stores.cache import Count
from common.stores.waiting import refuse_on_event_loop

log = logging.getLogger(__name__)

HOUR_S = 3600.0
MINUTE_S = 60.0
# Failures of an address, and of its network, are counted over a quarter of an hour.
FAILURES_S = 900.0
# Failures in a row of one account are forgotten a day after the first.
IN_A_ROW_S = 24 * HOUR_S
# A login that has begun and is not judged yet holds up the next one of the account for as long at most; whoever meets
# it looks again for a moment, for mostly it is judged at once, and then is told to come back shortly.
IN_FLIGHT_S = 30.0
SHORTLY_S = 1.0
_LOOKS, _LOOK_EVERY_S = 50, 0.02

Row = Literal["login", "proof"]
_ROWS: tuple[Row, ...] = ("login", "proof")

_TEXT = "Too many failed logins; try again later."


class TooManyLogins(TooMany):
    """Logins of one account, address or network have to wait. ``whose`` names it, and for ``again_s`` seconds whatever
    else is refused to it is no news (``tell_once``)."""

    policy: Policy

    def __init__(self, whose: str, policy: Policy, *, resets_in: float, again_s: float) -> None:
        super().__init__(_TEXT, resets_in=resets_in, policy=policy)
        self.whose = whose
        self.again_s = again_s

    @property
    def told(self) -> dict[str, str | int]:
        """What an event says of it: ``limit``, and ``wait_s`` in whole seconds."""
        return {"limit": self.policy.name, "wait_s": math.ceil(self.data["resets_in"])}


@dataclass(slots=True)
class LoginAttempt:
    """One attempt to prove a password, from its admission to its outcome.

    A context: what ends in it without an outcome counts for nothing, and neither does a failure that a store keeps from
    being told: its caller has learned nothing.
    """

    plane: Plane
    account: str
    address: str
    network: str | None
    free: int
    row: Row
    owner: str = field(default_factory=lambda: uuid4().hex)
    failures: int = 0
    outcome: Literal["failed", "succeeded"] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.outcome is None or (self.outcome == "failed" and isinstance(error, StoreUnavailable)):
            self._withdraw()

    def hold(self, counts: Counts, seconds: float) -> bool:
        """Keep others from this account for so long; False while another one does, which is no longer than a wait."""
        return counts.acquire_lease(self.account, self.owner, seconds, LONGEST_WAIT_S)

    def failed(self) -> float:
        """Count it; returns the seconds that the next attempt on this account has to wait, 0 for none."""
        self.outcome = self.outcome or "failed"
        wait_s = login_wait_s(self.failures, self.free)

        def count(counts: Counts) -> None:
            for key in (self.address, self.network):
                if key is not None:
                    counts.incr(key, FAILURES_S)
            if wait_s and self.hold(counts, wait_s):
                counts.set(_until(self.account), str(self.plane.now_ms() + round(wait_s * 1000)), wait_s)

        self.plane.counts.ask(self.plane.cache, count)
        return wait_s

    def succeeded(self) -> None:
        """The failures of this account are forgotten; those of the address stay."""
        self.outcome = "succeeded"

        def forget(counts: Counts) -> None:
            counts.delete(self.account)
            counts.delete(_until(self.account))
            counts.release_lease(self.account, self.owner)

        self.plane.counts.ask_both(self.plane.cache, forget)

    def _withdraw(self) -> None:
        told = (self.address, self.network) if self.outcome == "failed" else ()

        def forget(counts: Counts) -> None:
            for key in (self.account, *told):
                # One that is gone was ended by a success, or by its time.
                if key is not None and counts.counted(key) > 0:
                    counts.incr(key, FAILURES_S, -1)
            # The wait of another attempt stays.
            if self.hold(counts, SHORTLY_S):
                counts.delete(_until(self.account))
                counts.release_lease(self.account, self.owner)

        self.plane.counts.ask(self.plane.cache, forget)


def login_attempt(
    plane: Plane,
    origin: Origin,
    email: str,
    *,
    row: Row = "login",
    pause: Callable[[float], object] = time.sleep,
) -> LoginAttempt:
    """Admit an attempt to log in, before the password is looked at.

    An account, whether or not it exists, has 5 failures in a row for nothing; then each one is followed by a wait, of
    30 s at first and of 15 min at last, in which the right password is answered like a wrong one; a success ends the
    row, and so does a password that somebody else with the right to sets (``forget_failures``). Who is logged in and
    gives the password again has a row apart: strangers who try to log in keep nobody from what asks for the password.
    An address has 100 failures in 15 minutes, a /24 or /64 has 1000; successes don't count. More attempts at the same
    moment than may fail wait for each other, a second at most. Raises TooManyLogins.
    """
    network = network_of(origin.address)
    attempt = LoginAttempt(
        plane,
        account=_account(row, email),
        address=f"login:address:{origin.address}",
        network=None if network is None else f"login:network:{network}",
        free=plane.variables.integer("limit.login_failures"),
        row=row,
    )
    policies = (
        (attempt.address, Policy("login-address", plane.variables.integer("limit.login_address"), FAILURES_S)),
        (attempt.network, Policy("login-network", plane.variables.integer("limit.login_network"), FAILURES_S)),
    )

    def admit(counts: Counts) -> bool:
        for key, policy in policies:
            if key is not None and counts.counted(key) >= policy.most:
                left_s = counts.incr(key, FAILURES_S, 0).resets_in
                raise TooManyLogins(key, policy, resets_in=left_s, again_s=left_s)
        return _admit_account(plane, counts, attempt)

    ends_at = time.monotonic() + SHORTLY_S
    for _ in range(_LOOKS):
        if plane.counts.ask(plane.cache, admit):
            return attempt
        if time.monotonic() >= ends_at:
            break
        pause(_LOOK_EVERY_S)
    raise TooManyLogins(f"{attempt.account}:busy", _of_account(attempt), resets_in=SHORTLY_S, again_s=MINUTE_S)


def forget_failures(plane: Plane, email: str) -> None:
    """End the account's rows of failures, and its waits, once the running transaction has committed: a new password was
    set by who may, and whoever is given it is to be let in."""

    def forget(counts: Counts) -> None:
        for account in (_account(row, email) for row in _ROWS):
            counts.delete(account)
            counts.delete(_until(account))
            # Whose failure the wait is of: it would hold up the last attempt that is free.
            counts.release_lease(account, None)

    plane.database.after_commit(lambda: plane.counts.ask_both(plane.cache, forget))


def _admit_account(plane: Plane, counts: Counts, attempt: LoginAttempt) -> bool:
    """Whether it is this attempt's turn, which it isn't while one before is not judged; raises in a wait."""
    waited = counts.counted(attempt.account) >= attempt.free
    if waited and not attempt.hold(counts, IN_FLIGHT_S):
        _refuse_in_a_wait(plane, counts, attempt)
        return False
    # Counted before the password is looked at, so that attempts at the same moment count too.
    attempt.failures = counts.incr(attempt.account, IN_A_ROW_S).value
    if waited or attempt.failures < attempt.free:
        return True
    # The last one that is free holds up the next, whose turn it will be when this one is judged.
    if attempt.failures > attempt.free or not attempt.hold(counts, IN_FLIGHT_S):
        counts.incr(attempt.account, IN_A_ROW_S, -1)
        # One that was begun in a row before may have failed after the success that ended the row.
        _refuse_in_a_wait(plane, counts, attempt)
        return False
    return True


def _refuse_in_a_wait(plane: Plane, counts: Counts, attempt: LoginAttempt) -> None:
    """Raises TooManyLogins where whoever holds the account's lease has failed: there is more to wait for."""
    until = counts.counted(_until(attempt.account))
    if until:
        # Beyond the longest one there is the clock was put back since.
        left_s = min(max((until - plane.now_ms()) / 1000, SHORTLY_S), LONGEST_WAIT_S)
        raise TooManyLogins(attempt.account, _of_account(attempt), resets_in=left_s, again_s=left_s)


def _of_account(attempt: LoginAttempt) -> Policy:
    return Policy(f"{attempt.row}-account", attempt.free, LONGEST_WAIT_S)


def _account(row: Row, email: str) -> str:
    return f"{row}:account:" + hashlib.sha256(email_key(email).encode("utf-8", "surrogatepass")).hexdigest()


def _until(account: str) -> str:
    return f"{account}:until"


def tell_once(plane: Plane, what: str, again_s: float, tell: Callable[[], None]) -> None:
    """Tell the audit trail something for the first time in ``again_s``: what anybody may repeat at will is recorded no
    more often. Where the trail can't be written, the next time is the first."""
    name, owner = f"told:{what}", uuid4().hex
    if not plane.counts.ask(plane.cache, lambda counts: counts.acquire_lease(name, owner, max(again_s, SHORTLY_S))):
        return
    try:
        tell()
    except StoreUnavailable as unavailable:
        plane.counts.ask(plane.cache, lambda counts: counts.release_lease(name, owner))
        log.warning("not recorded: %s: %s", what, unavailable.reason)


def registration(plane: Plane, origin: Origin) -> None:
    """60 registrations an hour from one address, of IPv6 from one /64; those that were refused for another reason count
    too. Raises TooMany."""
    _hit(plane, "registration", f"{source_of(origin.address)}", HOUR_S, "Too many registrations from this address.")


def forgotten_password(plane: Plane, origin: Origin) -> None:
    """60 codes for forgotten passwords an hour, asked for from one address, of IPv6 from one /64. Raises TooMany.

    How many one account gets is another matter: see ``password_reset``.
    """
    _hit(
        plane,
        "forgotten_password",
        f"{source_of(origin.address)}",
        HOUR_S,
        "Too many codes were asked for from this address.",
    )


def invitation(plane: Plane, who: Principal) -> None:
    """200 invitations an hour by one account. Raises TooMany."""
    _hit(plane, "invitation", f"{who.user_id}", HOUR_S, "You have invited too many people just now.")


def token_creation(plane: Plane, who: Principal) -> None:
    """300 new API tokens an hour by one account. Raises TooMany."""
    _hit(plane, "token_creation", f"{who.user_id}", HOUR_S, "You have made too many tokens just now.")


def _hit(plane: Plane, name: str, key: str, window_s: float, text: str) -> None:
    most = plane.variables.integer(f"limit.{name}")
    if not most:
        return
    count = plane.counts.ask(plane.cache, lambda counts: counts.incr(f"limit:{name}:{key}", window_s))
    if count.value > most:
        raise TooMany(text, resets_in=count.resets_in, policy=Policy(name.replace("_", "-"), most, window_s))


def api_call(plane: Plane, who: Principal) -> None:
    """Calls a minute, by one API token and within one tenant; without a limit unless one is set.

    On the admin server those with a token count, and not what a person does there.

    A tenant's own limit (``tenant_limits``) comes before that of all.

    Raises TooMany.
    """
    counted = []
    if who.token_id is not None:
        counted.append(("token_calls", who.token_id, plane.variables.integer("limit.token_calls")))
    if who.tenant_id is not None:
        most = plane.variables.integer("limit.tenant_calls") if who.tenant_calls is None else who.tenant_calls
        counted.append(("tenant_calls", who.tenant_id, most))
    minute, _ = divmod(plane.now_ms(), 60_000)
    if any(most and not plane.batches.holds(_batch(name, key), most, minute) for name, key, most in counted):
        # Before either is counted: what has to wait for the store of counts is begun anew.
        refuse_on_event_loop()
    for name, key, most in counted:
        _call(plane, name, key, most)


def _batch(name: str, key: str) -> str:
    return f"limit:{name}:{key}"


def _call(plane: Plane, name: str, key: str, most: int) -> None:
    if not most:
        return
    minute, past_ms = divmod(plane.now_ms(), 60_000)

    def count(key: str, by: int) -> Count:
        return plane.counts.ask(plane.cache, lambda counts: counts.incr(f"{key}:{minute}", MINUTE_S, by))

    if not plane.batches.take(_batch(name, key), most, minute, count):
        raise TooMany(
            "Too many calls within a minute.",
            resets_in=MINUTE_S - past_ms / 1000,
            policy=Policy(name.replace("_", "-"), most, MINUTE_S),
        )
