"""A login that fails costs the same whatever is wrong, so its time does not tell which accounts exist."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid1

import argon2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from werkzeug.security import generate_password_hash

from common.models.account import User
from common.models.base import created
from common.services import accounts, opening, passwords
from tests.people import Clock, Person, World, close, new_password, settings_for
from tests.statements import statements

KINDS = {"off": "argon2id", "on": "scrypt"}
# Stored texts that are no hash.
NO_HASHES = (
    None, "", "no hash at all", "$argon2id$broken", "$argon2id$v=19$m=19456,t=2,p=1$x$y", "$argon2x$a$b$c",
    "scrypt:1:1:1$x", "scrypt:a:8:1$b$c", "scrypt:1:1:1$a$b", "md4$a$b", "pbkdf2:none:1$a$b",
    "scrypt:32768:8:1$salt$\u00e9",
    "scrypt:99999999999999999999:8:1$a$b",
)  # fmt: skip


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world on a database of its own, and on a shared one."""
    settings = settings_for(tmp_path / "home", RAGKEEPER_SHARED_DATABASE=request.param)
    plane = opening.open_plane(settings, now_ms=clock)
    made = World(plane)
    # Before the first account nobody is told that a login failed.
    made.person()
    yield made
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


@contextmanager
def hashes(patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every hash that is computed meanwhile, by its kind; not those that were refused to begin with."""
    computed: list[str] = []
    scrypt: Callable[..., bytes] = hashlib.scrypt
    verify: Callable[..., bool] = argon2._password_hasher.verify_secret

    def noted_scrypt(*given: Any, **options: Any) -> bytes:
        found = scrypt(*given, **options)
        computed.append("scrypt")
        return found

    def noted_argon2(*given: Any) -> bool:
        try:
            found = verify(*given)
        except argon2.exceptions.VerifyMismatchError:
            computed.append("argon2id")
            raise
        computed.append("argon2id")
        return found

    with patch.context() as patched:
        patched.setattr(hashlib, "scrypt", noted_scrypt)
        patched.setattr(argon2._password_hasher, "verify_secret", noted_argon2)
        yield computed


def log_in(world: World, email: str, password: str) -> int:
    """The code of a login on the user API."""
    answer = world.api.ask("POST", "/v1/user/login", {"email": email, "password": password})
    return int(answer.json["code"])


def ask_with_basic(world: World, email: str, password: str) -> int:
    """The code of a request with HTTP Basic, as RAGFlow's oldest client sends it."""
    credential = base64.b64encode(f"{email}:{password}".encode()).decode()
    answer = world.admin.ask("GET", "/api/v1/admin/auth", credential=f"Basic {credential}")
    return int(answer.json["code"])


def effort(
    world: World, patch: pytest.MonkeyPatch, email: str, password: str, ask: Callable[[World, str, str], int] = log_in
) -> tuple[list[str], list[str]]:
    """The statements, by their first words, and the hashes of a login that fails."""
    # What RAGFlow has written is taken note of once.
    assert ask(world, email, password) != 0
    with statements(world.plane) as heard, hashes(patch) as computed:
        assert ask(world, email, password) != 0
    return [" ".join(statement.split()[:3]) for statement in heard], computed


def kind_of(world: World) -> str:
    """The kind of hash that the plane makes."""
    return KINDS["on" if world.plane.shared else "off"]


def other_kind(world: World, password: str) -> str:
    """A hash of the kind that it doesn't make."""
    opened = base64.b64encode(password.encode())
    if world.plane.shared:
        return argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(opened)
    return generate_password_hash(opened.decode())


def set_stored(world: World, person: Person, stored: str) -> None:
    """Put a hash in place of a person's own."""
    world.plane.database.run("UPDATE user SET password = ? WHERE id = ?", (stored, person.user_id))


@pytest.fixture
def of_unknown(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """The effort for an address that nobody has."""
    return effort(world, monkeypatch, "nobody@ragkeeper.test", "a wrong password")


def test_an_unknown_address_costs_one_hash_of_the_plane_s_kind(
    world: World, of_unknown: tuple[list[str], list[str]]
) -> None:
    assert of_unknown[1] == [kind_of(world)]


def test_a_wrong_password_costs_what_an_unknown_address_does(
    world: World, of_unknown: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = world.person()

    assert effort(world, monkeypatch, someone.email, "a wrong password") == of_unknown
    assert effort(world, monkeypatch, someone.email.upper(), "a wrong password") == of_unknown


def sealed(world: World, content: bytes) -> str:
    """What a client sends that encrypts this with the server's public key."""
    key = serialization.load_pem_public_key(world.plane.keys.public_pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return base64.b64encode(key.encrypt(content, padding.PKCS1v15())).decode()


def test_S6_a_ciphertext_that_is_wrong_in_any_way_is_answered_like_a_wrong_password(
    world: World, of_unknown: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can tell a bad padding from a wrong password can have the server decrypt what they have recorded."""
    wrong = {
        "another password": sealed(world, base64.b64encode(b"another password")),
        "no base64 within": sealed(world, b"\xff\xfe no base64"),
        "nothing within": sealed(world, b""),
        "a bad padding": base64.b64encode(b"\x01" * 256).decode(),
        "beyond the modulus": base64.b64encode(b"\xff" * 256).decode(),
        "cut off": sealed(world, base64.b64encode(b"x"))[:-8],
    }
    answers = set()
    for kind, password in wrong.items():
        someone = world.person()
        assert effort(world, monkeypatch, someone.email, password) == of_unknown, kind
        body = {"email": someone.email, "password": password}
        answers.add(world.api.ask("POST", "/v1/user/login", body).get_data())

    assert len(answers) == 1


def test_S6_a_ciphertext_that_is_sent_again_is_worth_what_its_password_is_and_no_more(
    world: World, clock: Clock
) -> None:
    """RAGFlow's form has neither a nonce nor a time, so what was recorded on its way can't be told from a login; what
    can be held is that it opens nothing that the password itself would not, leaves its traces, and ends with it."""
    someone = world.person()
    recorded = sealed(world, base64.b64encode(someone.password.encode()))
    for _ in range(3):
        assert log_in(world, someone.email, recorded) == 0

    page = someone.ask("GET", "/api/v1/sessions").json["data"]["sessions"]
    assert len(page) == 4
    assert [event[0] for event in world.events("session:login")] == ["ok"] * 4
    assert recorded not in str(world.events("session:login"))
    assert ask_with_basic(world, someone.email, recorded) == 403

    changed = someone.ask("POST", "/v1/user/setting", {"password": someone.password, "new_password": new_password()})
    assert changed.json["code"] == 0
    # It is a guess like any other now, and after five of them the account waits.
    assert [log_in(world, someone.email, recorded) for _ in range(6)] == [109] * 5 + [429]
    assert world.events("session:login_refused")


def test_S6_a_ciphertext_for_one_plane_opens_nothing_at_another(world: World, tmp_path: Path, clock: Clock) -> None:
    settings = settings_for(tmp_path / "another home")
    plane = opening.open_plane(settings, now_ms=clock)
    other = World(plane)
    someone = world.person()
    with plane.database.transaction():
        namesake = accounts.make(
            plane,
            email=someone.email,
            nickname="Namesake",
            password_hash=passwords.new_hash(plane, someone.password, passwords.Owner()),
        )
    recorded = sealed(world, base64.b64encode(someone.password.encode()))

    assert log_in(world, someone.email, recorded) == 0
    assert log_in(other, namesake.email, recorded) == 109
    assert log_in(other, namesake.email, someone.password) == 0
    close(plane)


def test_S6_no_home_has_the_pair_that_ragflow_publishes(world: World, tmp_path: Path) -> None:
    other = opening.open_plane(settings_for(tmp_path / "another home"))

    assert world.plane.keys.public_pem != other.keys.public_pem
    for keys in (world.plane.keys, other.keys):
        assert "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEArq9XTUSeYr2" not in keys.public_pem
    for store in (other.database, other.cache, other.documents):
        store.close()


@pytest.mark.parametrize("stored", NO_HASHES)
def test_an_account_without_a_hash_costs_what_an_unknown_address_does(
    world: World, monkeypatch: pytest.MonkeyPatch, stored: str | None
) -> None:
    someone = world.person()
    world.plane.database.run("UPDATE user SET password = ? WHERE id = ?", (stored, someone.user_id))
    of_unknown = effort(world, monkeypatch, "nobody@ragkeeper.test", "a wrong password")

    assert effort(world, monkeypatch, someone.email, someone.password) == of_unknown


def test_while_hashes_are_of_two_kinds_a_wrong_password_costs_both_whoever_s_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAGFlow's hashes go on counting where it no longer shares the database, and the other way round."""
    of_plane, of_other = world.person(), world.person()
    password = "a password of the other kind"
    set_stored(world, of_other, other_kind(world, password))
    statements_of_unknown, hashes_of_unknown = effort(world, monkeypatch, "nobody@ragkeeper.test", "a wrong password")

    assert sorted(hashes_of_unknown) == ["argon2id", "scrypt"]
    for person in (of_plane, of_other):
        heard, computed = effort(world, monkeypatch, person.email, "a wrong password")
        assert (heard, sorted(computed)) == (statements_of_unknown, sorted(hashes_of_unknown))
    assert log_in(world, of_other.email, password) == 0
    # The last one of the other kind has logged in, and has got the plane's.
    assert effort(world, monkeypatch, of_other.email, "a wrong password")[1] == [kind_of(world)]


@pytest.mark.parametrize("password", ["p\u00e4ssw\u00f6rter \ufb01x", "passwords \u00e9 \u212bngstr\u00f6m"])
def test_a_password_that_can_be_composed_in_two_ways_costs_as_much_for_an_unknown_address(
    world: World, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    of_unknown = effort(world, monkeypatch, "nobody@ragkeeper.test", password)

    assert of_unknown[1] == [kind_of(world)] * 2
    assert effort(world, monkeypatch, world.person().email, password) == of_unknown


@pytest.mark.parametrize("column", ["is_active", "status"])
def test_an_account_that_is_off_or_deleted_costs_what_an_unknown_address_does(
    world: World, of_unknown: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    someone = world.person()
    world.plane.database.run(f"UPDATE user SET {column} = '0' WHERE id = ?", (someone.user_id,))

    assert effort(world, monkeypatch, someone.email, someone.password) == of_unknown
    assert effort(world, monkeypatch, someone.email, "a wrong password") == of_unknown


@pytest.mark.parametrize("world", ["on"], indirect=True)
def test_an_address_of_two_accounts_costs_what_an_unknown_one_does(
    world: World, of_unknown: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    for row_id in (uuid1().hex, uuid1().hex):
        row = {
            "id": row_id, "nickname": "Twin", "email": "twin@ragflow.test", "is_authenticated": "1",
            "is_active": "1", "is_anonymous": "0", "status": "1", "is_superuser": False, "password": None,
        }  # fmt: skip
        world.plane.database.insert(User, **row, **created(clock(), world.plane.zone))

    assert effort(world, monkeypatch, "twin@ragflow.test", "a wrong password") == of_unknown


@pytest.mark.parametrize("password", ["a wrong password", base64.b64encode(b"a wrong password").decode()])
def test_basic_credentials_cost_the_same_too(world: World, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    known, broken = world.person(is_superuser=True), world.person()
    world.plane.database.run("UPDATE user SET password = 'no hash' WHERE id = ?", (broken.user_id,))
    of_unknown = effort(world, monkeypatch, "nobody@ragkeeper.test", password, ask_with_basic)
    # What can be no base64 of a password is one itself, and nothing else.
    assert len(of_unknown[1]) == (1 if " " in password else 2)

    for person in (known, broken):
        assert effort(world, monkeypatch, person.email, password, ask_with_basic) == of_unknown
