"""The plane: settings, stores and keys in one place, handed to every use-case."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import tzinfo

from common.core.errors import StoreUnavailable
from common.core.permissions import BUILT_IN, Registry, RoleGraph
from common.services.batches import Batches
from common.services.counting import SharedCounts
from common.services.event_ids import EventIds
from common.services.keys import Keys
from common.services.last_uses import LastUses
from common.services.level_watch import LevelWatch
from common.services.misuse_memory import MisuseMemory
from common.services.probing import Prober
from common.services.route_file import RouteFile
from common.services.variables import Variables
from common.settings import Settings
from common.stores.cache import Cache
from common.stores.database import STORE, Database
from common.stores.doc_engine import DocEngine
from common.stores.egress import EgressGuard
from common.stores.storage import Storage
from common.stores.waiting import refuse_on_event_loop


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _hashing() -> threading.Semaphore:
    # Two processes serve a port, so both together keep each core busy once. A hash takes 19 or 32 MiB.
    return threading.Semaphore(max(1, (os.cpu_count() or 1) // 2))


def _token_uses() -> LastUses:
    return LastUses(
        "tokens",
        "UPDATE rk_token SET last_used_at = ? WHERE id = ? AND (last_used_at IS NULL OR last_used_at < ?)",
    )


def _session_uses() -> LastUses:
    return LastUses("sessions", "UPDATE rk_session SET last_seen_at = ? WHERE id = ? AND last_seen_at < ?")


# What the rows are of that are no version.
_KINDS = _ROLE, _PARENT, _GRANT = -1, -2, -3
_ROLES = f"""
    SELECT value, '', '', '' FROM rk_state WHERE name = 'role_version'
    UNION ALL SELECT {_ROLE}, id, name, '' FROM rk_role
    UNION ALL SELECT {_PARENT}, role_id, parent_id, '' FROM rk_role_parent
    UNION ALL SELECT {_GRANT}, role_id, resource, action FROM rk_role_grant
"""


class RolesMoved(Exception):
    """The roles are of another version by now than the one that was read: whatever was read with it is old, too."""


class RoleSets:
    """The compiled role graph of one version. A request brings the version that is stored now (read by the
    authentication query), so a change holds on the next request of every process. ``registry`` is what can be granted.
    """

    def __init__(self, registry: Registry = BUILT_IN) -> None:
        self.registry = registry
        # One attribute, so that no thread sees the graph of one version under the number of another.
        self._current: tuple[int, RoleGraph] | None = None

    def graph(self, database: Database, version: int) -> RoleGraph:
        """The graph as of ``version``; reads the three role tables only when the version is a new one, and then raises
        MustWait on an event loop, and RolesMoved for one that is no more."""
        current = self._current
        if current is None or current[0] != version:
            refuse_on_event_loop()
            current = self._current = load_graph(database, self.registry)
            if current[0] != version:
                # Roles that an account has lost by now would be taken for what they came to hold afterwards.
                raise RolesMoved
        return current[1]


def role_version(database: Database) -> int:
    """The version of the roles as they are stored now."""
    row = database.one("SELECT value FROM rk_state WHERE name = 'role_version'")
    return row[0] if row else 0


def load_graph(database: Database, registry: Registry = BUILT_IN) -> tuple[int, RoleGraph]:
    """Roles, parents and own grants as they are stored now, and which version that is.

    One statement sees them at one moment. Several would have to be asked anew when somebody has changed roles between
    them, and while roles change all the time, as by ``ragkeeper apply``, that is each time.
    """
    rows = database.all(_ROLES)
    graph = RoleGraph(
        roles=[row[1:3] for row in rows if row[0] == _ROLE],
        parents=sorted(row[1:3] for row in rows if row[0] == _PARENT),
        grants=[row[1:] for row in rows if row[0] == _GRANT],
        registry=registry,
    )
    return next((row[0] for row in rows if row[0] not in _KINDS), 0), graph


class Sharing:
    """Whether a RAGFlow lives in the same database: as the setting says, else as the first migration found it.

    Read once, at first use: a process may have started before its database did.
    """

    def __init__(self, database: Database, setting: str) -> None:
        self._database = database
        self._known = None if setting == "auto" else setting == "on"

    def known(self) -> bool:
        """The answer. Raises StoreUnavailable while it can't be told."""
        if self._known is None:
            row = self._database.one("SELECT value FROM rk_state WHERE name = 'shared_database'")
            if row is None:
                raise StoreUnavailable(STORE, "its first migration has not ended", lost=False)
            self._known = bool(row[0])
        return self._known


@dataclass(frozen=True)
class Plane:
    """Everything that a use-case needs and nothing of the request."""

    settings: Settings
    database: Database
    cache: Cache
    documents: DocEngine
    objects: Storage
    keys: Keys
    egress: EgressGuard
    sharing: Sharing
    variables: Variables
    route_file: RouteFile
    zone: tzinfo
    now_ms: Callable[[], int] = _clock_ms
    roles: RoleSets = field(default_factory=RoleSets)
    prober: Prober = field(default_factory=Prober)
    level_watch: LevelWatch = field(default_factory=LevelWatch)
    token_uses: LastUses = field(default_factory=_token_uses)
    session_uses: LastUses = field(default_factory=_session_uses)
    counts: SharedCounts = field(default_factory=SharedCounts)
    batches: Batches = field(default_factory=Batches)
    event_ids: EventIds = field(default_factory=EventIds)
    misuses: MisuseMemory = field(default_factory=MisuseMemory)
    hashing: threading.Semaphore = field(default_factory=_hashing)

    @property
    def shared(self) -> bool:
        """Whether a RAGFlow lives in the same database, so that rows are written in the forms it reads."""
        return self.sharing.known()

    @property
    def plain_tokens(self) -> bool:
        """Whether API tokens are stored in the clear, as RAGFlow reads them."""
        return (self.settings.token_storage or ("plain" if self.shared else "hashed")) == "plain"
