"""The archive that ``backup`` writes and ``restore`` reads: a tar file whose last member says what the others are.

Members are the files of a home by their names there, the database always as ``ragkeeper.db``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.core.errors import PlaneError

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "ragkeeper.db"
OBJECTS = "objects"
# The embedded databases: member, and the store that it is.
DATABASES = {DATABASE: "metadata", "cache.sqlite3": "cache", "documents.sqlite3": "documents"}
# The keys, and which database the home has had (``database_mark``).
FILES = ("secret_key", "shared_secret_keys", "password_key.pem", "database_id")
_PIECE = 1024 * 1024
_MOST_MANIFEST_BYTES = 512 * 1024 * 1024

# Told what is being done, in words for the person who waits.
Tell = Callable[[str], None]


class ArchiveRefused(PlaneError):
    """The archive or the home is not as it has to be; the text says which and what to do."""

    status = 409


class Member(BaseModel):
    """A file of the archive."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str


class Manifest(BaseModel):
    """What is in an archive; ``rows`` are counts by database and table."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    version: str
    created_at: str
    not_included: tuple[str, ...] = ()
    rows: dict[str, dict[str, int]] = Field(default_factory=dict)
    members: dict[str, Member] = Field(default_factory=dict)

    def summary(self) -> str:
        """Its size in words."""
        objects = sum(name.startswith(f"{OBJECTS}/") for name in self.members)
        rows = sum(sum(counts.values()) for counts in self.rows.values())
        size = sum(member.size for member in self.members.values())
        return f"{rows:,} rows, {objects:,} objects, {size / 1e6:,.1f} MB, of {self.created_at}"


def read_manifest(file: IO[bytes]) -> Manifest:
    """Raises ArchiveRefused for a manifest that can't be read, or one of a later format."""
    content = file.read(_MOST_MANIFEST_BYTES)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ArchiveRefused("The archive's manifest can't be read.") from error
    if manifest.format > FORMAT:
        raise ArchiveRefused(f"The archive was written by {manifest.version}; this program is too old to read it.")
    return manifest


class Hashing:
    """A file that is read once, and its size and checksum on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self._size = 0

    def read(self, size: int = _PIECE) -> bytes:
        """Like that of the file."""
        piece = self._file.read(size)
        self._sum.update(piece)
        self._size += len(piece)
        return piece

    def member(self) -> Member:
        """What has been read so far."""
        return Member(size=self._size, sha256=self._sum.hexdigest())

    def copy_to(self, target: IO[Any]) -> None:
        """Read to the end."""
        while piece := self.read():
            target.write(piece)
