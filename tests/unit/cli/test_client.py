"""How the command speaks to a server: it never hangs, and every failure is a sentence that says what to do."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import typer

from common.cli import client, profile
from common.cli.main import app
from tests.unit.stores.servers import drip, hang, http_server, raw_server, send


@pytest.fixture(autouse=True)
def config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place of its own for the profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    said = capsys.readouterr().err
    assert said.startswith("ragkeeper: ")
    assert said.count("\n") == 1
    return said


def log_in(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    profile.save(profile.Profile(url, url, "a@example.org", "wire"))


def answering(status: int, body: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: send(handler, status, body)


def test_whose_certificates_count_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # It takes longer than all the rest of a request, and `export` makes one for each role and account.
    made: list[None] = []
    make = ssl.create_default_context

    def counted(*arguments: Any, **named: Any) -> ssl.SSLContext:
        made.append(None)
        return make(*arguments, **named)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    with http_server(answering(200, b"{}")) as port:
        for _ in range(3):
            client.send("GET", f"http://127.0.0.1:{port}/")
    assert len(made) <= 1


HEADERS_FOR_EVER = b"HTTP/1.1 200 OK\r\nX: "
BODY_FOR_EVER = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize(
    "slow", [hang, drip(HEADERS_FOR_EVER), drip(BODY_FOR_EVER)], ids=["hangs", "drips headers", "drips a body"]
)
def test_a_slow_server_ends_the_command_in_time(
    slow: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DEADLINE_S", 0.3)
    began = time.monotonic()
    with raw_server(slow) as port, pytest.raises(typer.Exit):
        client.send("GET", f"http://127.0.0.1:{port}/")
    assert time.monotonic() - began < 3
    assert "did not answer in time" in sentence(capsys)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://127.0.0.1", "127.0.0.1:9381", "http://[", "http://a b"])
def test_an_address_without_a_server_is_a_sentence(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        client.send("GET", url)
    assert "can't be reached" in sentence(capsys)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"\xff", b"null"])
def test_a_foreign_server_is_a_sentence(body: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(answering(200, body)) as port:
        log_in(port)
        with pytest.raises(typer.Exit):
            client.admin("GET", "/users")
    assert "no Ragkeeper envelope" in sentence(capsys)


def test_a_refusal_is_the_servers_own_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    body = json.dumps({"code": 409, "message": "Role held by ann.", "data": None}).encode()
    with http_server(answering(409, body)) as port:
        log_in(port)
        with pytest.raises(typer.Exit):
            client.admin("GET", "/roles")
    assert "Role held by ann." in sentence(capsys)


def test_an_ended_session_says_how_to_log_in_again(capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(answering(401, b"{}")) as port:
        log_in(port)
        with pytest.raises(typer.Exit):
            client.admin("GET", "/users")
    assert f"run `ragkeeper login http://127.0.0.1:{port}`" in sentence(capsys)


class Guarded:
    """A server with one sensitive route: it wants the password ``right`` first."""

    def __init__(self) -> None:
        self.proven = False
        self.proofs: list[bytes] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path.endswith("/auth/reauthenticate"):
            given = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
            self.proofs.append(given["password"])
            self.proven = given["password"] == "right"
            answer = (200, 0, None) if self.proven else (403, 403, "The current password is not right.")
        else:
            answer = (200, 0, None) if self.proven else (403, 403, "Give your password again first.")
        status, code, message = answer
        body = {"code": code, "message": message, "data": {"ended": 1}, "reason": "reauthenticate"}
        send(handler, status, json.dumps(body).encode())


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, types: str) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(client, "asked_password", lambda from_stdin, prompt: types)


def test_what_is_sensitive_asks_for_the_password_once_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    at_a_terminal(monkeypatch, "right")
    guarded = Guarded()
    with http_server(guarded) as port:
        log_in(port)
        answer = client.of_oneself("DELETE", "/sessions")
    assert answer["data"] == {"ended": 1}
    assert guarded.proofs == ["right"]


def test_a_wrong_password_ends_the_command_with_the_servers_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_a_terminal(monkeypatch, "wrong")
    with http_server(Guarded()) as port:
        log_in(port)
        with pytest.raises(typer.Exit):
            client.of_oneself("DELETE", "/sessions")
    assert "The current password is not right." in sentence(capsys)


def test_without_a_terminal_it_says_to_log_in_again(capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(Guarded()) as port:
        log_in(port)
        with pytest.raises(typer.Exit):
            client.of_oneself("DELETE", "/sessions")
    assert f"run `ragkeeper login http://127.0.0.1:{port}` first" in sentence(capsys)


def test_a_value_in_a_path_stays_one_part_of_it() -> None:
    assert client.part("a/../b?c#d@e.org") == "a%2F..%2Fb%3Fc%23d@e.org"


@pytest.mark.parametrize("value", ["", ".", ".."])
@pytest.mark.parametrize(
    "command",
    [
        ["user", "show", "{}"],
        ["user", "delete", "{}", "--yes"],
        ["token", "delete", "ann@example.org", "{}"],
        ["tenant", "show", "{}"],
        ["job", "show", "{}"],
        ["role", "delete", "{}"],
    ],
    ids=" ".join,
)
def test_a_value_that_would_make_another_path_is_refused_before_anything_is_asked(
    command: list[str], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    with http_server(lambda handler: asked.append(handler.path)) as port:
        log_in(port)
        with pytest.raises(SystemExit):
            app([each.format(value) for each in command])
    assert asked == []
    assert f"'{value}' names nothing" in sentence(capsys)


@pytest.mark.parametrize(
    "command", [["user", "show", "\udcff"], ["user", "list", "--q", "\udcff"]], ids=["path", "query"]
)
def test_an_argument_that_is_no_utf_8_is_a_sentence(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(answering(200, b"{}")) as port:
        log_in(port)
        with pytest.raises(SystemExit):
            app(command)
    assert "no UTF-8 text" in sentence(capsys)


@pytest.mark.parametrize(
    ("status", "answer", "exits"),
    [
        (200, {"allowed": True}, 0),
        (200, {"allowed": False}, 1),
        (404, "User 'nobody@x.test' not found.", 2),
        (400, "There is no resource 'nothing'; there are: dataset.", 2),
        (401, "Unauthorized", 2),
    ],
)
def test_that_somebody_may_not_is_told_from_what_can_not_be_told(status: int, answer: Any, exits: int) -> None:
    explained = {"action": "read", "resource": "dataset", "reason": "", "paths": []}
    given = {"explanation": [{**explained, **answer}]} if status == 200 else None
    body = {"code": 0 if status == 200 else status, "message": str(answer), "data": given}
    with http_server(answering(status, json.dumps(body).encode())) as port:
        log_in(port)
        with pytest.raises(SystemExit) as ended:
            app(["permission", "explain", "nobody@x.test", "dataset", "read"])
    assert ended.value.code == exits


def test_without_a_login_or_an_account_s_name_nothing_is_explained() -> None:
    for email in ("nobody@x.test", ".."):
        with pytest.raises(SystemExit) as ended:
            app(["permission", "explain", email, "dataset", "read"])
        assert ended.value.code == 2
