"""Fixtures that all HTTP tests share: a plane in a home of its own, both apps on it, and people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from admin.server.app import create_app as create_admin
from api.app import create_app as create_api
from common.services import opening
from common.services.plane import Plane
from tests.people import Clock, Person, Port, World, settings_for, settle


@pytest.fixture
def clock() -> Clock:
    """A clock that tests move."""
    return Clock()


@pytest.fixture
def plane(tmp_path: Path, clock: Clock) -> Iterator[Plane]:
    """A plane on fresh embedded stores."""
    settle(tmp_path / "home")
    opened = opening.open_plane(settings_for(tmp_path / "home"), now_ms=clock)
    yield opened
    for uses in (opened.token_uses, opened.session_uses):
        uses.wait(10)
    for store in (opened.database, opened.cache, opened.documents):
        store.close()


@pytest.fixture
def admin(plane: Plane) -> Port:
    """The admin server, spoken to over HTTP semantics."""
    return Port(create_admin(plane))


@pytest.fixture
def api(plane: Plane) -> Port:
    """The user API."""
    return Port(create_api(plane))


@pytest.fixture
def world(plane: Plane, admin: Port, api: Port) -> World:
    """People to try things with: ``world.root`` is the first superuser."""
    return World(plane, admin, api)


@pytest.fixture
def root(world: World) -> Person:
    """The first superuser, logged in on the admin server."""
    return world.root
