"""Which database a home has had: a start finds out by it that the database was emptied, and makes no other one.

The database has a random number of its own (``rk_state``), and each home that has used it notes that in a file, with
where it was. So a home whose database has no tables of ours is told from a first start. Homes that share a database, or
get another one that has our tables, take down its number; one elsewhere that has none is a new one.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

from common.core.errors import StoreUnavailable
from common.models.operation import Migration, State
from common.settings import Settings
from common.stores.database import STORE, Database, Taken

log = logging.getLogger(__name__)

#: The file in the home; a backup has it too.
NAME = "database_id"


class DatabaseEmptied(StoreUnavailable):
    """The database has nothing of what this home knows it had; nothing is made until a person has decided."""

    def __init__(self, settings: Settings) -> None:
        is_missing = settings.mysql is None and not settings.database_path.exists()
        what = f"{settings.database_path} is missing" if is_missing else "the database has none of Ragkeeper's tables"
        super().__init__(
            STORE,
            f"{what}, and this home has used one that was not empty: bring the data back from a backup, "
            f"or remove {settings.home / NAME} and start again to begin with an empty database",
            lost=False,
        )


def is_left(settings: Settings) -> bool:
    """Whether this home has had the database that the settings name."""
    try:
        return (settings.home / NAME).read_text().splitlines()[1:] == [_place(settings)]
    except FileNotFoundError:
        return False


def _place(settings: Settings) -> str:
    if settings.mysql is not None:
        return f"mysql {settings.mysql.host} {settings.mysql.port} {settings.mysql.name}"
    path = settings.database_path
    # A home may be moved, and a backup brought back elsewhere.
    return f"sqlite {path.relative_to(settings.home) if path.is_relative_to(settings.home) else path}"


def check(settings: Settings, database: Database) -> None:
    """Raises DatabaseEmptied where the home has had a database, and this one has never been migrated."""
    # Looked at first: the tables are there before the mark is.
    if not is_left(settings):
        return
    if settings.mysql is None and not settings.database_path.exists():
        raise DatabaseEmptied(settings)
    table = Migration._meta.table_name
    if table not in database.tables() or database.one(f"SELECT 1 FROM {table} LIMIT 1") is None:
        raise DatabaseEmptied(settings)


def leave(settings: Settings, database: Database) -> None:
    """Note in the home which database it has. Raises StoreUnavailable."""
    path, content = settings.home / NAME, f"{_number_of(database)}\n{_place(settings)}\n".encode()
    try:
        if not path.exists() or path.read_bytes() != content:
            _replace(path, content)
    except OSError as error:
        log.warning("%s can't be written (%s): an emptied database would be taken for a new one", path, error.strerror)


def _number_of(database: Database) -> int:
    """The database's number, which it gets when it is first asked for."""
    question = "SELECT value FROM rk_state WHERE name = ?"
    row = database.one(question, (NAME,))
    if row is None:
        # Of several processes that start at once, one is first.
        with suppress(Taken):
            database.insert(State, name=NAME, value=secrets.randbits(63))
        row = database.one(question, (NAME,))
    if row is None:
        raise StoreUnavailable(STORE, "it does not keep what is written", lost=False)
    return int(row[0])


def _replace(path: Path, content: bytes) -> None:
    """Write the file with mode 0600, whole at any moment and safe on the disk."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
