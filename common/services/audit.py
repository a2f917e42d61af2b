"""The audit trail: one event per change, signed, and written in the transaction of the change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from common.core.audit_chain import CONTENT, Scalar, event_mac
from common.core.audit_tags import EventTag
from common.core.emails import email_key
from common.core.permissions import SUPERUSER
from common.secret import Secret
from common.services import accounts, audit_written
from common.services.event_ids import EventIds
from common.services.plane import Plane
from common.services.principal import Principal
from common.stores.database import Database

# As many characters of roles as the column has.
_ROLES_LENGTH = 255


def _insert_into(columns: Sequence[str]) -> str:
    names, marks = ", ".join(f"`{name}`" for name in columns), ", ".join("?" * len(columns))
    return f"INSERT INTO rk_audit_event ({names}) VALUES ({marks})"


_INSERT = _insert_into((*CONTENT, "key_id", "mac"))


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
    at = plane.now_ms()
    content = _content(
        plane.event_ids.next(at), at, tag, actor, roles, target=target, before=before, after=after, result=result
    )
    _insert(plane.database, content, plane.keys.audit_key())
    audit_written.note(plane.settings.home, plane.database, str(content[0]))


def record_offline(
    home: Path,
    database: Database,
    key: tuple[str, bytes],
    at_ms: int,
    tag: EventTag,
    actor: Principal,
    *,
    after: Mapping[str, Any] | None = None,
) -> None:
    """``record`` for a command that opens no plane, by an actor without an account; ``key`` as of ``Keys.audit_key``.

    In a database of before events were signed it gets its signature when the others do.
    """
    content = _content(EventIds().next(at_ms), at_ms, tag, actor, None, after=after)
    if "rk_audit_unsealed" in database.tables():
        with database.transaction():
            _insert(database, content, key)
            audit_written.note(home, database, str(content[0]))
        return
    known = dict(zip(CONTENT, content, strict=True))
    columns = [name for name in CONTENT if name not in ("uid", "actor_key", "target_key")]
    database.run(_insert_into(columns), [known[name] for name in columns])


def _content(
    uid: str,
    at_ms: int,
    tag: EventTag,
    actor: Principal,
    roles: str | None,
    *,
    target: tuple[str, str | None] | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    result: str = "ok",
) -> tuple[Scalar, ...]:
    """The values of CONTENT."""
    kind, name = target or (None, None)
    return (
        uid,
        at_ms,
        tag.value,
        result,
        actor.user_id,
        _cut(actor.email, 255),
        roles,
        actor.credential,
        _cut(actor.origin.address, 64),
        _cut(actor.origin.agent, 255),
        actor.origin.request_id,
        kind,
        _cut(name, 255),
        _json(before),
        _json(after),
        name_key(actor.email or actor.credential),
        name_key(name),
    )


def _insert(database: Database, content: Sequence[Scalar], key: tuple[str, bytes]) -> None:
    database.run(_INSERT, (*content, key[0], event_mac(key[1], content)))
    database.run("INSERT INTO rk_audit_unsealed (uid) VALUES (?)", (content[0],))


def name_key(name: str | None) -> str | None:
    """The form in which actors and targets are compared, without case as e-mails are."""
    return email_key(name) if name else None


def _role_names(plane: Plane, actor: Principal) -> str | None:
    """The roles that the actor holds now, by name, as they may be renamed or gone when the event is read."""
    if actor.user_id is None:
        return None
    graph = accounts.role_graph(plane)
    return _listed([graph.name_of(role) for role in graph.account_roles(actor.role_ids, actor.is_superuser)])


def _listed(names: Sequence[str]) -> str:
    """As many of these names as there is room for, the superuser's first, and how many more there are."""
    names = sorted(names, key=SUPERUSER.__ne__)
    text = ",".join(names)
    # A name and its comma are two characters at least.
    shown = min(len(names), _ROLES_LENGTH // 2)
    while len(text) > _ROLES_LENGTH:
        text = ",".join([*names[:shown], f"… and {len(names) - shown} more"])
        shown -= 1
    return text


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
