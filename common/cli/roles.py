"""``ragkeeper role …``, ``permission …`` and ``service …``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from common.cli.client import admin, part
from common.cli.console import JsonFlag, fail, say, show_fields, show_json, show_rows
from common.cli.users import Email

role = typer.Typer(no_args_is_help=True, help="Roles: what they grant and inherit, and who holds them.")
permission = typer.Typer(no_args_is_help=True, help="What an account may do, and why.")
service = typer.Typer(no_args_is_help=True, help="The services of the platform and how they are.")

Name = Annotated[str, typer.Argument(help="The role's name.")]
Resource = Annotated[str, typer.Argument(help="Such as dataset, chat, user, service.")]
Actions = Annotated[list[str], typer.Argument(help="Such as read write share.")]
DryRunFlag = Annotated[
    bool, typer.Option("--dry-run", help="Show which roles and accounts would gain and lose what; change nothing.")
]
Names = Annotated[list[str], typer.Argument(help="Names of roles.")]
Parents = Annotated[list[str] | None, typer.Option("--parent", help="A role to inherit from; may be repeated.")]


@role.command("list")
def list_roles(as_json: JsonFlag = False) -> None:
    """List roles."""
    rows = admin("GET", "/roles")["data"]["roles"]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, ("role_name", "parents", "builtin", "description"), "There are no roles.")


@role.command("show")
def show_role(name: Name, as_json: JsonFlag = False) -> None:
    """Show a role: what it inherits from, what inherits from it, the first of those who hold it, and what it holds."""
    details = admin("GET", f"/roles/{part(name)}")["data"]
    held = admin("GET", f"/roles/{part(name)}/permission")["data"]
    if as_json:
        show_json({**details, "held": held})
        return
    shown = {key: details[key] for key in ("name", "description", "builtin", "parents", "children")}
    holders = [each["email"] for each in details["holders"]] + (["…"] if details["next_cursor"] else [])
    show_fields({**shown, "holders": holders})
    say("")
    show_rows(held, ("resource", "action", "source"), "It holds nothing.")


@role.command("create")
def create_role(
    name: Name,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    parents: Parents = None,
) -> None:
    """Create a role."""
    admin("POST", "/roles", {"role_name": name, "description": description, "parents": parents or []})
    say(f"Created role {name}.")


@role.command("update")
def update_role(
    name: Name,
    description: Annotated[str | None, typer.Option(help="A new description.")] = None,
    parents: Parents = None,
    no_parents: Annotated[bool, typer.Option("--no-parents", help="Inherit from nothing any more.")] = False,
    dry_run: DryRunFlag = False,
) -> None:
    """Change a role's description, or what it inherits from; what is not given stays."""
    body: dict[str, object] = {}
    if description is not None:
        body["description"] = description
    if parents or no_parents:
        body["parents"] = [] if no_parents else parents
    _told(admin("PUT", f"/roles/{part(name)}", body, _query(dry_run)), dry_run, f"Changed role {name}.")


@role.command("parents")
def change_parents(
    name: Name,
    add: Annotated[list[str] | None, typer.Option("--add", help="A role to inherit from; may be repeated.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="A role to inherit from no more; may be repeated.")
    ] = None,
    dry_run: DryRunFlag = False,
) -> None:
    """Let a role inherit from further roles, or from some no more; without options, show what it inherits from."""
    if add and remove:
        fail("give either --add or --remove; `role update --parent` sets all parents at once.")
    if not add and not remove:
        for parent in admin("GET", f"/roles/{part(name)}")["data"]["parents"]:
            say(parent)
        return
    method, parents = ("POST", add) if add else ("DELETE", remove)
    answer = admin(method, f"/roles/{part(name)}/parents", {"parents": parents}, _query(dry_run))
    _told(answer, dry_run, f"Changed role {name}.")


@role.command("delete")
def delete_role(
    name: Name,
    reassign_to: Annotated[
        str | None, typer.Option("--reassign-to", help="The role that whoever holds or inherits it gets instead.")
    ] = None,
    dry_run: DryRunFlag = False,
) -> None:
    """Delete a role; one that is held or inherited goes only with --reassign-to."""
    answer = admin("DELETE", f"/roles/{part(name)}", query={**_query(dry_run), "reassign_to": reassign_to})
    _told(answer, dry_run, f"Deleted role {name}.")


@role.command("grant")
def grant(name: Name, resource: Resource, actions: Actions, dry_run: DryRunFlag = False) -> None:
    """Grant a role actions on a resource."""
    body = {"resource": resource, "actions": actions}
    answer = admin("POST", f"/roles/{part(name)}/permission", body, _query(dry_run))
    _told(answer, dry_run, f"Granted {', '.join(actions)} on {resource} to {name}.")


@role.command("revoke")
def revoke(name: Name, resource: Resource, actions: Actions, dry_run: DryRunFlag = False) -> None:
    """Take actions on a resource away from a role."""
    body = {"resource": resource, "actions": actions}
    answer = admin("DELETE", f"/roles/{part(name)}/permission", body, _query(dry_run))
    _told(answer, dry_run, f"Revoked {', '.join(actions)} on {resource} from {name}.")


@role.command("assign")
def assign(email: Email, name: Name, dry_run: DryRunFlag = False) -> None:
    """Give an account this role in place of all it has."""
    answer = admin("PUT", f"/users/{part(email)}/role", {"role_name": name}, _query(dry_run))
    _told(answer, dry_run, f"{email} now has the role {name}.")


@role.command("add")
def add_roles(email: Email, names: Names, dry_run: DryRunFlag = False) -> None:
    """Give an account further roles, beside those that it has."""
    answer = admin("POST", f"/users/{part(email)}/roles", {"roles": names}, _query(dry_run))
    _told(answer, dry_run, f"{email} now has the roles {_listed(answer)}.")


@role.command("remove")
def remove_roles(email: Email, names: Names, dry_run: DryRunFlag = False) -> None:
    """Take roles from an account; one without any is a member."""
    answer = admin("DELETE", f"/users/{part(email)}/roles", {"roles": names}, _query(dry_run))
    _told(answer, dry_run, f"{email} now has the roles {_listed(answer)}.")


def _listed(answer: dict[str, Any]) -> str:
    return ", ".join(map(str, answer["data"]["roles"]))


def _query(dry_run: bool) -> dict[str, Any]:
    return {"dry_run": "true"} if dry_run else {}


def _told(answer: dict[str, Any], dry_run: bool, done: str) -> None:
    """What was done; or what would be, and how many accounts that reaches."""
    if not dry_run:
        say(done)
        return
    effects = answer["data"]
    rows = [{"what": "role", "name": each["role_name"], **each} for each in effects["roles"]]
    rows += [{"what": "account", "name": each["email"], **each} for each in effects["users"]]
    show_rows(rows, ("what", "name", "gains", "loses"), "Nobody would gain or lose anything.")
    if not effects["complete"]:
        say(f"… in all {effects['role_count']} roles, and {effects['user_count']} accounts that hold one of them.")


@role.command("permissions")
def permissions(
    email: Annotated[
        str | None, typer.Argument(help="An account's e-mail; without it, all that can be granted.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what an account may do and which role each permission comes from, or what can be granted at all."""
    if email is None:
        _show_registry(as_json)
        return
    rows = admin("GET", f"/users/{part(email)}/permission")["data"]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, ("resource", "action", "source"), "It may do nothing.")


@permission.command("explain")
def explain(
    email: Email,
    resource: Resource,
    action: Annotated[str, typer.Argument(help="Such as read or write.")],
    as_json: JsonFlag = False,
) -> None:
    """Say whether an account may do something, and by which of its roles, or why not.

    Exits with 0 where it may and 1 where it may not; with 2 where that can't be told, as there is no such account,
    resource or action, no login, or no server.
    """
    try:
        found = _explanation(email, resource, action)
    except typer.Exit as failed:
        raise typer.Exit(2) from failed
    if as_json:
        show_json(found)
    else:
        say(f"{email} {'may' if found['allowed'] else 'may not'} {found['action']} {found['resource']}.")
        say(found["reason"])
        for path in found["paths"]:
            say(" → ".join(path))
    if not found["allowed"]:
        raise typer.Exit(1)


def _explanation(email: str, resource: str, action: str) -> dict[str, Any]:
    query = {"explain": "true", "resource": resource, "action": action}
    found: list[dict[str, Any]] = admin("GET", f"/users/{part(email)}/permissions", query=query)["data"]["explanation"]
    return found[0]


def _show_registry(as_json: bool) -> None:
    known = admin("GET", "/roles/resource")["data"]
    if as_json:
        show_json(known)
        return
    rows = [{"resource": name, "actions": known["actions"][name]} for name in known["resource_types"]]
    show_rows(rows, ("resource", "actions"), "Nothing can be granted.")


@service.command("list")
def list_services(as_json: JsonFlag = False) -> None:
    """List services with their status."""
    rows = admin("GET", "/services")["data"]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, ("id", "name", "service_type", "host", "port", "status"), "There are no services.")


@service.command("show")
def show_service(number: Annotated[int, typer.Argument(help="Its id.")], as_json: JsonFlag = False) -> None:
    """Show one service in detail."""
    details = admin("GET", f"/services/{number}")["data"]
    if as_json:
        show_json(details)
    else:
        show_fields(details)
