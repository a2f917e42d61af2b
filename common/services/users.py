"""What administrators do with accounts: list, look at, create, switch on and off, reset, empower."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from common.core.audit_tags import EventTag
from common.core.cursors import decode_cursor, encode_cursor
from common.core.delegation import check_may_give
from common.core.emails import email_key, parse_email
from common.core.errors import (
    BadField,
    Forbidden,
    NotOnYourself,
    PasswordChangeDue,
    ProofDue,
    StoreUnavailable,
    UserNotFound,
    WrongCurrentPassword,
)
from common.core.permissions import ALL_PERMISSIONS, SUPERUSER, RoleGraph, Standing, registered
from common.models.account import Account
from common.models.base import http_date
from common.services import (
    accounts,
    audit,
    claims,
    default_role,
    invitations,
    limits,
    memberships,
    passwords,
    proving,
    sessions,
)
from common.services.accounts import AccountRow
from common.services.plane import Plane, RolesMoved
from common.services.principal import Principal

log = logging.getLogger(__name__)

#: What it takes to set somebody else's password.
SETTING_PASSWORDS = registered("user", "write")

Sort = Literal["email", "-email", "create_time", "-create_time", "nickname", "-nickname"]

_OLDEST_ROLE = "(SELECT h.role_id FROM rk_user_role h WHERE h.user_id = u.id ORDER BY h.granted_at, h.role_id LIMIT 1)"
_LISTED = f"u.email, u.nickname, u.create_time, u.is_active, u.is_superuser, {_OLDEST_ROLE}"
_DETAILS = f"""
    SELECT u.avatar, u.email, u.language, a.last_login_at, u.is_active, u.is_anonymous, u.login_channel, u.status,
        u.is_superuser, u.create_time, u.update_time, u.nickname,
        (SELECT GROUP_CONCAT(h.role_id) FROM rk_user_role h WHERE h.user_id = u.id), {_OLDEST_ROLE},
        (SELECT value FROM rk_state WHERE name = 'role_version')
    FROM rk_account a JOIN user u ON u.id = a.user_id WHERE a.email_key = ?
"""
# A row without a status is there, though nobody signs in with it.
_EXISTS = "COALESCE(u.status, '1') <> '0'"
_SORT_COLUMNS = {"email": "a.email_key", "create_time": "a.created_at", "nickname": "a.nickname_key"}
# Accounts read at once for the whole list.
_PIECE = 500
# Above every character that a prefix can continue with.
_LAST_CHARACTER = "\U0010ffff"


def get_all_users(plane: Plane) -> Iterator[dict[str, Any]]:
    """Every account, ordered by e-mail, as RAGFlow lists them:
    ``{email, nickname, create_date, is_active, is_superuser, role}``.

    They are read in pieces while the caller takes them, so the list is never in memory as a whole.
    """
    rows = _piece_of_all(plane, "", "")
    while rows:
        yield from _listed(plane, [row[:-1] for row in rows])
        rows = _piece_of_all(plane, rows[-1][0], rows[-1][-1]) if len(rows) == _PIECE else []


def _piece_of_all(plane: Plane, after: str, last_id: str) -> list[tuple[Any, ...]]:
    return plane.database.all(
        f"SELECT {_LISTED}, u.id FROM user u WHERE {_EXISTS} AND u.email >= ? AND (u.email > ? OR u.id > ?) "
        "ORDER BY u.email, u.id LIMIT ?",
        (after, after, last_id, _PIECE),
    )


def page_of_users(
    plane: Plane, *, limit: int = 50, cursor: str | None = None, q: str | None = None, sort: Sort = "email"
) -> dict[str, Any]:
    """A page of accounts: ``{users, next_cursor}``; ``next_cursor`` is None on the last page.

    ``q`` keeps those whose e-mail or nickname starts with it, without regard to case: matches by e-mail first, then
    the further ones by nickname, so that each page is read off an index. Raises BadField for a cursor that is not
    one of this list, and for ``q`` with a sort other than by e-mail.
    """
    if plane.shared and cursor is None:
        _see_newcomers(plane)
    if not q:
        rows, next_cursor = _page(plane, sort, limit, cursor, "", ())
    elif sort != "email":
        raise BadField("sort: with q the order is fixed: matches by e-mail, then by nickname.", field="sort")
    else:
        rows, next_cursor = _search(plane, q, limit, cursor)
    return {"users": _listed(plane, rows), "next_cursor": next_cursor}


def _see_newcomers(plane: Plane) -> None:
    """Have accounts in the list that RAGFlow made a moment ago."""
    try:
        claims.follow(plane.database, plane.now_ms(), overlap_ms=0, pages=1)
    except StoreUnavailable as error:
        log.warning("the list may lack accounts that RAGFlow has just made: %s", error.reason)


def get_user_details(plane: Plane, email: str) -> dict[str, Any]:
    """One account as RAGFlow's admin API shows it, with ``role``, ``roles`` and ``nickname`` beside.

    Raises UserNotFound.
    """
    key = email_key(email)
    row = plane.database.one(_DETAILS, (key,))
    if row is None or row[7] == "0" or email_key(row[1]) != key:
        # RAGFlow may have made the row since the migration: looking for the account claims its e-mail.
        accounts.get(plane, email)
        row = plane.database.one(_DETAILS, (key,))
        if row is None:
            raise UserNotFound(email)
    try:
        graph = plane.roles.graph(plane.database, row[14] or 0)
    except RolesMoved:
        return get_user_details(plane, email)
    held = row[12].split(",") if row[12] else []
    names = [graph.name_of(role_id) for role_id in graph.account_roles(held, bool(row[8]))]
    return {
        "avatar": row[0],
        "email": row[1],
        "language": row[2],
        "last_login_time": http_date(row[3]),
        "is_active": row[4],
        "is_anonymous": row[5],
        "login_channel": row[6],
        "status": row[7],
        "is_superuser": bool(row[8]),
        "create_date": http_date(row[9]),
        "update_date": http_date(row[10]),
        "nickname": row[11],
        "role": shown_role(graph, row[13], bool(row[8])),
        "roles": names,
    }


def create_user(
    plane: Plane,
    actor: Principal,
    *,
    email: str,
    password: str,
    nickname: str = "",
    is_superuser: bool = False,
) -> dict[str, Any]:
    """Create an account with tenant, membership and root folder; returns ``{id, email, nickname, login_channel,
    is_superuser}``.

    ``password`` is as it came over the wire. The account gets the default role. Raises BadField, UserExists, and
    GivesMoreThanHeld when a superuser is to be made by someone who is none, or that role is more than the actor holds.
    """
    if is_superuser:
        check_may_give(actor.standing, Standing(ALL_PERMISSIONS, True))
    address = parse_email(email, field="username")
    administers = is_superuser or default_role.administers(plane)
    owner = passwords.new_owner(address, nickname, administers=administers)
    password_hash = passwords.new_hash(plane, password, owner)
    with plane.database.transaction():
        has_default = default_role.lock(plane)
        memberships.lock(plane)
        actor = accounts.acting_now(plane, actor)
        if is_superuser:
            check_may_give(actor.standing, Standing(ALL_PERMISSIONS, True))
        account = accounts.make(
            plane, email=address, nickname=nickname, password_hash=password_hash, is_superuser=is_superuser
        )
        role = None if is_superuser else default_role.give(plane, actor, account, has_default=has_default)
        invitations.claim(plane, account.id, account.email)
        audit.record(
            plane,
            EventTag.USER_CREATE,
            actor,
            target=account.target,
            after={"nickname": nickname, "is_superuser": is_superuser, **({"role": role} if role else {})},
        )
    return {
        "id": account.id,
        "email": account.email,
        "nickname": account.nickname,
        "login_channel": "password",
        "is_superuser": is_superuser,
    }


def update_user_password(
    plane: Plane, actor: Principal, email: str, password: str, *, current: str | None = None
) -> bool:
    """Set an account's password and end its sessions (one's own: all but the one in use).

    For one's own the ``current`` one is needed, or a session that began with it a moment ago; for somebody else's
    SETTING_PASSWORDS. That must be changed at the next login where the setting ``password.must_change_after_reset``
    says so. Returns False when it was that password already, in which case the sessions end all the same. Raises
    UserNotFound, BadField, GivesMoreThanHeld, PermissionMissing, and for one's own Forbidden, WrongCurrentPassword and
    ProofDue.
    """
    account = accounts.get(plane, email)
    is_own = actor.user_id == account.id
    _require_setting(actor, is_own)
    accounts.refuse_to_act_on_superiors(plane, actor, account)
    if is_own:
        _require_current_password(plane, actor, account, current)
    new_hash = passwords.new_hash(plane, password, passwords.owner_of(plane, account), field="new_password")
    unchanged = passwords.matches(plane, account.password, password)
    if unchanged and is_own and actor.must_change:
        raise BadField("new_password: choose another one than the current password.", field="new_password")
    must_change = not is_own and plane.variables.flag("password.must_change_after_reset")
    with plane.database.transaction():
        looked_at = account.password
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        _require_setting(actor, is_own)
        if is_own and account.password != looked_at:
            # Somebody else has set it while hashes were computed: what was proven, was proven with the one before.
            raise WrongCurrentPassword if current is not None else ProofDue
        unchanged = unchanged and account.password == looked_at
        if not unchanged:
            accounts.change(plane, account.id, password=new_hash)
        plane.database.execute(Account.update(must_change=must_change).where(Account.user_id == account.id))
        keep = actor.session_id if is_own else None
        sessions.end_sessions(plane, account.id, "password", keep=keep)
        audit.record(plane, EventTag.USER_PASSWORD, actor, target=account.target)
        if not is_own:
            limits.forget_failures(plane, account.email)
    return not unchanged


def _require_setting(actor: Principal, is_own: bool) -> None:
    """Raises PermissionMissing. The route lets people in without the permission, for their own."""
    if not is_own:
        actor.require(*SETTING_PASSWORDS)


def _require_current_password(plane: Plane, actor: Principal, account: AccountRow, current: str | None) -> None:
    """Raises Forbidden for a token, WrongCurrentPassword, and ProofDue without one in an older session.

    RAGFlow's clients, which log in for each change, send no current password.
    """
    if actor.session_id is None:
        raise Forbidden("A token can't change the password; log in first.")
    if current is not None:
        proving.require_current_password(plane, actor, account, current)
        return
    proving.require_recent_proof(plane, actor)


def update_user_activate_status(plane: Plane, actor: Principal, email: str, *, active: bool) -> bool:
    """Switch an account on or off; returns whether that changed anything.

    Switching off ends every session; tokens rest until it is on again. Raises UserNotFound, NotOnYourself,
    LastSuperuser, GivesMoreThanHeld.
    """
    with plane.database.transaction():
        plane.database.lock("superusers")
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        if actor.user_id == account.id and not active:
            raise NotOnYourself("You can't switch off your own account.")
        if not active and account.is_active:
            accounts.keep_a_superuser(plane, account)
        if account.is_active == active:
            return False
        accounts.change(plane, account.id, is_active="1" if active else "0")
        if not active:
            sessions.end_sessions(plane, account.id, "deactivated")
        tag = EventTag.USER_ACTIVATE if active else EventTag.USER_DEACTIVATE
        before, after = {"is_active": account.is_active}, {"is_active": active}
        audit.record(plane, tag, actor, target=account.target, before=before, after=after)
    return True


def update_user_superuser(plane: Plane, actor: Principal, email: str, *, superuser: bool) -> bool:
    """Make an account superuser, or an ordinary one; returns whether that changed anything.

    Raises UserNotFound, NotOnYourself, LastSuperuser, GivesMoreThanHeld unless the actor is a superuser.
    """
    check_may_give(actor.standing, Standing(ALL_PERMISSIONS, True))
    with plane.database.transaction():
        plane.database.lock("superusers")
        account, actor = accounts.hold_to_act_on(plane, actor, email)
        check_may_give(actor.standing, Standing(ALL_PERMISSIONS, True))
        if actor.user_id == account.id:
            raise NotOnYourself("You can't change this of your own account.")
        if account.is_superuser == superuser:
            return False
        set_superuser(plane, actor, account, superuser)
    return True


def set_superuser(plane: Plane, actor: Principal, account: AccountRow, superuser: bool) -> None:
    """Write the flag into the running transaction. Raises LastSuperuser."""
    if not superuser:
        accounts.keep_a_superuser(plane, account)
    accounts.change(plane, account.id, is_superuser=superuser)
    tag = EventTag.USER_SUPERUSER_GRANT if superuser else EventTag.USER_SUPERUSER_REVOKE
    before, after = {"is_superuser": account.is_superuser}, {"is_superuser": superuser}
    audit.record(plane, tag, actor, target=account.target, before=before, after=after)


def get_user_datasets(plane: Plane, email: str) -> list[dict[str, Any]]:
    """The datasets an account sees: those of its own tenants, and team datasets of tenants it has joined.

    Items: ``{name, avatar, language, permission, doc_num, token_num, chunk_num, status, create_date, update_date}``.
    Raises UserNotFound.
    """
    account = accounts.get(plane, email)
    rows = plane.database.all(
        "SELECT k.name, k.avatar, k.language, k.permission, k.doc_num, k.token_num, k.chunk_num, k.status, "
        "k.create_time, k.update_time FROM knowledgebase k WHERE k.status = '1' AND EXISTS ("
        " SELECT 1 FROM user_tenant m WHERE m.tenant_id = k.tenant_id AND m.user_id = ? AND m.status = '1'"
        " AND (m.role = 'owner' OR (m.role = 'normal' AND k.permission = 'team'))) ORDER BY k.create_time, k.id",
        (account.id,),
    )
    columns = ("name", "avatar", "language", "permission", "doc_num", "token_num", "chunk_num", "status")
    return [
        {
            **dict(zip(columns, row, strict=False)),
            "create_date": http_date(row[8]),
            "update_date": http_date(row[9]),
        }
        for row in rows
    ]


def get_user_agents(plane: Plane, email: str) -> list[dict[str, Any]]:
    """The agents an account sees, by the rule of ``get_user_datasets``.

    Items: ``{title, permission, canvas_category, avatar}``. Raises UserNotFound.
    """
    account = accounts.get(plane, email)
    rows = plane.database.all(
        "SELECT c.title, c.permission, c.canvas_category, c.avatar FROM user_canvas c WHERE EXISTS ("
        " SELECT 1 FROM user_tenant m WHERE m.tenant_id = c.user_id AND m.user_id = ? AND m.status = '1'"
        " AND (m.role = 'owner' OR (m.role = 'normal' AND c.permission = 'team'))) ORDER BY c.create_time, c.id",
        (account.id,),
    )
    return [
        {
            "title": title,
            "permission": permission,
            "canvas_category": (category or "").split("_")[0],
            "avatar": avatar,
        }
        for title, permission, category, avatar in rows
    ]


def _listed(plane: Plane, rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    graph = accounts.role_graph(plane)
    return [
        {
            "email": email,
            "nickname": nickname,
            "create_date": http_date(create_time),
            "is_active": is_active,
            "is_superuser": bool(is_superuser),
            "role": shown_role(graph, role_id, bool(is_superuser)),
        }
        for email, nickname, create_time, is_active, is_superuser, role_id in rows
    ]


def shown_role(graph: RoleGraph, role_id: str | None, is_superuser: bool) -> str:
    """The one role that RAGFlow's clients have room for."""
    if is_superuser:
        return SUPERUSER
    return graph.name_of(graph.account_roles([role_id] if role_id else [], False)[0])


def _page(
    plane: Plane, order: str, limit: int, cursor: str | None, where: str, params: tuple[Any, ...]
) -> tuple[list[tuple[Any, ...]], str | None]:
    """One page by keyset: the column's value and the id of the last row are where the next page goes on."""
    column, descending = _SORT_COLUMNS[order.lstrip("-")], order.startswith("-")
    after, direction = ("<", "DESC") if descending else (">", "ASC")
    keyset: str = ""
    keys: tuple[Any, ...] = ()
    if cursor is not None:
        key, user_id = _read_cursor(cursor, order)
        keyset = f" AND {column} {after}= ? AND ({column} {after} ? OR a.user_id {after} ?)"
        keys = (key, key, user_id)
    # E-mails are unique; MariaDB sorts the whole table for one that is told to order equal ones too.
    then = "" if column == _SORT_COLUMNS["email"] else f", a.user_id {direction}"
    rows = plane.database.all(
        f"SELECT {_LISTED}, {column}, a.user_id FROM rk_account a JOIN user u ON u.id = a.user_id "
        f"WHERE {_EXISTS}{where}{keyset} ORDER BY {column} {direction}{then} LIMIT ?",
        (*params, *keys, limit + 1),
    )
    page = rows[:limit]
    next_cursor = encode_cursor([order, str(page[-1][-2]), page[-1][-1]]) if len(rows) > limit else None
    return [row[:-2] for row in page], next_cursor


def _search(plane: Plane, q: str, limit: int, cursor: str | None) -> tuple[list[tuple[Any, ...]], str | None]:
    of_email, of_nickname = ((key, key + _LAST_CHARACTER) for key in (email_key(q), claims.nickname_key(q)))
    by_email = (" AND a.email_key >= ? AND a.email_key < ?", of_email)
    by_nickname = (
        " AND a.nickname_key >= ? AND a.nickname_key < ? AND NOT (a.email_key >= ? AND a.email_key < ?)",
        (*of_nickname, *of_email),
    )
    rows: list[tuple[Any, ...]] = []
    if cursor is None or _phase(cursor) == "email":
        rows, next_cursor = _page(plane, "email", limit, cursor, *by_email)
        if next_cursor is not None:
            return rows, next_cursor
        cursor = None
    if len(rows) == limit:
        more = plane.database.one(f"SELECT 1 FROM rk_account a WHERE 1 = 1{by_nickname[0]} LIMIT 1", by_nickname[1])
        return rows, encode_cursor(["nickname", "", ""]) if more else None
    further, next_cursor = _page(plane, "nickname", limit - len(rows), cursor, *by_nickname)
    return rows + further, next_cursor


def _phase(cursor: str) -> str:
    order, _, _ = decode_cursor(cursor, (str, str, str))
    return order


def _read_cursor(cursor: str, order: str) -> tuple[str | int, str]:
    of_order, key, user_id = decode_cursor(cursor, (str, str, str))
    if of_order != order or order not in get_args(Sort):
        raise BadField("cursor: it belongs to another list or order; start without one.", field="cursor")
    if order.lstrip("-") != "create_time":
        return key, user_id
    if not key.lstrip("-").isdecimal() or len(key) > 19:
        raise BadField("cursor: not a cursor of this list.", field="cursor")
    return int(key), user_id


def refuse_if_password_due_for_another(actor: Principal, email: str) -> None:
    """Raises PasswordChangeDue when someone who must change their own password is about to set another's."""
    if actor.must_change and email_key(email) != email_key(actor.email or ""):
        raise PasswordChangeDue
