"""Opaque page cursors: where the next page of a list starts.

A cursor is not signed: it selects nothing that the list's own filter wouldn't, and is checked like any input.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, TypeVar, overload

from common.core.errors import BadField

# Room for the longest key, an e-mail of 255 characters in any script, and an id beside it.
_MAX_LENGTH = 2048
# What a BIGINT holds; beyond it a database driver refuses to bind the number.
_MAX_INT = 2**63 - 1

A = TypeVar("A", int, str)
B = TypeVar("B", int, str)
C = TypeVar("C", int, str)


def encode_cursor(values: Sequence[int | str]) -> str:
    """The cursor that stands for these values: URL-safe base64 of a JSON list, without padding."""
    text = json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode("utf-8")).rstrip(b"=").decode("ascii")


@overload
def decode_cursor(cursor: object, schema: tuple[type[A]]) -> tuple[A]: ...
@overload
def decode_cursor(cursor: object, schema: tuple[type[A], type[B]]) -> tuple[A, B]: ...
@overload
def decode_cursor(cursor: object, schema: tuple[type[A], type[B], type[C]]) -> tuple[A, B, C]: ...
def decode_cursor(cursor: object, schema: tuple[type[Any], ...]) -> tuple[Any, ...]:
    """The values behind a cursor, one for each type of ``schema``.

    Raises BadField (``cursor``) for whatever ``encode_cursor`` can't have given for that schema.
    """
    values = _unpack(cursor) if isinstance(cursor, str) and len(cursor) <= _MAX_LENGTH else None
    if not isinstance(values, list) or len(values) != len(schema):
        raise _bad_cursor()
    for value, expected in zip(values, schema, strict=True):
        if type(value) is not expected or not _is_bindable(value):
            raise _bad_cursor()
    return tuple(values)


def _unpack(cursor: str) -> object:
    padding = "=" * (-len(cursor) % 4)
    try:
        return json.loads(base64.b64decode(cursor + padding, altchars=b"-_", validate=True).decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _is_bindable(value: int | str) -> bool:
    """Whether every store takes the value: no number beyond BIGINT, no NUL, no half of a surrogate pair."""
    if isinstance(value, int):
        return -_MAX_INT <= value <= _MAX_INT
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)


def _bad_cursor() -> BadField:
    return BadField(
        "This is no cursor of this list: take next_cursor from the page before, or leave it out.",
        field="cursor",
    )
