"""``python -m tests.faults.table``: what the last run of the faults has seen, as a table in Markdown."""

from __future__ import annotations

import sys

from tests.faults.book import Entry, read
from tests.faults.kinds import KINDS, STORES

_HEAD = (
    "fault",
    "healthz says",
    "after, ms",
    "livez, ms",
    "ping, ms",
    "what needs it",
    "first / later, ms",
    "all else",
    "at most, ms",
    "purge",
    "back after, s",
    "acknowledged / lost",
)


def main() -> int:
    """Print it; 1 where a fault is missing or went wrong."""
    entries = read()
    complete = True
    for store in STORES:
        sys.stdout.write(f"\n### {store}\n\n{_row(_HEAD)}{_row(['---'] * len(_HEAD))}")
        for kind in KINDS:
            entry = entries.get(f"{store}-{kind}")
            complete = complete and entry is not None and entry.verdict == "passed"
            sys.stdout.write(_row(_cells(entry) if entry else (kind, "not run")))
    return 0 if complete else 1


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        entry.kind if entry.verdict == "passed" else f"{entry.kind} ({entry.verdict})",
        " ".join(f"`{word}` nok" for word in entry.healthz) or "ok",
        f"{entry.healthz_ms:.0f}",
        f"{entry.livez_ms:.0f}",
        f"{entry.ping_ms:.0f}",
        " ".join(map(str, entry.needing)),
        f"{entry.needing_first_ms:.0f} / {entry.needing_later_ms:.0f}",
        _others(entry),
        f"{entry.others_ms:.0f}",
        _purge(entry),
        "–" if entry.recovery_s is None else f"{entry.recovery_s:.1f}",
        f"{entry.acknowledged} / {'?' if entry.lost is None else entry.lost}",
    )


def _others(entry: Entry) -> str:
    answers = list(entry.others.values())
    return ", ".join(f"{answers.count(status)} × {status}" for status in sorted(set(answers)))


def _purge(entry: Entry) -> str:
    if entry.purge_s is None:
        return "–"
    return f"waits, done {entry.purge_s:.1f} s after" if entry.purge else "done meanwhile"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.exit(main())
