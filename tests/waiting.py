"""Letting other processes have the processor before one looks again."""

from __future__ import annotations

import selectors


def pause(seconds: float) -> None:
    """Wait for nothing, for so long; between two looks at what can't be waited for."""
    with selectors.DefaultSelector() as nothing:
        nothing.select(seconds)
