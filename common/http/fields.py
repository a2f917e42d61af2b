"""Types of fields that many bodies and queries share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticKnownError

from common.http.bodies import Query

_WHOLE = re.compile("-?[0-9]+")

# A password as it comes over the wire: plain text, or 344 characters of base64 with white space in between.
WirePassword = Annotated[
    str,
    Field(max_length=1024, description="Plain text of at most 128 code points, or RAGFlow's encrypted form."),
]
EmailText = Annotated[str, Field(max_length=1024, description="An e-mail address.")]


def _digits(value: object) -> object:
    """Text of a whole number as it is; pydantic would take 1_0 for ten, too."""
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return value


# A whole number in a query, where it comes as text.
Digits = BeforeValidator(_digits)
PageLimit = Annotated[int, Digits, Field(ge=1, le=500)]
# The pattern is documentation: whatever is no cursor of a list is refused by common.core.cursors.
Cursor = Annotated[str, Field(max_length=2048, json_schema_extra={"pattern": "^[A-Za-z0-9_-]*$"})]


class Item(BaseModel):
    """A documented shape of what a route gives; it describes answers and is not run over them."""


class DryRunQuery(Query):
    """``dry_run=1`` says what a change would do, and changes nothing."""

    dry_run: bool = False
