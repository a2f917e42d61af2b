"""Every limit, as a function whose text says the rule; each counts for all processes together.

While the cache store is down each process counts for itself. How many are allowed is a setting (``limit.…``), where 0
means no limit, but for logins.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from uuid import uuid4

from common.core.emails import email_key
from common.core.errors import TooMany
from common.core.limits import LONGEST_WAIT_S, Policy, login_wait_s, network_of
from common.services.counting import Counts
from common.services.plane import Plane
from common.services.principal import Origin, Principal
from common.stores.cache import Count

HOUR_S = 3600.0
MINUTE_S = 60.0
# Failures of an address, and of its network, are counted over a quarter of an hour.
FAILURES_S = 900.0
# Failures in a row of one account are forgotten a day after the first.
IN_A_ROW_S = 24 * HOUR_S
# A login that has begun and is not judged yet holds up the next one of the account for as long at most; whoever meets
# it is told to come back shortly, for mostly it is judged at once.
IN_FLIGHT_S = 30.0
SHORTLY_S = 1.0

_TEXT = "Too many failed logins; try again later."


@dataclass(slots=True)
class LoginAttempt:
    """One attempt to prove a password, from its admission to its outcome."""

    plane: Plane
    account: str
    address: str
    network: str | None
    free: int
    owner: str = field(default_factory=lambda: uuid4().hex)
    failures: int = 0

    def failed(self) -> float:
        """Count it; returns the seconds that the next attempt on this account has to wait, 0 for none."""
        wait_s = login_wait_s(self.failures, self.free)

        def count(counts: Counts) -> None:
            for key in (self.address, self.network):
                if key is not None:
                    counts.incr(key, FAILURES_S)
            if wait_s and counts.acquire_lease(self.account, self.owner, wait_s):
                counts.set(_until(self.account), str(self.plane.now_ms() + round(wait_s * 1000)), wait_s)

        self.plane.counts.ask(self.plane.cache, count)
        return wait_s

    def succeeded(self) -> None:
        """The failures of this account are forgotten; those of the address stay."""

        def forget(counts: Counts) -> None:
            counts.delete(self.account)
            counts.delete(_until(self.account))
            counts.release_lease(self.account, self.owner)

        self.plane.counts.ask(self.plane.cache, forget)


def login_attempt(plane: Plane, origin: Origin, email: str) -> LoginAttempt:
    """Admit an attempt to log in, before the password is looked at.

    An account, whether or not it exists, has 5 failures in a row for nothing; then each one is followed by a wait, of
    30 s at first and of 15 min at last, in which the right password is answered like a wrong one; a success ends the
    row. An address has 100 failures in 15 minutes, a /24 or /64 has 1000; successes don't count. Raises TooMany.
    """
    network = network_of(origin.address)
    attempt = LoginAttempt(
        plane,
        account="login:account:" + hashlib.sha256(email_key(email).encode("utf-8", "surrogatepass")).hexdigest(),
        address=f"login:address:{origin.address}",
        network=None if network is None else f"login:network:{network}",
        free=plane.variables.integer("limit.login_failures"),
    )
    policies = (
        (attempt.address, Policy("login-address", plane.variables.integer("limit.login_address"), FAILURES_S)),
        (attempt.network, Policy("login-network", plane.variables.integer("limit.login_network"), FAILURES_S)),
    )

    def admit(counts: Counts) -> None:
        for key, policy in policies:
            if key is not None and counts.counted(key) >= policy.most:
                raise TooMany(_TEXT, resets_in=counts.incr(key, FAILURES_S, 0).resets_in, policy=policy)
        _admit_account(plane, counts, attempt)

    plane.counts.ask(plane.cache, admit)
    return attempt


def _admit_account(plane: Plane, counts: Counts, attempt: LoginAttempt) -> None:
    waited = counts.counted(attempt.account) >= attempt.free
    if waited and not counts.acquire_lease(attempt.account, attempt.owner, IN_FLIGHT_S):
        until = counts.get(_until(attempt.account))
        left_s = (int(until) - plane.now_ms()) / 1000 if until else SHORTLY_S
        _refuse_account(attempt, max(left_s, SHORTLY_S))
    # Counted before the password is looked at, so that attempts at the same moment count too.
    attempt.failures = counts.incr(attempt.account, IN_A_ROW_S).value
    if waited or attempt.failures < attempt.free:
        return
    # The last one that is free holds up the next, whose turn it will be when this one is judged.
    if attempt.failures > attempt.free or not counts.acquire_lease(attempt.account, attempt.owner, IN_FLIGHT_S):
        counts.incr(attempt.account, IN_A_ROW_S, -1)
        _refuse_account(attempt, SHORTLY_S)


def _refuse_account(attempt: LoginAttempt, resets_in: float) -> None:
    raise TooMany(_TEXT, resets_in=resets_in, policy=Policy("login-account", attempt.free, LONGEST_WAIT_S))


def _until(account: str) -> str:
    return f"{account}:until"


def registration(plane: Plane, origin: Origin) -> None:
    """60 registrations an hour from one address, those that were refused for another reason too. Raises TooMany."""
    _hit(plane, "registration", f"{origin.address}", HOUR_S, "Too many registrations from this address.")


def forgotten_password(plane: Plane, origin: Origin) -> None:
    """60 codes for forgotten passwords an hour, asked for from one address. Raises TooMany.

    How many one account gets is another matter: see ``password_reset``.
    """
    _hit(plane, "forgotten_password", f"{origin.address}", HOUR_S, "Too many codes were asked for from this address.")


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
    """Calls of the user API a minute, by one API token and within one tenant; without a limit unless one is set.

    A tenant's own limit (``tenant_limits``) comes before that of all.

    Raises TooMany.
    """
    if who.credential is not None and who.credential.startswith("token:"):
        _call(plane, "token_calls", who.credential, plane.variables.integer("limit.token_calls"))
    if who.tenant_id is not None:
        _call(plane, "tenant_calls", who.tenant_id, plane.variables.tenant_calls(who.tenant_id))


def _call(plane: Plane, name: str, key: str, most: int) -> None:
    if not most:
        return
    minute, past_ms = divmod(plane.now_ms(), 60_000)

    def count(key: str, by: int) -> Count:
        return plane.counts.ask(plane.cache, lambda counts: counts.incr(f"{key}:{minute}", MINUTE_S, by))

    if not plane.batches.take(f"limit:{name}:{key}", most, minute, count):
        raise TooMany(
            "Too many calls within a minute.",
            resets_in=MINUTE_S - past_ms / 1000,
            policy=Policy(name.replace("_", "-"), most, MINUTE_S),
        )
