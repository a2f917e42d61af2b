"""The body that sets a log level, on either port."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from common.http.bodies import Body
from common.http.fields import Item
from common.services import log_levels


class LogLevel(Item):
    """A package and its level."""

    pkg_name: str
    level: str


class LogLevelChange(Body):
    """A package (``root`` for all) and the name of a level, in any case."""

    pkg_name: str = Field(max_length=log_levels.MAX_NAME_LENGTH)
    level: str = Field(max_length=16)

    @model_validator(mode="before")
    @classmethod
    def in_known_words(cls, values: Any) -> Any:
        """Refuse with the error that RAGFlow's clients know, and not with the general one of a missing field."""
        log_levels.check_log_level(values.get("pkg_name"), values.get("level"))
        return values
