"""A session in a browser's cookie, and the token that shows that a request comes from the session's own page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.people import Person, Port, World, new_password

TLS = "https://plane.example.org"
ME = "/api/v1/users/me"


@dataclass
class Browser:
    """Keeps a cookie and sends it, with whatever else a page wants."""

    port: Port
    cookie: str
    csrf: str
    base: str = "http://localhost"

    def ask(self, method: str, path: str, body: Any = None, *, csrf: str | None = None, **more: Any) -> Any:
        """One request of the page; ``csrf`` is the token that it sends, if any."""
        headers = {"Cookie": self.cookie, **({"X-CSRF-Token": csrf} if csrf is not None else {})}
        headers |= more.pop("headers", {})
        return self.port.ask(method, path, body, headers=headers, base_url=self.base, **more)


def login_path(port: Port) -> str:
    return "/api/v1/admin/login" if port.app.name.endswith("admin") else "/api/v1/auth/login"


def log_in(person: Person, port: Port, **more: Any) -> Any:
    body = {"email": person.email, "password": person.password, "cookie": True}
    return port.ask("POST", login_path(port), body, **more)


def browser_of(person: Person, port: Port, base: str = "http://localhost") -> Browser:
    answer = log_in(person, port, base_url=base)
    assert answer.status_code == 200, answer.json
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    return Browser(port, cookie, answer.json["data"]["csrf_token"], base)


@pytest.fixture(params=["admin", "api"])
def browser(request: pytest.FixtureRequest, world: World) -> Browser:
    """The superuser's browser, logged in to either server."""
    return browser_of(world.root, world.admin if request.param == "admin" else world.api)


def test_no_page_can_read_the_session(world: World) -> None:
    for port in (world.admin, world.api):
        answer = log_in(world.root, port)
        name, _, session = answer.headers["Set-Cookie"].partition(";")[0].partition("=")

        assert name == "ragkeeper"
        assert "Authorization" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert session not in answer.get_data(as_text=True)
        rest = answer.headers["Set-Cookie"].partition("; ")[2]
        assert rest == "Path=/; HttpOnly; SameSite=Strict"


def test_over_TLS_the_cookie_is_for_this_host_and_TLS_alone(world: World) -> None:
    browser = browser_of(world.root, world.admin, TLS)
    answer = log_in(world.root, world.admin, base_url=TLS)

    assert answer.headers["Set-Cookie"].startswith("__Host-ragkeeper=")
    assert answer.headers["Set-Cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict; Secure")
    assert browser.ask("GET", "/api/v1/admin/users").status_code == 200
    # A neighbour in the same domain can set a cookie without the prefix.
    browser.cookie = browser.cookie.removeprefix("__Host-")
    assert browser.ask("GET", "/api/v1/admin/users").status_code == 401


def test_reads_need_the_cookie_alone(browser: Browser) -> None:
    assert browser.ask("GET", "/api/v1/sessions").status_code == 200
    (listed, *_) = browser.ask("GET", "/api/v1/sessions").json["data"]["sessions"]
    assert (listed["kind"], listed["current"]) == ("cookie", True)


def test_changes_need_the_token_of_this_session(browser: Browser, world: World) -> None:
    other = browser_of(world.root, browser.port)

    for csrf in (None, "", "x", other.csrf):
        refused = browser.ask("DELETE", "/api/v1/sessions", csrf=csrf)
        assert (refused.status_code, refused.json["reason"]) == (403, "csrf")
    assert other.ask("GET", "/api/v1/sessions").status_code == 200
    assert len(world.events("access:refused")) == 4
    assert browser.ask("DELETE", "/api/v1/sessions", csrf=browser.csrf).status_code == 200
    assert other.ask("GET", "/api/v1/sessions").status_code == 401


def test_a_page_that_was_loaded_again_asks_for_its_token(browser: Browser, world: World) -> None:
    shown = browser.ask("GET", "/api/v1/sessions/current").json["data"]

    assert shown["csrf_token"] == browser.csrf
    assert browser.ask("GET", f"/api/v1/sessions/{shown['id']}").json["data"]["csrf_token"] == browser.csrf
    bare = browser.port.ask("GET", "/api/v1/sessions/current", credential=world.root.admin_session)
    assert bare.json["data"]["csrf_token"] is None


def test_it_gets_it_also_while_another_password_is_due_and_no_other_session(browser: Browser, world: World) -> None:
    other = world.root.session
    mine = world.api.ask("GET", "/api/v1/sessions/current", credential=other).json["data"]["id"]
    world.plane.database.run("UPDATE rk_account SET must_change = ? WHERE user_id = ?", (True, world.root.user_id))

    shown = browser.ask("GET", "/api/v1/sessions/current")
    assert (shown.status_code, shown.json["data"]["csrf_token"]) == (200, browser.csrf)
    for path in ("/api/v1/sessions", f"/api/v1/sessions/{mine}"):
        assert browser.ask("GET", path).status_code == 403
    on_9381 = browser.port is world.admin
    method, path = ("PUT", f"/api/v1/admin/users/{world.root.email}/password") if on_9381 else ("PATCH", ME)
    change = {"password": world.root.password, "new_password": new_password()}
    assert browser.ask(method, path, change, csrf=shown.json["data"]["csrf_token"]).status_code == 200
    assert browser.ask("GET", "/api/v1/sessions").status_code == 200


def test_a_request_with_Authorization_is_never_asked_for_a_token_and_its_cookie_never_counts(
    browser: Browser, world: World
) -> None:
    bare = {"Authorization": world.root.admin_session}
    assert browser.ask("DELETE", "/api/v1/sessions", headers=bare).status_code == 200
    assert browser.ask("GET", "/api/v1/sessions").status_code == 401

    again = browser_of(world.root, browser.port)
    for dead in ("", "Bearer", "Bearer dead", "Basic eDp5"):
        assert again.ask("GET", "/api/v1/sessions", headers={"Authorization": dead}).status_code == 401


@pytest.mark.parametrize("path", ["/v1/user/logout", "/api/v1/auth/logout", "/api/v1/admin/logout"])
def test_logging_out_by_GET_takes_no_cookie(world: World, path: str) -> None:
    browser = browser_of(world.root, world.admin if "admin" in path else world.api)

    assert browser.ask("GET", path, csrf=browser.csrf).status_code == 401
    assert browser.ask("GET", "/api/v1/sessions").status_code == 200


def test_logging_out_takes_the_token_ends_the_session_and_the_cookie(browser: Browser, world: World) -> None:
    path = "/api/v1/admin/logout" if browser.port is world.admin else "/api/v1/auth/logout"
    assert browser.ask("POST", path).status_code == 403

    answer = browser.ask("POST", path, csrf=browser.csrf)

    assert answer.json["data"] is True
    assert answer.headers["Set-Cookie"].startswith("ragkeeper=; Max-Age=0; Path=/")
    assert browser.ask("GET", "/api/v1/sessions").status_code == 401


def test_whoever_logs_out_without_a_cookie_is_sent_none(world: World) -> None:
    assert "Set-Cookie" not in world.root.ask("POST", "/v1/user/logout").headers


def test_a_cookie_of_one_server_opens_the_other(world: World) -> None:
    browser = browser_of(world.root, world.admin)
    browser.port = world.api

    assert browser.ask("GET", "/v1/user/info").json["code"] == 0
    assert browser.ask("POST", "/v1/user/setting", {"nickname": "Renamed"}).status_code == 403
    assert browser.ask("POST", "/v1/user/setting", {"nickname": "Renamed"}, csrf=browser.csrf).json["data"] is True


def test_an_API_token_is_no_session_that_a_cookie_could_hold(world: World) -> None:
    token = world.root.ask("POST", "/api/v1/system/tokens", {}).json["data"]["token"]
    browser = Browser(world.api, f"ragkeeper={token}", "")

    assert browser.ask("GET", "/v1/user/info").status_code == 401


@pytest.mark.parametrize("cookie", ["", "ragkeeper", "ragkeeper=", "ragkeeper=x", 'ragkeeper="\\073"', "a=b; ;;=", "ÿ"])
def test_no_cookie_is_a_500(world: World, cookie: str) -> None:
    assert Browser(world.api, cookie, "").ask("GET", "/v1/user/info").status_code == 401


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_page_of_another_site_can_not_log_a_browser_in(world: World, kind: str) -> None:
    someone = world.person()
    body = f'{{"email": "{someone.email}", "password": "{someone.password}", "cookie": true}}'

    answer = world.api.ask("POST", "/api/v1/auth/login", data=body, headers={"Content-Type": kind})

    assert answer.json["code"] != 0
    assert "Set-Cookie" not in answer.headers
    assert world.plane.database.one("SELECT COUNT(*) FROM rk_session") == (0,)


def test_public_routes_know_a_browser_by_its_cookie(world: World) -> None:
    browser = browser_of(world.root, world.api)

    assert "version" in browser.ask("GET", "/api/v1/system/config").json["data"]
    browser.cookie = "ragkeeper=x"
    assert "version" not in browser.ask("GET", "/api/v1/system/config").json["data"]


def test_cookies_of_others_do_not_stand_in_the_way(browser: Browser) -> None:
    browser.cookie = f"xragkeeper=1; theirs=\xff; {browser.cookie}; __Host-ragkeeper=2; other"

    assert browser.ask("GET", "/api/v1/sessions").status_code == 200
