"""Nobody gives more than they hold or acts on someone who holds more: every way that roles offer is tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from common.core.errors import GivesMoreThanHeld, NotSignedIn, PermissionMissing
from common.core.permissions import BUILT_IN_ROLES
from common.http.access import BEFORE_THE_ANSWER
from common.services import assignments, passwords, roles, sessions, tenants
from common.services.principal import Origin, Principal
from tests.people import Person, World, new_password
from tests.roles import SHELL, forget_roles, give_role, make_role, permissions_of

ROLE_TABLES = ("rk_role", "rk_role_parent", "rk_role_grant", "rk_user_role", "rk_state")


def holder(world: World, role: str) -> Person:
    """Someone new who holds this role."""
    person = world.person()
    give_role(world, person, role)
    return person


def stored(world: World) -> dict[str, Any]:
    """Everything that decides who may what."""
    database = world.plane.database
    kept: dict[str, Any] = {name: sorted(database.all(f"SELECT * FROM {name}")) for name in ROLE_TABLES}
    kept["superusers"] = sorted(database.all("SELECT id FROM user WHERE is_superuser"))
    return kept


def assign(actor: Person, target: Person, role: str) -> TestResponse:
    return actor.administer("PUT", f"/users/{target.email}/role", {"role_name": role})


@pytest.mark.parametrize("name", ["user-manager", "service-operator", "auditor", "viewer"])
def test_no_built_in_role_lets_its_holder_gain_anything(world: World, name: str) -> None:
    actor, ally, superuser = holder(world, name), world.person(), world.person(is_superuser=True)
    make_role(world, "lure", {"audit": ["export"], "langfuse": ["delete"]})
    make_role(world, "own", {}, parents=(name,))
    chief = holder(world, "lure")
    held, before = permissions_of(world, actor), stored(world)
    everything = {"new_permissions": {"user": {"delete": True}, "role": {"write": True}}}

    attempts = [
        actor.administer("POST", "/roles", {"role_name": "mine", "parents": ["superuser"]}),
        actor.administer("POST", "/roles", {"role_name": "mine"}),
        actor.administer("PUT", "/roles/own", {"parents": ["superuser"]}),
        actor.administer("PUT", "/roles/own", {"description": "mine"}),
        actor.administer("POST", "/roles/own/permission", everything),
        actor.administer("DELETE", "/roles/lure/permission", {"resource": "audit", "actions": ["export"]}),
        actor.administer("DELETE", "/roles/lure"),
        actor.administer("DELETE", "/roles/lure?reassign_to=own"),
        actor.administer("POST", "/roles/own/parents", {"parents": ["superuser"]}),
        actor.administer("DELETE", "/roles/own/parents", {"parents": [name]}),
        actor.administer("DELETE", f"/users/{superuser.email}/roles", {"roles": ["superuser"]}),
        actor.administer("POST", "/users", {"username": "x@y.test", "password": new_password(), "role": "admin"}),
        *(
            actor.administer("POST", f"/users/{target.email}/roles", {"roles": ["member", role]})
            for target in (actor, ally)
            for role in ("superuser", "lure")
        ),
        *(assign(actor, target, role) for target in (actor, ally) for role in ("superuser", "lure")),
        assign(actor, superuser, "member"),
        assign(actor, chief, "member"),
        actor.administer("PUT", f"/users/{ally.email}/admin"),
        actor.administer("DELETE", f"/users/{superuser.email}/admin"),
        actor.administer("PUT", f"/users/{chief.email}/activate", {"activate_status": "off"}),
        actor.administer("PUT", f"/users/{superuser.email}/password", {"new_password": "a long new password"}),
    ]

    assert {attempt.status_code for attempt in attempts} == {403}
    assert stored(world) == before
    assert permissions_of(world, actor) == held


def test_what_a_use_case_refuses_stands_in_the_audit_trail_too(world: World) -> None:
    manager, other = holder(world, "user-manager"), world.person()

    assert assign(manager, other, "superuser").status_code == 403

    result, actor, target, _, after = world.events("access:refused")[-1]
    assert (result, actor, target) == ("refused", manager.email, other.email)
    assert "hold" in after
    assert "PUT /api/v1/admin/users/<email>/role" in after


def test_a_refused_read_leaves_its_record_to_whoever_can_wait_for_writers(world: World) -> None:
    manager = holder(world, "user-manager")
    left: list[Callable[[], None]] = []

    refused = manager.administer("GET", "/services", environ_overrides={BEFORE_THE_ANSWER: left})

    assert (refused.status_code, world.events("access:refused")) == (403, [])
    for record in left:
        record()
    assert [event[1] for event in world.events("access:refused")] == [manager.email]


def test_the_assignable_roles_of_a_user_manager_hold_no_more_than_theirs(world: World) -> None:
    manager = holder(world, "user-manager")

    given = {name for name in BUILT_IN_ROLES if assign(manager, world.person(), name).status_code == 200}

    assert given == {"member", "user-manager"}


def test_a_superuser_may_everything_that_others_may_not(world: World, root: Person) -> None:
    chief = holder(world, "auditor")

    assert assign(root, chief, "superuser").status_code == 200
    assert assign(root, chief, "viewer").status_code == 200
    assert root.administer("POST", "/roles", {"role_name": "all", "parents": ["superuser"]}).status_code == 200


def test_whoever_may_edit_roles_gives_on_only_what_they_hold(world: World) -> None:
    make_role(world, "keeper", {"role": ["read", "create", "write", "delete", "assign"], "audit": ["read"]})
    make_role(world, "team", {"audit": ["read"]})
    make_role(world, "above", {"job": ["write"]}, parents=("team",))
    keeper = holder(world, "keeper")

    def status(method: str, path: str, body: Any) -> int:
        return keeper.administer(method, path, body).status_code

    audit, job = {"resource": "audit", "actions": ["read"]}, {"resource": "job", "actions": ["read"]}
    assert status("POST", "/roles", {"role_name": "mine", "parents": ["keeper"]}) == 200
    assert status("POST", "/roles/mine/permission", audit) == 200
    before = stored(world)

    assert status("POST", "/roles/mine/permission", job) == 403
    assert status("POST", "/roles/keeper/permission", job) == 403
    assert status("PUT", "/roles/mine", {"parents": ["viewer"]}) == 403
    assert status("PUT", "/roles/keeper", {"parents": ["above"]}) == 403
    assert status("POST", "/roles", {"role_name": "more", "parents": ["team", "above"]}) == 403
    # What holds more is not theirs to weaken either, nor to change through what it inherits.
    assert status("PUT", "/roles/above", {"parents": []}) == 403
    assert status("PUT", "/roles/above", {"description": "x"}) == 403
    assert status("DELETE", "/roles/above", None) == 403
    assert status("DELETE", "/roles/above/permission", {"resource": "job", "actions": ["write"]}) == 403
    assert status("DELETE", "/roles/team/permission", audit) == 403
    assert status("POST", "/roles/team/permission", {"resource": "role", "actions": ["read"]}) == 403
    assert status("PUT", "/roles/team", {"parents": ["mine"]}) == 403
    assert stored(world) == before


def test_the_refusal_names_what_is_lacking(world: World) -> None:
    manager = holder(world, "user-manager")

    answer = assign(manager, world.person(), "auditor")

    assert answer.status_code == 403
    assert "audit:export, audit:read" in answer.json["message"]


def test_all_permissions_do_not_make_a_superuser(world: World) -> None:
    make_role(world, "everything", {}, parents=("superuser",))
    actor, superuser, ally = holder(world, "everything"), world.person(is_superuser=True), world.person()

    assert assign(actor, ally, "superuser").status_code == 403
    assert assign(actor, actor, "superuser").status_code == 403
    assert assign(actor, superuser, "member").status_code == 403
    assert assign(actor, ally, "everything").status_code == 200


def test_a_right_lost_since_the_request_began_counts_no_more(world: World) -> None:
    make_role(world, "keeper", {"role": ["write"], "audit": ["read"]})
    make_role(world, "mine", {})
    keeper = holder(world, "keeper")
    admitted = _principal(world, keeper)
    give_role(world, keeper, "member")
    before = stored(world)

    with pytest.raises(GivesMoreThanHeld):
        roles.grant_role_permission(world.plane, admitted, "mine", {"resource": "audit", "actions": ["read"]})
    with world.plane.database.transaction():
        world.plane.database.run("UPDATE user SET is_active = '0' WHERE id = ?", (keeper.user_id,))
    with pytest.raises(NotSignedIn):
        roles.delete_role(world.plane, admitted, "mine")
    assert stored(world) == before


def _principal(world: World, person: Person) -> Principal:
    return sessions.authenticate(world.plane, person.session, "user", Origin())


NAMES = ("r0", "r1", "r2", "r3")
PAIRS = ("role:write", "role:create", "role:delete", "role:assign", "audit:export", "dataset:read")

names = st.sampled_from(NAMES)
graphs = st.fixed_dictionaries(
    {name: st.tuples(st.sets(st.sampled_from(PAIRS)), st.sets(st.sampled_from(NAMES[:at]) if at else st.nothing()))
     for at, name in enumerate(NAMES)}
)  # fmt: skip
# For each of three people the role they hold; the first one of them acts.
holdings = st.tuples(names, names, names)
acts = st.lists(
    st.one_of(
        st.tuples(st.just("parents"), names, st.sets(names)),
        st.tuples(st.just("grant"), names, st.sampled_from(PAIRS)),
        st.tuples(st.just("revoke"), names, st.sampled_from(PAIRS)),
        st.tuples(st.just("assign"), names, st.integers(0, 2)),
        st.tuples(st.just("create"), st.just("r4"), st.sets(names)),
        st.tuples(st.just("delete"), names, st.none()),
    ),
    min_size=5,
    max_size=15,
)


def test_no_sequence_of_acts_gains_more_than_the_actor_held_or_touches_a_superior(world: World) -> None:
    people = [world.person() for _ in range(3)]
    holder(world, "superuser")
    log_in(world, people)

    @given(graphs, holdings, acts)
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def walk(graph: dict[str, Any], held: tuple[str, ...], history: list[tuple[str, str, Any]]) -> None:
        forget_roles(world.plane)
        for name in NAMES:
            pairs, parents = graph[name]
            tree: dict[str, list[str]] = {}
            for resource, action in (pair.split(":") for pair in pairs):
                tree.setdefault(resource, []).append(action)
            make_role(world, name, tree, sorted(parents))
        for person, name in zip(people, held, strict=True):
            give_role(world, person, name)
        before = [permissions_of(world, person) for person in people]
        for act in history:
            attempt(people, *act)
        after = [permissions_of(world, person) for person in people]

        assert after[0] <= before[0]
        for had, has in zip(before[1:], after[1:], strict=True):
            assert has <= had | before[0]
            superior = {pair for pair in had if pair[0] != "dataset"} - before[0]
            assert not superior or has == had

    walk()


def attempt(people: list[Person], act: str, name: str, what: Any) -> None:
    """One act of the first of these people, which may be refused but never fails."""
    actor = people[0]
    if act in ("grant", "revoke"):
        resource, _, action = what.partition(":")
        method = "POST" if act == "grant" else "DELETE"
        body = {"resource": resource, "actions": [action]}
        answer = actor.administer(method, f"/roles/{name}/permission", body)
    elif act == "parents":
        answer = actor.administer("PUT", f"/roles/{name}", {"parents": sorted(what)})
    elif act == "assign":
        answer = assign(actor, people[what], name)
    elif act == "create":
        answer = actor.administer("POST", "/roles", {"role_name": name, "parents": sorted(what)})
    else:
        answer = actor.administer("DELETE", f"/roles/{name}")
    assert answer.status_code in (200, 400, 403, 404, 409)


def log_in(world: World, people: list[Person]) -> None:
    """Open the sessions while everybody may; what one may afterwards is read on each request."""
    for person in people:
        give_role(world, person, "viewer")
        assert person.admin_session


def ends(world: World, actor: Person, way: str) -> None:
    """What another superuser does to the actor while its request runs."""
    root = world.root
    if way == "demoted":
        assert assign(root, actor, "member").status_code == 200
        return
    assert root.administer("PUT", f"/users/{actor.email}/activate", {"activate_status": "off"}).status_code == 200
    if way == "deleted":
        assert root.administer("DELETE", f"/users/{actor.email}").status_code == 200


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Has something done while the next password is hashed, which is when a request takes its time."""
    hashing = passwords.new_hash

    def hashed(*args: Any, **more: Any) -> str:
        monkeypatch.undo()
        made = hashing(*args, **more)
        act()
        return made

    monkeypatch.setattr(passwords, "new_hash", hashed)


@pytest.mark.parametrize("way", ["demoted", "switched off", "deleted"])
def test_a_request_in_flight_gives_nothing_that_its_actor_has_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    actor, victim = world.person(is_superuser=True), world.person(is_superuser=True)
    assert actor.admin_session
    meanwhile(monkeypatch, lambda: ends(world, actor, way))
    body = {"username": "made@example.org", "password": new_password(), "role": "admin"}

    refused = actor.administer("POST", "/users", body)

    assert refused.status_code == (403 if way == "demoted" else 401)
    assert world.plane.database.one("SELECT 1 FROM user WHERE email = 'made@example.org'") is None

    other = world.person(is_superuser=True)
    assert other.admin_session
    meanwhile(monkeypatch, lambda: ends(world, other, way))
    refused = other.administer("PUT", f"/users/{victim.email}/password", {"new_password": new_password()})

    assert refused.status_code == (403 if way == "demoted" else 401)
    assert victim.administer("GET", "/version").status_code == 200


def test_nobody_who_is_gone_founds_an_organisation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    founder = world.person()
    assert founder.session
    reading = tenants.parse_tenant_name

    def read(name: object) -> str:
        monkeypatch.undo()
        ends(world, founder, "deleted")
        return reading(name)

    monkeypatch.setattr(tenants, "parse_tenant_name", read)

    assert founder.ask("POST", "/api/v1/tenants", {"name": "Nobody's"}).status_code == 401
    assert world.plane.database.one("SELECT 1 FROM tenant WHERE name = ?", ("Nobody's",)) is None


def test_a_request_in_flight_does_nothing_once_its_actor_may_not_ask_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, victim = holder(world, "user-manager"), world.person()
    assert manager.admin_session
    meanwhile(monkeypatch, lambda: give_role(world, manager, "member"))

    refused = manager.administer("PUT", f"/users/{victim.email}/password", {"new_password": new_password()})

    assert refused.status_code == 403
    assert "user:write" in refused.json["message"]  # type: ignore[index]
    assert victim.session


def test_a_role_that_replaces_another_takes_the_right_to_assign_as_it_is_by_then(world: World) -> None:
    make_role(world, "assigner", {"role": ["assign"]})
    make_role(world, "deleter", {"role": ["delete"]})
    make_role(world, "gone")
    make_role(world, "instead")
    actor = holder(world, "deleter")
    assignments.add_user_roles(world.plane, SHELL, actor.email, ["assigner"])
    admitted = _principal(world, actor)
    give_role(world, actor, "deleter")

    with pytest.raises(PermissionMissing):
        roles.delete_role(world.plane, admitted, "gone", reassign_to="instead")
