"""Whom a RAGFlow database has after a few years: people who work together, and rows that nobody looks after."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import uuid1

from werkzeug.security import generate_password_hash

from common.core.passwords import encode_for_hash
from tests.ragflow.database import RagflowDatabase

PASSWORD = "a password from the other side"
MADE_MS = 1_700_000_000_000
# Of RAGFlow's kind, at a small part of its cost: most tests begin with logins.
_CHEAP = "scrypt:1024:8:1"
_RAGFLOWS = "scrypt:32768:8:1"
_NAMES = ("naive:General,qa:Q&A,resume:Resume,manual:Manual", "Bright", "UTC+8\tAsia/Shanghai")


@dataclass(frozen=True)
class RagflowUser:
    """An account that RAGFlow has; ``token`` is its API key, where it has one."""

    id: str
    email: str
    token: str = ""


@dataclass
class Population:
    """Everybody by the name that tests call them; ``broken`` are those with something amiss."""

    everybody: dict[str, RagflowUser] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    organisation: str = ""
    ghost: str = ""

    def __getitem__(self, name: str) -> RagflowUser:
        return self.everybody[name]


@lru_cache
def password_hash(password: str = PASSWORD, *, method: str = _CHEAP) -> str:
    """What RAGFlow stores for a password."""
    return generate_password_hash(encode_for_hash(password).decode(), method)


def add_user(database: RagflowDatabase, email: str, *, home: bool = True, **columns: Any) -> RagflowUser:
    """An account as RAGFlow registers one: user, tenant, owner's membership, root folder."""
    user_id = columns.pop("id", None) or uuid1().hex
    values = {
        "nickname": "Somebody",
        "password": password_hash(),
        "access_token": uuid1().hex,
        "is_authenticated": "1",
        "is_active": "1",
        "is_anonymous": "0",
        "status": "1",
        "is_superuser": 0,
        "language": "English",
        "color_schema": _NAMES[1],
        "timezone": _NAMES[2],
        "login_channel": "password",
        **times(),
        **columns,
    }
    database.insert("user", id=user_id, email=email, **values)
    if home:
        add_tenant(database, user_id, f"{values['nickname']}'s Kingdom")
        add_membership(database, user_id, user_id, "owner", at_ms=values["create_time"] or MADE_MS)
        folder = uuid1().hex
        database.insert(
            "file", id=folder, parent_id=folder, tenant_id=user_id, created_by=user_id, name="/", location="",
            type="folder", **times(),
        )  # fmt: skip
    return RagflowUser(user_id, email)


def add_tenant(database: RagflowDatabase, tenant_id: str, name: str | None) -> None:
    """A tenant without anybody in it."""
    database.insert(
        "tenant", id=tenant_id, name=name, llm_id="gpt@OpenAI", credit=512, parser_ids=_NAMES[0], status="1", **times()
    )


def add_membership(
    database: RagflowDatabase, tenant_id: str, user_id: str, role: str, invited_by: str = "", at_ms: int = MADE_MS
) -> str:
    """A row of ``user_tenant``."""
    return database.insert(
        "user_tenant", tenant_id=tenant_id, user_id=user_id, role=role, invited_by=invited_by or tenant_id,
        status="1", **times(at_ms),
    )  # fmt: skip


def add_token(database: RagflowDatabase, tenant_id: str, *, beta: bool = True) -> str:
    """An API key as RAGFlow makes one; without ``beta`` as its older versions did."""
    token = f"ragflow-{uuid1().hex}{uuid1().hex[:12]}"
    shared = {"beta": uuid1().hex} if beta else {}
    database.insert("api_token", tenant_id=tenant_id, token=token, **shared, **times())
    return token


def add_langfuse(database: RagflowDatabase, tenant_id: str) -> None:
    """Langfuse's keys in the clear, as RAGFlow has them."""
    database.insert(
        "tenant_langfuse", tenant_id=tenant_id, secret_key="sk-lf-in-the-clear-0123", public_key="pk-lf-0123",
        host="https://langfuse.test", **times(),
    )  # fmt: skip


def times(at_ms: int | None = MADE_MS) -> dict[str, Any]:
    """The four time columns; all NULL for None."""
    if at_ms is None:
        return {}
    date = "2023-11-15 06:13:20"
    return {"create_time": at_ms, "create_date": date, "update_time": at_ms, "update_date": date}


def populate(database: RagflowDatabase, *, invited_at_ms: int) -> Population:
    """Everybody, at work and broken. Doubles of an e-mail are left out where RAGFlow's own index forbids them."""
    found = Population()
    people = found.everybody
    people["root"] = add_user(database, "admin@ragflow.io", is_superuser=1, nickname="admin")
    for name in ("alice", "bob", "carol", "dave"):
        people[name] = add_user(database, f"{name}@ragflow.test", nickname=name.capitalize())
    people["costly"] = add_user(database, "costly@ragflow.test", password=password_hash(method=_RAGFLOWS))
    alice = people["alice"].id
    add_membership(database, alice, people["bob"].id, "normal")
    add_membership(database, alice, people["carol"].id, "invite", at_ms=invited_at_ms)
    for name in ("alice", "bob"):
        person = people[name]
        people[name] = RagflowUser(person.id, person.email, add_token(database, person.id))
        add_langfuse(database, person.id)
    people["dave"] = RagflowUser(
        people["dave"].id, people["dave"].email, add_token(database, people["dave"].id, beta=False)
    )
    _break(database, found)
    found.broken = set(people) - {"root", "alice", "bob", "carol", "dave", "costly"}
    return found


def _break(database: RagflowDatabase, found: Population) -> None:
    people = found.everybody
    if database.version < "0.25":
        people["twin"] = add_user(database, "twin@ragflow.test", id=f"1{uuid1().hex[1:]}", nickname="First")
        people["other twin"] = add_user(database, "twin@ragflow.test", id=f"2{uuid1().hex[1:]}", nickname="Second")
        people["case"] = add_user(database, "Case@RAGFlow.test", id=f"3{uuid1().hex[1:]}")
        people["other case"] = add_user(database, "case@ragflow.test", id=f"4{uuid1().hex[1:]}")
    for name, columns in _AMISS.items():
        people[name] = add_user(database, **{"email": f"{name.replace(' ', '.')}@ragflow.test", **columns})
    people["homeless"] = add_user(database, "homeless@ragflow.test", home=False)
    people["thrice"] = add_user(database, "thrice@ragflow.test")
    for role in ("normal", "normal", "invite"):
        add_membership(database, people["alice"].id, people["thrice"].id, role)
    found.organisation = uuid1().hex
    add_tenant(database, found.organisation, None)
    add_membership(database, found.organisation, people["bob"].id, "normal")
    found.ghost = uuid1().hex
    add_membership(database, found.ghost, found.ghost, "owner")
    add_membership(database, people["alice"].id, found.ghost, "normal")
    add_membership(database, uuid1().hex, people["bob"].id, "normal")
    add_token(database, found.ghost)
    add_langfuse(database, found.ghost)
    database.insert("file", parent_id=found.ghost, tenant_id=found.ghost, created_by=found.ghost, name="lost", type="x")


_AMISS: dict[str, dict[str, Any]] = {
    "sso": {"password": None, "login_channel": "github"},
    "no hash": {"password": "not a hash"},
    "no status": {"status": None},
    "deleted": {"status": "0"},
    "timeless": {"create_time": None, "create_date": None, "update_time": None, "update_date": None},
    "logged out": {"access_token": "INVALID_0123456789abcdef0123456789abcdef"},
    "no session": {"access_token": None},
    "nameless": {"nickname": ""},
    "no words": {
        "language": None, "color_schema": None, "timezone": None, "login_channel": None, "avatar": None,
        "last_login_time": None,
    },
    "undecided": {"is_superuser": None},
    "odd switches": {"is_active": "2", "is_anonymous": "", "is_authenticated": ""},
    "long": {"email": f"{'l' * 64}@{'d' * 63}.{'d' * 63}.{'d' * 58}.org"},
    "no address": {"email": "no address at all"},
    "percent": {"email": "per%cent+_'\"\\@ragflow.test"},
    # Folded, each of these letters is three.
    "folding": {"email": "\u0390" * 120 + "@ragflow.test"},
}  # fmt: skip
