"""What a route asks of its caller. A route that names nothing does not start, so nothing is open by omission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from common.core.errors import Forbidden
from common.core.permissions import registered
from common.services import memberships
from common.services.plane import Plane
from common.services.principal import Principal


class Requirement(Protocol):
    """Decides about a caller who is signed in; ``text`` is what the API document and the tests call it."""

    @property
    def text(self) -> str: ...

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        """Raises Forbidden, or NotYourTenant, when the caller may not."""


@dataclass(frozen=True)
class Public:
    """Everybody, also with a dead or malformed credential: it is not looked at."""

    text: str = "public"

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        """Nothing to check."""


@dataclass(frozen=True)
class SignedIn:
    """Any active account; what it sees and changes is its own."""

    text: str = "signed-in"

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        """Being authenticated is enough."""


@dataclass(frozen=True)
class Administrator:
    """Whoever holds any administrative permission."""

    text: str = "administrator"

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
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

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        who.require(self.resource, self.action)


@dataclass(frozen=True)
class InTenant:
    """Whoever has one of these roles in the tenant that the path names."""

    roles: tuple[str, ...]
    parameter: str = "tenant_id"

    @property
    def text(self) -> str:
        return f"tenant:{'|'.join(self.roles)}"

    def check(self, plane: Plane, who: Principal, path: Mapping[str, str]) -> None:
        memberships.require_role(plane, who, path[self.parameter], self.roles)


PUBLIC = Public()
SIGNED_IN = SignedIn()
ADMINISTRATOR = Administrator()
TENANT_OWNER = InTenant(("owner",))
