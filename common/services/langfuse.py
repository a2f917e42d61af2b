"""Langfuse credentials of a tenant: verified before they are stored, encrypted at rest, masked in every answer."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, NamedTuple

from common.core.audit_tags import EventTag
from common.core.errors import BadField, NotYourTenant, TenantNotFound
from common.models.base import created, http_date, touched
from common.models.token import LangfuseProject, TenantLangfuse
from common.secret import Secret
from common.services import audit, memberships
from common.services.plane import Plane
from common.services.principal import Principal
from common.stores import egress, langfuse_rest

# The column takes 128 characters in RAGFlow's schema.
HOST_LENGTH = 128
# Encrypted, 1024 characters become 1512; the column takes 2048.
KEY_LENGTH = 1024
_KEY = re.compile(r"[!-~]+")
_SECRET_PREFIX = "sk-lf-"
_SHOWN = 4
_TOO_SHORT_TO_SHOW = 12


class LangfuseFieldEmpty(BadField):
    """A credential without its host or one of its keys; RAGFlow answers 102 here."""

    code = 102

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"Missing required fields: {', '.join(names)}", field=names[0])


class LangfuseSecretNeeded(BadField):
    """A masked secret can't be used for a host other than the one it is stored for."""

    code = 102

    def __init__(self) -> None:
        super().__init__("Enter the whole secret_key again: a stored one is only sent to the host it was stored for.")


class _Stored(NamedTuple):
    """A row as it is stored; the project is the one of these very keys, or None when they were never verified here."""

    secret_key: str
    public_key: str
    host: str
    update_time: int | None
    project_id: str | None
    project_name: str | None


class _Verified(NamedTuple):
    """Credentials that Langfuse has just confirmed."""

    host: str
    public_key: str
    secret_key: Secret
    project: langfuse_rest.LangfuseProject


def save_credentials(plane: Plane, who: Principal, *, host: str, public_key: str, secret_key: Secret) -> dict[str, Any]:
    """Store credentials for the tenant that the caller acts in and owns, once Langfuse has confirmed them.

    The masked form of the stored secret keeps that one, for the same host. Gives ``{tenant_id, secret_key, public_key,
    host}`` with the secret masked, and ``update_time`` (UTC ms) and ``update_date`` where a row was replaced. Langfuse
    is asked each time and outside any transaction, so a slow host holds nobody up. Raises TenantNotFound,
    NotYourTenant, BadField, the errors of ``langfuse_rest.verify`` and EgressBusy.
    """
    tenant_id = _own_tenant(who)
    host, public_key, secret_key = _checked(host, public_key, secret_key)
    secret_key = _unmasked(plane, _find(plane, tenant_id), host, secret_key)
    project = langfuse_rest.verify(
        host, public_key, secret_key, partial(egress.fetch, guard=plane.egress), deadline_s=plane.egress.deadline_s
    )
    verified, now = _Verified(host, public_key, secret_key, project), plane.now_ms()
    with plane.database.transaction():
        memberships.lock(plane)
        memberships.require_role(plane, who, tenant_id, ("owner",))
        before = _find(plane, tenant_id)
        _store(plane, tenant_id, before is not None, verified, now)
        _record_save(plane, who, tenant_id, before, verified)
    shown = {"tenant_id": tenant_id, "secret_key": masked(secret_key), "public_key": public_key, "host": host}
    return shown if before is None else {**shown, "update_time": now, "update_date": http_date(now)}


def own_credentials(plane: Plane, who: Principal) -> dict[str, Any] | None:
    """What is stored for the tenant that the caller acts in and owns, or None; asks nobody but the database.

    ``{tenant_id, host, secret_key, public_key, project_id, project_name}``, the secret masked, the project as of the
    last verification here: null for keys that RAGFlow stored. Raises TenantNotFound, NotYourTenant.
    """
    tenant_id = _own_tenant(who)
    stored = _find(plane, tenant_id)
    if stored is None:
        return None
    return {
        "tenant_id": tenant_id,
        "host": stored.host,
        "secret_key": masked(plane.keys.decrypt(stored.secret_key)),
        "public_key": stored.public_key,
        "project_id": stored.project_id,
        "project_name": stored.project_name,
    }


def delete_credentials(plane: Plane, who: Principal) -> bool:
    """Forget the credentials of the tenant that the caller acts in and owns; False when there are none.

    Raises TenantNotFound, NotYourTenant.
    """
    tenant_id = _own_tenant(who)
    with plane.database.transaction():
        memberships.lock(plane)
        memberships.require_role(plane, who, tenant_id, ("owner",))
        stored = _find(plane, tenant_id)
        if stored is None:
            return False
        plane.database.run("DELETE FROM tenant_langfuse WHERE tenant_id = ?", (tenant_id,))
        plane.database.run("DELETE FROM rk_langfuse_project WHERE tenant_id = ?", (tenant_id,))
        target = ("tenant", tenant_id)
        audit.record(plane, EventTag.LANGFUSE_DELETE, who, target=target, before=_told(stored))
    return True


def masked(secret: Secret | None) -> str:
    """A secret as answers show it: Langfuse's prefix and the last four characters, ``sk-lf-…abcd``.

    Of a short one, or one that no key opens any more (None), nothing is shown.
    """
    text = secret.reveal() if secret is not None else ""
    prefix = _SECRET_PREFIX if text.startswith(_SECRET_PREFIX) else ""
    rest = text.removeprefix(prefix)
    return f"{prefix}…{rest[-_SHOWN:]}" if len(rest) >= _TOO_SHORT_TO_SHOW else "…"


def _own_tenant(who: Principal) -> str:
    if who.tenant_id is None:
        raise TenantNotFound
    if who.tenant_role != "owner":
        raise NotYourTenant
    return who.tenant_id


def _checked(host: str, public_key: str, secret_key: Secret) -> tuple[str, str, Secret]:
    """The three without the white space that comes along when they are pasted. Raises BadField."""
    given = {"secret_key": secret_key.reveal().strip(), "public_key": public_key.strip(), "host": host.strip()}
    empty = [name for name, value in given.items() if not value]
    if empty:
        raise LangfuseFieldEmpty(empty)
    if len(given["host"]) > HOST_LENGTH:
        raise BadField(f"host: must be at most {HOST_LENGTH} characters.", field="host")
    if not _KEY.fullmatch(given["public_key"]) or len(given["public_key"]) > KEY_LENGTH:
        raise _not_a_key("public_key")
    return given["host"].rstrip("/"), given["public_key"], Secret(given["secret_key"])


def _unmasked(plane: Plane, stored: _Stored | None, host: str, given: Secret) -> Secret:
    """The secret that is meant: the given one, or the stored one if its masked form was given."""
    known = plane.keys.decrypt(stored.secret_key) if stored is not None else None
    if stored is not None and known is not None and given.reveal() == masked(known):
        if host != stored.host.rstrip("/"):
            raise LangfuseSecretNeeded
        return known
    if not _KEY.fullmatch(given.reveal()) or len(given.reveal()) > KEY_LENGTH:
        raise _not_a_key("secret_key")
    return given


def _not_a_key(name: str) -> BadField:
    return BadField(f"{name}: must be at most {KEY_LENGTH} visible ASCII characters.", field=name)


def _find(plane: Plane, tenant_id: str) -> _Stored | None:
    # A RAGFlow in the same database changes its table only: a project of earlier keys doesn't count.
    row = plane.database.one(
        "SELECT l.secret_key, l.public_key, l.host, l.update_time, p.project_id, p.project_name "
        "FROM tenant_langfuse l LEFT JOIN rk_langfuse_project p "
        "ON p.tenant_id = l.tenant_id AND p.verified_at >= COALESCE(l.update_time, 0) WHERE l.tenant_id = ?",
        (tenant_id,),
    )
    return _Stored(*row) if row else None


def _store(plane: Plane, tenant_id: str, exists: bool, verified: _Verified, now: int) -> None:
    secret = verified.secret_key.reveal() if plane.shared else plane.keys.encrypt(verified.secret_key)
    values = {"secret_key": secret, "public_key": verified.public_key, "host": verified.host}
    if exists:
        changed = TenantLangfuse.update(**values, **touched(now, plane.zone))
        plane.database.execute(changed.where(TenantLangfuse.tenant_id == tenant_id))
    else:
        plane.database.insert(TenantLangfuse, tenant_id=tenant_id, **values, **created(now, plane.zone))
    plane.database.run("DELETE FROM rk_langfuse_project WHERE tenant_id = ?", (tenant_id,))
    plane.database.insert(
        LangfuseProject,
        tenant_id=tenant_id,
        project_id=verified.project.id[:255],
        project_name=verified.project.name[:255],
        verified_at=now,
    )


def _record_save(plane: Plane, who: Principal, tenant_id: str, before: _Stored | None, verified: _Verified) -> None:
    known = plane.keys.decrypt(before.secret_key) if before is not None else None
    after = {
        "host": verified.host,
        "public_key": verified.public_key,
        "project_id": verified.project.id,
        "secret_changed": known != verified.secret_key,
    }
    told = _told(before) if before is not None else None
    audit.record(plane, EventTag.LANGFUSE_SAVE, who, target=("tenant", tenant_id), before=told, after=after)


def _told(stored: _Stored) -> dict[str, Any]:
    return {"host": stored.host, "public_key": stored.public_key, "project_id": stored.project_id}
