"""The OpenAPI document, made of routes that are declared for the occasion."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from pydantic import create_model

from common.http.bodies import Body, Query
from common.http.fields import Item
from common.http.openapi import document
from common.http.requirement import PUBLIC, SIGNED_IN, Holds, OwnOr
from common.http.route import Routes


class Thing(Item):
    """A thing."""

    name: str
    note: str | None = None


class Pair(Item):
    """Things within a thing."""

    left: Thing
    right: Thing


class NewThing(Body):
    """A thing to make."""

    name: str


class Filter(Query):
    """Which things."""

    kind: str
    limit: int = 50


def declared(dialect: Any = "own", method: str = "GET", rule: str = "/things", **options: Any) -> Routes:
    routes = Routes("things", dialect)
    options = {"requires": SIGNED_IN, "data": Thing, "summary": "Things", **options}
    routes.add(method, rule, **options)(lambda call: None)
    return routes


def described(*groups: Routes, **options: Any) -> dict[str, Any]:
    whole = document("Things", "v1", [route for group in groups for route in group], **options)
    validate(whole)
    return whole


def operation(*groups: Routes, **options: Any) -> dict[str, Any]:
    whole = described(*groups, **options)
    return next(iter(next(iter(whole["paths"].values())).values()))


def accepts(whole: dict[str, Any], answer: dict[str, Any], status: str = "200") -> bool:
    found = next(iter(next(iter(whole["paths"].values())).values()))
    schema = found["responses"][status]["content"]["application/json"]["schema"]
    return OAS31Validator({**schema, "components": whole["components"]}).is_valid(answer)


def envelope(code: int, data: Any) -> dict[str, Any]:
    return {"code": code, "message": "", "data": data}


def test_what_a_route_asks_of_its_caller_is_named_and_needs_a_credential() -> None:
    found = operation(declared(requires=Holds("user", "read")))

    assert found["x-permission"] == "user:read"
    assert found["security"] == [{"credential": []}, {"cookie": []}]
    assert "`user:read`" in found["description"]


def test_what_an_administrator_may_do_to_their_own_account_without_the_permission_is_told() -> None:
    found = operation(declared(rule="/users/<email>", requires=OwnOr(Holds("user", "write"))))

    assert (found["x-permission"], found["x-scope"]) == ("user:write|own", "write:user")
    assert "own account" in found["description"]


def test_a_public_route_needs_no_credential_and_refuses_none() -> None:
    found = operation(declared(requires=PUBLIC))

    assert found["security"] == []
    assert not {"401", "403"} & found["responses"].keys()


def test_models_are_components_however_deep_they_are() -> None:
    whole = described(declared(data=Pair), declared(method="POST", body=NewThing, data=list[Thing]))

    assert {"Pair", "Thing", "NewThing"} <= whole["components"]["schemas"].keys()


def test_two_models_of_one_name_are_two_schemas() -> None:
    other = create_model("Thing", __module__="tests.elsewhere", weight=(int, ...))

    whole = described(declared(), declared(rule="/others", data=other))

    named = [schema for name, schema in whole["components"]["schemas"].items() if name.endswith("Thing")]
    assert sorted(sorted(schema["properties"]) for schema in named) == [["name", "note"], ["weight"]]


def test_a_model_that_is_named_like_a_schema_of_every_document_is_refused() -> None:
    with pytest.raises(ValueError, match="Failure"):
        described(declared(data=create_model("Failure", name=(str, ...))))


def test_two_operations_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="get_a_b"):
        described(declared(rule="/a-b"), declared(rule="/a_b"))


def test_a_field_with_a_default_is_not_promised() -> None:
    whole = described(declared())

    assert accepts(whole, envelope(0, {"name": "x"}))
    assert not accepts(whole, envelope(0, {"note": "x"}))


def test_a_success_has_code_0_and_the_data_that_is_declared() -> None:
    whole = described(declared())

    assert not accepts(whole, envelope(102, {"name": "x"}))
    assert not accepts(whole, envelope(0, None))


@pytest.mark.parametrize("data", [None, False])
def test_a_business_error_is_an_answer_of_ragflows_routes_only(data: Any) -> None:
    answer = envelope(109, data)

    assert accepts(described(declared("ragflow")), answer)
    assert not accepts(described(declared("ragflow")), envelope(500, data))
    assert not accepts(described(declared("admin")), answer)


def test_ragflows_routes_have_true_statuses_for_those_who_ask_for_problem_details() -> None:
    found = operation(declared("ragflow"))

    assert "400" not in found["responses"]
    assert list(found["responses"]["4XX"]["content"]) == ["application/problem+json"]


@pytest.mark.parametrize(
    ("dialect", "implied"),
    [
        ("admin", {"400", "401", "403", "413", "415", "429", "503"}),
        ("ragflow", {"401", "403", "413", "429", "503", "4XX"}),
    ],
)
def test_statuses_that_the_kind_of_a_route_implies_are_documented(dialect: str, implied: set[str]) -> None:
    found = operation(declared(dialect, "POST", body=NewThing))

    assert found["responses"].keys() == {"200", *implied}


@pytest.mark.parametrize("dialect", ["admin", "ragflow", "own", "bare"])
def test_a_body_that_is_too_large_is_refused_also_where_none_is_taken(dialect: str) -> None:
    assert "413" in operation(declared(dialect))["responses"]


@pytest.mark.parametrize("dialect", ["admin", "ragflow", "own"])
def test_what_has_a_path_or_query_of_the_callers_may_be_too_long(dialect: str) -> None:
    assert "414" in operation(declared(dialect, rule="/things/<name>"))["responses"]
    assert "414" in operation(declared(dialect, query=Filter))["responses"]
    assert "414" not in operation(declared(dialect))["responses"]


def test_statuses_that_a_route_declares_are_documented_with_the_envelope_and_as_problem() -> None:
    whole = described(declared("admin", statuses=(409,)))

    assert accepts(whole, envelope(409, None), "409")
    content = whole["paths"]["/things"]["get"]["responses"]["409"]["content"]
    assert content.keys() == {"application/json", "application/problem+json"}


def test_a_limit_says_when_to_come_back() -> None:
    assert "Retry-After" in operation(declared(statuses=(429,)))["responses"]["429"]["headers"]


def test_only_the_admin_server_has_a_page_for_people_without_a_credential() -> None:
    assert "text/html" in operation(declared("admin"))["responses"]["401"]["content"]
    assert "text/html" not in operation(declared("own"))["responses"]["401"]["content"]


def test_a_route_without_envelope_is_documented_bare_and_fails_in_its_own_words() -> None:
    whole = described(declared("bare", statuses=(503,)))

    assert accepts(whole, {"name": "x"})
    assert accepts(whole, {"name": "x"}, "503")
    assert accepts(whole, envelope(503, None), "503")


def test_parameters_come_from_the_path_and_the_query() -> None:
    found = operation(declared(rule="/things/<name>/<int:number>", query=Filter))

    shapes = [(one["name"], one["in"], one["required"], one["schema"]["type"]) for one in found["parameters"]]
    assert shapes == [
        ("name", "path", True, "string"),
        ("number", "path", True, "integer"),
        ("kind", "query", True, "string"),
        ("limit", "query", False, "integer"),
    ]
    assert {"404", "405"} <= found["responses"].keys(), "a slash in the name leads to another path"


@pytest.mark.parametrize(
    ("method", "options", "ways"),
    [
        ("GET", {}, [{"credential": []}, {"cookie": []}]),
        ("GET", {"changes": True}, [{"credential": []}]),
        ("POST", {}, [{"credential": []}, {"cookie": [], "csrf": []}]),
        ("POST", {"requires": PUBLIC}, []),
    ],
    ids=["read", "GET that changes", "write", "public"],
)
def test_a_cookie_needs_its_token_for_changes_and_is_not_taken_by_a_GET_that_makes_some(
    method: str, options: dict[str, Any], ways: list[Any]
) -> None:
    assert operation(declared(method=method, **options))["security"] == ways


def test_a_sensitive_operation_says_so() -> None:
    assert "reauthenticate" in operation(declared(sensitive=True))["description"]
    assert "reauthenticate" not in operation(declared())["description"]


def test_the_tenant_header_is_offered_to_signed_in_callers_of_the_server_that_reads_it() -> None:
    tenant = {"$ref": "#/components/parameters/Tenant"}

    assert operation(declared(), names_tenant=True)["parameters"] == [tenant]
    assert "parameters" not in operation(declared(requires=PUBLIC), names_tenant=True)
    assert "parameters" not in operation(declared())


def test_a_body_that_may_be_absent_is_not_required() -> None:
    assert operation(declared(method="POST", body=NewThing))["requestBody"]["required"] is True
    assert operation(declared(method="POST", body=NewThing, body_optional=True))["requestBody"]["required"] is False


def test_a_change_that_may_be_of_another_version_says_so_and_takes_if_match() -> None:
    found = operation(declared(method="PUT", body=NewThing, statuses=(412,)))

    assert "412" in found["responses"]
    assert [each["name"] for each in found["parameters"] if each["in"] == "header"] == ["If-Match"]
    assert "parameters" not in operation(declared(method="PUT", body=NewThing))
