"""Who asks: the authenticated caller of a use-case, and where the request came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from common.core.errors import PermissionMissing
from common.core.permissions import ADMINISTRATIVE_PERMISSIONS, ALL_PERMISSIONS, Permission, Standing
from common.core.scopes import Scope

Realm = Literal["admin", "user"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from: peer address, user agent, and the id that its log lines and events carry.

    ``needs`` is what the route that it came to asks for, which is asked for again where the caller is looked at anew.
    """

    address: str | None = None
    agent: str | None = None
    request_id: str | None = None
    needs: Permission | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """An account that acts, with everything that decides what it may do on this request.

    ``permissions`` is the effective set of all roles held now. ``tenant_id`` is the tenant it acts in: the token's,
    or the home tenant of a session (None when the account owns none), with ``tenant_role`` there, and ``tenant_calls``
    what that tenant may have of calls a minute where it has a limit of its own (0 for any number). ``credential`` is
    ``session:<id>``, ``token:<id>`` or ``system``. ``authenticated_at`` is when the password of a session was given
    last, in UTC milliseconds; None for any other credential. ``scope`` is that of a token, None for any other
    credential; where it is a ceiling, ``permissions`` and ``is_superuser`` are below it already. ``makers`` are the
    ids of accounts that made a token for this one.
    """

    user_id: str | None
    email: str | None
    nickname: str = ""
    is_superuser: bool = False
    role_ids: tuple[str, ...] = ()
    permissions: frozenset[Permission] = frozenset()
    credential: str | None = None
    tenant_id: str | None = None
    tenant_role: str | None = None
    tenant_calls: int | None = None
    must_change: bool = False
    authenticated_at: int | None = None
    scope: Scope | None = None
    makers: tuple[str, ...] = ()
    origin: Origin = field(default_factory=Origin)

    def may(self, resource: str, action: str) -> bool:
        """Whether the effective permissions contain this one."""
        return (resource, action) in self.permissions

    def require(self, resource: str, action: str) -> None:
        """Raises PermissionMissing unless the effective permissions contain this one."""
        if (resource, action) not in self.permissions:
            raise PermissionMissing(resource, action)

    @property
    def administers(self) -> bool:
        """Whether any administrative permission is held: what opens the admin server."""
        return not ADMINISTRATIVE_PERMISSIONS.isdisjoint(self.permissions)

    @property
    def standing(self) -> Standing:
        """What the caller amounts to where rules of delegation are judged."""
        return Standing(self.permissions, self.is_superuser)

    @property
    def is_limited(self) -> bool:
        """Whether a token is shown that may do less than the account: then it is no account of its own to itself."""
        return self.scope is not None and self.scope.is_limited

    @property
    def token_id(self) -> str | None:
        """Id of the API token that authenticated this request, if one did."""
        return self._credential_id("token")

    @property
    def session_id(self) -> str | None:
        """Id of the session that authenticated this request, if one did."""
        return self._credential_id("session")

    def _credential_id(self, kind: str) -> str | None:
        found, _, credential_id = (self.credential or "").partition(":")
        return credential_id if found == kind else None


def stranger(origin: Origin) -> Principal:
    """Nobody: the principal of a request without a credential."""
    return Principal(user_id=None, email=None, origin=origin)


def system(what: str) -> Principal:
    """Ragkeeper itself, or someone with the host's shell: may everything; audited under the name of the command."""
    return Principal(
        user_id=None,
        email=None,
        is_superuser=True,
        permissions=ALL_PERMISSIONS,
        credential="system",
        origin=Origin(agent=what),
    )
