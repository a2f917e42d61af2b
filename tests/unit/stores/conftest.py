"""What the tests of several stores share."""

from __future__ import annotations

from dataclasses import dataclass

import pytest


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()
