"""``make soak``: half an hour of mixed load on a whole plane; its memory, files and connections must stay flat.

Leaves ``soak.csv`` (a sample every few seconds), ``soak.svg`` (the same as curves) and ``soak.json`` in a folder. Exits
with 1 when something grew, failed, or could not be measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from tests.bench import report, seed
from tests.bench.curves import Curve, draw
from tests.bench.processes import Plane, running_plane

PEOPLE = 8
PER_S = 60
# A short run is sampled more often, so that there is something to judge.
SAMPLE_EVERY_S, SAMPLES_AT_LEAST = 5.0, 20
# By how much the median of the last fifth of the run may be above that of the second fifth (the first one warms up).
ALLOWED_GROWTH = {"memory_mb": 1.05, "threads": 1.0, "files": 1.05, "connections": 1.2}


@dataclass(frozen=True)
class Sample:
    """What all processes of the plane hold together, so many seconds after the start."""

    at_s: float
    memory_mb: float
    threads: int
    files: int
    connections: int


def main() -> int:
    """Run the load, sample, judge and draw; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description="Mixed load for a long time.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    given = parser.parse_args()
    # So that a terminated run still stops the servers it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts = report.machine()
    with tempfile.TemporaryDirectory(prefix="ragkeeper-soak-") as folder:
        home = Path(folder) / "home"
        seed.make_home(home, 1_000)
        with running_plane(seed.environment(home), Path(folder) / "soak.log") as plane:
            samples, heard = _run(plane, given.minutes * 60)
    _write(given.out, facts, samples, heard)
    grown = list(_grown(samples))
    for line in [*grown, *(f"failed: {name} ({count} times)" for name, count in heard["failures"].items())]:
        print(line)
    asked = sum(heard["answers"].values())
    print(f"{asked} requests in {given.minutes:g} min, p99 {heard['p99_ms']:.1f} ms; curves: {given.out / 'soak.svg'}")
    return 1 if grown or heard["failures"] else 0


def _run(plane: Plane, seconds: float) -> tuple[list[Sample], dict[str, Any]]:
    order = {
        "admin_port": plane.admin_port,
        "api_port": plane.api_port,
        "email": seed.ADMIN_EMAIL,
        "password": seed.ADMIN_PASSWORD,
        "people": PEOPLE,
        "seconds": seconds,
        "per_s": PER_S,
    }
    client = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.mixed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert client.stdin is not None
        client.stdin.write(json.dumps(order))
        client.stdin.close()
        samples = list(_samples(plane, client, min(SAMPLE_EVERY_S, seconds / SAMPLES_AT_LEAST)))
        assert client.stdout is not None
        return samples, json.loads(client.stdout.read())
    finally:
        client.kill()
        client.wait()


def _samples(plane: Plane, client: subprocess.Popen[str], every_s: float) -> Iterator[Sample]:
    began = time.monotonic()
    while client.poll() is None:
        yield _sample(plane, time.monotonic() - began)
        print(f"\r{time.monotonic() - began:6.0f} s", end="", file=sys.stderr, flush=True)
        try:
            client.wait(every_s)
        except subprocess.TimeoutExpired:
            continue
    print(file=sys.stderr)


def _sample(plane: Plane, at_s: float) -> Sample:
    threads = files = connections = 0
    for process in plane.server.everything():
        try:
            threads += process.num_threads()
            files += process.num_fds()
            connections += sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))
        except psutil.NoSuchProcess:
            continue
    return Sample(round(at_s, 1), round(plane.server.memory_bytes() / 1e6, 1), threads, files, connections)


def _grown(samples: list[Sample]) -> Iterator[str]:
    """A sentence for each thing that is higher at the end than it was after the start."""
    fifth = len(samples) // 5
    if not fifth:
        yield "too short to judge: fewer than five samples"
        return
    for name, allowed in ALLOWED_GROWTH.items():
        early = statistics.median(getattr(sample, name) for sample in samples[fifth : 2 * fifth])
        late = statistics.median(getattr(sample, name) for sample in samples[-fifth:])
        if late > early * allowed:
            yield f"grew: {name} from {early:g} to {late:g} (allowed {allowed:g} times)"


def _write(folder: Path, facts: dict[str, Any], samples: list[Sample], heard: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [each.name for each in fields(Sample)]
    with (folder / "soak.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(asdict(sample) for sample in samples)
    (folder / "soak.json").write_text(json.dumps({"machine": facts, **heard}, indent=1) + "\n")
    at_min = [sample.at_s / 60 for sample in samples]
    titles = {
        "memory_mb": "memory (PSS), MB",
        "threads": "threads",
        "files": "open files",
        "connections": "TCP connections",
    }
    curves = [Curve(title, [getattr(sample, name) for sample in samples]) for name, title in titles.items()]
    (folder / "soak.svg").write_text(draw("minutes", at_min, curves))


if __name__ == "__main__":
    sys.exit(main())
