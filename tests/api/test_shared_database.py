"""A database that a RAGFlow lives in too: what either program writes, the other reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid1

import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from werkzeug.security import check_password_hash, generate_password_hash

from common.core.passwords import encode_for_hash
from common.models.account import User
from common.models.base import created
from common.models.variable import StoredVariable
from common.services import accounts, opening, session_rows, sessions
from tests.people import Clock, Person, World, settings_for
from tests.side_by_side import at_once

SECRET_KEY = "a key that both programs were given and long enough"


class Later(TimestampSigner):
    """Signs as one did a minute later."""

    def get_timestamp(self) -> int:
        return super().get_timestamp() + 60


@pytest.fixture
def shared(tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world on a shared database."""
    settings = settings_for(tmp_path / "home", RAGKEEPER_SHARED_DATABASE="on", RAGKEEPER_SECRET_KEY=SECRET_KEY)
    plane = opening.open_plane(settings, now_ms=clock)
    yield World(plane)
    plane.session_uses.wait(10)
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


def test_a_login_in_ragflow_while_somebody_logs_out_here_stands(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    someone = shared.person()
    session, newer = someone.session, uuid1().hex
    hashed = session_rows.hashed

    def slow(text: str) -> str:
        shared.plane.database.run("UPDATE user SET access_token = ? WHERE id = ?", (newer, someone.user_id))
        return hashed(text)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(session_rows, "hashed", slow)
        shared.api.ask("POST", "/v1/user/logout", credential=session)

    assert access_token(shared, someone) == newer
    assert shared.api.ask("GET", "/v1/user/info", credential=session).status_code == 401


def test_a_session_that_ragflow_made_is_taken_over(shared: World) -> None:
    someone = shared.person(is_superuser=True)
    value = uuid1().hex
    shared.plane.database.execute(User.update(access_token=value).where(User.id == someone.user_id))
    wire = URLSafeTimedSerializer(SECRET_KEY).dumps(value)

    assert shared.api.ask("GET", "/v1/user/info", credential=wire).json["data"]["email"] == someone.email
    (who,) = shared.plane.database.all(
        "SELECT actor_email, actor_roles, credential FROM rk_audit_event WHERE tag = 'session:adopt'"
    )
    (session_id,) = shared.plane.database.one("SELECT id FROM rk_session") or ("",)
    assert who == (someone.email, "superuser", f"session:{session_id}")
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


@pytest.mark.parametrize("program", ["here", "in RAGFlow"])
def test_a_session_of_ragflows_that_another_login_has_replaced_meanwhile_ends_nothing(
    shared: World, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    someone = shared.person()
    replaced, newer = uuid1().hex, uuid1().hex
    shared.plane.database.execute(User.update(access_token=replaced).where(User.id == someone.user_id))
    take_over, sessions_now = sessions._take_over, []

    def late(*values: Any) -> None:
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(sessions, "_take_over", take_over)
            if program == "here":
                sessions_now.append(someone.session)
            else:
                shared.plane.database.execute(User.update(access_token=newer).where(User.id == someone.user_id))
                sessions_now.append(URLSafeTimedSerializer(SECRET_KEY).dumps(newer))
                shared.api.ask("GET", "/v1/user/info", credential=sessions_now[0])
        take_over(*values)

    with monkeypatch.context() as slowly:
        slowly.setattr(sessions, "_take_over", late)
        answer = shared.api.ask("GET", "/v1/user/info", credential=URLSafeTimedSerializer(SECRET_KEY).dumps(replaced))

    assert answer.status_code == 401
    assert shared.api.ask("GET", "/v1/user/info", credential=sessions_now[0]).status_code == 200
    assert len(shared.events("session:adopt")) == (program == "in RAGFlow")


@pytest.mark.parametrize("wish", [{}, {"grant": "refresh"}])
def test_the_session_in_use_outlives_what_is_left_of_older_ones(
    shared: World, clock: Clock, wish: dict[str, str]
) -> None:
    someone = shared.person()
    login = {"email": someone.email, "password": someone.password}
    assert shared.api.ask("POST", "/v1/user/login", login | wish).status_code == 200
    clock.forward(days=38)
    session = shared.api.ask("POST", "/v1/user/login", login).headers["Authorization"]

    assert sessions.prune(shared.plane) == 1

    assert URLSafeTimedSerializer(SECRET_KEY).loads(session) == access_token(shared, someone)
    assert shared.api.ask("GET", "/v1/user/info", credential=session).status_code == 200


def test_an_idle_session_is_not_taken_over_again_under_another_signature(shared: World, clock: Clock) -> None:
    someone = shared.person()
    value = URLSafeTimedSerializer(SECRET_KEY).loads(someone.session)
    clock.forward(hours=25)

    wire = str(URLSafeTimedSerializer(SECRET_KEY, signer=Later).dumps(value))

    assert wire != someone.session
    assert shared.api.ask("GET", "/v1/user/info", credential=wire).status_code == 401
    assert shared.events("session:adopt") == []


def test_a_session_that_ragflow_made_counts_among_the_others_and_nobody_knows_its_password(
    shared: World, clock: Clock
) -> None:
    someone = shared.person()
    mine = []
    for _ in range(10):
        clock.forward(seconds=1)
        answer = shared.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": someone.password})
        mine.append(answer.headers["Authorization"])
    value = uuid1().hex
    shared.plane.database.execute(User.update(access_token=value).where(User.id == someone.user_id))
    wire = URLSafeTimedSerializer(SECRET_KEY).dumps(value)
    clock.forward(seconds=1)

    assert shared.api.ask("GET", "/v1/user/info", credential=wire).status_code == 200

    # The newest of mine was the one that RAGFlow knew: it is over there, and so here.
    working = [shared.api.ask("GET", "/v1/user/info", credential=each).status_code == 200 for each in mine]
    assert working == [True] * 9 + [False]
    assert shared.api.ask("DELETE", "/api/v1/sessions", credential=wire).json["reason"] == "reauthenticate"


def test_with_one_session_a_refresh_login_ends_the_one_that_ragflow_knows_there_too(shared: World) -> None:
    someone = shared.person()
    shared.plane.database.insert(StoredVariable, name="session.most", value="1", updated_at=0)
    shared.plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    bare = someone.session
    body = {"email": someone.email, "password": someone.password, "grant": "refresh"}

    pair = shared.api.ask("POST", "/api/v1/auth/login", body).json["data"]

    assert access_token(shared, someone).startswith("INVALID_")
    assert shared.api.ask("GET", "/v1/user/info", credential=bare).status_code == 401
    assert shared.api.ask("GET", "/v1/user/info", credential=pair["access_token"]).status_code == 200


def test_ragflow_is_given_no_access_token_that_it_would_take_for_a_session_without_end(shared: World) -> None:
    someone = shared.person()
    bare = someone.session
    known = access_token(shared, someone)
    body = {"email": someone.email, "password": someone.password, "grant": "refresh"}

    pair = shared.api.ask("POST", "/api/v1/auth/login", body).json["data"]

    assert access_token(shared, someone) == known
    assert shared.api.ask("GET", "/v1/user/info", credential=bare).status_code == 200
    assert shared.api.ask("GET", "/v1/user/info", credential=pair["access_token"]).status_code == 200
    assert shared.api.ask("POST", "/v1/user/logout", credential=pair["access_token"]).json["data"] is True
    assert shared.api.ask("GET", "/v1/user/info", credential=bare).status_code == 200


def test_ending_the_session_that_ragflow_knows_ends_it_there_too(shared: World) -> None:
    someone = shared.person()
    answer = shared.api.ask("DELETE", "/api/v1/sessions/current", credential=someone.session)

    assert answer.status_code == 200
    assert access_token(shared, someone).startswith("INVALID_")


def test_a_session_of_ragflows_that_an_administrator_ends_is_told_although_it_was_never_used_here(
    shared: World,
) -> None:
    someone, path = shared.person(), "/users/{}/sessions"
    shared.plane.database.execute(User.update(access_token=uuid1().hex).where(User.id == someone.user_id))

    ended = [shared.root.administer("DELETE", path.format(someone.email)).json["data"] for _ in range(2)]

    assert access_token(shared, someone).startswith("INVALID_")
    assert [each["ended"] for each in ended] == [1, 0]
    assert len(shared.events("session:end")) == 1


def test_ending_all_others_leaves_the_one_that_asks_in_both(shared: World) -> None:
    someone = shared.person()
    other, known = (
        someone.session,
        shared.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": someone.password}).headers[
            "Authorization"
        ],
    )
    value = access_token(shared, someone)

    assert shared.api.ask("DELETE", "/api/v1/sessions", credential=known).json["data"] == {"ended": 1}

    assert access_token(shared, someone) == value
    working = [shared.api.ask("GET", "/v1/user/info", credential=each).status_code for each in (other, known)]
    assert working == [401, 200]


def test_a_session_that_ragflow_ended_is_over_here_on_the_next_request(shared: World) -> None:
    someone = shared.person()
    assert shared.api.ask("GET", "/v1/user/info", credential=someone.session).status_code == 200

    shared.plane.database.execute(User.update(access_token="INVALID_x").where(User.id == someone.user_id))

    assert shared.api.ask("GET", "/v1/user/info", credential=someone.session).status_code == 401
    ((*_, after),) = shared.events("session:misuse")
    assert "ended in RAGFlow" in after


def test_a_session_of_ragflows_is_its_exact_characters_whatever_the_database_compares(shared: World) -> None:
    someone, value = shared.person(), uuid1().hex
    shared.plane.database.execute(User.update(access_token=value).where(User.id == someone.user_id))
    wire = URLSafeTimedSerializer(SECRET_KEY).dumps(value.upper())

    assert shared.api.ask("GET", "/v1/user/info", credential=wire).status_code == 401
    assert shared.events("session:adopt") == []


def test_nothing_of_ragflows_is_taken_over_where_it_does_not_share_the_database(world: World) -> None:
    someone, value = world.person(), uuid1().hex
    world.plane.database.execute(User.update(access_token=value).where(User.id == someone.user_id))

    assert world.api.ask("GET", "/v1/user/info", credential=world.plane.keys.sign(value)).status_code == 401


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
