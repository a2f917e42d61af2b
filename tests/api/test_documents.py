"""The API documents: code and document say the same, both ways, and the page needs nobody else's files."""

from __future__ import annotations

import re

import pytest
from openapi_spec_validator import validate

from tests.people import Port, World


@pytest.fixture(params=["admin", "user"])
def port(request: pytest.FixtureRequest, world: World) -> Port:
    return world.admin if request.param == "admin" else world.api


def test_the_document_is_valid_openapi(port: Port) -> None:
    document = port.ask("GET", "/openapi.json").json

    assert document["openapi"] == "3.1.0"
    validate(document)


def test_document_and_served_rules_are_the_same(port: Port) -> None:
    document = port.ask("GET", "/openapi.json").json
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in port.app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }

    assert documented == served


def test_every_operation_names_the_permission_that_is_asked_for_and_has_its_own_id(port: Port) -> None:
    document = port.ask("GET", "/openapi.json").json
    operations = {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }

    asked = {
        (route.method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.rule)): route.requires.text
        for route in port.app.extensions["ragkeeper.routes"]
    }
    assert {key: operation["x-permission"] for key, operation in operations.items()} == asked
    for operation in operations.values():
        assert bool(operation["security"]) == (operation["x-permission"] != "public"), operation["operationId"]
    assert len({operation["operationId"] for operation in operations.values()}) == len(operations)


def test_every_operation_with_a_caller_says_that_calls_may_be_limited(port: Port) -> None:
    document = port.ask("GET", "/openapi.json").json

    silent = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
        if operation["security"] and "429" not in operation["responses"]
    ]
    assert silent == []


def test_the_page_loads_its_files_from_this_server_only(port: Port) -> None:
    page = port.ask("GET", "/docs")
    text = page.get_data(as_text=True)

    loaded = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert loaded
    for path in loaded:
        assert path.startswith("/")
        assert port.ask("GET", path).status_code == 200, path
    assert "http" not in re.sub(r"<!.*?>", "", text)
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not re.search(r"<script(?! src)|<style|\son\w+=", text), "nothing inline, which the policy would refuse"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("swagger-ui.css", "text/css"), ("swagger-ui-bundle.js", "text/javascript"), ("favicon-32x32.png", "image/png")],
)
def test_files_of_the_page_have_their_type_and_may_be_kept(port: Port, name: str, kind: str) -> None:
    file = port.ask("GET", f"/docs/{name}")

    assert (file.status_code, file.mimetype) == (200, kind)
    assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert "max-age" in file.headers["Cache-Control"]


@pytest.mark.parametrize("name", ["..", "%2e%2e%2fsetup.py", "index.css%00", "oauth2-redirect.html", "LICENSE", "x"])
def test_no_other_file_is_served(port: Port, name: str) -> None:
    assert port.ask("GET", f"/docs/{name}").status_code in (400, 404)


def test_what_is_absent_under_a_path_without_an_envelope_is_answered_as_an_unknown_path(port: Port) -> None:
    absent, unknown = port.ask("GET", "/docs/x"), port.ask("GET", "/nothing")

    assert (absent.status_code, absent.json.keys()) == (404, unknown.json.keys())
