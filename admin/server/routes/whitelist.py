"""The white list of those who may register."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from common.http.bodies import Body, Query
from common.http.fields import Cursor, EmailText, Item, PageLimit
from common.http.requirement import Holds
from common.http.route import Call, Reply, Routes
from common.services import sheets, whitelist

routes = Routes("registration", "admin", "/api/v1/admin")

READ = Holds("user", "read")
WRITE = Holds("user", "create")


class WhitelistQuery(Query):
    """Any of these asks for a page; none of them for the whole list."""

    limit: PageLimit = 50
    cursor: Cursor | None = None
    q: Annotated[str, Field(max_length=255, description="How an address begins.")] | None = None


class Pattern(Body):
    """An address, or every address of a domain as ``@example.org``."""

    email: EmailText


class Entry(Item):
    """An entry of the list."""

    id: int
    email: str
    create_time: int
    create_date: str
    update_time: int
    update_date: str


class Whitelist(Item):
    """The list; with ``next_cursor`` where a page was asked for."""

    total: int
    white_list: list[Entry]
    next_cursor: str | None = None


class ReadRow(Item):
    """What became of a row: ``added``, ``listed`` (it was already), ``repeated`` or ``invalid``."""

    row: int
    email: str
    result: whitelist.Outcome
    reason: str | None


class ReadFile(Item):
    """What became of a file: how many rows of each result, and all of them."""

    added: int
    listed: int
    repeated: int
    invalid: int
    rows: list[ReadRow]


@routes.get(
    "/whitelist",
    requires=READ,
    query=WhitelistQuery,
    data=Whitelist,
    summary="List who may register, whole or by page",
)
def show(call: Call) -> dict[str, Any]:
    if not call.query.model_fields_set:
        return whitelist.whole(call.plane)
    return whitelist.page(call.plane, **call.query.model_dump())


@routes.post(
    "/whitelist/add",
    requires=WRITE,
    body=Pattern,
    names=("email",),
    statuses=(409,),
    summary="Let an address, or those of a domain, register",
)
def add(call: Call) -> Reply:
    return Reply(message=f"{whitelist.add(call.plane, call.who, call.body.email)} may register.")


@routes.put(
    "/whitelist/<entry_id>",
    requires=WRITE,
    body=Pattern,
    names=("email",),
    statuses=(404, 409),
    summary="Put another address in the place of one",
)
def change(call: Call, entry_id: str) -> Reply:
    return Reply(message=f"{whitelist.change(call.plane, call.who, entry_id, call.body.email)} may register.")


@routes.delete(
    "/whitelist/<email>",
    requires=WRITE,
    statuses=(404,),
    summary="Take an address, or a domain, off the list",
)
def remove(call: Call, email: str) -> Reply:
    whitelist.remove(call.plane, call.who, email)
    return Reply(message=f"{email} is off the white list; accounts stay.")


@routes.post(
    "/whitelist/batch",
    requires=WRITE,
    uploads="file",
    data=ReadFile,
    statuses=(409,),
    waits=True,
    summary="Add the addresses of a workbook (xlsx) or CSV file; each row is answered for",
)
def batch(call: Call) -> Reply:
    report = whitelist.add_all(call.plane, call.who, sheets.addresses(call.upload))
    told = f"Added {report['added']}, listed already {report['listed'] + report['repeated']}, not valid "
    return Reply(report, message=f"{told}{report['invalid']}.")
