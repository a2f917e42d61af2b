from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import BadField, RoleCycle, RoleImmutable
from common.core.permissions import (
    ACTIONS,
    ADMINISTRATIVE_PERMISSIONS,
    ALL_PERMISSIONS,
    BUILT_IN_ROLES,
    MAX_DEPTH,
    MAX_PARENTS,
    RAGFLOW_RESOURCES,
    Permission,
    RoleGraph,
    Source,
    registered,
)

DATASET_READ = Permission("dataset", "read")
AUDIT_EXPORT = Permission("audit", "export")
USER_READ = Permission("user", "read")


def chain(length: int) -> RoleGraph:
    """Roles 0 to length, each inheriting from the next; the last one grants dataset:read."""
    return RoleGraph(
        roles=[(str(i), f"role-{i}") for i in range(length + 1)],
        parents=[(str(i), str(i + 1)) for i in range(length)],
        grants=[(str(length), "dataset", "read")],
    )


def test_it_registers_ragflows_seven_resources_with_their_four_actions() -> None:
    assert [len(ACTIONS[resource]) for resource in RAGFLOW_RESOURCES] == [4] * 7
    assert not {p for p in ADMINISTRATIVE_PERMISSIONS if p.resource in RAGFLOW_RESOURCES}
    assert {p.resource for p in ADMINISTRATIVE_PERMISSIONS} | set(RAGFLOW_RESOURCES) == set(ACTIONS)


def test_it_finds_a_registered_pair_whatever_its_case() -> None:
    assert registered("Dataset", "READ") == DATASET_READ
    assert str(registered("audit", "export")) == "audit:export"


@pytest.mark.parametrize("resource", ["planet", "", "data set", None, 7, ["dataset"], {}])
def test_it_refuses_an_unknown_resource_and_names_the_known_ones(resource: object) -> None:
    with pytest.raises(BadField, match="dataset, chat, agent") as caught:
        registered(resource, "read")
    assert caught.value.field == "resource"


@pytest.mark.parametrize("action", ["fly", "", None, True, ["read"]])
def test_it_refuses_an_unknown_action_and_names_the_known_ones(action: object) -> None:
    with pytest.raises(BadField, match="read, export") as caught:
        registered("audit", action, action_field="actions")
    assert caught.value.field == "actions"


def test_it_does_not_repeat_an_absurd_name_in_full() -> None:
    with pytest.raises(BadField) as caught:
        registered("x" * 10_000, "read")
    assert len(caught.value.message) < 400


def test_superuser_holds_everything() -> None:
    assert BUILT_IN_ROLES["superuser"].permissions == ALL_PERMISSIONS


def test_member_holds_ragflows_resources_and_nothing_administrative() -> None:
    member = BUILT_IN_ROLES["member"].permissions
    assert len(member) == 28
    assert not member & ADMINISTRATIVE_PERMISSIONS


def test_user_manager_adds_people_to_what_a_member_may_and_edits_no_role() -> None:
    manager = BUILT_IN_ROLES["user-manager"].permissions
    assert BUILT_IN_ROLES["member"].permissions < manager
    for resource in ("user", "tenant", "session", "token"):
        assert {Permission(resource, action) for action in ACTIONS[resource]} <= manager
    assert {p.action for p in manager if p.resource == "role"} == {"read", "assign"}
    assert {p.resource for p in manager & ADMINISTRATIVE_PERMISSIONS} == {
        "user",
        "tenant",
        "session",
        "token",
        "role",
    }


def test_service_operator_holds_every_verb_of_four_resources_only() -> None:
    operator = BUILT_IN_ROLES["service-operator"].permissions
    assert {p.resource for p in operator} == {"service", "job", "metric", "alert"}
    assert len(operator) == 7


def test_auditor_reads_everything_administrative_and_changes_nothing() -> None:
    auditor = BUILT_IN_ROLES["auditor"].permissions
    assert {p.resource for p in auditor} == {p.resource for p in ADMINISTRATIVE_PERMISSIONS}
    assert {p for p in auditor if p.action != "read"} == {AUDIT_EXPORT}


def test_viewer_is_an_auditor_without_the_audit_trail() -> None:
    auditor, viewer = BUILT_IN_ROLES["auditor"].permissions, BUILT_IN_ROLES["viewer"].permissions
    assert {str(p) for p in auditor - viewer} == {"audit:read", "audit:export"}
    assert viewer < auditor


def test_built_in_roles_can_not_be_changed_in_memory() -> None:
    with pytest.raises(TypeError):
        BUILT_IN_ROLES["member"] = BUILT_IN_ROLES["superuser"]  # type: ignore[index]


def test_a_role_holds_what_its_ancestors_grant() -> None:
    graph = chain(3)
    assert graph.effective(["0"]) == {DATASET_READ}
    assert graph.own("0") == frozenset()
    assert graph.inherited("0") == {DATASET_READ}
    assert graph.inherited("3") == frozenset()


def test_what_is_granted_to_a_role_does_not_reach_its_parents() -> None:
    graph = RoleGraph([("a", "junior"), ("b", "senior")], [("a", "b")], [("a", "user", "read")])
    assert graph.effective(["b"]) == frozenset()


def test_a_permission_that_is_both_own_and_inherited_counts_as_own() -> None:
    graph = RoleGraph(
        [("a", "junior"), ("b", "senior")],
        [("a", "b")],
        [("a", "user", "read"), ("b", "user", "read"), ("b", "user", "write")],
    )
    assert graph.own("a") == {USER_READ}
    assert graph.inherited("a") == {Permission("user", "write")}


def test_several_roles_add_up() -> None:
    graph = RoleGraph([("a", "x"), ("b", "y")], [], [("a", "user", "read"), ("b", "dataset", "read")])
    assert graph.effective(["a", "b"]) == {USER_READ, DATASET_READ}
    assert graph.effective([]) == frozenset()


def test_it_names_the_granting_role_and_the_way_to_it() -> None:
    graph = chain(2)
    assert graph.sources(["0"]) == {DATASET_READ: [Source("role-2", ("role-0", "role-1", "role-2"))]}
    assert graph.sources(["2"]) == {DATASET_READ: [Source("role-2", ("role-2",))]}


def test_it_names_every_role_that_grants_the_same_by_the_shortest_way() -> None:
    graph = RoleGraph(
        [("a", "junior"), ("b", "reader"), ("c", "senior")],
        [("a", "b"), ("a", "c"), ("b", "c")],
        [("b", "dataset", "read"), ("c", "dataset", "read")],
    )
    assert graph.sources(["a"])[DATASET_READ] == [
        Source("reader", ("junior", "reader")),
        Source("senior", ("junior", "senior")),
    ]


def test_a_role_that_is_held_twice_is_named_once() -> None:
    assert chain(0).sources(["0", "0"]) == {DATASET_READ: [Source("role-0", ("role-0",))]}


def test_a_built_in_role_holds_what_the_code_says_whatever_the_rows_say() -> None:
    graph = RoleGraph(
        roles=[("v", "viewer"), ("s", "superuser")],
        parents=[("v", "s")],
        grants=[("v", "user", "delete")],
    )
    assert graph.effective(["v"]) == BUILT_IN_ROLES["viewer"].permissions
    assert graph.parents_of("v") == ()


def test_a_built_in_role_is_one_in_whatever_case_a_row_spells_it() -> None:
    graph = RoleGraph([("v", "Viewer")], grants=[("v", "user", "delete")])

    assert graph.effective(["v"]) == BUILT_IN_ROLES["viewer"].permissions
    with pytest.raises(RoleImmutable):
        graph.with_parents("v", [])


def test_built_in_roles_are_there_without_rows() -> None:
    graph = RoleGraph([("c", "custom")], [], [])
    auditor = graph.id_of("Auditor")
    assert auditor is not None
    assert graph.with_parents("c", [auditor]).effective(["c"]) == BUILT_IN_ROLES["auditor"].permissions


def test_rows_about_unknown_roles_and_unregistered_pairs_count_for_nothing() -> None:
    graph = RoleGraph(
        [("a", "known")],
        [("a", "gone"), ("gone", "a")],
        [("gone", "user", "read"), ("a", "planet", "read"), ("a", "user", "fly"), ("a", "user", "read")],
    )
    assert graph.effective(["a", "gone", "never"]) == {USER_READ}
    assert graph.parents_of("a") == graph.children_of("a") == graph.parents_of("gone") == ()
    assert set(graph.sources(["a", "gone"])) == {USER_READ}


def test_an_account_without_roles_is_a_member() -> None:
    standing = RoleGraph([]).standing([])
    assert standing.permissions == BUILT_IN_ROLES["member"].permissions
    assert not standing.is_superuser


def test_an_account_with_a_role_is_no_member_besides() -> None:
    graph = RoleGraph([("a", "reader")], [], [("a", "dataset", "read")])
    assert graph.standing(["a"]).permissions == {DATASET_READ}


def test_an_account_whose_only_role_has_vanished_holds_nothing() -> None:
    assert RoleGraph([]).standing(["gone"]).permissions == frozenset()


def test_flag_and_role_superuser_are_one_fact() -> None:
    graph = RoleGraph([("s", "superuser"), ("a", "reader")])
    assert graph.standing(["a"], is_superuser=True) == graph.standing(["s"])
    assert graph.standing(["s"]).is_superuser
    assert graph.account_roles(["a"], True) == ("a", "s")


def test_inheriting_from_superuser_gives_its_permissions_and_not_the_rank() -> None:
    graph = RoleGraph([("s", "superuser"), ("a", "deputy")], [("a", "s")])
    standing = graph.standing(["a"])
    assert standing.permissions == ALL_PERMISSIONS
    assert not standing.is_superuser


def test_it_refuses_a_cycle_and_names_it_in_order() -> None:
    graph = chain(2)
    with pytest.raises(RoleCycle) as caught:
        graph.with_parents("2", ["0"])
    assert caught.value.data["path"] == ["role-2", "role-0", "role-1", "role-2"]


def test_it_refuses_a_role_as_its_own_parent() -> None:
    with pytest.raises(RoleCycle) as caught:
        chain(1).with_parents("1", ["1"])
    assert caught.value.data["path"] == ["role-1", "role-1"]


def test_replacing_parents_leaves_the_graph_before_as_it_was() -> None:
    graph = RoleGraph([("a", "x"), ("b", "y"), ("c", "z")], [("a", "b")], [("c", "user", "read")])
    assert graph.effective(["a"]) == frozenset()
    changed = graph.with_parents("a", ["c", "c"])
    assert changed.effective(["a"]) == {USER_READ}
    assert (changed.parents_of("a"), changed.children_of("b"), changed.children_of("c")) == (
        ("c",),
        (),
        ("a",),
    )
    assert (graph.parents_of("a"), graph.children_of("b"), graph.effective(["a"])) == (
        ("b",),
        ("a",),
        frozenset(),
    )


def test_a_chain_may_have_as_many_steps_as_the_limit_and_no_more() -> None:
    graph = chain(MAX_DEPTH).with_parents("0", [])
    assert graph.with_parents("0", ["1"]).effective(["0"]) == {DATASET_READ}
    deeper = RoleGraph(
        [(str(i), f"role-{i}") for i in range(MAX_DEPTH + 2)],
        [(str(i), str(i + 1)) for i in range(1, MAX_DEPTH + 1)],
    )
    with pytest.raises(BadField, match="32 steps") as caught:
        deeper.with_parents("0", ["1"])
    assert caught.value.field == "parents"


def test_a_chain_is_measured_below_the_role_too() -> None:
    half = MAX_DEPTH // 2 + 1
    below = [(f"b{i}", f"b{i + 1}") for i in range(half)]
    above = [(f"a{i}", f"a{i + 1}") for i in range(half)]
    ids = {role_id for edge in below + above for role_id in edge}
    graph = RoleGraph([(role_id, role_id) for role_id in ids], below + above)
    with pytest.raises(BadField, match="32 steps"):
        graph.with_parents(f"b{half}", ["a0"])


def test_a_stored_chain_that_is_too_deep_can_be_shortened() -> None:
    steps = [(str(i), str(i + 1)) for i in range(MAX_DEPTH + 5)]
    graph = RoleGraph([(str(i), f"role-{i}") for i in range(MAX_DEPTH + 6)], [*steps, ("1", "9")])
    assert graph.with_parents("1", ["2"]).parents_of("1") == ("2",)
    assert graph.with_parents("1", []).parents_of("1") == ()


def test_it_refuses_too_many_parents() -> None:
    roles = [(str(i), f"role-{i}") for i in range(MAX_PARENTS + 2)]
    graph = RoleGraph(roles)
    allowed = [str(i) for i in range(1, MAX_PARENTS + 1)]
    assert len(graph.with_parents("0", allowed).parents_of("0")) == MAX_PARENTS
    with pytest.raises(BadField, match="64"):
        graph.with_parents("0", [*allowed, str(MAX_PARENTS + 1)])


def test_it_refuses_an_unknown_parent() -> None:
    with pytest.raises(BadField, match="gone"):
        chain(1).with_parents("0", ["gone"])


def test_it_refuses_parents_for_a_built_in_role() -> None:
    graph = RoleGraph([("a", "custom"), ("v", "viewer")])
    with pytest.raises(RoleImmutable):
        graph.with_parents("v", ["a"])


def test_it_neither_grants_a_built_in_role_anything_nor_removes_it() -> None:
    graph = RoleGraph([("v", "viewer")])
    for change in (lambda: graph.with_own("v", [USER_READ]), lambda: graph.without_role("v")):
        with pytest.raises(RoleImmutable):
            change()


def test_roles_of_a_stored_circle_hold_the_same() -> None:
    graph = RoleGraph(
        [("a", "x"), ("b", "y"), ("c", "z"), ("d", "below")],
        [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")],
        [("a", "user", "read"), ("c", "dataset", "read")],
    )
    for role_id in ("d", "a", "b", "c"):
        assert graph.effective([role_id]) == {USER_READ, DATASET_READ}
    assert graph.sources(["b"])[USER_READ] == [Source("x", ("y", "z", "x"))]


def test_a_stored_circle_can_be_mended() -> None:
    graph = RoleGraph([("a", "x"), ("b", "y")], [("a", "b"), ("b", "a")], [("b", "user", "read")])
    mended = graph.with_parents("b", [])
    assert (mended.effective(["a"]), mended.parents_of("b")) == ({USER_READ}, ())


def test_a_stored_chain_of_any_length_is_worked_out() -> None:
    assert chain(5_000).effective(["0"]) == {DATASET_READ}


IDS = [f"r{i}" for i in range(7)]
SOME_PERMISSIONS = sorted(ALL_PERMISSIONS)[:6]
EDGES = st.lists(st.tuples(st.sampled_from([*IDS, "gone"]), st.sampled_from([*IDS, "gone"])), max_size=18)
GRANTS = st.lists(st.tuples(st.sampled_from([*IDS, "gone"]), st.sampled_from(SOME_PERMISSIONS)), max_size=12)


class ReferenceModel:
    """The same rules with no thought for speed: ancestors by repetition until nothing is added."""

    def __init__(self, edges: list[tuple[str, str]], grants: list[tuple[str, Permission]]) -> None:
        self.edges = {(child, parent) for child, parent in edges if "gone" not in (child, parent)}
        self.grants = grants

    def lineage(self, role_id: str) -> set[str]:
        reached = {role_id}
        while True:
            more = reached | {parent for child, parent in self.edges if child in reached}
            if more == reached:
                return reached
            reached = more

    def effective(self, role_id: str) -> set[Permission]:
        return {permission for holder, permission in self.grants if holder in self.lineage(role_id)}

    def makes_a_circle(self, role_id: str, parent_ids: list[str]) -> bool:
        return any(role_id in self.lineage(parent_id) for parent_id in parent_ids)


def build(edges: list[tuple[str, str]], grants: list[tuple[str, Permission]]) -> RoleGraph:
    return RoleGraph([(i, i) for i in IDS], edges, [(i, p.resource, p.action) for i, p in grants])


@given(edges=EDGES, grants=GRANTS, asked=st.permutations(IDS))
def test_it_agrees_with_the_reference_model_in_any_order_of_asking(
    edges: list[tuple[str, str]], grants: list[tuple[str, Permission]], asked: list[str]
) -> None:
    graph, model = build(edges, grants), ReferenceModel(edges, grants)
    for role_id in asked:
        assert graph.effective([role_id]) == model.effective(role_id)
    assert graph.effective(asked) == {permission for holder, permission in grants if holder != "gone"}


@given(edges=EDGES, grants=GRANTS, held=st.lists(st.sampled_from(IDS), max_size=3))
def test_sources_explain_exactly_what_is_held_by_paths_that_exist(
    edges: list[tuple[str, str]], grants: list[tuple[str, Permission]], held: list[str]
) -> None:
    graph, model = build(edges, grants), ReferenceModel(edges, grants)
    sources = graph.sources(held)
    assert set(sources) == graph.effective(held)
    for permission, found in sources.items():
        for source in found:
            assert source.path[0] in held
            assert source.path[-1] == source.role
            assert set(pairwise(source.path)) <= model.edges
            assert (source.role, permission) in grants
        assert {source.role for source in found} == {
            holder
            for holder, granted in grants
            if granted == permission and any(holder in model.lineage(role_id) for role_id in held)
        }


@given(
    edges=EDGES,
    grants=GRANTS,
    role_id=st.sampled_from(IDS),
    parent_ids=st.lists(st.sampled_from(IDS), max_size=4),
)
def test_parents_are_replaced_as_in_the_reference_model_or_the_circle_is_shown(
    edges: list[tuple[str, str]],
    grants: list[tuple[str, Permission]],
    role_id: str,
    parent_ids: list[str],
) -> None:
    acyclic = [(child, parent) for child, parent in edges if child < parent]
    graph, model = build(acyclic, grants), ReferenceModel(acyclic, grants)
    if model.makes_a_circle(role_id, parent_ids):
        with pytest.raises(RoleCycle) as caught:
            graph.with_parents(role_id, parent_ids)
        path = caught.value.data["path"]
        assert path[0] == path[-1] == role_id
        assert path[1] in parent_ids
        assert set(pairwise(path[1:])) <= model.edges
        return
    rest = [edge for edge in acyclic if edge[0] != role_id]
    after = ReferenceModel([*rest, *((role_id, parent) for parent in parent_ids)], grants)
    changed = graph.with_parents(role_id, parent_ids)
    for other in IDS:
        assert changed.effective([other]) == after.effective(other)
        assert set(changed.children_of(other)) == {child for child, parent in after.edges if parent == other}


def test_a_new_role_holds_nothing_until_it_gets_parents() -> None:
    graph = chain(2)

    grown = graph.with_role("new", "newcomer")

    assert grown.effective(["new"]) == frozenset()
    assert grown.with_parents("new", ["0"]).effective(["new"]) == {DATASET_READ}
    assert (grown.id_of("NewComer"), graph.id_of("newcomer")) == ("new", None)
    assert graph.with_role("new", "NewComer").id_of("newcomer") == "new"


def test_the_heirs_of_a_role_are_all_that_inherit_from_it_at_any_distance() -> None:
    graph = chain(3)

    assert set(graph.heirs_of("3")) == {"0", "1", "2"}
    assert graph.heirs_of("0") == graph.heirs_of("nobody") == ()


def test_a_circle_in_the_rows_does_not_hang_the_search_for_heirs() -> None:
    graph = RoleGraph([("a", "a"), ("b", "b")], parents=[("a", "b"), ("b", "a")])

    assert graph.heirs_of("a") == ("b",)
