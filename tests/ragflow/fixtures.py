"""Worlds on a database that a RAGFlow was first in: one plane, both servers, and a RAGFlow beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from admin.server.app import create_app as create_admin
from api.app import create_app as create_api
from common.services import opening
from common.services.plane import Plane
from tests.backends.mariadb import MariadbServer
from tests.people import Clock, Person, Port, World, settings_for
from tests.ragflow.database import RagflowDatabase, on_mariadb, on_sqlite
from tests.ragflow.people import PASSWORD, Population, RagflowUser, populate
from tests.ragflow.program import Ragflow
from tests.ragflow.schema import VERSIONS

SECRET_KEY = "a key that both programs were given and long enough"
#: RAGFlow lives on MySQL; SQLite shows that nothing hangs on it.
KINDS = (
    *(pytest.param(("mariadb", version), id=f"mariadb-{version}") for version in VERSIONS),
    pytest.param(("sqlite", "0.22"), id="sqlite-0.22", marks=pytest.mark.embedded),
)
#: For tests in which RAGFlow's version makes no difference.
ONE_VERSION = pytest.mark.parametrize("site", [KINDS[0], KINDS[-1]], indirect=True)


@dataclass
class Site:
    """A RAGFlow's database before Ragkeeper comes: ``environment`` names it, ``home`` is where the plane will be."""

    ragflow: Ragflow
    home: Path
    environment: dict[str, str]

    @property
    def database(self) -> RagflowDatabase:
        return self.ragflow.database

    def open(self, clock: Clock) -> Plane:
        """The plane on it; the first one migrates."""
        return opening.open_plane(settings_for(self.home, **self.environment), now_ms=clock)


@dataclass
class SharedWorld(World):
    """A world beside a RAGFlow, whose people are ``population``."""

    site: Site
    population: Population

    @property
    def ragflow(self) -> Ragflow:
        """The other program, at this moment."""
        self.site.ragflow.now_ms = self.plane.now_ms()
        return self.site.ragflow

    def known(self, name: str) -> Person:
        """Somebody whom RAGFlow made, as a person who asks these servers."""
        return self.as_person(self.population[name])

    def as_person(self, user: RagflowUser) -> Person:
        """The same for an account that has RAGFlow's password of these tests."""
        return Person(self, user.email, PASSWORD, user.id)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Site]:
    """A RAGFlow's database without rows."""
    engine, version = request.param
    home = tmp_path / "home"
    environment = {"RAGKEEPER_SECRET_KEY": SECRET_KEY}
    with ExitStack() as stack:
        if engine == "sqlite":
            database = stack.enter_context(on_sqlite(home / "ragkeeper.db", version))
        else:
            server: MariadbServer = request.getfixturevalue("mariadb_server")
            schema = server.make_schema()
            stack.callback(server.drop_schema, schema)
            database = stack.enter_context(on_mariadb(server, schema, version))
            environment["RAGKEEPER_DB_URL"] = server.url(schema)
        database.make_tables()
        yield Site(Ragflow(database, SECRET_KEY, clock()), home, environment)


@pytest.fixture
def population(site: Site, clock: Clock) -> Population:
    """The people of that database."""
    return populate(site.database, invited_at_ms=clock())


@pytest.fixture
def shared(site: Site, population: Population, clock: Clock) -> Iterator[SharedWorld]:
    """A world on it."""
    plane = site.open(clock)
    yield SharedWorld(plane, Port(create_admin(plane)), Port(create_api(plane)), site, population)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()
