"""The audit trail: one event per change, written in the transaction of the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from common.core.audit_tags import EventTag
from common.models.operation import AuditEvent
from common.secret import Secret
from common.services.plane import Plane
from common.services.principal import Principal
from common.stores.database import Database


def record(
    plane: Plane,
    tag: EventTag,
    actor: Principal,
    *,
    target: tuple[str, str | None] | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    result: str = "ok",
) -> None:
    """Write one event into the running transaction.

    ``target`` is (kind, name), such as ``("user", "a@b.co")``. ``before`` and ``after`` hold what changed; a Secret
    in them is written as ``***``. ``result`` is ``ok`` or ``refused``.
    """
    roles = _role_names(plane, actor)
    _insert(plane.database, plane.now_ms(), tag, actor, roles, target=target, before=before, after=after, result=result)


def record_offline(
    database: Database, at_ms: int, tag: EventTag, actor: Principal, *, after: Mapping[str, Any] | None = None
) -> None:
    """``record`` for a command that opens no plane, by an actor without an account."""
    _insert(database, at_ms, tag, actor, None, after=after)


def _insert(
    database: Database,
    at_ms: int,
    tag: EventTag,
    actor: Principal,
    roles: str | None,
    *,
    target: tuple[str, str | None] | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    result: str = "ok",
) -> None:
    kind, name = target or (None, None)
    database.insert(
        AuditEvent,
        at=at_ms,
        tag=tag.value,
        result=result,
        actor_id=actor.user_id,
        actor_email=_cut(actor.email, 255),
        actor_roles=_cut(roles, 255),
        credential=actor.credential,
        address=_cut(actor.origin.address, 64),
        agent=_cut(actor.origin.agent, 255),
        request_id=actor.origin.request_id,
        target_kind=kind,
        target=_cut(name, 255),
        before=_json(before),
        after=_json(after),
    )


def _role_names(plane: Plane, actor: Principal) -> str | None:
    """The roles that the actor holds now, by name, as they may be renamed or gone when the event is read."""
    if actor.user_id is None:
        return None
    row = plane.database.one("SELECT value FROM rk_state WHERE name = 'role_version'")
    graph = plane.roles.graph(plane.database, row[0] if row else 0)
    return ",".join(graph.name_of(role) for role in graph.account_roles(actor.role_ids, actor.is_superuser))


def _cut(text: str | None, length: int) -> str | None:
    return text[:length] if text else None


def _json(values: Mapping[str, Any] | None) -> str | None:
    if values is None:
        return None
    return orjson.dumps(dict(values), default=_plain, option=orjson.OPT_SORT_KEYS).decode()


def _plain(value: object) -> Any:
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value)
    raise TypeError(type(value).__name__)
