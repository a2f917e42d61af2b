"""``ragkeeper session …``: who is logged in from where, and ending that."""

from __future__ import annotations

from typing import Annotated

import typer

from common.cli.client import admin, of_oneself, part
from common.cli.console import JsonFlag, fail, say
from common.cli.users import After, Limit, show_page

session = typer.Typer(no_args_is_help=True, help="Open sessions, one's own or an account's: list, end.")

Of = Annotated[str | None, typer.Option("--of", metavar="EMAIL", help="Those of this account; default: your own.")]
_COLUMNS = ("id", "realm", "kind", "address", "agent", "created_at", "last_seen_at", "expires_at", "current")


@session.command("list")
def list_sessions(of: Of = None, limit: Limit = 50, cursor: After = None, as_json: JsonFlag = False) -> None:
    """List open sessions by page, newest first."""
    query = {"limit": limit, "cursor": cursor}
    if of is None:
        page = of_oneself("GET", "/sessions", query)["data"]
    else:
        page = admin("GET", f"/users/{part(of)}/sessions", query=query)["data"]
    show_page(page, "sessions", _COLUMNS, as_json, "No open sessions.")


@session.command("end")
def end_session(
    session_id: Annotated[str | None, typer.Argument(help="The session's id, as `list` shows it.")] = None,
    of: Of = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All of the account; of your own all but the one in use.")
    ] = False,
) -> None:
    """End one session, or all. Ending your own asks for your password, if you gave it over ten minutes ago."""
    if (session_id is None) != everything:
        fail("say which session: its id (`ragkeeper session list` shows them), or --all.")
    below = "/sessions" if session_id is None else f"/sessions/{part(session_id)}"
    answer = of_oneself("DELETE", below) if of is None else admin("DELETE", f"/users/{part(of)}{below}")
    say(f"Ended {answer['data']['ended']} session(s)." if session_id is None else answer["message"])
