"""Any sequence of acts of any people over any roles: nobody ends with what nobody who could give it gave."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from werkzeug.test import TestResponse

from common.services import accounts
from common.services.assignments import add_user_roles
from tests.admin.role_model import ADMINISTRATIVE, EVERYTHING, Account, Key, Model, Pairs
from tests.backends import stores
from tests.people import Person, World, new_password
from tests.roles import SHELL, forget_roles, make_role

NAMES = ("r0", "r1", "r2", "r3", "r4", "r5")
GIVEN = (*NAMES, "member", "viewer", "user-manager", "superuser")
PAIRS = (
    "role:write",
    "role:create",
    "role:delete",
    "role:assign",
    "user:write",
    "audit:export",
    "dataset:read",
    "token:create",
)
RANK = ("make superuser", "unmake superuser", "on", "off")
PEOPLE = ("ann", "bob", "cem", "dua")
# So many of the last tokens that were made are kept and tried.
KEPT = 4
TOKENS = "/api/v1/system/tokens"

# The superuser may everything: what the others may is more of a question.
who = st.sampled_from((*PEOPLE, *PEOPLE[1:], *PEOPLE[1:]))
# "own" is a role that the actor holds: what people try first.
role = st.sampled_from((*NAMES, "own", "own", "own"))
given = st.sampled_from(GIVEN)
pair = st.sampled_from(PAIRS)
several = st.sets(st.sampled_from(GIVEN), min_size=1, max_size=2)
place = st.integers(0, KEPT - 1)


class Company(RuleBasedStateMachine):
    """Four people, one of them a superuser at first, who do to roles and to each other whatever the servers let them.

    They keep the tokens that they make for each other, and that they make with those. Beside the servers stands a model
    that is told the same.
    """

    def __init__(self, world: World, people: dict[str, Person]) -> None:
        super().__init__()
        self.world = world
        self.people = people
        self.model = Model()
        self.acted: tuple[str, Pairs, bool] | None = None
        self.before: dict[str, Pairs] = {}
        self.keys: list[Key] = []
        self.rotated: set[str] = set()

    @initialize(
        own=st.lists(st.sets(pair, min_size=3), min_size=4, max_size=4),
        parents=st.lists(st.sets(st.integers(0, 3)), min_size=4, max_size=4),
        held=st.lists(
            st.sets(st.sampled_from((*NAMES[:4], "viewer", "user-manager")), min_size=1, max_size=2),
            min_size=3,
            max_size=3,
        ),
    )
    def begin(self, own: list[set[str]], parents: list[set[int]], held: list[set[str]]) -> None:
        plane = self.world.plane
        forget_roles(plane)
        with plane.database.transaction():
            for table in ("api_token", "rk_token", "rk_token_trait"):
                plane.database.run(f"DELETE FROM {table}")
            for name, person in self.people.items():
                accounts.change(plane, person.user_id, is_superuser=name == "ann", is_active="1")
        for at, name in enumerate(NAMES[:4]):
            inherits = sorted(NAMES[each] for each in parents[at] if each < at)
            tree: dict[str, list[str]] = {}
            for each in own[at]:
                tree.setdefault(each.split(":")[0], []).append(each.split(":")[1])
            make_role(self.world, name, tree, inherits)
            self.model.own[name], self.model.parents[name] = set(own[at]), set(inherits)
        self.model.accounts["ann"] = Account({"superuser"})
        for name, roles in zip(PEOPLE[1:], held, strict=True):
            self.model.accounts[name] = Account(set(roles))
            if roles:
                add_user_roles(plane, SHELL, self.people[name].email, sorted(roles))
        self.before = self.held()

    def ask(self, actor: str, method: str, path: str, body: Any = None) -> TestResponse:
        person = self.people[actor]
        if self.model.accounts[actor].on and "session" not in person.__dict__:
            assert person.session
        return self.world.admin.ask(
            method, f"/api/v1/admin{path}", body, credential=person.__dict__.get("session", "gone")
        )

    def done(self, actor: str, answer: TestResponse, expected: bool) -> None:
        """The servers did it if the model says so, and nothing failed on their side."""
        assert answer.status_code in (200, 400, 401, 403, 404, 409), answer.get_data(as_text=True)
        assert (answer.status_code == 200) == expected, (answer.status_code, answer.get_data(as_text=True))

    def named(self, actor: str, name: str) -> str:
        """The role that is meant."""
        own = sorted(self.model.accounts[actor].roles & set(NAMES))
        return (own or NAMES)[0] if name == "own" else name

    def standing_of(self, actor: str) -> None:
        account = self.model.accounts[actor]
        self.acted = (actor, self.model.may(actor) if account.on else frozenset(), account.is_superuser and account.on)

    @rule(actor=who, name=role, what=pair, gives=st.sampled_from((True, True, False)))
    def grant_or_revoke(self, actor: str, name: str, what: str, gives: bool) -> None:
        self.standing_of(actor)
        name = self.named(actor, name)
        resource, _, action = what.partition(":")
        body = {"resource": resource, "actions": [action]}
        answer = self.ask(actor, "POST" if gives else "DELETE", f"/roles/{name}/permission", body)
        act = self.model.grant if gives else self.model.revoke
        self.done(actor, answer, act(actor, name, what))

    @rule(actor=who, name=role, parents=several, way=st.sampled_from(("put", "add", "remove")))
    def inherit(self, actor: str, name: str, parents: set[str], way: str) -> None:
        self.standing_of(actor)
        name = self.named(actor, name)
        body = {"parents": sorted(parents)}
        now = self.model.parents.get(name, set())
        if way == "put":
            answer, then = self.ask(actor, "PUT", f"/roles/{name}", body), parents
        elif way == "add":
            answer, then = self.ask(actor, "POST", f"/roles/{name}/parents", body), now | parents
        else:
            answer, then = self.ask(actor, "DELETE", f"/roles/{name}/parents", body), now - parents
        self.done(actor, answer, self.model.inherit(actor, name, then, parents))

    @rule(actor=who, name=st.sampled_from(("r3", "r4", "r5")), parents=several)
    def create(self, actor: str, name: str, parents: set[str]) -> None:
        self.standing_of(actor)
        answer = self.ask(actor, "POST", "/roles", {"role_name": name, "parents": sorted(parents)})
        self.done(actor, answer, self.model.create(actor, name, parents))

    @rule(actor=who, name=role, instead=st.one_of(st.none(), given))
    def delete(self, actor: str, name: str, instead: str | None) -> None:
        self.standing_of(actor)
        name = self.named(actor, name)
        query = "" if instead is None else f"?reassign_to={instead}"
        answer = self.ask(actor, "DELETE", f"/roles/{name}{query}")
        self.done(actor, answer, self.model.delete(actor, name, instead))

    @rule(actor=who, whom=who, roles=several, way=st.sampled_from(("put", "add", "remove", "clear")))
    def assign(self, actor: str, whom: str, roles: set[str], way: str) -> None:
        self.standing_of(actor)
        email, now = self.people[whom].email, self.model.accounts[whom].roles
        if way == "put":
            roles = {sorted(roles)[0]}
            answer, then = self.ask(actor, "PUT", f"/users/{email}/role", {"role_name": min(roles)}), roles
        elif way == "add":
            answer, then = self.ask(actor, "POST", f"/users/{email}/roles", {"roles": sorted(roles)}), now | roles
        elif way == "remove":
            answer, then = self.ask(actor, "DELETE", f"/users/{email}/roles", {"roles": sorted(roles)}), now - roles
        else:
            roles = now or roles
            answer, then = self.ask(actor, "DELETE", f"/users/{email}/roles", {"roles": sorted(roles)}), set[str]()
        gives = way in ("put", "add")
        self.done(actor, answer, self.model.change_roles(actor, whom, roles, then, gives=gives))

    @rule(actor=who, whom=who, act=st.sampled_from((*RANK, *RANK, "password")))
    def act_on(self, actor: str, whom: str, act: str) -> None:
        self.standing_of(actor)
        person = self.people[whom]
        path = f"/users/{person.email}"
        if act in ("make superuser", "unmake superuser"):
            on = act == "make superuser"
            answer = self.ask(actor, "PUT" if on else "DELETE", f"{path}/admin")
            self.done(actor, answer, self.model.set_superuser(actor, whom, on))
        elif act in ("on", "off"):
            answer = self.ask(actor, "PUT", f"{path}/activate", {"activate_status": act})
            self.done(actor, answer, self.model.switch(actor, whom, act == "on"))
            if answer.status_code == 200 and act == "off":
                person.__dict__.pop("session", None)
        else:
            password = new_password()
            answer = self.ask(actor, "PUT", f"{path}/password", {"new_password": password})
            self.done(actor, answer, self.model.reset_password(actor, whom))
            if answer.status_code == 200:
                person.password = password
            if answer.status_code == 200 and actor != whom:
                person.__dict__.pop("session", None)

    @rule(actor=who, whom=who)
    def make_key(self, actor: str, whom: str) -> None:
        self.standing_of(actor)
        answer = self.ask(actor, "POST", f"/users/{self.people[whom].email}/keys", {"scopes": ["create:token"]})
        self.done(actor, answer, self.model.make_key(actor, whom))
        self.keep(answer, whom, {actor})

    @precondition(lambda self: self.keys)
    @rule(at=place, whom=who, way=st.sampled_from(("further", "rotate", "for somebody")))
    def use_key(self, at: int, whom: str, way: str) -> None:
        key = self.keys[at % len(self.keys)]
        self.standing_of(key.owner)
        if way == "for somebody":
            path = f"/api/v1/admin/users/{self.people[whom].email}/keys"
            answer = self.world.admin.ask("POST", path, credential=key.value)
            self.done(key.owner, answer, self.model.make_key_with(key, whom))
            self.keep(answer, whom, key.makers | {key.owner})
            return
        mine = [each for each in self.keys if each.owner == key.owner]
        old = mine[at % len(mine)]
        path = f"{TOKENS}/{old.key_id}/rotate" if way == "rotate" else TOKENS
        answer = self.world.api.ask("POST", path, {}, credential=key.value)
        self.done(key.owner, answer, self.model.is_good(key) and (way == "further" or old.key_id not in self.rotated))
        if way == "rotate" and answer.status_code == 200:
            self.rotated.add(old.key_id)
        self.keep(answer, key.owner, key.makers)

    @precondition(lambda self: self.keys)
    @rule(at=place, name=given, whose=st.sampled_from(("owner", "maker")))
    def raise_or_lower(self, at: int, name: str, whose: str) -> None:
        """A superuser gives another role to somebody whom a token is about."""
        key = self.keys[at % len(self.keys)]
        whom = key.owner if whose == "owner" or not key.makers else min(key.makers)
        actor = min(name for name, account in self.model.accounts.items() if account.is_superuser and account.on)
        self.assign(actor, whom, {name}, "put")

    def keep(self, answer: TestResponse, owner: str, makers: Collection[str]) -> None:
        """Somebody keeps the token that was just made, if one was."""
        if answer.status_code == 200:
            assert answer.json is not None
            made = answer.json["data"]
            key = Key(made["token"], made["id"], owner, frozenset(makers) - {owner})
            self.keys = [*self.keys, key][-KEPT:]

    def held(self) -> dict[str, Pairs]:
        """What everybody may by what is stored, and ``superuser`` where the flag says so."""
        plane, found = self.world.plane, {}
        graph = accounts.role_graph(plane)
        for name, person in self.people.items():
            account = accounts.by_id(plane, person.user_id)
            assert account is not None
            standing = graph.standing(accounts.held_roles(plane, account.id), account.is_superuser)
            found[name] = frozenset(map(str, standing.permissions)) | (
                {"superuser"} if standing.is_superuser else set()
            )
        return found

    @invariant()
    def nobody_gained_what_the_actor_could_not_give(self) -> None:
        if not self.before:
            return
        now = self.held()
        if self.acted is not None:
            actor, could_give, was_superuser = self.acted
            for name in PEOPLE:
                gained = now[name] - self.before[name]
                assert was_superuser or gained <= could_give, (actor, name, gained - could_give)
        self.before = now

    @invariant()
    def the_servers_and_the_model_agree(self) -> None:
        for name, account in self.model.accounts.items():
            expected = (EVERYTHING | {"superuser"}) if account.is_superuser else self.model.may(name)
            assert self.before[name] == expected, name

    @invariant()
    def no_token_does_what_one_of_its_makers_could_not_give(self) -> None:
        now = self.held() if self.keys else {}
        for key in self.keys:
            answer = self.world.api.ask("GET", "/v1/user/info", credential=key.value)
            if answer.status_code == 200:
                rank = now[key.owner] & (ADMINISTRATIVE | {"superuser"})
                for maker in key.makers:
                    assert "superuser" in now[maker] or rank <= now[maker], (key.owner, maker)
                    assert self.model.accounts[maker].on or not rank, (key.owner, maker)
            assert (answer.status_code == 200) == self.model.is_good(key), (key.owner, key.makers)

    @invariant()
    def there_is_a_superuser(self) -> None:
        if self.model.accounts:
            rows = self.world.plane.database.all("SELECT 1 FROM user WHERE is_superuser AND is_active = '1'")
            assert rows


@pytest.mark.timeout(500)
def test_no_sequence_of_acts_ends_with_someone_holding_what_nobody_could_give(world: World) -> None:
    people = {name: world.person() for name in PEOPLE}
    world.set_variable("limit.token_creation", "0")
    connection = world.plane.database.peewee.connection()
    if isinstance(connection, sqlite3.Connection):
        # Thousands of small changes, none of which has to outlive the machine.
        connection.execute("PRAGMA synchronous = OFF")

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Company(world, people),
        settings=settings(
            # A server takes its time for each of thousands of small changes.
            max_examples=12 if stores.is_server("metadata") else 50,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
