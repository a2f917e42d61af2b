"""ETag and If-Match: the version of what is shown, and a change that is made to that version only (RFC 9110)."""

from __future__ import annotations

import re

from flask import Request

from common.core.errors import BadField

# An entity-tag (RFC 9110, 8.8.3); a weak one never matches where a change depends on it.
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
# Possessive, or a header full of spaces would be tried in all ways of sharing them out.
_LIST = re.compile(rf"[ \t]*+,?[ \t]*+(?:{_TAG.pattern})(?:[ \t]*+,[ \t]*+(?:{_TAG.pattern}))*+[ \t]*+,?[ \t]*+")


def headers(version: str) -> dict[str, str]:
    """The header that names the version in an answer."""
    return {"ETag": f'"{version}"'}


def expected_versions(request: Request) -> frozenset[str] | None:
    """The versions that a change is meant for, by ``If-Match``; None where any is fine.

    Raises BadField for a header that is no list of entity-tags.
    """
    given = request.headers.get("If-Match")
    if given is None or given.strip() == "*":
        return None
    if not _LIST.fullmatch(given):
        raise BadField('If-Match: must be * or a list of entity-tags, such as "abc".', field="If-Match")
    return frozenset(tag for weak, tag in _TAG.findall(given) if not weak)
