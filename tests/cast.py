"""Everybody who might call a route: one credential for each kind of principal, on both servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from common.models.role import RoleHolder
from common.services import accounts
from tests.people import Person, World

# Whose credential is dead or absent: whatever they ask for that is not public is 401.
OUTSIDERS = ("anonymous", "garbage", "expired", "idle", "ended", "deactivated", "deleted")
BUILT_IN = ("user-manager", "service-operator", "auditor", "viewer", "member-role")
INSIDERS = ("pending", "stranger", "member", "owner", "other-owner", *BUILT_IN, "superuser")
EVERYBODY = (*OUTSIDERS, *INSIDERS)


@dataclass
class Cast:
    """The people of one world, around one tenant (``tenant_id``) and one ordinary account (``victim``)."""

    world: World
    credentials: dict[str, str | None]
    tenant_id: str
    victim: Person
    member: Person
    pending: Person


def assemble(world: World) -> Cast:
    """Make everybody and log them in; the tenant is an organisation of its own, not anybody's home."""
    people = {name: world.person() for name in (*OUTSIDERS[2:], *INSIDERS[:5], *BUILT_IN)}
    people["superuser"] = world.root
    credentials: dict[str, str | None] = {name: person.session for name, person in people.items()}
    credentials |= {"anonymous": None, "garbage": "no such thing"}
    tenant_id, other_id = uuid4().hex, uuid4().hex
    plane, database = world.plane, world.plane.database
    with database.transaction():
        for tenant, owner in ((tenant_id, "owner"), (other_id, "other-owner")):
            accounts.make_tenant(plane, tenant_id=tenant, owner_id=people[owner].user_id, name="An organisation")
        for name, role in (("member", "normal"), ("pending", "invite")):
            accounts.add_membership(
                plane, tenant_id=tenant_id, user_id=people[name].user_id, role=role,
                invited_by=people["owner"].user_id,
            )  # fmt: skip
        for name in BUILT_IN:
            _give(world, people[name], name.removesuffix("-role"))
        database.run("UPDATE rk_session SET expires_at = 0 WHERE user_id = ?", (people["expired"].user_id,))
        database.run("UPDATE rk_session SET last_seen_at = 0 WHERE user_id = ?", (people["idle"].user_id,))
        database.run("UPDATE rk_session SET ended_at = 1 WHERE user_id = ?", (people["ended"].user_id,))
        database.run("UPDATE user SET is_active = '0' WHERE id = ?", (people["deactivated"].user_id,))
        for table, column in (("user", "id"), ("rk_account", "user_id")):
            database.run(f"DELETE FROM {table} WHERE {column} = ?", (people["deleted"].user_id,))
    return Cast(world, credentials, tenant_id, world.person(), people["member"], people["pending"])


def _give(world: World, person: Person, role: str) -> None:
    row = world.plane.database.one("SELECT id FROM rk_role WHERE name = ?", (role,))
    assert row
    world.plane.database.insert(RoleHolder, user_id=person.user_id, role_id=row[0], granted_at=0)


def snapshot(world: World) -> dict[str, list[Any]]:
    """Everything that is stored, but for the trail of refusals."""
    database = world.plane.database
    tables = sorted(name for name in database.tables() if not name.startswith(("rk_audit_", "sqlite_")))
    return {table: database.all(f"SELECT * FROM `{table}`") for table in tables}
