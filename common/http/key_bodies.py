"""What both servers take and give where API tokens are made and listed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.http.bodies import Body, Query
from common.http.fields import Cursor, Item, PageLimit
from common.services.token_rotation import MOST_GRACE_S

Name = Annotated[str, Field(max_length=1024, description="At most 128 characters.")]
Moment = Annotated[str, Field(max_length=64, description="RFC 3339 with an offset, or UTC milliseconds.")]
# Ten thousand years, so that no sum overflows; the rule of common.core.expiry is narrower.
Seconds = Annotated[int, Field(ge=1, le=315_576_000_000)]
Milliseconds = Annotated[int, Field(ge=0, le=2**63 - 1)]


# common.core.scopes has the rule; these bounds only keep what reaches it small.
ScopeText = Annotated[str, Field(max_length=160, description="action:resource, such as read:dataset, or all.")]
Scopes = Annotated[list[ScopeText], Field(max_length=256)]


class NewPlainKey(Body):
    """A name, and an end by ``expires_at`` or ``expires_in`` (seconds); without either it has none."""

    name: Name | None = None
    expires_at: Moment | Milliseconds | None = None
    expires_in: Seconds | None = None


class NewKey(NewPlainKey):
    """With ``scopes`` it does no more than they say; without, what its owner may do on the user API."""

    scopes: Scopes | None = None


class KeyRotation(Body):
    """How long the old token is still good, and an end of the new one; without one it is the old one's."""

    grace_s: Annotated[int, Field(ge=0, le=MOST_GRACE_S)] = MOST_GRACE_S
    expires_at: Moment | Milliseconds | None = None
    expires_in: Seconds | None = None


class PageQuery(Query):
    """Either of these asks for a page, neither of them for the whole list."""

    limit: PageLimit = 50
    cursor: Cursor | None = None


class ApiKey(Item):
    """An API token: whole in the answer that made it, else in display form where tokens are stored hashed.

    ``replaced_by`` is the token that takes its place where it is being rotated; ``made_by`` are the ids of accounts
    that made it for this one; ``unused`` says that it was not used for 90 days, and is null where nobody notes that.
    """

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
    scopes: list[str] | None
    replaced_by: str | None
    made_by: list[str] | None
    unused: bool | None


class RotatedKey(ApiKey):
    """The token that takes the place of ``replaces``, which is good until ``old_expires_at``."""

    replaces: str
    old_expires_at: str


class ApiKeyPage(Item):
    """A page of API tokens."""

    tokens: list[ApiKey]
    next_cursor: str | None
