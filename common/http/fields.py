"""Types of fields that many bodies and queries share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from common.http.bodies import Query

# A password as it comes over the wire: plain text, or 344 characters of base64 with white space in between.
WirePassword = Annotated[
    str,
    Field(max_length=1024, description="Plain text of at most 128 code points, or RAGFlow's encrypted form."),
]
EmailText = Annotated[str, Field(max_length=1024, description="An e-mail address.")]
PageLimit = Annotated[int, Field(ge=1, le=500)]
# The pattern is documentation: whatever is no cursor of a list is refused by common.core.cursors.
Cursor = Annotated[str, Field(max_length=2048, json_schema_extra={"pattern": "^[A-Za-z0-9_-]*$"})]


class Item(BaseModel):
    """A documented shape of what a route gives; it describes answers and is not run over them."""


class DryRunQuery(Query):
    """``dry_run=1`` says what a change would do, and changes nothing."""

    dry_run: bool = False
