"""Every fault of every store: what it takes down with it, who waits, what is lost, and how it is over."""

from __future__ import annotations

import threading
import time

import pytest

from common.services.probing import SHARED_S
from tests.breaking import WIRE_NAMES
from tests.faults.book import Entry
from tests.faults.ground import TIMEOUT_S, Answer, Ground, Watch, eventually
from tests.faults.kinds import KINDS, REST, STORES, Expected, expected_of, fault

# What the plane promises is measured and written down: 0.1 s beyond the deadline, 0.1 s, 10 s. A busy machine adds to
# that, so what fails a run is looser.
HEALTHZ_LIMIT_S = TIMEOUT_S + 2.0
LIVEZ_LIMIT_S = 1.0
RECOVERY_LIMIT_S = 20.0
SEEN_WITHIN_S = 15.0
# Of these calls, one after the other, each process of a port may keep one waiting: the one that finds the store lost.
CALLS, MAY_WAIT = 8, 4
MADE_TO_FILL = 120
WRITING = ("log in", "log in as administrator", "new token")

CELLS = [
    pytest.param(store, kind, id=f"{store}-{kind}", marks=[pytest.mark.whole_table] if kind in REST else [])
    for store in STORES
    for kind in KINDS
]


@pytest.mark.parametrize(("store", "kind"), CELLS)
def test_what_a_fault_takes_and_how_it_ends(ground: Ground, store: str, kind: str) -> None:
    entry = Entry(store, kind)
    cell = Cell(ground, store, kind, entry)
    try:
        cell.run()
        entry.verdict = "passed"
    finally:
        entry.write()


class Cell:
    """One fault of one store, in the order in which it is looked at."""

    def __init__(self, ground: Ground, store: str, kind: str, entry: Entry) -> None:
        self.ground = ground
        self.store = store
        self.kind = kind
        self.entry = entry
        self.expected: Expected = expected_of(store, kind)
        self.has_content = store in ("documents", "objects")

    def run(self) -> None:
        """All of it."""
        ground, entry = self.ground, self.entry
        before = set(ground.acknowledged)
        processes = ground.processes()
        self.email, self.user_id = ground.with_content() if self.has_content else ("", "")
        ground.made()
        with Watch(ground) as watch:
            with fault(self.store, self.kind)(ground.servers):
                began = time.monotonic()
                if self.has_room_left:
                    self.be_refused()
                self.see_health(watch)
                self.see_what_needs_it()
                job_id = self.delete(self.email) if self.has_content else None
                self.see_everything_else()
                self.see_health_again(watch, began)
                if (self.store, self.kind) == ("metadata", "restarted-empty"):
                    assert self.ground.servers.tables() == [], "nobody made them anew"
                if job_id is not None:
                    self.see_purge_wait(job_id)
            self.see_recovery()
            if job_id is not None:
                self.see_purge_done(job_id)
            ground.made()
        entry.livez_ms, entry.ping_ms = watch.livez_s * 1000, watch.ping_s * 1000
        entry.healthz_ms = watch.healthz_s * 1000
        self.see_what_was_acknowledged(before)
        assert watch.silent == []
        assert watch.livez_s < LIVEZ_LIMIT_S
        assert watch.ping_s < LIVEZ_LIMIT_S
        assert watch.healthz_s < HEALTHZ_LIMIT_S
        assert ground.processes() == processes, "a process was restarted"

    @property
    def words(self) -> tuple[str, ...]:
        """What healthz is to say is not well."""
        return (WIRE_NAMES[self.store],) if self.expected.shown else ()

    def see_health(self, watch: Watch) -> None:
        """Health and readiness name the store, and no other."""
        seen, self.entry.seen_s = eventually(lambda: set(watch.healthz()) == {self.words}, SEEN_WITHIN_S)
        assert seen, watch.healthz()
        self.entry.healthz = list(self.words)
        ready = (503, [self.store]) if self.expected.shown else (200, [])
        # Each process has looked by itself, and shares for a moment what it saw.
        seen, _ = eventually(lambda: self.ground.readiness() == [ready] * 2, SEEN_WITHIN_S)
        assert seen, self.ground.readiness()

    def see_health_again(self, watch: Watch, began: float) -> None:
        """Every process says so, and goes on: what was seen before is shared no longer."""
        threading.Event().wait(began + SHARED_S + 0.1 - time.monotonic())
        assert set(watch.healthz()) == {self.words}

    def see_what_needs_it(self) -> None:
        """It is refused by name, and after the first ones nobody waits."""
        entry = self.entry
        [call] = self.ground.needing(self.store, self.email).values()
        answers = [call() for _ in range(CALLS)]
        waited = sorted((each.seconds for each in answers), reverse=True)
        entry.needing = sorted({each.status for each in answers})
        entry.needing_said = answers[-1].message if answers[-1].status != 200 else ""
        entry.needing_first_ms, entry.needing_later_ms = waited[0] * 1000, waited[MAY_WAIT] * 1000
        reads = self.store != "cache"
        if self.expected.stopped == "all" or (self.expected.stopped == "writes" and not reads):
            assert all(refused(each, self.store) for each in answers), answers
        else:
            assert entry.needing == [200], answers
        assert waited[0] < TIMEOUT_S + 2.0
        if self.expected.stopped != "nothing":
            assert waited[MAY_WAIT] < TIMEOUT_S / 2

    def see_everything_else(self) -> None:
        """It goes on, or of what needs the metadata what can."""
        answers = {name: call() for name, call in self.ground.everyday().items()}
        for number, answer in enumerate(self.ground.make()):
            answers[("make a user", "make a token")[number]] = answer
        self.entry.others = {name: answer.status for name, answer in answers.items()}
        self.entry.others_ms = max(answer.seconds for answer in answers.values()) * 1000
        for name, answer in answers.items():
            assert answer.seconds < TIMEOUT_S + 2.0, name
            self.check_one(name, answer)
        if self.has_room_left:
            last = self.be_refused()
            self.entry.others["make a user"] = last.status
            self.entry.needing_said = last.message

    def check_one(self, name: str, answer: Answer) -> None:
        """Whether an answer is what it has to be."""
        writes = name in WRITING or name.startswith("make")
        if self.store == "metadata" and self.kind == "disk-full" and writes:
            assert answer.status == 200 or refused(answer, self.store), (name, answer)
        elif self.store == "metadata" and (self.expected.stopped == "all" or (writes and self.expected.shown)):
            if self.expected.stopped != "nothing":
                assert refused(answer, self.store), (name, answer)
        else:
            assert answer.status == 200, (name, answer)

    @property
    def has_room_left(self) -> bool:
        """Whether there is room for some rows in the pages that its tables have."""
        return (self.store, self.kind) == ("metadata", "disk-full")

    def be_refused(self) -> Answer:
        """Make accounts until one of them, or its token, is refused; that refusal."""
        last = next(made[-1] for _ in range(MADE_TO_FILL) if (made := self.ground.make())[-1].status != 200)
        assert refused(last, "metadata"), last
        return last

    def delete(self, email: str) -> int:
        """Deleting is acknowledged whatever becomes of the content."""
        answer = self.ground.administer("DELETE", f"/users/{email}")
        assert answer.status == 200, answer
        return int(answer.body["data"]["job_id"])

    def see_purge_wait(self, job_id: int) -> None:
        """The job that removes the content waits, and says for what; or there is nothing that it has to wait for."""
        works = self.expected.stopped == "nothing" and self.kind != "read-only"
        works = works and (self.store, self.kind) != ("documents", "disk-full")
        found, _ = eventually(lambda: self.ground.job_told(job_id), SEEN_WITHIN_S)
        assert found, self.ground.job(job_id)
        state, self.entry.purge = found
        assert state == ("done" if works else "ready"), found
        assert works or f"{self.store} store" in self.entry.purge

    def see_recovery(self) -> None:
        """All is well by itself."""
        ground = self.ground
        calls = {**ground.everyday(), **(ground.needing(self.store) if self.store in ("metadata", "cache") else {})}

        def well() -> bool:
            # Twice, because each port has two processes.
            return all(
                ground.readiness() == [(200, [])] * 2 and all(call().status == 200 for call in calls.values())
                for _ in range(2)
            )

        recovered, seconds = eventually(well, RECOVERY_LIMIT_S)
        assert recovered, (ground.readiness(), {name: call() for name, call in calls.items()})
        self.entry.recovery_s = seconds

    def see_purge_done(self, job_id: int) -> None:
        """The job that waited comes to its end."""
        done, seconds = eventually(lambda: self.ground.job(job_id)["state"] == "done", RECOVERY_LIMIT_S)
        assert done, self.ground.job(job_id)
        self.entry.purge_s = seconds
        if self.kind != "restarted-empty":
            assert not self.ground.remains_of(self.user_id)

    def see_what_was_acknowledged(self, before: set[str]) -> None:
        """Every account and token for which there was a 200 is there; those of this fault can be used."""
        ground = self.ground
        lost = ground.lost()
        new = [someone for email, someone in ground.acknowledged.items() if email not in before]
        for someone in new[:4] + new[-2:]:
            if ground.log_in(ground.live.api_port, someone.email, someone.password).status != 200:
                lost.append(someone.email)
        self.entry.acknowledged = len(new)
        self.entry.lost = len(lost)
        assert lost == []


def refused(answer: Answer, store: str) -> bool:
    """Whether it is the 503 that names the store."""
    return answer.status == 503 and f"{store} store" in answer.message
