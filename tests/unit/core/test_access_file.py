"""Files of roles, assignments, settings and flags: what they may say, and what follows from that."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from common.core.access_file import Access, Role, as_document, granted, parse, plan
from common.core.errors import BadField
from common.core.permissions import Permission, Registry, RoleGraph

FILE = """
version: 1
roles:
  Librarian:
    description: Keeps the datasets
    parents: [viewer]
    grants: {dataset: [read, write], file: [read]}
  trainee: {parents: [librarian]}
assignments:
  ann@example.org: librarian
settings:
  probe.timeout: 5
  mail.server:
features:
  reranking: {state: on, description: Rerank}
"""
DEFAULTS = {"probe.timeout": 0, "probe.retry_count": -1, "mail.server": "", "mail.use_tls": False, "mail.password": ""}
MEMBERS = {"ann@example.org": ("member",)}


def planned(wanted: Access, now: Access) -> list[str]:
    return [act.text for act in plan(wanted, now, defaults=DEFAULTS, secrets=["mail.password"])]


def read(text: str) -> Access:
    return parse(yaml.safe_load(text))


def test_everything_is_made_in_an_order_that_works() -> None:
    acts = plan(read(FILE), Access(assignments=MEMBERS), defaults=DEFAULTS, secrets=[])

    assert [act.text for act in acts] == [
        "+ role librarian",
        "+ role trainee",
        "+ role librarian: read, write on dataset",
        "+ role librarian: read on file",
        "~ role librarian: parents none -> viewer",
        "~ role trainee: parents none -> librarian",
        "~ setting probe.timeout: 0 -> 5",
        "+ flag reranking: on",
        "~ ann@example.org: member -> librarian",
    ]
    assert [(act.method, "/".join(act.parts)) for act in acts][2:5] == [
        ("POST", "roles/librarian/permission"),
        ("POST", "roles/librarian/permission"),
        ("PUT", "roles/librarian"),
    ]
    assert acts[6].body == {"settings": {"probe.timeout": 5}}


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_parents_may_change_places_whichever_is_named_first(names: tuple[str, str]) -> None:
    now = {"a": Role("", ("b", "viewer"), frozenset()), "b": Role("", (), frozenset())}
    wanted = {"a": Role("", ("viewer",), frozenset()), "b": Role("", ("a",), frozenset())}

    acts = plan(Access({name: wanted[name] for name in names}), Access(now), defaults={}, secrets=[])

    graph = RoleGraph([("a", "a"), ("b", "b"), ("viewer", "viewer")], [("a", "b"), ("a", "viewer")])
    for act in acts:
        graph = graph.with_parents(act.parts[1], act.body["parents"])
    assert (graph.parents_of("a"), graph.parents_of("b")) == (("viewer",), ("a",))
    assert [act.text for act in acts] == ["~ role a: parents b, viewer -> viewer", "~ role b: parents none -> a"]


def test_parents_that_meet_no_other_are_changed_at_once() -> None:
    now = {"a": Role("", ("viewer",), frozenset()), "b": Role("", (), frozenset())}

    acts = plan(Access({"a": Role("", ("b",), frozenset())}), Access(now), defaults={}, secrets=[])

    assert [act.body for act in acts] == [{"parents": ["b"]}]


def test_what_the_configuration_adds_can_be_granted() -> None:
    text = "version: 1\nroles: {a: {grants: {report: [read]}}}"

    assert parse(yaml.safe_load(text), Registry({"report": ["read"]})).roles["a"].grants == {("report", "read")}
    with pytest.raises(BadField, match="no resource 'report'"):
        read(text)


def test_a_tenant_that_is_named_twice_is_named_once() -> None:
    wanted = read("version: 1\nfeatures: {a: {state: tenants, tenants: [x, y, x]}}")

    assert wanted.features["a"]["tenants"] == ["x", "y"]


def test_what_is_so_already_needs_nothing() -> None:
    wanted = read(FILE)
    now = Access(
        wanted.roles | {"other": Role("", (), frozenset())},
        {"ann@example.org": ("librarian",)},
        {"probe.timeout": 5, "mail.use_tls": True},
        wanted.features,
    )

    assert planned(wanted, now) == []


def test_what_is_named_becomes_as_the_file_says_and_nothing_else_changes() -> None:
    now = Access(
        {
            "librarian": Role("Old", ("auditor", "viewer"), frozenset({Permission("chat", "read")})),
            "unnamed": Role("Stays", (), frozenset()),
        },
        {"ann@example.org": ("auditor",)},
        {"probe.timeout": 7, "mail.server": "mail.test", "probe.retry_count": 3},
        {"reranking": {"state": "tenants", "tenants": ["t"], "description": "Rerank"}, "unnamed": {}},
    )
    wanted = read(FILE.replace("trainee: {parents: [librarian]}", ""))

    assert planned(wanted, now) == [
        "+ role librarian: read, write on dataset",
        "+ role librarian: read on file",
        "- role librarian: read on chat",
        "~ role librarian: description Old -> Keeps the datasets; parents auditor, viewer -> viewer",
        '~ setting probe.timeout: 7 -> 5\n~ setting mail.server: mail.test -> ""',
        "~ flag reranking: state tenants -> on; tenants t -> none",
        "~ ann@example.org: auditor -> librarian",
    ]


def test_what_was_exported_is_read_as_it_was() -> None:
    wanted = read(FILE)

    text = yaml.safe_dump(as_document(wanted), sort_keys=False)

    assert read(text) == wanted
    assert "state: 'on'" in text


@pytest.mark.parametrize(
    ("now", "value", "changes"),
    [(5, 5, False), (5, "5", False), (True, "true", False), (1, True, True), ("5", 5, True), (5, 6, True)],
)
def test_a_text_may_stand_for_a_value_of_another_kind(now: Any, value: Any, changes: bool) -> None:
    wanted = Access(settings={"probe.timeout": value})

    assert bool(planned(wanted, Access(settings={"probe.timeout": now}))) is changes


def test_a_setting_that_is_to_be_what_it_is_by_default_is_so_already() -> None:
    assert planned(Access(settings={"probe.timeout": 0}), Access()) == []
    assert planned(Access(settings={"probe.timeout": 0}), Access(settings={"probe.timeout": 1})) != []


def test_a_secret_stands_in_no_file_but_may_be_left_alone_or_taken_away() -> None:
    now = Access(settings={"mail.password": "***"})
    assert planned(Access(settings={"mail.password": "***"}), now) == []
    assert planned(Access(settings={"mail.password": None}), Access()) == []
    assert planned(Access(settings={"mail.password": None}), now) == ['~ setting mail.password: *** -> ""']

    with pytest.raises(BadField, match=r"ragkeeper setting set mail\.password"):
        planned(Access(settings={"mail.password": "a secret"}), now)


def test_grants_are_those_that_are_true() -> None:
    assert granted({"dataset": {"read": True, "write": False}, "user": {"read": True}}) == {
        Permission("dataset", "read"),
        Permission("user", "read"),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "version: 1"),
        ("[1]", "version: 1"),
        ("version: 2", "version: 1"),
        ("version: 1\nrole: {}", "no 'role'"),
        ("version: 1\nroles: [a]", "roles: must be a mapping"),
        ("version: 1\nroles: {viewer: {}}", "roles.viewer: built-in"),
        ("version: 1\nroles: {a b: {}}", "A role's name"),
        ("version: 1\nroles: {1: {}}", "roles: must be text"),
        ("version: 1\nroles: {a: 1}", "roles.a: must be a mapping"),
        ("version: 1\nroles: {a: {grant: {}}}", "roles.a: knows"),
        ("version: 1\nroles: {a: {parents: viewer}}", "roles.a.parents: must be a list"),
        ("version: 1\nroles: {a: {grants: {nothing: [read]}}}", "no resource 'nothing'"),
        ("version: 1\nroles: {a: {grants: {dataset: [fly]}}}", "no action 'fly'"),
        ("version: 1\nroles: {a: {grants: {dataset: read}}}", "roles.a.grants.dataset: must be a list"),
        ("version: 1\nassignments: {nobody: viewer}", "e-mail"),
        ("version: 1\nassignments: {a@b.co: [1]}", "assignments.a@b.co: must be text"),
        ("version: 1\nassignments: {a@b.co: []}", "assignments.a@b.co: must name a role"),
        ("version: 1\nassignments: {a@b.co: {viewer: 1}}", "assignments.a@b.co: must be a list"),
        ("version: 1\nfeatures: {x: on}", "features.x: must be a mapping"),
        ("version: 1\nfeatures: {x: {state: 1.5}}", "features.x.state: must be text"),
        ("version: 1\nfeatures: {x: {tenants: all}}", "features.x.tenants: must be a list"),
    ],
)
def test_what_a_file_may_not_say_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(BadField) as refused:
        read(text)

    assert told in refused.value.message


def test_an_unknown_setting_is_refused_before_anything_is_done() -> None:
    with pytest.raises(BadField, match=r"no setting 'no\.such'"):
        planned(Access(settings={"no.such": 1}), Access())


@pytest.mark.parametrize(
    ("now", "asked"),
    [
        (("member",), [("POST", {"roles": ["auditor", "viewer"]})]),
        (("viewer",), [("POST", {"roles": ["auditor"]})]),
        (("viewer", "keeper"), [("POST", {"roles": ["auditor"]}), ("DELETE", {"roles": ["keeper"]})]),
        (("auditor", "viewer", "keeper"), [("DELETE", {"roles": ["keeper"]})]),
        (("viewer", "auditor"), []),
    ],
)
def test_of_several_roles_what_is_missing_is_given_and_what_is_too_much_is_taken(
    now: tuple[str, ...], asked: list[tuple[str, Any]]
) -> None:
    wanted = read("version: 1\nassignments: {a@b.co: [viewer, auditor, Viewer]}")

    acts = plan(wanted, Access(assignments={"a@b.co": now}), defaults=DEFAULTS, secrets=[])

    assert [(act.method, act.body) for act in acts] == asked
