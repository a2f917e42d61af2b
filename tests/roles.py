"""Roles made and given behind the servers' back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.services import roles
from common.services.plane import Plane
from common.services.principal import system
from tests.people import Person, World

SHELL = system("test")


def make_role(
    world: World, name: str, tree: Mapping[str, Sequence[str]] | None = None, parents: Sequence[str] = ()
) -> None:
    """A role with these grants (``{resource: [action]}``) and parents."""
    roles.create_role(world.plane, SHELL, role_name=name, parents=parents)
    for resource, actions in (tree or {}).items():
        body = {"resource": resource, "actions": list(actions)}
        roles.grant_role_permission(world.plane, SHELL, name, body)


def give_role(world: World, person: Person, role: str) -> None:
    """Let a person hold this role instead of any other."""
    roles.update_user_role(world.plane, SHELL, person.email, role)


def permissions_of(world: World, person: Person) -> set[tuple[str, str]]:
    """What a person may, as (resource, action)."""
    rows = roles.get_user_permission(world.plane, person.email)
    return {(row["resource"], row["action"]) for row in rows}


def forget_roles(plane: Plane) -> None:
    """Back to the built-in roles, held by nobody."""
    with plane.database.transaction():
        for table, where in (
            ("rk_user_role", "1 = 1"),
            ("rk_role_parent", "1 = 1"),
            ("rk_role_grant", "1 = 1"),
            ("rk_role", "NOT builtin"),
        ):
            plane.database.run(f"DELETE FROM {table} WHERE {where}")
        plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'role_version'")
