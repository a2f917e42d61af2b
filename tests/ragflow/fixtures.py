"""Worlds on a database that a RAGFlow was first in: one plane, both servers, and a RAGFlow beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from common.services import opening
from common.services.plane import Plane
from tests.backends.mariadb import MariadbServer, Schemas
from tests.people import START_MS, Clock, Person, World, settings_for, settle
from tests.ragflow.database import RagflowDatabase, on_mariadb, on_sqlite
from tests.ragflow.people import PASSWORD, Population, RagflowUser, populate
from tests.ragflow.program import Ragflow
from tests.ragflow.schema import VERSIONS, Version

SECRET_KEY = "a key that both programs were given and long enough"
#: RAGFlow lives on MySQL; SQLite shows that nothing hangs on it.
KINDS = (
    *(pytest.param(("mariadb", version), id=f"mariadb-{version}") for version in VERSIONS),
    pytest.param(("sqlite", "0.22"), id="sqlite-0.22", marks=pytest.mark.embedded),
)
#: For tests in which RAGFlow's version makes no difference.
ONE_VERSION = pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], indirect=True)


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
        settle(self.home)
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


class Grounds:
    """Schemas of one server that a RAGFlow of each version was in; they are put back after each use."""

    def __init__(self, server: MariadbServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._schemas: dict[tuple[Version, bool], Schemas] = {}
        self._populations: dict[str, Population] = {}

    @contextmanager
    def site(self, version: Version, home: Path, *, moved_in: bool) -> Iterator[Site]:
        """A site that has no rows; or one with people, on which a plane was already opened."""
        schemas = self._schemas.setdefault(
            (version, moved_in), Schemas(self._server, partial(self._make, version, moved_in))
        )
        schema = schemas.take()
        try:
            with on_mariadb(self._server, schema, version) as database:
                yield site_on(database, home, RAGKEEPER_DB_URL=self._server.url(schema))
        finally:
            schemas.give_back(schema)

    def population(self, site: Site) -> Population:
        """The people of a site on which a plane was opened."""
        return self._populations[site.environment["RAGKEEPER_DB_URL"]]

    def _make(self, version: Version, moved_in: bool, schema: str) -> None:
        with on_mariadb(self._server, schema, version) as database:
            database.make_tables()
            if moved_in:
                url = self._server.url(schema)
                site = site_on(database, self._folder / schema / "home", RAGKEEPER_DB_URL=url)
                self._populations[url] = move_in(site, Clock())


def site_on(database: RagflowDatabase, home: Path, **environment: str) -> Site:
    """The site of a database that a RAGFlow has."""
    return Site(Ragflow(database, SECRET_KEY, START_MS), home, {"RAGKEEPER_SECRET_KEY": SECRET_KEY, **environment})


def move_in(site: Site, clock: Clock) -> Population:
    """Give a site its people and open a plane on it; whom it has."""
    population = populate(site.database, invited_at_ms=clock())
    close(site.open(clock))
    return population


def close(plane: Plane) -> None:
    """Close what a plane has open."""
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


@contextmanager
def site_on_sqlite(version: Version, home: Path) -> Iterator[Site]:
    """A site that has no rows, as a RAGFlow would have it if it ran on SQLite."""
    with on_sqlite(home / "ragkeeper.db", version) as database:
        database.make_tables()
        yield site_on(database, home)


@pytest.fixture(scope="session")
def grounds(mariadb_server: MariadbServer, tmp_path_factory: pytest.TempPathFactory) -> Grounds:
    """The schemas of the whole run."""
    return Grounds(mariadb_server, tmp_path_factory.mktemp("grounds"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, Version]:
    """The engine, and the version of the RAGFlow that is on it."""
    found: tuple[str, Version] = request.param
    return found


@pytest.fixture
def site(request: pytest.FixtureRequest, kind: tuple[str, Version], tmp_path: Path) -> Iterator[Site]:
    """A RAGFlow's database without rows."""
    engine, version = kind
    if engine == "sqlite":
        made = site_on_sqlite(version, tmp_path / "home")
    else:
        grounds: Grounds = request.getfixturevalue("grounds")
        made = grounds.site(version, tmp_path / "home", moved_in=False)
    with made as site:
        yield site


@pytest.fixture
def population(site: Site, clock: Clock) -> Population:
    """The people of that database."""
    return populate(site.database, invited_at_ms=clock())


@pytest.fixture
def shared(
    request: pytest.FixtureRequest, kind: tuple[str, Version], tmp_path: Path, clock: Clock
) -> Iterator[SharedWorld]:
    """A world on such a database, with people."""
    engine, version = kind
    with ExitStack() as stack:
        if engine == "sqlite":
            site = stack.enter_context(site_on_sqlite(version, tmp_path / "home"))
            population = move_in(site, clock)
        else:
            grounds: Grounds = request.getfixturevalue("grounds")
            site = stack.enter_context(grounds.site(version, tmp_path / "home", moved_in=True))
            population = grounds.population(site)
        plane = site.open(clock)
        stack.callback(close, plane)
        yield SharedWorld(plane, site, population)
