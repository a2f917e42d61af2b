"""Entity tags: what was read has a tag, and a change may ask that it is still so (RFC 9110, 8.8.3 and 13.1.1)."""

from __future__ import annotations

from flask import request


def header(tag: str) -> dict[str, str]:
    """The header that an answer carries its tag in."""
    return {"ETag": f'"{tag}"'}


def expected() -> frozenset[str] | None:
    """The tags that the request's If-Match names; None where it has none, or takes any (``*``)."""
    if "If-Match" not in request.headers or request.if_match.star_tag:
        return None
    # A weak tag never matches here, and a header that can't be read names nothing.
    return frozenset(request.if_match.as_set())
