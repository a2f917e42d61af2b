"""What is kept of where a request came from, when a proxy stands before the servers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.services import opening
from common.services.plane import Plane
from tests.people import Clock, World, settings_for

CLIENT = "203.0.113.9"
SAID = {
    "X-Forwarded-For": f"1.2.3.4, {CLIENT}, 10.0.0.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "plane.example.org",
    "X-Request-Id": "from-the-proxy.1",
}


@pytest.fixture
def trusted() -> str:
    """The proxies that are believed."""
    return "127.0.0.1,10.0.0.0/8"


@pytest.fixture
def plane(tmp_path: Path, clock: Clock, trusted: str) -> Iterator[Plane]:
    """A plane that believes some proxies."""
    settings = settings_for(tmp_path / "home", RAGKEEPER_TRUSTED_PROXIES=trusted)
    opened = opening.open_plane(settings, now_ms=clock)
    yield opened
    for store in (opened.database, opened.cache, opened.documents):
        store.close()


@pytest.fixture
def last_line(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], dict[str, Any]]:
    """Reads the access line that was written last."""
    caplog.set_level(logging.INFO, "ragkeeper.access")
    return lambda: json.loads(capfd.readouterr().out.splitlines()[-1])


def log_in(world: World, headers: dict[str, str]) -> dict[str, str]:
    person = world.person()
    wanted = {"email": person.email, "password": person.password}
    answer = world.api.ask("POST", "/v1/user/login", wanted, headers=headers)
    assert answer.json["code"] == 0  # type: ignore[index]
    return dict(answer.headers)


@pytest.mark.parametrize(("trusted", "address"), [("127.0.0.1,10.0.0.0/8", CLIENT), ("", "127.0.0.1")])
def test_session_event_and_line_have_the_clients_address_if_the_proxy_is_trusted(
    plane: Plane, last_line: Callable[[], dict[str, Any]], address: str
) -> None:
    world = World(plane)
    answered = log_in(world, SAID)

    assert plane.database.all("SELECT address FROM rk_session") == [(address,)]
    events = plane.database.all("SELECT address, request_id FROM rk_audit_event WHERE tag = 'session:login'")
    assert events == [(address, "from-the-proxy.1")]
    line = last_line()
    assert (line["address"], line["request_id"]) == (address, "from-the-proxy.1")
    assert answered["X-Request-Id"] == "from-the-proxy.1"


def test_an_id_that_is_not_well_formed_is_replaced_everywhere(
    plane: Plane, last_line: Callable[[], dict[str, Any]]
) -> None:
    world = World(plane)
    made = log_in(world, {"X-Request-Id": 'x", "user": "root'})["X-Request-Id"]

    assert len(made) == 24
    assert last_line()["request_id"] == made
    assert plane.database.all("SELECT request_id FROM rk_audit_event WHERE tag = 'session:login'") == [(made,)]
