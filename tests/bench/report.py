"""What was measured, as a table to read and as JSON to compare."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Line:
    """One thing that was measured; ``met`` is None where there is no target, or no measurement."""

    case: str
    measured: str
    target: str = ""
    met: bool | None = None
    failed: bool = False
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """One word for the last column."""
        if self.failed:
            return "NOT RUN"
        return {None: "", True: "met", False: "MISSED"}[self.met]


def spread(values: Sequence[float], digits: int, unit: str = "") -> str:
    """``median (smallest to largest) unit``."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f}){unit}"


def p95(values: Sequence[float]) -> float:
    """The value that 95 of 100 do not exceed."""
    return percentile(values, 95)


def percentile(values: Sequence[float], of_100: int) -> float:
    """The value that so many of 100 do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * of_100 // 100) - 1)]


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    names = (
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": next(names, platform.machine()),
        "memory_mb": psutil.virtual_memory().total // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: version(name) for name in ("gunicorn", "flask", "werkzeug", "orjson", "pydantic")},
        "load_before": round(os.getloadavg()[0], 2),
    }


def table(facts: dict[str, Any], lines: Sequence[Line]) -> str:
    """The machine in a sentence and the lines as a Markdown table."""
    rows = [("what", "measured", "target", "")]
    rows += [(line.case, line.measured, line.target, line.verdict) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    drawn = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    drawn.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    return (
        f"{facts['at']}: {facts['cores']} cores of {facts['processor']}, {facts['memory_mb']} MB, "
        f"Linux {facts['kernel']}, Python {facts['python']}, SQLite {facts['sqlite']}, {packages}; "
        f"load average {facts['load_before']} before the run.\n\n" + "\n".join(drawn) + "\n"
    )


def write(folder: Path, facts: dict[str, Any], lines: Sequence[Line]) -> None:
    """Put ``bench.md`` and ``bench.json`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.md").write_text(table(facts, lines))
    lines_as_rows = [{**asdict(line), "verdict": line.verdict} for line in lines]
    (folder / "bench.json").write_text(json.dumps({"machine": facts, "lines": lines_as_rows}, indent=1) + "\n")
