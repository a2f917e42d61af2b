"""Applies the numbered migrations: additive, each once, one process at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from common.migrations import (
    m0001_initial,
    m0002_jobs,
    m0003_page_indexes,
    m0004_email_keys,
    m0005_variables,
    m0006_audit,
    m0007_sessions,
    m0008_registration,
    m0009_token_traits,
    m0010_role_holders,
    m0011_audit_actors,
    m0012_audit_actor_names,
    m0013_retired_tokens,
    m0014_token_makers,
)
from common.models.base import Table
from common.models.operation import Migration
from common.stores.database import Database


class Step(NamedTuple):
    """A migration: its number, its name, and what it does to the database at a moment (UTC milliseconds).

    ``makes`` are the tables that it makes where they are missing.
    """

    number: int
    name: str
    apply: Callable[[Database, int], None]
    makes: Sequence[type[Table]] = ()


STEPS: tuple[Step, ...] = (
    Step(1, "initial", m0001_initial.apply, (*m0001_initial.OWN, *m0001_initial.RAGFLOW)),
    Step(2, "jobs", m0002_jobs.apply, m0002_jobs.MAKES),
    Step(3, "page_indexes", m0003_page_indexes.apply),
    Step(4, "email_keys", m0004_email_keys.apply),
    Step(5, "variables", m0005_variables.apply, m0005_variables.MAKES),
    Step(6, "audit", m0006_audit.apply, m0006_audit.MAKES),
    Step(7, "sessions", m0007_sessions.apply, m0007_sessions.MAKES),
    Step(8, "registration", m0008_registration.apply, m0008_registration.MAKES),
    Step(9, "token_traits", m0009_token_traits.apply, m0009_token_traits.MAKES),
    Step(10, "role_holders", m0010_role_holders.apply),
    Step(11, "audit_actors", m0011_audit_actors.apply),
    Step(12, "audit_actor_names", m0012_audit_actor_names.apply),
    Step(13, "retired_tokens", m0013_retired_tokens.apply, m0013_retired_tokens.MAKES),
    Step(14, "token_makers", m0014_token_makers.apply),
)


def pending(database: Database) -> list[Step]:
    """The migrations that this database has not had yet, in order."""
    if Migration._meta.table_name not in database.tables():
        return list(STEPS)
    applied = {number for (number,) in database.all("SELECT number FROM rk_migration")}
    return [step for step in STEPS if step.number not in applied]


def tables_to_be_made(steps: Sequence[Step], present: Collection[str]) -> list[str]:
    """The tables that applying these steps would add to those that are there, by name."""
    makes = [model for step in steps for model in step.makes]
    if steps:
        makes.append(Migration)
    return sorted({model._meta.table_name for model in makes}.difference(present))


def migrate(database: Database, now_ms: int) -> list[Step]:
    """Apply what is pending; returns the steps that were applied.

    Two processes that start at once do not meet: a step looks again once it is alone. One that broke off is repeated
    from its beginning, on some stores with what it had done still there.
    """
    applied = []
    for step in pending(database):
        with database.migrating():
            database.create(Migration)
            if database.one("SELECT 1 FROM rk_migration WHERE number = ?", (step.number,)):
                continue
            step.apply(database, now_ms)
            database.insert(Migration, number=step.number, name=step.name, applied_at=now_ms)
        applied.append(step)
    return applied
