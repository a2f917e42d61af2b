"""A stand-in for Elasticsearch: osmem (an OpenSearch in memory) behind a front that speaks as Elasticsearch does.

The front takes the content types that Elasticsearch's clients send, asks for user and password, records what it was
asked, and can answer in place of the server with what osmem never says: a red cluster, a full disk, too many requests.
What is stored ends with the server's process.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.backends.child import START_LIMIT_S, ChildServer
from tests.backends.one_for_all import OneForAll
from tests.ports import free_ports

BINARY = Path(sysconfig.get_path("purelib")) / "osmem_server" / "bin" / "osmem-server"
#: What the front says in place of the server: a status and a body; None to let the server answer.
Answer = tuple[int, dict[str, Any]] | None
# The number of a block, and those that are of the whole cluster.
_BLOCK = re.compile(r"/(\d+)/")
_OF_THE_CLUSTER = ("1", "2", "6", "13")
_WRITES = re.compile(r"(PUT|POST|DELETE) .*(_bulk|_delete_by_query|_doc)\b|PUT /[a-z]")


class Osmem(ChildServer):
    """The server itself."""

    def command(self) -> list[str]:
        assert BINARY.exists(), "no osmem-server: make dev"
        return [str(BINARY), "-addr", self.address, "-no-stdin-watch"]

    def answers(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=START_LIMIT_S)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class ElasticsearchServer:
    """The server behind its front. ``port`` is the front's, and stays the same over every restart."""

    def __init__(self, folder: Path) -> None:
        self.osmem = Osmem(folder)
        self.host = "127.0.0.1"
        self.port = free_ports(1)[0]
        self.username = "elastic"
        self.password = uuid4().hex
        self.product = "Elasticsearch"
        self.asked: list[str] = []
        self._instead: Callable[[str], Answer] = _nothing_instead
        self._front: _Front | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is there to be asked."""
        return self._front is not None

    @property
    def url(self) -> str:
        """What ``es.hosts`` takes."""
        return f"http://{self.host}:{self.port}"

    def section(self, **changes: Any) -> dict[str, Any]:
        """The section ``es`` of a configuration file that names this server."""
        return {"hosts": self.url, "username": self.username, "password": self.password, **changes}

    def start(self) -> None:
        """Start it; returns when it answers."""
        self.osmem.start()
        # Its first index takes it most of a second.
        self.ask("PUT", "/warm-up", {})
        self.ask("DELETE", "/warm-up")
        self._front = _Front(self)

    def stop(self) -> None:
        """End both; what was stored is gone."""
        if self._front is not None:
            self._front.close()
            self._front = None
        self.osmem.stop()

    def kill(self) -> None:
        """The same: nothing of it outlives the process anyway."""
        self.stop()

    def well(self) -> None:
        """Let the server answer everything again, as Elasticsearch."""
        self._instead = _nothing_instead
        self.product = "Elasticsearch"

    def answer(self, pattern: str, status: int, body: dict[str, Any]) -> None:
        """Answer so whatever matches; what is matched is the method and the path (``GET /_cluster/health``)."""
        expression = re.compile(pattern)
        self._instead = lambda asked: (status, body) if expression.search(asked) else None

    def colour(self, status: str) -> None:
        """Let the cluster be green, yellow or red."""
        body = {"cluster_name": "tests", "status": status, "number_of_nodes": 1, "timed_out": False}
        self.answer(r"GET /_cluster/health", 200, body)

    def refuse_writes(self, status: int, kind: str, reason: str) -> None:
        """Refuse what writes and answer what reads; where the reason has the number of a block, tell of it."""
        body = error_body(status, kind, reason)
        number = _BLOCK.search(reason)

        def instead(asked: str) -> Answer:
            if number and asked.startswith("GET /_cluster/state/blocks"):
                return 200, self._blocks(number[1], reason)
            return (status, body) if _WRITES.match(asked) else None

        self._instead = instead

    def _blocks(self, number: str, description: str) -> dict[str, Any]:
        """The blocks of a cluster, as Elasticsearch tells them: of all of it, or of each of its indices."""
        block = {number: {"description": description, "retryable": False, "levels": ["metadata_write", "write"]}}
        if number in _OF_THE_CLUSTER:
            return {"blocks": {"global": block}}
        return {"blocks": {"indices": dict.fromkeys(self.indices(), block)}}

    def instead(self, asked: str) -> Answer:
        """What the front is to say in place of the server."""
        return self._instead(asked)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request of the test's own, past the front; the answer's JSON."""
        content = None if body is None else json.dumps(body).encode()
        status, answer = self.pass_on(method, path, content, "application/json")
        assert status < 400, answer
        return json.loads(answer) if answer else None

    def indices(self) -> list[str]:
        """The names of what is there."""
        return sorted(each["index"] for each in self.ask("GET", "/_cat/indices?format=json"))

    def empty(self) -> None:
        """Remove every index, and whatever the front was told."""
        self.well()
        self.asked.clear()
        for index in self.indices():
            self.ask("DELETE", f"/{index}")

    def pass_on(self, method: str, path: str, body: bytes | None, content_type: str) -> tuple[int, bytes]:
        """Ask the server behind the front. Raises OSError or HTTPException where it is gone."""
        connection = http.client.HTTPConnection(self.osmem.host, self.osmem.port, timeout=START_LIMIT_S)
        try:
            connection.request(method, path, body, {"Content-Type": content_type} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def elasticsearch_for_all(folder: Path) -> OneForAll:
    """One server for all homes: indices have the names of tenants."""
    said = f"osmem-server {version('osmem-server')} in the place of Elasticsearch"
    return OneForAll(ElasticsearchServer(folder), "es", said)


def _nothing_instead(_: str) -> Answer:
    return None


def error_body(status: int, kind: str, reason: str) -> dict[str, Any]:
    """An error as Elasticsearch words it."""
    cause = {"type": kind, "reason": reason}
    return {"error": {**cause, "root_cause": [cause]}, "status": status}


class _Front:
    """The HTTP server before osmem, in threads of this process."""

    def __init__(self, server: ElasticsearchServer) -> None:
        self._connections: set[socket.socket] = set()
        connections = self._connections

        class Handler(_Handler):
            behind = server

            def setup(self) -> None:
                connections.add(self.request)
                super().setup()

            def finish(self) -> None:
                connections.discard(self.request)
                super().finish()

        self._http = ThreadingHTTPServer((server.host, server.port), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port and every connection."""
        self._http.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    behind: ElasticsearchServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def do_GET(self) -> None:
        server = self.behind
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
        asked = f"{self.command} {self.path}"
        server.asked.append(asked)
        try:
            status, answer = self._answer(asked, body)
        except (OSError, http.client.HTTPException):
            # The server is gone, and so is whoever stands in its place.
            self.close_connection = True
            return
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n"
        if server.product:
            head += f"X-Elastic-Product: {server.product}\r\n"
        self.wfile.write(head.encode() + b"\r\n" + (b"" if self.command == "HEAD" else answer))

    do_DELETE = do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

    def _answer(self, asked: str, body: bytes | None) -> tuple[int, bytes]:
        server = self.behind
        expected = base64.b64encode(f"{server.username}:{server.password}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {expected}":
            refusal = error_body(401, "security_exception", f"unable to authenticate user [{server.username}]")
            return 401, json.dumps(refusal).encode()
        instead = server.instead(asked)
        if instead is not None:
            return instead[0], json.dumps(instead[1]).encode()
        content_type = self.headers.get("Content-Type", "").replace("vnd.elasticsearch+", "").partition(";")[0]
        return server.pass_on(self.command, self.path, body, content_type)

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def running_elasticsearch(folder: Path) -> Iterator[ElasticsearchServer]:
    """A server for one test alone."""
    folder.mkdir(parents=True, exist_ok=True)
    server = ElasticsearchServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_elasticsearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElasticsearchServer]:
    """The one server of the whole run. Tests take ``elasticsearch_server``, which is empty."""
    with running_elasticsearch(tmp_path_factory.mktemp("elasticsearch")) as server:
        yield server


@pytest.fixture
def elasticsearch_server(shared_elasticsearch: ElasticsearchServer) -> ElasticsearchServer:
    """The run's server, emptied and well."""
    shared_elasticsearch.empty()
    return shared_elasticsearch
