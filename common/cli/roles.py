"""``ragkeeper role …`` and ``service …``."""

from __future__ import annotations

from typing import Annotated

import typer

from common.cli.client import admin, part
from common.cli.console import say, show_fields, show_json, show_rows
from common.cli.offline import JsonFlag
from common.cli.users import Email

role = typer.Typer(no_args_is_help=True, help="Roles: what they grant and inherit, and who holds them.")
service = typer.Typer(no_args_is_help=True, help="The services of the platform and how they are.")

Name = Annotated[str, typer.Argument(help="The role's name.")]
Resource = Annotated[str, typer.Argument(help="Such as dataset, chat, user, service.")]
Actions = Annotated[list[str], typer.Argument(help="Such as read write share.")]
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
    """Show what a role holds, and which role each permission comes from."""
    rows = admin("GET", f"/roles/{part(name)}/permission")["data"]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, ("resource", "action", "source"), "It holds nothing.")


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
) -> None:
    """Change a role's description, or what it inherits from; what is not given stays."""
    body: dict[str, object] = {}
    if description is not None:
        body["description"] = description
    if parents or no_parents:
        body["parents"] = [] if no_parents else parents
    admin("PUT", f"/roles/{part(name)}", body)
    say(f"Changed role {name}.")


@role.command("delete")
def delete_role(name: Name) -> None:
    """Delete a role that nobody holds or inherits from."""
    admin("DELETE", f"/roles/{part(name)}")
    say(f"Deleted role {name}.")


@role.command("grant")
def grant(name: Name, resource: Resource, actions: Actions) -> None:
    """Grant a role actions on a resource."""
    admin("POST", f"/roles/{part(name)}/permission", {"resource": resource, "actions": actions})
    say(f"Granted {', '.join(actions)} on {resource} to {name}.")


@role.command("revoke")
def revoke(name: Name, resource: Resource, actions: Actions) -> None:
    """Take actions on a resource away from a role."""
    admin("DELETE", f"/roles/{part(name)}/permission", {"resource": resource, "actions": actions})
    say(f"Revoked {', '.join(actions)} on {resource} from {name}.")


@role.command("assign")
def assign(email: Email, name: Name) -> None:
    """Give an account this role in place of all it has."""
    admin("PUT", f"/users/{part(email)}/role", {"role_name": name})
    say(f"{email} now has the role {name}.")


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
