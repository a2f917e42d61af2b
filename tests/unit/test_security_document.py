"""The documents in docs/security name tests that there are."""

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


def test_every_defect_is_held_by_tests_that_are_where_the_table_says() -> None:
    text = (ROOT / "docs" / "security" / "defects.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| [SR]\d+ \|", line)]
    named = {row[0].strip("| "): re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`", row[3]) for row in rows}
    missing = {
        f"{number}: {file}::{name}"
        for number, tests in named.items()
        for file, name in tests
        if not (ROOT / file).exists()
        or not re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert len(named) == len(rows) > 50, "a number stands there twice"
    assert {number for number, tests in named.items() if not tests} == set()
    assert missing == set()


def test_every_test_that_has_the_number_of_a_defect_in_its_name_stands_in_the_table() -> None:
    text = (ROOT / "docs" / "security" / "defects.md").read_text(encoding="utf-8")
    listed = {number.lower() for number in re.findall(r"^\| ([SR]\d+) \|", text, re.MULTILINE)}
    written = {
        name: set(re.findall(r"(?<=_)[sr]\d+(?=_)", name.lower()))
        for source in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^def (test_\w+)", source.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert {name for name, numbers in written.items() if numbers & listed and f"::{name}`" not in text} == set()
