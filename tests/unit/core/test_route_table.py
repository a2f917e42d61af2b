from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.core.permissions import BUILT_IN, RAGFLOW_RESOURCES, Permission, Registry
from common.core.route_table import (
    DENIED,
    METHODS,
    PUBLIC,
    SESSION,
    SIGNED_IN,
    RouteTable,
    Rule,
    TableError,
    parse_table,
    parts_of,
)

READ, WRITE = Rule("permission", Permission("dataset", "read")), Rule("permission", Permission("dataset", "write"))
SHIPPED = Path(__file__).parents[3] / "conf" / "ragflow_routes.yaml"


@pytest.fixture
def table() -> RouteTable:
    made = RouteTable()
    made.add("GET|POST /v1/kb/list", READ)
    made.add("POST /v1/kb/rm", WRITE)
    made.add("GET /v1/kb/{id}/tags", READ)
    made.add("GET /v1/kb/own/tags", SIGNED_IN)
    made.add("GET /**", PUBLIC)
    made.add("* /v1/**", DENIED)
    return made


@pytest.fixture(scope="module")
def shipped() -> RouteTable:
    return parse_table(yaml.safe_load(SHIPPED.read_text()), BUILT_IN)


@pytest.mark.parametrize(
    ("method", "target", "rule"),
    [
        ("GET", "/v1/kb/list", READ),
        ("HEAD", "/v1/kb/list?page=1&x=/../", READ),
        ("POST", "/v1/kb/list/", READ),
        ("PUT", "/v1/kb/list", DENIED),
        ("POST", "/v1/kb/rm", WRITE),
        ("GET", "/v1/kb/aBc0/tags", READ),
        ("GET", "/v1/kb/a%20b%40c/tags", READ),
        ("GET", "/v1/kb/own/tags", SIGNED_IN),
        ("GET", "/v1/kb/x/y/tags", DENIED),
        ("GET", "/v1", DENIED),
        ("GET", "/", PUBLIC),
        ("GET", "/assets/index-B7xQ.js", PUBLIC),
        ("POST", "/assets/index.js", DENIED),
        ("OPTIONS", "/v1/kb/rm", PUBLIC),
        ("OPTIONS", "/v1/kb/unknown", DENIED),
        ("TRACE", "/", DENIED),
        ("CONNECT", "/", DENIED),
        ("get", "/v1/kb/list", DENIED),
        ("", "/", DENIED),
    ],
)
def test_the_line_that_fits_best_counts(table: RouteTable, method: str, target: str, rule: Rule) -> None:
    assert table.rule(method, target) == rule


# What a server behind might take for /v1/kb/list, or for something else than is written.
TRICKS = (
    "/v1/kb%2flist", "/v1%2Fkb/list", "/v1/kb/%2e%2e/kb/list", "/v1/x/../kb/list", "/v1/./kb/list", "//v1/kb/list",
    "/v1//kb/list", "/v1/kb/list//", "/%76%31/kb/list", "/v1/kb/lis%74", "/v1/kb/list%00", "/v1/kb/list%0a",
    "/v1/kb/list;x=y", "/v1;/kb/list", "/v1/kb\\list", "/v1%5ckb%5clist", "/v1/kb/list%3fx", "/v1/kb/list#x",
    "/v1/kb/list%23", "/v1/kb/%252e%252e/list", "/v1/kb/list%", "/v1/kb/list%2", "/v1/kb/list%zz", "/v1/kb/list%ff",
    "/v1/kb/list%c0%af", "/v1/kb/ list", "/v1/kb/\tlist", "/v1/kb/list,/v1/kb/rm", "/v1/kb/...", "/v1/kb/%2e",
    "/v1/kb/li\u017ft", "http://host/v1/kb/list", "v1/kb/list", "", "*", "?", "/v1/kb/list\r\nX: y",
    "/v1/kb/list?x=y#z", "/v1/kb/list%3bx=y", "/v1/kb/list%2cx", "/v1/kb/list%c2%85", "/v1/kb/li%2573t",
    "/" + "a/" * 64 + "b", "/" + "a" * 4096,
)  # fmt: skip


@pytest.mark.parametrize("target", TRICKS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_what_can_be_read_in_two_ways_is_denied(table: RouteTable, method: str, target: str) -> None:
    assert parts_of(target) is None
    assert table.rule(method, target) == DENIED


@pytest.mark.parametrize("target", ["/V1/kb/list", "/v1/KB/list", "/v1/kb/LIST", "/v1/kb/Own/tags", "/V1/kb/x/tags"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_what_a_server_that_ignores_case_might_take_for_something_else_is_denied(
    table: RouteTable, method: str, target: str
) -> None:
    assert table.rule(method, target) == DENIED


@given(st.text(alphabet="abv1kd/%25eE2fF.;\\Kl?#, \u212a", max_size=40))
def test_a_path_that_is_taken_is_the_same_for_everybody(text: str) -> None:
    parts = parts_of("/" + text)

    if parts is not None:
        assert all(part and part.strip(".") and not set(part) & set("/\\%;?#") for part in parts)
        # Decoding it once more, merging slashes or taking out dots changes nothing.
        path = ("/" + text).partition("?")[0]
        assert "//" not in path
        assert not any(step in ("", ".", "..") for step in path[1:].removesuffix("/").split("/") if path != "/")
        assert parts_of(path) == parts


@pytest.mark.parametrize(
    "target", ["/", "/a", "/a/", "/a/b.c-d_e~f", "/%E4%BD%A0", "/a%20b", "/x@y:z", "/" + "a/" * 64, "/" + "a" * 4095]
)
def test_plain_paths_are_read(target: str) -> None:
    assert parts_of(target) is not None


@pytest.mark.parametrize(
    ("document", "fragment"),
    [
        (None, "unmatched, pass_tokens and rules"),
        ([], "unmatched, pass_tokens and rules"),
        ({"rules": {}, "rule": {}}, "'rule'"),
        ({"rules": None}, "rules:"),
        ({"rules": {"public": "GET /"}}, "public: expected is a list"),
        ({"rules": {"open": []}}, "'open'"),
        ({"rules": {"planet:read": []}}, "no resource 'planet'"),
        ({"rules": {"dataset:fly": []}}, "no action 'fly'"),
        ({"rules": {}, "unmatched": "maybe"}, "'maybe'"),
        ({"rules": {}, "pass_tokens": "yes"}, "pass_tokens"),
        ({"rules": {"public": ["GET"]}}, "'GET'"),
        ({"rules": {"public": ["/x"]}}, "'/x'"),
        ({"rules": {"public": ["FETCH /x"]}}, "expected is one of GET"),
        ({"rules": {"public": ["GET /x//y"]}}, "a part of a path"),
        ({"rules": {"public": ["GET /**/y"]}}, "a part of a path"),
        ({"rules": {"public": ["GET /x", "GET|POST /x"]}}, "a line for GET of this path already (public)"),
        ({"rules": {"public": [7]}}, "'7'"),
    ],
)
def test_a_table_that_can_not_be_used_says_which_line_is_at_fault(document: Any, fragment: str) -> None:
    with pytest.raises(TableError) as caught:
        parse_table(document, BUILT_IN)
    assert fragment in str(caught.value)


def test_a_table_may_say_what_counts_for_everything_else_and_name_registered_pairs() -> None:
    registry = Registry({"report": ["read"]})
    rules = {"report:read": ["GET /reports/{id}"], "session": ["* /mine/**"]}

    made = parse_table({"unmatched": "signed-in", "pass_tokens": True, "rules": rules}, registry)

    assert made.rule("GET", "/reports/7") == Rule("permission", Permission("report", "read"))
    assert {made.rule(method, "/mine/a/b") for method in METHODS} == {SESSION}
    assert made.rule("POST", "/reports/7") == SIGNED_IN
    assert made.rule("GET", "/a/../b") == made.rule("TRACE", "/reports/7") == DENIED
    assert made.pass_tokens


def test_a_table_that_says_no_more_denies_and_passes_no_tokens() -> None:
    made = parse_table({"rules": {}}, BUILT_IN)

    assert made.rule("GET", "/") == DENIED
    assert not made.pass_tokens


def test_a_path_itself_comes_before_what_is_below_it() -> None:
    made = RouteTable()
    made.add(" GET /a/** ", PUBLIC)
    assert made.rule("GET", "/a") == PUBLIC

    made.add("GET /a", SESSION)

    assert (made.rule("GET", "/a"), made.rule("GET", "/a/b")) == (SESSION, PUBLIC)


def test_the_shipped_table_covers_every_kind_of_resource_and_denies_what_it_does_not_know(shipped: RouteTable) -> None:
    samples = {
        ("GET", "/api/v1/datasets"): "dataset:read", ("POST", "/v1/kb/rm"): "dataset:write",
        ("POST", "/api/v1/retrieval"): "dataset:enable", ("POST", "/v1/chunk/set"): "dataset:write",
        ("DELETE", "/api/v1/datasets/1/documents/2/chunks"): "dataset:write", ("GET", "/v1/dialog/list"): "chat:read",
        ("POST", "/v1/dialog/set"): "chat:write", ("POST", "/v1/conversation/completion"): "chat:enable",
        ("POST", "/api/v1/chats/1/completions"): "chat:enable", ("POST", "/v1/canvas/completion"): "agent:enable",
        ("GET", "/v1/canvas/list"): "agent:read", ("DELETE", "/api/v1/agents/1"): "agent:write",
        ("GET", "/v1/file/list"): "file:read", ("POST", "/v1/file/upload"): "file:write",
        ("GET", "/api/v1/searches/1"): "search:read", ("POST", "/v1/search/rm"): "search:write",
        ("GET", "/api/v1/memories"): "memory:read", ("DELETE", "/api/v1/memories/1"): "memory:write",
        ("GET", "/v1/tenant/1/user/list"): "team:read", ("DELETE", "/v1/tenant/1/user/2"): "team:write",
        ("POST", "/v1/llm/set_api_key"): "team:write", ("POST", "/v1/user/login"): "public",
        ("GET", "/v1/user/info"): "signed-in", ("POST", "/v1/system/new_token"): "session",
        ("POST", "/api/v1/system/tokens"): "session", ("GET", "/datasets/page/1"): "public",
        ("GET", "/api/v1/admin/users"): "denied", ("GET", "/v1/unknown/route"): "denied",
        ("POST", "/api/v1/chatbots/1/completions"): "denied", ("GET", "/apidocs/"): "denied",
    }  # fmt: skip

    assert {asked: str(shipped.rule(*asked)) for asked in samples} == samples
    assert {each.split(":")[0] for each in samples.values()} >= set(RAGFLOW_RESOURCES)


def test_nothing_of_ragflows_api_that_changes_something_is_public(shipped: RouteTable) -> None:
    document = yaml.safe_load(SHIPPED.read_text())
    public = [line for line in document["rules"]["public"] if not line.startswith("GET ")]

    assert all("/user/" in line or "/auth/" in line or line.endswith("/api/v1/users") for line in public)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert shipped.rule(method, "/") == shipped.rule(method, "/anything") == DENIED
