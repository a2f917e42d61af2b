"""``ragkeeper whitelist …`` and ``approval …``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from common.cli.client import admin, part, upload
from common.cli.console import JsonFlag, fail, say, show_json, show_rows
from common.cli.users import After, Limit, show_page

whitelist = typer.Typer(
    no_args_is_help=True,
    help="Who may register where that takes a listed address (`ragkeeper setting set registration.mode whitelist`).",
)
approval = typer.Typer(
    no_args_is_help=True,
    help="Registrations that await a decision (`ragkeeper setting set registration.mode approval`).",
)

Pattern = Annotated[str, typer.Argument(help="An address, or @example.org for every address of a domain.")]
ApprovalId = Annotated[str, typer.Argument(help="The number that `ragkeeper approval list` shows.")]


@whitelist.command("list")
def list_whitelist(
    q: Annotated[str | None, typer.Option(help="Only those that begin with this.")] = None,
    limit: Limit = 50,
    cursor: After = None,
    as_json: JsonFlag = False,
) -> None:
    """List addresses and domains by page."""
    page = admin("GET", "/whitelist", query={"q": q, "limit": limit, "cursor": cursor})["data"]
    show_page(page, "white_list", ("id", "email", "create_date"), as_json, "Nothing is listed.")


@whitelist.command("add")
def add(pattern: Pattern) -> None:
    """Let an address, or every address of a domain, register."""
    say(admin("POST", "/whitelist/add", {"email": pattern})["message"])


@whitelist.command("remove")
def remove(pattern: Pattern) -> None:
    """Take an address, or a domain, off the list; accounts stay."""
    say(admin("DELETE", f"/whitelist/{part(pattern)}")["message"])


@whitelist.command("import")
def import_file(
    path: Annotated[Path, typer.Argument(help="A workbook (xlsx) or CSV file with a column named email, or one only.")],
    as_json: JsonFlag = False,
) -> None:
    """Add the addresses of a file; rows that are not valid are shown, and the others count all the same."""
    try:
        content = path.read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}.")
    answer = upload("/whitelist/batch", path.name, content)
    if as_json:
        show_json(answer["data"])
        return
    wrong: list[dict[str, Any]] = [row for row in answer["data"]["rows"] if row["result"] == "invalid"]
    if wrong:
        show_rows(wrong, ("row", "email", "reason"), "")
    say(answer["message"])


@approval.command("list")
def list_approvals(limit: Limit = 50, cursor: After = None, as_json: JsonFlag = False) -> None:
    """List who awaits a decision, the first who asked first."""
    page = admin("GET", "/approvals", query={"limit": limit, "cursor": cursor})["data"]
    columns = ("id", "email", "nickname", "address", "created_at", "expires_at")
    show_page(page, "approvals", columns, as_json, "Nobody awaits a decision.")


@approval.command("approve")
def approve(approval_id: ApprovalId) -> None:
    """Make the account that somebody has asked for."""
    say(admin("POST", f"/approvals/{part(approval_id)}/approve")["message"])


@approval.command("reject")
def reject(approval_id: ApprovalId) -> None:
    """Make no account; whoever asked is mailed that where mail is configured."""
    say(admin("POST", f"/approvals/{part(approval_id)}/reject")["message"])
