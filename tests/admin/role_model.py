"""What roles should allow, told once more and as plainly as can be: sets of names, no cleverness, no database.

``Model`` says of every act whether its actor may, and what is true afterwards. It is written from the rules in
docs/security/escalation.md and shares no code with the servers but the names of the built-in roles and permissions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from common.core.permissions import ADMINISTRATIVE_PERMISSIONS, ALL_PERMISSIONS, BUILT_IN_ROLES

Pairs = frozenset[str]

EVERYTHING: Pairs = frozenset(map(str, ALL_PERMISSIONS))
ADMINISTRATIVE: Pairs = frozenset(map(str, ADMINISTRATIVE_PERMISSIONS))
BUILT_IN: dict[str, Pairs] = {name: frozenset(map(str, role.permissions)) for name, role in BUILT_IN_ROLES.items()}


@dataclass
class Account:
    """Somebody: the roles that were given, ``superuser`` as one of them, and whether the account is switched on."""

    roles: set[str] = field(default_factory=set)
    on: bool = True

    @property
    def is_superuser(self) -> bool:
        return "superuser" in self.roles


@dataclass(frozen=True)
class Key:
    """A token of somebody's that may make tokens: its value, its id, and who else made it or what it was made with."""

    value: str
    key_id: str
    owner: str
    makers: frozenset[str]


@dataclass
class Model:
    """Roles and accounts by name."""

    own: dict[str, set[str]] = field(default_factory=dict)
    parents: dict[str, set[str]] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)

    # What is.

    def exists(self, role: str) -> bool:
        return role in self.own or role in BUILT_IN

    def above(self, role: str) -> set[str]:
        """The role and all that it inherits from."""
        found, todo = set[str](), [role]
        while todo:
            current = todo.pop()
            if current not in found:
                found.add(current)
                todo += self.parents.get(current, ())
        return found

    def heirs(self, role: str) -> set[str]:
        return {each for each in self.own if each != role and role in self.above(each)}

    def children(self, role: str) -> set[str]:
        return {each for each, parents in self.parents.items() if role in parents}

    def grants(self, roles: Iterable[str]) -> Pairs:
        found = set[str]()
        for role in roles:
            for each in self.above(role):
                found |= BUILT_IN.get(each) or self.own.get(each, set())
        return frozenset(found)

    def may(self, who: str) -> Pairs:
        roles = self.accounts[who].roles or {"member"}
        return self.grants(roles)

    # Who may what.

    def _has(self, who: str, *pairs: str) -> bool:
        return self.accounts[who].on and set(pairs) <= self.may(who)

    def _holds(self, who: str, pairs: Collection[str], *, superuser: bool = False) -> bool:
        """Whether somebody holds all of this, and so may give it."""
        if self.accounts[who].is_superuser:
            return True
        return set(pairs) <= self.may(who) and not superuser

    def _above_in_rank(self, who: str, target: str) -> bool:
        return who == target or self._holds(
            who, self.may(target) & ADMINISTRATIVE, superuser=self.accounts[target].is_superuser
        )

    def _may_edit(self, who: str, role: str, *, heirs: bool) -> bool:
        if role not in self.own:
            return False
        return all(self._holds(who, self.grants([each])) for each in (role, *(self.heirs(role) if heirs else ())))

    def _superusers(self) -> set[str]:
        return {name for name, account in self.accounts.items() if account.is_superuser and account.on}

    # Acts: True when it is done.

    def create(self, who: str, role: str, parents: set[str]) -> bool:
        fine = (
            self._has(who, "role:create")
            and not self.exists(role)
            and role not in parents
            and all(map(self.exists, parents))
            and self._holds(who, self.grants(parents))
        )
        if fine:
            self.own[role], self.parents[role] = set(), set(parents)
        return fine

    def grant(self, who: str, role: str, pair: str) -> bool:
        fine = self._has(who, "role:write") and self._may_edit(who, role, heirs=True) and self._holds(who, {pair})
        if fine:
            self.own[role].add(pair)
        return fine

    def revoke(self, who: str, role: str, pair: str) -> bool:
        fine = self._has(who, "role:write") and self._may_edit(who, role, heirs=True)
        if fine:
            self.own[role].discard(pair)
        return fine

    def inherit(self, who: str, role: str, parents: set[str], named: set[str]) -> bool:
        """Let the role have these parents; ``named`` are those that the request named."""
        fine = (
            self._has(who, "role:write")
            and self._may_edit(who, role, heirs=True)
            and all(map(self.exists, named))
            and all(role not in self.above(parent) for parent in parents)
            and self._holds(who, self.grants(parents) | self.own[role])
        )
        if fine:
            self.parents[role] = set(parents)
        return fine

    def delete(self, who: str, role: str, instead: str | None) -> bool:
        if not self._has(who, "role:delete") or not self._may_edit(who, role, heirs=instead is not None):
            return False
        holders = [account for account in self.accounts.values() if role in account.roles]
        children = self.children(role)
        if instead is None:
            if holders or children:
                return False
        else:
            after = {child: (self.parents[child] - {role}) | {instead} for child in children}
            if (
                not self._has(who, "role:assign")
                or (children and not self._has(who, "role:write"))
                or not self.exists(instead)
                or instead in ("superuser", role)
                or role in self.above(instead)
                or not self._holds(who, self.grants([instead]))
                or not all(self._holds(who, self._inherited_then(child, after)) for child in children)
            ):
                return False
            self.parents |= after
            for account in holders:
                account.roles = (account.roles - {role}) | {instead}
        del self.own[role], self.parents[role]
        return True

    def _inherited_then(self, child: str, after: dict[str, set[str]]) -> Pairs:
        return Model(self.own, self.parents | after).grants([child])

    def change_roles(self, who: str, target: str, named: set[str], then: set[str], *, gives: bool) -> bool:
        """Let an account have these roles; ``gives`` says that all that is named is given."""
        account = self.accounts[target]
        if not self._has(who, "role:assign") or not all(map(self.exists, named)):
            return False
        before, after = self.may(target), self.grants(then or {"member"})
        demoted = account.is_superuser and "superuser" not in then
        made = "superuser" in then and not account.is_superuser
        if (
            not self._above_in_rank(who, target)
            or (gives and not self._holds(who, self.grants(named), superuser="superuser" in named))
            or not self._holds(who, after - before, superuser=made)
            or (demoted and who == target)
            or (demoted and not self._superusers() - {target})
        ):
            return False
        account.roles = set(then)
        return True

    def set_superuser(self, who: str, target: str, on: bool) -> bool:
        account = self.accounts[target]
        if not self._has(who, "user:write") or not self.accounts[who].is_superuser or who == target:
            return False
        if account.is_superuser and not on and not self._superusers() - {target}:
            return False
        account.roles = (account.roles | {"superuser"}) if on else (account.roles - {"superuser"})
        return True

    def switch(self, who: str, target: str, on: bool) -> bool:
        account = self.accounts[target]
        if not self._has(who, "user:write") or not self._above_in_rank(who, target):
            return False
        if not on and who == target:
            return False
        if not on and account.on and account.is_superuser and not self._superusers() - {target}:
            return False
        account.on = on
        return True

    def reset_password(self, who: str, target: str) -> bool:
        if who == target:
            return bool(self.ranks(who))
        return self._has(who, "user:write") and self._above_in_rank(who, target)

    def make_key(self, who: str, target: str) -> bool:
        return self._has(who, "token:create") and self._above_in_rank(who, target)

    def is_good(self, key: Key) -> bool:
        """Whether a token is taken: its account is on, and none of its makers holds less of what ranks accounts."""
        return self.accounts[key.owner].on and all(
            self.may(key.owner) & ADMINISTRATIVE <= self.ranks(maker) for maker in key.makers
        )

    def ranks(self, who: str) -> Pairs:
        """What of that which ranks accounts somebody holds: nothing while switched off."""
        account = self.accounts[who]
        return (EVERYTHING if account.is_superuser else self.may(who)) & ADMINISTRATIVE if account.on else frozenset()

    def make_key_with(self, key: Key, target: str) -> bool:
        """Whether a token, which may make tokens and nothing else, makes one for somebody."""
        held = self.may(key.owner) & {"token:create"}
        return self.is_good(key) and bool(held) and self.may(target) & ADMINISTRATIVE <= held
