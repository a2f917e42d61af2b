"""Pages of another origin: what they may send to the user API and read of it; the admin server is not theirs."""

from __future__ import annotations

from tests.people import Person, World

ORIGIN = {"Origin": "https://console.example.org"}


def test_a_browser_is_told_what_it_may_send_before_it_sends_it(world: World) -> None:
    asked = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

    answer = world.api.ask("OPTIONS", "/v1/user/setting", headers=asked)

    assert (answer.status_code, answer.get_data()) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert allowed == ["Authorization", "Content-Type", "X-Tenant", "X-Request-Id"]
    assert answer.headers["Access-Control-Max-Age"] == "600"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_page_may_read_answers_and_errors_of_the_user_api(world: World, root: Person) -> None:
    assert root.ask("GET", "/v1/user/info", headers=ORIGIN).headers["Access-Control-Allow-Origin"] == "*"
    refused = world.api.ask("GET", "/v1/user/info", headers=ORIGIN)
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "*")
    readable = set(refused.headers["Access-Control-Expose-Headers"].split(", "))
    assert readable >= {"Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-Id"}


def test_a_login_carries_each_header_once(world: World) -> None:
    person = world.person()

    answer = world.api.ask(
        "POST", "/v1/user/login", {"email": person.email, "password": person.password}, headers=ORIGIN
    )

    assert answer.headers.getlist("Access-Control-Allow-Origin") == ["*"]
    assert "Authorization" in answer.headers["Access-Control-Expose-Headers"]


def test_the_admin_server_allows_no_other_origin(world: World, root: Person) -> None:
    preflight = world.admin.ask("OPTIONS", "/api/v1/admin/users", headers=ORIGIN)

    assert preflight.status_code == 204
    assert {"GET", "POST"} <= set(preflight.headers["Allow"].split(", "))
    for answer in (preflight, root.administer("GET", "/users", headers=ORIGIN)):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


def test_without_an_origin_nothing_is_added(root: Person) -> None:
    assert "Access-Control-Allow-Origin" not in root.ask("GET", "/v1/user/info").headers


def test_OPTIONS_of_an_unknown_path_is_404(world: World) -> None:
    assert world.api.ask("OPTIONS", "/v1/nothing", headers=ORIGIN).status_code == 404
