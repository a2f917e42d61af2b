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
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

from common.core.emails import email_key
from common.models.account import Account
from common.models.operation import State
from common.models.tenant import MembershipClaim
from common.services import retired_tokens
from common.services.retired_tokens import Retired
from common.stores.database import Database, Taken

log = logging.getLogger(__name__)

#: Rows that one transaction looks at.
BATCH = 500
# Programs on several machines write the times that ``follow`` goes by; their clocks may differ by so much.
OVERLAP_MS = 5 * 60 * 1000
# A progress line of the first filling comes after so many rows.
_TOLD_EVERY = 50_000
_FILLED = "claims_filled"
# By these columns ``follow`` finds what is new.
_FOLLOWED = ("create_time", "update_time")
_DELETED = "0"
# Longer than any key of an address, and no key has a line end: see ``_second_key``.
_KEPT_OF_KEY = 222
# What is kept here of an account, by its id.
_OF_ACCOUNTS = (
    "rk_refresh_token",
    "rk_session_trait",
    "rk_session",
    "rk_reset_link",
    "rk_user_role",
    "rk_token",
    "rk_retired_token",
    "rk_membership",
    "rk_account",
)
# What no key of an address has in it, and the character that follows it.
_LINE_END = "\n"
_AFTER_LINE_END = "\x0b"

_USER = "u.id, u.email, u.nickname, u.status, u.create_time, a.email_key, a.nickname_key"
_USERS = f"SELECT {_USER} FROM user u LEFT JOIN rk_account a ON a.user_id = u.id"


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


def fill(database: Database, now_ms: int) -> None:
    """Claim what stands in the tables, unless that was done before; resumes where it was killed, logs how far it is.

    Every batch is a transaction of its own, and what is claimed costs a second run no more than a look.
    """
    if database.one("SELECT 1 FROM rk_state WHERE name = ?", (_FILLED,)):
        return
    # What is written from here on is for ``follow`` to find.
    marks = {
        _mark(source, column): min(_latest(database, source, column), now_ms)
        for source in _SOURCES
        for column in _FOLLOWED
    }
    seen = 0
    for source in _SOURCES:
        for rows in _walk_source(database, source):
            seen += rows
            if seen % _TOLD_EVERY < rows:
                log.info("claiming accounts and memberships: %d rows looked at", seen)
    for mark, at in marks.items():
        _move_mark(database, mark, at)
    with suppress(Taken):
        database.insert(State, name=_FILLED, value=1)
    if seen:
        log.info("accounts and memberships are claimed: %d rows", seen)


def walk(database: Database, now_ms: int) -> Iterator[int]:
    """Claim every row that has no claim, and give up the claims of rows that are gone; the rows of each batch."""
    for source in _SOURCES:
        yield from _walk_source(database, source)
    yield from _walk_gone_accounts(database)
    yield from _walk_gone_memberships(database)
    yield from _walk_gone_tokens(database, now_ms)


def follow(database: Database, now_ms: int, *, overlap_ms: int = OVERLAP_MS, pages: int | None = None) -> int:
    """Claim what was made or changed since the last look (``overlap_ms`` before it); how many rows that were.

    ``pages`` of BATCH rows at most, so that a request can afford it.
    """
    return sum(
        _follow(database, source, column, now_ms, overlap_ms=overlap_ms, pages=pages)
        for source in _SOURCES
        for column in _FOLLOWED
    )


def meet(database: Database, email: str) -> None:
    """Bring the claims of one address in step with the accounts that have it now."""
    key = email_key(email)
    gone = database.one(
        "SELECT a.user_id FROM rk_account a LEFT JOIN user u ON u.id = a.user_id "
        "WHERE a.email_key = ? AND u.id IS NULL",
        (key,),
    )
    if gone is not None:
        _forget_gone(database, [gone[0]])
    rows = database.all(
        f"{_USERS} WHERE u.email IN (?, ?) UNION "
        f"SELECT {_USER} FROM rk_account a JOIN user u ON u.id = a.user_id WHERE a.email_key >= ? AND a.email_key < ? "
        "ORDER BY 1",
        (email.strip(), key, f"{key[:_KEPT_OF_KEY]}{_LINE_END}", f"{key[:_KEPT_OF_KEY]}{_AFTER_LINE_END}"),
    )
    holder = database.all(f"{_USERS} WHERE a.email_key = ?", (key,))
    _settle_users(database, [*holder, *rows])


def renew(database: Database, user_id: str) -> None:
    """Bring the claim of one account in step with its row."""
    _settle_users(database, database.all(f"{_USERS} WHERE u.id = ?", (user_id,)))


def _follow(
    database: Database, source: _Source, column: str, now_ms: int, *, overlap_ms: int, pages: int | None
) -> int:
    mark = _mark(source, column)
    row = database.one("SELECT value FROM rk_state WHERE name = ?", (mark,))
    at, last_id, seen = (row[0] - overlap_ms if row else 0), "", 0
    column = f"{source.alias}.{column}"
    select = f"SELECT {column}, {source.columns} {source.tables} WHERE {column} >= ? AND "
    for _ in count() if pages is None else range(pages):
        rows = database.all(
            f"{select}({column} > ? OR {source.alias}.id > ?) ORDER BY {column}, {source.alias}.id LIMIT ?",
            (at, at, last_id, BATCH),
        )
        source.settle(database, [each[1:] for each in rows])
        seen += len(rows)
        if rows:
            at, last_id = rows[-1][:2]
            # A row from the future must not hide those that are written before that time comes.
            _move_mark(database, mark, min(at, now_ms))
        if len(rows) < BATCH:
            break
    return seen


def _mark(source: _Source, column: str) -> str:
    """The name under which it is noted how far a table was followed by a column."""
    return f"seen_{source.table}_{column}"


def _latest(database: Database, source: _Source, column: str) -> int:
    row = database.one(f"SELECT MAX({column}) FROM {source.table}")
    return row[0] or 0 if row else 0


def _move_mark(database: Database, mark: str, at: int) -> None:
    moved = database.run("UPDATE rk_state SET value = ? WHERE name = ? AND value < ?", (at, mark, at))
    if moved or database.one("SELECT 1 FROM rk_state WHERE name = ?", (mark,)):
        return
    with suppress(Taken), database.transaction():
        database.insert(State, name=mark, value=at)


def _walk_source(database: Database, source: _Source) -> Iterator[int]:
    by_id = f"SELECT {source.columns} {source.tables} WHERE {source.alias}.id > ? ORDER BY {source.alias}.id LIMIT ?"
    yield from _walk(database, by_id, source.settle)


def _walk_gone_accounts(database: Database) -> Iterator[int]:
    def forget(database: Database, rows: list[tuple[Any, ...]]) -> None:
        _forget_gone(database, [user_id for user_id, found in rows if found is None])

    select = "SELECT a.user_id, u.id FROM rk_account a LEFT JOIN user u ON u.id = a.user_id"
    yield from _walk(database, f"{select} WHERE a.user_id > ? ORDER BY a.user_id LIMIT ?", forget)


def _walk_gone_tokens(database: Database, now_ms: int) -> Iterator[int]:
    """Tokens that a RAGFlow has deleted are known from now on as those that were deleted here."""

    def forget(database: Database, rows: list[tuple[Any, ...]]) -> None:
        for token_id, stored, tenant_id, user_id, found in rows:
            if found is None:
                gone = Retired(stored, token_id, tenant_id, user_id, "deleted in RAGFlow")
                _forget_token(database, now_ms, gone)

    select = (
        "SELECT t.id, t.stored, t.tenant_id, t.user_id, k.token FROM rk_token t "
        "LEFT JOIN api_token k ON k.token = t.stored AND k.tenant_id = t.tenant_id"
    )
    yield from _walk(database, f"{select} WHERE t.id > ? ORDER BY t.id LIMIT ?", forget)


def _forget_token(database: Database, now_ms: int, gone: Retired) -> None:
    with database.transaction():
        if database.run(
            "DELETE FROM rk_token WHERE id = ? AND NOT EXISTS "
            "(SELECT 1 FROM api_token k WHERE k.tenant_id = rk_token.tenant_id AND k.token = stored)",
            (gone.name,),
        ):
            # Else somebody has deleted it here meanwhile, and it is known why.
            retired_tokens.keep(database, now_ms, [gone])


def _walk(database: Database, select: str, settle: Callable[[Database, list[tuple[Any, ...]]], None]) -> Iterator[int]:
    last = ""
    while rows := database.all(select, (last, BATCH)):
        settle(database, rows)
        last = rows[-1][0]
        yield len(rows)


def _walk_gone_memberships(database: Database) -> Iterator[int]:
    tenant_id, user_id = "", ""
    while rows := database.all(
        "SELECT c.tenant_id, c.user_id, m.id, a.email_key FROM rk_membership c "
        "LEFT JOIN user_tenant m ON m.tenant_id = c.tenant_id AND m.user_id = c.user_id "
        "LEFT JOIN rk_account a ON a.user_id = c.user_id "
        "WHERE c.tenant_id >= ? AND (c.tenant_id > ? OR c.user_id > ?) ORDER BY c.tenant_id, c.user_id LIMIT ?",
        (tenant_id, tenant_id, user_id, BATCH),
    ):
        for tenant, user, found, key in rows:
            if found is None:
                _forget_membership(database, tenant, user, key)
        tenant_id, user_id = rows[-1][:2]
        yield len(rows)


def _settle_users(database: Database, rows: Sequence[tuple[Any, ...]]) -> None:
    """Give each of these accounts the claim that it should have."""
    found = [_Account(*row) for row in rows]
    living = [account for account in found if account.status != _DELETED]
    held = {account.key for account in living if account.claimed == account.key}
    unclaimed = [account for account in living if not _has_its_claim(account, held)]
    if unclaimed:
        try:
            with database.transaction():
                database.lock("claims")
                _claim(database, unclaimed)
        except Taken:
            # Somebody registers with one of these addresses at this moment; one by one, the others get theirs.
            for account in unclaimed:
                _claim_one(database, account)
    for account in living:
        nickname = nickname_key(account.nickname or "")
        if account.claimed is not None and account.nickname_claimed != nickname:
            change = Account.update(nickname_key=nickname).where(Account.user_id == account.id)
            database.execute(change)


def _has_its_claim(account: _Account, held: set[str]) -> bool:
    """Whether an account has its key, or the second one beside the rightful holder of its key."""
    if account.key in held:
        return account.claimed in (account.key, _second_key(account.key, account.id))
    return False


def _claim_one(database: Database, account: _Account) -> None:
    try:
        with database.transaction():
            _claim(database, [account])
    except Taken:
        log.info("the claim of account %s waits: its e-mail is being claimed", account.id)


def _claim(database: Database, accounts: Sequence[_Account]) -> None:
    holders = _holders(database, [account.key for account in accounts])
    new: dict[str, dict[str, Any]] = {}
    for account in accounts:
        holder = holders.get(account.key)
        key = account.key if holder in (None, account.id) else _second_key(account.key, account.id)
        holders.setdefault(account.key, account.id)
        if account.claimed is None:
            new[account.id] = {
                "user_id": account.id,
                "email_key": key,
                "nickname_key": nickname_key(account.nickname or ""),
                "must_change": False,
                "created_at": account.create_time or 0,
            }
        elif account.claimed != key:
            database.execute(Account.update(email_key=key).where(Account.user_id == account.id))
    if new:
        database.execute(Account.insert_many(list(new.values())))


def _holders(database: Database, keys: list[str]) -> dict[str, str]:
    """Who holds each key by right. Whoever holds one of another address, or is gone or deleted, is moved off it."""
    marks = ", ".join("?" * len(keys))
    rows = database.all(
        "SELECT a.email_key, a.user_id, u.email, u.status, u.id FROM rk_account a "
        f"LEFT JOIN user u ON u.id = a.user_id WHERE a.email_key IN ({marks})",
        keys,
    )
    holders = {}
    for key, user_id, email, status, found in rows:
        if found is not None and status != _DELETED and email_key(email) == key:
            holders[key] = user_id
        else:
            moved = _second_key(key, user_id)
            database.execute(Account.update(email_key=moved).where(Account.user_id == user_id))
    return holders


def _second_key(key: str, user_id: str) -> str:
    return f"{key[:_KEPT_OF_KEY]}{_LINE_END}{user_id}"


def _settle_memberships(database: Database, rows: Sequence[tuple[Any, ...]]) -> None:
    unclaimed = {
        (tenant_id, user_id): {"tenant_id": tenant_id, "user_id": user_id, "membership_id": membership_id}
        for membership_id, tenant_id, user_id, status, claimed in reversed(rows)
        if claimed is None and status == "1"
    }
    if not unclaimed:
        return
    try:
        with database.transaction():
            database.lock("claims")
            database.execute(MembershipClaim.insert_many(list(unclaimed.values())))
    except Taken:
        for row in unclaimed.values():
            _claim_membership(database, row)


def _claim_membership(database: Database, row: dict[str, str]) -> None:
    with suppress(Taken), database.transaction():
        database.insert(MembershipClaim, **row)


def _forget_gone(database: Database, user_ids: list[str]) -> None:
    """Delete what was kept of accounts that RAGFlow has deleted, and the tokens that they made here.

    A token whose maker is not known any more would act for an owner of its tenant.
    """
    if not user_ids:
        return
    nobody = "NOT EXISTS (SELECT 1 FROM user u WHERE u.id = user_id)"
    marks = ", ".join("?" * len(user_ids))
    with database.transaction():
        made = database.all(
            f"SELECT tenant_id, stored FROM rk_token WHERE user_id IN ({marks}) AND {nobody}",
            user_ids,
        )
        for tenant_id, stored in made:
            database.run("DELETE FROM api_token WHERE tenant_id = ? AND token = ?", (tenant_id, stored))
        for table in _OF_ACCOUNTS:
            _delete_by(database, table, "user_id", user_ids, nobody)
    log.info("%d accounts are gone from RAGFlow's table: their sessions, roles and claims went too", len(user_ids))


def _forget_membership(database: Database, tenant_id: str, user_id: str, key: str | None) -> None:
    """A membership or invitation that RAGFlow has deleted is over here too."""
    with database.transaction():
        gone = database.run(
            "DELETE FROM rk_membership WHERE tenant_id = ? AND user_id = ? AND NOT EXISTS (SELECT 1 FROM user_tenant m "
            "WHERE m.tenant_id = rk_membership.tenant_id AND m.user_id = rk_membership.user_id)",
            (tenant_id, user_id),
        )
        if gone and key is not None:
            database.run("DELETE FROM rk_invitation WHERE tenant_id = ? AND email_key = ?", (tenant_id, key))


def _delete_by(database: Database, table: str, column: str, values: list[str], condition: str) -> None:
    if values:
        marks = ", ".join("?" * len(values))
        database.run(f"DELETE FROM {table} WHERE {column} IN ({marks}) AND {condition}", values)


class _Source(NamedTuple):
    """A table of RAGFlow's whose rows are claimed: what is read of it beside the claims, and what is done with that."""

    table: str
    alias: str
    columns: str
    tables: str
    settle: Callable[[Database, list[tuple[Any, ...]]], None]


_SOURCES = (
    _Source("user", "u", _USER, "FROM user u LEFT JOIN rk_account a ON a.user_id = u.id", _settle_users),
    _Source(
        "user_tenant",
        "m",
        "m.id, m.tenant_id, m.user_id, m.status, c.membership_id",
        "FROM user_tenant m LEFT JOIN rk_membership c ON c.tenant_id = m.tenant_id AND c.user_id = m.user_id",
        _settle_memberships,
    ),
)
