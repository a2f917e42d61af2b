"""What every change of roles and of who holds them has in common: one at a time, and by whom it may be made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from common.core.delegation import check_may_edit
from common.core.errors import RoleNotFound
from common.core.permissions import RoleGraph, Standing
from common.services import accounts
from common.services.plane import Plane
from common.services.principal import Principal


@contextmanager
def alone(plane: Plane) -> Iterator[RoleGraph]:
    """A transaction in which nobody else changes roles or assigns them; gives the graph that it starts from.

    Within it, events are recorded before rows are written, and the version goes up at the very end: whoever reads
    the graph for a version then never keeps one that a roll-back takes back.
    """
    with plane.database.transaction():
        plane.database.lock("roles")
        yield accounts.role_graph(plane)


def next_version(plane: Plane) -> None:
    """Have every process read the roles anew on its next request."""
    plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'role_version'")


def id_of(graph: RoleGraph, name: str) -> str:
    """The id of the role with this name. Raises RoleNotFound."""
    role_id = graph.id_of(name) if name.isascii() else None
    if role_id is None:
        raise RoleNotFound(name)
    return role_id


def refuse_to_edit(plane: Plane, graph: RoleGraph, actor: Principal, role_id: str, *, reaches_heirs: bool) -> Standing:
    """Raises what ``check_may_edit`` does, for the actor as it is now; returns the actor's standing."""
    standing = accounts.acting_now(plane, actor).standing
    check_may_edit(standing, graph, role_id, reaches_heirs=reaches_heirs)
    return standing
