"""Fixtures that all HTTP tests share: a plane in a home of its own, both apps on it, and people."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import argon2
import pytest
from cryptography.hazmat.primitives import serialization

from common.migrations.runner import migrate
from common.services import opening
from common.services.plane import Plane
from common.stores.database import SqliteStore
from tests.backends import stores
from tests.people import Clock, Person, Port, World, close, settings_for, settle


@pytest.fixture(scope="session", autouse=True)
def costly_once() -> Iterator[None]:
    """What takes longer than many a test is computed once: the check of a key, and a password with a known salt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialization, "load_pem_private_key", cache(serialization.load_pem_private_key))
        patch.setattr(argon2._password_hasher, "verify_secret", cache(argon2._password_hasher.verify_secret))
        patch.setattr(hashlib, "scrypt", cache(hashlib.scrypt))
        yield


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes | None:
    """The file of an embedded database with its tables made, which takes longer than many a test; None on a server."""
    if stores.is_server("metadata"):
        return None
    path = tmp_path_factory.mktemp("migrated") / "ragkeeper.db"
    with closing(SqliteStore(path)) as database:
        migrate(database, Clock()())
    return path.read_bytes()


@pytest.fixture
def clock() -> Clock:
    """A clock that tests move."""
    return Clock()


@pytest.fixture
def plane(tmp_path: Path, clock: Clock, migrated: bytes | None) -> Iterator[Plane]:
    """A plane on fresh stores."""
    settle(tmp_path / "home")
    if migrated is not None:
        (tmp_path / "home" / "ragkeeper.db").write_bytes(migrated)
    opened = opening.open_plane(settings_for(tmp_path / "home"), now_ms=clock)
    yield opened
    close(opened)


@pytest.fixture(scope="session")
def made() -> dict[tuple[int, bool], tuple[str, str]]:
    """The passwords and hashes of ``World``, for all tests of this process."""
    return {}


@pytest.fixture
def world(plane: Plane, made: dict[tuple[int, bool], tuple[str, str]]) -> World:
    """People to try things with: ``world.root`` is the first superuser."""
    return World(plane, made=made)


@pytest.fixture
def admin(world: World) -> Port:
    """The admin server."""
    return world.admin


@pytest.fixture
def api(world: World) -> Port:
    """The user API."""
    return world.api


@pytest.fixture
def others(world: World) -> Iterator[list[World]]:
    """The servers of two further processes on the same stores: whatever a process keeps in memory, each has its own."""
    planes = [opening.open_plane(world.plane.settings, now_ms=world.plane.now_ms) for _ in range(2)]
    yield [World(plane) for plane in planes]
    for plane in planes:
        close(plane)


@pytest.fixture
def root(world: World) -> Person:
    """The first superuser, logged in on the admin server."""
    return world.root
