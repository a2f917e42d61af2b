from __future__ import annotations

import pytest

from common.core.delegation import missing_to_act_on
from common.core.errors import BadField
from common.core.grants import as_tree, parse_grant
from common.core.permissions import (
    ADMINISTRATIVE_PERMISSIONS,
    ALL_PERMISSIONS,
    BUILT_IN,
    BUILT_IN_ROLES,
    MAX_FURTHER,
    Permission,
    Registry,
    RoleGraph,
    registered,
)
from common.http.requirement import SIGNED_IN, Holds
from common.services.principal import Principal

REPORT = Permission("report", "read")
PUBLISH = Permission("dataset", "publish")


@pytest.fixture
def registry() -> Registry:
    return Registry({"report": ["read", "export"], "dataset": ["publish", "read"], "user": ["impersonate"]})


def test_further_pairs_stand_beside_the_built_in_ones(registry: Registry) -> None:
    assert registry.permission("Report", "READ") == REPORT
    assert registry.permission("dataset", "publish") == PUBLISH
    assert registry.permission("dataset", "read") == registered("dataset", "read")
    assert len(registry.all) == len(ALL_PERMISSIONS) + 4
    assert registry.actions["dataset"] == ("enable", "read", "write", "share", "publish")


def test_the_planes_own_code_asks_for_built_in_pairs_only() -> None:
    for pair in (("report", "read"), ("dataset", "publish")):
        with pytest.raises(BadField):
            Holds(*pair)
        with pytest.raises(BadField):
            BUILT_IN.permission(*pair)
        with pytest.raises(BadField):
            SIGNED_IN.within(":".join(reversed(pair)))


def test_a_role_is_granted_them_and_superusers_hold_them(registry: Registry) -> None:
    rows = [("a", "report", "read"), ("a", "report", "fly"), ("a", "planet", "read")]

    graph = RoleGraph([("a", "reader"), ("s", "superuser"), ("m", "member")], grants=rows, registry=registry)

    assert graph.effective(["a"]) == {REPORT}
    assert {REPORT, PUBLISH} <= graph.effective(["s"]) == registry.all
    assert graph.effective(["m"]) == BUILT_IN_ROLES["member"].permissions
    # Taken out of the registry again, the row counts for nothing.
    assert RoleGraph([("a", "reader")], grants=rows).effective(["a"]) == set()


def test_both_forms_of_a_grant_may_name_them_and_answers_show_them(registry: Registry) -> None:
    assert parse_grant({"resource": "report", "actions": ["read"]}, registry) == [REPORT]
    assert parse_grant({"new_permissions": {"dataset": {"publish": True}}}, registry) == [PUBLISH]
    with pytest.raises(BadField, match="no resource 'report'"):
        parse_grant({"resource": "report", "actions": ["read"]})

    tree = as_tree({REPORT, PUBLISH}, registry)

    assert tree["report"] == {"read": True}
    assert tree["dataset"] == {"enable": False, "read": False, "write": False, "share": False, "publish": True}


def test_they_open_no_door_of_the_admin_server_and_rank_nobody(registry: Registry) -> None:
    graph = RoleGraph([("a", "reader")], grants=[("a", "user", "impersonate")], registry=registry)
    holder = graph.standing(["a"])

    assert holder.permissions == {Permission("user", "impersonate")}
    assert not Principal(None, None, permissions=holder.permissions).administers
    assert missing_to_act_on(graph.standing([]), holder) == []
    assert not holder.permissions & ADMINISTRATIVE_PERMISSIONS


@pytest.mark.parametrize("name", ["", "Report", "a b", "a:b", "ä", "1a", "a" * 65, "a/b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    for further in ({name: ["read"]}, {"report": [name]}):
        with pytest.raises(BadField, match="can't be the name") as caught:
            Registry(further)
        assert caught.value.field == "permissions"


def test_there_is_an_end_to_them() -> None:
    assert Registry({f"r{number}": ["read"] for number in range(MAX_FURTHER)})
    with pytest.raises(BadField, match="At most"):
        Registry({f"r{number}": ["read"] for number in range(MAX_FURTHER + 1)})


def test_a_role_that_goes_leaves_its_children_the_one_in_its_place() -> None:
    graph = RoleGraph(
        [("a", "base"), ("b", "middle"), ("c", "top"), ("d", "other")],
        [("b", "a"), ("c", "b")],
        [("a", "dataset", "read"), ("d", "chat", "read")],
    )

    handed, gone = graph.without_role("b", "d"), graph.without_role("b")

    assert handed.effective(["c"]) == {Permission("chat", "read")}
    assert (handed.parents_of("c"), handed.children_of("d"), handed.id_of("middle")) == (("d",), ("c",), None)
    assert gone.effective(["c"]) == set()
    assert graph.effective(["c"]) == {Permission("dataset", "read")}


def test_changing_what_a_role_grants_reaches_its_heirs_and_leaves_the_graph_as_it_was() -> None:
    graph = RoleGraph([("a", "base"), ("b", "heir")], [("b", "a")], [("a", "dataset", "read")])
    assert graph.effective(["b"]) == {Permission("dataset", "read")}

    changed = graph.with_own("a", [REPORT])

    assert changed.effective(["b"]) == {REPORT}
    assert graph.effective(["b"]) == {Permission("dataset", "read")}


def test_what_several_roles_hold_together_is_kept_without_end_to_the_kinds_of_sets() -> None:
    graph = RoleGraph([(str(number), f"r{number}") for number in range(100)], grants=[("7", "dataset", "read")])
    for first in range(100):
        for second in range(100):
            held = graph.effective((str(first), str(second)))
            assert bool(held) == (7 in (first, second))

    assert len(graph._combined) <= 4096
