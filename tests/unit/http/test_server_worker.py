"""What the guarded connection makes of a request before it hands it on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from gunicorn.asgi.parser import CallbackRequest, PythonProtocol
from gunicorn.asgi.protocol import ASGIProtocol

from common.http.server_worker import GuardedProtocol


def received(monkeypatch: pytest.MonkeyPatch, head: bytes) -> CallbackRequest:
    """The request that the connection would hand on."""
    monkeypatch.setattr(ASGIProtocol, "__init__", lambda self, worker: None)
    connection = GuardedProtocol(SimpleNamespace())  # type: ignore[arg-type]
    parser = connection._callback_parser = PythonProtocol()

    def handed_on(self: ASGIProtocol) -> bool:
        self._current_request = CallbackRequest.from_parser(parser)
        return False

    monkeypatch.setattr(ASGIProtocol, "_on_headers_complete", handed_on)
    parser.feed(head)
    connection._on_headers_complete()
    return connection._current_request


@pytest.mark.parametrize(
    ("target", "path", "raw", "query", "host"),
    [
        (b"/a?b=c", "/a", b"/a", "b=c", b"field"),
        (b"http://target/a%20%C3%BC?b=c", "/a ü", b"/a%20%C3%BC", "b=c", b"target"),
        (b"HTTPS://[::1]:81", "/", b"/", "", b"[::1]:81"),
        (b"http://target?b=http://other/", "/", b"/", "b=http://other/", b"target"),
        (b"/http://target/a", "/http://target/a", b"/http://target/a", "", b"field"),
    ],
)
def test_a_whole_url_as_target_gives_path_and_host(
    monkeypatch: pytest.MonkeyPatch, target: bytes, path: str, raw: bytes, query: str, host: bytes
) -> None:
    request = received(monkeypatch, b"GET " + target + b" HTTP/1.1\r\nHost: field\r\nX: y\r\n\r\n")

    assert (request.path, request.raw_path, request.query) == (path, raw, query)
    assert sorted(request.headers_bytes) == [(b"host", host), (b"x", b"y")]
