"""The home's note of what it wrote into the audit trail: who takes an event out with every trace of it is found."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress

import pytest

from common.core.audit_tags import EventTag
from common.services import audit, audit_check, audit_sealing, audit_written
from common.services.audit_written import GROWN_BYTES, MISSING_FILE, OLDER_FILE, WRITTEN_FILE
from common.services.plane import Plane
from common.worker import sealing
from tests.trail import SHELL, happen, problem, sealed, uids


def waiting(plane: Plane) -> list[str]:
    """The ids of what has no seal yet."""
    return [uid for (uid,) in plane.database.all("SELECT uid FROM rk_audit_unsealed ORDER BY id")]


def take_out(plane: Plane, uid: str) -> None:
    """What somebody with the database's password does: nothing there tells of the event any more."""
    for table in ("rk_audit_event", "rk_audit_unsealed"):
        assert plane.database.run(f"DELETE FROM {table} WHERE uid = ?", (uid,)) == 1


def grow(plane: Plane) -> None:
    """Bring the file to the size at which it becomes the older one, with what is no id."""
    path = plane.settings.home / WRITTEN_FILE
    with path.open("ab") as file:
        file.write(b"x" * (GROWN_BYTES - path.stat().st_size) + b"\n")


def turn_over(plane: Plane) -> None:
    """One look of the sealer."""
    sealing.seal_in_turn(plane, "test")


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_event_that_is_taken_out_with_its_place_in_the_queue_is_found(plane: Plane, at: int) -> None:
    happen(plane, 3)
    gone = waiting(plane)[at]
    assert audit_check.verify(plane).is_whole

    take_out(plane, gone)

    assert (problem(plane).kind, problem(plane).uid) == ("missing", gone)
    audit_sealing.seal_all(plane)
    assert (problem(plane).kind, problem(plane).uid) == ("missing", gone)


def test_an_event_that_a_trigger_takes_out_at_once_is_found(plane: Plane) -> None:
    with plane.database.transaction():
        audit.record(plane, EventTag.USER_UPDATE, SHELL, target=("user", "someone@x.test"))
        [gone] = waiting(plane)
        take_out(plane, gone)

    assert (problem(plane).kind, problem(plane).uid) == ("missing", gone)


def test_what_was_undone_is_not_missed(plane: Plane) -> None:
    with suppress(ZeroDivisionError), plane.database.transaction():
        happen(plane)
        raise ZeroDivisionError
    happen(plane)

    assert audit_check.verify(plane).is_whole
    assert (plane.settings.home / WRITTEN_FILE).read_text().split() == waiting(plane)


def test_the_note_is_for_its_owner_alone(plane: Plane) -> None:
    happen(plane)

    assert stat.S_IMODE((plane.settings.home / WRITTEN_FILE).stat().st_mode) == 0o600


def test_a_home_that_takes_no_note_stops_nobody_and_says_so(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    (plane.settings.home / WRITTEN_FILE).mkdir()

    happen(plane)
    (plane.settings.home / WRITTEN_FILE).rmdir()

    [uid] = waiting(plane)
    assert f"audit event {uid} is not noted in the home" in caplog.text
    assert audit_check.verify(plane).is_whole


def test_a_line_that_was_cut_is_none_and_takes_none_with_it(plane: Plane) -> None:
    sealed(plane)
    with (plane.settings.home / WRITTEN_FILE).open("ab") as file:
        file.write(b"0123456789ab\n\0\0\0\n" + b"f" * 27)
    assert audit_check.verify(plane).is_whole

    happen(plane)
    [gone] = waiting(plane)
    take_out(plane, gone)

    assert (problem(plane).kind, problem(plane).uid) == ("missing", gone)


def test_a_note_that_root_has_begun_is_its_homes_owners(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    given: set[tuple[int, int]] = set()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, user, group: given.add((user, group)))
    owner = plane.settings.home.stat()

    happen(plane)

    assert given == {(owner.st_uid, owner.st_gid)}


def test_a_home_without_a_note_is_said_to_have_none(plane: Plane) -> None:
    sealed(plane)
    (plane.settings.home / WRITTEN_FILE).unlink()

    verdict = audit_check.verify(plane)

    assert verdict.is_whole
    assert WRITTEN_FILE in verdict.notes[0]


def test_what_was_written_is_known_for_two_files_long_and_what_is_missing_for_ever(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    home = plane.settings.home
    happen(plane, 2)
    gone, kept = waiting(plane)
    take_out(plane, gone)

    grow(plane)
    turn_over(plane)
    assert not (home / WRITTEN_FILE).exists()
    assert (problem(plane).kind, problem(plane).uid) == ("missing", gone)

    happen(plane)
    grow(plane)
    caplog.set_level(logging.ERROR)
    turn_over(plane)

    assert f"1 written audit events are gone, {gone} among them" in caplog.text
    assert kept not in caplog.text
    assert gone not in (home / OLDER_FILE).read_text(errors="replace")
    assert (home / MISSING_FILE).read_text() == f"{gone}\n"
    assert (problem(plane).kind, problem(plane).uid) == ("missing", gone)


def test_nobody_but_the_plane_can_say_that_what_is_missing_was_dropped(plane: Plane) -> None:
    happen(plane, 2)
    gone = waiting(plane)[0]
    take_out(plane, gone)
    grow(plane)
    turn_over(plane)
    happen(plane)
    grow(plane)
    forged = "VALUES (999999, 999999, 'x', 99999999999999, 1, 'x', 'x', 'x', 1, 'x', 'x')"
    columns = "number, seq, digest, newest_at, at, previous, key_id, mac, dropped_at, drop_key_id, drop_mac"

    plane.database.run(f"INSERT INTO rk_audit_anchor ({columns}) {forged}")
    turn_over(plane)
    plane.database.run("DELETE FROM rk_audit_anchor WHERE number = 999999")

    assert (problem(plane).kind, problem(plane).uid) == ("missing", gone)


def test_a_home_whose_worker_is_not_the_sealer_turns_its_files_over_too(plane: Plane) -> None:
    sealed(plane)
    grow(plane)

    sealing.seal_in_turn(plane, "first")
    happen(plane)
    grow(plane)
    sealing.seal_in_turn(plane, "second")

    assert not (plane.settings.home / WRITTEN_FILE).exists()


def test_a_file_that_has_not_grown_goes_on(plane: Plane) -> None:
    sealed(plane, 3)

    turn_over(plane)

    assert (plane.settings.home / WRITTEN_FILE).read_text().split() == uids(plane)
    assert not (plane.settings.home / OLDER_FILE).exists()


def test_while_another_process_turns_the_files_over_nobody_else_does(plane: Plane) -> None:
    sealed(plane)
    grow(plane)

    with audit_written._alone(plane.settings.home) as alone:
        turn_over(plane)
        assert alone
        assert not (plane.settings.home / OLDER_FILE).exists()
    turn_over(plane)

    assert (plane.settings.home / OLDER_FILE).exists()


def test_a_home_in_which_files_can_not_be_turned_over_is_said(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    sealed(plane)
    grow(plane)
    (plane.settings.home / OLDER_FILE).mkdir()

    turn_over(plane)

    assert "the note of written audit events goes on growing" in caplog.text
    assert (plane.settings.home / WRITTEN_FILE).stat().st_size > GROWN_BYTES
