"""docs/configuration.md and the code name the same settings."""

import re
from pathlib import Path

from common import settings
from common.conf.sections import SECTIONS
from common.core.variables import VARIABLES

ROOT = Path(__file__).parents[2]


def documented():
    return (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_every_variable_of_ours_is_documented_and_read():
    pattern = re.compile(r"\bRAGKEEPER_[A-Z]+(?:_[A-Z]+)*\b")
    read = {
        name
        for package in ("admin", "api", "common")
        for source in (ROOT / package).rglob("*.py")
        for name in pattern.findall(source.read_text(encoding="utf-8"))
    }
    assert set(pattern.findall(documented())) == read


def test_every_variable_of_ragflows_that_is_read_is_documented():
    read = {each for variables in settings._VARIABLES.values() for each in variables}
    missing = {each for each in read | {"RAGFLOW_SECRET_KEY"} if f"`{each}`" not in documented()}
    assert missing == set()


def test_every_section_and_every_key_that_selects_a_setting_is_documented():
    keys = [".".join(pair) for pair in settings._FILE_KEYS.values() if pair[0] != "user_default_llm"]
    missing = {each for each in [*SECTIONS, *keys] if f"`{each}`" not in documented()}
    assert missing == set()


def test_every_setting_that_changes_at_run_time_is_documented_and_no_other():
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    settings_named = {name for name in named if " " not in name}
    limits = {"members", "tokens", "datasets", "requests_per_minute", "PUT", "GET"}
    assert settings_named - limits == set(VARIABLES)
