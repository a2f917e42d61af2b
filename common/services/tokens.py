"""API tokens: made, listed, deleted; by a tenant's owner, and by administrators for an account.

A row of ``api_token`` is what RAGFlow reads; ``rk_token`` beside it says who made it, when it ends and when it was used
last. A row that RAGFlow made has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.delegation import missing_to_act_on
from common.core.errors import AmbiguousToken, BadField, NotYourTenant, TenantNotFound, TokenNotFound
from common.core.expiry import parse_expiry
from common.core.names import parse_token_name
from common.core.tokens import display_form, is_stored_form, lookup_forms, new_beta, new_token, stored_form
from common.models.base import created, http_date, rfc3339
from common.models.token import ApiToken, TokenRecord
from common.services import accounts, audit, memberships
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.services.principal import Principal, system

_LISTED = """
    SELECT k.tenant_id, k.token, k.beta, k.dialog_id, k.source, k.create_time, k.update_time,
        t.id, t.display, t.beta_display, t.name, t.expires_at, t.last_used_at
    FROM api_token k LEFT JOIN rk_token t ON t.stored = k.token AND t.tenant_id = k.tenant_id
    WHERE k.tenant_id = ?
"""
_ORDER = "COALESCE(k.create_time, 0)"


class Wish(NamedTuple):
    """What a client may ask of a token that is made: a name, and when it ends (``common.core.expiry``).

    ``dialog_id`` and ``source`` ("agent", or None for a dialog) are those of RAGFlow's older, dialog-scoped keys.
    """

    name: str | None = None
    expires_at: str | int | None = None
    expires_in: int | None = None
    dialog_id: str | None = None
    source: str | None = None


def create(plane: Plane, who: Principal, wish: Wish) -> dict[str, Any]:
    """Make a token for the tenant that the caller acts in and owns; the only answer that shows it whole.

    ``{tenant_id, token, beta, create_time, create_date, update_time, update_date, dialog_id, source, id, name,
    expires_at, last_used_at}``. One made with a token ends no later than that. Raises TenantNotFound, NotYourTenant,
    BadField.
    """
    tenant_id = _own_tenant(who)
    with plane.database.transaction():
        memberships.lock(plane)
        memberships.require_role(plane, who, tenant_id, ("owner",))
        _check_dialog(plane, tenant_id, wish)
        return _make(plane, who, tenant_id, str(who.user_id), wish, latest=_end_of_credential(plane, who))


def create_for(plane: Plane, actor: Principal, email: str, wish: Wish) -> dict[str, Any]:
    """``create`` for an account and the home tenant that it owns, by an administrator.

    Raises UserNotFound, TenantNotFound when it owns none, GivesMoreThanHeld, BadField.
    """
    with plane.database.transaction():
        memberships.lock(plane)
        account = accounts.get(plane, email)
        accounts.refuse_to_act_on_superiors(plane, actor, account)
        tenant_id = memberships.home_of(plane, account.id)
        if tenant_id is None:
            raise TenantNotFound(f"User '{account.email}' owns no tenant.")
        return _make(plane, actor, tenant_id, account.id, wish)


def own(plane: Plane, who: Principal) -> list[dict[str, Any]]:
    """Every token of the tenant that the caller acts in and owns, oldest first; in the form of ``create``.

    ``token`` and ``beta`` are display forms where tokens are hashed. Raises TenantNotFound, NotYourTenant.
    """
    return _listing(plane, _own_tenant(who), whole=plane.plain_tokens)


def own_page(plane: Plane, who: Principal, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """``own``, a page at a time: ``{tokens, next_cursor}``."""
    return _page(plane, _own_tenant(who), limit, cursor, whole=plane.plain_tokens)


def own_of_dialog(plane: Plane, who: Principal, dialog_id: str) -> list[dict[str, Any]]:
    """``own``, but only those that were made for one dialog or agent."""
    return _listing(plane, _own_tenant(who), whole=plane.plain_tokens, dialog_id=dialog_id)


def of_user(plane: Plane, actor: Principal, email: str) -> list[dict[str, Any]]:
    """Every token of an account's home tenant; none when it owns no tenant. Raises UserNotFound.

    Where tokens are stored in the clear they are shown whole only to who might make one for that account.
    """
    account, tenant_id = _home(plane, email)
    whole = _may_see_whole(plane, actor, account)
    return _listing(plane, tenant_id, whole=whole) if tenant_id else []


def page_of_user(
    plane: Plane, actor: Principal, email: str, *, limit: int = 50, cursor: str | None = None
) -> dict[str, Any]:
    """``of_user``, a page at a time: ``{tokens, next_cursor}``."""
    account, tenant_id = _home(plane, email)
    whole = _may_see_whole(plane, actor, account)
    return _page(plane, tenant_id or "", limit, cursor, whole=whole)


def delete(plane: Plane, who: Principal, given: Sequence[str], *, tenant_id: str | None = None) -> int:
    """Delete tokens of the caller's tenant (or of ``tenant_id``) by value, id or display form; returns how many.

    What matches nothing is passed over. Raises TenantNotFound, NotYourTenant unless the caller owns the tenant, and
    AmbiguousToken, in which case none is deleted.
    """
    tenant_id = tenant_id or _own_tenant(who)
    with plane.database.transaction():
        memberships.require_role(plane, who, tenant_id, ("owner",))
        return sum(_delete(plane, who, tenant_id, one) for one in given)


def delete_of_user(plane: Plane, actor: Principal, email: str, given: str) -> None:
    """Delete a token of an account's home tenant by value, id or display form.

    Raises UserNotFound, TokenNotFound, AmbiguousToken, GivesMoreThanHeld.
    """
    with plane.database.transaction():
        account, tenant_id = _home(plane, email)
        accounts.refuse_to_act_on_superiors(plane, actor, account)
        if tenant_id is None or not _delete(plane, actor, tenant_id, given):
            raise TokenNotFound


def retire_expired(plane: Plane, *, limit: int = 500) -> int:
    """Delete tokens whose time is over, for a RAGFlow in the same database knows of no end; how many went."""
    rows = plane.database.all(
        "SELECT id, tenant_id, stored, display FROM rk_token WHERE expires_at <= ? ORDER BY expires_at, id LIMIT ?",
        (plane.now_ms(), limit),
    )
    for token_id, tenant_id, stored, display in rows:
        with plane.database.transaction():
            plane.database.run("DELETE FROM api_token WHERE tenant_id = ? AND token = ?", (tenant_id, stored))
            plane.database.run("DELETE FROM rk_token WHERE id = ?", (token_id,))
            before = {"id": token_id, "tenant": tenant_id, "expired": True}
            audit.record(plane, EventTag.TOKEN_DELETE, system("expiry"), target=("token", display), before=before)
    return len(rows)


def _own_tenant(who: Principal) -> str:
    if who.tenant_id is None:
        raise TenantNotFound
    if who.tenant_role != "owner":
        raise NotYourTenant
    return who.tenant_id


def _home(plane: Plane, email: str) -> tuple[AccountRow, str | None]:
    account = accounts.get(plane, email)
    return account, memberships.home_of(plane, account.id)


def _may_see_whole(plane: Plane, actor: Principal, account: AccountRow) -> bool:
    if not plane.plain_tokens or not actor.may("token", "create"):
        return False
    return actor.user_id == account.id or not missing_to_act_on(actor.standing, accounts.standing_of(plane, account))


def _end_of_credential(plane: Plane, who: Principal) -> int | None:
    """When the token that the caller has shown ends; None for a session, or one without an end."""
    kind, _, token_id = (who.credential or "").partition(":")
    row = plane.database.one("SELECT expires_at FROM rk_token WHERE id = ?", (token_id,)) if kind == "token" else None
    return row[0] if row else None


def _check_dialog(plane: Plane, tenant_id: str, wish: Wish) -> None:
    """Raises NotYourTenant for a dialog or agent of somebody else: RAGFlow lets the key's holder talk to it."""
    if wish.dialog_id is None:
        return
    table, column = ("user_canvas", "user_id") if wish.source == "agent" else ("dialog", "tenant_id")
    if table == "dialog" and table not in plane.database.tables():
        return
    row = plane.database.one(f"SELECT {column} FROM {table} WHERE id = ?", (wish.dialog_id,))
    if row is not None and row[0] != tenant_id:
        raise NotYourTenant


def _make(
    plane: Plane, actor: Principal, tenant_id: str, user_id: str, wish: Wish, *, latest: int | None = None
) -> dict[str, Any]:
    now = plane.now_ms()
    expires_at = parse_expiry(wish.expires_at, wish.expires_in, now)
    if latest is not None:
        expires_at = min(latest, expires_at) if expires_at is not None else latest
    name = parse_token_name(wish.name) if wish.name and wish.name.strip() else None
    token, beta, token_id = new_token(), new_beta(), uuid4().hex
    stored = token if plane.plain_tokens else stored_form(token)
    plane.database.insert(
        ApiToken,
        tenant_id=tenant_id,
        token=stored,
        beta=beta if plane.plain_tokens else stored_form(beta),
        dialog_id=wish.dialog_id,
        source=wish.source,
        **created(now, plane.zone),
    )
    plane.database.insert(
        TokenRecord,
        id=token_id,
        stored=stored,
        tenant_id=tenant_id,
        user_id=user_id,
        display=display_form(token),
        beta_display=display_form(beta),
        name=name,
        created_at=now,
        expires_at=expires_at,
    )
    after = {"id": token_id, "name": name, "tenant": tenant_id, "expires_at": rfc3339(expires_at)}
    audit.record(plane, EventTag.TOKEN_CREATE, actor, target=("token", display_form(token)), after=after)
    return {
        "tenant_id": tenant_id,
        "token": token,
        "beta": beta,
        "dialog_id": wish.dialog_id,
        "source": wish.source,
        "create_time": now,
        "create_date": http_date(now),
        "update_time": None,
        "update_date": None,
        "id": token_id,
        "name": name,
        "expires_at": rfc3339(expires_at),
        "last_used_at": None,
    }


def _listing(plane: Plane, tenant_id: str, *, whole: bool, dialog_id: str | None = None) -> list[dict[str, Any]]:
    condition, params = (" AND k.dialog_id = ?", (dialog_id,)) if dialog_id is not None else ("", ())
    rows = plane.database.all(f"{_LISTED}{condition} ORDER BY {_ORDER}, k.token", (tenant_id, *params))
    return [_shown(row, whole) for row in rows]


def _page(plane: Plane, tenant_id: str, limit: int, cursor: str | None, *, whole: bool) -> dict[str, Any]:
    """A cursor is a moment and how many tokens of that moment were shown: a token itself must not stand in it."""
    since, skipped = decode_cursor(cursor, (int, int)) if cursor is not None else (0, 0)
    if skipped < 0:
        raise BadField("cursor: not a cursor of this list.", field="cursor")
    rows = plane.database.all(
        f"{_LISTED} AND {_ORDER} >= ? ORDER BY {_ORDER}, k.token LIMIT ? OFFSET ?",
        (tenant_id, since, limit + 1, skipped),
    )
    shown, next_cursor = rows[:limit], None
    if len(rows) > limit:
        last = shown[-1][5] or 0
        of_last = sum((row[5] or 0) == last for row in shown)
        next_cursor = encode_cursor([last, of_last + (skipped if last == since else 0)])
    return {"tokens": [_shown(row, whole) for row in shown], "next_cursor": next_cursor}


def _shown(row: tuple[Any, ...], whole: bool) -> dict[str, Any]:
    tenant_id, token, beta, dialog_id, source, create_time, update_time, *record = row
    token_id, display, beta_display, name, expires_at, last_used_at = record
    return {
        "tenant_id": tenant_id,
        "token": _value_shown(token, display, whole),
        "beta": _value_shown(beta, beta_display, whole) if beta else None,
        "dialog_id": dialog_id,
        "source": source,
        "create_time": create_time,
        "create_date": http_date(create_time),
        "update_time": update_time,
        "update_date": http_date(update_time),
        "id": token_id,
        "name": name,
        "expires_at": rfc3339(expires_at),
        "last_used_at": rfc3339(last_used_at),
    }


def _value_shown(stored: str, display: str | None, whole: bool) -> str:
    """The value itself where that is stored and may be shown, else its display form."""
    if is_stored_form(stored):
        return display or "…"
    return stored if whole else display or display_form(stored)


def _delete(plane: Plane, actor: Principal, tenant_id: str, given: str) -> int:
    found = _find(plane, tenant_id, given)
    if found is None:
        return 0
    stored, token_id, display = found
    plane.database.run("DELETE FROM api_token WHERE tenant_id = ? AND token = ?", (tenant_id, stored))
    plane.database.run("DELETE FROM rk_token WHERE tenant_id = ? AND stored = ?", (tenant_id, stored))
    before = {"id": token_id, "tenant": tenant_id}
    audit.record(plane, EventTag.TOKEN_DELETE, actor, target=("token", display), before=before)
    return 1


def _find(plane: Plane, tenant_id: str, given: str) -> tuple[str, str | None, str] | None:
    """Stored form, id and display form of the tenant's token that has this value, else this id, else looks like this.

    Compared in exact characters, whatever the database's collation says.
    """
    forms = lookup_forms(given)
    rows = plane.database.all(
        "SELECT k.token, t.id, t.display FROM api_token k "
        "LEFT JOIN rk_token t ON t.stored = k.token AND t.tenant_id = k.tenant_id "
        "WHERE k.tenant_id = ? AND (k.token IN (?, ?) OR t.id = ? OR t.display = ? OR t.id IS NULL)",
        (tenant_id, forms[0], forms[-1], given, given),
    )
    tokens = [(stored, token_id, display or display_form(stored)) for stored, token_id, display in rows]
    for token in tokens:
        if token[0] in forms:
            return token
    for token in tokens:
        if token[1] == given:
            return token
    alike = [token for token in tokens if token[2] == given and not (token[1] is None and is_stored_form(token[0]))]
    if len(alike) > 1:
        raise AmbiguousToken(len(alike))
    return alike[0] if alike else None
