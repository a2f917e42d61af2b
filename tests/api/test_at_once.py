"""Routes that are answered on the event loop, where nothing may be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from admin.server.app import admin_routes
from api.app import user_routes
from common.http.access import COUNTED
from common.http.serving import served
from common.services.plane import Plane
from common.stores.waiting import MustWait
from tests.breaking import take_away
from tests.people import Person, World

Ask = Callable[[Person], TestResponse]

ASKED: dict[str, Ask] = {
    "GET /v1/system/version": lambda person: person.ask("GET", "/v1/system/version"),
    "GET /api/v1/system/version": lambda person: person.ask("GET", "/api/v1/system/version"),
    "GET /v1/system/token_list": lambda person: person.ask("GET", "/v1/system/token_list"),
    "GET /api/v1/system/tokens": lambda person: person.ask("GET", "/api/v1/system/tokens?limit=10"),
    "POST /api/v1/authz/check": lambda person: person.ask(
        "POST", "/api/v1/authz/check", {"resource": "dataset", "action": "read"}
    ),
    "GET /api/v1/authz/forward": lambda person: person.world.api.ask("GET", "/api/v1/authz/forward"),
    "GET /api/v1/admin/users/<email>": lambda person: person.administer("GET", f"/users/{person.email}"),
}
# What asks for nothing in a store is answered at once on every set of stores.
ASKS_NO_STORE = ("GET /api/v1/system/version", "GET /api/v1/authz/forward")


def on_an_event_loop(part: Callable[[], TestResponse]) -> TestResponse:
    async def run() -> TestResponse:
        return part()

    return asyncio.run(run())


def test_each_of_them_is_here() -> None:
    assert {route.endpoint for route in (*user_routes(), *admin_routes()) if route.at_once} == ASKED.keys()


@pytest.mark.parametrize("endpoint", ASKED)
def test_it_waits_for_nothing_where_the_metadata_store_is_embedded(plane: Plane, root: Person, endpoint: str) -> None:
    def ask() -> TestResponse:
        return ASKED[endpoint](root)

    # Whoever signs in, and the first look at the settings, may wait.
    expected = ask().status_code
    if plane.settings.mysql is None or endpoint in ASKS_NO_STORE:
        assert on_an_event_loop(ask).status_code == expected
    else:
        with pytest.raises(MustWait):
            on_an_event_loop(ask)


@pytest.mark.parametrize("port", ["api", "admin"])
def test_on_a_server_every_request_is_for_a_thread(world: World, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for a server would be everybody's."""
    told: dict[str, Any] = {}
    monkeypatch.setattr("common.http.serving.Bridge", lambda app, **more: told.update(more))
    monkeypatch.setattr("gc.freeze", lambda: None)
    served(world.plane, getattr(world, port).app, {})

    asked = {"api": "GET /v1/system/version", "admin": f"GET /api/v1/admin/users/{world.root.email}"}[port]
    assert bool(told["at_once"].fullmatch(asked)) is (world.plane.settings.mysql is None)


def test_a_call_that_is_counted_counts_once_and_is_for_a_thread_where_the_store_is_asked(world: World) -> None:
    owner = world.person()
    token = owner.ask("POST", "/v1/system/new_token", {}).json["data"]["token"]
    # Of batches of 2 and of 3: at times only the second of the limits has to be counted in the cache store.
    world.set_variable("limit.token_calls", "100")
    world.set_variable("limit.tenant_calls", "150")

    def ask() -> TestResponse:
        return world.api.ask("GET", "/v1/system/version", credential=token)

    waited: list[int] = []

    def call(number: int) -> int:
        try:
            return on_an_event_loop(ask).status_code
        except MustWait:
            waited.append(number)
            return ask().status_code

    assert [call(number) for number in range(101)] == [200] * 100 + [429]
    if world.plane.settings.mysql is None:
        assert waited == [number for number in range(101) if number % 2 == 0 or number % 3 == 0]


def test_a_call_that_has_counted_and_is_begun_anew_does_not_count_again(world: World, root: Person) -> None:
    world.set_variable("limit.tenant_calls", "50")

    def ask() -> TestResponse:
        return root.ask("GET", "/v1/system/version", environ_overrides={COUNTED: True})

    assert {ask().status_code for _ in range(60)} == {200}


@pytest.mark.parametrize("version", ["role_version", "variables_version"])
def test_roles_and_settings_that_have_changed_are_read_by_a_thread(world: World, root: Person, version: str) -> None:
    def ask() -> TestResponse:
        return root.ask("GET", "/v1/system/version")

    assert ask().status_code == 200
    world.plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = ?", (version,))

    with pytest.raises(MustWait):
        on_an_event_loop(ask)
    assert ask().status_code == 200
    if world.plane.settings.mysql is None:
        assert on_an_event_loop(ask).status_code == 200


def test_what_is_to_be_told_in_the_log_is_for_a_thread(plane: Plane, root: Person) -> None:
    """Whoever reads standard error may keep its writers waiting."""

    def ask() -> TestResponse:
        return root.ask("GET", "/v1/system/version")

    assert ask().status_code == 200
    take_away(plane, "metadata")
    plane.database.close()

    with pytest.raises(MustWait):
        on_an_event_loop(ask)
    assert ask().status_code == 503


def test_what_goes_wrong_is_for_a_thread_too(
    world: World, root: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> object:
        raise LookupError("of its own")

    monkeypatch.setattr("common.services.sessions.authenticate", broken)

    def ask() -> TestResponse:
        return root.world.api.ask("GET", "/v1/system/version", credential="any")

    with pytest.raises(MustWait):
        on_an_event_loop(ask)
    assert not caplog.records
    assert ask().status_code == 500
