"""Making a home out of an archive: beside the place first, checked there, and moved into place as a whole."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from common.core.audit_tags import EventTag
from common.migrations.runner import STEPS
from common.services import archive, audit, opening, sessions
from common.services.archive import ArchiveRefused, Hashing, Manifest, Member, Tell
from common.services.principal import system
from common.settings import Settings
from common.stores import sqlite_copy
from common.stores.database import SqliteStore
from common.version import version_text


def restore(settings: Settings, source: Path, tell: Tell, *, force: bool = False) -> tuple[Manifest, Path | None]:
    """Make the home out of the archive; what was in it, and where the home is that was there before.

    A home that is not empty stays as it is, unless ``force`` says to move it aside. All sessions of the restored home
    are over, because some may have been ended after the backup. Raises ArchiveRefused, StoreUnavailable, OSError.
    """
    home = settings.home.resolve()
    occupied = home.exists() and (not home.is_dir() or any(home.iterdir()))
    if occupied and not force:
        raise ArchiveRefused(f"RAGKEEPER_HOME: {home} is not empty; with --force it is moved aside.")
    database = settings.database_path.resolve()
    if settings.mysql is None and not database.is_relative_to(home):
        raise ArchiveRefused(
            f"RAGKEEPER_DB_URL: {database} is not in the home; restore without this setting, then move "
            f"{archive.DATABASE} there."
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    with _draft_of(home) as draft:
        manifest = _unpack(source, draft, tell)
        _check(draft, manifest, tell)
        if settings.mysql is None and archive.DATABASE in manifest.members:
            placed = draft / database.relative_to(home)
            placed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (draft / archive.DATABASE).rename(placed)
            _begin_anew(settings.model_copy(update={"home": draft, "database_path": placed}))
        os.sync()
        aside = _move_in(draft, home, occupied=occupied)
    return manifest, aside


@contextmanager
def _draft_of(home: Path) -> Iterator[Path]:
    """A private folder that is to become the home; gone at the end if it did not."""
    draft = Path(tempfile.mkdtemp(prefix=f".{home.name}.restore-", dir=home.parent))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _unpack(source: Path, draft: Path, tell: Tell) -> Manifest:
    """Write the archive's files and compare them with its manifest."""
    found: dict[str, Member] = {}
    manifest = None
    try:
        with tarfile.open(source, "r:") as tar:
            for header in tar:
                file = tar.extractfile(header) if header.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else None
                if file is None or manifest is not None:
                    raise ArchiveRefused(f"{source} has a member that no backup has: {header.name!r}.")
                if header.name == archive.MANIFEST:
                    manifest = archive.read_manifest(file)
                    continue
                found[header.name] = _write(draft, header.name, Hashing(file))
                tell(f"{len(found):,} files unpacked")
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveRefused(f"{source} is no whole backup: {error}.") from error
    if manifest is None:
        raise ArchiveRefused(f"{source} is no whole backup: its manifest is missing.")
    if found != manifest.members:
        wrong = sorted(
            name for name in found.keys() | manifest.members if found.get(name) != manifest.members.get(name)
        )
        raise ArchiveRefused(f"{source} is damaged: {wrong[0]!r} is not what was backed up ({len(wrong)} such files).")
    return manifest


def _write(draft: Path, name: str, content: Hashing) -> Member:
    """Write one file into the draft, nowhere else and over nothing. Raises ArchiveRefused."""
    first, *more = name.split("/")
    known = name in archive.DATABASES or name in archive.FILES
    below = first == archive.OBJECTS and more and {"", ".", ".."}.isdisjoint(more)
    if not (known or below) or "\0" in name:
        raise ArchiveRefused(f"The archive has a member that no backup has: {name!r}.")
    path = draft / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise ArchiveRefused(f"The archive has {name!r} twice.") from error
    with os.fdopen(descriptor, "wb") as file:
        content.copy_to(file)
    return content.member()


def _check(draft: Path, manifest: Manifest, tell: Tell) -> None:
    """Whether the databases are sound, have the rows that were counted, and are known to this program."""
    if manifest.rows.keys() != manifest.members.keys() & archive.DATABASES.keys():
        raise ArchiveRefused("The archive's manifest does not tell how many rows each database has.")
    for name, rows in manifest.rows.items():
        tell(f"checking {name}")
        if sqlite_copy.rows_of_whole(archive.DATABASES[name], draft / name) != rows:
            raise ArchiveRefused(f"The archive's {name!r} has other rows than were backed up.")
    if archive.DATABASE in manifest.rows:
        _check_age(draft / archive.DATABASE, manifest)


def _check_age(path: Path, manifest: Manifest) -> None:
    database = SqliteStore(path)
    try:
        known = "rk_migration" in database.tables()
        applied = {number for (number,) in database.all("SELECT number FROM rk_migration")} if known else set()
    finally:
        database.close()
    if not known or not applied <= {step.number for step in STEPS}:
        raise ArchiveRefused(
            f"The archive was written by {manifest.version}, and this program, {version_text()}, does not know its "
            "database; restore it with the program that wrote it."
        )


def _move_in(draft: Path, home: Path, *, occupied: bool) -> Path | None:
    if not occupied:
        draft.rename(home)
        return None
    aside = home.with_name(f"{home.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    home.rename(aside)
    try:
        draft.rename(home)
    except OSError:
        aside.rename(home)
        raise
    return aside


def _begin_anew(settings: Settings) -> None:
    """End all sessions, with an audit event, in the home of these settings."""
    plane = opening.open_plane(settings)
    try:
        with plane.database.transaction():
            ended = sessions.end_all(plane, "restored")
            audit.record(plane, EventTag.PLANE_RESTORE, system("ragkeeper restore"), after={"sessions_ended": ended})
    finally:
        for store in (plane.database, plane.cache, plane.documents):
            store.close()
