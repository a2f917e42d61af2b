"""nginx as this repository ships it, before a program that believes what RAGFlow believes, with the plane deciding."""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from itsdangerous import BadData, URLSafeTimedSerializer

from common.services import opening, roles, settings
from common.services.plane import Plane
from common.services.principal import system
from common.settings import load
from tests.backends.nginx import nginx
from tests.people import new_password
from tests.ports import free_ports
from tests.servers import COMMAND, Live, end, environment_for, wait_until_ready

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

ROOT = Path(__file__).parents[2]
SECRET_KEY = "a key that both programs were given and long enough"
SECRET = "known-to-the-proxy-and-to-the-plane-alone-0123456789"
SHELL = system("test")
DATABASE = {"RAGKEEPER_SECRET_KEY": SECRET_KEY, "RAGKEEPER_SHARED_DATABASE": "on"}
PROXY = {"RAGKEEPER_FORWARD_AUTH_SECRET": SECRET, "RAGKEEPER_TRUSTED_PROXIES": "127.0.0.1"}


class Ragflow(ThreadingHTTPServer):
    """A program that believes RAGFlow's signed session and nothing else, and says what it was sent."""

    daemon_threads = True

    def __init__(self, port: int, database: Path) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.database = database
        self.heard: list[dict[str, Any]] = []

    def user_of(self, header: str | None) -> str | None:
        """The rules of who gets in: a signature over the value of a valid row, 32 characters, and not INVALID_…"""
        wire = (header or "").removeprefix("Bearer ")
        try:
            value = URLSafeTimedSerializer(SECRET_KEY).loads(wire)
        except BadData:
            return None
        if not isinstance(value, str) or len(value) < 32 or value.startswith("INVALID_"):
            return None
        with closing(sqlite3.connect(self.database)) as connection:
            row = connection.execute(
                "SELECT email FROM user WHERE access_token = ? AND status = '1'", (value,)
            ).fetchone()
        return str(row[0]) if row else None


class _Handler(BaseHTTPRequestHandler):
    server: Ragflow

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        heard = {
            "method": self.command,
            "target": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(length).decode(),
            "user": self.server.user_of(self.headers.get("Authorization")),
        }
        self.server.heard.append(heard)
        content = json.dumps(heard).encode()
        self.send_response(200 if heard["user"] or not self.path.startswith(("/v1/", "/api/")) else 401)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Set-Cookie", "session=anybody")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815 - names of the library

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing."""


@dataclass
class Front:
    """The whole: nginx, the plane behind it, and the program that is protected."""

    url: str
    port: int
    live: Live
    plane: Plane
    ragflow: Ragflow

    def person(self, role: str | None = None) -> tuple[str, str]:
        """E-mail and session of somebody new, who registered through the proxy."""
        email = f"p{len(self.ragflow.heard)}-{new_password()[-12:]}@example.org"
        wanted = {"email": email, "nickname": "Ann", "password": new_password()}
        answer = httpx.post(f"{self.url}/v1/user/register", json=wanted, timeout=20)
        assert answer.json()["code"] == 0, answer.text
        if role is not None:
            roles.update_user_role(self.plane, SHELL, email, role)
        return email, answer.headers["Authorization"]

    def ask(self, method: str, path: str, credential: str | None = None, **more: Any) -> httpx.Response:
        """A request through the proxy."""
        headers = {**({"Authorization": credential} if credential else {}), **more.pop("headers", {})}
        return httpx.request(method, f"{self.url}{path}", headers=headers, timeout=20, **more)

    def raw(self, request: bytes) -> bytes:
        """What the proxy answers to these very bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(request)
            connection.settimeout(20)
            heard = b""
            while piece := connection.recv(65536):
                heard += piece
        return heard


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    home = folder / "home"
    listen, behind, api_port = free_ports(3)
    environment = environment_for(home, RAGKEEPER_API_PORT=str(api_port), **DATABASE, **PROXY)
    plane = opening.open_plane(load(environment))
    for name, actions in (("reader", ["read"]), ("idle", [])):
        roles.create_role(plane, SHELL, role_name=name)
        if actions:
            roles.grant_role_permission(plane, SHELL, name, {"resource": "dataset", "actions": actions})
    with ExitStack() as stack:
        output = folder / "api.log"
        sink = stack.enter_context(output.open("wb"))
        process = subprocess.Popen([COMMAND, "api"], env=environment, cwd=folder, stdout=sink, stderr=sink)
        stack.callback(end, process)
        live = Live(process, home, 0, api_port, output)
        wait_until_ready(live, api_port)
        ragflow = Ragflow(behind, plane.settings.database_path)
        threading.Thread(target=ragflow.serve_forever, daemon=True).start()
        stack.callback(ragflow.server_close)
        stack.callback(ragflow.shutdown)
        secret = {
            "snippets/ragkeeper-forward-secret.conf": f'proxy_set_header X-Ragkeeper-Forward-Secret "{SECRET}";\n'
        }
        ports = {8082: listen, 8888: behind, 9380: api_port}
        stack.enter_context(nginx(folder / "nginx", ports, "ragflow-forward-auth.conf", secret))
        url = f"http://127.0.0.1:{listen}"
        wait_until_ready(live, api_port)
        _wait_for_nginx(listen)
        yield Front(url, listen, live, plane, ragflow)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


def _wait_for_nginx(port: int) -> None:
    transport = httpx.HTTPTransport(retries=20)
    with httpx.Client(transport=transport) as client:
        assert client.get(f"http://127.0.0.1:{port}/v1/system/ping").status_code == 200


def test_what_is_set_here_is_what_the_document_says_to_set() -> None:
    document = (ROOT / "docs" / "forward-auth.md").read_text(encoding="utf-8")

    assert [name for name in PROXY if name not in document] == []


def test_allowed_passes_as_the_user_that_ragflow_knows_and_denied_is_403(front: Front) -> None:
    email, session = front.person("reader")

    passed = front.ask("GET", "/v1/kb/list?page=1&x=a%2Fb", session)
    denied = front.ask("POST", "/v1/kb/rm", session, json={"kb_id": "1"})
    stranger = front.ask("GET", "/v1/kb/list")

    assert (passed.status_code, passed.json()["user"]) == (200, email)
    assert passed.json()["target"] == "/v1/kb/list?page=1&x=a%2Fb"
    assert (denied.status_code, denied.json()["code"]) == (403, 403)
    assert (stranger.status_code, stranger.json()["code"]) == (401, 401)
    assert stranger.headers["WWW-Authenticate"] == "Bearer"
    assert all(heard["target"] != "/v1/kb/rm" for heard in front.ragflow.heard)


def test_who_has_to_change_the_password_first_is_not_told_of_roles_alone(front: Front) -> None:
    email, session = front.person("reader")
    front.plane.database.run(
        "UPDATE rk_account SET must_change = ? WHERE user_id = (SELECT id FROM user WHERE email = ?)", (True, email)
    )

    denied = front.ask("GET", "/v1/kb/list", session)

    assert (denied.status_code, "your password has to be changed" in denied.json()["message"]) == (403, True)


def test_a_body_arrives_whole_where_the_decision_was_yes(front: Front) -> None:
    _, session = front.person()

    passed = front.ask("POST", "/v1/kb/create", session, content=b"x" * 3_000_000)

    assert (passed.status_code, len(passed.json()["body"])) == (200, 3_000_000)


def test_a_token_passes_as_its_owner_and_makes_no_wider_one(front: Front) -> None:
    email, session = front.person("reader")
    token = front.ask("POST", "/api/v1/system/tokens", session, json={}).json()["data"]["token"]
    front.ask("POST", "/v1/user/logout", session)

    passed = front.ask("GET", "/api/v1/datasets", f"Bearer {token}")

    assert (passed.status_code, passed.json()["user"]) == (200, email)
    assert front.ask("DELETE", "/api/v1/datasets", f"Bearer {token}").status_code == 403
    # What ragflow was sent is no credential of the plane's.
    translated = passed.json()["headers"]["authorization"]
    assert translated != f"Bearer {token}"
    assert front.ask("GET", "/api/v1/datasets", translated).status_code == 401
    assert front.ask("GET", "/v1/user/info", translated).status_code == 401


def test_a_revoked_role_and_an_ended_session_count_on_the_next_request(front: Front) -> None:
    email, session = front.person("reader")
    assert front.ask("GET", "/v1/kb/list", session).status_code == 200

    roles.update_user_role(front.plane, SHELL, email, "idle")
    assert front.ask("GET", "/v1/kb/list", session).status_code == 403
    roles.update_user_role(front.plane, SHELL, email, "reader")
    assert front.ask("GET", "/v1/kb/list", session).status_code == 200
    assert front.ask("POST", "/v1/user/logout", session).status_code == 200
    assert front.ask("GET", "/v1/kb/list", session).status_code == 401


def test_smuggled_headers_never_reach_ragflow(front: Front) -> None:
    email, session = front.person("reader")
    other, others = front.person()
    smuggled = {
        "Cookie": f"session={others}", "X-Original-URI": "/v1/system/ping", "X-Original-Method": "GET",
        "X-Forwarded-Uri": "/v1/system/ping", "X-Forwarded-Method": "GET", "X-Ragkeeper-Forward-Secret": "guess",
        "X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9",
    }  # fmt: skip

    passed = front.ask("GET", "/v1/kb/list", session, headers=smuggled)
    denied = front.ask("POST", "/v1/kb/rm", session, headers=smuggled)
    page = front.ask("GET", "/datasets", others, headers=smuggled)
    override = front.ask("GET", "/v1/kb/list", session, headers={"X-HTTP-Method-Override": "DELETE"})

    sent = passed.json()["headers"]
    assert (passed.json()["user"], sent["x-forwarded-for"]) == (email, "127.0.0.1")
    assert not sent.keys() & {name.lower() for name in smuggled.keys() - {"X-Forwarded-For"}}
    assert "set-cookie" not in passed.headers
    assert denied.status_code == override.status_code == 403
    assert other
    # A page is public: the credential stays here.
    assert (page.status_code, "authorization" in page.json()["headers"]) == (200, False)


def test_two_credentials_in_one_request_are_none(front: Front) -> None:
    _, session = front.person()
    _, others = front.person()
    lines = f"Host: x\r\nAuthorization: {session}\r\nAuthorization: {others}\r\nConnection: close\r\n\r\n"
    before = len(front.ragflow.heard)

    answer = front.raw(f"GET /v1/kb/list HTTP/1.1\r\n{lines}".encode())

    assert answer.split(b" ")[1] in (b"400", b"401", b"403")
    assert len(front.ragflow.heard) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/api/rm"),
        ("POST", "/v1/api/new_token"),
        ("GET", "/v1/api/token_list"),
        ("GET", "/api/v1/sessions"),
        ("GET", "/api/v1/sessions/current"),
        ("POST", "/api/v1/authz/check"),
    ],
)
def test_accounts_sessions_tokens_and_permissions_are_answered_by_the_plane_for_everybody(
    front: Front, method: str, path: str
) -> None:
    """RAGFlow's own route deletes tokens of whatever tenant the body names, which no role may let anybody do."""
    _, session = front.person("idle")
    before = len(front.ragflow.heard)

    body = {"tokens": ["x"], "tenant_id": "another", "resource": "dataset", "action": "read", "dialog_id": "d"}
    answer = front.ask(method, path, session, json=body)

    assert (answer.status_code, answer.json().keys() >= {"code", "message", "data"}) == (200, True)
    assert front.ragflow.heard[before:] == []


TRICKS = (
    "/v1/kb/rm", "//v1/kb/rm", "/v1//kb/rm", "/v1/kb/list/../rm", "/v1/kb/list/%2e%2e/rm", "/v1/kb/list/..%2frm",
    "/v1/kb%2frm", "/%76%31/kb/rm", "/v1/kb/r%6d", "/V1/kb/rm", "/v1/KB/rm", "/v1/kb/rm;x", "/v1/kb/list;/../rm",
    "/v1/kb/rm%00", "/v1/kb/rm%0a", "/v1/kb\\rm", "/v1/./kb/rm", "/./v1/kb/rm", "/x/../v1/kb/rm",
    "/assets/..%2fv1/kb/rm",
    "/v1/system/ping/../../kb/rm", "/v1/user/../kb/rm", "/v1/user/%2e%2e/kb/rm", "/v1/user%2f..%2fkb/rm",
    "/api/v1/auth/..%2f..%2f..%2fv1/kb/rm", "/_ragkeeper/decide", "/_ragkeeper/decide/../../v1/kb/rm",
    "http://x/v1/kb/rm", "/v1/kb/rm#", "/v1/kb/rm%23", "/v1/kb/rm%3f", "/v1/kb/rm/", "/v1/kb/rm/.", "/v1/kb/%72m/",
    "/v1/kb/rm%20", "/v1/kb/rm%", "/v1/kb/rm%ff",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "post", "TRACE", "BREW"])
def test_no_spelling_of_a_path_gets_anything_to_ragflow_that_was_not_allowed(front: Front, method: str) -> None:
    _, session = front.person("idle")
    before = len(front.ragflow.heard)
    for path in TRICKS:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {session}\r\n"
        answer = front.raw(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 "), (path, answer[:80])
        assert answer.split(b" ")[1] in (b"400", b"401", b"403", b"404", b"405", b"308"), (path, answer[:200])

    assert front.ragflow.heard[before:] == []


def test_what_is_allowed_under_one_spelling_is_what_ragflow_is_sent(front: Front) -> None:
    email, session = front.person("reader")
    for path in (
        "/v1/kb/list",
        "/v1/kb/list/",
        "/v1/kb/a%20b/tags",
        "/v1/kb/%E4%BD%A0/tags",
        "/v1/kb/a@b/tags?x=//../",
    ):
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session}\r\nConnection: close\r\n\r\n"
        answer = front.raw(head.encode())
        assert answer.split(b" ")[1] == b"200", answer[:300]
        assert (front.ragflow.heard[-1]["target"], front.ragflow.heard[-1]["user"]) == (path, email)
    absolute = f"GET http://x/v1/kb/list HTTP/1.1\r\nHost: x\r\nAuthorization: {session}\r\nConnection: close\r\n\r\n"
    assert front.raw(absolute.encode()).split(b" ")[1] == b"200"
    assert front.ragflow.heard[-1]["target"] == "/v1/kb/list"


def test_a_second_request_hidden_in_the_first_is_decided_about_too(front: Front) -> None:
    _, session = front.person("reader")
    before = len(front.ragflow.heard)
    hidden = "POST /v1/kb/rm HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    first = f"GET /v1/kb/list HTTP/1.1\r\nHost: x\r\nAuthorization: {session}\r\n"

    pipelined = front.raw(f"{first}Content-Length: 0\r\n\r\n{hidden}".encode())
    front.raw(f"{first}Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}".encode())

    assert b"HTTP/1.1 401" in pipelined
    assert [heard["method"] for heard in front.ragflow.heard[before:]] in (["GET"], ["GET", "GET"])


def test_the_plane_answers_no_client_that_asks_for_a_decision_itself(front: Front) -> None:
    _, session = front.person()
    said = {"X-Original-Method": "GET", "X-Original-URI": "/v1/kb/list", "Authorization": session}

    direct = httpx.get(f"{front.live.api_url}/api/v1/authz/forward", headers=said, timeout=20)
    through = front.ask("GET", "/api/v1/authz/forward", headers=said)

    assert (direct.status_code, "authorization" in direct.headers) == (403, False)
    assert through.status_code == 403


@pytest.mark.parametrize("names", [("X-Original-Method", "X-Original-URI"), ("X-Forwarded-Method", "X-Forwarded-Uri")])
def test_a_proxy_that_adds_to_what_the_client_wrote_gets_a_no(front: Front, names: tuple[str, str]) -> None:
    _, session = front.person("reader")
    method, target = names
    truth = [("Authorization", session), ("X-Ragkeeper-Forward-Secret", SECRET), (method, "GET")]

    def decided(*told: tuple[str, str]) -> int:
        answer = httpx.get(f"{front.live.api_url}/api/v1/authz/forward", headers=[*told, *truth], timeout=20)
        return answer.status_code

    assert decided((target, "/v1/kb/list?x=a,b")) == 200
    assert decided((target, "/v1/kb/list?"), (target, "/v1/kb/detail")) == 403
    assert decided((target, "/v1/kb/list"), (method, "GET")) == 403


def test_a_limit_that_is_reached_is_told_apart_from_a_refusal(front: Front) -> None:
    _, session = front.person()
    token = front.ask("POST", "/api/v1/system/tokens", session, json={}).json()["data"]["token"]
    settings.set_variable(front.plane, SHELL, "limit.token_calls", 1)
    try:
        asked = [front.ask("GET", "/v1/kb/list", token) for _ in range(4)]
    finally:
        settings.set_variable(front.plane, SHELL, "limit.token_calls", 0)

    limited = [answer for answer in asked if answer.status_code == 429]
    assert limited
    assert {answer.status_code for answer in asked} <= {200, 429}
    assert (limited[0].json()["code"], int(limited[0].headers["Retry-After"]) > 0) == (429, True)
    assert limited[0].headers["RateLimit-Policy"] == '"token-calls";q=1;w=60'
    assert limited[0].headers["RateLimit"].startswith('"token-calls";r=0;t=')


@pytest.mark.parametrize("hangs", [False, True])
def test_a_plane_that_is_down_or_hangs_denies(front: Front, tmp_path: Path, hangs: bool) -> None:
    _, session = front.person()
    listen, behind, gone = free_ports(3)
    secret = {"snippets/ragkeeper-forward-secret.conf": f'proxy_set_header X-Ragkeeper-Forward-Secret "{SECRET}";\n'}
    ragflow = Ragflow(behind, front.plane.settings.database_path)
    threading.Thread(target=ragflow.serve_forever, daemon=True).start()
    with ExitStack() as stack:
        stack.callback(ragflow.server_close)
        stack.callback(ragflow.shutdown)
        if hangs:
            # Connections are made and nobody answers on them.
            stack.enter_context(socket.create_server(("127.0.0.1", gone)))
        ports = {8082: listen, 8888: behind, 9380: gone}
        stack.enter_context(nginx(tmp_path / "nginx", ports, "ragflow-forward-auth.conf", secret))
        _wait_for_port(listen)
        asked = [("GET", "/v1/kb/list")] if hangs else [("GET", "/v1/kb/list"), ("POST", "/v1/kb/rm"), ("GET", "/")]
        answers = [
            httpx.request(method, f"http://127.0.0.1:{listen}{path}", headers={"Authorization": session}, timeout=30)
            for method, path in asked
        ]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, 503)}
    assert ragflow.heard == []


def _wait_for_port(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for _ in range(200):
        try:
            connection.connect()
        except ConnectionRefusedError:
            threading.Event().wait(0.02)
        else:
            connection.close()
            return
    raise AssertionError(f"nothing listens on {port}")
