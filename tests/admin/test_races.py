"""Two requests at once, by real threads, for what only one of them may get."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from common.core.audit_tags import EventTag
from common.core.errors import LoginRefused
from common.models.variable import StoredVariable
from common.services import accounts, audit, deletion, limits, opening, roles, sessions, settings, tokens
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.services.principal import Origin
from common.services.role_rules import next_version
from tests.people import Clock, Person, World, close, new_password, settings_for
from tests.roles import SHELL, give_role, make_role
from tests.side_by_side import Act, at_once, begun_at_once

pytestmark = pytest.mark.race

DEMOTIONS: dict[str, tuple[str, str, Any]] = {
    "roles": ("DELETE", "roles", {"role_name": "superuser"}),
    "role": ("PUT", "role", {"role_name": "member"}),
    "flag": ("DELETE", "admin", None),
    "switch": ("PUT", "activate", {"activate_status": "off"}),
}


def parents(root: Person, child: str, *names: str) -> Act:
    return lambda: root.administer("PUT", f"/roles/{child}", {"parents": list(names)})


def demote(actor: Person, target: Person, way: str) -> Act:
    method, path, body = DEMOTIONS[way]
    return lambda: actor.administer(method, f"/users/{target.email}/{path}", body)


def test_two_parent_edits_never_make_a_cycle_together(world: World, root: Person) -> None:
    for number in range(5):
        first, second = f"a{number}", f"b{number}"
        for name in (first, second):
            root.administer("POST", "/roles", {"role_name": name})

        statuses = at_once(world, parents(root, first, second), parents(root, second, first))

        assert sorted(statuses) == [200, 409]
        listed = root.administer("GET", "/roles").json["data"]["roles"]
        shown = {role["role_name"]: role["parents"] for role in listed}
        assert sorted([shown[first], shown[second]]) in ([[], [first]], [[], [second]])


def test_a_role_that_is_being_assigned_is_not_deleted_under_its_holder(world: World, root: Person) -> None:
    for number in range(5):
        name, someone = f"role-{number}", world.person()
        root.administer("POST", "/roles", {"role_name": name})

        statuses = at_once(
            world,
            lambda name=name, someone=someone: root.administer(  # type: ignore[misc]
                "PUT", f"/users/{someone.email}/role", {"role_name": name}
            ),
            lambda name=name: root.administer("DELETE", f"/roles/{name}"),  # type: ignore[misc]
        )

        assert statuses in ([200, 409], [404, 200])
        shown = root.administer("GET", f"/users/{someone.email}/permissions").json["data"]["user"]["role"]
        assert shown == (name if statuses[0] == 200 else "member")


def test_who_is_given_a_role_while_it_is_handed_over_holds_one_or_the_other(world: World, root: Person) -> None:
    for number in range(5):
        name, someone, holder = f"role-{number}", world.person(), world.person()
        root.administer("POST", "/roles", {"role_name": name})
        root.administer("PUT", f"/users/{holder.email}/role", {"role_name": name})

        statuses = at_once(
            world,
            lambda name=name, someone=someone: root.administer(  # type: ignore[misc]
                "POST", f"/users/{someone.email}/roles", {"role_name": name}
            ),
            lambda name=name: root.administer("DELETE", f"/roles/{name}?reassign_to=viewer"),  # type: ignore[misc]
        )

        assert statuses in ([200, 200], [404, 200])
        held = [root.administer("GET", f"/users/{each.email}").json["data"][0]["roles"] for each in (someone, holder)]
        assert held == [["viewer"] if statuses[0] == 200 else ["member"], ["viewer"]]


def test_a_role_is_not_given_with_what_it_is_granted_at_that_moment_unless_the_giver_holds_it(
    world: World, root: Person
) -> None:
    root.administer("POST", "/roles", {"role_name": "giver"})
    grants = {"new_permissions": {"role": {"assign": True, "read": True}, "dataset": {"read": True}}}
    root.administer("POST", "/roles/giver/permission", grants)
    giver = world.person()
    root.administer("PUT", f"/users/{giver.email}/role", {"role_name": "giver"})
    assert giver.admin_session
    for number in range(5):
        name, someone = f"given-{number}", world.person()
        root.administer("POST", "/roles", {"role_name": name})
        body = {"resource": "audit", "actions": ["export"]}

        given, _ = at_once(
            world,
            lambda name=name, someone=someone: giver.administer(  # type: ignore[misc]
                "POST", f"/users/{someone.email}/roles", {"role_name": name}
            ),
            lambda name=name, body=body: root.administer("POST", f"/roles/{name}/permission", body),  # type: ignore[misc]
        )

        # Whichever came first: the superuser granted it to a role that is held, or it was too much to give.
        assert given in (200, 403)
        held = root.administer("GET", f"/users/{someone.email}").json["data"][0]["roles"]
        assert held == ([name] if given == 200 else ["member"])


@pytest.mark.parametrize(
    ("one", "other"),
    [("role", "role"), ("role", "flag"), ("role", "switch"), ("flag", "switch"), ("roles", "flag"), ("roles", "roles")],
)
def test_the_last_two_superusers_never_go_both(world: World, root: Person, one: str, other: str) -> None:
    second = world.person(is_superuser=True)
    assert root.admin_session != second.admin_session

    statuses = at_once(world, demote(root, second, one), demote(second, root, other))

    left = world.plane.database.all("SELECT email FROM user WHERE is_superuser AND is_active = '1'")
    assert len(left) == 1
    # The loser is the last one, no superuser any more, or switched off already.
    assert sorted(statuses)[0] == 200
    assert sorted(statuses)[1] in (401, 403, 409)


def test_a_default_role_that_goes_while_somebody_registers_is_held_by_nobody(world: World, root: Person) -> None:
    for number in range(16):
        root.administer("POST", "/roles", {"role_name": f"default-{number}"})
        root.administer("PUT", "/variables", {"var_name": "default_role", "var_value": f"default-{number}"})
        body = {"email": f"new{number}@ragkeeper.test", "nickname": "New", "password": new_password()}

        statuses = at_once(
            world,
            lambda body=body: world.api.ask("POST", "/v1/user/register", body),  # type: ignore[misc]
            lambda number=number: root.administer("DELETE", f"/roles/default-{number}"),  # type: ignore[misc]
        )

        assert statuses in ([200, 200], [200, 409])
        held = world.plane.database.all("SELECT r.name FROM rk_user_role h LEFT JOIN rk_role r ON r.id = h.role_id")
        assert (None,) not in held


def test_who_makes_a_role_the_default_agrees_to_all_that_it_holds(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.administer("POST", "/roles", {"role_name": "keeper"})
    grants = {"role": {"read": True, "write": True}, "audit": {"read": True}, "user": {"write": True}}
    root.administer("POST", "/roles/keeper/permission", {"new_permissions": grants})
    root.administer("POST", "/roles", {"role_name": "wanted"})
    root.administer("POST", "/roles/wanted/permission", {"resource": "audit", "actions": ["read"]})
    keeper = world.person()
    root.administer("PUT", f"/users/{keeper.email}/role", {"role_name": "keeper"})
    assert keeper.admin_session
    changing, widened, record = threading.Event(), threading.Event(), audit.record

    def dawdle(plane: Plane, tag: EventTag, *values: Any, **more: Any) -> None:
        record(plane, tag, *values, **more)
        if tag is EventTag.SETTING_UPDATE:
            # A superuser has looked at what the role holds: whoever widens it now must wait, and is refused then.
            changing.set()
            assert not widened.wait(1)

    def widen() -> TestResponse:
        assert changing.wait(10)
        answer = keeper.administer("POST", "/roles/wanted/permission", {"resource": "user", "actions": ["write"]})
        widened.set()
        return answer

    monkeypatch.setattr(audit, "record", dawdle)
    variable = {"var_name": "default_role", "var_value": "wanted"}

    assert begun_at_once(world, lambda: root.administer("PUT", "/variables", variable), widen) == [200, 403]
    newcomer = {"username": "newcomer@ragkeeper.test", "password": new_password()}
    assert root.administer("POST", "/users", newcomer).status_code == 200
    held = root.administer("GET", f"/users/{newcomer['username']}/permissions").json["data"]["role_permissions"]
    assert held["audit"]["read"] is True
    assert not held.get("user", {}).get("write")


def test_a_default_role_that_is_set_while_somebody_registers_is_for_whoever_comes_later(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.administer("POST", "/roles", {"role_name": "wanted"})
    body = {"email": "new@ragkeeper.test", "nickname": "New", "password": new_password()}
    make = accounts.make

    def set_first(plane: Plane, **values: Any) -> AccountRow:
        plane.database.insert(
            StoredVariable, name="default_role", value="wanted", updated_at=plane.now_ms(), by_superuser=True
        )
        settings.next_version(plane)
        return make(plane, **values)

    monkeypatch.setattr(accounts, "make", set_first)

    assert world.api.ask("POST", "/v1/user/register", body).json["code"] == 0
    # Nobody kept the roles as they are for this registration: the new one might have been deleted meanwhile.
    assert root.administer("GET", f"/users/{body['email']}").json["data"][0]["roles"] == ["member"]


def test_a_name_is_given_to_one_role_only(world: World, root: Person) -> None:
    def make() -> TestResponse:
        return root.administer("POST", "/roles", {"role_name": "wanted"})

    assert root.admin_session
    assert sorted(at_once(world, make, make)) == [200, 409]


def test_a_login_that_meets_a_new_password_opens_no_session_with_the_old_one(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone, changing, looked, over = world.person(), threading.Event(), threading.Event(), threading.Event()
    by_id, record = accounts.by_id, audit.record

    def tell(plane: Plane, user_id: str) -> AccountRow | None:
        account = by_id(plane, user_id)
        if threading.current_thread() is logging_in:
            looked.set()
        return account

    def dawdle(plane: Plane, tag: EventTag, *values: Any, **more: Any) -> None:
        record(plane, tag, *values, **more)
        if tag is EventTag.USER_PASSWORD:
            # The change is made and not committed: the login finds the old password right, and must wait to look again.
            changing.set()
            assert not looked.wait(1)

    def log_in() -> None:
        with pytest.raises(LoginRefused):
            sessions.log_in(world.plane, Origin(), someone.email, someone.password, "user")
        world.plane.database.close()
        over.set()

    logging_in = threading.Thread(target=log_in)
    monkeypatch.setattr(accounts, "by_id", tell)
    monkeypatch.setattr(audit, "record", dawdle)
    changer = threading.Thread(
        target=lambda: root.administer("PUT", f"/users/{someone.email}/password", {"new_password": new_password()})
    )
    assert root.admin_session
    changer.start()
    assert changing.wait(10)
    logging_in.start()
    for thread in (changer, logging_in):
        thread.join(20)

    assert over.is_set()
    assert world.plane.database.all("SELECT 1 FROM rk_session WHERE user_id = ?", (someone.user_id,)) == []


def beside(world: World, act: Callable[[], object]) -> threading.Thread:
    """A thread that does something, and has begun."""

    def run() -> None:
        act()
        world.plane.database.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


ACTS_ON_ANOTHER: dict[str, Callable[[Person, Person], TestResponse]] = {
    "switched off": lambda actor, target: actor.administer(
        "PUT", f"/users/{target.email}/activate", {"activate_status": "off"}
    ),
    "tenant": lambda actor, target: actor.administer(
        "POST", f"/tenants/{target.user_id}/users", {"email": actor.email, "role": "owner"}
    ),
}


@pytest.mark.parametrize("act", ACTS_ON_ANOTHER)
@pytest.mark.parametrize("way", ["revoked", "handed over"])
def test_nobody_acts_on_somebody_who_outranks_them_throughout(
    world: World, monkeypatch: pytest.MonkeyPatch, act: str, way: str
) -> None:
    make_role(world, "actors", {"user": ["write"], "tenant": ["write"], "audit": ["read"]})
    make_role(world, "superiors", {"audit": ["read"], "setting": ["write"]})
    make_role(world, "lesser-actors", {"user": ["write"], "tenant": ["write"]})
    make_role(world, "lesser-superiors", {"audit": ["read"]})
    actor, target = world.person(), world.person()
    give_role(world, actor, "actors")
    give_role(world, target, "superiors")
    assert actor.admin_session
    by_id, narrowing = accounts.by_id, []

    def narrow() -> None:
        for name, (resource, action) in {"actors": ("audit", "read"), "superiors": ("setting", "write")}.items():
            if way == "revoked":
                body = {"resource": resource, "actions": [action]}
                roles.revoke_role_permission(world.plane, SHELL, name, body)
            else:
                roles.delete_role(world.plane, SHELL, name, reassign_to=f"lesser-{name}")

    def looked(plane: Plane, user_id: str) -> AccountRow | None:
        # What the actor amounts to has just been looked at, what the other one does has not.
        if user_id == target.user_id and not narrowing:
            narrowing.append(beside(world, narrow))
            narrowing[0].join(1)
        return by_id(plane, user_id)

    monkeypatch.setattr(accounts, "by_id", looked)
    refused = ACTS_ON_ANOTHER[act](actor, target)
    narrowing[0].join(20)

    assert refused.status_code == 403
    assert "holds what you do not" in refused.json["message"]  # type: ignore[index]


def test_a_request_gets_nothing_by_a_role_that_its_account_lost_before_the_role_came_to_hold_it(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_role(world, "widened", {"user": ["read"]})
    someone = world.person()
    give_role(world, someone, "widened")
    assert someone.administer("GET", "/settings").status_code == 403
    over = sessions.is_over

    def dawdle(*values: Any) -> bool:
        # The account and its roles have been read, and what these hold has not.
        monkeypatch.undo()
        give_role(world, someone, "member")
        roles.grant_role_permission(world.plane, SHELL, "widened", {"resource": "setting", "actions": ["read"]})
        assert root.administer("GET", "/roles").status_code == 200
        return over(*values)

    assert root.admin_session
    monkeypatch.setattr(sessions, "is_over", dawdle)

    assert someone.administer("GET", "/settings").status_code == 403


def test_nobody_waits_for_roles_that_change_all_the_time_to_stand_still(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = world.person()
    assert someone.ask("GET", "/v1/user/info").json["code"] == 0  # type: ignore[index]
    asked: list[str] = []
    every = world.plane.database.all

    def changed(*values: Any) -> Any:
        rows = every(*values)
        if "FROM rk_role" in values[0] and len(asked) < 20:
            asked.append(values[0])
            next_version(world.plane)
        return rows

    monkeypatch.setattr(world.plane.database, "all", changed)
    next_version(world.plane)

    assert someone.ask("GET", "/v1/user/info").json["code"] == 0  # type: ignore[index]
    assert len(asked) == 1


def test_a_role_that_is_handed_over_goes_to_nobody_who_is_deleted_meanwhile(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone", "instead"):
        make_role(world, name)
    someone = world.person()
    give_role(world, someone, "gone")
    root.administer("PUT", f"/users/{someone.email}/activate", {"activate_status": "off"})
    handed, hand_over, enqueue = threading.Event(), roles._hand_over, deletion.jobs.enqueue
    handing: list[threading.Thread] = []

    def tell(*values: Any) -> None:
        hand_over(*values)
        handed.set()

    def dawdle(*values: Any, **more: Any) -> Any:
        # The account is deleted and that is not committed: whoever hands its role over must wait, or finds it there.
        handing.append(beside(world, lambda: roles.delete_role(world.plane, SHELL, "gone", reassign_to="instead")))
        handed.wait(1)
        return enqueue(*values, **more)

    monkeypatch.setattr(roles, "_hand_over", tell)
    monkeypatch.setattr(deletion.jobs, "enqueue", dawdle)
    assert root.administer("DELETE", f"/users/{someone.email}").status_code == 200
    handing[0].join(20)

    assert handed.is_set()
    assert world.plane.database.all("SELECT role_id FROM rk_user_role WHERE user_id = ?", (someone.user_id,)) == []


@pytest.fixture
def shared(tmp_path: Path, clock: Clock, plane: Plane) -> Iterator[World]:
    """A world whose database is one that a RAGFlow uses too."""
    opened = opening.open_plane(settings_for(tmp_path / "home", RAGKEEPER_SHARED_DATABASE="on"), now_ms=clock)
    yield World(opened)
    close(opened)


def test_a_logout_and_the_end_of_all_sessions_do_not_wait_for_each_other(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone, ended, end, answers = shared.person(), threading.Event(), sessions.end, []
    assert someone.session

    def tell(*values: Any) -> int:
        count = end(*values)
        if threading.current_thread() is not threading.main_thread():
            ended.set()
        return count

    monkeypatch.setattr(sessions, "end", tell)
    with shared.plane.database.transaction():
        accounts.hold(shared.plane, someone.user_id)
        leaving = beside(shared, lambda: answers.append(someone.ask("GET", "/v1/user/logout").status_code))
        ended.wait(1)
        sessions.end_sessions(shared.plane, someone.user_id, "password")
    leaving.join(20)

    assert answers == [200]


def test_housekeeping_takes_accounts_in_the_order_of_whoever_acts_on_another(
    shared: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted((shared.person(), shared.person()), key=lambda person: person.user_id)
    assert second.session
    clock.forward(seconds=1)
    assert first.session
    clock.forward(days=60)
    written, forget, pruned = threading.Event(), sessions.forget_shared_value, []

    def tell(*values: Any, **more: Any) -> bool:
        was_there = forget(*values, **more)
        written.set()
        return was_there

    monkeypatch.setattr(sessions, "forget_shared_value", tell)
    with shared.plane.database.transaction():
        accounts.hold(shared.plane, first.user_id)
        keeping = beside(shared, lambda: pruned.append(sessions.prune(shared.plane)))
        written.wait(1)
        accounts.hold(shared.plane, second.user_id)
    keeping.join(20)

    assert pruned == [2]


RAGFLOWS = f"ragflow-{'k' * 48}"
ENDS: dict[str, Callable[[Person, Person, str], TestResponse]] = {
    "session": lambda root, whose, _: root.administer("DELETE", f"/users/{whose.email}/sessions"),
    "token": lambda root, whose, token_id: root.administer("DELETE", f"/users/{whose.email}/keys/{token_id}"),
    "key of RAGFlow's": lambda root, whose, _: root.administer("DELETE", f"/users/{whose.email}/keys/{RAGFLOWS}"),
    "key of RAGFlow's, by its owner": lambda _, whose, __: whose.ask("DELETE", f"/v1/system/token/{RAGFLOWS}"),
}


def maker(world: World, root: Person, kind: str) -> tuple[Person, str, Act]:
    """Somebody, the id of a token of theirs, and how they make another one with that, or with their session."""
    someone = world.person()
    token = root.administer("POST", f"/users/{someone.email}/keys", {}).json["data"]
    credential = {"session": someone.session, "token": f"Bearer {token['token']}"}.get(kind, f"Bearer {RAGFLOWS}")
    world.plane.database.run("INSERT INTO api_token (tenant_id, token) VALUES (?, ?)", (someone.user_id, RAGFLOWS))
    return someone, token["id"], lambda: world.api.ask("POST", "/v1/system/new_token", {}, credential=credential)


def tokens_of(root: Person, someone: Person) -> set[str]:
    listed = root.administer("GET", f"/users/{someone.email}/keys").json["data"]
    return {each["id"] for each in (listed["tokens"] if isinstance(listed, dict) else listed)}


@pytest.mark.parametrize("kind", ENDS)
def test_whoever_ends_a_credential_sees_all_that_was_made_with_it(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    someone, token_id, make = maker(world, root, kind)
    assert root.admin_session
    write, seen, ending = tokens.write, [], []

    def end() -> None:
        assert ENDS[kind](root, someone, token_id).status_code == 200
        seen.append(tokens_of(root, someone))

    def dawdle(*values: Any) -> dict[str, Any]:
        # The credential has been found good, and what is made with it is not there yet.
        ending.append(beside(world, end))
        ending[0].join(1)
        return write(*values)

    monkeypatch.setattr(tokens, "write", dawdle)
    make()
    ending[0].join(20)

    assert seen == [tokens_of(root, someone)]


@pytest.mark.parametrize("kind", ENDS)
def test_no_token_is_made_with_a_credential_that_was_ended_meanwhile(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    someone, token_id, make = maker(world, root, kind)
    allowed = limits.token_creation

    def dawdle(*values: Any) -> None:
        monkeypatch.undo()
        assert ENDS[kind](root, someone, token_id).status_code == 200
        allowed(*values)

    monkeypatch.setattr(limits, "token_creation", dawdle)
    before = tokens_of(root, someone)

    assert make().status_code == 401
    assert tokens_of(root, someone) <= before
