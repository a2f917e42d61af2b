"""Langfuse credentials, against a Langfuse of one's own on loopback."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from api.app import create_app
from common.services.plane import Plane, Sharing
from common.stores.egress import EgressGuard
from tests.people import Person, Port, World
from tests.unit.stores.servers import hang, http_server, langfuse, raw_server, send

PATHS = ("/v1/langfuse/api_key", "/api/v1/langfuse/api-key")
PATH = PATHS[1]
SECRET = "sk-lf-canary-4b1d-9c55-secret-77f0wxyz"
OTHER_SECRET = "sk-lf-another-0000-1111-secret-abcd"
PROJECTS = [{"id": "p1", "name": "Support"}, {"id": "p2", "name": "Second"}]


@dataclass
class FakeLangfuse:
    """A running one: its address, and the keys that it knows; both can be changed while it runs."""

    host: str = ""
    keys: dict[str, str] = field(default_factory=lambda: {"pk-lf-1": SECRET})
    projects: list[dict[str, str]] = field(default_factory=lambda: list(PROJECTS))
    asked: list[str] = field(default_factory=list)

    def body(self, secret_key: str = SECRET, public_key: str = "pk-lf-1", host: str | None = None) -> dict[str, str]:
        """What a client sends to store these keys."""
        return {"secret_key": secret_key, "public_key": public_key, "host": self.host if host is None else host}


@pytest.fixture
def fake() -> Iterator[FakeLangfuse]:
    running = FakeLangfuse()

    def answer(handler):
        running.asked.append(handler.headers["Authorization"])
        langfuse(running.keys, running.projects)(handler)

    with http_server(answer) as port:
        running.host = f"http://127.0.0.1:{port}"
        yield running


@pytest.fixture
def owner(world: World) -> Person:
    return world.person()


@pytest.fixture
def impatient(plane: Plane) -> Port:
    """The user API with a fifth of a second for calls outwards."""
    return Port(create_app(replace(plane, egress=EgressGuard(["127.0.0.0/8"], deadline_s=0.2))))


def stored(plane: Plane) -> list[tuple[object, ...]]:
    return plane.database.all(
        "SELECT l.tenant_id, l.secret_key, l.public_key, l.host, p.project_id, p.project_name "
        "FROM tenant_langfuse l LEFT JOIN rk_langfuse_project p ON p.tenant_id = l.tenant_id"
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_keys_that_langfuse_knows_are_stored_and_shown_masked(
    fake: FakeLangfuse, owner: Person, path: str, method: str
) -> None:
    saved = owner.ask(method, path, fake.body())

    assert saved.status_code == 200
    assert saved.json == {
        "code": 0,
        "message": "success",
        "data": {
            "tenant_id": owner.user_id,
            "secret_key": "sk-lf-…wxyz",
            "public_key": "pk-lf-1",
            "host": fake.host,
        },
    }
    assert owner.ask("GET", path).json["data"] == {
        "tenant_id": owner.user_id,
        "host": fake.host,
        "secret_key": "sk-lf-…wxyz",
        "public_key": "pk-lf-1",
        "project_id": "p1",
        "project_name": "Support",
    }


def test_keys_are_shown_and_deleted_without_asking_langfuse(fake: FakeLangfuse, owner: Person, plane: Plane) -> None:
    owner.ask("PUT", PATH, fake.body())
    asked_to_save = len(fake.asked)

    assert owner.ask("GET", PATH).json["data"]["project_name"] == "Support"
    assert owner.ask("DELETE", PATH).json == {"code": 0, "message": "success", "data": True}

    assert len(fake.asked) == asked_to_save == 1
    assert stored(plane) == []
    assert plane.database.all("SELECT * FROM rk_langfuse_project") == []


def test_replacing_keys_says_when(fake: FakeLangfuse, owner: Person, plane: Plane) -> None:
    owner.ask("POST", PATH, fake.body())
    fake.keys["pk-lf-2"] = OTHER_SECRET

    replaced = owner.ask("POST", PATH, fake.body(OTHER_SECRET, "pk-lf-2")).json["data"]

    assert replaced["update_time"] == plane.now_ms()
    assert replaced["update_date"].endswith(" GMT")
    assert [row[2] for row in stored(plane)] == ["pk-lf-2"]


def test_without_keys_get_and_delete_give_null_and_say_so(owner: Person) -> None:
    for method in ("GET", "DELETE"):
        answer = owner.ask(method, PATH)

        assert (answer.status_code, answer.json["code"], answer.json["data"]) == (200, 0, None)
        assert "no langfuse keys are stored" in answer.json["message"].lower()


def test_R19_wrong_keys_are_102_and_never_a_401(fake: FakeLangfuse, owner: Person, plane: Plane) -> None:
    answer = owner.ask("PUT", PATH, fake.body("sk-lf-wrong"))

    assert answer.status_code == 200
    assert answer.json == {"code": 102, "message": "Invalid Langfuse keys", "data": None}
    assert stored(plane) == []
    assert owner.ask("GET", PATH).json["code"] == 0, "the session is still good"


def test_R19_keys_that_were_withdrawn_since_are_still_shown(fake: FakeLangfuse, owner: Person) -> None:
    owner.ask("PUT", PATH, fake.body())
    fake.keys.clear()

    assert owner.ask("GET", PATH).json["data"]["project_id"] == "p1"


def test_S20_another_secret_of_a_known_public_key_is_verified_afresh(
    fake: FakeLangfuse, owner: Person, plane: Plane
) -> None:
    owner.ask("PUT", PATH, fake.body())

    assert owner.ask("PUT", PATH, fake.body(OTHER_SECRET)).json["code"] == 102
    assert owner.ask("GET", PATH).json["data"]["secret_key"] == "sk-lf-…wxyz"

    fake.keys["pk-lf-1"] = OTHER_SECRET
    assert owner.ask("PUT", PATH, fake.body(OTHER_SECRET)).json["code"] == 0
    assert plane.keys.decrypt(str(stored(plane)[0][1])).reveal() == OTHER_SECRET


def test_S20_two_tenants_with_one_public_key_do_not_share_anything(
    fake: FakeLangfuse, owner: Person, world: World
) -> None:
    stranger = world.person()
    owner.ask("PUT", PATH, fake.body())

    assert stranger.ask("PUT", PATH, fake.body("sk-lf-guessed")).json["code"] == 102
    assert stranger.ask("GET", PATH).json["data"] is None


def test_the_masked_secret_sent_back_keeps_the_stored_one(fake: FakeLangfuse, owner: Person, plane: Plane) -> None:
    owner.ask("PUT", PATH, fake.body())
    fake.projects[0] = {"id": "p1", "name": "Renamed"}

    answer = owner.ask("PUT", PATH, fake.body("sk-lf-…wxyz"))

    assert answer.json["code"] == 0
    assert plane.keys.decrypt(str(stored(plane)[0][1])).reveal() == SECRET
    assert owner.ask("GET", PATH).json["data"]["project_name"] == "Renamed"
    assert fake.asked[0] == fake.asked[1], "the stored secret was verified again"


def test_a_stored_secret_is_not_sent_to_another_host(fake: FakeLangfuse, owner: Person) -> None:
    owner.ask("PUT", PATH, fake.body())
    overheard: list[str] = []

    def overhear(handler):
        overheard.append(handler.headers["Authorization"])
        send(handler, 200, json.dumps({"data": PROJECTS}).encode())

    with http_server(overhear) as port:
        answer = owner.ask("PUT", PATH, fake.body("sk-lf-…wxyz", host=f"http://127.0.0.1:{port}"))

    assert answer.json["code"] == 102
    assert "secret_key" in answer.json["message"]
    assert overheard == []


@pytest.mark.parametrize("absent", ["secret_key", "public_key", "host"])
def test_an_absent_key_is_101(fake: FakeLangfuse, owner: Person, absent: str) -> None:
    answer = owner.ask("PUT", PATH, {name: value for name, value in fake.body().items() if name != absent})

    assert answer.status_code == 200
    assert answer.json == {"code": 101, "message": f"required argument are missing: {absent}; ", "data": None}


def test_empty_values_are_102_and_named(fake: FakeLangfuse, owner: Person) -> None:
    answer = owner.ask("PUT", PATH, {"secret_key": "", "public_key": "pk-lf-1", "host": "  "})

    assert (answer.status_code, answer.json["code"]) == (200, 102)
    assert answer.json["message"] == "Missing required fields: secret_key, host"
    assert fake.asked == []


@pytest.mark.parametrize(
    "change",
    [
        {"public_key": "pk\nlf"},
        {"public_key": "x" * 1025},
        {"secret_key": "x" * 1025},
        {"secret_key": "sk-lf-…"},
        {"host": "http://" + "h" * 130},
        {"host": "ftp://langfuse.test"},
        {"host": "cloud.langfuse.com"},
        {"host": "http://user:password@langfuse.test"},
    ],
)
def test_what_can_be_no_key_and_no_host_is_a_business_error(
    fake: FakeLangfuse, owner: Person, plane: Plane, change: dict[str, str]
) -> None:
    answer = owner.ask("PUT", PATH, {**fake.body(), **change})

    assert answer.status_code == 200
    assert 100 <= answer.json["code"] <= 109
    assert next(iter(change)) in answer.json["message"]
    assert fake.asked == []
    assert stored(plane) == []


def test_the_longest_key_fits_its_column_when_it_is_encrypted(fake: FakeLangfuse, owner: Person, plane: Plane) -> None:
    longest = "s" * 1024
    fake.keys["pk-lf-1"] = longest

    assert owner.ask("PUT", PATH, fake.body(longest)).json["code"] == 0
    assert len(str(stored(plane)[0][1])) <= 2048


@pytest.mark.parametrize("address", ["http://169.254.169.254", "http://10.0.0.1:9200", "http://[::1]:6379"])
def test_S19_an_inner_address_is_not_called(owner: Person, fake: FakeLangfuse, address: str) -> None:
    answer = owner.ask("PUT", PATH, fake.body(host=address))

    assert (answer.status_code, answer.json["code"]) == (200, 102)
    assert "host" in answer.json["message"].lower()


def test_S19_what_some_other_server_answers_is_not_repeated(owner: Person, fake: FakeLangfuse) -> None:
    with http_server(lambda handler: send(handler, 200, b'{"cloud": "credentials-of-the-host"}')) as port:
        answer = owner.ask("PUT", PATH, fake.body(host=f"http://127.0.0.1:{port}"))

    assert (answer.status_code, answer.json["code"]) == (200, 100)
    assert "host" in answer.json["message"]
    assert "credentials-of-the-host" not in answer.get_data(as_text=True)


def test_a_host_that_refuses_the_connection_is_a_business_error(owner: Person, fake: FakeLangfuse) -> None:
    with raw_server(hang) as port:
        pass
    answer = owner.ask("PUT", PATH, fake.body(host=f"http://127.0.0.1:{port}"))

    assert (answer.status_code, answer.json["code"], answer.json["data"]) == (200, 100, None)
    assert "could not be reached" in answer.json["message"]


def test_R20_a_hanging_host_is_given_up_and_delays_nobody_else(
    owner: Person, world: World, plane: Plane, fake: FakeLangfuse, impatient: Port
) -> None:
    session, neighbour = owner.session, world.person().session
    answers = []
    connected = threading.Event()

    def hang_up_late(connection, over):
        connected.set()
        hang(connection, over)

    with raw_server(hang_up_late) as port:
        body = fake.body(host=f"http://127.0.0.1:{port}")
        caller = threading.Thread(target=lambda: answers.append(impatient.ask("PUT", PATH, body, credential=session)))
        caller.start()
        assert connected.wait(5)
        began = time.monotonic()
        assert impatient.ask("PUT", PATH, fake.body(), credential=neighbour).json["code"] == 0
        assert impatient.ask("POST", "/v1/user/setting", {"nickname": "Else"}, credential=session).json["code"] == 0
        meanwhile = time.monotonic() - began
        caller.join()

    assert answers[0].status_code == 200
    assert answers[0].json["code"] == 100
    assert "0.2 seconds" in answers[0].json["message"]
    assert meanwhile < 0.2, "a write of somebody else waited for the hanging host"
    assert [row[3] for row in stored(plane)] == [fake.host]


def test_more_calls_than_there_are_places_are_503_at_once(owner: Person, plane: Plane, fake: FakeLangfuse) -> None:
    guard = EgressGuard(["127.0.0.0/8"], limit=1)
    busy = Port(create_app(replace(plane, egress=guard)))

    with guard.place():
        answer = busy.ask("PUT", PATH, fake.body(), credential=owner.session)

    assert (answer.status_code, answer.json["code"]) == (503, 503)


def test_a_tenant_that_one_does_not_own_has_other_keys(fake: FakeLangfuse, owner: Person, world: World) -> None:
    member = world.person()
    owner.ask("PUT", PATH, fake.body())
    owner.ask("POST", f"/v1/tenant/{owner.user_id}/user", {"email": member.email})
    assert member.ask("PUT", f"/v1/tenant/agree/{owner.user_id}").json["code"] == 0

    for method in ("GET", "PUT", "POST", "DELETE"):
        body = fake.body() if method in ("PUT", "POST") else None
        answer = member.ask(method, PATH, body, headers={"X-Tenant": owner.user_id})
        assert (answer.status_code, answer.json["code"], answer.json["data"]) == (200, 109, False)

    assert member.ask("GET", PATH).json["data"] is None
    assert owner.ask("GET", PATH).json["data"]["public_key"] == "pk-lf-1"


def test_an_organisation_of_ones_own_has_keys_of_its_own(fake: FakeLangfuse, owner: Person) -> None:
    made = owner.ask("POST", "/api/v1/tenants", {"name": "Second"}).json["data"]["tenant_id"]

    saved = owner.ask("PUT", PATH, fake.body(), headers={"X-Tenant": made})

    assert saved.json["data"]["tenant_id"] == made
    assert owner.ask("GET", PATH).json["data"] is None


def test_S19_the_secret_is_in_no_answer_no_event_no_log_and_no_file(
    fake: FakeLangfuse, owner: Person, plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [
        owner.ask("PUT", PATH, fake.body()),
        owner.ask("GET", PATH),
        owner.ask("PUT", PATH, fake.body("sk-lf-…wxyz")),
        owner.ask("PUT", PATH, {**fake.body(), "host": "nowhere"}),
        owner.ask("PUT", PATH, {**fake.body(), "public_key": 7}),
        owner.ask("PUT", PATH, {**fake.body(), "secret_key": [SECRET]}),
        owner.ask("PUT", PATH, fake.body(SECRET + "x")),
        owner.ask("DELETE", PATH),
        owner.ask("PUT", PATH, fake.body()),
    ]

    canary = SECRET.removeprefix("sk-lf-")[:20]
    assert all(canary not in answer.get_data(as_text=True) for answer in answers)
    assert canary not in caplog.text
    rows = {table: plane.database.all(f"SELECT * FROM `{table}`") for table in plane.database.tables()}
    assert [table for table, found in rows.items() if canary in str(found)] == []
    homes = [path for path in Path(plane.settings.home).rglob("*") if path.is_file()]
    assert [path for path in homes if canary.encode() in path.read_bytes()] == []


def test_saving_and_deleting_leave_events_without_the_secret(fake: FakeLangfuse, owner: Person, world: World) -> None:
    owner.ask("PUT", PATH, fake.body())
    owner.ask("PUT", PATH, fake.body("sk-lf-…wxyz"))
    owner.ask("DELETE", PATH)

    told = {"host": fake.host, "project_id": "p1", "public_key": "pk-lf-1"}
    saves = world.events("langfuse:save")
    assert [(event[1], event[2]) for event in saves] == [(owner.email, owner.user_id)] * 2
    assert [event[3] and json.loads(event[3]) for event in saves] == [None, told]
    assert [json.loads(event[4]) for event in saves] == [
        {**told, "secret_changed": True}, {**told, "secret_changed": False},
    ]  # fmt: skip
    (deleted,) = world.events("langfuse:delete")
    assert json.loads(deleted[3]) == told


def test_a_shared_database_keeps_the_secret_as_ragflow_reads_it(
    fake: FakeLangfuse, owner: Person, plane: Plane
) -> None:
    shared = Port(create_app(replace(plane, sharing=Sharing(plane.database, "on"))))

    answer = shared.ask("PUT", PATH, fake.body(), credential=owner.session)

    assert answer.json["data"]["secret_key"] == "sk-lf-…wxyz"
    assert stored(plane)[0][1] == SECRET


def test_keys_that_a_ragflow_stored_later_have_no_project_yet(fake: FakeLangfuse, owner: Person, plane: Plane) -> None:
    owner.ask("PUT", PATH, fake.body())
    plane.database.run(
        "UPDATE tenant_langfuse SET public_key = 'pk-lf-9', secret_key = 'short', update_time = update_time + 1"
    )

    shown = owner.ask("GET", PATH).json["data"]

    assert (shown["public_key"], shown["secret_key"]) == ("pk-lf-9", "…")
    assert (shown["project_id"], shown["project_name"]) == (None, None)


def test_a_secret_that_no_key_opens_any_more_can_be_replaced(fake: FakeLangfuse, owner: Person, plane: Plane) -> None:
    owner.ask("PUT", PATH, fake.body())
    plane.database.run("UPDATE tenant_langfuse SET secret_key = 'rk1:garbage'")

    assert owner.ask("GET", PATH).json["data"]["secret_key"] == "…"
    assert owner.ask("PUT", PATH, fake.body("…")).json["code"] == 101
    assert owner.ask("PUT", PATH, fake.body()).json["data"]["secret_key"] == "sk-lf-…wxyz"


def test_R38_the_columns_of_the_keys_have_no_index(plane: Plane) -> None:
    indexed = {column for index in plane.database.peewee.get_indexes("tenant_langfuse") for column in index.columns}

    assert "tenant_id" in indexed
    assert not indexed & {"secret_key", "public_key"}
