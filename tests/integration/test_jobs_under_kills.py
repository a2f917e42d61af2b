"""Several workers on one database, killed with -9 at random: each job once in effect. The long form: make jobs-soak."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.queue import environment_on, run


@pytest.mark.slow
def test_jobs_are_once_each_in_effect_while_workers_are_killed(tmp_path: Path) -> None:
    outcome = run(environment_on(tmp_path / "home", None), count=400, workers=3, kills=10, seed=1)

    assert outcome.is_right, outcome
    assert outcome.kills == 10
