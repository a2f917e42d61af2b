"""The breaker before a store on the network: whoever missed its deadline waited, and nobody else does.

A store's implementation owns one ``Breaker`` and goes through it in the one place where it speaks to its server::

    self._breaker = Breaker("cache", self._probe)

    def _exchange(self, commands):
        with self._breaker.guard():    # raises StoreUnavailable at once while the store is down
            ...                        # raises StoreUnavailable when the store is found to be down

    def health(self):
        with self._breaker.observe():  # always tries; its outcome opens or closes the breaker too
            ...

The first ``StoreUnavailable`` of that store inside a guard opens the breaker, unless its ``lost`` is False: then the
store answers, and only this operation was refused (read-only, full), so others may go on. From then on every guard
raises at once, and one thread of this process, which nobody waits for, calls ``probe`` with growing waits until it
succeeds. ``probe`` is a bound method that asks for a sign of life within a deadline of its own and raises when there
is none; it must not go through ``guard``. A guard may be held around a whole transaction; guards may be nested.

Each process has a state of its own, also after a fork. Breaker and thread end with the store that owns them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.core.errors import StoreUnavailable
from common.stores.waiting import refuse_on_event_loop

log = logging.getLogger(__name__)

#: Seconds before the first probe; a connection that was cut once is no outage.
FIRST_WAIT_S = 0.1
#: The longest wait between two probes. With a probe's own deadline added, a recovery shows within 10 s.
LONGEST_WAIT_S = 5.0


class Circuit:
    """The breaker's state and rules, without threads or I/O of its own; every method may be called from any thread.

    Closed: everybody may try. Open: nobody may, until a probe is due. Half-open: one probe is under way, and
    everybody else still may not. ``clock`` gives seconds that never go back.

    Whoever tries takes the number of the present epoch and hands it back with the outcome. Opening and closing begin
    a new epoch, so an outcome that comes late, of a call from before, changes nothing.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        first_wait_s: float = FIRST_WAIT_S,
        longest_wait_s: float = LONGEST_WAIT_S,
    ) -> None:
        self._clock = clock
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._lock = threading.Lock()
        self._epoch = 0
        self._open = False
        self._probing = False
        self._wait_s = first_wait_s
        self._due_at = 0.0
        self._reason = ""

    @property
    def is_open(self) -> bool:
        """Whether calls are turned away, which they are in the half-open state too."""
        return self._open

    @property
    def reason(self) -> str:
        """Why it was opened, or what the last probe met; "" while closed."""
        return self._reason

    @property
    def epoch(self) -> int:
        """The number to hand back with the outcome of a try that needs no admission."""
        return self._epoch

    def admit(self) -> int | None:
        """The present epoch for a caller who may try; None while open or half-open."""
        with self._lock:
            return None if self._open else self._epoch

    def succeed(self, epoch: int) -> bool:
        """Note that a try of this epoch succeeded; True when that closed the circuit."""
        with self._lock:
            if not self._open or epoch != self._epoch:
                return False
            self._epoch += 1
            self._open = self._probing = False
            self._reason = ""
            return True

    def fail(self, epoch: int, reason: str) -> bool:
        """Note that a try of this epoch failed; True when that opened the circuit."""
        with self._lock:
            if self._open or epoch != self._epoch:
                return False
            self._epoch += 1
            self._open = True
            self._reason = reason
            self._wait_s = self._first_wait_s
            self._due_at = self._clock() + self._wait_s
            return True

    def claim_probe(self) -> int | None:
        """The present epoch for the one who is to probe now; None when closed, not due, or claimed already."""
        with self._lock:
            if not self._open or self._probing or self._clock() < self._due_at:
                return None
            self._probing = True
            return self._epoch

    def probe_failed(self, epoch: int, reason: str) -> None:
        """Give back a claim of this epoch: the next probe is due after twice the wait, at most the longest."""
        with self._lock:
            if not self._probing or epoch != self._epoch:
                return
            self._probing = False
            self._reason = reason
            self._wait_s = min(self._wait_s * 2, self._longest_wait_s)
            self._due_at = self._clock() + self._wait_s

    def until_probe_s(self) -> float:
        """Seconds until a probe is due; 0 when it is."""
        with self._lock:
            return max(0.0, self._due_at - self._clock())


class Breaker:
    """See the module. ``store`` is the name that errors carry."""

    def __init__(self, store: str, probe: Callable[[], object], make_circuit: Callable[[], Circuit] = Circuit) -> None:
        self._store = store
        # Weak: the store owns its breaker, and the thread that probes must not keep a store that nobody uses.
        self._probe = weakref.WeakMethod(probe)
        self._make_circuit = make_circuit
        self._state = _State(make_circuit())

    @property
    def is_open(self) -> bool:
        """Whether calls are turned away in this process."""
        return self._present().circuit.is_open

    @contextmanager
    def guard(self) -> Iterator[None]:
        """For every call but probes. Raises StoreUnavailable at once while open; see the module."""
        epoch = self.admit()
        with self._noting(self._state, epoch):
            yield

    def admit(self) -> int:
        """The beginning of a guard, for a call that is too frequent for a context manager; see ``failed``.

        Raises MustWait on an event loop: a server may take its time.
        """
        refuse_on_event_loop()
        state = self._present()
        epoch = state.circuit.admit()
        if epoch is None:
            self._see_to_recovery(state)
            reason = state.circuit.reason or "it was down a moment ago"
            raise StoreUnavailable(self._store, reason, note="not asked again before a probe succeeds")
        return epoch

    def failed(self, epoch: int, error: StoreUnavailable) -> None:
        """The end of a guard that ``admit`` began, when it raised; one that went well needs no end."""
        if error.store == self._store and error.lost:
            self._opened(self._state, epoch, error.reason)

    @contextmanager
    def observe(self) -> Iterator[None]:
        """For a look that is always taken: its success closes the breaker, its failure opens it."""
        state = self._present()
        with self._noting(state, state.circuit.epoch):
            yield

    @contextmanager
    def _noting(self, state: _State, epoch: int) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable as error:
            if error.store == self._store and error.lost:
                self._opened(state, epoch, error.reason)
            raise
        if state.circuit.succeed(epoch):
            log.info("the %s store is available again", self._store)

    def _opened(self, state: _State, epoch: int, reason: str) -> None:
        if state.circuit.fail(epoch, reason):
            log.warning("the %s store is not available (%s): calls fail at once until it is", self._store, reason)
            self._see_to_recovery(state)

    def _present(self) -> _State:
        """The state of this process. After a fork there is no thread that probes, and who knows who held the lock."""
        if self._state.pid != os.getpid():
            self._state = _State(self._make_circuit())
        return self._state

    def _see_to_recovery(self, state: _State) -> None:
        """Start the thread that probes, unless it is there."""
        with state.lock:
            if state.prober is not None and state.prober.is_alive():
                return
            state.prober = threading.Thread(
                target=_recover,
                args=(self._store, self._probe, state.circuit),
                name=f"{self._store}-prober",
                daemon=True,
            )
            try:
                state.prober.start()
            except RuntimeError as error:
                # No thread to be had just now; the next call that is turned away tries again.
                state.prober = None
                log.warning("no probe of the %s store: %s", self._store, error)


class _State:
    """What one process knows."""

    def __init__(self, circuit: Circuit) -> None:
        self.pid = os.getpid()
        self.circuit = circuit
        self.lock = threading.Lock()
        self.prober: threading.Thread | None = None


def _recover(store: str, probe_of: weakref.WeakMethod[Callable[[], object]], circuit: Circuit) -> None:
    """Probe until the circuit closes, or until its store is gone."""
    pause = threading.Event()
    while circuit.is_open:
        pause.wait(circuit.until_probe_s())
        probe = probe_of()
        if probe is None:
            return
        epoch = circuit.claim_probe()
        if epoch is None:
            continue
        try:
            probe()
        except StoreUnavailable as error:
            if error.lost:
                circuit.probe_failed(epoch, error.reason)
                continue
        except Exception as error:
            # A probe's boundary: whatever it meets, the store is not well, and there must be a next one.
            log.exception("the probe of the %s store broke", store)
            circuit.probe_failed(epoch, type(error).__name__)
            continue
        finally:
            # Not kept over the wait: see Breaker.
            del probe
        if circuit.succeed(epoch):
            log.info("the %s store is available again", store)
