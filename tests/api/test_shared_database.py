"""A database that a RAGFlow lives in too: what either program writes, the other reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid1

import pytest
from itsdangerous import URLSafeTimedSerializer
from werkzeug.security import check_password_hash, generate_password_hash

from admin.server.app import create_app as create_admin
from api.app import create_app as create_api
from common.core.passwords import encode_for_hash
from common.models.account import User
from common.models.base import created
from common.services import accounts, opening, sessions
from tests.people import Clock, Person, Port, World, settings_for
from tests.side_by_side import at_once

SECRET_KEY = "a key that both programs were given and long enough"


@pytest.fixture
def shared(tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world on a shared database."""
    settings = settings_for(tmp_path / "home", RAGKEEPER_SHARED_DATABASE="on", RAGKEEPER_SECRET_KEY=SECRET_KEY)
    plane = opening.open_plane(settings, now_ms=clock)
    yield World(plane, Port(create_admin(plane)), Port(create_api(plane)))
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


def access_token(world: World, person: Person) -> str:
    row = world.plane.database.one("SELECT access_token FROM user WHERE id = ?", (person.user_id,))
    assert row
    return str(row[0])


def test_ragflow_accepts_the_session_that_a_login_here_gives(shared: World) -> None:
    someone = shared.person()

    value = URLSafeTimedSerializer(SECRET_KEY).loads(someone.session)

    assert value == access_token(shared, someone)
    assert len(value) >= 32


def test_ragflow_can_check_the_password_hash(shared: World) -> None:
    someone = shared.person()

    (stored,) = shared.plane.database.one("SELECT password FROM user WHERE id = ?", (someone.user_id,)) or ("",)

    assert check_password_hash(stored, encode_for_hash(someone.password).decode())


def test_logging_out_the_session_that_ragflow_knows_ends_it_there_too(shared: World) -> None:
    someone = shared.person()
    older = someone.session
    newer = shared.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": someone.password})
    value = access_token(shared, someone)

    shared.api.ask("POST", "/v1/user/logout", credential=older)
    assert access_token(shared, someone) == value
    shared.api.ask("POST", "/v1/user/logout", credential=newer.headers["Authorization"])
    assert access_token(shared, someone).startswith("INVALID_")


def test_a_session_that_ragflow_made_is_taken_over(shared: World) -> None:
    someone = shared.person()
    value = uuid1().hex
    shared.plane.database.execute(User.update(access_token=value).where(User.id == someone.user_id))
    wire = URLSafeTimedSerializer(SECRET_KEY).dumps(value)

    assert shared.api.ask("GET", "/v1/user/info", credential=wire).json["data"]["email"] == someone.email
    assert len(shared.events("session:adopt")) == 1
    shared.api.ask("POST", "/v1/user/logout", credential=wire)
    assert shared.api.ask("GET", "/v1/user/info", credential=wire).status_code == 401


@pytest.mark.race
def test_a_page_that_asks_many_things_at_once_takes_its_session_over_once(shared: World) -> None:
    someone = shared.person()
    value = uuid1().hex
    shared.plane.database.execute(User.update(access_token=value).where(User.id == someone.user_id))
    wire = URLSafeTimedSerializer(SECRET_KEY).dumps(value)

    statuses = at_once(shared, *[lambda: shared.api.ask("GET", "/v1/user/info", credential=wire)] * 2)

    assert statuses == [200] * 2
    assert len(shared.events("session:adopt")) == 1


@pytest.mark.parametrize("realm", ["user", "admin"])
def test_S7_a_session_that_has_expired_is_not_taken_over_again(shared: World, clock: Clock, realm: str) -> None:
    someone = shared.person(is_superuser=True)
    port, path, wire = (
        (shared.admin, "/api/v1/admin/users", someone.admin_session)
        if realm == "admin"
        else (shared.api, "/v1/user/info", someone.session)
    )
    assert port.ask("GET", path, credential=wire).status_code == 200

    clock.forward(days=38)

    assert port.ask("GET", path, credential=wire).status_code == 401
    assert sessions.prune(shared.plane) == 1
    assert port.ask("GET", path, credential=wire).status_code == 401
    assert access_token(shared, someone).startswith("INVALID_")


@pytest.mark.parametrize("value", ["", "short", "INVALID_0123456789abcdef0123456789abcdef"])
def test_no_empty_short_or_invalid_value_is_taken_over(shared: World, value: str) -> None:
    someone = shared.person()
    shared.plane.database.execute(User.update(access_token=value).where(User.id == someone.user_id))
    wire = URLSafeTimedSerializer(SECRET_KEY).dumps(value)

    assert shared.api.ask("GET", "/v1/user/info", credential=wire).status_code == 401


def test_a_form_signed_with_another_key_is_nothing(shared: World) -> None:
    someone = shared.person()
    assert someone.session
    wire = URLSafeTimedSerializer("another key and just as long as it must be").dumps(access_token(shared, someone))

    assert shared.api.ask("GET", "/v1/user/info", credential=wire).status_code == 401


def test_an_account_that_ragflow_made_after_the_migration_logs_in(shared: World, clock: Clock) -> None:
    password = "made on the other side"
    row = {
        "id": uuid1().hex, "nickname": "Other", "email": "Other@ragflow.test", "is_authenticated": "1",
        "is_active": "1", "is_anonymous": "0", "status": "1", "is_superuser": False,
        "password": generate_password_hash(encode_for_hash(password).decode()),
    }  # fmt: skip
    shared.plane.database.insert(User, **row, **created(clock(), shared.plane.zone))

    answer = shared.api.ask("POST", "/v1/user/login", {"email": "Other@ragflow.test", "password": password})

    assert answer.json["code"] == 0


def test_an_address_that_differs_in_an_accent_is_another_one(shared: World, clock: Clock) -> None:
    row = {
        "id": uuid1().hex, "nickname": "Jose", "email": "jose@ragflow.test", "is_authenticated": "1",
        "is_active": "1", "is_anonymous": "0", "status": "1", "is_superuser": False, "password": None,
    }  # fmt: skip
    shared.plane.database.insert(User, **row, **created(clock(), shared.plane.zone))

    assert accounts.find(shared.plane, "jos\u00e9@ragflow.test") is None
    found = accounts.find(shared.plane, "JOSE@ragflow.test")
    assert found is not None
    assert found.id == row["id"]
