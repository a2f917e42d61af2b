"""Trial changes on an S3 server: an object is stored and removed again, and nothing of it adds up there."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable
from typing import NamedTuple

from minio import Minio
from minio.error import S3Error

log = logging.getLogger(__name__)


# What was to be removed is not there, with its bucket or without.
_GONE = frozenset({"NoSuchBucket", "NoSuchKey", "NoSuchVersion"})
# A version that the keys, or a lock on the object, keep.
_KEPT = frozenset({"AccessDenied", "InvalidRequest", "MethodNotAllowed"})


class Stored(NamedTuple):
    """An object on the server; ``version`` is None where its bucket keeps no old versions."""

    bucket: str
    name: str
    version: str | None


class Trial:
    """The trial changes of one process, one after the other.

    What could not be removed is removed before anything else is stored. Where the keys may remove no version, the one
    that this finds out with is left, and no further trial is made.
    """

    def __init__(self) -> None:
        self._left: Stored | None = None
        self._leaves_versions = False

    def make(self, client: Minio, store: Callable[[str], Stored]) -> None:
        """Have ``store`` store an object of the name that it is given, and remove it. Raises what the client does."""
        if self._leaves_versions:
            return
        if self._left is not None:
            self._remove(client, self._left)
        if not self._leaves_versions:
            self._left = store(_own_name())
            self._remove(client, self._left)

    def _remove(self, client: Minio, left: Stored) -> None:
        try:
            client.remove_object(left.bucket, left.name, left.version)
        except S3Error as error:
            if error.code not in _GONE:
                self._leave_version(client, left, error)
        self._left = None

    def _leave_version(self, client: Minio, left: Stored, error: S3Error) -> None:
        if left.version is None or error.code not in _KEPT:
            raise error
        client.remove_object(left.bucket, left.name)
        self._leaves_versions = True
        log.warning("no trial changes of the object store: versions of objects can't be removed (%s)", error.code)


def _own_name() -> str:
    """A name that no other living process has."""
    return f"{re.sub('[^A-Za-z0-9.-]', '-', socket.gethostname())}-{os.getpid()}"
