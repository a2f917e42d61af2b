"""Who comes to administer keeps a password that is too short for it until the next time it is given."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from werkzeug.test import TestResponse

from common.core.passwords import encode_for_hash
from common.services import opening, passwords
from tests.people import Clock, Person, World, close, new_password, settings_for, settle
from tests.roles import give_role, make_role
from tests.statements import statements

SHORT, LONG = "corr3ct horse!", "corr3ct horse!!"


def world_with(home: Path, clock: Clock, **environment: str) -> Iterator[World]:
    settle(home)
    plane = opening.open_plane(settings_for(home, **environment), now_ms=clock)
    yield World(plane)
    close(plane)


@pytest.fixture(params={"alone": "off", "shared": "on"}.items(), ids=lambda each: each[0])
def either(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world on a database of its own, and on a shared one."""
    yield from world_with(tmp_path / "home", clock, RAGKEEPER_SHARED_DATABASE=request.param[1])


@pytest.fixture
def lenient(tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world without a password policy."""
    yield from world_with(tmp_path / "home", clock, RAGKEEPER_PASSWORD_POLICY="off")


def person(world: World, password: str = SHORT) -> Person:
    """Somebody with this password, who administers nothing."""
    made = world.person()
    stored = passwords.hash_opened(world.plane, encode_for_hash(password))
    world.plane.database.run("UPDATE user SET password = ? WHERE id = ?", (stored, made.user_id))
    made.password = password
    return made


def promoted(world: World, password: str = SHORT) -> Person:
    """Somebody with this password who has come to administer since."""
    made = person(world, password)
    give_role(world, made, "user-manager")
    return made


def owes(someone: Person) -> bool:
    """Whether an account has to change its password first."""
    row = someone.world.plane.database.one("SELECT must_change FROM rk_account WHERE user_id = ?", (someone.user_id,))
    assert row is not None
    return bool(row[0])


def due(world: World) -> list[tuple[Any, ...]]:
    """Who was told to change a password, by the audit trail: (result, actor, target)."""
    return [event[:3] for event in world.events("user:password_due")]


def log_in(someone: Person, password: str | None = None, **more: Any) -> TestResponse:
    body = {"email": someone.email, "password": password or someone.password, **more}
    return someone.world.admin.ask("POST", "/api/v1/admin/login", body)


def basic(someone: Person, password: str | None = None) -> TestResponse:
    given = base64.b64encode(f"{someone.email}:{password or someone.password}".encode()).decode()
    return someone.world.admin.ask("GET", "/api/v1/admin/auth", credential=f"Basic {given}")


def encrypted(someone: Person) -> str:
    """The password as RAGFlow's clients send it."""
    key = serialization.load_pem_public_key(someone.world.plane.keys.public_pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return base64.b64encode(key.encrypt(encode_for_hash(someone.password), padding.PKCS1v15())).decode()


def log_in_as_user(someone: Person, **body: Any) -> TestResponse:
    asked = {"email": someone.email, "password": someone.password, **body}
    return someone.world.api.ask("POST", "/v1/user/login", asked)


GIVING: dict[str, Callable[[Person], object]] = {
    "9381": log_in,
    "9381, encrypted": lambda someone: log_in(someone, encrypted(someone)),
    "9381, for refresh tokens": lambda someone: log_in(someone, grant="refresh"),
    "9381, for a cookie": lambda someone: log_in(someone, cookie=True),
    "9380": log_in_as_user,
    "9380, encrypted": lambda someone: log_in_as_user(someone, password=encrypted(someone)),
    "9380, for refresh tokens": lambda someone: log_in_as_user(someone, grant="refresh"),
    "9380, for a cookie": lambda someone: log_in_as_user(someone, cookie=True),
    "Basic": basic,
    "Basic, as RAGFlow's oldest client": lambda someone: basic(someone, encode_for_hash(someone.password).decode()),
    "once more in a session": lambda someone: someone.ask(
        "POST", "/api/v1/auth/reauthenticate", {"password": someone.password}
    ),
}
#: That open no session.
OTHERS = ("Basic", "once more in a session")


@pytest.mark.parametrize("give", GIVING.values(), ids=GIVING)
def test_wherever_it_is_given_another_is_due_from_then_on(either: World, give: Callable[[Person], object]) -> None:
    someone = person(either)
    assert someone.session
    give_role(either, someone, "user-manager")
    assert not owes(someone)

    give(someone)

    assert owes(someone)
    assert someone.ask("GET", "/v1/tenant/list").status_code == 403
    assert due(either) == [("ok", someone.email, someone.email)]


@pytest.mark.parametrize("way", ["9381", "9380, encrypted", "Basic, as RAGFlow's oldest client", *OTHERS])
def test_one_that_is_long_enough_stays(world: World, way: str) -> None:
    someone = person(world, LONG)
    assert someone.session
    give_role(world, someone, "user-manager")

    GIVING[way](someone)

    assert not owes(someone)
    assert someone.administer("GET", "/users").status_code == 200
    assert due(world) == []


def rise_by_a_role(root: Person, someone: Person) -> TestResponse:
    return root.administer("PUT", f"/users/{someone.email}/role", {"role_name": "viewer"})


def rise_to_superuser(root: Person, someone: Person) -> TestResponse:
    return root.administer("PUT", f"/users/{someone.email}/admin")


def rise_with_a_role(root: Person, someone: Person) -> TestResponse:
    """By a permission that a role gains which is held already."""
    make_role(root.world, "librarian", {"dataset": ["read"]})
    give_role(root.world, someone, "librarian")
    assert not log_in_as_user(someone).json["data"]["must_change_password"]
    grant = {"resource": "audit", "actions": ["read"]}
    return root.administer("POST", "/roles/librarian/permission", grant)


def rise_with_a_parent(root: Person, someone: Person) -> TestResponse:
    make_role(root.world, "reader")
    give_role(root.world, someone, "reader")
    assert not log_in_as_user(someone).json["data"]["must_change_password"]
    return root.administer("PUT", "/roles/reader", {"parents": ["viewer"]})


@pytest.mark.parametrize("rise", [rise_by_a_role, rise_to_superuser, rise_with_a_role, rise_with_a_parent])
def test_however_somebody_comes_to_administer(
    world: World, root: Person, rise: Callable[[Person, Person], TestResponse]
) -> None:
    someone = person(world)

    assert rise(root, someone).status_code == 200

    answer = log_in(someone)
    assert (answer.status_code, answer.json["data"]["must_change_password"]) == (200, True)
    assert owes(someone)


def test_sessions_and_tokens_go_on_until_the_next_login_and_then_wait_for_another_password(world: World) -> None:
    someone = person(world)
    token = f"Bearer {someone.ask('POST', '/api/v1/system/tokens', {}).json['data']['token']}"
    give_role(world, someone, "user-manager")

    def work() -> tuple[int, int, int]:
        return (
            world.admin.ask("GET", "/api/v1/admin/users", credential=someone.session).status_code,
            world.api.ask("GET", "/v1/tenant/list", credential=token).status_code,
            someone.ask("GET", "/v1/tenant/list").status_code,
        )

    assert work() == (200, 200, 200)
    assert someone.admin_session
    assert work() == (403, 403, 403)
    refused = someone.administer("GET", "/users")
    assert refused.status_code == 403
    assert "Change your password first" in refused.json["message"]


@pytest.mark.parametrize("way", ["9381", "9380"])
def test_with_another_password_everything_works_again(either: World, way: str) -> None:
    someone = promoted(either)
    assert someone.administer("GET", "/users").status_code == 403
    own = f"/users/{someone.email}/password"
    refused = someone.administer("PUT", own, {"new_password": "an0ther horse!"})
    assert (refused.status_code, "15 characters" in refused.json["message"]) == (400, True)
    assert someone.administer("PUT", own, {"new_password": SHORT}).status_code == 400
    assert owes(someone)

    if way == "9381":
        assert someone.administer("PUT", own, {"new_password": LONG}).status_code == 200
    else:
        change = {"password": SHORT, "new_password": LONG}
        answer = either.api.ask("PATCH", "/api/v1/users/me", change, credential=someone.admin_session)
        assert answer.status_code == 200

    assert someone.administer("GET", "/users").status_code == 200
    someone.password = LONG
    assert log_in(someone).json["data"]["must_change_password"] is False
    assert basic(someone).status_code == 200
    assert someone.ask("GET", "/v1/tenant/list").status_code == 200


def test_it_can_be_changed_also_when_it_was_given_long_ago(world: World, clock: Clock) -> None:
    someone = promoted(world)
    change = "PUT", f"/users/{someone.email}/password", {"new_password": LONG}
    assert someone.administer("GET", "/users").status_code == 403
    clock.forward(seconds=11 * 60)
    asked = someone.administer(*change)
    assert (asked.status_code, asked.json["reason"]) == (403, "reauthenticate")

    given = world.admin.ask(
        "POST", "/api/v1/auth/reauthenticate", {"password": SHORT}, credential=someone.admin_session
    )

    assert given.status_code == 200
    assert owes(someone)
    assert someone.administer(*change).status_code == 200
    assert someone.administer("GET", "/users").status_code == 200


@pytest.mark.parametrize("role", ["viewer", "service-operator"])
def test_who_may_not_set_passwords_changes_one_s_own_on_the_admin_server_alone(either: World, role: str) -> None:
    someone = person(either)
    give_role(either, someone, role)
    assert someone.administer("GET", "/version").status_code == 403
    own = f"/users/{someone.email}/password"
    other = either.person()
    assert someone.administer("PUT", f"/users/{other.email}/password", {"new_password": LONG}).status_code == 403
    for refused in (SHORT, "an0ther horse!"):
        assert someone.administer("PUT", own, {"new_password": refused, "password": SHORT}).status_code == 400
    assert owes(someone)

    assert someone.administer("PUT", own, {"new_password": LONG, "password": SHORT}).status_code == 200

    assert not owes(someone)
    assert someone.administer("GET", "/version").status_code == 200


def test_an_account_that_a_ragflow_has_just_made_owes_it_too(tmp_path: Path, clock: Clock) -> None:
    for shared in world_with(tmp_path / "home", clock, RAGKEEPER_SHARED_DATABASE="on"):
        someone = person(shared)
        assert someone.session
        give_role(shared, someone, "user-manager")
        # What this plane notes about an account is not there before it has looked for it.
        shared.plane.database.run("DELETE FROM rk_account WHERE user_id = ?", (someone.user_id,))

        GIVING["once more in a session"](someone)

        assert owes(someone)


def test_basic_credentials_with_it_authorise_nothing(world: World) -> None:
    someone = promoted(world)

    assert [basic(someone).status_code for _ in range(2)] == [403, 403]
    assert [event[:3] for event in world.events("session:prove")] == [("ok", someone.email, someone.email)] * 2


def test_it_is_told_once_and_a_login_with_it_is_still_one(world: World) -> None:
    someone = promoted(world)

    assert [log_in(someone).status_code for _ in range(3)] == [200] * 3

    assert len(due(world)) == 1


def test_who_administers_nothing_keeps_it(world: World) -> None:
    someone = person(world)

    assert log_in_as_user(someone).json["data"]["must_change_password"] is False
    assert someone.ask("GET", "/v1/tenant/list").status_code == 200

    give_role(world, someone, "viewer")
    give_role(world, someone, "member")
    assert log_in_as_user(someone).json["data"]["must_change_password"] is False


def test_without_a_policy_nothing_is_due(lenient: World) -> None:
    someone = promoted(lenient, "x")

    assert log_in(someone).json["data"]["must_change_password"] is False
    assert basic(someone).status_code == 200
    assert someone.administer("GET", "/users").status_code == 200


# In each the first characters have a compatibility form of another length.
@pytest.mark.parametrize(
    ("typed", "short"),
    [
        ("\ufb01rst horse hoof", False),
        ("\ufb01rst horse hoo", False),
        ("\ufb01rst horse ho", True),
        ("u\u0308ber horse hoo", True),
        ("u\u0308ber horse hoofs", False),
    ],
)
def test_characters_count_as_the_policy_counts_them(world: World, typed: str, short: bool) -> None:
    someone = promoted(world, typed)

    assert log_in(someone).json["data"]["must_change_password"] is short


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something done while the next password is being checked."""
    check = passwords.check

    def acting(*values: Any) -> passwords.Checked:
        monkeypatch.setattr(passwords, "check", check)
        checked = check(*values)
        act()
        return checked

    monkeypatch.setattr(passwords, "check", acting)


@pytest.mark.parametrize("rise", [rise_by_a_role, rise_to_superuser])
@pytest.mark.parametrize("way", ["9380", "once more in a session"])
def test_who_comes_to_administer_while_it_is_checked_does_not_slip_through(
    world: World,
    root: Person,
    monkeypatch: pytest.MonkeyPatch,
    rise: Callable[[Person, Person], TestResponse],
    way: str,
) -> None:
    someone = person(world)
    assert root.admin_session
    assert someone.session
    meanwhile(monkeypatch, lambda: rise(root, someone))

    GIVING[way](someone)

    assert owes(someone)


@pytest.mark.parametrize("way", ["9381", *OTHERS])
def test_another_one_that_takes_its_place_while_it_is_checked_is_not_due(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    someone = person(world)
    assert root.admin_session
    assert someone.session
    give_role(world, someone, "user-manager")
    path, new = f"/users/{someone.email}/password", {"new_password": new_password()}
    meanwhile(monkeypatch, lambda: root.administer("PUT", path, new))

    GIVING[way](someone)

    assert not owes(someone)


def test_measuring_costs_no_statement_but_where_it_is_due(world: World) -> None:
    def asked(someone: Person) -> list[str]:
        log_in_as_user(someone)
        with statements(world.plane) as heard:
            log_in_as_user(someone)
        return [" ".join(statement.split()[:3]) for statement in heard]

    assert asked(person(world, SHORT)) == asked(person(world, LONG)) == asked(promoted(world, LONG))
