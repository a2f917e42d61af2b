"""``python -m tests.soak``: 10,000 jobs, four workers, and a kill -9 a hundred times."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.backends.stores import SETS
from tests.soak.queue import environment_on, metadata_of, run


def main() -> int:
    """Run, and say what became of the jobs; 1 when that is not once each."""
    options = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    options.add_argument("--jobs", type=int, default=10_000)
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats the choices of a run")
    options.add_argument("--stores", choices=SETS, default=SETS[0], help="servers: a MariaDB of the run's own")
    told = options.parse_args()
    sys.stdout.write(
        f"{told.jobs} jobs, {told.workers} workers, {told.kills} kills, seed {told.seed}, stores {told.stores}\n"
    )
    with tempfile.TemporaryDirectory() as folder, metadata_of(told.stores, Path(folder)) as url:
        environment = environment_on(Path(folder) / "home", url)
        outcome = run(environment, count=told.jobs, workers=told.workers, kills=told.kills, seed=told.seed)
    sys.stdout.write(f"{outcome}\n{'once each in effect' if outcome.is_right else 'NOT once each'}\n")
    return 0 if outcome.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
