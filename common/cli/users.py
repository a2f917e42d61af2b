"""``ragkeeper user …``, ``token …`` and ``tenant …``."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer

from common.cli import profile
from common.cli.client import admin, admin_if_allowed, part, user_api
from common.cli.console import JsonFlag, fail, hint, say, show_fields, show_json, show_rows
from common.cli.passwords import PasswordStdin, asked_password

user = typer.Typer(no_args_is_help=True, help="Accounts: list, create, switch on and off, delete.")
token = typer.Typer(no_args_is_help=True, help="API tokens of an account.")
tenant = typer.Typer(no_args_is_help=True, help="Tenants and their members.")

Email = Annotated[str, typer.Argument(help="The account's e-mail.")]
TenantId = Annotated[str, typer.Argument(help="The tenant's id.")]
Limit = Annotated[int, typer.Option(min=1, max=500, help="How many to show.")]
Key = Annotated[
    str,
    typer.Argument(
        help="Its id or display form, as `token list` shows them; with - its value is read from standard input, "
        "for other accounts of this machine can read arguments."
    ),
]
Expires = Annotated[
    str | None, typer.Option("--expires", help="When it ends: 90d, 12h or 30m from now, or 2030-01-31T12:00:00Z.")
]
_DAY_S = 24 * 3600
_UNITS_S = {"d": _DAY_S, "h": 3600, "m": 60}
_SPAN = re.compile(r"([1-9][0-9]{0,5})([dhm])")
After = Annotated[str | None, typer.Option("--cursor", help="Go on where the last page ended.")]


def show_page(page: dict[str, Any], key: str, columns: tuple[str, ...], as_json: bool, empty: str) -> None:
    """A page as table, and how to get the next one."""
    if as_json:
        show_json(page)
        return
    show_rows(page[key], columns, empty)
    if page["next_cursor"]:
        hint(f"There are more: --cursor {page['next_cursor']}")


@user.command("list")
def list_users(
    q: Annotated[str | None, typer.Option(help="Only those whose e-mail or nickname starts with this.")] = None,
    sort: Annotated[
        str, typer.Option(help="The order: email, nickname or create_time; -email turns it round.")
    ] = "email",
    limit: Limit = 50,
    cursor: After = None,
    as_json: JsonFlag = False,
) -> None:
    """List accounts by page."""
    page = admin("GET", "/users", query={"q": q, "sort": sort, "limit": limit, "cursor": cursor})["data"]
    columns = ("email", "nickname", "role", "is_active", "is_superuser", "create_date")
    show_page(page, "users", columns, as_json, "No account matches.")


@user.command("show")
def show_user(email: Email, as_json: JsonFlag = False) -> None:
    """Show an account."""
    details = admin("GET", f"/users/{part(email)}")["data"][0]
    if as_json:
        show_json(details)
    else:
        show_fields({name: value for name, value in details.items() if name != "avatar"})


@user.command("create")
def create_user(
    email: Email,
    superuser: Annotated[bool, typer.Option("--superuser", help="Make it a superuser.")] = False,
    password_stdin: PasswordStdin = False,
) -> None:
    """Create an account with its tenant; asks for the password."""
    password = asked_password(password_stdin, f"Password of {email}", confirm=True)
    body = {"username": email, "password": password, "role": "admin" if superuser else "user"}
    admin("POST", "/users", body)
    say(f"Created {email}.")


@user.command("delete")
def delete_user(
    email: Email,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a switched-off account and the tenants that only it owns."""
    if not dry_run and not yes:
        typer.confirm(f"Delete {email} and everything in the tenants that only it owns?", abort=True)
    say(admin("DELETE", f"/users/{part(email)}", query={"dry_run": "true" if dry_run else None})["message"])


@user.command("password")
def set_password(email: Email, password_stdin: PasswordStdin = False) -> None:
    """Set an account's password; its sessions end, of your own all but this one.

    Your own, more than ten minutes after the login, takes the current one as well, with --password-stdin in a second
    line.
    """
    password = asked_password(password_stdin, f"New password of {email}", confirm=True)
    path, body = f"/users/{part(email)}/password", {"new_password": password}
    if email.lower() != profile.load().email.lower():
        say(admin("PUT", path, body)["message"])
        return

    def current() -> str:
        typed = asked_password(password_stdin, f"Current password of {email}")
        if not typed:
            fail("this takes the current password, too; with --password-stdin in a second line.")
        return typed

    answer = admin_if_allowed("PUT", path, body, once_more=current)
    if answer is None:
        # Who has ceased to administer since the login has no other way.
        user_api("PATCH", "/api/v1/users/me", {**body, "password": current()})
    say(answer["message"] if answer else "Password updated successfully.")


@user.command("reset-link")
def reset_link(email: Email, as_json: JsonFlag = False) -> None:
    """Make a link with which the account's owner sets a new password, once and within half an hour.

    It is mailed; you see it where the setting password.show_reset_link says so.
    """
    answer = admin("POST", f"/users/{part(email)}/reset-link")
    made = answer["data"]
    if as_json:
        show_json(made)
        return
    hint(f"{answer['message']} It is good until {made['expires_at']}.")
    if made["token"]:
        say(made["link"] or made["token"])


@user.command("activate")
def activate(email: Email) -> None:
    """Switch an account on."""
    say(admin("PUT", f"/users/{part(email)}/activate", {"activate_status": "on"})["message"])


@user.command("deactivate")
def deactivate(email: Email) -> None:
    """Switch an account off: its sessions end, its tokens rest."""
    say(admin("PUT", f"/users/{part(email)}/activate", {"activate_status": "off"})["message"])


@user.command("grant-superuser")
def grant_superuser(email: Email) -> None:
    """Make an account superuser."""
    say(admin("PUT", f"/users/{part(email)}/admin")["message"])


@user.command("revoke-superuser")
def revoke_superuser(email: Email) -> None:
    """Make a superuser an ordinary account."""
    say(admin("DELETE", f"/users/{part(email)}/admin")["message"])


@user.command("datasets")
def datasets(email: Email, as_json: JsonFlag = False) -> None:
    """List the datasets that an account sees."""
    rows = admin("GET", f"/users/{part(email)}/datasets")["data"]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, ("name", "permission", "doc_num", "chunk_num", "create_date"), "It sees no datasets.")


@user.command("agents")
def agents(email: Email, as_json: JsonFlag = False) -> None:
    """List the agents that an account sees."""
    rows = admin("GET", f"/users/{part(email)}/agents")["data"]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, ("title", "permission", "canvas_category"), "It sees no agents.")


@token.command("list")
def list_tokens(email: Email, as_json: JsonFlag = False) -> None:
    """List an account's API tokens."""
    rows = admin("GET", f"/users/{part(email)}/keys")["data"]
    if as_json:
        show_json(rows)
    else:
        columns = ("id", "token", "name", "scopes", "state", "expires_at", "last_used_at", "create_date")
        show_rows([_token_row(row) for row in rows], columns, "It has no tokens.")


def _token_row(row: dict[str, Any]) -> dict[str, Any]:
    """A token in words: what it may do, and what is odd about it."""
    states = {
        "rotating": row["replaced_by"] is not None,
        "made by somebody else": bool(row["made_by"]),
        "unused for 90 days": bool(row["unused"]),
    }
    return {
        **row,
        "scopes": " ".join(row["scopes"]) if row["scopes"] else "as its owner, on the user API",
        "state": ", ".join(state for state, holds in states.items() if holds),
    }


@token.command("create")
def create_token(
    email: Email,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help="What it may do, as action:resource (read:dataset; write contains read), once for each; `all` is what "
            "the account may do, on the admin server too. Default: what the account may do on the user API.",
        ),
    ] = None,
    expires: Expires = None,
    expires_in: Annotated[int | None, typer.Option("--expires-in-days", min=1, help="The same as --expires.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Create an API token of an account; it is shown whole this once.

    For a scraper: `ragkeeper token create metrics@example.org --scope read:metric --expires 90d`
    """
    if expires is not None and expires_in is not None:
        fail("give either --expires or --expires-in-days.", 2)
    wish = {
        "name": name,
        "scopes": scope or None,
        "expires_in": None if expires_in is None else expires_in * _DAY_S,
        **_end(expires),
    }
    given = {field: value for field, value in wish.items() if value is not None}
    _show_token(admin("POST", f"/users/{part(email)}/keys", given)["data"], as_json)


@token.command("rotate")
def rotate_token(
    email: Email,
    key: Key,
    grace: Annotated[
        int, typer.Option("--grace", min=0, max=3600, help="For how many seconds the old one is good beside it.")
    ] = 3600,
    expires: Expires = None,
    as_json: JsonFlag = False,
) -> None:
    """Replace an API token by a new one with the same scopes; it is shown whole this once.

    Both are good for an hour, so that nothing stops while programs get the new one; `--grace 0` ends the old one now.
    """
    path = f"/users/{part(email)}/keys/{part(_key(key))}/rotate"
    _show_token(admin("POST", path, {"grace_s": grace, **_end(expires)})["data"], as_json)


def _end(expires: str | None) -> dict[str, str | int]:
    """What ``--expires`` says, as fields of a request."""
    if expires is None:
        return {}
    span = _SPAN.fullmatch(expires)
    return {"expires_in": int(span[1]) * _UNITS_S[span[2]]} if span else {"expires_at": expires}


def _show_token(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(made)
        return
    say(made["token"])
    hint("Keep it now: it is not shown again.")


@token.command("delete")
def delete_token(
    email: Email,
    key: Key,
) -> None:
    """Delete an API token; it is dead at once."""
    say(admin("DELETE", f"/users/{part(email)}/keys/{part(_key(key))}")["message"])


def _key(key: str) -> str:
    return sys.stdin.readline().strip() if key == "-" else key


@tenant.command("list")
def list_tenants(limit: Limit = 50, cursor: After = None, as_json: JsonFlag = False) -> None:
    """List tenants by page."""
    page = admin("GET", "/tenants", query={"limit": limit, "cursor": cursor})["data"]
    if not as_json:
        for row in page["tenants"]:
            row["member_count"] = "over 1000" if row["member_count"] is None else row["member_count"]
    columns = ("tenant_id", "name", "owner_email", "member_count", "create_date")
    show_page(page, "tenants", columns, as_json, "There are no tenants.")


@tenant.command("show")
def show_tenant(tenant_id: TenantId, as_json: JsonFlag = False) -> None:
    """Show a tenant."""
    details = admin("GET", f"/tenants/{part(tenant_id)}")["data"]
    if as_json:
        show_json(details)
    else:
        show_fields(details)


@tenant.command("members")
def members(tenant_id: TenantId, limit: Limit = 50, cursor: After = None, as_json: JsonFlag = False) -> None:
    """List the members of a tenant."""
    query = {"limit": limit, "cursor": cursor}
    page = admin("GET", f"/tenants/{part(tenant_id)}/users", query=query)["data"]
    show_page(page, "users", ("email", "nickname", "role", "user_id"), as_json, "It has no members.")


@tenant.command("add-member")
def add_member(
    tenant_id: TenantId,
    email: Email,
    role: Annotated[str, typer.Option(help="normal, owner, or invite.")] = "normal",
) -> None:
    """Add an account to a tenant."""
    say(admin("POST", f"/tenants/{part(tenant_id)}/users", {"email": email, "role": role})["message"])


@tenant.command("remove-member")
def remove_member(tenant_id: TenantId, email: Email) -> None:
    """Take an account, or an invited address, out of a tenant."""
    say(admin("DELETE", f"/tenants/{part(tenant_id)}/users", {"email": email})["message"])
