"""Running probes: side by side, each with a deadline, never two of the same service at once."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from common.core.errors import PlaneError, StoreUnavailable
from common.core.verdicts import Verdict
from common.settings import HealthConfig
from common.stores.egress import EgressGuard, EgressTimeout

log = logging.getLogger(__name__)

#: How long an outcome is shared with those who ask after it was found, in seconds, where nothing else is said.
SHARED_S: float = HealthConfig().check_interval

Status = Literal["alive", "timeout", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at a service gave; ``details`` is what the service says of itself, without secrets."""

    verdict: Verdict
    details: Any = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """A way to look at a service. ``look`` gets the seconds that are left, writes nothing and may raise."""

    look: Callable[[float], Finding]
    limits: HealthConfig = field(default_factory=HealthConfig)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a probe. ``reason`` is for operators, never for strangers."""

    status: Status
    reason: str = ""
    elapsed_ms: float = 0.0
    details: Any = None

    @property
    def ok(self) -> bool:
        """Whether the service is well."""
        return self.status == "alive"

    @property
    def elapsed(self) -> str:
        """Milliseconds with one decimal, as RAGFlow writes them."""
        return f"{self.elapsed_ms:.1f}"


class _Run:
    """One probe under way or done; times are of the monotonic clock."""

    def __init__(self, began_at: float, limits: HealthConfig) -> None:
        self.pid = os.getpid()
        self.began_at = began_at
        self.limits = limits
        self.done = threading.Event()
        self.finished_at = began_at
        self.outcome = Outcome("unknown")
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    @property
    def deadline(self) -> float:
        return self.began_at + self.limits.timeout

    def finish(self, outcome: Outcome, at: float) -> None:
        """Give the outcome to everybody who waits for it."""
        self.outcome, self.finished_at = outcome, at
        with self._lock:
            self.done.set()
        for loop, future in self._waiting:
            try:
                loop.call_soon_threadsafe(_release, future)
            except RuntimeError:
                log.debug("the event loop ended before a probe did")

    def waited_for(self) -> asyncio.Future[None]:
        """A future of the running event loop that is done when the probe is."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if not self.done.is_set():
                self._waiting.append((loop, future))
                return future
        future.set_result(None)
        return future

    def serves(self, now: float, shared_s: float) -> bool:
        """Whether it is under way, or done so lately that its outcome is shared."""
        # A thread of the process that this one was forked from never ends here.
        ours = self.pid == os.getpid()
        return ours and (not self.done.is_set() or now - self.finished_at <= shared_s)


class Prober:
    """Runs probes and shares their outcomes among all who ask at the same time; one for each process.

    A service has at most one probe under way. While one is stuck beyond its deadline the service counts as timed
    out and isn't asked again, so there are never more threads than services.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._last: dict[str, Status] = {}
        # The addresses of services are the operator's own, so none is refused; the guard's limits are what is wanted.
        self.guard = EgressGuard(("0.0.0.0/0", "::/0"), limit=32)

    def run(self, probes: Mapping[str, Probe], *, wait_s: float | None = None) -> dict[str, Outcome]:
        """The outcome of each probe, in the order given; takes no longer than the longest deadline.

        With ``wait_s`` it takes no longer than that, and what hasn't answered then counts as timed out.
        """
        give_up_at = None if wait_s is None else self._clock() + wait_s
        runs = {name: self._joined(name, probe) for name, probe in probes.items()}
        return {name: self._awaited(name, run, give_up_at) for name, run in runs.items()}

    async def run_aside(self, probes: Mapping[str, Probe], *, wait_s: float | None = None) -> dict[str, Outcome]:
        """As ``run``, on an event loop: whoever waits holds no thread."""
        give_up_at = None if wait_s is None else self._clock() + wait_s
        runs = {name: self._joined(name, probe) for name, probe in probes.items()}
        under_way = [run for run in runs.values() if not run.done.is_set()]
        if under_way:
            until = max(_until(run, give_up_at) for run in under_way)
            await asyncio.wait([run.waited_for() for run in under_way], timeout=max(0.0, until - self._clock()))
        now = self._clock()
        return {name: self._awaited(name, run, now) for name, run in runs.items()}

    def _joined(self, name: str, probe: Probe) -> _Run:
        with self._lock:
            now = self._clock()
            run = self._runs.get(name)
            if run is not None and run.serves(now, probe.limits.check_interval):
                return run
            run = _Run(now, probe.limits)
            # Not a pool's thread: the interpreter waits for those at its end, and one of these may hang for ever.
            threading.Thread(target=self._probe, args=(name, probe, run), name=f"probe-{name}", daemon=True).start()
            self._runs[name] = run
            return run

    def _awaited(self, name: str, run: _Run, give_up_at: float | None) -> Outcome:
        if run.done.wait(max(0.0, _until(run, give_up_at) - self._clock())):
            return run.outcome
        now = self._clock()
        outcome = _timed_out(now - run.began_at)
        if now >= run.deadline:
            self._note(name, outcome)
        return outcome

    def _probe(self, name: str, probe: Probe, run: _Run) -> None:
        finding = self._found(name, probe, run)
        now = self._clock()
        elapsed_s = now - run.began_at
        if finding.timed_out or elapsed_s > run.limits.timeout:
            outcome = _timed_out(elapsed_s)
        else:
            status: Status = "alive" if finding.verdict.ok else "fail"
            outcome = Outcome(status, finding.verdict.reason, elapsed_s * 1000, finding.details)
        self._note(name, outcome)
        run.finish(outcome, now)

    def _note(self, name: str, outcome: Outcome) -> None:
        """Log a service that is not as it was when it was last looked at."""
        with self._lock:
            before, self._last[name] = self._last.get(name, "alive"), outcome.status
        if before != outcome.status:
            level = logging.INFO if outcome.ok else logging.WARNING
            log.log(level, "probe of %s: %s after %s ms %s", name, outcome.status, outcome.elapsed, outcome.reason)

    def _found(self, name: str, probe: Probe, run: _Run) -> Finding:
        """The first good finding of all tries, else the last; no try begins after the deadline."""
        finding = Finding(Verdict(False, "not tried"), timed_out=True)
        for _ in range(1 + probe.limits.retry_count):
            left_s = run.deadline - self._clock()
            if left_s <= 0:
                break
            finding = _try(name, probe, left_s)
            if finding.verdict.ok:
                break
        return finding


def _try(name: str, probe: Probe, left_s: float) -> Finding:
    try:
        return probe.look(left_s)
    except StoreUnavailable as error:
        return Finding(Verdict(False, error.reason or error.message))
    except EgressTimeout as error:
        return Finding(Verdict(False, error.message), timed_out=True)
    except PlaneError as error:
        return Finding(Verdict(False, error.message))
    except Exception as error:
        # A probe's boundary: whatever it meets, the service is not well.
        log.exception("the probe of %s broke", name)
        return Finding(Verdict(False, type(error).__name__))


def _until(run: _Run, give_up_at: float | None) -> float:
    return run.deadline if give_up_at is None else min(run.deadline, give_up_at)


def _release(future: asyncio.Future[None]) -> None:
    # Nobody waits any more after a time-out.
    if not future.done():
        future.set_result(None)


def _timed_out(elapsed_s: float) -> Outcome:
    return Outcome("timeout", f"no answer after {elapsed_s:.1f} s", elapsed_s * 1000)
