"""``make bench``: measures, prints the table, and leaves ``bench.md`` and ``bench.json`` in a folder.

Exits with 1 only when something could not be measured; a missed target is in the table.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import health, limits, lists, logins, reads, report, roles, starts, trail
from tests.bench.effort import QUICK, WHOLE, Effort
from tests.bench.load import LoadFailed
from tests.bench.processes import StartFailed
from tests.bench.report import Line

GROUPS: dict[str, Callable[[Effort, Path], Iterator[Line]]] = {
    "reads": reads.measure,
    "reads on MariaDB": reads.measure_on_mariadb,
    "roles": roles.measure,
    "health": health.measure,
    "pages": lists.measure_pages,
    "whole list": lists.measure_whole_list,
    "logins": logins.measure,
    "limits": limits.measure,
    "starts": starts.measure,
    "audit writes": trail.measure_writes,
    "audit pages": trail.measure_pages,
}


def main() -> int:
    """Measure everything; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the speed of the servers.")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for bench.md and bench.json")
    parser.add_argument("--quick", action="store_true", help="a few requests, to see that it runs; no numbers to keep")
    parser.add_argument("--only", choices=GROUPS, help="one group of measurements")
    given = parser.parse_args()
    # So that a terminated run still stops the servers it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts = report.machine()
    lines = []
    with tempfile.TemporaryDirectory(prefix="ragkeeper-bench-") as folder:
        for name in [given.only] if given.only else GROUPS:
            for line in _measured(name, QUICK if given.quick else WHOLE, Path(folder)):
                print(f"{line.case}: {line.measured}", file=sys.stderr, flush=True)
                lines.append(line)
    report.write(given.out, facts, lines)
    print(report.table(facts, lines))
    return 1 if any(line.failed for line in lines) else 0


def _measured(name: str, effort: Effort, folder: Path) -> Iterator[Line]:
    """The lines of one group; a group that can't run ends with a line that says why, and the others go on."""
    try:
        yield from GROUPS[name](effort, folder)
    except (StartFailed, LoadFailed, OSError, subprocess.SubprocessError) as error:
        yield Line(name, f"could not run: {error}", failed=True)


if __name__ == "__main__":
    sys.exit(main())
