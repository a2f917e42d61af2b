"""Files of roles, assignments, settings and flags: what they may say, and what follows from that."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.core.access_file import Access, Act, Role, as_document, granted, graph_of, parse, plan
from common.core.errors import BadField, PlaneError
from common.core.features import MAX_FLAGS
from common.core.permissions import MAX_DEPTH, MAX_NAMED, MAX_PARENTS, Permission, Registry, RoleGraph

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


def heir(*parents: str) -> Role:
    return Role("", parents, frozenset())


def chain(length: int, name: str = "r") -> dict[str, Role]:
    """So many roles, each of which inherits from the next."""
    return {f"{name}{each}": heir(*([f"{name}{each + 1}"] if each < length else [])) for each in range(1, length + 1)}


def after(acts: list[Act], now: dict[str, Role]) -> RoleGraph:
    """The roles' parents once the server has taken these steps. Raises as it does."""
    graph = graph_of(now)
    for act in acts:
        if act.parts == ("roles",):
            graph = graph.with_role(act.body["role_name"], act.body["role_name"])
        elif "parents" in act.body:
            graph = graph.with_parents(act.parts[1], act.body["parents"])
    return graph


def test_a_chain_that_is_too_long_only_while_an_old_parent_is_there_is_made() -> None:
    now = {**chain(MAX_DEPTH), "x": heir("r1"), "y": heir()}
    wanted = {"y": heir("x"), "x": heir()}

    acts = plan(Access(wanted), Access(now), defaults={}, secrets=[])

    assert [act.text for act in acts] == ["~ role x: parents r1 -> none", "~ role y: parents none -> x"]
    assert (after(acts, now).parents_of("x"), after(acts, now).parents_of("y")) == ((), ("x",))


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"k1": heir("k2"), "k2": heir("k1")}, "roles.k2: Roles would inherit in a circle: k2 → k1 → k2"),
        ({"k1": heir("k1")}, "roles.k1: Roles would inherit in a circle: k1 → k1"),
        ({"old": heir("k1"), "k1": heir("heir")}, "roles.k1: Roles would inherit in a circle: k1 → heir → old → k1"),
        (chain(MAX_DEPTH + 2), f"roles.r33: Roles inherit over at most {MAX_DEPTH} steps"),
        (
            {"k1": heir(*(f"p{number}" for number in range(MAX_PARENTS + 1)))},
            f"roles.k1: A role has at most {MAX_PARENTS} parents, not {MAX_PARENTS + 1}.",
        ),
        ({"k1": heir("nobody")}, "roles.k1: There is no role 'nobody' to inherit from."),
    ],
)
def test_parents_that_no_order_of_steps_can_give_are_refused_with_the_role(wanted: dict[str, Role], told: str) -> None:
    parents = {f"p{number}": heir() for number in range(MAX_PARENTS + 1)}
    now = {"old": heir(), "heir": heir("old"), **parents}

    with pytest.raises(BadField) as refused:
        plan(Access(wanted), Access(now), defaults={}, secrets=[])

    assert refused.value.message.startswith(told)


def test_as_long_a_chain_and_as_many_parents_as_may_be_are_made() -> None:
    wanted = {**chain(MAX_DEPTH + 1), "all": heir(*(f"p{number}" for number in range(MAX_PARENTS)))}
    now = {f"p{number}": heir() for number in range(MAX_PARENTS)}

    graph = after(plan(Access(wanted), Access(now), defaults={}, secrets=[]), now)

    assert (graph.parents_of("r32"), len(graph.parents_of("all"))) == (("r33",), MAX_PARENTS)


NAMES = ("a", "b", "c", "d", "e")
PARENTS = st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from((*NAMES, "viewer"))), max_size=len(NAMES))


@given(PARENTS, PARENTS)
def test_whatever_parents_can_be_had_are_had_after_the_plan_and_others_are_refused_by_it(
    there: dict[str, set[str]], asked: dict[str, set[str]]
) -> None:
    now, possible = dict.fromkeys(NAMES, heir()), True
    for name, parents in there.items():
        try:
            graph_of(now).with_parents(name, sorted(parents))
        except PlaneError:
            continue
        now[name] = heir(*sorted(parents))
    graph = graph_of({**now, **dict.fromkeys(asked, heir())})
    try:
        for name, parents in asked.items():
            graph = graph.with_parents(name, sorted(parents))
    except PlaneError:
        possible = False

    try:
        acts = plan(Access({name: heir(*asked[name]) for name in asked}), Access(now), defaults={}, secrets=[])
    except BadField:
        assert not possible
        return

    assert possible
    assert {name: set(after(acts, now).parents_of(name)) for name in NAMES} == {
        name: asked.get(name, set(now[name].parents)) for name in NAMES
    }


def test_a_role_that_there_will_not_be_is_given_to_nobody() -> None:
    wanted = read("version: 1\nassignments: {a@b.co: [viewer, keeper]}")

    with pytest.raises(BadField, match=r"assignments\.a@b\.co: there is no role 'keeper'"):
        plan(wanted, Access(assignments={"a@b.co": ("member",)}), defaults={}, secrets=[])


def test_ones_own_roles_change_last() -> None:
    wanted = read("version: 1\nassignments: {Root@b.co: viewer, a@b.co: viewer, c@b.co: viewer}")
    now = dict.fromkeys(wanted.assignments, ("member",))

    acts = plan(wanted, Access(assignments=now), defaults={}, secrets=[], caller="root@B.co")

    assert [act.parts[1] for act in acts] == ["a@b.co", "c@b.co", "Root@b.co"]


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
        ("version: true", "version: 1"),
        ("version: 1.0", "version: 1"),
        ("version: 1\nrole: {}", "no 'role'"),
        ("version: 1\nroles: [a]", "roles: must be a mapping"),
        ("version: 1\nroles: {viewer: {}}", "roles.viewer: built-in"),
        ("version: 1\nroles: {a b: {}}", "A role's name"),
        ("version: 1\nroles: {1: {}}", "roles: must be text"),
        ("version: 1\nroles: {a: 1}", "roles.a: must be a mapping"),
        (f"version: 1\nroles: {{a: {{description: {'x' * 4097}}}}}", "roles.a.description: at most 4096"),
        ("version: 1\nroles: {a: {grant: {}}}", "roles.a: knows"),
        ("version: 1\nroles: {a: {parents: viewer}}", "roles.a.parents: must be a list"),
        ("version: 1\nroles: {a: {grants: {nothing: [read]}}}", "no resource 'nothing'"),
        ("version: 1\nroles: {a: {grants: {dataset: [fly]}}}", "no action 'fly'"),
        ("version: 1\nroles: {a: {grants: {dataset: read}}}", "roles.a.grants.dataset: must be a list"),
        ("version: 1\nassignments: {nobody: viewer}", "e-mail"),
        ("version: 1\nassignments: {a@b.co: [1]}", "assignments.a@b.co: must be text"),
        ("version: 1\nassignments: {a@b.co: []}", "assignments.a@b.co: must name a role"),
        ("version: 1\nassignments: {a@b.co: {viewer: 1}}", "assignments.a@b.co: must be a list"),
        ("version: 1\nroles: {a: {}, A: {}}", "roles.A: this role is named before"),
        ("version: 1\nassignments: {a@b.co: viewer, A@b.co: viewer}", "assignments.A@b.co: this account is named"),
        ("version: 1\nfeatures: {X: {}}", "features.X: 1 to 64 lower-case letters"),
        ("version: 1\nfeatures: {x: {state: perhaps}}", "features.x: must be an object of state"),
        ("version: 1\nfeatures: {x: on}", "features.x: must be a mapping"),
        ("version: 1\nfeatures: {x: {state: 1.5}}", "features.x.state: must be text"),
        ("version: 1\nfeatures: {x: {state: 1}}", "features.x.state: must be text"),
        ("version: 1\nfeatures: {x: {state: [on]}}", "features.x.state: must be text"),
        ("version: 1\nsettings: {probe.timeout: 2026-01-01}", "settings.probe.timeout: must be text, a whole number"),
        ("version: 1\nsettings: {probe.timeout: .nan}", "settings.probe.timeout: must be text, a whole number"),
        ("version: 1\nsettings: {mail.username: !!binary aGk=}", "settings.mail.username: must be text"),
        ("version: 1\nsettings: {mail.username: !!set {a, b}}", "settings.mail.username: must be text"),
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

    acts = plan(wanted, Access({"keeper": heir()}, {"a@b.co": now}), defaults=DEFAULTS, secrets=[])

    assert [(act.method, act.body) for act in acts] == asked


def test_more_roles_than_a_request_may_name_are_given_and_taken_in_several() -> None:
    names = [f"r{number:03}" for number in range(2 * MAX_NAMED + 1)]
    roles = {name: heir() for name in names}

    def asked(wanted: list[str], now: list[str]) -> list[tuple[str, list[str]]]:
        file = Access(assignments={"a@b.co": tuple(wanted)})
        acts = plan(file, Access(roles, {"a@b.co": tuple(now)}), defaults=DEFAULTS, secrets=[])
        return [(act.method, act.body["roles"]) for act in acts]

    lots = [names[:MAX_NAMED], names[MAX_NAMED:-1], names[-1:]]
    assert asked(names, ["member"]) == [("POST", lot) for lot in lots]
    assert asked(["auditor", "viewer"], [*names, "auditor", "viewer"]) == [("DELETE", lot) for lot in lots]


def test_more_flags_than_there_may_be_are_refused_before_anything_is_done() -> None:
    now = {f"f{number}": {"state": "off", "tenants": [], "description": ""} for number in range(MAX_FLAGS)}
    one_more = Access(features={"one-more": now["f0"]})

    with pytest.raises(BadField, match="500 flags already"):
        plan(one_more, Access(features=now), defaults=DEFAULTS, secrets=[])
    del now["f1"]
    assert len(plan(one_more, Access(features=now), defaults=DEFAULTS, secrets=[])) == 1
