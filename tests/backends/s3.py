"""A real S3 server that verifies signatures (nanio): objects are files below its folder, so they outlive it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from urllib3.exceptions import HTTPError

from tests.backends.child import START_LIMIT_S, ChildServer
from tests.backends.one_for_all import OneForAll

BINARY = Path(sys.executable).with_name("nanio")


class S3Server(ChildServer):
    """One nanio. Its keys may be changed; they hold from the next start on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.access_key = "rag_flow"
        self.secret_key = uuid4().hex

    def command(self) -> list[str]:
        assert BINARY.exists(), "no nanio: make dev"
        data = str(self.folder / "data")
        return [str(BINARY), "serve", "--data-dir", data, "--host", self.host, "--port", str(self.port)]

    def environment(self) -> Mapping[str, str]:
        return {"NANIO_ACCESS_KEY": self.access_key, "NANIO_SECRET_KEY": self.secret_key}

    def answers(self) -> bool:
        try:
            self.client().list_buckets()
        except HTTPError:
            return False
        return True

    def client(self) -> Minio:
        """A client of the test's own, to look at what is stored."""
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(START_LIMIT_S), retries=False)
        return Minio(
            self.address, access_key=self.access_key, secret_key=self.secret_key, secure=False, http_client=pool
        )

    def section(self, **changes: Any) -> dict[str, Any]:
        """The section ``minio`` of a configuration file that names this server."""
        return {"host": self.address, "user": self.access_key, "password": self.secret_key, **changes}

    def names(self, bucket: str) -> list[str]:
        """What is stored in a bucket of the server."""
        return [str(each.object_name) for each in self.client().list_objects(bucket, recursive=True)]

    def empty(self) -> None:
        """Remove every bucket."""
        client = self.client()
        for bucket in client.list_buckets():
            names = [DeleteObject(name) for name in self.names(bucket.name)]
            assert not list(client.remove_objects(bucket.name, names))
            client.remove_bucket(bucket.name)


def s3_for_all(folder: Path) -> OneForAll:
    """One server for all homes: buckets have the names of datasets."""
    return OneForAll(S3Server(folder), "minio", f"nanio {version('nanio')}")


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """A server for one test alone."""
    folder.mkdir(parents=True, exist_ok=True)
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The one server of the whole run. Tests take ``s3_server``, which is empty."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_server(shared_s3: S3Server) -> S3Server:
    """The run's server, emptied."""
    shared_s3.empty()
    return shared_s3
