"""A backup of a home, while the plane is running or not: databases, objects and keys in one private file.

Metadata is copied before the objects are. So a purge that runs meanwhile leaves its job in the copy, which does again,
after a restore, what is done already; the other way round rows would name objects that are not there.
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from common.core.audit_tags import EventTag
from common.core.errors import StoreUnavailable
from common.services import archive, audit, opening
from common.services.archive import ArchiveRefused, Hashing, Manifest, Member, Tell
from common.services.keys import audit_key_of
from common.services.principal import system
from common.settings import Settings
from common.stores import sqlite_copy
from common.version import version_text

_TOLD_EVERY_S = 0.5
# What file systems say that know no hard links (exFAT, SMB, many in user space), or allow none to this file.
_NO_HARD_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EMLINK})


def back_up(settings: Settings, target: Path, tell: Tell) -> Manifest:
    """Write the archive, readable by its owner only, whole or not at all; what is in it.

    Raises ArchiveRefused where there is nothing to back up, or a file of that name already; StoreUnavailable; OSError.
    """
    if target.exists():
        raise ArchiveRefused(f"{target} exists already; a backup overwrites nothing.")
    if not settings.home.is_dir():
        raise ArchiveRefused(f"RAGKEEPER_HOME: {settings.home}: there is no such folder, so nothing to back up.")
    if settings.mysql is None and not settings.database_path.exists():
        raise ArchiveRefused(f"{settings.database_path}: there is no database, so nothing to back up.")
    # Beside the target, where there has to be room for all of it; private, as everything in it is secret.
    with tempfile.TemporaryDirectory(prefix=".ragkeeper-backup-", dir=target.absolute().parent) as folder:
        draft = Path(folder, "archive.tar")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            manifest = _Writer(settings, file, Path(folder), tell).write()
            file.flush()
            os.fsync(file.fileno())
        try:
            _publish(draft, target)
        except FileExistsError as error:
            raise ArchiveRefused(f"{target} exists already; a backup overwrites nothing.") from error
    return manifest


def _publish(draft: Path, target: Path) -> None:
    """Give the finished archive its name. Raises FileExistsError where there is a file of that name; OSError."""
    try:
        # Unlike a renaming, this replaces nothing.
        os.link(draft, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
    else:
        return
    # The name is taken by an empty file, which is no archive yet, and that one is replaced.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        draft.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        if draft.exists():
            target.unlink()


def note(settings: Settings, target: Path, manifest: Manifest) -> None:
    """Note in the audit trail that a backup was made, once it is there. Raises StoreUnavailable.

    The archive holds every secret of the plane, so it is to be known which ones there are. It does not know itself.
    """
    database = opening.database_of(settings)
    after = {"archive": str(target.absolute()), "created_at": manifest.created_at}
    try:
        audit.record_offline(
            settings.home,
            database,
            audit_key_of(settings),
            time.time_ns() // 1_000_000,
            EventTag.PLANE_BACKUP,
            system("ragkeeper backup"),
            after=after,
        )
    finally:
        database.close()


def not_included(settings: Settings) -> tuple[str, ...]:
    """What belongs to this plane and is not in its home, in words."""
    servers = {
        "metadata": settings.mysql,
        "cache": settings.redis,
        "documents": settings.elasticsearch,
        "objects": settings.object_store,
    }
    outside = [f"{store} (on a server)" for store, section in servers.items() if section is not None]
    if settings.secret_keys:
        outside.append("the secret key (in the settings)")
    if settings.password_private_key is not None:
        outside.append(f"the private key for passwords ({settings.password_private_key})")
    return tuple(outside)


class _Writer:
    """Writes one archive, and keeps note of what it wrote."""

    def __init__(self, settings: Settings, file: io.BufferedWriter, folder: Path, tell: Tell) -> None:
        self._settings = settings
        self._folder = folder
        self._tell = tell
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by write
        self._members: dict[str, Member] = {}
        self._rows: dict[str, dict[str, int]] = {}

    def write(self) -> Manifest:
        with self._tar:
            for name, path in self._databases():
                self._add_database(name, path)
            for name in archive.FILES:
                self._add_file(name, self._settings.home / name)
            if self._settings.object_store is None:
                self._add_objects()
            manifest = Manifest(
                version=version_text(),
                created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                not_included=not_included(self._settings),
                rows=self._rows,
                members=self._members,
            )
            content = manifest.model_dump_json().encode()
            self._tar.addfile(_header(archive.MANIFEST, len(content)), io.BytesIO(content))
        return manifest

    def _databases(self) -> Iterator[tuple[str, Path]]:
        settings = self._settings
        if settings.mysql is None:
            yield archive.DATABASE, settings.database_path
        if settings.redis is None:
            yield "cache.sqlite3", settings.home / "cache.sqlite3"
        if settings.elasticsearch is None:
            yield "documents.sqlite3", settings.home / "documents.sqlite3"

    def _add_database(self, name: str, path: Path) -> None:
        # Those beside the metadata are made at the first start, which may not have come yet.
        if not path.exists():
            return
        self._tell(f"{archive.DATABASES[name]} ({path.stat().st_size / 1e6:,.0f} MB)")
        copy = self._folder / name
        store = archive.DATABASES[name]
        sqlite_copy.copy_running(store, path, copy)
        self._rows[name] = sqlite_copy.rows_of_whole(store, copy)
        self._add_file(name, copy)
        copy.unlink()

    def _add_objects(self) -> None:
        told_at = time.monotonic()
        for path in _files_below(self._settings.home / archive.OBJECTS):
            self._add_file(path.relative_to(self._settings.home).as_posix(), path)
            if time.monotonic() > told_at + _TOLD_EVERY_S:
                told_at = time.monotonic()
                self._tell(f"objects ({len(self._members):,} files)")

    def _add_file(self, name: str, path: Path) -> None:
        """Add a file as it is; one that has gone meanwhile is not there."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        with os.fdopen(descriptor, "rb") as file:
            # Objects and keys are replaced as a whole and never written to, so this one stays as it is.
            source = Hashing(file)
            self._tar.addfile(_header(name, os.fstat(descriptor).st_size), source)
            self._members[name] = source.member()


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = size, 0o600, int(time.time())
    return header


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file, in order, but what is still being written: that is in a folder whose name begins with a dot."""
    if not folder.is_dir():
        raise StoreUnavailable("objects", f"{folder} is missing")
    for place, folders, names in os.walk(folder, onerror=_tell_unless_gone):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        yield from (Path(place, name) for name in sorted(names))


def _tell_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
