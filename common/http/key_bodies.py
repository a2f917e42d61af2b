"""What both servers take and give where API tokens are made and listed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.http.bodies import Body, Query
from common.http.fields import Cursor, Item, PageLimit

Name = Annotated[str, Field(max_length=1024, description="At most 128 characters.")]
Moment = Annotated[str, Field(max_length=64, description="RFC 3339 with an offset, or UTC milliseconds.")]
# Ten thousand years, so that no sum overflows; the rule of common.core.expiry is narrower.
Seconds = Annotated[int, Field(ge=1, le=315_576_000_000)]
Milliseconds = Annotated[int, Field(ge=0, le=2**63 - 1)]


class NewKey(Body):
    """A name, and an end by ``expires_at`` or ``expires_in`` (seconds); without either it has none."""

    name: Name | None = None
    expires_at: Moment | Milliseconds | None = None
    expires_in: Seconds | None = None


class PageQuery(Query):
    """Either of these asks for a page, neither of them for the whole list."""

    limit: PageLimit = 50
    cursor: Cursor | None = None


class ApiKey(Item):
    """An API token: whole in the answer that made it, else in display form where tokens are stored hashed."""

    tenant_id: str
    token: str
    beta: str | None
    dialog_id: str | None
    source: str | None
    create_time: int | None
    create_date: str | None
    update_time: int | None
    update_date: str | None
    id: str | None
    name: str | None
    expires_at: str | None
    last_used_at: str | None


class ApiKeyPage(Item):
    """A page of API tokens."""

    tokens: list[ApiKey]
    next_cursor: str | None
