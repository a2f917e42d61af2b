"""What ``ragkeeper doctor --database`` tells of a database, before anything of ours is in it; reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from common.core.emails import MAX_LENGTH, email_key
from common.core.errors import StoreUnavailable
from common.migrations.m0001_initial import RAGFLOW
from common.migrations.runner import STEPS, Step, tables_to_be_made
from common.services import database_mark
from common.services.belongings import LINKS, TENANT_COLUMNS, unknown_among
from common.services.checkup import WITHOUT_HOME, WITHOUT_OWNER
from common.settings import Settings
from common.stores.database_facts import Look, ServerFacts, TableFacts, looking_at

#: Of what there may be thousands, so many are named.
NAMED = 20
_CLOCK_OFF_MS = 60_000
# Groups of addresses that the database takes for one; those that we do are among them.
_CANDIDATES = 1000

State = Literal["ok", "note", "problem"]
# What a question is about, the tables that it needs, and how it is answered: by sentences about what is amiss.
_Question = tuple[str, set[str], Callable[[Look], Iterator[str]]]
_RAGFLOWS = LINKS.keys() | {model._meta.table_name for model in RAGFLOW}


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that was looked at. A ``note`` is tolerated; a ``problem`` has to be put right first."""

    about: str
    state: State
    message: str


def report(settings: Settings, now_ms: int) -> dict[str, Any]:
    """What stands in the database, and what a start would do to it.

    ``{usable, server, shared, ragflow, tables: {name: {rows, exact}}, migrations, remarks: [{about, state,
    message}]}``; ``usable`` is False when a remark is a problem. Raises StoreUnavailable when it can't be reached.
    """
    if settings.mysql is None and not settings.database_path.exists():
        return _about_no_file(settings)
    with looking_at(settings.mysql, settings.database_path) as look:
        server, tables = look.server(), look.tables()
        remarks = [*_about_server(server, tables, now_ms), *_about_rows(look, tables)]
        steps = _pending(look, tables)
        if len(steps) == len(STEPS) and database_mark.is_left(settings):
            remarks.append(_about_emptied(settings))
            steps = []
        shared = _is_shared(settings, look, tables)
    generation = ragflow_generation(tables)
    remarks.append(_about_ragflow(generation, tables))
    return {
        "usable": all(remark.state != "problem" for remark in remarks),
        "server": asdict(server),
        "shared": shared,
        "ragflow": generation,
        "tables": {name: {"rows": table.rows, "exact": table.exact} for name, table in tables.items()},
        "migrations": _told(steps, tables),
        "remarks": [asdict(remark) for remark in remarks],
    }


def ragflow_generation(tables: dict[str, TableFacts]) -> str | None:
    """Which versions of RAGFlow have tables like these: told by what each added; None where there are none."""
    user = tables.get("user")
    if user is None or not _fits(tables):
        return None
    if "tenant_llm_id" in tables["tenant"].columns:
        return "0.27"
    if ("email",) in user.unique:
        return "0.25 or 0.26"
    return "0.24" if "system_settings" in tables else "0.22 or 0.23"


def _fits(tables: dict[str, TableFacts]) -> bool:
    return not _lacking(tables)


def _lacking(tables: dict[str, TableFacts]) -> dict[str, list[str]]:
    """By table that exists: columns that ours to be written have and it lacks."""
    found = {}
    for model in RAGFLOW:
        table = tables.get(model._meta.table_name)
        if table is not None:
            lacking = sorted({field.column_name for field in model._meta.sorted_fields} - table.columns)
            if lacking:
                found[table.name] = lacking
    if "user" in tables and "tenant" not in tables:
        found["tenant"] = ["all of it"]
    return found


def _about_ragflow(generation: str | None, tables: dict[str, TableFacts]) -> Remark:
    if "user" not in tables:
        return Remark("RAGFlow", "ok", "its tables are not here; the first start makes those that are needed")
    if generation is None:
        what = "; ".join(f"{table} lacks {', '.join(columns)}" for table, columns in _lacking(tables).items())
        return Remark("RAGFlow", "problem", f"there are tables that are not as RAGFlow has them: {what}")
    return Remark("RAGFlow", "ok", f"its tables are as version {generation} makes them")


def _about_server(server: ServerFacts, tables: dict[str, TableFacts], now_ms: int) -> Iterator[Remark]:
    if server.missing_rights:
        rights = ", ".join(server.missing_rights)
        yield Remark(
            "rights", "problem", f"{server.user} may not {rights} here: GRANT {rights} ON the database TO that user"
        )
    if server.read_only:
        yield Remark("server", "problem", "it is read-only")
    if server.charset not in (None, "utf8mb4"):
        yield Remark("characters", "note", f"new tables would be {server.charset}; ours are made as utf8mb4")
    collations = sorted({table.collation for name, table in tables.items() if table.collation and name in _RAGFLOWS})
    if len(collations) > 1:
        differ = f"RAGFlow's tables differ in collation, so they can't be joined: {_some(collations)}"
        yield Remark("characters", "problem", differ)
    if any(not collation.startswith("utf8") for collation in collations):
        yield Remark("characters", "problem", f"tables are not in UTF-8: {_some(collations)}")
    if server.clock_ms is not None and abs(server.clock_ms - now_ms) > _CLOCK_OFF_MS:
        off_s = (server.clock_ms - now_ms) / 1000
        yield Remark("clock", "note", f"the server's clock is {off_s:+.0f} s off this machine's")
    unknown = unknown_among(name for name, table in tables.items() if not table.columns.isdisjoint(TENANT_COLUMNS))
    if unknown:
        yield Remark("tables", "note", f"tables that deleting a user leaves alone, not being known: {_some(unknown)}")


def _about_rows(look: Look, tables: dict[str, TableFacts]) -> Iterator[Remark]:
    if not _fits(tables):
        return
    for about, needed, question in _QUESTIONS:
        if needed <= tables.keys():
            try:
                yield from (Remark(about, "note", message) for message in question(look))
            except StoreUnavailable as error:
                yield Remark(about, "note", f"could not be looked at: {error.reason}")


def _doubles(look: Look) -> Iterator[str]:
    """Several accounts with one e-mail, as this plane compares them."""
    alike = (
        "SELECT LOWER(email) AS lowered FROM user WHERE COALESCE(status, '1') <> '0' GROUP BY LOWER(email) "
        f"HAVING COUNT(*) > 1 LIMIT {_CANDIDATES}"
    )
    rows = look.all(
        f"SELECT u.email FROM user u JOIN ({alike}) AS alike ON LOWER(u.email) = alike.lowered "
        "WHERE COALESCE(u.status, '1') <> '0' ORDER BY u.email, u.id"
    )
    times = Counter(email_key(email) for (email,) in rows)
    doubles = [key for key, number in times.items() if number > 1]
    if doubles:
        yield (
            f"{len(doubles)}{' or more' if len(doubles) >= _CANDIDATES else ''} e-mails belong to several accounts, "
            f"of which the one with the lowest id logs in: {_some(doubles)}"
        )


def _double_memberships(look: Look) -> Iterator[str]:
    ((number,),) = look.all(
        "SELECT COUNT(*) FROM (SELECT tenant_id FROM user_tenant WHERE status = '1' GROUP BY tenant_id, user_id "
        "HAVING COUNT(*) > 1) AS doubles"
    )
    if number:
        yield f"{number} memberships stand there twice or more; the strongest role counts"


def _counted(sql: str, message: str) -> Callable[[Look], Iterator[str]]:
    def question(look: Look) -> Iterator[str]:
        ((number,),) = look.all(sql)
        if number:
            yield message.format(number)

    return question


def _orphans(
    table: str, column: str, parent: str, message: str
) -> tuple[str, set[str], Callable[[Look], Iterator[str]]]:
    sql = f"SELECT COUNT(*) FROM {table} x WHERE NOT EXISTS (SELECT 1 FROM {parent} p WHERE p.id = x.{column})"
    return "orphans", {table, parent}, _counted(sql, message)


_QUESTIONS: tuple[_Question, ...] = (
    ("e-mails", {"user"}, _doubles),
    ("e-mails", {"user"}, _counted(
        "SELECT COUNT(*) FROM user WHERE email NOT LIKE '%_@_%'", "{} accounts have an e-mail that is none")),
    ("memberships", {"user_tenant"}, _double_memberships),
    ("passwords", {"user"}, _counted(
        "SELECT COUNT(*) FROM user WHERE password IS NULL", "{} accounts have no password")),
    ("status", {"user"}, _counted(
        "SELECT COUNT(*) FROM user WHERE status IS NULL",
        "{} accounts have no status: they are shown, and can't log in")),
    ("superusers", {"user"}, _counted(
        "SELECT 1 - COUNT(*) FROM (SELECT id FROM user WHERE is_superuser = 1 AND status = '1' LIMIT 1) AS found",
        "there is no superuser: the first start makes one")),
    ("superusers", {"user"}, _counted(
        "SELECT MIN(is_active IS NULL OR is_active <> '1') FROM user WHERE is_superuser = 1 AND status = '1'",
        "no superuser is active: `ragkeeper recover-admin` gives you one")),
    ("homes", {"user", "tenant", "user_tenant"}, _counted(
        f"SELECT COUNT(*) FROM ({WITHOUT_HOME}) AS found", "{} accounts do not own their home tenant")),
    ("owners", {"user", "tenant", "user_tenant"}, _counted(
        f"SELECT COUNT(*) FROM ({WITHOUT_OWNER}) AS found", "{} tenants have no owner")),
    _orphans("user_tenant", "user_id", "user", "{} memberships are of accounts that are gone"),
    _orphans("user_tenant", "tenant_id", "tenant", "{} memberships are in tenants that are gone"),
    _orphans("api_token", "tenant_id", "tenant", "{} tokens are of tenants that are gone, and dead here"),
    _orphans("tenant_langfuse", "tenant_id", "tenant", "{} Langfuse credentials are of tenants that are gone"),
    _orphans("knowledgebase", "tenant_id", "tenant", "{} datasets are of tenants that are gone"),
    _orphans("file", "tenant_id", "tenant", "{} files are of tenants that are gone"),
    _orphans("document", "kb_id", "knowledgebase", "{} documents are of datasets that are gone"),
)  # fmt: skip


def _about_no_file(settings: Settings) -> dict[str, Any]:
    had_one = database_mark.is_left(settings)
    makes = Remark("database", "note", f"{settings.database_path} does not exist; the first start makes it")
    return {
        "usable": not had_one,
        "server": None,
        "shared": False,
        "ragflow": None,
        "tables": {},
        "migrations": [] if had_one else _told(STEPS, ()),
        "remarks": [asdict(_about_emptied(settings) if had_one else makes)],
    }


def _about_emptied(settings: Settings) -> Remark:
    return Remark("database", "problem", database_mark.DatabaseEmptied(settings).reason)


def _pending(look: Look, tables: dict[str, TableFacts]) -> list[Step]:
    applied = {number for (number,) in look.all("SELECT number FROM rk_migration")} if "rk_migration" in tables else ()
    return [step for step in STEPS if step.number not in applied]


def _told(steps: Sequence[Step], tables: Collection[str]) -> list[str]:
    made = tables_to_be_made(steps, tables)
    return [
        *(f"{step.number:04d} {step.name}" for step in steps),
        *([f"tables to be made: {', '.join(made)}"] if made else []),
    ]


def _is_shared(settings: Settings, look: Look, tables: dict[str, TableFacts]) -> bool:
    if settings.shared_database != "auto":
        return settings.shared_database == "on"
    noted = look.all("SELECT value FROM rk_state WHERE name = 'shared_database'") if "rk_state" in tables else []
    return bool(noted[0][0]) if noted else "user" in tables


def _some(names: Any) -> str:
    listed = [str(name) for name in names]
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(name[:MAX_LENGTH] for name in listed[:NAMED]) + more
