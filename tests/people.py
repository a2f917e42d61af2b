"""The people of the tests and how they speak to the servers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask
from werkzeug.test import TestResponse

from admin.server.app import create_app as create_admin
from api.app import create_app as create_api
from common.models.variable import StoredVariable
from common.services import accounts, passwords
from common.services.plane import Plane
from common.settings import Settings, load
from tests.backends import stores

START_MS = 1_790_000_000_000
ROOT_EMAIL = "root@ragkeeper.test"


class Clock:
    """UTC milliseconds that stand still until a test moves them."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now = now_ms

    def __call__(self) -> int:
        return self.now

    def forward(self, *, seconds: float = 0, hours: float = 0, days: float = 0) -> None:
        """Let time pass, also where a server's clock counts."""
        passed = seconds + hours * 3600 + days * 86400
        self.now += int(passed * 1000)
        stores.forward(passed)


def settings_for(home: Path, **environment: str) -> Settings:
    """Settings from the environment alone, for a home in a temporary folder and the stores of this run.

    Egress to loopback is allowed.
    """
    conf = home.parent / f"conf-{uuid4().hex}"
    conf.mkdir(parents=True)
    (conf / "service_conf.yaml").write_text(json.dumps(stores.sections()))
    given = {
        "RAGKEEPER_HOME": str(home),
        "RAGKEEPER_CONF": str(conf),
        "RAGKEEPER_ADMIN_EMAIL": ROOT_EMAIL,
        "RAGKEEPER_EGRESS_ALLOW_CIDRS": "127.0.0.0/8",
        "PATH": os.environ["PATH"],
    }
    return load({**given, **stores.environment(home), **environment})


def settle(home: Path) -> None:
    """Make a home that has the key pair of this run: to make a pair takes longer than many a test."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / "password_key.pem"
    path.touch(mode=0o600)
    path.write_bytes(_pair())


def close(plane: Plane) -> None:
    """End a plane as the end of its process does, once what is to be written beside the requests has been."""
    for uses in (plane.token_uses, plane.session_uses):
        uses.wait(10)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()


@cache
def _pair() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def new_password() -> str:
    """A password within the policy, another one each time."""
    return f"correct horse {uuid4().hex}"


@dataclass
class Port:
    """One of the two servers."""

    app: Flask

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        credential: str | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> TestResponse:
        """One request; ``body`` is sent as JSON, ``credential`` as Authorization."""
        sent = {"Accept": "application/json", **(headers or {})}
        if credential is not None:
            sent["Authorization"] = credential
        if body is not None:
            more["json"] = body
        answer = self.app.test_client(use_cookies=False).open(path, method=method, headers=sent, **more)
        names = [name.lower() for name, _ in answer.headers]
        # Strict clients (llhttp, h11) refuse an answer with two Content-Length, even of one value.
        assert len(names) == len(set(names)), answer.headers
        return answer


@dataclass
class Person:
    """Someone with an account; ``admin_session`` and ``session`` are their logins on the two ports."""

    world: World
    email: str
    password: str
    user_id: str
    extra: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def admin_session(self) -> str:
        """A session of the admin server, opened at first use."""
        answer = self.world.admin.ask("POST", "/api/v1/admin/login", {"email": self.email, "password": self.password})
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return str(answer.headers["Authorization"])

    @cached_property
    def session(self) -> str:
        """A session of the user API, opened at first use."""
        answer = self.world.api.ask("POST", "/v1/user/login", {"email": self.email, "password": self.password})
        assert answer.json["code"] == 0, answer.json  # type: ignore[index]
        return str(answer.headers["Authorization"])

    def come_back(self) -> None:
        """Log in anew at the next request, after so long that one's sessions are over."""
        for name in ("admin_session", "session"):
            self.__dict__.pop(name, None)

    def administer(self, method: str, path: str, body: Any = None, **more: Any) -> TestResponse:
        """Ask the admin server, below /api/v1/admin."""
        return self.world.admin.ask(method, f"/api/v1/admin{path}", body, credential=self.admin_session, **more)

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> TestResponse:
        """Ask the user API with one's session."""
        return self.world.api.ask(method, path, body, credential=self.session, **more)


@dataclass
class World:
    """The plane, its two servers, and a way to make people."""

    plane: Plane
    #: Passwords and their hashes by number and form, made once for all tests: a hash takes longer than many a test.
    made: dict[tuple[int, bool], tuple[str, str]] = field(default_factory=dict, kw_only=True)
    _numbers: Iterator[int] = field(default_factory=count, kw_only=True)

    @cached_property
    def admin(self) -> Port:
        """The admin server, spoken to over HTTP semantics; made when a test first asks it, as is the other."""
        return Port(create_admin(self.plane))

    @cached_property
    def api(self) -> Port:
        """The user API."""
        return Port(create_api(self.plane))

    @cached_property
    def root(self) -> Person:
        """The first superuser; the password was given, so it need not be changed."""
        return self.person(ROOT_EMAIL, is_superuser=True)

    def person(
        self,
        email: str | None = None,
        *,
        nickname: str = "Someone",
        is_superuser: bool = False,
        must_change: bool = False,
    ) -> Person:
        """An account made behind the servers' back."""
        password, password_hash = self._password()
        with self.plane.database.transaction():
            account = accounts.make(
                self.plane,
                email=email or f"{uuid4().hex[:12]}@ragkeeper.test",
                nickname=nickname,
                password_hash=password_hash,
                is_superuser=is_superuser,
                must_change=must_change,
            )
        return Person(self, account.email, password, account.id)

    def _password(self) -> tuple[str, str]:
        """A password that nobody else has in this world, and its hash."""
        known = next(self._numbers), self.plane.shared
        if known not in self.made:
            password = new_password()
            self.made[known] = password, passwords.new_hash(self.plane, password, passwords.Owner())
        return self.made[known]

    def set_variable(self, name: str, text: str) -> None:
        """Change a setting of run time, behind the servers' back; they know it at once."""
        database = self.plane.database
        with database.transaction():
            database.run("DELETE FROM rk_variable WHERE name = ?", (name,))
            database.insert(StoredVariable, name=name, value=text, updated_at=self.plane.now_ms())
            database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
        row = database.one("SELECT value FROM rk_state WHERE name = 'variables_version'")
        assert row
        self.plane.variables.follow(row[0])

    def events(self, tag: str) -> list[tuple[Any, ...]]:
        """Audit events of a tag: (result, actor_email, target, before, after), oldest first."""
        return self.plane.database.all(
            "SELECT result, actor_email, target, `before`, `after` FROM rk_audit_event WHERE tag = ? ORDER BY id",
            (tag,),
        )
