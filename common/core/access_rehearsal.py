"""The steps of a plan gone through before the first one is taken, each judged by the rules that the server has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from common.core.access_file import Access, Act, graph_of
from common.core.delegation import (
    check_may_act_on,
    check_may_change_default,
    check_may_edit,
    check_may_give,
    check_may_make_default,
    check_may_reassign,
    check_may_take_default,
)
from common.core.emails import email_key
from common.core.errors import BadField, PermissionMissing, PlaneError
from common.core.permissions import Permission, Registry, RoleGraph, Standing


class Caller(NamedTuple):
    """Whoever takes the steps: the account's e-mail, and the roles that count for it."""

    email: str
    roles: tuple[str, ...]


def rehearse(acts: Iterable[Act], now: Access, registry: Registry, caller: Caller | None) -> None:
    """Raises BadField for the first step that the server would refuse, naming its role or account.

    Without a caller, where it is not known who that is, only what nobody may do is found. ``now`` is what there is,
    with the roles of every account in the plan.
    """
    stage = _Stage(now, registry, caller)
    for act in acts:
        before = stage.standing
        try:
            stage.take(act)
        except PlaneError as error:
            raise BadField(f"{_place(act)}: {error.message}{stage.lost(before)}") from error


class _Stage:
    """What there is after the steps so far."""

    def __init__(self, now: Access, registry: Registry, caller: Caller | None) -> None:
        self._registry = registry
        self._graph = graph_of(now.roles, registry)
        self._default = str(now.settings.get("default_role") or "")
        self._held = {email_key(email): roles for email, roles in now.assignments.items()}
        self._caller = None if caller is None else email_key(caller.email)
        if caller is not None:
            self._held[email_key(caller.email)] = caller.roles
        self._at_first = self.standing

    @property
    def standing(self) -> Standing:
        """What the caller amounts to by now."""
        if self._caller is None:
            return Standing(self._registry.all, True)
        return self._graph.standing(self._held[self._caller])

    def lost(self, standing: Standing) -> str:
        """What the steps so far have taken from the caller, in words, as it may be why the next one is refused."""
        gone = [str(permission) for permission in sorted(self._at_first.permissions - standing.permissions)]
        return f" Steps before this one take from you: {', '.join(gone)}." if gone else ""

    def take(self, act: Act) -> None:
        """Raises as the server would."""
        kind, *named = act.parts
        if kind == "users":
            self._require("role", "assign")
            self._reassign(act, email_key(named[0]))
        elif kind != "roles":
            self._require("setting", "write")
            if "default_role" in act.body.get("settings", {}):
                self._require("role", "assign")
                self._make_default(str(act.body["settings"]["default_role"] or ""))
        elif not named:
            self._require("role", "create")
            name = act.body["role_name"]
            self._change(self._graph.with_role(name, name))
        else:
            self._require("role", "write")
            self._change(self._granted(act, named[0]) if named[1:] else self._updated(act.body, named[0]))

    def _change(self, graph: RoleGraph) -> None:
        check_may_change_default(self.standing, self._graph, graph, self._default)
        self._graph = graph

    def _require(self, resource: str, action: str) -> None:
        if (resource, action) not in self.standing.permissions:
            raise PermissionMissing(resource, action)

    def _granted(self, act: Act, name: str) -> RoleGraph:
        check_may_edit(self.standing, self._graph, name, reaches_heirs=True)
        named = frozenset(Permission(act.body["resource"], action) for action in act.body["actions"])
        if act.method == "DELETE":
            return self._graph.with_own(name, self._graph.own(name) - named)
        check_may_give(self.standing, Standing(named))
        return self._graph.with_own(name, self._graph.own(name) | named)

    def _updated(self, change: Mapping[str, Sequence[str]], name: str) -> RoleGraph:
        changed = self._graph.with_parents(name, change["parents"]) if "parents" in change else self._graph
        check_may_edit(self.standing, self._graph, name, reaches_heirs="parents" in change)
        check_may_give(self.standing, changed.standing([name]))
        return changed

    def _make_default(self, given: str) -> None:
        """What the server says of a role that there is not is found by its own trial."""
        role = self._graph.id_of(given)
        if role is not None:
            check_may_make_default(self.standing, self._graph.standing([role]))
        elif not given:
            check_may_take_default(self.standing, self._graph, self._default)
        self._default = given

    def _reassign(self, act: Act, account: str) -> None:
        held = self._held[account]
        named: tuple[str, ...] = tuple(act.body["roles"]) if "roles" in act.body else (act.body["role_name"],)
        then = {
            "PUT": named,
            "POST": (*held, *named),
            "DELETE": tuple(role for role in held if role not in named),
        }[act.method]
        before, after = self._graph.standing(held), self._graph.standing(then)
        if account != self._caller:
            check_may_act_on(self.standing, before)
        given = None if act.method == "DELETE" else self._graph.standing(named)
        check_may_reassign(self.standing, before, after, given, on_oneself=account == self._caller)
        self._held[account] = then


def _place(act: Act) -> str:
    """Where the file says what the step is for."""
    kind, *named = act.parts
    name = named[0] if named else act.body.get("role_name", act.body.get("name", ""))
    return f"{'assignments' if kind == 'users' else kind}.{name}".rstrip(".")
