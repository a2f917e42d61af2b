"""API tokens: made, listed, deleted; by a tenant's owner, and by administrators for an account.

A row of ``api_token`` is what RAGFlow reads; ``rk_token`` beside it says who made it, when it ends and when it was used
last. A row that RAGFlow made has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.delegation import check_may_give
from common.core.errors import AmbiguousToken, BadField, NotSignedIn, NotYourTenant, TenantNotFound, TokenNotFound
from common.core.expiry import parse_expiry
from common.core.names import parse_token_name
from common.core.permissions import Standing
from common.core.scopes import UNSCOPED, Scope, check_may_make, parse_scopes, scope_of, stored_scope
from common.core.tokens import (
    SHOWN_AT_EACH_END,
    STORED_PREFIX,
    TOKEN_PREFIX,
    display_form,
    is_stored_form,
    lookup_forms,
    new_beta,
    new_token,
    stored_form,
)
from common.models.base import created, http_date, rfc3339
from common.models.token import ApiToken, ExpiryNotice, TokenRecord, TokenTrait
from common.services import accounts, audit, limits, memberships, proving, retired_tokens, tenant_limits, token_makers
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.services.principal import Principal, system
from common.services.retired_tokens import Retired

_ROW = "k.tenant_id, k.token, k.beta, k.dialog_id, k.source, k.create_time, k.update_time"
_RECORD = "t.id, t.user_id, t.display, t.beta_display, t.name, t.expires_at, t.last_used_at, t.created_at"
_TRAITS = "r.scopes, r.replaced_by, r.made_by"
_WITH_TRAITS = "LEFT JOIN rk_token_trait r ON r.token_id = t.id"
_BOTH = "FROM api_token k LEFT JOIN rk_token t ON t.stored = k.token AND t.tenant_id = k.tenant_id"
_LISTED = f"SELECT {_ROW}, {_RECORD}, {_TRAITS} {_BOTH} {_WITH_TRAITS} WHERE k.tenant_id = ?"
_ORDER = "COALESCE(t.created_at, k.create_time), t.id, k.token"
# The characters of a token that its display form shows at the front: as many may stand in a cursor.
_PREFIX_LENGTH = len(TOKEN_PREFIX) + SHOWN_AT_EACH_END
# A display form says how a token begins; of those that begin like that so many are looked at.
_LOOKALIKES = 100
# An id of a record, as ``uuid4().hex`` gives it.
_ID_LENGTH = 32
# The whole list is read by so many.
_PIECE = 500
_NO_RECORD = (None,) * 11
_GOOD = """
    SELECT 1 FROM api_token k JOIN user_tenant m ON m.tenant_id = k.tenant_id
    WHERE k.token = ? AND k.tenant_id = ? AND m.user_id = ? AND m.role = 'owner' AND m.status = '1'
"""
#: A token that has not been used for so long, or never since it was made, is shown as unused.
UNUSED_MS = 90 * 24 * 3600 * 1000


class Reach(NamedTuple):
    """Whose tokens: those whose record says so, and those without a record of one tenant, which RAGFlow made.

    ``column`` is of ``rk_token``: ``tenant_id`` for a tenant, ``user_id`` for what an account made in any tenant.
    """

    column: Literal["tenant_id", "user_id"]
    value: str
    tenant_id: str | None


class Wish(NamedTuple):
    """What a client may ask of a token that is made: a name, when it ends, and scopes, without which it has none.

    See ``common.core.expiry`` and ``common.core.scopes``.

    ``dialog_id`` and ``source`` ("agent", or None for a dialog) are those of RAGFlow's older, dialog-scoped keys.
    """

    name: str | None = None
    expires_at: str | int | None = None
    expires_in: int | None = None
    dialog_id: str | None = None
    source: str | None = None
    scopes: Sequence[str] | None = None


class Draft(NamedTuple):
    """A token that is about to be written, with everything about it settled."""

    tenant_id: str
    user_id: str
    name: str | None
    expires_at: int | None
    scope: Scope
    dialog_id: str | None = None
    source: str | None = None
    makers: tuple[str, ...] = ()


def create(plane: Plane, who: Principal, wish: Wish) -> dict[str, Any]:
    """Make a token for the tenant that the caller acts in and owns; the only answer that shows it whole.

    ``{tenant_id, token, beta, create_time, create_date, update_time, update_date, dialog_id, source, id, name,
    expires_at, last_used_at, scopes, replaced_by, made_by, unused}``. One made with a token ends no later than that and
    may do no more: without scopes of its own it has that one's. Raises TenantNotFound, NotYourTenant, BadField,
    LimitReached, GivesMoreThanHeld and ProofDue; NotSignedIn when the token that was shown is deleted meanwhile, or the
    session ended.
    """
    tenant_id = own_tenant(who)
    limits.token_creation(plane, who)
    with plane.database.transaction():
        memberships.lock(plane)
        memberships.require_role(plane, who, tenant_id, ("owner",))
        _check_dialog(plane, tenant_id, wish)
        return _make(plane, who, tenant_id, str(who.user_id), wish)


def create_for(plane: Plane, actor: Principal, email: str, wish: Wish) -> dict[str, Any]:
    """``create`` for an account and the home tenant that it owns, by an administrator.

    Into a scope goes only what the administrator holds: the account may come to hold more some day. Raises
    UserNotFound, TenantNotFound when it owns none, GivesMoreThanHeld, BadField,
    LimitReached, ProofDue.
    """
    limits.token_creation(plane, actor)
    with plane.database.transaction():
        memberships.lock(plane)
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        tenant_id = memberships.home_of(plane, account.id)
        if tenant_id is None:
            raise TenantNotFound(f"User '{account.email}' owns no tenant.")
        return _make(plane, actor, tenant_id, account.id, wish)


def own(plane: Plane, who: Principal) -> list[dict[str, Any]]:
    """Every token of the tenant that the caller acts in and owns, oldest first, and then those that RAGFlow made.

    In the form of ``create``.

    ``token`` and ``beta`` are display forms where tokens are hashed, of those that act for a fellow owner, and for a
    caller whose own token may do less than the account or was made by somebody else. Raises TenantNotFound,
    NotYourTenant.
    """
    return _listing(plane, own_tenant(who), whose=_shown_whole(plane, who))


def own_page(plane: Plane, who: Principal, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """``own``, a page at a time: ``{tokens, next_cursor}``."""
    return _page(plane, of_tenant(own_tenant(who)), limit, cursor, whose=_shown_whole(plane, who))


def own_of_dialog(plane: Plane, who: Principal, dialog_id: str) -> list[dict[str, Any]]:
    """``own``, but only those that were made for one dialog or agent."""
    return _listing(plane, own_tenant(who), whose=_shown_whole(plane, who), dialog_id=dialog_id)


def of_user(plane: Plane, actor: Principal, email: str) -> list[dict[str, Any]]:
    """Every token that an account made, in whatever tenant of its own, and those that RAGFlow made in its home tenant.

    Each token is its account's, also where several own the tenant. Where tokens are stored in the clear they are shown
    whole only to that account. Raises UserNotFound.
    """
    account = accounts.get(plane, email)
    reach, whose = of_account(plane, account), _shown_whole(plane, actor)
    listed: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = _page(plane, reach, _PIECE, cursor, whose=whose)
        listed += page["tokens"]
        cursor = page["next_cursor"]
        if cursor is None:
            return listed


def page_of_user(
    plane: Plane, actor: Principal, email: str, *, limit: int = 50, cursor: str | None = None
) -> dict[str, Any]:
    """``of_user``, a page at a time: ``{tokens, next_cursor}``."""
    account = accounts.get(plane, email)
    return _page(plane, of_account(plane, account), limit, cursor, whose=_shown_whole(plane, actor))


def delete(plane: Plane, who: Principal, given: Sequence[str], *, tenant_id: str | None = None) -> int:
    """Delete tokens of the caller's tenant (or of ``tenant_id``) by value, id or display form; returns how many.

    What matches nothing is passed over. Raises TenantNotFound, NotYourTenant unless the caller owns the tenant, and
    AmbiguousToken, in which case none is deleted.
    """
    tenant_id = tenant_id or own_tenant(who)
    with plane.database.transaction():
        # Or one that RAGFlow made, of which there is no row to hold, makes another one meanwhile.
        memberships.lock(plane)
        memberships.require_role(plane, who, tenant_id, ("owner",))
        return sum(_delete(plane, who, of_tenant(tenant_id), one) for one in given)


def delete_of_user(plane: Plane, actor: Principal, email: str, given: str) -> None:
    """Delete a token of those in ``of_user`` by value, id or display form.

    Raises UserNotFound, TokenNotFound, AmbiguousToken, GivesMoreThanHeld.
    """
    with plane.database.transaction():
        # As in ``delete``.
        memberships.lock(plane)
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        if not _delete(plane, actor, of_account(plane, account), given):
            raise TokenNotFound


def retire_expired(plane: Plane, *, limit: int = 500) -> int:
    """Delete tokens whose time is over, for a RAGFlow in the same database knows of no end; how many went."""
    rows = plane.database.all(
        "SELECT id, tenant_id, stored, display, user_id FROM rk_token "
        "WHERE expires_at <= ? ORDER BY expires_at, id LIMIT ?",
        (plane.now_ms(), limit),
    )
    retired = 0
    for token_id, tenant_id, stored, display, user_id in rows:
        with plane.database.transaction():
            plane.database.run("DELETE FROM api_token WHERE tenant_id = ? AND token = ?", (tenant_id, stored))
            if not plane.database.run("DELETE FROM rk_token WHERE id = ?", (token_id,)):
                # Somebody has deleted it meanwhile, and said so.
                continue
            retired += 1
            gone = Retired(stored, token_id, tenant_id, user_id, "expired")
            retired_tokens.keep(plane.database, plane.now_ms(), [gone])
            before = {"id": token_id, "tenant": tenant_id, "expired": True}
            audit.record(plane, EventTag.TOKEN_DELETE, system("expiry"), target=("token", display), before=before)
    return retired


def count_unused(plane: Plane) -> int:
    """How many tokens have not been used for UNUSED_MS."""
    row = plane.database.one(
        "SELECT COUNT(*) FROM rk_token WHERE COALESCE(last_used_at, created_at) <= ?", (plane.now_ms() - UNUSED_MS,)
    )
    return row[0] if row else 0


def prune_traits(plane: Plane, after: str = "", *, limit: int = 1000) -> tuple[int, str | None]:
    """Delete the traits of tokens that are gone; see ``prune_gone``."""
    return prune_gone(plane, TokenTrait, after, limit)


def prune_gone(plane: Plane, model: type[TokenTrait | ExpiryNotice], after: str, limit: int) -> tuple[int, str | None]:
    """Look at up to ``limit`` rows beyond the token id ``after``, and delete those whose token is gone.

    Returns how many went, and the id to go on after, None at the end.
    """
    table = model._meta.table_name
    rows = plane.database.all(
        f"SELECT r.token_id, t.id FROM {table} r LEFT JOIN rk_token t ON t.id = r.token_id "
        "WHERE r.token_id > ? ORDER BY r.token_id LIMIT ?",
        (after, limit),
    )
    gone = {token_id for token_id, found in rows if found is None}
    deleted: int = plane.database.execute(model.delete().where(model.token_id.in_(gone))) if gone else 0
    return deleted, rows[-1][0] if len(rows) == limit else None


def own_tenant(who: Principal) -> str:
    """The tenant that the caller acts in and owns. Raises TenantNotFound, NotYourTenant."""
    if who.tenant_id is None:
        raise TenantNotFound
    if who.tenant_role != "owner":
        raise NotYourTenant
    return who.tenant_id


def of_tenant(tenant_id: str) -> Reach:
    """The tokens of a tenant."""
    return Reach("tenant_id", tenant_id, tenant_id)


def of_account(plane: Plane, account: AccountRow) -> Reach:
    """The tokens of an account."""
    # RAGFlow takes what it made in a tenant for the account whose home that is.
    return Reach("user_id", account.id, memberships.home_of(plane, account.id))


def _shown_whole(plane: Plane, who: Principal) -> str | None:
    """The account that sees whole in lists what acts for it, if any: who sees a token can act by it.

    None with a token that may do less than its account, or that somebody else made, who would have others by it.
    """
    return who.user_id if plane.plain_tokens and not who.is_limited and not who.makers else None


def standing_of(plane: Plane, token_id: str) -> Standing | None:
    """What whoever shows a token with scopes amounts to now; None where it is dead."""
    row = plane.database.one(
        "SELECT t.user_id, t.tenant_id, t.stored, t.expires_at, r.scopes, r.made_by "
        f"FROM rk_token t {_WITH_TRAITS} WHERE t.id = ?",
        (token_id,),
    )
    if row is None:
        return None
    user_id, tenant_id, stored, expires_at, scopes, made_by = row
    account = accounts.by_id(plane, user_id)
    if account is None or not account.may_sign_in or not scopes:
        return None
    if expires_at is not None and expires_at <= plane.now_ms():
        return None
    # RAGFlow may have deleted it, and the account may have given the tenant away.
    if plane.database.one(_GOOD, (stored, tenant_id, user_id)) is None:
        return None
    standing = accounts.standing_of(plane, account)
    makers = token_makers.makers_of(made_by)
    if token_makers.are_outranked(plane, accounts.role_graph(plane), makers, standing):
        return None
    return scope_of(scopes).narrowed(standing)


def end_of_credential(plane: Plane, who: Principal) -> int | None:
    """When the token that the caller has shown ends; None for a session, or one without an end.

    Raises NotSignedIn for a credential that was ended meanwhile: what is made with it would outlive it. Who ends it
    later waits for the running transaction, and sees then what was made.
    """
    if who.session_id is not None:
        _keep_session(plane, who.session_id)
    token_id = who.token_id
    if token_id is None:
        return None
    plane.database.hold("rk_token", token_id)
    row = plane.database.one("SELECT expires_at FROM rk_token WHERE id = ?", (token_id,))
    if row is None and (len(token_id) == _ID_LENGTH or not _is_there(plane, str(who.tenant_id), token_id)):
        raise NotSignedIn("Unauthorized")
    return row[0] if row else None


def _is_there(plane: Plane, tenant_id: str, ending: str) -> bool:
    """Whether there is a token that RAGFlow made: it has no record, and is called by its last letters."""
    rows = plane.database.all("SELECT token FROM api_token WHERE tenant_id = ?", (tenant_id,))
    return any(token.endswith(ending) for (token,) in rows)


def _keep_session(plane: Plane, session_id: str) -> None:
    plane.database.hold("rk_session", session_id)
    if plane.database.one("SELECT 1 FROM rk_session WHERE id = ? AND ended_at IS NULL", (session_id,)) is None:
        raise NotSignedIn("Unauthorized")


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


def _make(plane: Plane, actor: Principal, tenant_id: str, user_id: str, wish: Wish) -> dict[str, Any]:
    asked = parse_expiry(wish.expires_at, wish.expires_in, plane.now_ms())
    draft = Draft(
        tenant_id,
        user_id,
        name=parse_token_name(wish.name) if wish.name and wish.name.strip() else None,
        expires_at=earlier(asked, end_of_credential(plane, actor)),
        scope=_scope_for(plane, actor, user_id, wish.scopes),
        dialog_id=wish.dialog_id,
        source=wish.source,
        makers=token_makers.of_new(actor, user_id),
    )
    tenant_limits.make_sure_of_room(plane, tenant_id, "tokens")
    made = write(plane, draft)
    audit.record(
        plane,
        EventTag.TOKEN_CREATE,
        actor,
        target=("token", display_form(made["token"])),
        after={"id": made["id"], "name": draft.name, "tenant": tenant_id, **_limits_of(draft)},
    )
    return made


def _limits_of(draft: Draft) -> dict[str, Any]:
    scopes = {"scopes": list(draft.scope.names)} if draft.scope.names else {}
    return {"expires_at": rfc3339(draft.expires_at), **scopes}


def earlier(one: int | None, other: int | None) -> int | None:
    """The earlier of two ends, each of which may be none."""
    ends = [end for end in (one, other) if end is not None]
    return min(ends) if ends else None


def _scope_for(plane: Plane, actor: Principal, user_id: str, asked: Sequence[str] | None) -> Scope:
    if asked is None:
        scope = actor.scope if actor.scope is not None and actor.is_limited else UNSCOPED
    else:
        scope = parse_scopes(asked, plane.roles.registry.permission)
    check_may_hand_out(plane, actor, user_id, scope)
    return scope


def check_may_hand_out(plane: Plane, actor: Principal, user_id: str, scope: Scope) -> None:
    """Raises GivesMoreThanHeld if a new token of an account may do, or come to do, more than the actor may give.

    Whoever makes a token sees it, and its account may be given more some day. One that opens the admin server takes
    a session whose password was given a moment ago; else raises ProofDue.
    """
    check_may_make(actor.scope, scope)
    if scope.names and actor.user_id != user_id:
        check_may_give(actor.standing, Standing(scope.permissions or frozenset(), scope.permissions is None))
    if scope.opens_admin:
        proving.require_recent_proof(plane, actor)


def write(plane: Plane, draft: Draft) -> dict[str, Any]:
    """Write a token into the running transaction; the only thing that shows it whole, in the form of ``create``.

    A RAGFlow knows no scopes. So one that has some is stored in a form that nobody can show a RAGFlow, and has no beta.
    """
    now = plane.now_ms()
    scoped = bool(draft.scope.names)
    token, beta, token_id = new_token(scoped=scoped), None if scoped else new_beta(), uuid4().hex
    stored = token if plane.plain_tokens and not scoped else stored_form(token)
    plane.database.insert(
        ApiToken,
        tenant_id=draft.tenant_id,
        token=stored,
        beta=beta if plane.plain_tokens or beta is None else stored_form(beta),
        dialog_id=draft.dialog_id,
        source=draft.source,
        **created(now, plane.zone),
    )
    plane.database.insert(
        TokenRecord,
        id=token_id,
        stored=stored,
        tenant_id=draft.tenant_id,
        user_id=draft.user_id,
        display=display_form(token),
        beta_display="" if beta is None else display_form(beta),
        name=draft.name,
        created_at=now,
        expires_at=draft.expires_at,
    )
    if scoped or draft.makers:
        scopes, made_by = stored_scope(draft.scope) if scoped else None, token_makers.stored(draft.makers)
        plane.database.insert(TokenTrait, token_id=token_id, scopes=scopes, made_by=made_by)
    return {
        "tenant_id": draft.tenant_id,
        "token": token,
        "beta": beta,
        "dialog_id": draft.dialog_id,
        "source": draft.source,
        "create_time": now,
        "create_date": http_date(now),
        "update_time": None,
        "update_date": None,
        "id": token_id,
        "name": draft.name,
        "expires_at": rfc3339(draft.expires_at),
        "last_used_at": None,
        "scopes": list(draft.scope.names) or None,
        "replaced_by": None,
        "made_by": list(draft.makers) or None,
        "unused": False,
    }


def _listing(plane: Plane, tenant_id: str, *, whose: str | None, dialog_id: str | None = None) -> list[dict[str, Any]]:
    condition, params = (" AND k.dialog_id = ?", (dialog_id,)) if dialog_id is not None else ("", ())
    rows = plane.database.all(f"{_LISTED}{condition} ORDER BY t.id IS NULL, {_ORDER}", (tenant_id, *params))
    unused_since = plane.now_ms() - UNUSED_MS
    return [_shown(row, whose, unused_since) for row in rows]


def _page(plane: Plane, reach: Reach, limit: int, cursor: str | None, *, whose: str | None) -> dict[str, Any]:
    """Tokens with a record come oldest first, then those without, by value; both are read off an index.

    A cursor is a record's moment and id; or, since a token itself must not stand in it, how a token begins, and how
    many of those that begin like that or later have been shown.
    """
    since, mark, skipped = decode_cursor(cursor, (int, str, int)) if cursor is not None else (0, "", 0)
    if not 0 <= skipped < 2**31:
        raise BadField("cursor: not a cursor of this list.", field="cursor")
    unused_since = plane.now_ms() - UNUSED_MS
    rows: list[tuple[Any, ...]] = []
    if since >= 0:
        rows, next_cursor = _recorded(plane, reach, limit, since, mark)
        if next_cursor is not None:
            return {"tokens": [_shown(row, whose, unused_since) for row in rows], "next_cursor": next_cursor}
        mark, skipped = "", 0
    others, next_cursor = _unrecorded(plane, reach, limit - len(rows), mark, skipped)
    return {"tokens": [_shown(row, whose, unused_since) for row in (*rows, *others)], "next_cursor": next_cursor}


def _recorded(
    plane: Plane, reach: Reach, limit: int, since: int, last_id: str
) -> tuple[list[tuple[Any, ...]], str | None]:
    records = plane.database.all(
        f"SELECT t.tenant_id, t.stored, t.created_at, {_RECORD}, {_TRAITS} FROM rk_token t {_WITH_TRAITS} "
        f"WHERE t.{reach.column} = ? AND t.created_at >= ? AND (t.created_at > ? OR t.id > ?) "
        "ORDER BY t.created_at, t.id LIMIT ?",
        (reach.value, since, since, last_id, limit + 1),
    )
    shown = records[:limit]
    if not shown:
        return [], None
    # With values, and not joined: on MySQL no index of RAGFlow's finds a column of ours, which knows upper case.
    marks = ", ".join("?" * len(shown))
    rows = plane.database.all(f"SELECT {_ROW} FROM api_token k WHERE k.token IN ({marks})", [row[1] for row in shown])
    by_key = {(row[0], row[1]): row for row in rows}
    listed = [(*by_key[row[:2]], *row[3:]) for row in shown if row[:2] in by_key]
    return listed, encode_cursor([shown[-1][2], shown[-1][3], 0]) if len(records) > limit else None


def _unrecorded(
    plane: Plane, reach: Reach, limit: int, prefix: str, skipped: int
) -> tuple[list[tuple[Any, ...]], str | None]:
    those = f"{_BOTH} WHERE k.tenant_id = ? AND t.id IS NULL AND k.token >= ?"
    # Where tokens are hashed, all that have no record stand before all that have one.
    until, params = ("", ()) if plane.plain_tokens else ("AND k.token < ?", (STORED_PREFIX,))
    rows = plane.database.all(
        f"SELECT {_ROW} {those} {until} ORDER BY k.token LIMIT ? OFFSET ?",
        (reach.tenant_id, prefix, *params, limit + 1, skipped),
    )
    shown = [(*row, *_NO_RECORD) for row in rows[:limit]]
    if len(rows) <= limit:
        return shown, None
    if not shown:
        return [], encode_cursor([-1, prefix, skipped])
    last = shown[-1][1]
    begin = last[:_PREFIX_LENGTH]
    counted = plane.database.one(f"SELECT COUNT(*) {those} AND k.token <= ?", (reach.tenant_id, begin, last))
    return shown, encode_cursor([-1, begin, counted[0] if counted else 0])


def _shown(row: tuple[Any, ...], whose: str | None, unused_since: int) -> dict[str, Any]:
    """A row as lists show it; ``whose`` is the account whose tokens are shown whole where they are stored so."""
    tenant_id, token, beta, dialog_id, source, create_time, update_time, *record = row
    token_id, user_id, display, beta_display, name, expires_at, last_used_at, created_at, *traits = record
    scopes, replaced_by, made_by = traits
    # RAGFlow takes what it made for a token of the account whose home the tenant is.
    whole = whose is not None and whose == (user_id or tenant_id)
    used_at = last_used_at or created_at
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
        "scopes": list(scope_of(scopes).names) if scopes else None,
        "replaced_by": replaced_by,
        "made_by": list(token_makers.makers_of(made_by)) or None,
        # Nobody notes the use of what RAGFlow made.
        "unused": None if used_at is None else used_at <= unused_since,
    }


def _value_shown(stored: str, display: str | None, whole: bool) -> str:
    """The value itself where that is stored and may be shown, else its display form."""
    if is_stored_form(stored):
        return display or "…"
    return stored if whole else display or display_form(stored)


def _delete(plane: Plane, actor: Principal, reach: Reach, given: str) -> int:
    found = find(plane, reach, given)
    if found is None:
        return 0
    tenant_id, stored, token_id, display = found
    if not plane.database.run("DELETE FROM api_token WHERE tenant_id = ? AND token = ?", (tenant_id, stored)):
        return 0
    record = plane.database.one("SELECT user_id FROM rk_token WHERE tenant_id = ? AND stored = ?", (tenant_id, stored))
    plane.database.run("DELETE FROM rk_token WHERE tenant_id = ? AND stored = ?", (tenant_id, stored))
    # What RAGFlow made acts for the account whose home the tenant is.
    user_id = record[0] if record else tenant_id
    gone = Retired(stored, token_id or stored[-8:], tenant_id, user_id, "deleted")
    retired_tokens.keep(plane.database, plane.now_ms(), [gone])
    before = {"id": token_id, "tenant": tenant_id}
    audit.record(plane, EventTag.TOKEN_DELETE, actor, target=("token", display), before=before)
    return 1


class Found(NamedTuple):
    """A token that somebody named; ``token_id`` is None for one that RAGFlow made."""

    tenant_id: str
    stored: str
    token_id: str | None
    display: str


def find(plane: Plane, reach: Reach, given: str) -> Found | None:
    """The token in reach that has this value, else this id, else looks like this. Raises AmbiguousToken.

    Compared in exact characters, whatever the database's collation says.
    """
    forms = lookup_forms(given)
    by_value = plane.database.all(
        f"SELECT k.tenant_id, k.token, t.id, t.display, t.{reach.column} {_BOTH} WHERE k.token IN (?, ?)",
        (forms[0], forms[-1]),
    )
    for tenant_id, stored, token_id, display, whose in by_value:
        mine = whose == reach.value if token_id is not None else tenant_id == reach.tenant_id
        if stored in forms and mine:
            return Found(tenant_id, stored, token_id, display or display_form(stored))
    by_id = _records(plane, reach, "id", given)
    if by_id:
        return by_id[0]
    alike = [*_records(plane, reach, "display", given), *_unrecorded_lookalikes(plane, reach, given)]
    if len(alike) > 1:
        raise AmbiguousToken(len(alike))
    return alike[0] if alike else None


def _records(plane: Plane, reach: Reach, column: Literal["id", "display"], given: str) -> list[Found]:
    rows = plane.database.all(
        f"SELECT t.tenant_id, t.stored, t.id, t.display FROM rk_token t WHERE t.{reach.column} = ? AND t.{column} = ?",
        (reach.value, given),
    )
    return [found for found in map(Found._make, rows) if given in (found.token_id, found.display)]


def _unrecorded_lookalikes(plane: Plane, reach: Reach, given: str) -> list[Found]:
    begin, shortened, _ = given.partition("…")
    if not shortened or not begin.startswith(TOKEN_PREFIX) or reach.tenant_id is None:
        return []
    rows = plane.database.all(
        f"SELECT k.token {_BOTH} WHERE k.tenant_id = ? AND t.id IS NULL AND k.token >= ? ORDER BY k.token LIMIT ?",
        (reach.tenant_id, begin, _LOOKALIKES),
    )
    return [Found(reach.tenant_id, token, None, given) for (token,) in rows if display_form(token) == given]
