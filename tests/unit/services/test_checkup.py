"""What ``doctor`` finds, what it repairs, and what it leaves to a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.services import accounts, checkup, home_checks, recovery, settings
from common.services.plane import Plane
from tests.breaking import take_away
from tests.people import Clock, Person, World
from tests.roles import SHELL


@pytest.fixture
def ann(world: World, root: Person) -> Person:
    """Somebody beside a superuser, in a plane where all is well."""
    person = world.person("ann@example.org")
    assert unwell(world.plane) == {}
    return person


def unwell(plane: Plane, *, fix: bool = False) -> dict[str, str]:
    """State of each finding that isn't ok, by its check."""
    return {finding.check: finding.state for finding in checkup.examine(plane, fix=fix) if finding.state != "ok"}


def count(plane: Plane, sql: str, *params: str) -> int:
    row = plane.database.one(sql, params)
    assert row
    return int(row[0])


# What breaks, the check that finds it. {id} is Ann's.
REPAIRED = [
    ("DELETE FROM rk_account WHERE user_id = '{id}'", "e-mails"),
    ("INSERT INTO rk_account VALUES ('gone', 'gone@example.org', '', 0, 1, NULL)", "e-mails"),
    ("DELETE FROM user_tenant WHERE user_id = '{id}'", "home tenants"),
    ("DELETE FROM tenant WHERE id = '{id}'", "home tenants"),
    ("UPDATE user_tenant SET role = 'normal' WHERE user_id = '{id}'", "home tenants"),
    ("DELETE FROM file WHERE tenant_id = '{id}'", "root folders"),
    ("DELETE FROM rk_membership WHERE user_id = '{id}'", "memberships"),
    ("INSERT INTO rk_membership VALUES ('{id}', 'gone', 'gone')", "memberships"),
    (
        "INSERT INTO rk_token VALUES ('t', 'sha256:x', '{id}', 'gone', 'ragflow-a…z', 'b…', NULL, 1, NULL, NULL)",
        "tokens",
    ),
    ("INSERT INTO api_token (tenant_id, token) VALUES ('gone', 'sha256:y')", "tokens"),
]


@pytest.mark.parametrize(("statement", "check"), REPAIRED)
def test_it_finds_what_is_broken_changes_nothing_unasked_and_repairs_it_once(
    world: World, ann: Person, statement: str, check: str
) -> None:
    plane = world.plane
    plane.database.run(statement.format(id=ann.user_id))

    assert unwell(plane)[check] == "fixable"
    assert unwell(plane)[check] == "fixable"
    assert unwell(plane, fix=True)[check] == "fixed"
    unwell(plane, fix=True)
    assert unwell(plane) == {}
    assert count(plane, "SELECT COUNT(*) FROM rk_audit_event WHERE tag = 'plane:repair'") >= 1
    home = "SELECT COUNT(*) FROM user_tenant WHERE user_id = ? AND tenant_id = ? AND role = 'owner'"
    assert count(plane, home, ann.user_id, ann.user_id) == 1
    # RAGFlow shows whichever it finds first.
    roots = "SELECT COUNT(*) FROM file WHERE tenant_id = ? AND parent_id = id"
    assert count(plane, roots, ann.user_id) == 1


def test_whoever_has_nothing_but_an_account_gets_a_home_with_its_folder_at_once(world: World, ann: Person) -> None:
    for table, column in (("user_tenant", "user_id"), ("tenant", "id"), ("file", "tenant_id")):
        world.plane.database.run(f"DELETE FROM {table} WHERE {column} = ?", (ann.user_id,))

    unwell(world.plane, fix=True)

    assert unwell(world.plane) == {}


def test_a_token_that_a_repair_removes_is_still_known_while_its_account_is_there(world: World, ann: Person) -> None:
    plane = world.plane
    made = ann.ask("POST", "/api/v1/system/tokens", {}).json["data"]  # type: ignore[index]
    plane.database.run("DELETE FROM api_token")
    plane.database.run("INSERT INTO rk_token VALUES ('t', 'sha256:x', 't', 'gone', 'r…z', 'b…', NULL, 1, NULL, NULL)")

    assert unwell(plane, fix=True)["tokens"] == "fixed"

    assert world.api.ask("GET", "/v1/user/info", credential=made["token"]).status_code == 401
    ((_, email, *_, after),) = world.events("token:misuse")
    assert (email, after) == (ann.email, '{"reason":"removed by a repair"}')
    assert plane.database.all("SELECT token_name FROM rk_retired_token") == [(made["id"],)]


def test_tokens_that_nobody_uses_are_counted_and_nothing_is_wrong_with_them(
    world: World, ann: Person, clock: Clock
) -> None:
    ann.ask("POST", "/api/v1/system/tokens", {})

    def told() -> tuple[str, str]:
        (found,) = [each for each in checkup.examine(world.plane) if each.check == "unused tokens"]
        return found.state, found.message

    clock.forward(days=89)
    assert told() == ("ok", "")
    clock.forward(days=1)
    assert told() == ("ok", "not used for 90 days: 1")


def test_a_repaired_account_can_log_in(world: World, ann: Person) -> None:
    world.plane.database.run("DELETE FROM rk_account WHERE user_id = ?", (ann.user_id,))
    unwell(world.plane, fix=True)
    assert ann.session


def test_two_accounts_with_one_e_mail_are_left_to_a_person(world: World, ann: Person) -> None:
    other = world.person("other@example.org")
    world.plane.database.run("DELETE FROM rk_account WHERE user_id = ?", (other.user_id,))
    world.plane.database.run("UPDATE user SET email = 'Ann@Example.org' WHERE id = ?", (other.user_id,))
    assert unwell(world.plane, fix=True) == {"e-mails": "problem"}


def test_two_accounts_that_an_earlier_rule_told_apart_are_named_until_one_gets_another_address(
    world: World, ann: Person
) -> None:
    plane, other = world.plane, world.person("other@example.org")
    # What a migration leaves, because the new key is Ann's.
    plane.database.run("UPDATE user SET email = ? WHERE id = ?", ("ann@\uff45xample.org", other.user_id))
    plane.database.run("UPDATE rk_account SET email_key = ? WHERE user_id = ?", ("ann@\uff45xample.org", other.user_id))

    [told] = [each for each in checkup.examine(plane, fix=True) if each.state != "ok"]
    assert told.state == "problem"
    for named in (ann.user_id, ann.email, other.user_id, "ann@\uff45xample.org"):
        assert named in told.message

    # As it is told to be done.
    plane.database.run("UPDATE user SET email = 'other@example.com' WHERE id = ?", (other.user_id,))
    assert unwell(plane, fix=True) == {"e-mails": "fixed"}
    assert unwell(plane) == {}
    found = accounts.find(plane, "other@example.com")
    assert found is not None
    assert found.id == other.user_id


def test_a_key_of_an_earlier_rule_that_is_free_now_is_written_anew(world: World, ann: Person) -> None:
    plane = world.plane
    plane.database.run("UPDATE rk_account SET email_key = 'before' WHERE user_id = ?", (ann.user_id,))
    assert unwell(plane, fix=True) == {"e-mails": "fixed"}
    assert unwell(plane) == {}
    assert ann.session


def test_a_tenant_without_owner_is_left_to_a_person(world: World, ann: Person) -> None:
    with world.plane.database.transaction():
        accounts.make_tenant(world.plane, tenant_id="lost", owner_id=ann.user_id, name="Lost")
    world.plane.database.run("UPDATE user_tenant SET role = 'normal' WHERE tenant_id = 'lost'")
    assert unwell(world.plane, fix=True) == {"tenant owners": "problem"}


def test_without_an_active_superuser_it_says_so_until_one_is_recovered(world: World, ann: Person) -> None:
    world.plane.database.run("UPDATE user SET is_active = '0' WHERE is_superuser = ?", (True,))
    assert unwell(world.plane, fix=True) == {"superusers": "problem"}
    recovery.recover_admin(world.plane, ann.email)
    assert unwell(world.plane) == {}


def test_a_secret_that_no_key_opens_is_named(world: World, ann: Person) -> None:
    world.plane.database.run(
        "INSERT INTO tenant_langfuse (tenant_id, secret_key, public_key, host) VALUES (?, 'rk1:nonsense', 'pk', 'h')",
        (ann.user_id,),
    )
    assert unwell(world.plane, fix=True) == {"secrets": "problem"}


def test_a_secret_setting_that_no_key_opens_is_named(world: World, ann: Person) -> None:
    settings.set_variable(world.plane, SHELL, "mail.password", "the mail password")
    assert unwell(world.plane) == {}
    # As after a restore beside another secret key.
    world.plane.database.run("UPDATE rk_variable SET value = 'rk2:nonsense:nonsense'")

    assert unwell(world.plane, fix=True) == {"secrets": "problem"}


def test_jobs_that_are_overdue_or_dead_are_named(world: World, ann: Person, clock: Clock) -> None:
    insert = "INSERT INTO rk_job (kind, payload, state, attempts, visible_at, created_at) VALUES (?, '{}', ?, 0, ?, 1)"
    world.plane.database.run(insert, ("slow", "ready", clock.now))
    assert unwell(world.plane) == {}
    clock.forward(hours=1)
    assert unwell(world.plane, fix=True) == {"jobs": "problem"}
    world.plane.database.run("UPDATE rk_job SET state = 'dead'")
    assert unwell(world.plane, fix=True) == {"jobs": "problem"}


def test_a_store_that_is_down_is_named(plane: Plane) -> None:
    plane.documents.close()
    take_away(plane, "documents")
    assert unwell(plane)["stores"] == "problem"


def home_states(plane: Plane, *, fix: bool = False) -> tuple[dict[str, str], bool]:
    findings, can_open = home_checks.examine_home(plane.settings, fix=fix)
    return {finding.check: finding.state for finding in findings if finding.state != "ok"}, can_open


def test_a_home_that_others_may_read_is_closed_to_them(plane: Plane) -> None:
    assert home_states(plane) == ({}, True)
    plane.settings.home.chmod(0o755)
    (plane.settings.home / "secret_key").chmod(0o644)
    assert home_states(plane) == ({"home": "fixable"}, True)
    assert home_states(plane, fix=True) == ({"home": "fixed"}, True)
    assert home_states(plane) == ({}, True)
    assert (plane.settings.home / "secret_key").stat().st_mode & 0o777 == 0o600


def test_a_lost_key_is_made_anew_only_when_asked_to(plane: Plane) -> None:
    key = plane.settings.home / "secret_key"
    key.unlink()
    assert home_states(plane) == ({"keys": "fixable"}, False)
    assert not key.exists()
    assert home_states(plane, fix=True) == ({"keys": "fixed"}, True)
    assert key.exists()


def test_a_broken_key_is_left_to_a_person(plane: Plane) -> None:
    (plane.settings.home / "secret_key").write_text("short")
    assert home_states(plane, fix=True) == ({"keys": "problem"}, False)


def test_a_database_without_its_latest_migrations_gets_them(plane: Plane) -> None:
    plane.database.run("DELETE FROM rk_migration WHERE number > 2")
    assert home_states(plane) == ({"migrations": "fixable"}, False)
    assert home_states(plane, fix=True) == ({"migrations": "fixed"}, True)


@pytest.mark.embedded
@pytest.mark.parametrize("is_known", [False, True])
def test_an_empty_file_gets_its_migrations_only_in_a_home_that_never_had_any(plane: Plane, is_known: bool) -> None:
    database = plane.settings.database_path
    plane.database.close()
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()
    if not is_known:
        (plane.settings.home / "database_id").unlink()
    assert home_states(plane) == ({"migrations": "problem"}, False)
    assert not database.exists()
    database.touch(mode=0o600)
    assert home_states(plane) == ({"migrations": "problem" if is_known else "fixable"}, False)
    outcome = ({"migrations": "problem"}, False) if is_known else ({"migrations": "fixed"}, True)
    assert home_states(plane, fix=True) == outcome


def test_a_home_that_is_missing_is_not_made(plane: Plane, tmp_path: Path) -> None:
    settings = plane.settings.model_copy(update={"home": tmp_path / "none"})
    findings, can_open = home_checks.examine_home(settings, fix=True)
    assert [finding.state for finding in findings] == ["problem"]
    assert not can_open
    assert not (tmp_path / "none").exists()
