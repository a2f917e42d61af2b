"""What an app of declared routes does by itself, whatever its routes."""

from __future__ import annotations

import queue
from dataclasses import replace
from typing import Any

import pytest

from api.app import create_app
from common.http.app import build_app
from common.http.dispatch import DirectFlask
from common.http.route import Routes
from common.services import level_watch
from common.services.level_watch import EVERY_S, LevelWatch
from common.services.plane import Plane
from tests.people import Clock, Port, World


@pytest.mark.parametrize("nothing", [None, (), "user:read"])
def test_a_route_that_names_no_requirement_does_not_start(plane: Plane, nothing: Any) -> None:
    routes = Routes("things", "own")
    routes.get("/things", requires=nothing, summary="Every thing")(list)

    with pytest.raises(ValueError, match="GET /things names no requirement"):
        build_app(plane, "user", routes)


def test_a_hook_that_would_never_run_keeps_the_app_from_starting(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hooked(DirectFlask):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self.before_request(lambda: None)

    monkeypatch.setattr("common.http.app.DirectFlask", Hooked)

    with pytest.raises(ValueError, match="before_request_funcs"):
        build_app(plane, "user", [])


def test_log_levels_that_another_process_has_set_are_looked_up_beside_requests_of_whoever_is_signed_in(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: queue.Queue[dict[str, str]] = queue.Queue()
    monkeypatch.setattr(level_watch, "apply", applied.put)
    api = Port(create_app(replace(world.plane, level_watch=LevelWatch(lambda: clock() / 1000))))
    session = world.person().session
    world.plane.cache.set(level_watch.KEY, '{"some.package": "ERROR"}')

    for _ in range(2):
        assert api.ask("GET", "/v1/user/info", credential=session).status_code == 200
        clock.forward(seconds=EVERY_S)

    assert applied.get(timeout=10) == {"some.package": "ERROR"}
