"""The sets of stores that the planes of the tests can stand on: embedded ones, or servers (``--stores=servers``).

A server that does not start fails the run. What is stored there lasts as long as the test that stored it. Where names
are not those of tenants, each home has a place of its own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.backends.elasticsearch import elasticsearch_for_all
from tests.backends.mariadb import MariadbHomes
from tests.backends.redis import RedisHomes
from tests.backends.s3 import s3_for_all

SETS = ("embedded", "servers")


class Backend(Protocol):
    """A server that keeps one kind of store for any number of homes."""

    def described(self) -> str:
        """Its name and version, for the head of the run. It is started by then."""

    def environment(self, home: Path) -> dict[str, str]:
        """The variables that lead a plane with this home to its place on the server; always to the same one."""

    def sections(self) -> dict[str, Any]:
        """The sections of a configuration file that lead there, where no variable can."""

    def take_down(self) -> None:
        """End it as a power cut would, until ``forget``."""

    def forward(self, seconds: float) -> None:
        """Let time pass for what expires there; a clock of the tests was moved."""

    def forget(self) -> None:
        """Bring it back if it is down, and empty every place, for the homes of the next test."""

    def stop(self) -> None:
        """End it."""


#: What is started for ``--stores=servers``: for each kind of store a backend, made in a folder for its files.
BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "metadata": MariadbHomes,
    "cache": RedisHomes,
    "documents": elasticsearch_for_all,
    "objects": s3_for_all,
}

_running: dict[str, Backend] = {}


def environment(home: Path) -> dict[str, str]:
    """The variables that lead a plane with this home to the servers of this run; none for embedded stores."""
    return {name: value for backend in _running.values() for name, value in backend.environment(home).items()}


def sections() -> dict[str, Any]:
    """The sections of a configuration file that lead a plane to the servers of this run."""
    return {name: value for backend in _running.values() for name, value in backend.sections().items()}


def is_server(kind: str) -> bool:
    """Whether stores of this kind are on a server in this run."""
    return kind in _running


def take_down(kind: str) -> bool:
    """End the server of this kind of store until the test is over; False where there is none."""
    if kind not in _running:
        return False
    _running[kind].take_down()
    return True


def forward(seconds: float) -> None:
    """Let time pass on the servers too."""
    for backend in _running.values():
        backend.forward(seconds)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stores", choices=SETS, default=SETS[0], help="the stores that planes stand on")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the servers, before the head of the run says which there are."""
    if session.config.getoption("stores") == "servers" and not session.config.getoption("collectonly"):
        folder = Path(tempfile.mkdtemp(prefix="ragkeeper-stores-"))
        session.config.add_cleanup(partial(_stop, folder))
        for kind, start in BACKENDS.items():
            place = folder / kind
            place.mkdir()
            _running[kind] = start(place)


def pytest_report_header(config: pytest.Config) -> str:
    """Which set this run is on."""
    servers = ", ".join(f"{kind} {backend.described()}" for kind, backend in _running.items())
    if config.getoption("numprocesses", None):
        # The processes that this one hands the tests to have servers of their own.
        _end_servers()
    return f"stores: {config.getoption('stores')}{f' ({servers})' if servers else ''}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the files of embedded stores, where there are none."""
    if config.getoption("stores") == "servers":
        about_files = [item for item in items if item.get_closest_marker("embedded")]
        config.hook.pytest_deselected(items=about_files)
        items[:] = [item for item in items if item not in about_files]


@pytest.fixture(autouse=True)
def _places_are_emptied() -> Iterator[None]:
    """Afterwards no home has anything left on a server."""
    yield
    for backend in _running.values():
        backend.forget()


def _end_servers() -> None:
    for backend in _running.values():
        backend.stop()
    _running.clear()


def _stop(folder: Path) -> None:
    _end_servers()
    shutil.rmtree(folder)
