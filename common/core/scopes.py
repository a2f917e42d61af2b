"""What an API token may do of what its owner may do: its scope, and which token may make which."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from common.core.errors import BadField, GivesMoreThanHeld
from common.core.permissions import ADMINISTRATIVE_PERMISSIONS, Permission, Standing, registered

#: The scope of a token that may do whatever its owner may, on both ports.
ALL = "all"
#: Scopes that one token may have.
MOST = 64
_SEPARATOR = " "


class Scope(NamedTuple):
    """A ceiling over what a token's owner may do; ``permissions`` is None where there is none.

    ``opens_admin`` says whether the token is a credential of the admin server. ``names`` are the scopes as they were
    given, empty for a token without.
    """

    names: tuple[str, ...]
    permissions: frozenset[Permission] | None
    opens_admin: bool

    @property
    def is_limited(self) -> bool:
        """Whether the token may do less than its owner."""
        return self.permissions is not None

    def covers(self, permission: Permission) -> bool:
        """Whether this is below the ceiling."""
        return self.permissions is None or permission in self.permissions

    def narrowed(self, standing: Standing) -> Standing:
        """What a token amounts to whose owner amounts to ``standing``: no superuser's where there is a ceiling."""
        return standing if self.permissions is None else Standing(standing.permissions & self.permissions)


#: A token as RAGFlow makes them: what its owner may do on the user API, and no credential of the admin server.
UNSCOPED = Scope((), None, opens_admin=False)


def parse_scopes(given: Sequence[str], find: Callable[[str, str], Permission] = registered) -> Scope:
    """The scope of a token for which these were asked: ``action:resource`` each, or ``all`` alone.

    ``find`` gives the registered permission of a resource and an action. Raises BadField (``scopes``).
    """
    if not given:
        raise BadField("scopes: name at least one, or leave the field out.", field="scopes")
    if len(given) > MOST:
        raise BadField(f"scopes: a token has at most {MOST}.", field="scopes")
    if ALL in given:
        if len(set(given)) > 1:
            raise BadField(f"scopes: '{ALL}' stands alone.", field="scopes")
        return scope_of(ALL)
    names = dict.fromkeys(_parsed(text, find) for text in given)
    return scope_of(_SEPARATOR.join(names))


def _parsed(text: str, find: Callable[[str, str], Permission]) -> str:
    action, colon, resource = text.partition(":")
    if not colon:
        raise BadField(
            f"scopes: {reprlib.repr(text)} is none; expected is action:resource, such as read:dataset, or '{ALL}'.",
            field="scopes",
        )
    try:
        permission = find(resource, action)
    except BadField as error:
        raise BadField(f"scopes: {error.message}", field="scopes") from error
    return f"{permission.action}:{permission.resource}"


@lru_cache(maxsize=1024)
def scope_of(stored: str) -> Scope:
    """The scope that stands stored like this: the names with a space between."""
    names = tuple(stored.split(_SEPARATOR))
    if names == (ALL,):
        return Scope(names, None, opens_admin=True)
    held: set[Permission] = set()
    for name in names:
        action, _, resource = name.partition(":")
        held.add(Permission(resource, action))
        if action == "write":
            held.add(Permission(resource, "read"))
    permissions = frozenset(held)
    return Scope(names, permissions, opens_admin=not ADMINISTRATIVE_PERMISSIONS.isdisjoint(permissions))


def stored_scope(scope: Scope) -> str:
    """The form in which ``scope_of`` reads a scope."""
    return _SEPARATOR.join(scope.names)


def check_may_make(maker: Scope | None, wanted: Scope) -> None:
    """Raise GivesMoreThanHeld if a token of scope ``maker`` would make one that may do more; None is a session."""
    missing = _beyond(maker, wanted)
    if missing:
        raise GivesMoreThanHeld(f"A token makes none with more scope than its own: {', '.join(missing)}.", missing)


def _beyond(maker: Scope | None, wanted: Scope) -> list[str]:
    """What the wanted scope has beyond the maker's, as scopes."""
    if maker is None or maker.names == (ALL,):
        return []
    if wanted.permissions is None:
        has_all_of_it = not maker.is_limited and not wanted.opens_admin
        return [] if has_all_of_it else [ALL]
    if maker.permissions is None:
        lacking = wanted.permissions & ADMINISTRATIVE_PERMISSIONS
    else:
        lacking = wanted.permissions - maker.permissions
    return sorted(f"{permission.action}:{permission.resource}" for permission in lacking)
