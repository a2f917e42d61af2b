"""What this home has written into the audit trail, noted outside the database: so it is missed if somebody takes an
event out before it is sealed, with every trace that the database has of it.

Each process appends the ids of its events once they are committed. A file that has grown becomes the older one, once
all that the one before names was looked for. What the trail has no more is kept for ``audit verify``.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from common.core.audit_chain import Keys, uids_from
from common.services.audit_sealing import last_drop
from common.services.plane import Plane
from common.stores.database import Database

log = logging.getLogger(__name__)

#: The newest ids, those before, and those that were looked for and not found.
WRITTEN_FILE = "audit-written.log"
OLDER_FILE = "audit-written.older.log"
MISSING_FILE = "audit-missing.log"
#: A file has grown when it is so large: 36,000 events.
GROWN_BYTES = 1 << 20
_BATCH = 500
# One that the end of a machine has cut stands before the next one, in its line.
_LINE = re.compile(rb"([0-9a-f]{28})\n\Z")


def note(home: Path, database: Database, uid: str) -> None:
    """Have the event of this id noted with the commit of the running transaction."""
    database.after_commit(partial(_append, home / WRITTEN_FILE, uid))


def _append(path: Path, uid: str) -> None:
    try:
        descriptor = _opened_for_writing(path)
        try:
            os.write(descriptor, f"{uid}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        log.warning("audit event %s is not noted in the home: %s", uid, error)


def _opened_for_writing(path: Path) -> int:
    """A descriptor of the file, which is its home's owner's also where a command of root's has made it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def turn_over(plane: Plane) -> None:
    """Begin a new file where the present one has grown. Raises StoreUnavailable."""
    home = plane.settings.home
    present = home / WRITTEN_FILE
    try:
        if not _has_grown(present):
            return
        with _alone(home) as alone:
            if alone and _has_grown(present):
                _keep_missing(plane)
                present.replace(home / OLDER_FILE)
    except OSError as error:
        log.warning("the note of written audit events goes on growing: %s", error)


def _keep_missing(plane: Plane) -> None:
    """Note what the older file names and the trail has no more, for as long as the trail would have had it."""
    home = plane.settings.home
    count, uid = 0, ""
    with _opened((home / OLDER_FILE,)) as ids:
        for count, uid in enumerate(missing(plane.database, plane.keys.audit_keys(), ids), 1):  # noqa: B007 - the last ones
            _append(home / MISSING_FILE, uid)
    if count:
        log.error("%d written audit events are gone, %s among them; run `ragkeeper audit verify`", count, uid)


def is_noted(home: Path) -> bool:
    """Whether there is a note of what this home has written lately."""
    return any((home / name).exists() for name in (WRITTEN_FILE, OLDER_FILE))


@contextmanager
def written(home: Path) -> Iterator[Iterator[str]]:
    """The ids of what had been written and noted by now; read as they are asked for."""
    # In this order: what becomes older, or is found missing, meanwhile is met twice rather than never.
    with _opened(home / name for name in (WRITTEN_FILE, OLDER_FILE, MISSING_FILE)) as ids:
        yield ids


def missing(database: Database, keys: Keys, ids: Iterator[str]) -> Iterator[str]:
    """Those that the trail has no more, and that retention has not dropped. Raises StoreUnavailable."""
    while batch := list(islice(ids, _BATCH)):
        marks = ", ".join("?" * len(batch))
        rows = database.all(f"SELECT uid FROM rk_audit_event WHERE uid IN ({marks})", batch)
        gone = dict.fromkeys(batch).keys() - {uid for (uid,) in rows}
        if gone:
            dropped = last_drop(database, keys)
            kept_from = uids_from(dropped.newest_at + 1) if dropped else ""
            yield from sorted(uid for uid in gone if uid >= kept_from)


def _has_grown(path: Path) -> bool:
    return path.exists() and path.stat().st_size >= GROWN_BYTES


@contextmanager
def _opened(paths: Iterable[Path]) -> Iterator[Iterator[str]]:
    with ExitStack() as stack:
        files = []
        for path in paths:
            with suppress(FileNotFoundError):
                file = stack.enter_context(path.open("rb"))
                files.append((file, os.fstat(file.fileno()).st_size))
        yield (uid for file, size in files for uid in _ids(file, size))


def _ids(file: BinaryIO, size: int) -> Iterator[str]:
    for line in file:
        found = _LINE.search(line)
        if found is not None:
            yield found[1].decode()
        if file.tell() >= size:
            return


@contextmanager
def _alone(home: Path) -> Iterator[bool]:
    """Whether no other process of the home is here; none comes until the end."""
    descriptor = _opened_for_writing(home / f"{WRITTEN_FILE}.lock")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
