"""Migrations: once each, safe to start twice at once, gentle to what RAGFlow owns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest
from peewee import SchemaManager

from common.core.permissions import BUILT_IN_ROLES
from common.migrations.runner import STEPS, migrate, pending
from common.models.account import Account, User
from common.models.base import created
from common.models.tenant import UserTenant
from common.models.token import TokenTrait
from common.services.plane import Plane
from common.stores.database import SqliteStore
from tests.people import START_MS


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "ragkeeper.db")
    yield store
    store.close()


def test_a_fresh_database_gets_every_step_once(database: SqliteStore) -> None:
    assert migrate(database, START_MS) == list(STEPS)
    assert migrate(database, START_MS) == []
    assert pending(database) == []
    names = {name for (name,) in database.all("SELECT name FROM rk_role")}
    assert names == set(BUILT_IN_ROLES)
    assert database.one("SELECT value FROM rk_state WHERE name = 'shared_database'") == (0,)


def test_two_starts_at_once_do_not_meet(tmp_path: Path) -> None:
    steps: list[int] = []
    failures: list[BaseException] = []
    together = threading.Barrier(4)

    def start() -> None:
        store = SqliteStore(tmp_path / "ragkeeper.db")
        try:
            together.wait(10)
            steps.extend(step.number for step in migrate(store, START_MS))
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            failures.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert failures == []
    assert sorted(steps) == [step.number for step in STEPS]


def test_ragflows_tables_are_noticed_and_left_as_they_are(database: SqliteStore) -> None:
    for model in (User, UserTenant):
        SchemaManager(model, database=database.peewee).create_all()
    stamps = created(START_MS, UTC)
    for number, email in enumerate(("a@x.test", "A@X.test", "b@x.test")):
        database.insert(
            User, id=f"u{number}", nickname=f"N{number}", email=email, is_authenticated="1", is_active="1",
            is_anonymous="0", status="1", **stamps,
        )  # fmt: skip
    for number in range(2):
        database.insert(
            UserTenant, id=f"m{number}", user_id="u0", tenant_id="t", role="owner", invited_by="u0", status="1",
            **stamps,
        )  # fmt: skip
    before = [database.all(f"SELECT * FROM {table} ORDER BY id") for table in ("user", "user_tenant")]

    migrate(database, START_MS)

    assert [database.all(f"SELECT * FROM {table} ORDER BY id") for table in ("user", "user_tenant")] == before
    assert database.one("SELECT value FROM rk_state WHERE name = 'shared_database'") == (1,)


def test_keys_of_emails_are_those_of_the_rule_and_one_that_is_taken_stays(database: SqliteStore) -> None:
    migrate(database, START_MS)
    emails = ("stra\u00dfe@x.test", "a@\uff38.test", "a@x.test", "ada@x.test")
    for number, (email, key) in enumerate(zip(emails, ("strasse@x.test", "a@\uff58.test", *emails[2:]), strict=True)):
        database.insert(Account, user_id=f"u{number}", email_key=key, nickname_key="", created_at=0)
        database.insert(
            User, id=f"u{number}", nickname="", email=email, is_authenticated="1", is_active="1", is_anonymous="0"
        )
    database.run("DELETE FROM rk_migration WHERE number = 4")

    assert [step.number for step in migrate(database, START_MS)] == [4]

    keys = [key for (key,) in database.all("SELECT email_key FROM rk_account ORDER BY user_id")]
    assert keys == ["stra\u00dfe@x.test", "a@\uff58.test", "a@x.test", "ada@x.test"]


def test_tokens_of_before_have_no_maker_and_stay_what_they_are(plane: Plane) -> None:
    database = plane.database
    database.insert(TokenTrait, token_id="t", scopes="read:dataset")
    database.run("ALTER TABLE rk_token_trait DROP COLUMN made_by")
    database.run("DELETE FROM rk_migration WHERE number = 14")

    assert [step.number for step in migrate(database, START_MS)] == [14]

    assert database.all("SELECT token_id, scopes, replaced_by, made_by FROM rk_token_trait") == [
        ("t", "read:dataset", None, None)
    ]
    # As where a start broke off after the column was made.
    database.run("DELETE FROM rk_migration WHERE number = 14")
    assert [step.number for step in migrate(database, START_MS)] == [14]
