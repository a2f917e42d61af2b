"""Versions of what is changed by several people: a lost update is refused instead of made (RFC 9110, 13.1.1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from common.core.errors import LostUpdate


def version_of(*parts: Any) -> str:
    """The version of what these JSON values say: the same for the same content, whenever and wherever it is asked."""
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_version(current: str, expected: Collection[str] | None) -> None:
    """Raises LostUpdate unless what is stored now is one of the expected versions; None expects nothing."""
    if expected is not None and current not in expected:
        raise LostUpdate
