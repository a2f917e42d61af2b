"""A start on a database that was emptied: nothing is made, and it says what happened and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.core.errors import StoreUnavailable
from common.services import database_mark, database_report, first_start, home_checks, opening
from common.services.database_mark import DatabaseEmptied
from common.services.plane import Plane
from common.settings import Settings
from tests.people import START_MS, Person, settings_for

NUMBER = "SELECT value FROM rk_state WHERE name = 'database_id'"


def empty(plane: Plane) -> None:
    """Drop every table, as if another database had come in the place of this one."""
    for table in plane.database.tables() - {"sqlite_sequence"}:
        plane.database.run(f"DROP TABLE {table}")
    plane.database.close()


def mark_of(plane: Plane) -> Path:
    return plane.settings.home / database_mark.NAME


def elsewhere(settings: Settings, home: Path) -> Settings:
    """Another home on the same stores."""
    return settings.model_copy(update={"home": home})


def test_a_home_notes_the_number_of_its_database_and_keeps_it(plane: Plane) -> None:
    mark = mark_of(plane)
    [(number,)] = plane.database.all(NUMBER)
    assert mark.stat().st_mode & 0o777 == 0o600
    noted = mark.read_text()
    assert noted.splitlines()[0] == str(number)
    opening.open_plane(plane.settings)
    assert plane.database.all(NUMBER) == [(number,)]
    assert mark.read_text() == noted


def test_homes_that_share_a_database_note_the_same_and_each_knows_it_when_it_is_emptied(
    plane: Plane, tmp_path: Path
) -> None:
    other = elsewhere(plane.settings, tmp_path / "other")
    opening.open_plane(other).database.close()
    noted = [path.read_text().splitlines()[0] for path in (other.home / database_mark.NAME, mark_of(plane))]
    assert noted[0] == noted[1]
    empty(plane)
    with pytest.raises(DatabaseEmptied):
        opening.open_plane(other)


def test_a_home_from_before_there_were_marks_gets_one(plane: Plane) -> None:
    mark_of(plane).unlink()
    plane.database.run("DELETE FROM rk_state WHERE name = 'database_id'")
    opening.open_plane(plane.settings).database.close()
    assert mark_of(plane).read_text().splitlines()[0] == str(plane.database.all(NUMBER)[0][0])


def test_a_start_on_an_emptied_database_is_unready_and_makes_nothing(plane: Plane, root: Person) -> None:
    empty(plane)
    again, down = opening.open_unready(plane.settings)
    assert isinstance(down, DatabaseEmptied)
    assert down.reason == (
        "the database has none of Ragkeeper's tables, and this home has used one that was not empty: bring the data "
        f"back from a backup, or remove {mark_of(plane)} and start again to begin with an empty database"
    )
    with pytest.raises(StoreUnavailable):
        again.database.one("SELECT 1 FROM user")
    with pytest.raises(StoreUnavailable):
        again.database.health()
    assert "rk_migration" not in again.database.tables()
    with pytest.raises(DatabaseEmptied):
        opening.open_plane(plane.settings)
    assert again.database.tables() <= {"sqlite_sequence"}


def test_it_goes_on_when_the_data_is_back_and_begins_anew_when_the_mark_is_removed(plane: Plane) -> None:
    before = mark_of(plane).read_text()
    empty(plane)
    again, _ = opening.open_unready(plane.settings)
    waits: list[float] = []

    def remove_the_mark(wait_s: float) -> None:
        waits.append(wait_s)
        mark_of(plane).unlink()

    assert first_start.catch_up(again, True, pause=remove_the_mark) is not None
    assert len(waits) == 1
    assert again.database.one("SELECT COUNT(*) FROM user") == (1,)
    assert mark_of(plane).read_text() not in ("", before)


def test_a_home_that_is_pointed_at_another_empty_database_begins_there(plane: Plane, tmp_path: Path) -> None:
    settings = settings_for(plane.settings.home, RAGKEEPER_DB_URL=f"sqlite:///{tmp_path / 'another.db'}")
    another = opening.open_plane(settings)
    assert opening.first_administrator(another) is not None
    another.database.close()


def test_a_database_that_was_begun_and_never_migrated_counts_as_emptied(plane: Plane) -> None:
    plane.database.run("DELETE FROM rk_migration")
    with pytest.raises(DatabaseEmptied):
        opening.open_plane(plane.settings)


def test_doctor_tells_of_it_and_repairs_nothing(plane: Plane) -> None:
    empty(plane)
    findings, can_open = home_checks.examine_home(plane.settings, fix=True)
    assert not can_open
    [told] = [finding for finding in findings if finding.check == "migrations"]
    assert told.state == "problem"
    assert f"remove {mark_of(plane)}" in told.message
    report = database_report.report(plane.settings, START_MS)
    assert not report["usable"]
    assert report["migrations"] == []
    assert [each["message"] for each in report["remarks"] if each["about"] == "database"] == [told.message]
    assert "rk_migration" not in plane.database.tables()


def test_a_mark_that_cant_be_written_is_told_and_stops_nothing(
    plane: Plane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database_mark.leave(elsewhere(plane.settings, tmp_path / "nowhere"), plane.database)
    assert "an emptied database would be taken for a new one" in caplog.text


def test_an_embedded_file_that_is_missing_is_not_made_anew_and_used_when_it_is_back(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "home", RAGKEEPER_DB_URL="sqlite:///kept.db")
    file, aside = settings.database_path, tmp_path / "aside.db"
    opened = opening.open_plane(settings)
    opening.first_administrator(opened)
    opened.database.close()
    file.rename(aside)
    again, down = opening.open_unready(settings)
    assert isinstance(down, DatabaseEmptied)
    assert down.reason.startswith(f"{file} is missing, and this home has used one that was not empty")
    with pytest.raises(StoreUnavailable):
        again.database.one("SELECT 1 FROM user")
    assert not home_checks.examine_home(settings, fix=True)[1]
    report = database_report.report(settings, START_MS)
    assert (report["usable"], report["migrations"]) == (False, [])
    assert not file.exists()

    assert first_start.catch_up(again, True, pause=lambda _: aside.rename(file) and None) is None
    assert again.database.one("SELECT COUNT(*) FROM user") == (1,)
    again.database.close()
