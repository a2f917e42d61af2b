"""Two requests at once, by real threads, about who belongs to a tenant."""

from __future__ import annotations

import json

import pytest

from tests.people import Person, World, new_password
from tests.side_by_side import Act, at_once

pytestmark = pytest.mark.race

ROUNDS = 4


@pytest.fixture
def owner(world: World) -> Person:
    return world.person()


def organisation(world: World, *owners: Person) -> str:
    """A tenant that all of these own."""
    tenant_id = owners[0].ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    for other in owners[1:]:
        added = world.root.administer("POST", f"/tenants/{tenant_id}/users", {"email": other.email, "role": "owner"})
        assert added.status_code == 200
    return str(tenant_id)


def invite(owner: Person, email: str) -> Act:
    return lambda: owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": email})


def rows(world: World, tenant_id: str, role: str) -> int:
    row = world.plane.database.one(
        "SELECT COUNT(*) FROM user_tenant WHERE tenant_id = ? AND role = ?", (tenant_id, role)
    )
    assert row
    return int(row[0])


def test_R26_two_invitations_at_once_make_one_row(world: World, owner: Person) -> None:
    assert owner.session
    for number in range(1, ROUNDS + 1):
        guest = world.person()

        assert at_once(world, *[invite(owner, guest.email)] * 2) == [200, 200]
        assert rows(world, owner.user_id, "invite") == number
    assert world.plane.database.one("SELECT COUNT(*) FROM rk_invitation") == (ROUNDS,)
    assert len(world.events("tenant:invite")) == ROUNDS


def test_R26_two_invitations_at_once_of_an_address_that_nobody_has_make_one(world: World, owner: Person) -> None:
    assert owner.session
    for number in range(1, ROUNDS + 1):
        at_once(world, *[invite(owner, f"new{number}@ragkeeper.test")] * 2)

        assert world.plane.database.one("SELECT COUNT(*) FROM rk_invitation") == (number,)


def test_two_owners_who_remove_each_other_never_go_both(world: World, owner: Person) -> None:
    other = world.person()
    for _ in range(ROUNDS):
        org = organisation(world, owner, other)
        first = f"/v1/tenant/{org}/user/{other.user_id}"
        second = f"/v1/tenant/{org}/user/{owner.user_id}"
        assert other.session

        at_once(world, lambda path=first: owner.ask("DELETE", path), lambda path=second: other.ask("DELETE", path))  # type: ignore[misc]

        assert rows(world, org, "owner") == 1


def test_two_administrators_who_demote_the_last_two_owners_leave_one(world: World, root: Person, owner: Person) -> None:
    other = world.person()
    for _ in range(ROUNDS):
        org = organisation(world, owner, other)
        bodies = [{"email": person.email, "role": "normal"} for person in (owner, other)]

        statuses = at_once(
            world,
            *[lambda body=body, org=org: root.administer("PUT", f"/tenants/{org}/users", body) for body in bodies],  # type: ignore[misc]
        )

        assert sorted(statuses) == [200, 409]
        assert rows(world, org, "owner") == 1


def test_an_account_that_goes_while_its_fellow_owner_is_removed_leaves_no_tenant_to_nobody(
    world: World, root: Person, owner: Person
) -> None:
    # Of one administrator the second request waits for the first.
    another = world.person(is_superuser=True)
    assert another.admin_session
    for _ in range(ROUNDS):
        other = world.person()
        org = organisation(world, other, owner)
        root.administer("PUT", f"/users/{other.email}/activate", {"activate_status": "off"})

        deleted, _ = at_once(
            world,
            lambda other=other: root.administer("DELETE", f"/users/{other.email}"),  # type: ignore[misc]
            lambda org=org: another.administer("DELETE", f"/tenants/{org}/users", {"email": owner.email}),  # type: ignore[misc]
        )

        assert deleted == 200
        went_too = org in json.loads(world.events("user:delete")[-1][4])["tenants"]
        assert rows(world, org, "owner") == (0 if went_too else 1)


def test_an_invitation_is_accepted_or_withdrawn_but_not_both(world: World, owner: Person) -> None:
    for _ in range(ROUNDS):
        guest = world.person()
        assert guest.session
        invite(owner, guest.email)()
        agree, withdraw = f"/v1/tenant/agree/{owner.user_id}", f"/v1/tenant/{owner.user_id}/user/{guest.user_id}"

        at_once(
            world,
            lambda guest=guest, path=agree: guest.ask("PUT", path),  # type: ignore[misc]
            lambda path=withdraw: owner.ask("DELETE", path),  # type: ignore[misc]
        )

        # Whichever came first, the owner's removal stands: nobody is in the team after it.
        assert rows(world, owner.user_id, "normal") == 0
        assert rows(world, owner.user_id, "invite") == 0


def test_whoever_registers_while_being_invited_finds_the_invitation(world: World, owner: Person) -> None:
    assert owner.session
    for number in range(ROUNDS):
        email, password = f"new{number}@ragkeeper.test", new_password()
        body = {"nickname": "New", "email": email, "password": password}

        at_once(
            world,
            invite(owner, email),
            lambda body=body: world.api.ask("POST", "/v1/user/register", body),  # type: ignore[misc]
        )

        newcomer = Person(world, email, password, "")
        assert newcomer.ask("PUT", f"/v1/tenant/agree/{owner.user_id}").json["data"] is True
    assert rows(world, owner.user_id, "normal") == ROUNDS
