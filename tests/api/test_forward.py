"""The decision in front of RAGFlow, as a proxy asks for it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from werkzeug.test import TestResponse

from api.app import create_app as create_api
from common.core.errors import StoreUnavailable
from common.http.access import COUNTED
from common.services import opening, sessions
from common.settings import SettingsError
from tests.people import Clock, Person, World, settings_for
from tests.roles import give_role, make_role
from tests.side_by_side import at_once
from tests.statements import statements

SECRET_KEY = "a key that both programs were given and long enough"
SECRET = "what the proxy and the plane both know, and nobody else".replace(" ", "-")
Asked = tuple[str, str]
READ, WRITE = ("GET", "/v1/kb/list"), ("POST", "/v1/kb/rm")
ROOT = Path(__file__).parents[2]


def world_of(tmp_path: Path, clock: Clock, **given: str) -> World:
    settings = settings_for(
        tmp_path / "home",
        **{
            "RAGKEEPER_SHARED_DATABASE": "on",
            "RAGKEEPER_SECRET_KEY": SECRET_KEY,
            "RAGKEEPER_FORWARD_AUTH_SECRET": SECRET,
            **given,
        },
    )
    return World(opening.open_plane(settings, now_ms=clock))


def closed(world: World) -> None:
    world.plane.token_uses.wait(10)
    for store in (world.plane.database, world.plane.cache, world.plane.documents):
        store.close()


class Later(TimestampSigner):
    """Signs at another moment than now."""

    def get_timestamp(self) -> int:
        return super().get_timestamp() + 60


@pytest.fixture
def shared(tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A world on a database that a RAGFlow shares."""
    world = world_of(tmp_path, clock)
    yield world
    closed(world)


def decide(world: World, method: str, target: str, credential: str | None = None, **headers: str) -> TestResponse:
    """What the proxy is told about a request."""
    said = {
        "X-Original-Method": method, "X-Original-URI": target, "X-Ragkeeper-Forward-Secret": SECRET,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }  # fmt: skip
    return world.api.ask("GET", "/api/v1/authz/forward", credential=credential, headers=said)


def ragflow_sees(world: World, answer: TestResponse) -> str | None:
    """Id of the user that a RAGFlow takes the answer's credential for."""
    value = URLSafeTimedSerializer(SECRET_KEY).loads(answer.headers["Authorization"])
    assert len(value) >= 32
    assert not value.startswith("INVALID_")
    row = world.plane.database.one("SELECT id FROM user WHERE access_token = ? AND status = '1'", (value,))
    return row[0] if row else None


def token_of(person: Person) -> str:
    made = person.ask("POST", "/api/v1/system/tokens", {}).json
    assert made is not None
    return str(made["data"]["token"])


def limited(world: World, *actions: str) -> Person:
    """Someone who may do these on datasets, and nothing else."""
    name = "-".join(("limited", *actions))
    make_role(world, name, {"dataset": list(actions)} if actions else {})
    person = world.person()
    give_role(world, person, name)
    return person


def test_who_may_passes_with_a_credential_that_ragflow_takes(shared: World) -> None:
    someone = limited(shared, "read")

    passed, denied = decide(shared, *READ, someone.session), decide(shared, *WRITE, someone.session)

    assert (passed.status_code, passed.get_data()) == (200, b"")
    assert ragflow_sees(shared, passed) == someone.user_id
    assert (denied.status_code, denied.json["code"], "Authorization" in denied.headers) == (403, 403, False)
    assert "dataset:write" in denied.json["message"]


def test_every_session_of_an_account_and_its_tokens_are_turned_into_the_one_that_ragflow_knows(shared: World) -> None:
    someone = shared.person()
    older = someone.session
    newer = shared.api.ask("POST", "/v1/user/login", {"email": someone.email, "password": someone.password})
    for credential in (older, newer.headers["Authorization"], f"Bearer {token_of(someone)}"):
        assert ragflow_sees(shared, decide(shared, *READ, credential)) == someone.user_id


def test_a_token_with_scopes_goes_as_far_as_they_do_and_on_as_a_session(shared: World) -> None:
    someone = shared.person()
    made = someone.ask("POST", "/api/v1/system/tokens", {"scopes": ["read:dataset"]}).json
    assert made is not None
    token = f"Bearer {made['data']['token']}"

    assert ragflow_sees(shared, decide(shared, *READ, token)) == someone.user_id
    assert decide(shared, *WRITE, token).status_code == 403
    for target in ("/v1/user/setting", "/v1/user/tenant_info"):
        assert decide(shared, "GET", target, token).status_code == 403


def test_a_token_that_somebody_else_made_goes_no_further_once_its_account_outranks_that_one(shared: World) -> None:
    someone, manager = shared.person(), shared.person()
    give_role(shared, manager, "user-manager")
    made = manager.administer("POST", f"/users/{someone.email}/keys").json
    assert made is not None
    token = f"Bearer {made['data']['token']}"
    assert ragflow_sees(shared, decide(shared, *READ, token)) == someone.user_id

    give_role(shared, someone, "superuser")

    denied = decide(shared, *READ, token)
    assert (denied.status_code, "Authorization" in denied.headers) == (401, False)
    assert [event[1] for event in shared.events("token:misuse")] == [someone.email]


def test_an_account_that_ragflow_knows_no_session_of_gets_one_that_is_good_for_ragflow_alone(shared: World) -> None:
    someone = shared.person()
    token = token_of(someone)
    shared.api.ask("POST", "/v1/user/logout", credential=someone.session)

    first, second = decide(shared, *READ, token), decide(shared, *READ, token)

    assert ragflow_sees(shared, first) == ragflow_sees(shared, second) == someone.user_id
    assert [event[1] for event in shared.events("session:translate")] == [someone.email]
    wire = first.headers["Authorization"]
    # As a later decision signs it, so that it is no wire form that was noted when the value was made.
    again = URLSafeTimedSerializer(SECRET_KEY, signer=Later).dumps(shared.plane.keys.unsign(wire))
    assert again != wire
    for leaked in (wire, again):
        assert shared.api.ask("GET", "/v1/user/info", credential=leaked).status_code == 401
        assert shared.admin.ask("GET", "/api/v1/admin/version", credential=leaked).status_code == 401
        assert decide(shared, *READ, leaked).status_code == 401


def test_a_value_that_was_made_for_ragflow_goes_in_time_and_with_the_account_switched_off(
    shared: World,
    clock: Clock,
) -> None:
    someone = shared.person()
    token = token_of(someone)
    shared.api.ask("POST", "/v1/user/logout", credential=someone.session)
    first = decide(shared, *READ, token).headers["Authorization"]

    clock.forward(days=9)
    assert sessions.prune(shared.plane) >= 1
    second = decide(shared, *READ, token).headers["Authorization"]

    assert shared.plane.keys.unsign(first) != shared.plane.keys.unsign(second)
    shared.root.administer("PUT", f"/users/{someone.email}/activate", {"activate_status": "off"})
    assert decide(shared, *READ, token).status_code == 401
    row = shared.plane.database.one("SELECT access_token FROM user WHERE id = ?", (someone.user_id,))
    assert row
    assert row[0].startswith("INVALID_")


def test_an_account_that_is_switched_off_while_it_is_asked_about_gets_nothing(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = shared.person()
    token = token_of(someone)
    shared.api.ask("POST", "/v1/user/logout", credential=someone.session)
    meanwhile = {"activate_status": "off"}
    # Between the credential and the value that is made for it.
    monkeypatch.setattr(
        "common.services.limits.api_call",
        lambda *_: shared.root.administer("PUT", f"/users/{someone.email}/activate", meanwhile),
    )

    assert decide(shared, *READ, token).status_code == 401
    row = shared.plane.database.one("SELECT access_token FROM user WHERE id = ?", (someone.user_id,))
    assert row
    assert row[0].startswith("INVALID_")


@pytest.mark.race
def test_two_requests_at_once_make_one_value(shared: World) -> None:
    someone = shared.person()
    token = token_of(someone)
    shared.api.ask("GET", "/v1/user/info", credential=token)
    shared.plane.token_uses.wait(10)
    shared.api.ask("POST", "/v1/user/logout", credential=someone.session)

    assert at_once(shared, *[lambda: decide(shared, *READ, token)] * 2) == [200, 200]
    assert len(shared.events("session:translate")) == 1


def test_what_is_revoked_does_not_pass_any_more_from_the_next_request_on(shared: World) -> None:
    someone = limited(shared, "read")
    token = token_of(someone)
    assert decide(shared, *READ, token).status_code == decide(shared, *READ, someone.session).status_code == 200

    give_role(shared, someone, "viewer")
    assert decide(shared, *READ, token).status_code == decide(shared, *READ, someone.session).status_code == 403
    give_role(shared, someone, "member")
    assert decide(shared, *READ, someone.session).status_code == 200
    shared.api.ask("POST", "/v1/user/logout", credential=someone.session)
    assert decide(shared, *READ, someone.session).status_code == 401


@pytest.mark.parametrize("credential", [None, "nonsense", "ragflow-" + "x" * 43])
def test_who_is_not_signed_in_gets_to_what_is_public_only_and_without_a_credential(
    shared: World, credential: str | None
) -> None:
    refused, public = decide(shared, *READ, credential), decide(shared, "POST", "/v1/user/login", credential)

    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (public.status_code, "Authorization" in public.headers) == (200, False)


def test_a_public_route_passes_no_credential_on_not_even_a_good_one(shared: World) -> None:
    answer = decide(shared, "GET", "/v1/system/config", shared.person().session)

    assert (answer.status_code, "Authorization" in answer.headers) == (200, False)


def test_a_token_makes_no_further_credentials_at_ragflow(shared: World) -> None:
    someone = shared.person()
    token = token_of(someone)
    for asked in (("POST", "/v1/system/new_token"), ("POST", "/v1/user/setting"), ("GET", "/v1/system/token_list")):
        assert decide(shared, *asked, token).status_code == 403
        assert decide(shared, *asked, someone.session).status_code == 200


def test_a_generated_password_has_to_be_changed_first(shared: World) -> None:
    someone = shared.person(must_change=True)

    assert decide(shared, *READ, someone.session).status_code == 403
    assert decide(shared, "GET", "/v1/system/ping").status_code == 200


@pytest.mark.parametrize("target", ["/v1/kb/../kb/list", "/v1//kb/list", "/v1/kb%2flist", "/V1/kb/list", "/v1/new", ""])
def test_what_no_rule_is_about_or_two_may_be_is_denied_to_superusers_too(shared: World, target: str) -> None:
    assert decide(shared, "GET", target, shared.root.session).status_code == 403


def test_a_proxy_that_does_not_know_the_secret_learns_nothing(shared: World) -> None:
    root = shared.root
    for secret in ("", "x", SECRET[:-1], SECRET + "x", SECRET.upper(), "\xe9"):
        answer = decide(shared, *READ, root.session, X_Ragkeeper_Forward_Secret=secret)
        assert (answer.status_code, "Authorization" in answer.headers) == (403, False)
    bare = {"X-Original-Method": "GET", "X-Original-URI": "/v1/kb/list"}
    answer = shared.api.ask("GET", "/api/v1/authz/forward", credential=root.session, headers=bare)
    assert (answer.status_code, "Authorization" in answer.headers) == (403, False)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"X_Forwarded_Uri": "/v1/system/ping"}, 403),
        ({"X_Forwarded_Method": "POST"}, 403),
        ({"X_Forwarded_Uri": "/v1/kb/list", "X_Forwarded_Method": "GET"}, 200),
        ({"X_HTTP_Method_Override": "DELETE"}, 403),
        ({"X_Method_Override": "GET"}, 403),
        ({"X_HTTP_Method": "GET"}, 403),
        ({"X_Original_URL": "/v1/kb/list"}, 403),
        ({"X_Rewrite_URL": "/v1/kb/list"}, 403),
    ],
)
def test_a_request_that_is_said_to_be_two_things_does_not_pass(
    shared: World, more: dict[str, str], status: int
) -> None:
    assert decide(shared, *READ, shared.root.session, **more).status_code == status


def test_the_names_that_traefik_uses_are_read_alike(shared: World) -> None:
    someone = limited(shared, "read")

    def told(method: str, target: str) -> int:
        said = {"X-Forwarded-Method": method, "X-Forwarded-Uri": target, "X-Ragkeeper-Forward-Secret": SECRET}
        answer = shared.api.ask("GET", "/api/v1/authz/forward", credential=someone.session, headers=said)
        return answer.status_code

    assert (told(*READ), told(*WRITE)) == (200, 403)


def test_a_decision_takes_two_statements(shared: World) -> None:
    someone = shared.person()
    assert decide(shared, *READ, someone.session).status_code == 200

    with statements(shared.plane) as heard:
        assert decide(shared, *READ, someone.session).status_code == 200

    assert len(heard) == 2, heard


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (READ, 200),
        (WRITE, 403),
        (("POST", "/v1/api/rm"), 403),
        (("GET", "/v1/no/such/route"), 403),
        (("GET", "/v1/KB/list"), 403),
        (("GET", "//v1/kb/list"), 403),
    ],
)
def test_the_access_line_says_whose_request_was_decided_also_where_the_answer_is_no(
    shared: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], asked: Asked, status: int
) -> None:
    someone = limited(shared, "read")
    token = token_of(someone)
    caplog.set_level(logging.INFO, "ragkeeper.access")

    assert decide(shared, *asked, token).status_code == status

    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (line["route"], line["status"], line["user"]) == ("/api/v1/authz/forward", status, someone.user_id)
    assert line["credential"].startswith("token:")


@pytest.mark.parametrize("ended", [False, True])
def test_what_nobody_may_is_a_no_whatever_the_credential_is(shared: World, ended: bool) -> None:
    credential = shared.person().session if ended else "rubbish"
    if ended:
        shared.api.ask("POST", "/v1/user/logout", credential=credential)

    assert decide(shared, "GET", "/v1/no/such/route", credential).status_code == 403


def test_what_nobody_may_is_a_no_also_while_the_database_is_down(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = shared.person().session

    def down(*_: object) -> None:
        raise StoreUnavailable("metadata", "connection refused")

    monkeypatch.setattr(type(shared.plane.database), "one", down)

    assert decide(shared, "GET", "/v1/no/such/route", credential).status_code == 403


def test_a_dead_token_at_the_front_is_in_the_audit_trail(shared: World) -> None:
    someone = shared.person()
    someone_elses = someone.session
    shared.api.ask("POST", "/v1/user/logout", credential=someone_elses)

    assert decide(shared, *READ, someone_elses).status_code == 401

    assert [event[2] for event in shared.events("session:misuse")] == ["GET /api/v1/authz/forward"]


def test_limits_on_calls_count_at_the_front_too(shared: World) -> None:
    someone = shared.person()
    change = {"settings": {"limit.token_calls": 1}}
    assert shared.root.administer("PATCH", "/settings", change).status_code == 200
    token = token_of(someone)

    answers = [decide(shared, *READ, token) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]
    assert int(answers[1].headers["Retry-After"]) > 0


def test_a_call_that_has_counted_and_is_begun_anew_does_not_count_again_here_either(shared: World) -> None:
    change = {"settings": {"limit.token_calls": 1}}
    assert shared.root.administer("PATCH", "/settings", change).status_code == 200
    said = {"X-Original-Method": "GET", "X-Original-URI": "/v1/kb/list", "X-Ragkeeper-Forward-Secret": SECRET}
    token, again = token_of(shared.person()), {COUNTED: True}

    answers = [
        shared.api.ask("GET", "/api/v1/authz/forward", credential=token, headers=said, environ_overrides=given)
        for given in (again, again, {}, {})
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


def test_where_no_ragflow_shares_the_database_no_credential_goes_on(tmp_path: Path, clock: Clock) -> None:
    world = world_of(tmp_path, clock, RAGKEEPER_SHARED_DATABASE="off")
    try:
        answer = decide(world, *READ, world.root.session)
        assert (answer.status_code, "Authorization" in answer.headers) == (200, False)
    finally:
        closed(world)


def test_where_no_secret_is_configured_nobody_is_answered(tmp_path: Path, clock: Clock) -> None:
    world = world_of(tmp_path, clock, RAGKEEPER_FORWARD_AUTH_SECRET="")
    try:
        answer = decide(world, *READ, world.root.session, X_Ragkeeper_Forward_Secret="")
        assert (answer.status_code, "RAGKEEPER_FORWARD_AUTH_SECRET" in answer.json["message"]) == (403, True)
    finally:
        closed(world)


@pytest.mark.parametrize("storage", ["plain", "hashed"])
def test_a_table_of_ones_own_may_pass_tokens_on_as_they_are(tmp_path: Path, clock: Clock, storage: str) -> None:
    table = tmp_path / "routes.yaml"
    rules = "pass_tokens: true\nrules:\n  dataset:read: [GET /api/v1/datasets, GET /v1/kb/list]\n"
    table.write_text(rules)
    world = world_of(tmp_path, clock, RAGKEEPER_RAGFLOW_ROUTES=str(table), RAGKEEPER_TOKEN_STORAGE=storage)
    try:
        someone = world.person()
        token = token_of(someone)
        made = someone.ask("POST", "/api/v1/system/tokens", {"scopes": ["read:dataset"]}).json
        assert made is not None

        def goes_on(target: str, credential: str) -> Any:
            return decide(world, "GET", target, credential).headers["Authorization"]

        # RAGFlow knows no token that is stored as a digest, and none with scopes.
        as_it_came = [token] if storage == "plain" else []
        for credential in (token, made["data"]["token"], someone.session):
            for target in ("/api/v1/datasets", "/v1/kb/list"):
                sent = goes_on(target, credential)
                if credential in as_it_came and target == "/api/v1/datasets":
                    assert sent == f"Bearer {token}"
                else:
                    assert URLSafeTimedSerializer(SECRET_KEY).loads(sent)
        assert decide(world, "GET", "/v1/system/ping", token).status_code == 403
    finally:
        closed(world)


@pytest.mark.parametrize("content", [None, "rules: [", "rules:\n  planet:read: []\n", "- x\n"])
def test_a_table_that_can_not_be_used_stops_the_start_and_is_named(
    tmp_path: Path, clock: Clock, content: str | None
) -> None:
    table = tmp_path / "routes.yaml"
    if content is not None:
        table.write_text(content)

    world = world_of(tmp_path, clock, RAGKEEPER_RAGFLOW_ROUTES=str(table))
    with pytest.raises(SettingsError, match=r"routes\.yaml"):
        create_api(world.plane)


def test_the_shipped_proxy_asks_the_plane_for_all_that_it_answers_and_ragflow_for_the_rest(world: World) -> None:
    shipped = (ROOT / "docker/nginx/ragflow-forward-auth.conf").read_text()
    to_the_plane = re.compile("|".join(re.findall(r"location ~ (\^\S+) \{", shipped)))
    own = {re.sub(r"<[^>]+>", "0" * 32, route.rule) for route in world.api.app.extensions["ragkeeper.routes"]}
    own = {path for path in own if path.startswith(("/v1/", "/api/v1/"))} - {"/api/v1/authz/forward"}
    rules = yaml.safe_load((ROOT / "conf/ragflow_routes.yaml").read_text())["rules"]
    theirs = {
        re.sub(r"\{[^}]+\}|\*\*", "0" * 32, line.split(" ")[1])
        for rule, lines in rules.items()
        for line in lines
        if ":" in rule and not rule.startswith("team:")
    }

    assert len(own) > 60
    assert {path for path in own if not to_the_plane.search(path)} == set()
    assert len(theirs) > 200
    assert {path for path in theirs if to_the_plane.search(path)} == set()
    assert not to_the_plane.search("/api/v1/authz/forward")
