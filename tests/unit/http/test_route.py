"""What the declared routes say of themselves before a request reaches the app."""

from __future__ import annotations

import pytest

from admin.server.app import admin_routes
from api.app import user_routes
from common.http.route import Route, requests_to

ROUTES = [*admin_routes(), *user_routes()]


def takes_password(route: Route) -> bool:
    return any("password" in name for name in (route.body.model_fields if route.body else ()))


def test_every_route_that_takes_a_password_says_that_it_hashes() -> None:
    taking = [route for route in ROUTES if takes_password(route)]

    assert len(taking) > 10
    assert [route.endpoint for route in taking if not route.hashes] == []


def test_what_hashes_takes_a_password_or_basic_credentials() -> None:
    others = {route.endpoint for route in ROUTES if route.hashes and not takes_password(route)}

    assert others == {"GET /api/v1/admin/auth"}


@pytest.mark.parametrize(
    ("asked", "hashes"),
    [
        ("POST /v1/user/login", True),
        ("POST /v1/user/login/", True),
        ("PUT /api/v1/admin/users/a@b.co/password", True),
        ("GET /api/v1/admin/auth", True),
        ("HEAD /api/v1/admin/auth", True),
        ("GET /v1/user/login", False),
        ("POST /v1/user/login/more", False),
        ("PUT /api/v1/admin/users/a/b/password", False),
        ("GET /api/v1/admin/users", False),
    ],
)
def test_a_request_is_known_by_method_and_path(asked: str, hashes: bool) -> None:
    assert bool(requests_to(route for route in ROUTES if route.hashes).fullmatch(asked)) is hashes


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ("GET /api/v1/admin/services/3", True),
        ("HEAD /api/v1/admin/service_types/retrieval/", True),
        ("GET /v1/system/status", True),
        ("PUT /api/v1/langfuse/api-key", True),
        ("GET /api/v1/langfuse/api-key", False),
        ("GET /api/v1/admin/users", False),
    ],
)
def test_what_waits_for_other_services_is_known_too(asked: str, waits: bool) -> None:
    assert bool(requests_to(route for route in ROUTES if route.waits).fullmatch(asked)) is waits


def test_of_no_routes_there_are_no_requests() -> None:
    assert not requests_to([]).fullmatch("")
