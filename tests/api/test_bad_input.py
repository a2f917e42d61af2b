"""Whatever is sent to whichever route of both servers, the answer is a 4xx, or a 200 with a code: never a 500."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import pytest

from common.http.route import Route
from tests.people import Person, Port, World

LOGIN = {"ragkeeper-admin": "/api/v1/admin/login", "ragkeeper-user": "/v1/user/login"}
JSON = {"Content-Type": "application/json"}
BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "nothing": (b"", JSON),
    "broken": (b'{"a": ', JSON),
    "list": (b"[1, 2]", JSON),
    "text": (b'"text"', JSON),
    "null": (b"null", JSON),
    "number": (b"1e999", JSON),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", JSON),
    "long fraction": (b'{"a": 0.' + b"9" * 5000 + b"}", JSON),
    "not UTF-8": (b'{"email": "\xff\xfe"}', JSON),
    "surrogate": (b'{"email": "\\ud800"}', JSON),
    "deep": (b"[" * 3000 + b"]" * 3000, JSON),
    "deep, with NUL": (b'{"a": ' + b"[" * 1000 + b'"\\u0000"' + b"]" * 1000 + b"}", JSON),
    "form": (b"email=x&password=y", {"Content-Type": "application/x-www-form-urlencoded"}),
    "multipart without boundary": (b"x", {"Content-Type": "multipart/form-data"}),
    "XML": (b"<a/>", {"Content-Type": "application/xml"}),
    "charset": (b"{}", {"Content-Type": "application/json; charset=nonsense"}),
}
VALUES: tuple[object, ...] = (None, True, 0, -1, 2**70, 1.5, "", "x" * 10_000, "nul\0", [], {}, [{}], {"a": {"b": []}})
QUERIES = (
    "limit=-1&cursor=%ff",
    "limit=99999999999999999999",
    "cursor=" + "A" * 5000,
    "q=%00",
    "q=" + "%F0%9F%92%A9" * 99,
)
PARTS = (
    "nobody@x.test",
    "%00",
    "%FF%FE",
    "a%2Fb",
    "x" * 9000,
    "0",
    "-1",
    "9" * 40,
    "🧨",
    "..",
    "'; DROP TABLE user; --",
)


@pytest.fixture(params=["admin", "user"])
def port(request: pytest.FixtureRequest, world: World) -> Port:
    return world.admin if request.param == "admin" else world.api


def routes_of(port: Port) -> Iterator[Route]:
    """Every route but those that end the session in use."""
    yield from (route for route in port.app.extensions["ragkeeper.routes"] if "logout" not in route.rule)


def path_of(route: Route, part: str = "nobody@x.test") -> str:
    return re.sub("<[^>]+>", part, route.rule)


def credential(world: World, port: Port) -> str:
    return world.root.admin_session if port is world.admin else world.root.session


def complaints(port: Port, world: World, route: Route, *asked: tuple[str, str, dict[str, object]]) -> list[str]:
    """The requests that were answered as if this side had failed."""
    token, found = credential(world, port), []
    for what, path, more in asked:
        answer = port.ask(route.method, path, credential=token, **more)
        if answer.status_code >= 500 and answer.status_code != 503 and "healthz" not in route.rule:
            found.append(f"{route.endpoint}: {what}: {answer.status_code} {answer.get_data(as_text=True)[:200]}")
    return found


def test_no_body_is_a_500(world: World, port: Port) -> None:
    found = []
    for route in routes_of(port):
        asked = [(name, path_of(route), {"data": raw, "headers": headers}) for name, (raw, headers) in BODIES.items()]
        found += complaints(port, world, route, *asked)

    assert found == []


def nested(levels: int, innermost: str) -> str:
    """A body with so many levels."""
    return '{"email": ' + '{"a": ' * (levels - 1) + innermost + "}" * levels


@pytest.mark.parametrize("innermost", ['"\\u0000"', "1"])
@pytest.mark.parametrize("levels", [101, 980, 1020])
def test_a_body_of_many_levels_is_refused_in_a_sentence(port: Port, levels: int, innermost: str) -> None:
    answer = port.ask("POST", LOGIN[port.app.name], data=nested(levels, innermost), headers=JSON)

    assert answer.json["message"] == "The body has more than 100 levels of objects and lists."


def test_a_hundred_levels_are_read(port: Port) -> None:
    answer = port.ask("POST", LOGIN[port.app.name], data=nested(100, '"\\u0000"'), headers=JSON)

    assert answer.json["message"].startswith("email.a.a")
    assert "NUL" in answer.json["message"]


@pytest.mark.parametrize("value", ['{"%s": "\\u0000"}', '[1, {"%s": ["\\u0000"]}]', '{"%s": {"a\\u0000": 1}}'])
def test_a_long_name_in_a_body_is_not_repeated_whole(port: Port, value: str) -> None:
    answer = port.ask("POST", LOGIN[port.app.name], data='{"x": ' + value % ("y" * 9000) + "}", headers=JSON)

    assert len(answer.json["message"]) < 300
    assert "NUL" in answer.json["message"]


def test_a_long_name_that_a_model_refuses_is_not_repeated_whole(world: World) -> None:
    body = {"new_permissions": {"x" * 9000: {"enable": "perhaps"}}}

    answer = world.root.administer("POST", "/roles/admin/permission", body)

    assert answer.status_code == 400
    assert len(answer.json["message"]) < 300


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "Input should be a valid string; or: Input should be a valid integer."),
        (-1, "Input should be a valid string; or: Input should be greater than or equal to 0."),
        ("x" * 65, "String should have at most 64 characters; or: Input should be a valid integer."),
    ],
)
def test_a_field_of_several_types_is_called_as_its_sender_calls_it(world: World, value: object, text: str) -> None:
    problem = {"Accept": "application/problem+json"}
    refused = world.person().ask("POST", "/api/v1/system/tokens", {"expires_at": value}, headers=problem)

    assert (refused.status_code, refused.json["field"]) == (400, "expires_at")
    assert refused.json["detail"] == f"expires_at: {text}"


def test_a_value_within_a_list_is_called_by_its_place(world: World) -> None:
    refused = world.person().ask("POST", "/api/v1/system/tokens", {"scopes": ["read:dataset", 5]})

    assert refused.json["message"] == "scopes.1: Input should be a valid string."


def test_no_value_of_a_field_is_a_500(world: World, port: Port) -> None:
    found = []
    for route in routes_of(port):
        if route.body is None:
            continue
        fields = [field.validation_alias if isinstance(field.validation_alias, str) else name
                  for name, field in route.body.model_fields.items()]  # fmt: skip
        asked = [
            (f"{name}={value!r:.40}", path_of(route), {"body": dict.fromkeys(fields, "x") | {name: value}})
            for name in fields
            for value in VALUES
        ]
        found += complaints(port, world, route, *asked)

    assert found == []


def test_no_path_and_no_query_is_a_500(world: World, port: Port) -> None:
    found = []
    for route in routes_of(port):
        asked: list[tuple[str, str, dict[str, object]]] = [
            (query[:30], f"{path_of(route)}?{query}", {}) for query in QUERIES
        ]
        if "<" in route.rule:
            asked += [(part[:30], path_of(route, part), {}) for part in PARTS]
        found += complaints(port, world, route, *asked)

    assert found == []


def test_a_body_over_a_mebibyte_is_413_also_where_none_is_taken(world: World, port: Port) -> None:
    token, big = credential(world, port), b'{"a": "' + b"x" * 1_048_577 + b'"}'
    answers = {
        route.endpoint: port.ask(
            route.method, path_of(route, world.root.user_id), credential=token, data=big, headers=JSON
        ).status_code
        for route in routes_of(port)
        if route.uploads is None
    }

    assert {endpoint: status for endpoint, status in answers.items() if status not in (404, 413)} == {}


@pytest.mark.parametrize(
    "header", ["Bearer \udc80", "\t", "Basic %%%", "Basic Og==", "Bearer " + "x" * 5000, "🧨", "Bearer a b c"]
)
def test_no_credential_is_a_500(port: Port, header: str) -> None:
    path = "/api/v1/admin/users" if port.app.name.endswith("admin") else "/v1/user/info"

    encoded = header.encode("utf-8", "surrogateescape").decode("latin-1")
    assert port.ask("GET", path, headers={"Authorization": encoded}).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        b"Basic \xff",
        "Basic ü".encode(),
        b"Basic %%%",
        b"Basic /////w==",
        b"Basic Og==",
        b"Basic",
        b"Basic a=b",
        b"Basic AAA6AAA=",
    ],
)
@pytest.mark.usefixtures("root")
def test_a_basic_credential_that_can_not_be_read_is_none(world: World, header: bytes) -> None:
    answer = world.admin.ask("GET", "/api/v1/admin/auth", headers={"Authorization": header.decode("latin-1")})

    assert (answer.status_code, answer.json["code"]) == (401, 401)


def test_an_unknown_method_is_405_and_says_which_there_are(world: World, port: Port) -> None:
    path = "/api/v1/admin/users" if port is world.admin else "/v1/user/login"

    answer = port.ask("BREW", path)

    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.json["code"] == 405


def test_an_unknown_parameter_is_refused_and_named(world: World, root: Person) -> None:
    gone = world.person()
    assert root.administer("PUT", f"/users/{gone.email}/activate", {"activate_status": "off"}).status_code == 200

    answer = root.administer("DELETE", f"/users/{gone.email}?dryrun=true")

    assert answer.status_code == 400
    assert "dryrun" in answer.json["message"]
    assert "dry_run" in answer.json["message"]
    assert root.administer("GET", f"/users/{gone.email}").status_code == 200


def test_a_route_of_RAGFlow_ignores_parameters_that_it_does_not_know(root: Person) -> None:
    assert root.ask("GET", "/v1/system/token_list?_=1790000000").json["code"] == 0


BROKEN = ("%ff", "%ED%A0%80", "a%C3", "%ff%fe")


@pytest.mark.parametrize("text", BROKEN)
def test_a_query_that_is_no_UTF8_is_refused_and_its_parameter_named(root: Person, text: str) -> None:
    ours = root.administer("GET", f"/users?limit=5&q={text}")
    theirs = root.ask("GET", f"/v1/system/token_list?limit=5&cursor={text}")

    assert (ours.status_code, ours.json["message"]) == (400, "q: must be UTF-8 text.")
    assert (theirs.status_code, theirs.json["code"]) == (200, 101)
    assert theirs.json["message"] == "cursor: must be UTF-8 text."


@pytest.mark.parametrize("query", ["%00=1", "q%00=1", "%ff=1"])
def test_a_parameter_without_a_usable_name_is_blamed_on_the_query(root: Person, query: str) -> None:
    answer = root.administer("GET", f"/users?{query}", headers={"Accept": "application/problem+json"})

    assert (answer.status_code, answer.json["field"]) == (400, "query")


@pytest.mark.parametrize("text", BROKEN)
def test_a_form_that_is_no_UTF8_changes_nothing_and_its_field_is_named(world: World, text: str) -> None:
    person = world.person()
    kinds = {
        "application/x-www-form-urlencoded": f"nickname={text}".encode(),
        "multipart/form-data; boundary=x": b'--x\r\nContent-Disposition: form-data; name="nickname"\r\n\r\n'
        + unquote_to_bytes(text)
        + b"\r\n--x--\r\n",
    }
    before = person.ask("GET", "/v1/user/info").json["data"]["nickname"]

    for kind, data in kinds.items():
        answer = person.ask("POST", "/v1/user/setting", data=data, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json["code"]) == (200, 101)
        assert answer.json["message"] == "nickname: must be UTF-8 text."
    assert person.ask("GET", "/v1/user/info").json["data"]["nickname"] == before


FORM, PARTS = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"


@pytest.mark.parametrize("kind", [FORM, PARTS, "multipart/form-data", "text/plain"])
def test_json_is_read_as_such_whatever_it_is_called(world: World, kind: str) -> None:
    """curl calls what it is given a form; what a token must not do would be left out."""
    asked = json.dumps({"name": "short", "scopes": ["read:dataset"]}).encode()

    made = world.person().ask("POST", "/api/v1/system/tokens", data=asked, headers={"Content-Type": kind}).json["data"]

    assert (made["name"], made["scopes"]) == ("short", ["read:dataset"])


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (FORM, b' {"scopes": ["read:dataset"]'),
        (FORM, b'\xef\xbb\xbf{"scopes": ["read:dataset"]}'),
        (FORM, b"%7B%22scopes%22%3A%5B%22read%3Adataset%22%5D%7D"),
        ("multipart/form-data", b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n--x--\r\n'),
        (PARTS, b'--y\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n--y--\r\n'),
        (PARTS, b'--x\r\nContent-Disposition: form-data; name="n\xff"\r\n\r\na\r\n--x--\r\n'),
    ],
)
def test_a_body_that_can_not_be_read_is_not_taken_for_an_empty_one(world: World, kind: str, sent: bytes) -> None:
    person = world.person()

    answer = person.ask("POST", "/api/v1/system/tokens", data=sent, headers={"Content-Type": kind})

    assert (answer.status_code, answer.json["code"]) == (200, 101)
    assert person.ask("GET", "/api/v1/system/tokens").json["data"] == []


def test_a_form_without_fields_is_an_empty_one(world: World) -> None:
    answer = world.person().ask("POST", "/api/v1/system/tokens", data=b"--x--\r\n", headers={"Content-Type": PARTS})

    assert answer.json["code"] == 0


def test_a_form_in_UTF8_is_taken(world: World) -> None:
    person = world.person()
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    answer = person.ask("POST", "/v1/user/setting", data=b"nickname=%C3%85sa+%F0%9F%90%B1", headers=form)

    assert answer.json["code"] == 0
    assert person.ask("GET", "/v1/user/info").json["data"]["nickname"] == "Åsa 🐱"


@pytest.mark.parametrize("path", ["/users/%2F", "/users//", "//users", "/users//admin"])
def test_a_path_with_an_empty_part_is_unknown_and_no_host_is_named(world: World, path: str) -> None:
    answers = [
        world.root.administer("GET", path, headers={"Host": "evil.example"}),
        world.root.ask("GET", f"/v1/{path}", headers={"Host": "evil.example"}),
    ]

    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (404, 404)
        assert "Location" not in answer.headers
        assert "evil.example" not in answer.get_data(as_text=True)


@pytest.mark.parametrize("path", ["//v1/system/config", "///v1/system/config", "//livez"])
def test_slashes_at_the_beginning_are_one_for_clients_whose_base_url_ends_with_one(world: World, path: str) -> None:
    assert world.api.ask("GET", path, environ_overrides={"PATH_INFO": path}).status_code == 200


def test_a_slash_at_the_end_of_a_path_does_not_matter(world: World) -> None:
    assert world.api.ask("GET", "/v1/system/config/").json["code"] == 0
    assert world.root.administer("GET", "/users/").status_code == 200


@pytest.mark.parametrize("name", ["%00", "a%0Ab", "a%7F", "%E2%80%AE", "%ff"])
def test_a_name_in_a_path_that_can_not_be_printed_is_refused_by_the_name_of_its_part(world: World, name: str) -> None:
    answer = world.root.administer("GET", f"/users/{name}", headers={"Accept": "application/problem+json"})

    assert (answer.status_code, answer.json["field"]) == (400, "email")


@pytest.mark.parametrize(
    "sent",
    [
        '{"name": "a", "scopes": ["read:dataset"], "scopes": null}',
        '{"name": "a", "scopes": ["read:dataset"], "\\u0073copes": null}',
        '{"name": "a", "scopes": [{"scopes": 1, "scopes": 1}]}',
    ],
)
def test_a_name_that_stands_twice_in_a_body_is_refused_and_named(world: World, sent: str) -> None:
    """Whoever looked at the body on its way may have taken the other value for the one that counts."""
    person = world.person()

    ragflows = person.ask("POST", "/api/v1/system/tokens", data=sent, headers=JSON)
    ours = world.root.administer("POST", f"/users/{person.email}/keys", data=sent, headers=JSON)

    assert (ragflows.status_code, ragflows.json["code"], ours.status_code) == (200, 101, 400)
    assert ragflows.json["message"] == ours.json["message"] == "scopes: stands twice in the body."
    assert person.ask("GET", "/api/v1/system/tokens").json["data"] == []


def test_a_name_may_stand_in_two_objects_of_a_body(root: Person) -> None:
    checks = [{"resource": "dataset", "action": action} for action in ("read", "write")]

    assert root.ask("POST", "/api/v1/authz/check", {"checks": checks}).status_code == 200


def test_a_parameter_that_is_given_twice_is_refused_and_named(root: Person) -> None:
    root.administer("POST", "/roles", {"role_name": "kept"})

    answer = root.administer("DELETE", "/roles/kept?dry_run=0&dry_run=1")

    assert (answer.status_code, answer.json["message"]) == (400, "dry_run: stands twice in the query.")
    assert root.administer("GET", "/roles/kept").status_code == 200
    assert root.ask("GET", "/v1/system/token_list?limit=5&limit=5").json["code"] == 0


@pytest.mark.parametrize("number", ["1_0", "%2010", "%2B10", "10.0", "", "ten"])
def test_a_number_in_a_query_is_digits(world: World, number: str) -> None:
    for path in ("/audit", "/users"):
        answer = world.root.administer("GET", f"{path}?limit={number}")
        assert (answer.status_code, answer.json["message"].partition(":")[0]) == (400, "limit"), path


def test_an_unknown_path_is_judged_before_the_credential(world: World) -> None:
    answer = world.api.ask("GET", "/api/v1/nothing/here")

    assert answer.status_code == 404
    assert answer.json == {
        "code": 404, "message": "Not Found: /api/v1/nothing/here", "data": None, "error": "Not Found",
    }  # fmt: skip
