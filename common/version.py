"""The version of this program."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version


@cache
def version_text() -> str:
    """``v`` and the installed version, as RAGFlow writes its own."""
    return f"v{version('ragkeeper')}"
