"""The role API against a plain reference model, over random histories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.people import Person, World
from tests.roles import forget_roles

NAMES = ("r0", "r1", "r2", "r3")
PAIRS = (("dataset", "read"), ("chat", "share"), ("audit", "export"), ("role", "write"))

names = st.sampled_from(NAMES)
parent_lists = st.lists(names, max_size=3)
pairs = st.sampled_from(PAIRS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), names, parent_lists),
        st.tuples(st.just("reparent"), names, parent_lists),
        st.tuples(st.just("grant"), names, pairs),
        st.tuples(st.just("revoke"), names, pairs),
        st.tuples(st.just("delete"), names, st.none()),
        st.tuples(st.just("assign"), names, st.none()),
    ),
    min_size=8,
    max_size=25,
)


@dataclass
class Model:
    """Roles as one would draw them: names, arrows up, own grants, and the one role that somebody holds."""

    parents: dict[str, set[str]] = field(default_factory=dict)
    grants: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    held: str | None = None

    def above(self, name: str) -> set[str]:
        """The role and every ancestor."""
        found = {name}
        while further := {parent for role in found for parent in self.parents[role]} - found:
            found |= further
        return found

    def effective(self, name: str) -> set[tuple[str, str]]:
        return {pair for role in self.above(name) for pair in self.grants[role]}

    def create(self, name: str, parents: list[str]) -> int:
        if name in self.parents or name in parents:
            return 409
        if set(parents) - self.parents.keys():
            return 400
        self.parents[name], self.grants[name] = set(parents), set()
        return 200

    def reparent(self, name: str, parents: list[str]) -> int:
        if name not in self.parents:
            return 404
        if set(parents) - self.parents.keys():
            return 400
        if any(name in self.above(parent) for parent in parents):
            return 409
        self.parents[name] = set(parents)
        return 200

    def grant(self, name: str, pair: tuple[str, str]) -> int:
        if name not in self.parents:
            return 404
        self.grants[name].add(pair)
        return 200

    def revoke(self, name: str, pair: tuple[str, str]) -> int:
        if name not in self.parents:
            return 404
        self.grants[name].discard(pair)
        return 200

    def delete(self, name: str, _: None) -> int:
        if name not in self.parents:
            return 404
        if name == self.held or any(name in parents for parents in self.parents.values()):
            return 409
        del self.parents[name], self.grants[name]
        return 200

    def assign(self, name: str, _: None) -> int:
        if name not in self.parents:
            return 404
        self.held = name
        return 200


def ask(root: Person, holder: Person, act: str, name: str, what: Any) -> int:
    """The same step over HTTP; in capitals, as case never matters."""
    path = f"/roles/{name.upper()}"
    if act == "create":
        answer = root.administer("POST", "/roles", {"role_name": name.upper(), "parents": what})
    elif act == "reparent":
        answer = root.administer("PUT", path, {"parents": what})
    elif act == "grant":
        answer = root.administer("POST", f"{path}/permission", {"resource": what[0], "actions": [what[1]]})
    elif act == "revoke":
        tree = {"revoke_permissions": {what[0]: {what[1]: False}}}
        answer = root.administer("DELETE", f"{path}/permission", tree)
    elif act == "delete":
        answer = root.administer("DELETE", path)
    else:
        answer = root.administer("PUT", f"/users/{holder.email}/role", {"role_name": name.upper()})
    return answer.status_code


def true_pairs(tree: dict[str, dict[str, bool]]) -> set[tuple[str, str]]:
    return {(resource, action) for resource, actions in tree.items() for action, held in actions.items() if held}


def test_every_history_of_role_changes_ends_where_the_model_says(world: World, root: Person) -> None:
    holder = world.person()

    @given(steps)
    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def walk(history: list[tuple[str, str, Any]]) -> None:
        forget_roles(world.plane)
        model = Model()
        for act, name, what in history:
            assert ask(root, holder, act, name, what) == getattr(model, act)(name, what), (act, name, what)
        compare(root, holder, model)

    walk()


def compare(root: Person, holder: Person, model: Model) -> None:
    """Every reading of the API agrees with the model."""
    listed = root.administer("GET", "/roles_with_permission").json["data"]["roles"]
    shown = {role["role_name"]: role for role in listed if not role["builtin"]}
    assert shown.keys() == model.parents.keys()
    for name, role in shown.items():
        assert set(role["parents"]) == model.parents[name]
        assert true_pairs(role["permissions"]) == model.grants[name]
        assert true_pairs(role["inherited"]) == model.effective(name) - model.grants[name]
        flat = root.administer("GET", f"/roles/{name}/permission").json["data"]
        assert {(row["resource"], row["action"]) for row in flat} == model.effective(name)
    mine = root.administer("GET", f"/users/{holder.email}/permissions").json["data"]
    if model.held is not None:
        assert true_pairs(mine["role_permissions"]) == model.effective(model.held)
    assert mine["user"]["role"] == (model.held or "member")
