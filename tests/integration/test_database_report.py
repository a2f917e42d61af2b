"""``ragkeeper doctor --database``: what it finds before the first start, and that it leaves all of it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import Result
from typer.testing import CliRunner

from common.cli.main import app
from common.core.errors import StoreUnavailable
from common.services import checkup, opening
from common.stores.database_facts import looking_at
from tests.backends.mariadb import MariadbServer
from tests.people import Clock, settings_for
from tests.ragflow.fixtures import ONE_VERSION, Site
from tests.ragflow.people import Population
from tests.servers import environment_for

GENERATIONS = {"0.22": "0.22 or 0.23", "0.24": "0.24", "0.27": "0.27"}


def ask(site: Site, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    for name, value in environment_for(site.home, **site.environment).items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(app, ["doctor", "--database", *options])


def told(site: Site, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(ask(site, monkeypatch, "--json").stdout)
    return found


def remarks(found: dict[str, Any], about: str) -> str:
    return "\n".join(remark["message"] for remark in found["remarks"] if remark["about"] == about)


def everything(site: Site) -> Any:
    """All that a look could change: schema and rows, the files of a home, the tables of ours."""
    database = site.database
    if database.dialect == "mysql":
        tables = database.all("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
        return database.definitions(), database.rows(), sorted(tables)
    files = {path: path.read_bytes() for path in site.home.rglob("*") if not path.name.endswith("-shm")}
    return database.definitions(), database.rows(), files


def test_before_the_first_start_it_tells_what_is_there_and_changes_nothing(
    site: Site, population: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(site)

    found = told(site, monkeypatch)

    assert everything(site) == before
    assert found["usable"]
    assert found["shared"]
    assert found["ragflow"] == GENERATIONS[site.database.version]
    assert found["server"]["kind"] == ("mariadb" if site.database.dialect == "mysql" else "sqlite")
    assert found["server"]["version"]
    assert found["server"]["missing_rights"] == []
    assert found["tables"]["user"] == {"rows": len(population.everybody), "exact": True}
    assert found["migrations"][0] == "0001 initial"
    assert "tenant_langfuse" not in found["migrations"][-1]


def announced(found: dict[str, Any]) -> list[str]:
    """The tables that a start would make."""
    [line] = [line for line in found["migrations"] if line.startswith("tables to be made: ")]
    return str(line).removeprefix("tables to be made: ").split(", ")


def test_a_start_makes_exactly_the_tables_that_were_announced(
    site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One of RAGFlow's that its versions may lack.
    site.database.all("DROP TABLE user_canvas")
    before = told(site, monkeypatch)

    site.open(clock).database.close()

    assert announced(before) == sorted(told(site, monkeypatch)["tables"].keys() - before["tables"].keys())
    assert {"rk_migration", "rk_schedule", "rk_expiry_notice", "user_canvas"} <= set(announced(before))


@ONE_VERSION
def test_a_start_of_a_later_version_makes_exactly_what_was_announced(
    site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.open(clock).database.close()
    for statement in ("DELETE FROM rk_migration WHERE number > 1", "DROP TABLE rk_schedule"):
        site.database.all(statement)

    assert announced(told(site, monkeypatch)) == ["rk_schedule"]
    site.open(clock).database.close()
    assert told(site, monkeypatch)["migrations"] == []


def test_where_there_is_no_database_a_start_makes_exactly_the_tables_that_were_announced(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(None, tmp_path / "home", {})  # type: ignore[arg-type]
    before = told(site, monkeypatch)

    site.open(clock).database.close()

    assert announced(before) == sorted(told(site, monkeypatch)["tables"])


def test_it_names_doubles_and_counts_what_is_amiss(
    site: Site, population: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = told(site, monkeypatch)

    doubles = remarks(found, "e-mails")
    if site.database.version != "0.27":
        assert "2 e-mails belong to several accounts" in doubles
        assert "twin@ragflow.test" in doubles
        assert "case@ragflow.test" in doubles
    assert "1 accounts have an e-mail that is none" in doubles
    assert "1 memberships stand there twice or more" in remarks(found, "memberships")
    assert "1 accounts have no password" in remarks(found, "passwords")
    assert "1 accounts have no status" in remarks(found, "status")
    assert "1 accounts do not own their home tenant" in remarks(found, "homes")
    # The organisation, and that of the account which is marked as deleted.
    assert "2 tenants have no owner" in remarks(found, "owners")
    orphans = remarks(found, "orphans")
    assert "2 memberships are of accounts that are gone" in orphans
    assert "2 memberships are in tenants that are gone" in orphans
    for what in ("1 tokens", "1 Langfuse credentials", "1 files"):
        assert what in orphans


def test_a_person_reads_the_same_and_no_password(
    site: Site, population: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ask(site, monkeypatch)

    assert answer.exit_code == 0
    assert "RAGFlow's tables: " + GENERATIONS[site.database.version] in answer.stdout
    assert "twin@ragflow.test" in answer.stdout or site.database.version == "0.27"
    secret = site.environment.get("RAGKEEPER_DB_URL", "//:no secret@").split("@")[0].rsplit(":", 1)[1]
    assert secret not in answer.output
    assert secret not in ask(site, monkeypatch, "--json").output


@ONE_VERSION
def test_after_the_first_start_there_is_nothing_to_apply(
    site: Site, population: Population, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.open(clock).database.close()

    found = told(site, monkeypatch)

    assert found["migrations"] == []
    assert found["shared"]
    assert "rk_account" in found["tables"]


@ONE_VERSION
def test_where_there_is_no_superuser_the_first_start_makes_one_in_four_rows_as_was_announced(
    site: Site, population: Population, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.database.all("UPDATE user SET is_superuser = 0, email = 'former@ragflow.test' WHERE is_superuser = 1")
    before = site.database.rows()

    assert remarks(told(site, monkeypatch), "superusers") == "there is no superuser: the first start makes one"
    plane = site.open(clock)
    assert opening.first_administrator(plane) is not None
    plane.database.close()

    after = site.database.rows()
    more = {table: len(rows) - len(before[table]) for table, rows in after.items() if rows != before[table]}
    assert more == dict.fromkeys(("user", "tenant", "user_tenant", "file"), 1)
    assert all(after[table][key] == row for table, rows in before.items() for key, row in rows.items())
    assert remarks(told(site, monkeypatch), "superusers") == ""


@ONE_VERSION
def test_beside_a_superuser_who_is_switched_off_a_start_makes_none_and_none_is_announced(
    site: Site, population: Population, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.database.all("UPDATE user SET is_active = '0' WHERE is_superuser = 1")

    assert "recover-admin" in remarks(told(site, monkeypatch), "superusers")
    plane = site.open(clock)
    assert opening.first_administrator(plane) is None
    plane.database.close()


@pytest.mark.parametrize(
    "broken",
    [
        "UPDATE user_tenant SET status = '0' WHERE role = 'owner' AND user_id = '{bob}'",
        "UPDATE user SET status = '0' WHERE id = '{bob}'",
        "UPDATE user SET status = NULL WHERE id = '{bob}'",
        "UPDATE tenant SET status = '0' WHERE id = '{organisation}'",
        "UPDATE user_tenant SET role = 'owner' WHERE tenant_id = '{organisation}'",
        "UPDATE user_tenant SET tenant_id = '{organisation}' WHERE role = 'owner' AND user_id = '{bob}'",
    ],
)
@ONE_VERSION
def test_before_a_start_and_after_it_the_same_tenants_have_no_owner_and_the_same_accounts_no_home(
    site: Site, population: Population, clock: Clock, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    site.database.all(broken.format(bob=population["bob"].id, organisation=population.organisation))
    found = told(site, monkeypatch)

    plane = site.open(clock)
    findings = [finding for finding in checkup.examine(plane) if finding.state != "ok"]
    plane.database.close()

    for about, check in (("owners", "tenant owners"), ("homes", "home tenants")):
        first = remarks(found, about).split(" ")[0] or "0"
        assert first == str(sum(finding.check == check for finding in findings)), about


@ONE_VERSION
def test_another_programs_table_of_that_name_is_a_problem(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.database.all(
        "ALTER TABLE user DROP COLUMN nickname" if site.database.dialect == "mysql" else "DROP TABLE user"
    )
    if site.database.dialect == "sqlite":
        site.database.all("CREATE TABLE user (id VARCHAR(32) PRIMARY KEY, email TEXT)")

    answer = ask(site, monkeypatch, "--json")

    assert answer.exit_code == 1
    assert "user lacks" in remarks(orjson.loads(answer.stdout), "RAGFlow")


@ONE_VERSION
def test_a_table_of_a_later_ragflow_that_a_purge_would_leave_alone_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.database.all("CREATE TABLE memory (id VARCHAR(32) PRIMARY KEY, tenant_id VARCHAR(32))")

    assert "memory" in remarks(told(site, monkeypatch), "tables")


def test_without_a_database_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_for(tmp_path / "home").items():
        monkeypatch.setenv(name, value)

    answer = CliRunner().invoke(app, ["doctor", "--database"])

    assert answer.exit_code == 0
    assert "does not exist" in answer.stdout
    assert not (tmp_path / "home").exists()


class TestServer:
    """What only a server has."""

    @pytest.fixture
    def limited(self, mariadb_server: MariadbServer, schema: str, tmp_path: Path) -> Site:
        """The site of a user that may read one schema, and no more."""
        from tests.ragflow.program import Ragflow

        mariadb_server.ask("CREATE OR REPLACE USER 'reader'@'127.0.0.1' IDENTIFIED BY 'hidden-word'")
        mariadb_server.ask(f"GRANT SELECT, INSERT ON `{schema}`.* TO 'reader'@'127.0.0.1'")
        url = f"mysql://reader:hidden-word@127.0.0.1:{mariadb_server.port}/{schema}"
        environment = {"RAGKEEPER_DB_URL": url, "RAGKEEPER_SECRET_KEY": "k" * 40}
        return Site(Ragflow(None, "", 0), tmp_path / "home", environment)  # type: ignore[arg-type]

    def test_rights_that_are_missing_are_a_problem_that_names_them(
        self, limited: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = ask(limited, monkeypatch, "--json")

        assert answer.exit_code == 1
        found = orjson.loads(answer.stdout)
        assert found["server"]["missing_rights"] == ["UPDATE", "DELETE", "CREATE", "ALTER", "INDEX"]
        assert "GRANT UPDATE, DELETE, CREATE, ALTER, INDEX" in remarks(found, "rights")
        assert "hidden-word" not in answer.output

    def test_a_server_that_refuses_is_one_sentence(self, limited: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        limited.environment["RAGKEEPER_DB_URL"] = limited.environment["RAGKEEPER_DB_URL"].replace(
            "hidden-word", "wrong"
        )

        answer = ask(limited, monkeypatch)

        assert answer.exit_code == 1
        assert "refuses the user name or the password" in answer.output

    def test_tables_of_several_collations_are_a_problem(
        self, mariadb_server: MariadbServer, limited: Site, schema: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for table, collation in (("user", "utf8mb4_general_ci"), ("tenant", "utf8mb4_unicode_ci")):
            mariadb_server.ask(f"CREATE TABLE {schema}.{table} (id VARCHAR(32)) COLLATE {collation}")

        found = orjson.loads(ask(limited, monkeypatch, "--json").stdout)

        assert "utf8mb4_general_ci, utf8mb4_unicode_ci" in remarks(found, "characters")


@ONE_VERSION
def test_a_look_can_not_write_even_if_it_is_told_to(site: Site, population: Population) -> None:
    settings = settings_for(site.home, **site.environment)
    before = everything(site)

    for statement in ("DELETE FROM user", "UPDATE user SET nickname = ''", "CREATE TABLE rk_mark (id INTEGER)"):
        with looking_at(settings.mysql, settings.database_path) as look, pytest.raises(StoreUnavailable):
            look.all(statement)

    assert everything(site) == before
