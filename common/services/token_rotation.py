"""Rotating an API token: a new one takes its place, and for a while both are good."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import uuid4

from common.core.audit_tags import EventTag
from common.core.errors import Conflict, Forbidden, NotYourTenant, TokenNotFound, TokenReplaced
from common.core.expiry import parse_expiry
from common.core.scopes import UNSCOPED, Scope, scope_of
from common.core.tokens import display_form
from common.models.base import rfc3339
from common.models.token import TokenRecord, TokenTrait
from common.services import accounts, audit, limits, memberships, tenant_limits, token_makers, tokens
from common.services.plane import Plane
from common.services.principal import Principal

_DETAILS = """
    SELECT k.dialog_id, k.source, k.beta, k.create_time, t.user_id, t.name, t.expires_at, r.scopes, r.replaced_by
    FROM api_token k LEFT JOIN rk_token t ON t.stored = k.token AND t.tenant_id = k.tenant_id
    LEFT JOIN rk_token_trait r ON r.token_id = t.id WHERE k.tenant_id = ? AND k.token = ?
"""
#: The longest that a token and its successor are both good.
MOST_GRACE_S = 3600


class Rotation(NamedTuple):
    """How long the old token is still good, and when the new one ends: without a word, when the old one would have."""

    grace_s: int = MOST_GRACE_S
    expires_at: str | int | None = None
    expires_in: int | None = None


class _Old(NamedTuple):
    """A token that is to be rotated."""

    tenant_id: str
    token_id: str
    user_id: str
    display: str
    name: str | None
    expires_at: int | None
    dialog_id: str | None
    source: str | None
    scope: Scope


def rotate_own(plane: Plane, who: Principal, given: str, rotation: Rotation) -> dict[str, Any]:
    """Rotate a token of the caller's in the tenant that they act in and own; named by value, id or display form.

    The new one in the form of ``tokens.create``, with ``replaces`` (the id of the old one) and ``old_expires_at``. With
    a token no more comes of it than that may do, and for no longer. Raises TenantNotFound, NotYourTenant,
    TokenNotFound, AmbiguousToken, TokenReplaced, Conflict for one that has ended, BadField, ProofDue,
    GivesMoreThanHeld, TooManyInGrace.
    """
    tenant_id = tokens.own_tenant(who)
    limits.token_creation(plane, who)
    with plane.database.transaction():
        memberships.lock(plane)
        memberships.require_role(plane, who, tenant_id, ("owner",))
        old = _named(plane, tokens.of_tenant(tenant_id), given)
        if old.user_id != who.user_id:
            raise Forbidden(
                "Only the account that a token acts for rotates it: the new one acts for that account, too."
            )
        return _rotate(plane, who, old, rotation)


def rotate_of_user(plane: Plane, actor: Principal, email: str, given: str, rotation: Rotation) -> dict[str, Any]:
    """``rotate_own`` for a token of an account, by an administrator. Raises UserNotFound, too."""
    limits.token_creation(plane, actor)
    with plane.database.transaction():
        memberships.lock(plane)
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        old = _named(plane, tokens.of_account(plane, account), given)
        if old.user_id != account.id or memberships.role_in(plane, account.id, old.tenant_id) != "owner":
            raise NotYourTenant
        return _rotate(plane, actor, old, rotation)


def _rotate(plane: Plane, actor: Principal, old: _Old, rotation: Rotation) -> dict[str, Any]:
    tokens.check_may_hand_out(plane, actor, old.user_id, old.scope)
    now = plane.now_ms()
    asked = parse_expiry(rotation.expires_at, rotation.expires_in, now)
    end = tokens.earlier(asked if asked is not None else old.expires_at, tokens.end_of_credential(plane, actor))
    makers = token_makers.of_new(actor, old.user_id)
    draft = tokens.Draft(old.tenant_id, old.user_id, old.name, end, old.scope, old.dialog_id, old.source, makers)
    if rotation.grace_s:
        tenant_limits.make_sure_of_grace(plane, old.tenant_id)
    made = tokens.write(plane, draft)
    old_end = tokens.earlier(old.expires_at, now + rotation.grace_s * 1000)
    plane.database.run("UPDATE rk_token SET expires_at = ? WHERE id = ?", (old_end, old.token_id))
    if not plane.database.run(
        "UPDATE rk_token_trait SET replaced_by = ? WHERE token_id = ?", (made["id"], old.token_id)
    ):
        plane.database.insert(TokenTrait, token_id=old.token_id, replaced_by=made["id"])
    audit.record(
        plane,
        EventTag.TOKEN_ROTATE,
        actor,
        target=("token", old.display),
        before={"id": old.token_id, "tenant": old.tenant_id, "expires_at": rfc3339(old.expires_at)},
        after={
            "id": made["id"],
            "token": display_form(made["token"]),
            "expires_at": rfc3339(end),
            "old_expires_at": rfc3339(old_end),
        },
    )
    return {**made, "replaces": old.token_id, "old_expires_at": rfc3339(old_end)}


def _named(plane: Plane, reach: tokens.Reach, given: str) -> _Old:
    """The token that is meant; one that RAGFlow made gets its record here, for without one it has no end."""
    found = tokens.find(plane, reach, given)
    row = plane.database.one(_DETAILS, (found.tenant_id, found.stored)) if found is not None else None
    if found is None or row is None:
        raise TokenNotFound
    dialog_id, source, beta, create_time, user_id, name, expires_at, scopes, replaced_by = row
    if replaced_by is not None:
        raise TokenReplaced(replaced_by)
    if expires_at is not None and expires_at <= plane.now_ms():
        raise Conflict("This token has expired: make a new one.")
    token_id = found.token_id
    if token_id is None:
        token_id, user_id = _recorded(plane, found, beta, create_time)
    scope = scope_of(scopes) if scopes else UNSCOPED
    return _Old(found.tenant_id, token_id, user_id, found.display, name, expires_at, dialog_id, source, scope)


def _recorded(plane: Plane, found: tokens.Found, beta: str | None, create_time: int | None) -> tuple[str, str]:
    """Write the record of a token that RAGFlow made; its id, and whom it acts for. Raises TokenNotFound for nobody."""
    user_id = found.tenant_id
    if user_id not in memberships.owners(plane, found.tenant_id):
        raise TokenNotFound
    token_id = uuid4().hex
    plane.database.insert(
        TokenRecord,
        id=token_id,
        stored=found.stored,
        tenant_id=found.tenant_id,
        user_id=user_id,
        display=display_form(found.stored),
        beta_display=display_form(beta) if beta else "",
        created_at=create_time or plane.now_ms(),
    )
    return token_id, user_id
