"""Audit events made behind the servers' back, and what is done to them behind the trail's."""

from __future__ import annotations

from common.core.audit_chain import Problem
from common.core.audit_tags import EventTag
from common.services import audit, audit_check, audit_sealing
from common.services.plane import Plane
from common.services.principal import Origin, Principal, system

SHELL = system("test")


def happen(
    plane: Plane,
    count: int = 1,
    *,
    target: str = "someone@x.test",
    actor: str | None = None,
    actor_id: str | None = None,
    tag: EventTag = EventTag.USER_UPDATE,
) -> None:
    """So many events, each in a transaction of its own."""
    who = SHELL if actor is None else Principal(user_id=actor_id, email=actor, origin=Origin(address="192.0.2.7"))
    for number in range(count):
        with plane.database.transaction():
            audit.record(plane, tag, who, target=("user", target), after={"number": number})


def sealed(plane: Plane, count: int = 1, **more: str) -> list[str]:
    """So many further events, and their seals; the ids of all that are sealed, in the order of the chain."""
    happen(plane, count, **more)  # type: ignore[arg-type]
    audit_sealing.seal_all(plane)
    return uids(plane)


def uids(plane: Plane) -> list[str]:
    """The ids of what is sealed, in the order of the chain."""
    return [uid for (uid,) in plane.database.all("SELECT uid FROM rk_audit_seal ORDER BY seq")]


def problem(plane: Plane) -> Problem:
    """What is wrong with the trail; something has to be."""
    found = audit_check.verify(plane).problem
    assert found is not None
    return found
