"""``python -m tests.soak.trail``: audited changes, sealers, and somebody who kills both at random.

Afterwards nothing that was acknowledged may be missing from the trail, and the trail has to be whole.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.core.audit_chain import Problem
from common.services import accounts, audit_check, audit_sealing
from common.services.opening import open_plane
from common.services.plane import Plane
from common.settings import load
from common.worker.loop import close_stores
from tests.backends.stores import SETS
from tests.soak.queue import ROOT, environment_on, metadata_of

Sealing = Literal["seal", "take-turns"]

# The ids asked for in one statement.
_PIECE = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the changes: ``lost`` ones were acknowledged and are not in the trail."""

    acknowledged: int
    lost: int
    sealed: int
    unsealed: int
    kills: int
    problem: Problem | None
    seconds: float

    @property
    def is_right(self) -> bool:
        """Nothing is missing, and the trail is whole and sealed to its end."""
        return (self.lost, self.unsealed, self.problem) == (0, 0, None) and self.acknowledged > 0


@dataclass
class Crew:
    """The processes at work on one plane, each by its name."""

    environment: Mapping[str, str]
    folder: Path
    sealing: Sealing
    at_work: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a writer (``writer…``), or else a sealer."""
        role = ("write", name, str(self.acknowledged(name))) if name.startswith("writer") else (self.sealing, name)
        self.at_work[name] = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.trail_crew", *role],
            cwd=ROOT,
            env=dict(self.environment),
            stdin=subprocess.PIPE,
        )

    def acknowledged(self, name: str) -> Path:
        """Where a writer notes what is committed."""
        return self.folder / f"{name}.acknowledged"

    def kill(self, name: str) -> None:
        self.at_work[name].kill()
        self.at_work[name].communicate()

    def stop(self) -> None:
        """Let everybody end what is in hand."""
        for process in self.at_work.values():
            process.communicate()
        assert [process.returncode for process in self.at_work.values()] == [0] * len(self.at_work)


def hire(
    plane: Plane, environment: Mapping[str, str], folder: Path, *, writers: int, sealers: int, sealing: Sealing = "seal"
) -> Crew:
    """A crew at work; each writer has an account of its own, and sealers seal without a pause or as workers do."""
    crew = Crew(environment, folder, sealing)
    for number in range(writers):
        with plane.database.transaction():
            accounts.make(plane, email=f"writer{number}@soak.test", nickname="", password_hash="-")
        crew.start(f"writer{number}")
    for number in range(sealers):
        crew.start(f"sealer{number}")
    return crew


def run(
    environment: Mapping[str, str], folder: Path, *, kills: int, seed: int, writers: int = 3, sealers: int = 2
) -> Outcome:
    """Kill one of the crew so many times, each time once there was something to lose."""
    plane, chance = open_plane(load(environment)), random.Random(seed)
    began = time.monotonic()
    crew = hire(plane, environment, folder, writers=writers, sealers=sealers)
    try:
        for _ in range(kills):
            name = chance.choice(sorted(crew.at_work))
            _wait_for_work(crew, chance.randrange(1, 40))
            crew.kill(name)
            crew.start(name)
        crew.stop()
    finally:
        for process in crew.at_work.values():
            process.kill()
            process.wait()
    audit_sealing.seal_all(plane)
    outcome = _judge(plane, crew, kills, time.monotonic() - began)
    close_stores(plane)
    return outcome


def _wait_for_work(crew: Crew, count: int) -> None:
    """Return when so many further changes are acknowledged."""
    deadline, wanted = time.monotonic() + 60, _noted(crew) + count * 12
    while _noted(crew) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody gets anything done")
        time.sleep(0.005)


def _noted(crew: Crew) -> int:
    """The bytes of what is acknowledged."""
    return sum(path.stat().st_size for path in crew.folder.glob("*.acknowledged"))


def _judge(plane: Plane, crew: Crew, kills: int, seconds: float) -> Outcome:
    # A line that was broken off acknowledges nothing.
    told = [
        line.strip()
        for path in crew.folder.glob("*.acknowledged")
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    lost = 0
    for start in range(0, len(told), _PIECE):
        piece = told[start : start + _PIECE]
        marks = ", ".join("?" * len(piece))
        (found,) = plane.database.one(f"SELECT COUNT(*) FROM rk_audit_event WHERE request_id IN ({marks})", piece) or (
            0,
        )
        lost += len(piece) - found
    verdict = audit_check.verify(plane)
    return Outcome(len(told), lost, verdict.sealed, verdict.unsealed, kills, verdict.problem, round(seconds, 1))


def main() -> int:
    """Run, and say what became of the changes; 1 when something is missing or wrong."""
    options = argparse.ArgumentParser(prog="python -m tests.soak.trail", description=__doc__)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats the choices of a run")
    options.add_argument("--stores", choices=SETS, default=SETS[0], help="servers: a MariaDB of the run's own")
    told = options.parse_args()
    sys.stdout.write(f"{told.kills} kills, seed {told.seed}, stores {told.stores}\n")
    with tempfile.TemporaryDirectory() as folder, metadata_of(told.stores, Path(folder)) as url:
        environment = environment_on(Path(folder) / "home", url)
        outcome = run(environment, Path(folder), kills=told.kills, seed=told.seed)
    sys.stdout.write(f"{outcome}\n{'nothing is missing' if outcome.is_right else 'NOT right'}\n")
    return 0 if outcome.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
