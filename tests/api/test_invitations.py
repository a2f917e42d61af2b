"""Inviting to a tenant, accepting, refusing, withdrawing, leaving."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from common.conf.sections import SmtpSection
from common.services import invitations, limits, memberships
from common.services.plane import Plane
from tests.people import Clock, Person, World, new_password

INVITES = ["/v1/tenant/{}/user", "/api/v1/tenants/{}/users"]
AGREES = [("PUT", "/v1/tenant/agree/{}"), ("PATCH", "/api/v1/tenants/{}")]
NEW = "new.one@ragkeeper.test"


@pytest.fixture
def owner(world: World) -> Person:
    return world.person(nickname="Owner")


@pytest.fixture
def guest(world: World) -> Person:
    return world.person(nickname="Guest")


def invite(owner: Person, email: str, tenant_id: str | None = None) -> Any:
    return owner.ask("POST", INVITES[0].format(tenant_id or owner.user_id), {"email": email}).json


def agree(person: Person, tenant_id: str) -> Any:
    return person.ask("PUT", f"/v1/tenant/agree/{tenant_id}").json


def remove(caller: Person, tenant_id: str, user_id: str) -> Any:
    return caller.ask("DELETE", f"/v1/tenant/{tenant_id}/user/{user_id}").json


def members(owner: Person, tenant_id: str | None = None) -> dict[str, str]:
    """E-mail → role, as the owner sees them."""
    listed = owner.ask("GET", f"/v1/tenant/{tenant_id or owner.user_id}/user/list").json["data"]
    return {item["email"]: item["role"] for item in listed}


def roles(person: Person) -> dict[str, str]:
    """Tenant id → role of all but the home tenant."""
    listed = person.ask("GET", "/v1/tenant/list").json["data"]
    return {item["tenant_id"]: item["role"] for item in listed if item["tenant_id"] != person.user_id}


def memberships_of(person: Person) -> list[str]:
    """The tenants that any row says somebody belongs to, whatever it counts for."""
    rows = person.world.plane.database.all("SELECT tenant_id FROM user_tenant WHERE user_id = ?", (person.user_id,))
    return [tenant_id for (tenant_id,) in rows]


def register(world: World, email: str = NEW) -> Person:
    password = new_password()
    answer = world.api.ask("POST", "/v1/user/register", {"nickname": "New", "email": email, "password": password})
    return Person(world, email, password, answer.json["data"]["id"])


@pytest.mark.parametrize("path", INVITES)
def test_inviting_shows_who_was_invited_and_is_pending_on_both_sides(owner: Person, guest: Person, path: str) -> None:
    answer = owner.ask("POST", path.format(owner.user_id), {"email": guest.email.upper()})

    assert answer.json["data"] == {"id": guest.user_id, "avatar": None, "email": guest.email, "nickname": "Guest"}
    assert members(owner) == {guest.email: "invite"}
    assert roles(guest) == {owner.user_id: "invite"}


@pytest.mark.parametrize(("method", "path"), AGREES)
def test_agreeing_makes_a_normal_member_once(owner: Person, guest: Person, method: str, path: str) -> None:
    invite(owner, guest.email)

    assert guest.ask(method, path.format(owner.user_id)).json["data"] is True
    assert guest.world.plane.database.all("SELECT * FROM rk_invitation") == []
    assert members(owner) == {guest.email: "normal"}
    assert guest.ask(method, path.format(owner.user_id)).json["code"] == 102
    assert members(owner) == {guest.email: "normal"}


def test_a_pending_guest_can_not_act_in_the_tenant(owner: Person, guest: Person) -> None:
    invite(owner, guest.email)

    answer = guest.ask("GET", "/v1/user/tenant_info", headers={"X-Tenant": owner.user_id})

    assert answer.json["code"] == 109


@pytest.mark.parametrize(("method", "path"), AGREES)
def test_S17_agreeing_to_ones_own_tenant_leaves_the_owner_an_owner(owner: Person, method: str, path: str) -> None:
    answer = owner.ask(method, path.format(owner.user_id))

    assert answer.json["code"] == 102
    assert owner.ask("GET", "/v1/user/tenant_info").json["data"]["role"] == "owner"
    assert owner.ask("POST", "/v1/system/new_token").json["code"] == 0


def test_nobody_joins_without_an_invitation(owner: Person, guest: Person) -> None:
    assert agree(guest, owner.user_id)["code"] == 102
    assert agree(guest, "no-such-tenant")["code"] == 102
    assert members(owner) == {}


def test_whoever_is_invited_a_member_or_the_owner_is_not_invited_again(owner: Person, guest: Person) -> None:
    invite(owner, guest.email)
    assert invite(owner, guest.email)["code"] == 102
    agree(guest, owner.user_id)
    assert invite(owner, guest.email)["code"] == 102
    assert invite(owner, owner.email)["code"] == 102

    assert members(owner) == {guest.email: "normal"}
    assert [invite(owner, NEW)["code"] for _ in range(2)] == [0, 102]


@pytest.mark.parametrize("body", [{}, {"email": 5}, {"email": "no address"}, {"email": "x" * 10_000}])
def test_what_is_no_address_is_101(owner: Person, body: dict[str, Any]) -> None:
    assert owner.ask("POST", INVITES[0].format(owner.user_id), body).json["code"] == 101


def test_only_an_owner_invites(owner: Person, guest: Person, world: World) -> None:
    invite(owner, guest.email)
    agree(guest, owner.user_id)
    stranger = world.person()

    for caller in (guest, stranger):
        answer = caller.ask("POST", INVITES[1].format(owner.user_id), {"email": NEW})
        assert (answer.status_code, answer.json["code"], answer.json["data"]) == (200, 109, False)
    assert members(owner) == {guest.email: "normal"}


def test_who_stops_being_an_owner_while_asking_invites_nobody(
    world: World, owner: Person, guest: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    world.root.administer("POST", f"/tenants/{org}/users", {"email": guest.email, "role": "owner"})

    def demoted(*_: Any) -> None:
        with world.plane.database.transaction():
            memberships.set_role(world.plane, org, guest.user_id, "normal")

    monkeypatch.setattr(limits, "invitation", demoted)

    assert invite(guest, NEW, org)["code"] == 109
    assert members(owner, org) == {guest.email: "normal"}


def test_registering_with_an_invited_address_and_accepting_joins(world: World, owner: Person) -> None:
    answer = invite(owner, "New.One@ragkeeper.test")
    assert answer["data"]["email"] == "New.One@ragkeeper.test"
    assert members(owner) == {"New.One@ragkeeper.test": "invite"}

    newcomer = register(world)
    assert roles(newcomer) == {owner.user_id: "invite"}
    assert list(members(owner).values()) == ["invite"]
    assert agree(newcomer, owner.user_id)["data"] is True
    assert members(owner) == {NEW: "normal"}


def test_an_account_that_an_administrator_makes_is_invited_too(world: World, owner: Person) -> None:
    invite(owner, NEW)
    password = new_password()

    made = world.root.administer("POST", "/users", {"username": NEW, "password": password}).json["data"]

    assert roles(Person(world, NEW, password, made["id"])) == {owner.user_id: "invite"}


def pass_time(clock: Clock, *people: Person, days: float, seconds: float = 0) -> None:
    """Let so much time pass that everybody has to log in again."""
    clock.forward(days=days, seconds=seconds)
    for person in people:
        person.come_back()


def test_an_invitation_expires_after_seven_days_and_can_then_be_made_anew(
    owner: Person, guest: Person, clock: Clock
) -> None:
    for email in (guest.email, NEW):
        invite(owner, email)
    pass_time(clock, owner, guest, days=7)

    assert (members(owner), roles(guest)) == ({}, {})
    assert agree(guest, owner.user_id)["code"] == 102
    assert [invite(owner, email)["code"] for email in (guest.email, NEW)] == [0, 0]
    assert agree(guest, owner.user_id)["data"] is True


def test_an_invitation_counts_until_the_last_moment(owner: Person, guest: Person, clock: Clock) -> None:
    invite(owner, guest.email)
    pass_time(clock, owner, guest, days=7, seconds=-1)

    assert agree(guest, owner.user_id)["data"] is True


def test_the_seven_days_run_from_the_invitation_and_not_from_registering(
    world: World, owner: Person, clock: Clock
) -> None:
    invite(owner, NEW)
    clock.forward(days=6)
    newcomer = register(world)
    assert roles(newcomer) == {owner.user_id: "invite"}
    pass_time(clock, owner, newcomer, days=1)

    assert roles(newcomer) == {}
    assert agree(newcomer, owner.user_id)["code"] == 102


def test_an_expired_invitation_does_not_greet_whoever_registers(world: World, owner: Person, clock: Clock) -> None:
    invite(owner, NEW)
    pass_time(clock, owner, days=8)

    assert members(owner) == {}
    newcomer = register(world)
    assert roles(newcomer) == {}
    assert memberships_of(newcomer) == [newcomer.user_id]
    assert invite(owner, NEW)["code"] == 0


def test_an_invitation_to_a_tenant_that_is_gone_does_not_greet_whoever_registers(world: World, owner: Person) -> None:
    invite(owner, NEW)
    world.plane.database.run("DELETE FROM tenant WHERE id = ?", (owner.user_id,))

    newcomer = register(world)

    assert memberships_of(newcomer) == [newcomer.user_id]


def test_whoever_registered_in_a_ragflow_finds_the_invitation_here(world: World, owner: Person) -> None:
    invite(owner, NEW)
    # RAGFlow knows nothing of invitations of addresses.
    newcomer = world.person(NEW)
    assert memberships_of(newcomer) == [newcomer.user_id]

    assert agree(newcomer, owner.user_id)["data"] is True
    assert members(owner) == {NEW: "normal"}


@pytest.mark.parametrize("status", ["1", "0"])
def test_a_ragflow_is_shown_the_invitations_of_accounts_that_are_there(
    world: World, owner: Person, status: str
) -> None:
    invite(owner, NEW)
    newcomer = world.person(NEW)
    world.plane.database.run("UPDATE user SET status = ? WHERE id = ?", (status, newcomer.user_id))

    assert [invitations.deliver(world.plane) for _ in range(2)] == [int(status), 0]

    shown = [owner.user_id] if status == "1" else []
    assert sorted(memberships_of(newcomer)) == sorted([newcomer.user_id, *shown])
    # What a RAGFlow has made by itself need not be shown it.
    world.plane.database.run("DELETE FROM rk_membership WHERE user_id = ?", (newcomer.user_id,))
    assert invitations.deliver(world.plane) == 0


def test_an_invitation_that_was_refused_in_a_ragflow_is_not_accepted_here(
    world: World, owner: Person, guest: Person
) -> None:
    invite(owner, guest.email)
    world.plane.database.run("DELETE FROM user_tenant WHERE user_id = ? AND role = 'invite'", (guest.user_id,))

    assert agree(guest, owner.user_id)["code"] == 102
    assert roles(guest) == {}


def test_refusing_ends_the_invitation(owner: Person, guest: Person, world: World) -> None:
    invite(owner, guest.email)

    assert remove(guest, owner.user_id, guest.user_id)["data"] is True
    assert agree(guest, owner.user_id)["code"] == 102
    assert members(owner) == {}
    assert len(world.events("tenant:refuse")) == 1


def test_an_owner_withdraws_invitations_of_accounts_and_of_addresses(
    owner: Person, guest: Person, world: World
) -> None:
    invite(owner, guest.email)
    invitation_id = invite(owner, NEW)["data"]["id"]

    assert remove(owner, owner.user_id, guest.user_id)["data"] is True
    answer = owner.ask("DELETE", INVITES[1].format(owner.user_id), {"user_id": invitation_id})
    assert answer.json["data"] is True
    assert members(owner) == {}
    assert agree(guest, owner.user_id)["code"] == 102
    assert roles(register(world)) == {}
    assert len(world.events("tenant:invite_withdraw")) == 2


def test_a_withdrawn_address_that_has_registered_meanwhile_can_not_join(world: World, owner: Person) -> None:
    invitation_id = invite(owner, NEW)["data"]["id"]
    newcomer = register(world)

    assert remove(owner, owner.user_id, invitation_id)["data"] is True
    assert agree(newcomer, owner.user_id)["code"] == 102


def test_whoever_accepted_in_a_ragflow_stays_a_member_when_the_invitation_ends(
    world: World, owner: Person, clock: Clock
) -> None:
    invitation_id = invite(owner, NEW)["data"]["id"]
    withdrawn, expired = register(world), world.person()
    invite(owner, expired.email)
    world.plane.database.run("UPDATE user_tenant SET role = 'normal' WHERE role = 'invite'")

    assert remove(owner, owner.user_id, invitation_id)["data"] is True
    pass_time(clock, owner, days=7)
    assert invitations.prune(world.plane) == 1

    assert members(owner) == {withdrawn.email: "normal", expired.email: "normal"}


def test_an_address_keeps_the_invitations_of_others(world: World, owner: Person) -> None:
    other = world.person()
    invite(other, NEW)
    invitation_id = invite(owner, NEW)["data"]["id"]

    remove(owner, owner.user_id, invitation_id)

    assert (members(owner), members(other)) == ({}, {NEW: "invite"})


def test_a_stranger_withdraws_nothing(world: World, owner: Person, guest: Person) -> None:
    invitation_id = invite(owner, NEW)["data"]["id"]
    invite(owner, guest.email)
    stranger = world.person()

    for whom in (invitation_id, guest.user_id):
        assert remove(stranger, owner.user_id, whom)["code"] == 109
        assert remove(stranger, stranger.user_id, whom)["data"] is True
    assert len(members(owner)) == 2
    assert world.events("tenant:invite_withdraw") == []


def test_a_member_leaves_and_loses_the_tenant_at_once(owner: Person, guest: Person) -> None:
    invite(owner, guest.email)
    agree(guest, owner.user_id)
    acting = {"X-Tenant": owner.user_id}
    assert guest.ask("GET", "/v1/user/tenant_info", headers=acting).json["data"]["role"] == "normal"

    assert remove(guest, owner.user_id, guest.user_id)["data"] is True
    assert guest.ask("GET", "/v1/user/tenant_info", headers=acting).json["code"] == 109
    assert invite(owner, guest.email)["code"] == 0


def test_a_member_removes_nobody_else(owner: Person, guest: Person, world: World) -> None:
    other = world.person()
    for person in (guest, other):
        invite(owner, person.email)
        agree(person, owner.user_id)

    assert remove(guest, owner.user_id, other.user_id)["code"] == 109
    assert remove(guest, owner.user_id, owner.user_id)["code"] == 109
    assert members(owner) == {guest.email: "normal", other.email: "normal"}


def test_an_owner_removes_a_member_whose_account_a_ragflow_has_deleted(owner: Person, guest: Person) -> None:
    invite(owner, guest.email)
    agree(guest, owner.user_id)
    database = guest.world.plane.database
    database.run("UPDATE user SET status = '0' WHERE id = ?", (guest.user_id,))

    assert remove(owner, owner.user_id, guest.user_id)["data"] is True

    assert memberships_of(guest) == [guest.user_id]
    assert database.all("SELECT 1 FROM rk_membership WHERE tenant_id <> user_id") == []


def test_removing_nobody_is_true(owner: Person) -> None:
    assert remove(owner, owner.user_id, "nobody")["data"] is True


def test_S18_an_owner_can_not_delete_the_own_owner_row(owner: Person) -> None:
    org = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]

    for tenant_id in (owner.user_id, org):
        answer = owner.ask("DELETE", f"/v1/tenant/{tenant_id}/user/{owner.user_id}")
        assert (answer.status_code, answer.json["code"]) == (409, 409)
    assert owner.ask("GET", "/v1/user/tenant_info").json["data"]["role"] == "owner"
    assert roles(owner) == {org: "owner"}


def test_an_owner_does_not_leave_although_there_is_another(world: World, owner: Person, guest: Person) -> None:
    org = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    world.root.administer("POST", f"/tenants/{org}/users", {"email": guest.email, "role": "owner"})

    assert owner.ask("DELETE", f"/v1/tenant/{org}/user/{owner.user_id}").status_code == 409
    # Which MySQL takes for the same.
    owner.ask("DELETE", f"/v1/tenant/{org}/user/{owner.user_id.upper()}")
    assert roles(owner) == {org: "owner"}


def test_no_spelling_of_a_tenant_is_another_one(world: World, owner: Person, guest: Person) -> None:
    """MySQL compares ids without case: what is written under another spelling is not found under the right one."""
    org = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    spelt = org.upper()

    invited = owner.ask("POST", f"/v1/tenant/{spelt}/user", {"email": guest.email})
    added = world.root.administer("POST", f"/tenants/{spelt}/users", {"email": guest.email, "role": "normal"})

    assert (invited.json["code"], added.status_code) == (109, 404)


def test_the_other_owner_of_an_organisation_can_be_removed_and_their_tokens_with_them(
    world: World, owner: Person, guest: Person
) -> None:
    org = owner.ask("POST", "/api/v1/tenants", {"name": "Org"}).json["data"]["tenant_id"]
    world.root.administer("POST", f"/tenants/{org}/users", {"email": guest.email, "role": "owner"})
    token = guest.ask("POST", "/v1/system/new_token", headers={"X-Tenant": org}).json["data"]["token"]

    assert remove(owner, org, guest.user_id)["data"] is True
    world.root.administer("POST", f"/tenants/{org}/users", {"email": guest.email, "role": "owner"})
    assert world.api.ask("GET", "/v1/user/info", credential=token).status_code == 401


def test_the_owner_of_a_home_stays_although_somebody_else_owns_it_too(
    world: World, owner: Person, guest: Person
) -> None:
    world.root.administer("POST", f"/tenants/{owner.user_id}/users", {"email": guest.email, "role": "owner"})

    assert guest.ask("DELETE", f"/v1/tenant/{owner.user_id}/user/{owner.user_id}").status_code == 409
    assert owner.ask("GET", "/v1/user/tenant_info").json["data"]["role"] == "owner"


def test_a_token_of_another_tenant_neither_joins_nor_leaves(world: World, owner: Person, guest: Person) -> None:
    token = guest.ask("POST", "/v1/system/new_token").json["data"]["token"]
    invite(owner, guest.email)

    joined = world.api.ask("PUT", f"/v1/tenant/agree/{owner.user_id}", credential=token)
    left = world.api.ask("DELETE", f"/v1/tenant/{owner.user_id}/user/{guest.user_id}", credential=token)

    assert (joined.json["code"], left.json["code"]) == (109, 109)
    assert members(owner) == {guest.email: "invite"}


def test_R40_without_a_mail_server_no_mail_is_tried_and_the_invitation_stands(
    plane: Plane, owner: Person, guest: Person
) -> None:
    invite(owner, guest.email)

    assert plane.database.one("SELECT COUNT(*) FROM rk_job") == (0,)
    assert roles(guest) == {owner.user_id: "invite"}


def test_an_invitation_that_ragflow_wrote_can_be_accepted(plane: Plane, owner: Person, guest: Person) -> None:
    plane.database.run(
        "INSERT INTO user_tenant (id, user_id, tenant_id, role, invited_by, status, create_time) "
        "VALUES ('theirs', ?, ?, 'invite', ?, '1', ?)",
        (guest.user_id, owner.user_id, owner.user_id, plane.now_ms()),
    )

    assert invite(owner, guest.email)["code"] == 102
    assert agree(guest, owner.user_id)["data"] is True


def test_pruning_takes_what_has_expired_and_nothing_else(
    plane: Plane, owner: Person, guest: Person, world: World, clock: Clock
) -> None:
    invite(owner, guest.email)
    invite(owner, "never@ragkeeper.test")
    pass_time(clock, owner, days=7)
    late = world.person()
    invite(owner, late.email)

    assert invitations.prune(plane) == 2
    assert members(owner) == {late.email: "invite"}
    assert plane.database.one("SELECT COUNT(*) FROM rk_invitation") == (1,)
    assert plane.database.one("SELECT COUNT(*) FROM user_tenant WHERE user_id = ?", (guest.user_id,)) == (1,)


@pytest.mark.parametrize(
    ("change", "becomes"),
    [("UPDATE user_tenant SET role = 'normal' WHERE id = ?", "normal"),
     ("UPDATE user_tenant SET create_time = create_time + 604800000 WHERE id = ?", "invite")],
    ids=["accepted", "made anew"],
)  # fmt: skip
def test_what_ragflow_makes_of_an_expired_invitation_while_that_is_pruned_stays(
    plane: Plane, owner: Person, guest: Person, clock: Clock, monkeypatch: pytest.MonkeyPatch, change: str, becomes: str
) -> None:
    invite(owner, guest.email)
    pass_time(clock, owner, days=7)
    [(row_id,)] = plane.database.all("SELECT id FROM user_tenant WHERE role = 'invite'")
    role_in, changed = memberships.role_in, []

    def slow(*values: Any) -> str | None:
        role = role_in(*values)
        if not changed:
            changed.append(plane.database.run(change, (row_id,)))
        return role

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(memberships, "role_in", slow)
        assert invitations.prune(plane) == 1

    assert members(owner) == {guest.email: becomes}
    assert plane.database.one("SELECT 1 FROM rk_membership WHERE membership_id = ?", (row_id,))


@pytest.fixture
def mailing(world: World) -> World:
    """The same world with a mail server configured."""
    server = SmtpSection(mail_server="mail.test", mail_default_sender=("Plane", "plane@ragkeeper.test"))
    plane = replace(world.plane, settings=world.plane.settings.model_copy(update={"smtp": server}))
    return World(plane)


def test_with_a_mail_server_an_invitation_leaves_a_job_that_names_it_and_a_refused_one_none(mailing: World) -> None:
    owner, guest = mailing.person(), mailing.person()
    invite(owner, guest.email)
    invite(owner, guest.email)

    jobs = mailing.plane.database.all("SELECT kind, payload FROM rk_job")
    invited = mailing.plane.database.all("SELECT id FROM rk_invitation")
    assert [(kind, json.loads(payload)["invitation_id"]) for kind, payload in jobs] == [
        ("mail.invitation", invitation_id) for (invitation_id,) in invited
    ]
    assert len(jobs) == 1
