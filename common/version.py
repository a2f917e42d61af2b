"""The version of this program."""

from __future__ import annotations

from importlib.metadata import version


def version_text() -> str:
    """``v`` and the installed version, as RAGFlow writes its own."""
    return f"v{version('ragkeeper')}"
