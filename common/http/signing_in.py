"""The headers that carry a new session to its client."""

from __future__ import annotations


def login_headers(wire: str) -> dict[str, str]:
    """The session in ``Authorization``, readable by a web client of another origin as RAGFlow's login answers are."""
    return {
        "Authorization": wire,
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Method": "*",
        "Access-Control-Allow-Headers": "*",
        "Access-Control-Expose-Headers": "Authorization",
    }
