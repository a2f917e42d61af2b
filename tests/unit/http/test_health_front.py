"""Health on the event loop says what the app's routes say, and leaves to the app what needs a caller."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from common.http.health_front import HealthFront
from tests.people import Person, World


def asked(world: World, path: str, query: bytes = b"", **headers: str) -> Any:
    scope = {
        "path": path,
        "query_string": query,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    found = asyncio.run(HealthFront(world.plane).answer(scope))
    return None if found is None else (found[0], orjson.loads(found[1]))


@pytest.mark.parametrize("path", ["/v1/system/healthz", "/api/v1/system/healthz", "/readyz", "/readyz?store=cache"])
def test_it_says_what_the_app_says(world: World, path: str) -> None:
    name, _, query = path.partition("?")
    by_the_app = world.api.ask("GET", path)

    assert asked(world, name, query.encode()) == (by_the_app.status_code, by_the_app.json) == (200, by_the_app.json)


def test_a_store_that_is_down_is_named_and_no_reason_is_given_to_strangers(world: World) -> None:
    lose_objects(world)

    status, body = asked(world, "/v1/system/healthz")
    assert (status, body["storage"], body["db"], body["status"]) == (500, "nok", "ok", "nok")
    assert body["_meta"].keys() == {"storage"}
    assert body["_meta"]["storage"].keys() == {"elapsed"}
    assert asked(world, "/readyz") == (503, {"status": "nok", "down": ["objects"]})
    assert asked(world, "/readyz", b"store=metadata")[0] == 200


def test_while_all_is_well_an_operator_is_answered_like_anybody(world: World, root: Person) -> None:
    assert asked(world, "/v1/system/healthz", Authorization=root.admin_session)[0] == 200


def test_who_may_be_an_operator_is_answered_by_the_app_when_something_is_down(world: World, root: Person) -> None:
    lose_objects(world)

    assert asked(world, "/v1/system/healthz", Authorization=root.admin_session) is None


@pytest.mark.parametrize("query", [b"store=everything", b"store=cache&store=objects", b"stor=cache", b"store", b"%ff"])
def test_what_the_app_must_refuse_is_left_to_it(world: World, query: bytes) -> None:
    assert asked(world, "/readyz", query) is None


def test_other_paths_are_the_apps(world: World) -> None:
    assert asked(world, "/v1/system/status") is None


def lose_objects(world: World) -> None:
    """Make object storage one that can't be reached."""
    folder = world.plane.settings.home / "objects"
    folder.rename(folder.with_name("elsewhere"))
