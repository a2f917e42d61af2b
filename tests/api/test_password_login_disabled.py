"""DISABLE_PASSWORD_LOGIN: nobody gets a session of the user API by a password; administrators still have theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.services import opening
from tests.people import Clock, World, new_password, settings_for


@pytest.fixture
def disabled(tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world without password login."""
    plane = opening.open_plane(settings_for(tmp_path / "home", DISABLE_PASSWORD_LOGIN="1"), now_ms=clock)
    yield World(plane)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


@pytest.mark.parametrize("path", ["/v1/user/login", "/api/v1/auth/login"])
def test_a_right_password_opens_no_session(disabled: World, path: str) -> None:
    someone = disabled.person()

    answer = disabled.api.ask("POST", path, {"email": someone.email, "password": someone.password})

    assert answer.json["code"] == 103
    assert "Password login is disabled" in answer.json["message"]
    assert "Authorization" not in answer.headers
    assert disabled.plane.database.one("SELECT COUNT(*) FROM rk_session") == (0,)


def test_tries_are_in_the_audit_trail_once_a_network_and_quarter_of_an_hour(disabled: World, clock: Clock) -> None:
    def log_in(address: str) -> None:
        body = {"email": "nobody@ragkeeper.test", "password": "any"}
        disabled.api.ask("POST", "/v1/user/login", body, environ_overrides={"REMOTE_ADDR": address})

    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::1", "2001:db8:1::1"):
        log_in(address)
    clock.forward(seconds=901)
    log_in("2001:db8::1")

    found = disabled.events("session:login_refused")
    assert [event[:3] for event in found] == [("refused", None, "nobody@ragkeeper.test")] * 3
    assert '"reason":"password login is disabled"' in found[0][4]


def test_registration_opens_none_and_makes_no_account(disabled: World) -> None:
    body = {"email": "new@ragkeeper.test", "nickname": "New", "password": new_password()}

    assert disabled.api.ask("POST", "/v1/user/register", body).json["code"] == 103
    assert disabled.plane.database.one("SELECT COUNT(*) FROM user WHERE email = 'new@ragkeeper.test'") == (0,)


def test_a_forgotten_password_is_no_way_around(disabled: World) -> None:
    someone = disabled.person()

    assert disabled.api.ask("GET", f"/v1/user/forget/captcha?email={someone.email}").json["code"] == 103


def test_administrators_log_in_and_the_login_page_is_told(disabled: World) -> None:
    assert disabled.root.admin_session
    assert disabled.api.ask("GET", "/v1/system/config").json["data"]["disablePasswordLogin"] is True
