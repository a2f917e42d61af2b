"""Writers and sealers killed with -9 at random: nothing acknowledged is missing from the audit trail, which is whole.

The long form: make trail-soak."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.stores import SETS
from tests.soak.queue import environment_on, metadata_of
from tests.soak.trail import run


@pytest.mark.slow
@pytest.mark.parametrize("stores", SETS)
def test_nothing_acknowledged_is_missing_from_the_trail_while_processes_are_killed(tmp_path: Path, stores: str) -> None:
    with metadata_of(stores, tmp_path) as url:
        outcome = run(environment_on(tmp_path / "home", url), tmp_path, kills=8, seed=1)

    assert outcome.is_right, outcome
    assert outcome.kills == 8
