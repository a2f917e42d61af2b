"""Hashing and checking passwords."""

from __future__ import annotations

import threading
from dataclasses import replace

import argon2
import pytest
from werkzeug.security import check_password_hash, generate_password_hash

from common.core.errors import BadField
from common.core.passwords import encode_for_hash
from common.services import passwords
from common.services.plane import Plane


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
