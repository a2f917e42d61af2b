"""The claims on what RAGFlow's rows hold (docs/decisions/003), brought in step with rows that RAGFlow writes.

Whoever makes an account or a membership here claims it in the same transaction. RAGFlow does not, so its rows are
claimed when they are met: all of them once (``fill``), those that changed since the last look (``follow``), one that
somebody asks for (``meet``), and all of them again from time to time (``walk``).

Of several accounts with one e-mail the claim goes to the one that RAGFlow logs in: a valid one, by lowest id. Each of
the others has a claim that no address can have, its own key with its id behind, so that lists show it beside the first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from common.core.emails import email_key
from common.models.account import Account
from common.models.operation import State
from common.models.tenant import MembershipClaim
from common.services.plane import Plane
from common.stores.database import Taken

log = logging.getLogger(__name__)

#: Rows that one transaction looks at.
BATCH = 500
# Programs on several machines write the times that ``follow`` goes by; their clocks may differ by so much.
_OVERLAP_MS = 5 * 60 * 1000
# A progress line of the first filling comes after so many rows.
_TOLD_EVERY = 50_000
_FILLED = "claims_filled"
_DELETED = "0"
# Longer than any key of an address, and no key has a line end: see ``_second_key``.
_KEPT_OF_KEY = 222
_AFTER_LINE_END = "\x0b"

_USER = "u.id, u.email, u.nickname, u.status, u.create_time, a.email_key, a.nickname_key"
_USERS = f"SELECT {_USER} FROM user u LEFT JOIN rk_account a ON a.user_id = u.id"
_MEMBERSHIP = "m.id, m.tenant_id, m.user_id, m.status, c.membership_id"
_MEMBERSHIPS = f"""
    SELECT {_MEMBERSHIP} FROM user_tenant m
    LEFT JOIN rk_membership c ON c.tenant_id = m.tenant_id AND c.user_id = m.user_id
"""


class _Account(NamedTuple):
    """A row of ``user`` with the claim that it has, if it has one."""

    id: str
    email: str
    nickname: str | None
    status: str | None
    create_time: int | None
    claimed: str | None
    nickname_claimed: str | None

    @property
    def key(self) -> str:
        return email_key(self.email)


def nickname_key(nickname: str) -> str:
    """The form in which nicknames are searched."""
    return nickname.strip().casefold()[:255]


def is_second(key: str) -> bool:
    """Whether a claimed key is that of an account whose e-mail belongs to another one."""
    return "\n" in key


def fill(plane: Plane) -> None:
    """Claim what stands in the tables, unless that was done before; resumes where it was killed, logs how far it is.

    Every batch is a transaction of its own, and what is claimed costs a second run no more than a look.
    """
    if plane.database.one("SELECT 1 FROM rk_state WHERE name = ?", (_FILLED,)):
        return
    seen = 0
    for step in (_walk_users, _walk_memberships):
        for rows in step(plane):
            seen += rows
            if seen % _TOLD_EVERY < rows:
                log.info("claiming accounts and memberships: %d rows looked at", seen)
    try:
        plane.database.insert(State, name=_FILLED, value=plane.now_ms())
    except Taken:
        return
    if seen:
        log.info("accounts and memberships are claimed: %d rows", seen)


def walk(plane: Plane) -> Iterator[int]:
    """Claim every row that has no claim, and give up the claims of rows that are gone; the rows of each batch."""
    yield from _walk_users(plane)
    yield from _walk_memberships(plane)
    yield from _walk_gone_accounts(plane)
    yield from _walk_gone_memberships(plane)
    yield from _walk_gone_tokens(plane)


def follow(plane: Plane, *, overlap_ms: int = _OVERLAP_MS, pages: int | None = None) -> int:
    """Claim what was made or changed since the last look (``overlap_ms`` before it); how many rows that were.

    ``pages`` of BATCH rows at most, so that a request can afford it.
    """
    seen = 0
    for column in ("create_time", "update_time"):
        seen += _follow(plane, "users", column, overlap_ms, pages)
        seen += _follow(plane, "memberships", column, overlap_ms, pages)
    return seen


def meet(plane: Plane, email: str) -> None:
    """Bring the claims of one address in step with the accounts that have it now."""
    key = email_key(email)
    gone = plane.database.one(
        "SELECT a.user_id FROM rk_account a LEFT JOIN user u ON u.id = a.user_id "
        "WHERE a.email_key = ? AND u.id IS NULL",
        (key,),
    )
    if gone is not None:
        _forget_gone(plane, [gone[0]])
    rows = plane.database.all(
        f"{_USERS} WHERE u.email IN (?, ?) UNION "
        f"SELECT {_USER} FROM rk_account a JOIN user u ON u.id = a.user_id WHERE a.email_key >= ? AND a.email_key < ? "
        "ORDER BY 1",
        (email.strip(), key, f"{key[:_KEPT_OF_KEY]}\n", f"{key[:_KEPT_OF_KEY]}{_AFTER_LINE_END}"),
    )
    holder = plane.database.all(f"{_USERS} WHERE a.email_key = ?", (key,))
    _settle_users(plane, [*holder, *rows])


def _follow(plane: Plane, what: str, column: str, overlap_ms: int, pages: int | None) -> int:
    of_row, select, settle = _FOLLOWED[what]
    mark = f"{what}_{column}_seen"
    row = plane.database.one("SELECT value FROM rk_state WHERE name = ?", (mark,))
    at, last_id, seen = (row[0] - overlap_ms if row else 0), "", 0
    while pages is None or pages > 0:
        rows = plane.database.all(
            select.replace(f"{of_row}.id,", f"{of_row}.{column}, {of_row}.id,", 1)
            + f" WHERE {of_row}.{column} >= ? AND ({of_row}.{column} > ? OR {of_row}.id > ?) "
            f"ORDER BY {of_row}.{column}, {of_row}.id LIMIT ?",
            (at, at, last_id, BATCH),
        )
        if not rows:
            break
        settle(plane, [each[1:] for each in rows])
        at, last_id, seen = rows[-1][0], rows[-1][1], seen + len(rows)
        _move_mark(plane, mark, at)
        pages = None if pages is None else pages - 1
        if len(rows) < BATCH:
            break
    return seen


def _move_mark(plane: Plane, mark: str, at: int) -> None:
    # A row from the future must not hide those that are written before that time comes.
    at = min(at, plane.now_ms())
    if plane.database.run("UPDATE rk_state SET value = ? WHERE name = ? AND value < ?", (at, mark, at)):
        return
    if plane.database.one("SELECT 1 FROM rk_state WHERE name = ?", (mark,)) is None:
        try:
            with plane.database.transaction():
                plane.database.insert(State, name=mark, value=at)
        except Taken:
            return


def _walk_users(plane: Plane) -> Iterator[int]:
    yield from _walk(plane, f"{_USERS} WHERE u.id > ? ORDER BY u.id LIMIT ?", _settle_users)


def _walk_memberships(plane: Plane) -> Iterator[int]:
    yield from _walk(plane, f"{_MEMBERSHIPS} WHERE m.id > ? ORDER BY m.id LIMIT ?", _settle_memberships)


def _walk_gone_accounts(plane: Plane) -> Iterator[int]:
    def forget(plane: Plane, rows: list[tuple[Any, ...]]) -> None:
        _forget_gone(plane, [user_id for user_id, found in rows if found is None])

    select = "SELECT a.user_id, u.id FROM rk_account a LEFT JOIN user u ON u.id = a.user_id"
    yield from _walk(plane, f"{select} WHERE a.user_id > ? ORDER BY a.user_id LIMIT ?", forget)


def _walk_gone_tokens(plane: Plane) -> Iterator[int]:
    def forget(plane: Plane, rows: list[tuple[Any, ...]]) -> None:
        gone = [token_id for token_id, found in rows if found is None]
        _delete_by(plane, "rk_token", "id", gone, "NOT EXISTS (SELECT 1 FROM api_token k WHERE k.token = stored)")

    select = (
        "SELECT t.id, k.token FROM rk_token t LEFT JOIN api_token k ON k.token = t.stored AND k.tenant_id = t.tenant_id"
    )
    yield from _walk(plane, f"{select} WHERE t.id > ? ORDER BY t.id LIMIT ?", forget)


def _walk(plane: Plane, select: str, settle: Callable[[Plane, list[tuple[Any, ...]]], None]) -> Iterator[int]:
    last = ""
    while rows := plane.database.all(select, (last, BATCH)):
        settle(plane, rows)
        last = rows[-1][0]
        yield len(rows)


def _walk_gone_memberships(plane: Plane) -> Iterator[int]:
    tenant_id, user_id = "", ""
    while rows := plane.database.all(
        "SELECT c.tenant_id, c.user_id, m.id, a.email_key FROM rk_membership c "
        "LEFT JOIN user_tenant m ON m.tenant_id = c.tenant_id AND m.user_id = c.user_id "
        "LEFT JOIN rk_account a ON a.user_id = c.user_id "
        "WHERE c.tenant_id >= ? AND (c.tenant_id > ? OR c.user_id > ?) ORDER BY c.tenant_id, c.user_id LIMIT ?",
        (tenant_id, tenant_id, user_id, BATCH),
    ):
        for tenant, user, found, key in rows:
            if found is None:
                _forget_membership(plane, tenant, user, key)
        tenant_id, user_id = rows[-1][:2]
        yield len(rows)


def _settle_users(plane: Plane, rows: Sequence[tuple[Any, ...]]) -> None:
    """Give each of these accounts the claim that it should have."""
    found = [_Account(*row) for row in rows]
    living = [account for account in found if account.status != _DELETED]
    unclaimed = [account for account in living if account.claimed != account.key]
    if unclaimed:
        try:
            with plane.database.transaction():
                plane.database.lock("claims")
                _claim(plane, unclaimed)
        except Taken:
            # Somebody registers with one of these addresses at this moment; one by one, the others get theirs.
            for account in unclaimed:
                _claim_one(plane, account)
    for account in living:
        nickname = nickname_key(account.nickname or "")
        if account.claimed is not None and account.nickname_claimed != nickname:
            change = Account.update(nickname_key=nickname).where(Account.user_id == account.id)
            plane.database.execute(change)


def _claim_one(plane: Plane, account: _Account) -> None:
    try:
        with plane.database.transaction():
            _claim(plane, [account])
    except Taken:
        log.info("the claim of account %s waits: its e-mail is being claimed", account.id)


def _claim(plane: Plane, accounts: Sequence[_Account]) -> None:
    holders = _holders(plane, [account.key for account in accounts])
    new: dict[str, dict[str, Any]] = {}
    for account in accounts:
        holder = holders.get(account.key)
        key = account.key if holder in (None, account.id) else _second_key(account)
        holders.setdefault(account.key, account.id)
        if account.claimed is None:
            new[account.id] = {
                "user_id": account.id,
                "email_key": key,
                "nickname_key": nickname_key(account.nickname or ""),
                "must_change": False,
                "created_at": account.create_time or plane.now_ms(),
            }
        elif account.claimed != key:
            plane.database.execute(Account.update(email_key=key).where(Account.user_id == account.id))
    if new:
        plane.database.execute(Account.insert_many(list(new.values())))


def _holders(plane: Plane, keys: list[str]) -> dict[str, str]:
    """Who holds each key by right. Whoever holds one of another address, or is gone or deleted, is moved off it."""
    marks = ", ".join("?" * len(keys))
    rows = plane.database.all(
        "SELECT a.email_key, a.user_id, u.email, u.status, u.id FROM rk_account a "
        f"LEFT JOIN user u ON u.id = a.user_id WHERE a.email_key IN ({marks})",
        keys,
    )
    holders = {}
    for key, user_id, email, status, found in rows:
        if found is not None and status != _DELETED and email_key(email) == key:
            holders[key] = user_id
        else:
            moved = f"{key[:_KEPT_OF_KEY]}\n{user_id}"
            plane.database.execute(Account.update(email_key=moved).where(Account.user_id == user_id))
    return holders


def _second_key(account: _Account) -> str:
    return f"{account.key[:_KEPT_OF_KEY]}\n{account.id}"


def _settle_memberships(plane: Plane, rows: Sequence[tuple[Any, ...]]) -> None:
    unclaimed = {
        (tenant_id, user_id): {"tenant_id": tenant_id, "user_id": user_id, "membership_id": membership_id}
        for membership_id, tenant_id, user_id, status, claimed in reversed(rows)
        if claimed is None and status == "1"
    }
    if not unclaimed:
        return
    try:
        with plane.database.transaction():
            plane.database.lock("claims")
            plane.database.execute(MembershipClaim.insert_many(list(unclaimed.values())))
    except Taken:
        for row in unclaimed.values():
            _claim_membership(plane, row)


def _claim_membership(plane: Plane, row: dict[str, str]) -> None:
    try:
        with plane.database.transaction():
            plane.database.insert(MembershipClaim, **row)
    except Taken:
        return


def _forget_gone(plane: Plane, user_ids: list[str]) -> None:
    """Delete what was kept of accounts that RAGFlow has deleted."""
    if not user_ids:
        return
    nobody = "NOT EXISTS (SELECT 1 FROM user u WHERE u.id = user_id)"
    with plane.database.transaction():
        for table in ("rk_session", "rk_user_role", "rk_token", "rk_membership", "rk_account"):
            _delete_by(plane, table, "user_id", user_ids, nobody)
    log.info("%d accounts are gone from RAGFlow's table: their sessions, roles and claims went too", len(user_ids))


def _forget_membership(plane: Plane, tenant_id: str, user_id: str, key: str | None) -> None:
    """A membership or invitation that RAGFlow has deleted is over here too."""
    with plane.database.transaction():
        gone = plane.database.run(
            "DELETE FROM rk_membership WHERE tenant_id = ? AND user_id = ? AND NOT EXISTS (SELECT 1 FROM user_tenant m "
            "WHERE m.tenant_id = rk_membership.tenant_id AND m.user_id = rk_membership.user_id)",
            (tenant_id, user_id),
        )
        if gone and key is not None:
            plane.database.run("DELETE FROM rk_invitation WHERE tenant_id = ? AND email_key = ?", (tenant_id, key))


def _delete_by(plane: Plane, table: str, column: str, values: list[str], condition: str) -> None:
    if values:
        marks = ", ".join("?" * len(values))
        plane.database.run(f"DELETE FROM {table} WHERE {column} IN ({marks}) AND {condition}", values)


_FOLLOWED: dict[str, tuple[str, str, Callable[[Plane, list[tuple[Any, ...]]], None]]] = {
    "users": ("u", _USERS, _settle_users),
    "memberships": ("m", _MEMBERSHIPS, _settle_memberships),
}
