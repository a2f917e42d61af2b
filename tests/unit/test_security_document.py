"""docs/security/escalation.md names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_it_names_exists() -> None:
    text = (ROOT / "docs" / "security" / "escalation.md").read_text(encoding="utf-8")
    files = set(re.findall(r"tests/[a-z_/]+\.py", text))
    names = set(re.findall(r"\btest_[a-z_0-9]+\b(?!\.py)", text))
    written = {
        name
        for source in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^def (test_\w+)", source.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert {each for each in files if not (ROOT / each).exists()} == set()
    assert len(names) > 15
    assert names <= written, names - written
