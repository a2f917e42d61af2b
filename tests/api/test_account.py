"""An account and what its owner does with it on the user API."""

from __future__ import annotations

import pytest

from common.core.errors import StoreUnavailable
from common.services import profile
from tests.people import Clock, Person, World, new_password

UNWRITABLE = "id, email, is_superuser, status, access_token, create_time, is_active, login_channel"
LOGINS = ["/v1/user/login", "/api/v1/auth/login"]


def register(world: World, **fields: object) -> object:
    body = {"nickname": "New One", "email": "new@ragkeeper.test", "password": new_password(), **fields}
    return world.api.ask("POST", "/v1/user/register", body)


@pytest.mark.parametrize("path", LOGINS)
def test_S5_login_shows_no_hash_and_no_token(world: World, path: str) -> None:
    someone = world.person()

    answer = world.api.ask("POST", path, {"email": someone.email, "password": someone.password})

    assert answer.json["code"] == 0
    assert answer.json["message"] == "Welcome back!"
    assert answer.headers["Access-Control-Expose-Headers"] == "Authorization"
    assert not {"password", "access_token"} & answer.json["data"].keys()


@pytest.mark.parametrize("path", ["/v1/user/register", "/api/v1/users"])
def test_S5_neither_registering_nor_ones_own_account_shows_them(world: World, path: str) -> None:
    body = {"nickname": "New One", "email": "new@ragkeeper.test", "password": new_password()}
    registered = world.api.ask("POST", path, body)
    session = registered.headers["Authorization"]
    shown = [
        world.api.ask("GET", own, credential=session)
        for own in ("/v1/user/info", "/api/v1/users/me", "/v1/user/tenant_info")
    ]

    stored = world.plane.database.one("SELECT password, access_token FROM user WHERE email = ?", (body["email"],))
    assert stored
    for answer in (registered, *shown):
        assert answer.json["code"] == 0
        assert not {"password", "access_token"} & answer.json["data"].keys()
        for secret in (*filter(None, stored), session, body["password"]):
            assert secret not in answer.get_data(as_text=True)


def test_every_login_failure_is_the_same_109(world: World, root: Person) -> None:
    someone, off = world.person(), world.person()
    root.administer("PUT", f"/users/{off.email}/activate", {"activate_status": "off"})

    answers = [
        world.api.ask("POST", "/v1/user/login", body)
        for body in (
            {"email": "nobody@ragkeeper.test", "password": "whatever it is"},
            {"email": someone.email, "password": "not the password"},
            {"email": off.email, "password": off.password},
            {"email": someone.email, "password": "A" * 342 + "=="},
            {"email": "no address", "password": "x"},
            {},
        )
    ]

    assert {(answer.status_code, answer.json["code"], answer.json["data"]) for answer in answers} == {(200, 109, False)}
    assert len({answer.get_data() for answer in answers}) == 1


def test_S7_two_logins_live_side_by_side_and_no_wire_form_repeats(world: World) -> None:
    someone = world.person()
    first = world.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": someone.password})
    second = world.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": someone.password})

    tokens = [answer.headers["Authorization"] for answer in (first, second)]
    assert tokens[0] != tokens[1]
    for token in tokens:
        assert world.api.ask("GET", "/v1/user/info", credential=token).json["data"]["email"] == someone.email
        assert world.api.ask("GET", "/api/v1/users/me", credential=f"Bearer {token}").json["code"] == 0


@pytest.mark.parametrize("path", ["/v1/user/logout", "/api/v1/auth/logout"])
def test_HEAD_ends_no_session(world: World, path: str) -> None:
    someone = world.person()

    answer = someone.ask("HEAD", path)

    assert answer.status_code == 405
    assert "HEAD" not in answer.headers["Allow"]
    assert someone.ask("GET", "/v1/user/info").status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_logout_takes_both_methods(world: World, method: str) -> None:
    someone = world.person()

    assert someone.ask(method, "/v1/user/logout").json["data"] is True
    assert someone.ask("GET", "/v1/user/info").status_code == 401


def test_R30_who_is_not_signed_in_gets_401_with_ragflows_text(world: World) -> None:
    for credential in (None, "garbage", "Bearer ragflow-nothing", "Bearer"):
        answer = world.api.ask("GET", "/v1/user/info", credential=credential)
        assert (answer.status_code, answer.json["code"]) == (401, 401)
        assert answer.json["message"] == "<Unauthorized '401: Unauthorized'>"


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("401 Unauthorized"), 500), (StoreUnavailable("metadata", "401 Unauthorized"), 503)],
)
def test_R30_what_goes_wrong_is_no_401_although_its_text_speaks_of_one(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    someone = world.person()
    assert someone.session

    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(profile, "own_profile", fails)
        assert someone.ask("GET", "/v1/user/info").status_code == status
    assert someone.ask("GET", "/v1/user/info").status_code == 200


def test_registering_logs_in_and_makes_the_tenant(world: World) -> None:
    answer = register(world)

    assert answer.json["code"] == 0
    assert "New One" in answer.json["message"]
    info = world.api.ask("GET", "/v1/user/info", credential=answer.headers["Authorization"]).json["data"]
    assert info["email"] == "new@ragkeeper.test"
    assert world.plane.database.one("SELECT COUNT(*) FROM user_tenant WHERE role = 'owner'") == (1,)


@pytest.mark.parametrize(
    ("fields", "code", "fragment"),
    [
        ({"email": "NEW@ragkeeper.test"}, 103, "has already registered"),
        ({"email": "no address"}, 103, "mail"),
        ({"email": 7}, 101, "email"),
        ({"nickname": "   "}, 101, "nickname"),
        ({"nickname": "x" * 101}, 101, "nickname"),
        ({"password": "short"}, 101, "password"),
        ({"password": "A" * 342 + "=="}, 101, "password"),
    ],
)
def test_a_bad_registration_is_200_with_a_code(
    world: World, fields: dict[str, object], code: int, fragment: str
) -> None:
    register(world)

    answer = register(world, **{"email": "other@ragkeeper.test", **fields})

    assert (answer.status_code, answer.json["code"]) == (200, code)
    assert fragment in answer.json["message"]


def test_missing_fields_are_listed_as_ragflow_does(world: World) -> None:
    answer = world.api.ask("POST", "/v1/user/register", {"email": "x@ragkeeper.test"})

    assert (answer.status_code, answer.json["code"]) == (200, 101)
    assert answer.json["message"].startswith("required argument are missing: nickname,password; ")


def test_a_form_is_read_like_json(world: World) -> None:
    someone = world.person()

    answer = world.api.ask("POST", "/v1/user/login", data={"email": someone.email, "password": someone.password})

    assert answer.json["code"] == 0


@pytest.mark.parametrize("raw", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"email": "\xff"}', b'{"email": "\\ud800"}'])
def test_bad_json_is_200_with_101(world: World, raw: bytes) -> None:
    answer = world.api.ask("POST", "/v1/user/login", data=raw, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json["code"]) == (200, 101)


def test_a_body_over_the_limit_is_413(world: World) -> None:
    answer = world.api.ask("POST", "/v1/user/login", {"email": "x" * 1_100_000})

    assert (answer.status_code, answer.json["code"]) == (413, 413)


def test_S10_only_allowed_columns_of_ones_own_row_are_written(world: World) -> None:
    someone = world.person()
    before = world.plane.database.one(f"SELECT {UNWRITABLE} FROM user WHERE id = ?", (someone.user_id,))

    answer = someone.ask(
        "POST",
        "/v1/user/setting",
        {
            "nickname": "Renamed", "language": "Chinese", "id": "other", "email": "root@x.test", "is_superuser": True,
            "access_token": "x" * 32, "status": "0", "create_time": 1, "is_active": "0", "login_channel": "mine",
        },
    )  # fmt: skip

    assert answer.json == {"code": 0, "message": "success", "data": True}
    after = world.plane.database.one(f"SELECT {UNWRITABLE} FROM user WHERE id = ?", (someone.user_id,))
    assert after == before
    assert someone.ask("GET", "/v1/user/info").json["data"]["nickname"] == "Renamed"


def test_a_password_change_needs_the_current_one_and_keeps_this_session_only(world: World) -> None:
    someone = world.person()
    other = world.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": someone.password})
    fresh = new_password()

    wrong = someone.ask("PATCH", "/api/v1/users/me", {"password": "not the password", "new_password": fresh})
    assert (wrong.status_code, wrong.json["code"], wrong.json["data"]) == (200, 109, False)
    right = someone.ask("PATCH", "/api/v1/users/me", {"password": someone.password, "new_password": fresh})
    assert right.json["data"] is True

    assert someone.ask("GET", "/v1/user/info").status_code == 200
    assert world.api.ask("GET", "/v1/user/info", credential=other.headers["Authorization"]).status_code == 401
    again = world.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": fresh})
    assert again.json["code"] == 0


@pytest.mark.parametrize(
    ("accept", "status", "asked"), [("*/*", 200, None), ("application/problem+json", 401, "Bearer")]
)
def test_a_refused_login_asks_for_a_credential_with_401_only(
    world: World, accept: str, status: int, asked: str | None
) -> None:
    body = {"email": world.person().email, "password": "a wrong password"}

    answer = world.api.ask("POST", "/v1/user/login", body, headers={"Accept": accept})

    assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == (status, asked)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/user/setting"), ("PATCH", "/api/v1/users/me")])
def test_a_current_password_is_checked_also_where_there_is_no_new_one(world: World, method: str, path: str) -> None:
    someone = world.person()

    wrong = someone.ask(method, path, {"password": "not the password", "nickname": "Renamed"})
    assert (wrong.status_code, wrong.json["code"], wrong.json["data"]) == (200, 109, False)
    assert someone.ask("GET", "/v1/user/info").json["data"]["nickname"] != "Renamed"
    assert [event[0] for event in world.events("user:password")] == ["refused"]

    for number, given in enumerate((someone.password, "", None)):
        assert someone.ask(method, path, {"password": given, "nickname": f"Named {number}"}).json["data"] is True
    assert someone.ask(method, path, {"password": someone.password, "nickname": "Renamed"}).json["data"] is True
    assert someone.ask("GET", "/v1/user/info").json["data"]["nickname"] == "Renamed"
    assert [event[0] for event in world.events("user:password")] == ["refused"]


def test_null_empties_what_may_be_empty_and_absence_changes_nothing(world: World) -> None:
    someone = world.person()
    given = {"avatar": "data:,x", "language": "Chinese", "color_schema": "Dark", "timezone": "UTC"}
    assert someone.ask("POST", "/v1/user/setting", given).json["data"] is True
    assert someone.ask("POST", "/v1/user/setting", {}).json["data"] is True
    shown = someone.ask("GET", "/v1/user/info").json["data"]
    assert {name: shown[name] for name in given} == given

    assert someone.ask("POST", "/v1/user/setting", dict.fromkeys(given)).json["data"] is True
    refused = someone.ask("POST", "/v1/user/setting", {"nickname": None})

    emptied = someone.ask("GET", "/v1/user/info").json["data"]
    assert {name: emptied[name] for name in given} == dict.fromkeys(given)
    assert refused.json["code"] == 101
    assert "nickname" in refused.json["message"]
    assert emptied["nickname"] == shown["nickname"]


def test_R27_a_login_is_noted(world: World, clock: Clock, root: Person) -> None:
    someone = world.person()
    clock.forward(hours=1)
    assert someone.session

    shown = root.administer("GET", f"/users/{someone.email}").json["data"][0]["last_login_time"]
    assert shown == "Mon, 21 Sep 2026 15:13:20 GMT"


def test_logins_and_refusals_are_in_the_audit_trail_without_the_password(world: World) -> None:
    someone = world.person()
    world.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": "a wrong password!"})
    assert someone.session

    assert [event[:3] for event in world.events("session:login_refused")] == [("refused", None, someone.email)]
    assert [event[:3] for event in world.events("session:login")] == [("ok", someone.email, someone.email)]
    trail = world.plane.database.all("SELECT * FROM rk_audit_event")
    assert someone.password not in str(trail)
    assert "a wrong password!" not in str(trail)
