"""What a route asks of its caller. A route that names nothing does not start, so nothing is open by omission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from common.core.emails import email_key
from common.core.errors import Forbidden, ScopeMissing
from common.core.permissions import Permission, registered
from common.services import memberships
from common.services.plane import Plane
from common.services.principal import Principal

# For what any token may ask, whatever its scope.
_ANY = "any"


class Requirement(Protocol):
    """Decides about a caller who is signed in; ``text`` is what the API document and the tests call it.

    ``scope`` is what a token with scopes needs in it besides (``action:resource`` or ``any``); None where there is none
    that would do.
    """

    @property
    def text(self) -> str: ...

    @property
    def scope(self) -> str | None: ...

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        """Raises Forbidden, or NotYourTenant, when the caller may not."""


@dataclass(frozen=True)
class Public:
    """Everybody, also with a dead or malformed credential: it is not looked at."""

    text: str = "public"
    scope: str | None = _ANY

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        """Nothing to check."""


@dataclass(frozen=True)
class _OfPeople:
    """What asks for no permission: a token that may do less than its owner is refused, unless a scope is named."""

    scope: str | None = field(default=None, kw_only=True)

    def within(self, scope: str) -> Self:
        """The same, also for tokens with this scope, or with ``any``."""
        if scope != _ANY:
            _permission_of(scope)
        return replace(self, scope=scope)

    def _check_scope(self, who: Principal) -> None:
        if who.scope is None or not who.is_limited or self.scope == _ANY:
            return
        if self.scope is None or not who.scope.covers(_permission_of(self.scope)):
            raise ScopeMissing(self.scope)


@dataclass(frozen=True)
class SignedIn(_OfPeople):
    """Any active account; what it sees and changes is its own."""

    text: str = "signed-in"

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        self._check_scope(who)


@dataclass(frozen=True)
class Administrator(_OfPeople):
    """Whoever holds any administrative permission."""

    text: str = "administrator"

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        self._check_scope(who)
        if not who.administers:
            raise Forbidden("Your account holds no administrative permission; ask an administrator for a role.")


@dataclass(frozen=True)
class Holds:
    """Whoever holds one permission, by any of their roles."""

    resource: str
    action: str

    def __post_init__(self) -> None:
        registered(self.resource, self.action)

    @property
    def text(self) -> str:
        return f"{self.resource}:{self.action}"

    @property
    def scope(self) -> str:
        return f"{self.action}:{self.resource}"

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        who.require(self.resource, self.action)


@dataclass(frozen=True)
class OwnOr:
    """Whoever holds a permission; without it, in a session, whoever administers, for the account that is their own.

    ``parameter`` names the part of the path that is the account's e-mail. The use-case asks for the permission again
    wherever it acts on somebody else.
    """

    permission: Holds
    parameter: str = "email"

    @property
    def text(self) -> str:
        return f"{self.permission.text}|own"

    @property
    def scope(self) -> str:
        return self.permission.scope

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        is_own = email_key(path[self.parameter]) == email_key(who.email or "")
        if not (is_own and who.session_id is not None and who.administers):
            self.permission.check(plane, who, path)


@dataclass(frozen=True)
class InTenant(_OfPeople):
    """Whoever has one of these roles in the tenant that the path names."""

    roles: tuple[str, ...]
    parameter: str = "tenant_id"

    @property
    def text(self) -> str:
        return f"tenant:{'|'.join(self.roles)}"

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        self._check_scope(who)
        memberships.require_role(plane, who, path[self.parameter], self.roles)


def _permission_of(scope: str) -> Permission:
    action, _, resource = scope.partition(":")
    return registered(resource, action)


PUBLIC = Public()
SIGNED_IN = SignedIn()
#: Any active account with any credential: what it learns is who it is.
IDENTIFIED = SIGNED_IN.within(_ANY)
ADMINISTRATOR = Administrator()
TENANT_OWNER = InTenant(("owner",))
