"""The worker's loop: claims a job, has its handler work on it, and tells the queue how that went."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from common.core.errors import StoreUnavailable
from common.services import (
    audit_delivery,
    deletion,
    following,
    jobs,
    mail,
    password_reset,
    registration,
    reset_links,
    token_expiry,
)
from common.services.jobs import Claimed, GiveUp, Handler, JobInterrupted, JobLost, Task, TryLater
from common.services.plane import Plane
from common.worker import heartbeat, periodic, sealing, trials
from common.worker.heartbeat import Heartbeat
from common.worker.tally import Tally

log = logging.getLogger(__name__)

#: Seconds for which a claimed job is another worker's no longer; prolonged while it is in hand.
VISIBILITY_S = 60.0
#: Seconds that a job in hand gets at a stop before it is given back.
GRACE_S = 7.0
# What these kinds begin with waits for nothing else: mail and audit for servers that are not ours, and what follows a
# RAGFlow in the same database has its minute, while a purge may take hours.
_OF_THEIR_OWN = ("mail", "audit", "ragflow")
# How often an idle worker looks, and the longest wait between two looks while the store is down.
_IDLE_S = 0.5
_LONGEST_OUTAGE_WAIT_S = 5.0
# A job that needs a store which is down comes back after this: it goes on within 10 s of the store.
_STORE_WAIT_S = 5.0


def handlers() -> dict[str, Handler]:
    """The handler of every kind of job."""
    return {
        deletion.PURGE: deletion.purge,
        mail.INVITATION: mail.send_invitation,
        password_reset.CODE_MAIL: password_reset.send_code_mail,
        reset_links.MAIL: reset_links.send,
        registration.DECISION_MAIL: registration.send_decision,
        token_expiry.SEARCH: token_expiry.search,
        token_expiry.MAIL: token_expiry.send_notice,
        following.FOLLOW: following.follow,
        following.WALK: following.walk,
        audit_delivery.TO_WEBHOOK: audit_delivery.deliver,
        audit_delivery.TO_FILE: audit_delivery.deliver,
        periodic.HOUSEKEEPING: periodic.keep_house,
        **periodic.chores(),
    }


def run(plane: Plane, stop: threading.Event, registry: Mapping[str, Handler] | None = None) -> None:
    """Work until ``stop`` is set; then the jobs in hand are finished or given back within GRACE_S, and this returns.

    Raises RuntimeError when the heartbeat, a lane or what goes on beside the lanes broke: a worker that looks dead must
    not go on, nor one that only looks alive.
    """
    tally = Tally()
    name = heartbeat.executor_name()
    pulse = Heartbeat(plane, name, tally)
    pulse.beat()
    broke = threading.Event()
    reporter = threading.Thread(target=_report, args=(plane, name, pulse, stop, broke), name="heartbeat", daemon=True)
    reporter.start()
    log.info("worker %s started", name)
    threads = [
        threading.Thread(target=_work_lane, args=(Worker(plane, name, lane, tally, stop), plane, stop, broke), name=of)
        for of, lane in lanes(registry or handlers()).items()
    ]
    sealer = partial(sealing.seal_until, plane, name, stop)
    threads.append(threading.Thread(target=_beside, args=(sealer, plane, stop, broke), name="sealing"))
    for thread in threads:
        thread.start()
    # A trial changes nothing that counts: who waits for a server that hangs is not waited for at a stop.
    trier = threading.Thread(
        target=_beside, args=(partial(trials.try_until, plane, stop), plane, stop, broke), name="trials", daemon=True
    )
    trier.start()
    for thread in threads:
        thread.join()
    for thread in (reporter, trier):
        thread.join(timeout=1.0)
    pulse.leave()
    periodic.stand_down(plane, name)
    if broke.is_set():
        raise RuntimeError("the heartbeat or a lane broke")
    log.info("worker %s stopped", name)


def lanes(registry: Mapping[str, Handler]) -> dict[str, dict[str, Handler]]:
    """The kinds of jobs that are worked on side by side, by the name of the lane."""
    found: dict[str, dict[str, Handler]] = {}
    for kind, handler in registry.items():
        of = kind.partition(".")[0]
        found.setdefault(of if of in _OF_THEIR_OWN else "jobs", {})[kind] = handler
    return found


def _work_lane(worker: Worker, plane: Plane, stop: threading.Event, broke: threading.Event) -> None:
    try:
        worker.work()
    except BaseException:
        broke.set()
        raise
    finally:
        stop.set()
        close_stores(plane)


def _beside(work: Callable[[], None], plane: Plane, stop: threading.Event, broke: threading.Event) -> None:
    """Do what goes on until ``stop`` is set; where it breaks, the worker ends."""
    try:
        work()
    except BaseException:
        broke.set()
        raise
    finally:
        stop.set()
        close_stores(plane)


def _report(plane: Plane, name: str, pulse: Heartbeat, stop: threading.Event, broke: threading.Event) -> None:
    try:
        periodic.enqueue_due(plane, name)
        while not stop.wait(heartbeat.EVERY_S):
            pulse.beat()
            plane.level_watch.follow(plane.cache)
            periodic.enqueue_due(plane, name)
    except BaseException:
        broke.set()
        raise
    finally:
        stop.set()
        close_stores(plane)


def close_stores(plane: Plane) -> None:
    """Close what this thread holds open."""
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


class Worker:
    """Works on one job at a time, each in a thread of its own, so that a stop never waits for a slow one."""

    def __init__(
        self,
        plane: Plane,
        name: str,
        registry: Mapping[str, Handler],
        tally: Tally,
        stop: threading.Event,
        *,
        visibility_s: float = VISIBILITY_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._plane = plane
        self._name = name
        self._registry = registry
        self._tally = tally
        self._stop = stop
        self._visibility_s = visibility_s
        self._grace_s = grace_s

    def work(self) -> None:
        """Claim and work until told to stop; while the metadata store is down, wait and look again."""
        outage_wait_s = 0.0
        while not self._stop.is_set():
            try:
                worked = self.work_once()
            except StoreUnavailable as error:
                outage_wait_s = min(max(1.0, outage_wait_s * 2), _LONGEST_OUTAGE_WAIT_S)
                log.warning(
                    "the %s store is unavailable (%s); looking again in %.0f s",
                    error.store,
                    error.reason,
                    outage_wait_s,
                )
                self._stop.wait(outage_wait_s)
                continue
            outage_wait_s = 0.0
            if not worked:
                self._stop.wait(_IDLE_S)

    def work_once(self) -> bool:
        """Claim one job and see it through; False when there is none. Raises StoreUnavailable."""
        job = jobs.claim(self._plane, self._name, self._visibility_s, list(self._registry))
        if job is None:
            return False
        self._tally.began(job)
        over = threading.Event()
        worker = threading.Thread(target=self._handle, args=(job, over), name=f"job-{job.id}", daemon=True)
        worker.start()
        self._see_through(job, over)
        return True

    def _see_through(self, job: Claimed, over: threading.Event) -> None:
        """Prolong the job while its handler works; at a stop wait for it no longer than the grace."""
        prolong_at = time.monotonic() + self._visibility_s / 3
        while not over.wait(0.2):
            if self._stop.is_set():
                if not over.wait(self._grace_s):
                    self._abandon(job)
                return
            if time.monotonic() >= prolong_at:
                prolong_at = time.monotonic() + self._visibility_s / 3
                self._prolong(job)

    def _prolong(self, job: Claimed) -> None:
        try:
            if not jobs.extend(self._plane, job, self._visibility_s):
                log.warning("job %d (%s) is no longer this worker's", job.id, job.kind)
        except StoreUnavailable as error:
            log.warning("job %d not prolonged: the metadata store is unavailable: %s", job.id, error.reason)

    def _abandon(self, job: Claimed) -> None:
        log.warning("job %d (%s) did not end in time for the stop; given back", job.id, job.kind)
        try:
            # This process ends in a moment; until then nobody else should begin.
            jobs.give_back(self._plane, job, delay_s=1.0)
        except StoreUnavailable as error:
            log.warning(
                "job %d comes back when its time is over: the metadata store is unavailable: %s",
                job.id,
                error.reason,
            )

    def _handle(self, job: Claimed, over: threading.Event) -> None:
        done: bool | None = None
        try:
            done = self._attempt(job)
        except StoreUnavailable as error:
            log.warning(
                "outcome of job %d not noted, it comes back: the metadata store is unavailable: %s",
                job.id,
                error.reason,
            )
        finally:
            close_stores(self._plane)
            self._tally.ended(job, done=done)
            over.set()

    def _attempt(self, job: Claimed) -> bool | None:
        """Run the handler and note the outcome: True done, False failed, None given back or lost."""
        task = Task(self._plane, job, self._visibility_s, self._stop.is_set)
        try:
            self._registry[job.kind](task)
        except JobInterrupted:
            jobs.give_back(self._plane, job)
            return None
        except JobLost as lost:
            log.warning("%s", lost)
            return None
        except StoreUnavailable as error:
            log.warning(
                "job %d (%s) waits: the %s store is unavailable: %s",
                job.id,
                job.kind,
                error.store,
                error.reason,
            )
            jobs.give_back(self._plane, job, delay_s=_STORE_WAIT_S, reason=error.message)
            return None
        except GiveUp as reason:
            log.warning("job %d (%s) given up: %s", job.id, job.kind, reason)
            jobs.fail(self._plane, job, str(reason), give_up=True)
            return False
        except TryLater as reason:
            log.warning("job %d (%s) failed at attempt %d: %s", job.id, job.kind, job.attempt, reason)
            jobs.fail(self._plane, job, str(reason), jitter=random.random())
            return False
        # A job's boundary: a broken job must not end the worker.
        except Exception as error:
            log.exception("job %d (%s) failed at attempt %d", job.id, job.kind, job.attempt)
            jobs.fail(self._plane, job, f"{type(error).__name__}: {error}", jitter=random.random())
            return False
        return jobs.finish(self._plane, job) or None
