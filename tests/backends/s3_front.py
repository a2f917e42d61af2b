"""An HTTP front before an S3 server, which can refuse what writes as a full or a read-only MinIO does."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.backends.child import START_LIMIT_S
from tests.backends.s3 import S3Server

# Of one hop, and not of what is passed on.
_OF_THE_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_NOTHING = re.compile(r"(?!)")


class S3Front:
    """Passes requests on as they are signed, until it is told to refuse some of them."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._refused = _NOTHING
        self._status, self._code = 0, ""
        front = self

        class Handler(_Handler):
            of = front

        self._http = ThreadingHTTPServer((server.host, 0), Handler)
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def refuse(self, methods: str, status: int, code: str) -> None:
        """Answer requests of these methods (a pattern: ``PUT|POST``) with an error of S3."""
        self._status, self._code = status, code
        self._refused = re.compile(methods)

    def well(self) -> None:
        """Let the server answer everything again."""
        self._refused = _NOTHING

    def close(self) -> None:
        """Close the port."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body for a request. Raises OSError or HTTPException where the server is gone."""
        if self._refused.fullmatch(method):
            error = f"<Error><Code>{self._code}</Code><Message>no</Message><Resource>/</Resource></Error>"
            return self._status, [("Content-Type", "application/xml")], error.encode()
        connection = http.client.HTTPConnection(self._server.host, self._server.port, timeout=START_LIMIT_S)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in _OF_THE_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    of: S3Front
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, headers, content = self.of.answer(self.command, self.path, self.headers, body)
        except (OSError, http.client.HTTPException):
            # The server is gone, and so is whoever stands in its place.
            self.close_connection = True
            return
        lines = [f"{name}: {value}" for name, value in headers if name.lower() not in _OF_THE_HOP]
        lines.append(f"Content-Length: {len(content)}")
        head = "\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""])
        self.wfile.write(head.encode() + content)

    do_DELETE = do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def s3_front(server: S3Server) -> Iterator[S3Front]:
    """A front before this server."""
    front = S3Front(server)
    try:
        yield front
    finally:
        front.close()
