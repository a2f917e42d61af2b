"""Several workers on one database, killed with -9 at random: each job once in effect. The long form: make jobs-soak."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.stores import SETS
from tests.soak.queue import environment_on, metadata_of, run


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("stores", SETS)
def test_jobs_are_once_each_in_effect_while_workers_are_killed(tmp_path: Path, stores: str) -> None:
    with metadata_of(stores, tmp_path) as url:
        outcome = run(environment_on(tmp_path / "home", url), count=400, workers=3, kills=10, seed=1)

    assert outcome.is_right, outcome
