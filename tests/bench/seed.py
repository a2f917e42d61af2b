"""A home with many accounts, written by bulk SQL into the schema that the product's own migration made."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from common.services import opening
from common.services.claims import nickname_key
from common.settings import load
from common.stores.database import Database

ADMIN_EMAIL = "admin@bench.ragkeeper.test"
ADMIN_PASSWORD = "measured from end to end"
# The first account's creation, UTC milliseconds; each later one is a second later.
FIRST_CREATED_MS = 1_700_000_000_000
# Rows in one statement; SQLite takes 32,766 values.
_AT_ONCE = 500
_FIRST_NAMES = ("Ada", "Bjorn", "Chloe", "Dmitri", "Emeka")
_SURNAMES = ("Ångström", "Curie", "Lovelace", "Meitner", "Noether")


def environment(home: Path, **given: str) -> dict[str, str]:
    """The settings of a plane in this home, on embedded stores but for what is given."""
    conf = home.parent / f"{home.name}-conf"
    conf.mkdir(exist_ok=True)
    (conf / "service_conf.yaml").write_text("{}\n")
    return {
        "RAGKEEPER_HOME": str(home),
        "RAGKEEPER_CONF": str(conf),
        "RAGKEEPER_ADMIN_EMAIL": ADMIN_EMAIL,
        "RAGKEEPER_ADMIN_PASSWORD": ADMIN_PASSWORD,
        **given,
    }


def make_home(home: Path, users: int, **given: str) -> None:
    """Make a home with the first administrator and this many users, each with tenant and membership."""
    plane = opening.open_plane(load(environment(home, **given)))
    opening.first_administrator(plane)
    with plane.database.transaction():
        fill(plane.database, range(users))
        # The clients of a load are one account each, or all the same one.
        for name, value in (("session.most", 1000), ("limit.token_creation", 0), ("limit.login_failures", 100)):
            plane.database.run(
                "INSERT INTO rk_variable (name, value, updated_at, by_superuser) VALUES (?, ?, 0, ?)",
                (name, str(value), False),
            )
        plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


def id_of(number: int) -> str:
    """The id of a user by number; its home tenant's too."""
    return f"{number:032x}"


def email_of(number: int) -> str:
    """The e-mail of a user by number."""
    return f"{_FIRST_NAMES[number % 5].lower()}.{number:07d}@bench.ragkeeper.test"


def nickname_of(number: int) -> str:
    """The nickname of a user by number."""
    return f"{_SURNAMES[number // 5 % 5]} {number}"


def fill(database: Database, numbers: range) -> None:
    """Add the users of these numbers, each with tenant and membership, in the running transaction."""
    for table, row in (
        ("rk_account", _account),
        ("user", _user),
        ("tenant", _tenant),
        ("user_tenant", _membership),
        ("rk_membership", _claim),
    ):
        _insert(database, table, map(row, numbers))


def _insert(database: Database, table: str, rows: Iterator[dict[str, Any]]) -> None:
    while some := list(islice(rows, _AT_ONCE)):
        marks = ", ".join("?" * len(some[0]))
        values = [value for row in some for value in row.values()]
        database.run(
            f"INSERT INTO {table} ({', '.join(some[0])}) VALUES {', '.join([f'({marks})'] * len(some))}", values
        )


def _stamps(number: int) -> dict[str, Any]:
    at = FIRST_CREATED_MS + number * 1000
    return {
        "create_time": at,
        "create_date": "2026-09-22 06:13:20",
        "update_time": at,
        "update_date": "2026-09-22 06:13:20",
    }


def _account(number: int) -> dict[str, Any]:
    return {
        "user_id": id_of(number),
        "email_key": email_of(number).casefold(),
        "nickname_key": nickname_key(nickname_of(number)),
        "must_change": 0,
        "created_at": FIRST_CREATED_MS + number * 1000,
    }


def _user(number: int) -> dict[str, Any]:
    return {
        "id": id_of(number),
        "access_token": f"INVALID_{id_of(number)}",
        "nickname": nickname_of(number),
        "password": "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$bm9ib2R5bG9nc2luaGVyZQ",
        "email": email_of(number),
        "language": "English",
        "color_schema": "Bright",
        "timezone": "UTC+8\tAsia/Shanghai",
        "is_authenticated": "1",
        "is_active": "1",
        "is_anonymous": "0",
        "login_channel": "password",
        "status": "1",
        "is_superuser": 0,
        **_stamps(number),
    }


def _tenant(number: int) -> dict[str, Any]:
    return {
        "id": id_of(number),
        "name": f"{nickname_of(number)}'s Kingdom",
        **dict.fromkeys(("llm_id", "embd_id", "asr_id", "img2txt_id", "rerank_id", "parser_ids"), ""),
        "credit": 512,
        "status": "1",
        **_stamps(number),
    }


def _membership(number: int) -> dict[str, Any]:
    return {
        "id": id_of(number),
        "user_id": id_of(number),
        "tenant_id": id_of(number),
        "role": "owner",
        "invited_by": id_of(number),
        "status": "1",
        **_stamps(number),
    }


def _claim(number: int) -> dict[str, Any]:
    return {"tenant_id": id_of(number), "user_id": id_of(number), "membership_id": id_of(number)}
