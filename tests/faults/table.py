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


_MORE = (
    "store",
    "what",
    "serves after, s",
    "healthz says",
    "after, ms",
    "livez, ms",
    "all else at most, ms",
    "back after, s",
    "acknowledged / lost",
)


def main() -> int:
    """Print it; 1 where a fault is missing or went wrong."""
    entries = read()
    for store in STORES:
        sys.stdout.write(f"\n### {store}\n\n{_row(_HEAD)}{_row(['---'] * len(_HEAD))}")
        for kind in KINDS:
            entry = entries.pop(f"{store}-{kind}", Entry(store, kind, verdict="not run"))
            sys.stdout.write(_row(_cells(entry)))
    sys.stdout.write(f"\n### Rotation, starts, embedded stores\n\n{_row(_MORE)}{_row(['---'] * len(_MORE))}")
    for entry in sorted(entries.values(), key=lambda each: (each.kind, STORES.index(each.store))):
        sys.stdout.write(_row(_more(entry)))
    wanted = {f"{store}-{kind}" for store in STORES for kind in KINDS}
    seen = read()
    return 0 if wanted <= seen.keys() and all(each.verdict == "passed" for each in seen.values()) else 1


def _named(entry: Entry) -> str:
    return entry.kind if entry.verdict == "passed" else f"{entry.kind} ({entry.verdict})"


def _more(entry: Entry) -> tuple[str, ...]:
    return (
        entry.store,
        _named(entry),
        _seconds(entry.serving_s),
        _words(entry) if entry.healthz else "-",
        _milliseconds(entry.healthz_ms),
        _milliseconds(entry.livez_ms),
        _milliseconds(entry.others_ms),
        _seconds(entry.recovery_s),
        _kept(entry) if entry.acknowledged else "-",
    )


def _words(entry: Entry) -> str:
    return " ".join(f"`{word}` nok" for word in entry.healthz) or "ok"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"


def _milliseconds(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds else "-"


def _kept(entry: Entry) -> str:
    return f"{entry.acknowledged} / {'?' if entry.lost is None else entry.lost}"


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        _named(entry),
        _words(entry),
        f"{entry.healthz_ms:.0f}",
        f"{entry.livez_ms:.0f}",
        f"{entry.ping_ms:.0f}",
        " ".join(map(str, entry.needing)),
        f"{entry.needing_first_ms:.0f} / {entry.needing_later_ms:.0f}",
        _others(entry),
        f"{entry.others_ms:.0f}",
        _purge(entry),
        _seconds(entry.recovery_s),
        _kept(entry),
    )


def _others(entry: Entry) -> str:
    answers = list(entry.others.values())
    return ", ".join(f"{answers.count(status)} of {status}" for status in sorted(set(answers)))


def _purge(entry: Entry) -> str:
    if entry.purge_s is None:
        return "-"
    return f"waits, done {entry.purge_s:.1f} s after" if entry.purge else "done meanwhile"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.exit(main())
