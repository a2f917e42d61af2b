"""Breaking the stores for real: the embedded ones each in several ways, the servers by ending them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.services.plane import Plane
from tests.backends import stores

#: Each store's file or folder below the home.
PLACES = {
    "metadata": "ragkeeper.db",
    "cache": "cache.sqlite3",
    "documents": "documents.sqlite3",
    "objects": "objects",
}
#: What RAGFlow's healthz calls each.
WIRE_NAMES = {"metadata": "db", "cache": "redis", "documents": "doc_engine", "objects": "storage"}


#: What the list of services calls a server whose section is in the file.
SERVER_NAMES = {"documents": "elasticsearch", "objects": "minio"}


def listed_as(store: str) -> str:
    """The name of a store in the list of services: that of its section where the file has one."""
    return SERVER_NAMES[store] if store in SERVER_NAMES and stores.is_server(store) else store


def reason_of_absence(store: str, embedded: str) -> str:
    """What operators are told of a store that was taken away."""
    return "the connection was refused" if stores.is_server(store) else embedded


def place_of(plane: Plane, store: str) -> Path:
    return plane.settings.home / PLACES[store]


def take_away(plane: Plane, store: str) -> None:
    """Remove the store's file or folder; end its server, until the test is over."""
    if stores.take_down(store):
        return
    path = place_of(plane, store)
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)


def put_a_folder(plane: Plane, store: str) -> None:
    """Put a folder where the file was; a file where the folder was."""
    take_away(plane, store)
    if stores.is_server(store):
        return
    if store == "objects":
        place_of(plane, store).write_bytes(b"")
    else:
        place_of(plane, store).mkdir()


def put_garbage(plane: Plane, store: str) -> None:
    """Put a file there that holds no database."""
    take_away(plane, store)
    if not stores.is_server(store):
        place_of(plane, store).write_bytes(b"garbage " * 1000)


def put_an_empty_file(plane: Plane, store: str) -> None:
    """Put an empty file there."""
    take_away(plane, store)
    place_of(plane, store).write_bytes(b"")


BREAKS: tuple[Callable[[Plane, str], None], ...] = (take_away, put_a_folder, put_garbage, put_an_empty_file)


@contextmanager
def written_by_another(path: Path) -> Iterator[None]:
    """While another connection holds the write lock."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


@contextmanager
def locked_against_everybody(path: Path) -> Iterator[None]:
    """While another process's connection keeps even readers out: out of WAL mode, in an exclusive transaction."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()
