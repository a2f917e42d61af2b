"""What was seen of each fault, in ``build/faults/faults.json``; ``tests.faults.table`` makes a table of it."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

BOOK = Path(__file__).parents[2] / "build" / "faults" / "faults.json"


@dataclass
class Entry:
    """What was seen of one fault. Times are the worst that were met, of ``seen_s`` and ``recovery_s`` the whole: until
    health said it, and until all was well again.
    """

    store: str
    kind: str
    healthz: list[str] = field(default_factory=list)
    healthz_ms: float = 0.0
    seen_s: float | None = None
    livez_ms: float = 0.0
    ping_ms: float = 0.0
    needing: list[int] = field(default_factory=list)
    needing_first_ms: float = 0.0
    needing_later_ms: float = 0.0
    needing_said: str = ""
    others: dict[str, int] = field(default_factory=dict)
    others_ms: float = 0.0
    purge: str = ""
    purge_s: float | None = None
    recovery_s: float | None = None
    serving_s: float | None = None
    acknowledged: int = 0
    lost: int | None = None
    verdict: str = "failed"
    load: float = 0.0

    def write(self) -> None:
        """Put it into the book, in the place of an earlier one of the same fault."""
        self.load = round(os.getloadavg()[0], 1)
        BOOK.parent.mkdir(parents=True, exist_ok=True)
        with BOOK.with_suffix(".lock").open("w") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            entries = json.loads(BOOK.read_text()) if BOOK.exists() else {}
            entries[f"{self.store}-{self.kind}"] = asdict(self)
            BOOK.write_text(json.dumps(entries, indent=1))


def read() -> dict[str, Entry]:
    """The entries, by ``store-kind``."""
    return {name: Entry(**each) for name, each in json.loads(BOOK.read_text()).items()}
