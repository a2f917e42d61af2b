"""The object store: bytes by bucket and name, as RAGFlow keeps them (bucket: knowledge base or folder)."""

from __future__ import annotations

import errno
import heapq
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict
from urllib.parse import quote, unquote

from common.core.errors import BadField, NotFound, StoreUnavailable
from common.stores.disk import is_full

#: The most names that one listing returns.
LIST_LIMIT = 1000
#: What a trial change stores: little, and still a block of a disk.
TRIAL_BYTES = 4096

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_NAME_BYTES = 1024
_PART = 200
_GOES_ON = "+"
# For so long it is tried to put an object into a bucket that is being deleted; a try takes microseconds.
_MOVE_S = 2.0
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


class StorageHealth(TypedDict):
    """What the store says of itself: ``storage`` is the kind of store, ``status`` is ``green`` or ``red``.

    ``error`` says what is wrong with one that is red, where that is known.
    """

    storage: str
    status: str
    error: NotRequired[str]


class ObjectNotFound(NotFound):
    """There is no object of this name in the bucket, or no such bucket."""

    def __init__(self, bucket: str, name: str) -> None:
        super().__init__(f"There is no object '{name}' in the bucket '{bucket}'.")


class Storage(Protocol):
    """What the plane asks of an object store. Every method raises ``StoreUnavailable`` (store ``objects``).

    Bucket names are S3's (1 to 63 letters, digits, ``.``, ``_``, ``-``), object names up to 1024 bytes of
    UTF-8 whose parts between slashes are neither empty nor ``.`` nor ``..``. Whatever else is asked for
    does not exist.
    """

    def prepare(self) -> None:
        """Makes what the store needs before its first use; repeating it changes nothing."""

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Stores an object, whole or not at all, replacing the one of that name; makes the bucket if need be.

        Raises ``BadField`` for a name that no object can have.
        """

    def get(self, bucket: str, name: str) -> bytes:
        """An object's content; raises ``ObjectNotFound``."""

    def delete(self, bucket: str, name: str) -> bool:
        """Removes an object; False when there was none."""

    def delete_some(self, bucket: str, names: Sequence[str]) -> int:
        """Removes up to LIST_LIMIT objects that a listing gave, and leaves the bucket; how many went."""

    def list(self, bucket: str, prefix: str = "", *, limit: int = 100, after: str = "") -> list[str]:
        """At most ``limit`` (1000) names that begin with ``prefix``, after ``after``, in code point order."""

    def delete_bucket(self, bucket: str, *, limit: int = 1000) -> int:
        """Deletes at most ``limit`` objects, at last the bucket; how many went. Call until it returns 0."""

    def bucket_exists(self, bucket: str) -> bool:
        """Whether there is such a bucket."""

    def try_change(self) -> None:
        """Stores a small object apart from all others and removes it: so it comes out that a store takes no changes."""

    def health(self) -> StorageHealth:
        """The store's own verdict, without writing; reaching it is not enough, callers judge ``status``."""


class FolderStorage:
    """The embedded object store: a folder for each bucket, a file for each object.

    File names are percent-encoded whole, so ``dir`` and ``dir/child`` live side by side and nothing leads
    out of the folder. An encoded name that is too long for a file goes on in a folder whose name ends in
    ``+``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        # No bucket's name begins with a dot. Deleting a bucket takes away nothing that is being written.
        self._incoming = self._root / ".incoming"

    def prepare(self) -> None:
        """See ``Storage.prepare``."""
        with _outages():
            for folder in (self._root, self._incoming):
                folder.mkdir(mode=0o700, exist_ok=True)
            # What a crash left half-written; nobody takes a day to write an object.
            yesterday = time.time() - 86_400
            for left in self._incoming.iterdir():
                with suppress(FileNotFoundError):
                    if left.stat().st_mtime < yesterday:
                        left.unlink()

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """See ``Storage.put``."""
        path = self._path(bucket, name)
        with self._reachable():
            temporary = self._new_file()
            try:
                _write_durably(temporary, content)
                self._move(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def get(self, bucket: str, name: str) -> bytes:
        """See ``Storage.get``."""
        path = self._path_if_possible(bucket, name)
        with self._reachable():
            if path is not None:
                with suppress(FileNotFoundError):
                    return path.read_bytes()
        raise ObjectNotFound(bucket, name)

    def delete(self, bucket: str, name: str) -> bool:
        """See ``Storage.delete``."""
        path = self._path_if_possible(bucket, name)
        with self._reachable():
            if path is None:
                return False
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            return True

    def delete_some(self, bucket: str, names: Sequence[str]) -> int:
        """See ``Storage.delete_some``."""
        return sum(self.delete(bucket, name) for name in names)

    def list(self, bucket: str, prefix: str = "", *, limit: int = 100, after: str = "") -> list[str]:
        """See ``Storage.list``; reads the names of the whole bucket, but keeps no more than it returns."""
        folder = self._bucket_if_possible(bucket)
        with self._reachable():
            if folder is None:
                return []
            names = (name for name in _names(folder) if name.startswith(prefix) and name > after)
            return heapq.nsmallest(max(0, min(limit, LIST_LIMIT)), names)

    def delete_bucket(self, bucket: str, *, limit: int = 1000) -> int:
        """See ``Storage.delete_bucket``."""
        folder = self._bucket_if_possible(bucket)
        with self._reachable():
            return 0 if folder is None else _clear(folder, limit)

    def bucket_exists(self, bucket: str) -> bool:
        """See ``Storage.bucket_exists``."""
        folder = self._bucket_if_possible(bucket)
        with self._reachable():
            return folder is not None and folder.is_dir()

    def try_change(self) -> None:
        """See ``Storage.try_change``: a file that is on the disk for a moment, beside what is being written."""
        with self._reachable():
            temporary = self._new_file()
            try:
                _write_durably(temporary, os.urandom(TRIAL_BYTES))
            finally:
                temporary.unlink(missing_ok=True)

    def health(self) -> StorageHealth:
        """See ``Storage.health``; a folder that can't be written to, or a full disk, is red."""
        with self._reachable():
            full = is_full(self._root)
        writable = os.access(self._root, os.W_OK | os.X_OK)
        return {"storage": "local", "status": "green" if writable and not full else "red"}

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Tells an empty store from one whose folder is gone, such as a volume that isn't mounted."""
        with _outages():
            if not self._root.is_dir():
                raise StoreUnavailable("objects", "its folder is missing")
            yield

    def _new_file(self) -> Path:
        """Where something may be written that is no object yet; there is nothing there."""
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        return self._incoming / uuid.uuid4().hex

    def _bucket(self, bucket: str) -> Path:
        check_bucket_name(bucket)
        return self._root / bucket

    def _bucket_if_possible(self, bucket: str) -> Path | None:
        try:
            return self._bucket(bucket)
        except BadField:
            return None

    def _path(self, bucket: str, name: str) -> Path:
        check_object_name(name)
        # Dots too: a part of a long name must not become "..".
        encoded = quote(name, safe="").replace(".", "%2E")
        parts = [encoded[start : start + _PART] for start in range(0, len(encoded), _PART)]
        return self._bucket(bucket).joinpath(*(part + _GOES_ON for part in parts[:-1]), parts[-1])

    def _path_if_possible(self, bucket: str, name: str) -> Path | None:
        try:
            return self._path(bucket, name)
        except BadField:
            return None

    def _move(self, temporary: Path, path: Path) -> None:
        folders = [folder for folder in path.parents if folder.is_relative_to(self._root)]
        ends_at = time.monotonic() + _MOVE_S
        while True:
            try:
                # Not the root: where it is missing, its disk may be.
                for folder in reversed(folders[:-1]):
                    folder.mkdir(mode=0o700, exist_ok=True)
                temporary.replace(path)
                break
            except FileNotFoundError:
                # Somebody who deletes the bucket took the folder away just now.
                if time.monotonic() > ends_at:
                    raise
        for folder in folders:
            # Deleted again already: nothing to make durable.
            with suppress(FileNotFoundError):
                _sync_folder(folder)


def check_bucket_name(name: str) -> None:
    """Raises ``BadField`` for a name that no bucket can have; a server may refuse more of them."""
    if not _BUCKET.fullmatch(name):
        raise BadField("A bucket's name is 1 to 63 letters, digits, dots, '_' and '-'.", field="bucket")


def check_object_name(name: str) -> None:
    """Raises ``BadField`` for a name that not every object store takes; MinIO's rules are the narrowest."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= _NAME_BYTES or "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise BadField(
            f"An object's name is 1 to {_NAME_BYTES} bytes of UTF-8, without empty, '.' or '..' parts.",
            field="name",
        )


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable("objects", type(error).__name__) from error


def _write_durably(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(folder: Path, before: str = "") -> Iterator[str]:
    """The names of all objects below a folder, in no order; a bucket that goes away meanwhile has none."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_GOES_ON):
                    yield from _names(Path(entry.path), before + entry.name.removesuffix(_GOES_ON))
                else:
                    yield unquote(before + entry.name)
    except FileNotFoundError:
        return


def _clear(folder: Path, limit: int) -> int:
    """Deletes at most ``limit`` files below a folder, the folder too once it is empty; how many went."""
    deleted = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if deleted >= limit:
                    return deleted
                if entry.is_dir(follow_symlinks=False):
                    deleted += _clear(Path(entry.path), limit - deleted)
                else:
                    Path(entry.path).unlink(missing_ok=True)
                    deleted += 1
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        # Somebody put an object there meanwhile: the next call finds it.
        if error.errno not in _NOT_EMPTY:
            raise
    return deleted
