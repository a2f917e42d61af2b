"""The audit trail as it is stored: sealed in one chain by any number of sealers, and verified against its enemies."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from secrets import token_hex

import orjson
import pytest
from peewee import BigAutoField, BigIntegerField, CharField

from common.core.audit_chain import CONTENT, PARTS
from common.core.audit_tags import EventTag
from common.migrations.runner import migrate
from common.models.base import LongTextField, Table
from common.secret import Secret
from common.services import (
    audit,
    audit_check,
    audit_delivery,
    audit_retention,
    audit_sealing,
    audit_trail,
    audit_written,
    opening,
    settings,
)
from common.services.audit_sealing import ANCHORS_FILE, BATCH, HEAD_FILE
from common.services.audit_trail import Filter
from common.services.audit_written import WRITTEN_FILE
from common.services.keys import put_first
from common.services.plane import Plane
from common.settings import load
from common.worker.loop import close_stores
from tests.backends import stores
from tests.bench import seed
from tests.people import Clock, settle
from tests.trail import SHELL, happen, problem, sealed, uids


def run(plane: Plane, statement: str, *params: object) -> None:
    """What somebody with the database's password does, and nobody else."""
    assert plane.database.run(statement, params) > 0


def copy_of(plane: Plane, original: str, /, **changed: object) -> None:
    """Insert a copy of an event with some columns changed."""
    names = [*CONTENT, "key_id", "mac"]
    listed = ", ".join(f"`{name}`" for name in names)
    row = plane.database.one(f"SELECT {listed} FROM rk_audit_event WHERE uid = ?", (original,))
    assert row is not None
    values = dict(zip(names, row, strict=True)) | changed
    marks = ", ".join("?" * len(names))
    run(plane, f"INSERT INTO rk_audit_event ({listed}) VALUES ({marks})", *values.values())


def test_events_are_signed_at_once_and_sealed_in_one_chain(plane: Plane) -> None:
    before = audit_check.verify(plane)
    happen(plane, 3)
    waiting = audit_check.verify(plane)
    audit_sealing.seal_all(plane)
    after = audit_check.verify(plane)

    assert (before.problem, before.sealed, before.unsealed) == (None, 0, 0)
    assert (waiting.problem, waiting.sealed, waiting.unsealed) == (None, 0, 3)
    assert (after.problem, after.sealed, after.unsealed, after.anchors) == (None, 3, 0, 1)
    assert plane.database.all("SELECT seq FROM rk_audit_seal ORDER BY seq") == [(1,), (2,), (3,)]


def test_what_was_rolled_back_is_in_no_chain(plane: Plane) -> None:
    with suppress(ZeroDivisionError), plane.database.transaction():
        happen(plane)
        raise ZeroDivisionError

    assert sealed(plane, 2) == uids(plane)
    assert audit_check.verify(plane).sealed == 2


def test_more_than_a_batch_is_sealed_at_once_and_anchored_on_the_way(plane: Plane) -> None:
    with plane.database.transaction():
        happen(plane, 3 * BATCH + 7)

    assert audit_sealing.seal_all(plane) == 3 * BATCH + 7
    verdict = audit_check.verify(plane)
    assert (verdict.problem, verdict.sealed, verdict.anchors) == (None, 3 * BATCH + 7, 2)


@pytest.mark.race
def test_two_sealers_at_once_make_one_chain(plane: Plane) -> None:
    failures: list[BaseException] = []
    over = threading.Event()
    counts: list[int] = []

    def seal() -> None:
        try:
            while not over.is_set():
                counts.append(audit_sealing.seal_batch(plane))
            counts.append(audit_sealing.seal_all(plane))
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            failures.append(error)
        finally:
            plane.database.close()

    def write() -> None:
        try:
            happen(plane, 60)
        except BaseException as error:  # noqa: BLE001 - likewise
            failures.append(error)
        finally:
            plane.database.close()

    sealers = [threading.Thread(target=seal) for _ in range(2)]
    writers = [threading.Thread(target=write) for _ in range(3)]
    for thread in (*sealers, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    over.set()
    for thread in sealers:
        thread.join(60)

    assert failures == []
    assert sum(counts) == 180
    verdict = audit_check.verify(plane)
    assert (verdict.problem, verdict.sealed, verdict.unsealed) == (None, 180, 0)


def test_an_event_that_is_committed_after_later_ones_is_sealed_too(plane: Plane) -> None:
    happen(plane)
    late = plane.database.one("SELECT uid FROM rk_audit_unsealed")
    assert late is not None
    run(plane, "DELETE FROM rk_audit_unsealed WHERE uid = ?", late[0])
    first = sealed(plane, 2)
    run(plane, "INSERT INTO rk_audit_unsealed (uid) VALUES (?)", late[0])

    audit_sealing.seal_all(plane)

    assert uids(plane) == [*first, late[0]]
    assert late[0] < first[0]
    assert audit_check.verify(plane).is_whole


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("`after`", '{"number":9}'),
        ("at", 1),
        ("actor_email", "somebody.else@x.test"),
        ("result", "refused"),
        ("target_key", "hidden@x.test"),
        ("mac", "0" * 64),
        ("address", ""),
    ],
)
@pytest.mark.parametrize("is_sealed", [True, False])
def test_an_edited_event_is_found(plane: Plane, column: str, value: object, *, is_sealed: bool) -> None:
    if is_sealed:
        sealed(plane, 5)
    else:
        happen(plane, 5)
    (uid,) = plane.database.all("SELECT uid FROM rk_audit_event ORDER BY uid LIMIT 1 OFFSET 2")[0]

    run(plane, f"UPDATE rk_audit_event SET {column} = ? WHERE uid = ?", value, uid)
    audit_sealing.seal_all(plane)

    found = problem(plane)
    assert (found.kind, found.uid, found.seq) == ("broken", uid, 3)
    assert uid in found.text


def test_a_removed_event_is_found(plane: Plane) -> None:
    uid = sealed(plane, 5)[1]

    run(plane, "DELETE FROM rk_audit_event WHERE uid = ?", uid)

    found = problem(plane)
    assert (found.kind, found.uid, found.seq) == ("missing", uid, 2)


def test_a_removed_event_is_found_when_its_seal_is_removed_too(plane: Plane) -> None:
    uid = sealed(plane, 5)[1]

    for table in ("rk_audit_event", "rk_audit_seal"):
        run(plane, f"DELETE FROM {table} WHERE uid = ?", uid)
    found = problem(plane)
    run(plane, "UPDATE rk_audit_seal SET seq = -seq WHERE seq > 2")
    run(plane, "UPDATE rk_audit_seal SET seq = -seq - 1 WHERE seq < 0")

    assert (found.kind, found.seq) == ("missing", 2)
    closed_up = problem(plane)
    assert (closed_up.kind, closed_up.seq) == ("moved", 2)


def test_an_event_that_is_removed_before_its_seal_is_found(plane: Plane) -> None:
    sealed(plane, 2)
    happen(plane)
    row = plane.database.one("SELECT uid FROM rk_audit_unsealed")
    assert row is not None

    run(plane, "DELETE FROM rk_audit_event WHERE uid = ?", row[0])
    sealed(plane, 2)

    found = problem(plane)
    assert (found.kind, found.uid) == ("missing", row[0])


@pytest.mark.parametrize("part", PARTS)
def test_an_event_that_searches_no_longer_find_is_found(plane: Plane, part: str) -> None:
    uid = sealed(plane, 3, actor="one@x.test", target="other@x.test")[0]
    assert audit_check.verify(plane).is_whole

    run(plane, "DELETE FROM rk_audit_name WHERE part = ?", part)

    found = problem(plane)
    assert (found.kind, found.uid, found.seq) == ("hidden", uid, 1)


def have_index_of(plane: Plane, index: str, columns: str, condition: str) -> None:
    """What somebody does who can write to the file of an embedded store: an index lacks events, and does not say so."""
    hidden = f" WHERE {condition}"
    plane.database.drop_index(index, "rk_audit_event")
    plane.database.run(f"CREATE INDEX {index} ON rk_audit_event ({columns}){hidden}")
    plane.database.run("PRAGMA writable_schema = ON")
    run(plane, "UPDATE sqlite_master SET sql = REPLACE(sql, ?, '') WHERE name = ?", hidden, index)
    plane.database.run("PRAGMA writable_schema = RESET")


@pytest.mark.parametrize("row_id", [2, 2**63 - 1, -(2**63)])
def test_an_event_that_a_page_passes_over_because_its_index_lacks_it_is_found(
    embedded: Plane, row_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_check, "_BATCH", 2)
    uid = sealed(embedded, 5, actor="eve@x.test")[1]
    run(embedded, "UPDATE rk_audit_event SET id = ? WHERE uid = ?", row_id, uid)
    assert audit_check.verify(embedded).is_whole

    have_index_of(embedded, "rk_audit_by_actor", "actor_key, uid", f"uid <> '{uid}'")

    assert len(audit_trail.page(embedded, Filter(actor="eve@x.test"))["events"]) == 4
    found = problem(embedded)
    assert (found.kind, found.uid) == ("hidden", uid)


@pytest.mark.parametrize("is_copy", [False, True])
def test_an_inserted_event_that_only_some_pages_show_is_found(embedded: Plane, *, is_copy: bool) -> None:
    first, *_ = sealed(embedded, 3, actor="eve@x.test")
    forged = first if is_copy else "0" * 28

    embedded.database.drop_index("rk_audit_uid", "rk_audit_event")
    copy_of(embedded, first, uid=forged)
    have_index_of(embedded, "rk_audit_uid", "uid", "id <> (4)")

    assert len(audit_trail.page(embedded, Filter(actor="eve@x.test"))["events"]) == 4
    assert problem(embedded).uid == forged


def test_an_index_of_pages_that_is_gone_is_told(plane: Plane) -> None:
    sealed(plane, 1)
    plane.database.drop_index("rk_audit_by_all", "rk_audit_event")

    assert "rk_audit_by_all" in problem(plane).text


def test_events_that_changed_places_are_found(plane: Plane) -> None:
    second, fourth = sealed(plane, 5)[1::2]

    for uid, seq in ((second, 4), (fourth, 2)):
        run(plane, "UPDATE rk_audit_seal SET uid = ? WHERE seq = ?", uid, seq)

    found = problem(plane)
    assert (found.kind, found.uid, found.seq) == ("moved", fourth, 2)


def test_an_inserted_event_is_found(plane: Plane) -> None:
    first = sealed(plane, 3)[0]
    forged = "0" * 28

    copy_of(plane, first, uid=forged)

    found = problem(plane)
    assert (found.kind, found.uid) == ("broken", forged)
    run(plane, "UPDATE rk_audit_event SET mac = NULL WHERE uid = ?", forged)
    assert problem(plane).kind == "inserted"


@pytest.mark.parametrize("number", [0, -5])
@pytest.mark.parametrize("changed", [{"tag": "user:superuser_grant"}, {"mac": None, "key_id": None}])
def test_an_event_that_is_sealed_before_the_first_one_is_an_inserted_one(
    plane: Plane, number: int, changed: dict[str, object]
) -> None:
    first, *_ = sealed(plane, 3)
    forged = "f" * len(first)

    copy_of(plane, first, uid=forged, **changed)
    run(plane, "INSERT INTO rk_audit_seal (seq, uid, key_id, digest) VALUES (?, ?, 'x', 'y')", number, forged)

    found = problem(plane)
    assert (found.kind, found.uid, found.seq) == ("inserted", forged, number)


@pytest.mark.parametrize("numbers", [(2**63 - 1,), (2**63 - 2, 2**63 - 1), (7,), (9, 10)])
def test_a_seal_behind_the_end_stops_no_sealer_and_is_an_inserted_one(
    plane: Plane, clock: Clock, numbers: tuple[int, ...]
) -> None:
    first, *_ = sealed(plane, 3)
    key_id = plane.keys.audit_key()[0]
    for number in numbers:
        run(plane, "INSERT INTO rk_audit_seal VALUES (?, ?, ?, ?)", number, first, key_id, "f" * 64)

    sealed(plane, 2)
    found = problem(plane)
    keep_for(plane, 1)
    audit_sealing.seal_all(plane)
    clock.forward(days=2)
    dropped = audit_retention.drop_segment(plane)
    run(plane, "DELETE FROM rk_audit_seal WHERE digest = ?", "f" * 64)
    sealed(plane, 2)

    assert (found.kind, found.uid, found.seq) == ("inserted", first, numbers[-1])
    assert dropped == 0
    verdict = audit_check.verify(plane)
    assert (verdict.problem, verdict.sealed, verdict.unsealed) == (None, 8, 0)


def test_a_seal_behind_the_end_that_the_chain_comes_to_stops_no_sealer(plane: Plane) -> None:
    first, *_ = sealed(plane, 3)
    run(plane, "INSERT INTO rk_audit_seal VALUES (5, ?, ?, ?)", first, plane.keys.audit_key()[0], "f" * 64)

    for _ in range(3):
        happen(plane, 2)
        audit_sealing.seal_all(plane)
    audit_sealing.seal_all(plane)

    assert len(uids(plane)) == 10
    assert (problem(plane).kind, problem(plane).seq) == ("moved", 5)


@pytest.mark.parametrize("numbers", [(2**63 - 1,), (2**63 - 3, 2**63 - 2), (7,)])
def test_anchors_behind_the_end_stop_no_sealer_and_are_found(
    plane: Plane, clock: Clock, numbers: tuple[int, ...]
) -> None:
    sealed(plane, 3)
    columns = "digest, newest_at, previous, key_id, mac"
    for number in numbers:
        run(
            plane,
            f"INSERT INTO rk_audit_anchor (number, seq, at, {columns}) "
            f"SELECT ?, 2, 0, {columns} FROM rk_audit_anchor WHERE number = 1",
            number,
        )

    clock.forward(hours=2)
    sealed(plane, 2)
    clock.forward(hours=2)
    sealed(plane, 2)
    found = problem(plane)
    run(plane, f"DELETE FROM rk_audit_anchor WHERE number IN ({', '.join('?' * len(numbers))})", *numbers)

    assert found.kind == "anchor"
    verdict = audit_check.verify(plane)
    assert (verdict.problem, verdict.sealed, verdict.anchors) == (None, 7, 3)


@pytest.mark.parametrize("count", [1, BATCH])
@pytest.mark.parametrize("seq", [2**63 - 1, -(2**63)])
def test_anchors_at_what_no_chain_comes_to_stop_no_sealer_whatever_else_is_gone(
    plane: Plane, count: int, seq: int
) -> None:
    *_, last = sealed(plane, 3)
    if count < BATCH:
        run(plane, "DELETE FROM rk_audit_anchor")
    run(plane, "DELETE FROM rk_audit_event WHERE uid = ?", last)
    columns = "digest, newest_at, at, previous, key_id, mac"
    for number in range(2, 2 + count):
        run(
            plane,
            f"INSERT INTO rk_audit_anchor (number, seq, {columns}) VALUES (?, ?, 'd', 0, 0, 'p', 'k', 'm')",
            number,
            seq,
        )

    sealed(plane, 2)
    sealed(plane, 2)

    assert plane.database.one("SELECT MAX(seq) FROM rk_audit_seal") == (7,)
    assert problem(plane).kind in ("anchor", "key", "missing")


@pytest.mark.parametrize("uid", ["", " ", "\x01", "/"])
def test_an_event_whose_id_is_below_all_others_is_an_inserted_one(plane: Plane, uid: str) -> None:
    first, *_ = sealed(plane, 3)

    copy_of(plane, first, uid=uid, tag="user:superuser_grant")

    assert problem(plane).kind in ("inserted", "broken")


@pytest.mark.parametrize("number", [0, -(2**63)])
def test_an_anchor_before_the_first_one_is_found_and_keeps_nothing(plane: Plane, clock: Clock, number: int) -> None:
    sealed(plane, 3)
    keep_for(plane, 1)
    audit_sealing.seal_all(plane)
    clock.forward(days=2)
    columns = "digest, at, previous, key_id, mac"

    run(
        plane,
        f"INSERT INTO rk_audit_anchor (number, seq, newest_at, {columns}) "
        f"SELECT ?, 0, ?, {columns} FROM rk_audit_anchor",
        number,
        2**62,
    )

    assert problem(plane).kind == "anchor"
    run(plane, "UPDATE rk_audit_anchor SET dropped_at = 1 WHERE number = ?", number)
    assert problem(plane).kind == "anchor"
    if number:
        assert audit_retention.drop_segment(plane) == 3


def test_a_seal_with_the_least_number_stops_no_sealer_and_no_look(plane: Plane) -> None:
    first, *_ = sealed(plane, 3)
    run(plane, "DELETE FROM rk_audit_seal")
    run(plane, "INSERT INTO rk_audit_seal VALUES (?, ?, 'x', 'y')", -(2**63), first)

    assert problem(plane).kind == "missing"
    sealed(plane, 2)
    assert uids(plane)[0] == first
    assert plane.database.one("SELECT MAX(seq) FROM rk_audit_seal") == (5,)


def test_an_inserted_event_gets_no_seal_that_counts(plane: Plane) -> None:
    first = sealed(plane, 3)[0]
    forged = f"{'f' * 16}{token_hex(6)}"
    copy_of(plane, first, uid=forged, mac=None, key_id=None)
    run(plane, "INSERT INTO rk_audit_unsealed (uid) VALUES (?)", forged)

    sealed(plane, 2)

    assert forged not in uids(plane)
    found = problem(plane)
    assert (found.kind, found.uid) == ("inserted", forged)


def test_what_is_written_while_the_chain_is_put_aside_gets_no_signature(plane: Plane) -> None:
    """Whoever could have an event signed by emptying the tables for a moment could put it into the chain later."""
    first = sealed(plane, 3)[0]
    forged = f"{'f' * 16}{token_hex(6)}"
    kept = {table: plane.database.all(f"SELECT * FROM {table}") for table in ("rk_audit_seal", "rk_audit_anchor")}
    for table in kept:
        run(plane, f"DELETE FROM {table}")
    copy_of(plane, first, uid=forged, mac=None, key_id=None)
    audit_sealing.seal_all(plane)
    for table, rows in kept.items():
        plane.database.run(f"DELETE FROM {table}")
        for row in rows:
            run(plane, f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)
    run(plane, "INSERT INTO rk_audit_unsealed (uid) VALUES (?)", forged)

    sealed(plane, 1)

    found = problem(plane)
    assert (found.kind, found.uid) == ("inserted", forged)


@pytest.fixture
def embedded(tmp_path: Path, clock: Clock) -> Iterator[Plane]:
    """A plane on SQLite, whatever the stores of this run."""
    settle(tmp_path / "embedded")
    opened = opening.open_plane(load(seed.environment(tmp_path / "embedded")), now_ms=clock)
    yield opened
    close_stores(opened)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("UPDATE rk_audit_event SET `after` = x'7b7d' WHERE uid = ?", "broken"),
        ("UPDATE rk_audit_event SET `after` = CAST(x'7bff' AS TEXT) WHERE uid = ?", "broken"),
        ("UPDATE rk_audit_event SET at = 1.5 WHERE uid = ?", "broken"),
        ("UPDATE rk_audit_event SET mac = CAST(mac AS BLOB) WHERE uid = ?", "broken"),
        ("UPDATE rk_audit_seal SET digest = CAST(digest AS BLOB) WHERE uid = ?", "moved"),
    ],
)
def test_a_value_of_another_kind_is_found_and_stops_nothing(embedded: Plane, change: str, kind: str) -> None:
    """Columns of a server have one kind each; those of SQLite take any."""
    uid = sealed(embedded, 3)[1]

    run(embedded, change, uid)

    assert problem(embedded).kind == kind
    assert len(audit_trail.page(embedded, Filter())["events"]) == 3


@pytest.mark.parametrize("value", [b"\xff\x00", "x", 2**62])
@pytest.mark.parametrize("column", ["uid", "at", "actor_roles", "after", "actor_key", "target_key", "mac"])
def test_whatever_is_put_into_the_queue_stops_neither_the_sealer_nor_a_reader(
    embedded: Plane, column: str, value: object
) -> None:
    first, *_ = sealed(embedded, 2)
    forged = value if column == "uid" else "e" * len(first)

    copy_of(embedded, first, **{"uid": forged, column: value})
    run(embedded, "INSERT INTO rk_audit_unsealed (uid) VALUES (?)", forged)
    happen(embedded, 2, target="later@x.test")
    audit_sealing.seal_all(embedded)

    assert embedded.database.all("SELECT * FROM rk_audit_unsealed") == []
    assert problem(embedded).kind in ("inserted", "broken", "key", "moved")
    shown = audit_trail.page(embedded, Filter())["events"]
    assert [event["target"] for event in shown].count("later@x.test") == 2
    exported = BytesIO()
    audit_trail.export(embedded, exported, "jsonl", from_ms=None, to_ms=None)
    assert exported.getvalue().count(b"later@x.test") == 2
    assert len(audit_trail.sealed_events(embedded, 0, 10, 10)) >= 4


@pytest.mark.parametrize("value", ["x'ff'", "CAST(x'ff' AS TEXT)", "'x'"])
def test_a_text_in_the_place_of_how_far_an_outlet_is_ends_no_look_at_it(embedded: Plane, value: str) -> None:
    settings.set_variable(embedded, SHELL, "audit.file", "trail.jsonl")
    embedded.variables.forget()
    sealed(embedded, 3)
    run(embedded, f"INSERT INTO rk_state (name, value) VALUES ('audit_file_seq', {value})")

    audit_delivery.enqueue_due(embedded)

    assert audit_delivery.delivered_to(embedded) == 0
    assert embedded.database.one("SELECT kind FROM rk_job WHERE state = 'ready'") == ("audit.file",)


@pytest.mark.parametrize("uid", ["3030ff", "30c3", "ff"])
def test_an_id_that_is_no_text_is_found_and_hides_nothing(
    embedded: Plane, uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_check, "_BATCH", 1)
    monkeypatch.setattr(audit_trail, "_PIECE", 1)
    monkeypatch.setattr(audit_trail, "_NAMES", 0)
    genuine = sealed(embedded, 3, actor="ada@x.test", actor_id="u1")
    columns = "at, tag, result, actor_id, actor_email, actor_key, key_id, mac"
    run(
        embedded,
        f"INSERT INTO rk_audit_event (uid, {columns}) SELECT CAST(x'{uid}' AS TEXT), {columns} FROM rk_audit_event "
        "WHERE uid = ?",
        genuine[1],
    )

    assert problem(embedded).kind == "broken"
    for wanted in (Filter(), Filter(actor="u1"), Filter(q="ada")):
        shown, cursor = [], None
        while shown == [] or cursor is not None:
            page = audit_trail.page(embedded, wanted, limit=1, cursor=cursor)
            shown, cursor = [*shown, *(event["id"] for event in page["events"])], page["next_cursor"]
        assert [each for each in shown if each in genuine] == genuine[::-1]
    exported = BytesIO()
    audit_trail.export(embedded, exported, "jsonl", from_ms=None, to_ms=None)
    lines, cursor = [], None
    while lines == [] or cursor is not None:
        taken, cursor = audit_trail.export_page(embedded, SHELL, "jsonl", to_ms=10**13, limit=3, cursor=cursor)
        lines.extend(taken.splitlines())
    for each in (exported.getvalue().splitlines(), lines):
        assert [json.loads(line)["id"] for line in each][:3] == genuine


@pytest.mark.parametrize("more", ["\0", "\0e", "e" * 3000, "e" * 3000 + "\0"])
def test_no_cursor_stands_behind_an_id_that_it_does_not_take(embedded: Plane, clock: Clock, more: str) -> None:
    genuine = sealed(embedded, 4)
    clock.forward(seconds=1)
    for begins in (genuine[1][:20], genuine[2]):
        copy_of(embedded, genuine[0], uid=begins + more)

    for of_export in (False, True):
        shown, cursor = [], None
        while shown == [] or cursor is not None:
            if of_export:
                taken, cursor = audit_trail.export_page(
                    embedded, SHELL, "jsonl", to_ms=clock.now, limit=1, cursor=cursor
                )
                shown.extend(json.loads(line)["id"] for line in taken.splitlines())
            else:
                page = audit_trail.page(embedded, Filter(target="someone@x.test"), limit=1, cursor=cursor)
                shown, cursor = [*shown, *(event["id"] for event in page["events"])], page["next_cursor"]
        found = [each for each in shown if each in genuine]
        assert sorted(found) == sorted(genuine)


@pytest.mark.parametrize("value", ["CAST(x'ff' AS TEXT)", "x'ff'", "'x'", "4611686018427387904"])
@pytest.mark.parametrize(
    "where", ["event.at", "event.actor_key", "event.tag", "seal.digest", "anchor.seq", "anchor.newest_at", "anchor.mac"]
)
def test_whatever_is_put_into_what_is_sealed_stops_neither_the_sealer_nor_a_reader(
    embedded: Plane, where: str, value: str, clock: Clock
) -> None:
    table, _, column = where.partition(".")
    sealed(embedded, 2)

    run(embedded, f"UPDATE rk_audit_{table} SET {column} = {value}")
    embedded.database.run("UPDATE rk_audit_anchor SET at = 0 WHERE at > 0")
    happen(embedded, 1, target="later@x.test")
    audit_sealing.seal_all(embedded)

    assert len(uids(embedded)) == 3
    assert not audit_check.verify(embedded).is_whole
    assert audit_trail.page(embedded, Filter())["events"][0]["target"] == "later@x.test"
    assert b"later@x.test" in audit_trail.export_page(embedded, SHELL, "csv")[0]


@pytest.mark.parametrize("where", ["queue", "names"])
def test_a_name_with_a_space_behind_it_stops_no_sealer(plane: Plane, where: str) -> None:
    """To a server it is the same name as without."""
    first, *_ = sealed(plane, 2, target="other")
    if where == "queue":
        forged = "e" * len(first)
        copy_of(plane, first, uid=forged, target_key="other ")
        run(plane, "INSERT INTO rk_audit_unsealed (uid) VALUES (?)", forged)
    else:
        run(plane, "INSERT INTO rk_audit_name (name, part) VALUES ('someone@x.test ', 't')")

    sealed(plane, 2)

    assert plane.database.all("SELECT * FROM rk_audit_unsealed") == []


def test_what_has_no_id_when_the_trail_begins_stops_no_sealer_and_is_found(plane: Plane) -> None:
    run(plane, "INSERT INTO rk_audit_event (at, tag, result) VALUES (1, 'user:create', 'ok')")

    assert len(sealed(plane, 2)) == 2

    assert problem(plane).kind == "inserted"


@pytest.mark.parametrize("depth", [240, 250, 254, 300, 900])
def test_what_is_nested_too_deep_ends_no_page_and_no_export(plane: Plane, depth: int) -> None:
    first, *_ = sealed(plane, 3)
    run(plane, "UPDATE rk_audit_event SET `after` = ? WHERE uid = ?", '{"a":' * depth + "1" + "}" * depth, first)
    sink = BytesIO()

    audit_trail.export(plane, sink, "jsonl", from_ms=None, to_ms=None)

    assert len(sink.getvalue().splitlines()) == 3
    assert orjson.dumps({"code": 0, "data": audit_trail.page(plane, Filter())})
    sent = audit_trail.sealed_events(plane, 0, 3, 200)
    assert orjson.dumps({"events": sent})
    assert "unreadable" in sent[0]["after"] or depth == 240


def test_a_note_of_the_head_of_other_kinds_is_found(plane: Plane) -> None:
    sealed(plane, 2)
    path = plane.settings.home / HEAD_FILE
    note = json.loads(path.read_text())

    for wrong in ({"mac": 1}, {"seq": [1]}, {"digest": {}}, {"key_id": None}):
        path.write_text(json.dumps(note | wrong))
        assert problem(plane).kind == "anchor"


def test_a_genuine_event_that_is_put_back_without_its_seal_is_an_inserted_one(plane: Plane) -> None:
    last = sealed(plane, 3)[-1]

    run(plane, "DELETE FROM rk_audit_seal WHERE uid = ?", last)
    (plane.settings.home / HEAD_FILE).unlink()
    (plane.settings.home / ANCHORS_FILE).unlink()
    run(plane, "DELETE FROM rk_audit_anchor")

    found = problem(plane)
    assert (found.kind, found.uid) == ("inserted", last)


def test_an_event_is_sealed_once_even_if_somebody_queues_it_again(plane: Plane) -> None:
    first = sealed(plane, 3)[0]

    run(plane, "INSERT INTO rk_audit_unsealed (uid) VALUES (?)", first)
    order = sealed(plane, 1)

    assert order.count(first) == 1
    assert len(order) == 4
    assert audit_check.verify(plane).is_whole


def test_an_event_is_sealed_once_even_if_it_waits_twice(plane: Plane) -> None:
    happen(plane, 2)

    run(plane, "INSERT INTO rk_audit_unsealed (uid) SELECT uid FROM rk_audit_unsealed")
    audit_sealing.seal_all(plane)

    assert len(uids(plane)) == len(set(uids(plane))) == 2
    assert plane.database.all("SELECT * FROM rk_audit_unsealed") == []
    assert audit_check.verify(plane).is_whole


@pytest.mark.parametrize("which", range(3))
def test_an_event_that_was_made_to_be_sealed_again_is_an_inserted_one(
    plane: Plane, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_check, "_BATCH", 2)
    uid = sealed(plane, 4)[which]
    seal = plane.database.one("SELECT seq, uid, key_id, digest FROM rk_audit_seal WHERE uid = ?", (uid,))
    assert seal is not None

    run(plane, "DELETE FROM rk_audit_seal WHERE uid = ?", uid)
    run(plane, "INSERT INTO rk_audit_unsealed (uid) VALUES (?)", uid)
    audit_sealing.seal_all(plane)
    plane.database.run("INSERT INTO rk_audit_seal (seq, uid, key_id, digest) VALUES (?, ?, ?, ?)", seal)

    found = problem(plane)
    assert (found.kind, found.uid, found.seq) == ("inserted", uid, 5)


def test_no_statement_of_a_look_at_the_trail_costs_more_when_it_is_longer(
    embedded: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_check, "_BATCH", 20)
    monkeypatch.setattr(audit_written, "_BATCH", 20)
    costs: list[int] = []

    def count() -> int:
        costs[-1] += 1
        return 0

    def dearest() -> int:
        connection = embedded.database.peewee.connection()
        connection.set_trace_callback(lambda _: costs.append(0))
        connection.set_progress_handler(count, 1)
        assert audit_check.verify(embedded).is_whole
        connection.set_progress_handler(None, 0)
        connection.set_trace_callback(None)
        return max(costs)

    sealed(embedded, 30)
    of_few = dearest()
    with embedded.database.transaction():
        happen(embedded, 300)
    audit_sealing.seal_all(embedded)

    assert dearest() <= of_few * 1.5


@pytest.mark.timeout(20)
def test_notes_of_anchors_that_are_cut_while_they_are_read_end(
    plane: Plane, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        sealed(plane, 1)
        clock.forward(hours=2)
    path = plane.settings.home / ANCHORS_FILE
    path.write_bytes(path.read_bytes() + b"{}\n" * 10_000)
    head_of = audit_check.head_of

    def cut(looked_at: Plane) -> audit_sealing.Head:
        os.truncate(path, 0)
        return head_of(looked_at)

    monkeypatch.setattr(audit_check, "head_of", cut)

    assert audit_check.verify(plane).is_whole


@pytest.mark.parametrize("tables", [("rk_audit_event", "rk_audit_seal"), ("rk_audit_seal",)])
def test_a_tail_that_is_cut_off_is_found_by_the_note_in_the_home(plane: Plane, tables: tuple[str, ...]) -> None:
    order = sealed(plane, 5)

    for table in tables:
        run(plane, f"DELETE FROM {table} WHERE uid IN (?, ?)", *order[3:])
    run(plane, "DELETE FROM rk_audit_anchor")

    found = problem(plane)
    assert (found.kind, found.seq) == ("truncated", 5)
    (plane.settings.home / ANCHORS_FILE).unlink()
    found = problem(plane)
    assert (found.kind, found.seq) == ("truncated", 4)


def test_a_tail_that_is_cut_off_stays_found_when_the_plane_goes_on(plane: Plane) -> None:
    order = sealed(plane, 5)
    for table in ("rk_audit_event", "rk_audit_seal"):
        run(plane, f"DELETE FROM {table} WHERE uid = ?", order[4])
    run(plane, "DELETE FROM rk_audit_anchor")
    (plane.settings.home / ANCHORS_FILE).unlink()

    sealed(plane, 3)

    assert problem(plane).kind == "truncated"


def test_a_tail_that_is_cut_off_while_the_plane_was_made_to_go_on_before_it_is_found(plane: Plane) -> None:
    sealed(plane, 3)
    *_, first, second, third = sealed(plane, 3)
    run(plane, "DELETE FROM rk_audit_seal WHERE uid = ?", first)
    run(plane, "DELETE FROM rk_audit_event WHERE uid = ?", third)
    *_, later, _, _ = sealed(plane, 1)

    run(plane, "DELETE FROM rk_audit_event WHERE uid IN (?, ?)", first, second)
    run(plane, "DELETE FROM rk_audit_seal WHERE uid IN (?, ?)", second, third)
    # As if another home had written them.
    path = plane.settings.home / WRITTEN_FILE
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line[:-1] not in (first, second, third)))

    assert uids(plane)[-1] == later
    assert problem(plane).kind == "truncated"
    sealed(plane, 4)
    assert problem(plane).kind == "truncated"


def test_an_end_that_is_said_to_be_dropped_by_somebody_else_stays_noted(plane: Plane) -> None:
    order = sealed(plane, 5)
    for table in ("rk_audit_event", "rk_audit_seal"):
        run(plane, f"DELETE FROM {table} WHERE uid IN (?, ?)", *order[3:])
    run(plane, "DELETE FROM rk_audit_anchor")
    for name in (ANCHORS_FILE, WRITTEN_FILE):
        (plane.settings.home / name).unlink()
    columns = "number, seq, digest, newest_at, at, previous, key_id, mac, dropped_at, drop_key_id, drop_mac"

    run(
        plane,
        f"INSERT INTO rk_audit_anchor ({columns}) VALUES (999999, 999999, 'x', 1, 1, 'x', 'x', 'x', 1, 'x', 'x')",
    )
    sealed(plane, 1)
    run(plane, "DELETE FROM rk_audit_anchor WHERE number = 999999")

    found = problem(plane)
    assert (found.kind, found.seq) == ("truncated", 5)


def test_a_trail_that_is_emptied_is_found(plane: Plane) -> None:
    sealed(plane, 5)

    for table in ("rk_audit_event", "rk_audit_seal", "rk_audit_anchor"):
        run(plane, f"DELETE FROM {table}")

    assert problem(plane).kind == "truncated"
    sealed(plane, 2)
    assert problem(plane).kind == "truncated"


def test_a_changed_anchor_is_found(plane: Plane) -> None:
    sealed(plane, 2)
    run(plane, "UPDATE rk_audit_anchor SET newest_at = 0")

    assert problem(plane).kind == "anchor"


def test_an_anchor_without_a_key_is_found(plane: Plane) -> None:
    sealed(plane, 2)
    run(plane, "UPDATE rk_audit_anchor SET key_id = ''")

    assert problem(plane).kind == "key"


def test_a_note_of_the_head_that_was_changed_is_found_and_one_that_is_missing_is_said(plane: Plane) -> None:
    sealed(plane, 2)
    path = plane.settings.home / HEAD_FILE
    note = json.loads(path.read_text())

    path.write_text(json.dumps(note | {"seq": 1}))
    found = problem(plane)
    path.unlink()
    without = audit_check.verify(plane)

    assert found.kind == "anchor"
    assert without.is_whole
    assert HEAD_FILE in without.notes[0]


def test_a_note_of_the_head_is_on_the_disk_before_it_counts(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    sync = os.fsync

    def seen(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").read_bytes())
        sync(descriptor)

    monkeypatch.setattr(audit_sealing.os, "fsync", seen)
    sealed(plane, 1)

    assert (plane.settings.home / HEAD_FILE).read_bytes() in synced


def test_a_chain_outlives_the_rotation_of_its_key(plane: Plane) -> None:
    sealed(plane, 2)
    put_first(plane.settings, plane.cache)
    rotated = opening.open_plane(plane.settings, now_ms=plane.now_ms)
    other = plane.settings.model_copy(update={"secret_keys": (Secret(token_hex(32)),)})
    stranger = opening.open_plane(other, now_ms=plane.now_ms)

    sealed(rotated, 2)
    verdict = audit_check.verify(rotated)

    assert (verdict.problem, verdict.sealed) == (None, 4)
    assert len(rotated.database.all("SELECT DISTINCT key_id FROM rk_audit_event")) == 2
    assert problem(stranger).kind == "key"
    for each in (rotated, stranger):
        close_stores(each)


@pytest.mark.parametrize("left", [0, 1, 3])
def test_a_sealer_that_does_not_know_a_new_key_yet_goes_on_where_the_chain_ends(
    plane: Plane, clock: Clock, left: int
) -> None:
    keep_for(plane, 1)
    audit_sealing.seal_all(plane)
    put_first(plane.settings, plane.cache)
    rotated = opening.open_plane(plane.settings, now_ms=plane.now_ms)
    for _ in range(3):
        clock.forward(hours=2)
        sealed(rotated, 2)
    clock.forward(days=2)
    happen(rotated, left)
    audit_sealing.seal_all(rotated)
    dropped = [audit_retention.drop_segment(rotated) for _ in range(4)]

    sealed(plane, 1)
    sealed(rotated, 1)

    assert dropped == [1, 2, 2, 2]
    verdict = audit_check.verify(rotated)
    assert (verdict.problem, verdict.dropped, verdict.sealed) == (None, 7, left + 4 + 2)
    close_stores(rotated)


def test_events_of_before_there_were_signatures_are_signed_once(plane: Plane) -> None:
    happen(plane, 2)
    run(plane, "UPDATE rk_audit_event SET mac = NULL, key_id = NULL")
    run(plane, "DELETE FROM rk_audit_unsealed")

    sealed(plane, 1)

    assert audit_check.verify(plane).sealed == 3
    run(plane, "UPDATE rk_audit_event SET mac = NULL WHERE uid = ?", uids(plane)[0])
    sealed(plane, 1)
    assert problem(plane).kind == "inserted"


class OlderEvent(Table):
    """The table as it was before events were signed."""

    id = BigAutoField()
    at = BigIntegerField(index=True)
    tag = CharField(max_length=64)
    result = CharField(max_length=8)
    actor_id = CharField(max_length=32, null=True)
    actor_email = CharField(max_length=255, null=True)
    actor_roles = CharField(max_length=255, null=True)
    credential = CharField(max_length=64, null=True)
    address = CharField(max_length=64, null=True)
    agent = CharField(max_length=255, null=True)
    request_id = CharField(max_length=64, null=True)
    target_kind = CharField(max_length=32, null=True)
    target = CharField(max_length=255, null=True)
    before = LongTextField(null=True)
    after = LongTextField(null=True)

    class Meta:
        table_name = "rk_audit_event"


def test_a_trail_of_before_is_taken_over_by_the_migration(plane: Plane, clock: Clock) -> None:
    plane.database.run("DROP TABLE rk_audit_event")
    plane.database.create(OlderEvent)
    for number in range(3):
        plane.database.insert(
            OlderEvent,
            at=clock.now + number,
            tag="user:create",
            result="ok",
            actor_email="Ada@x.test",
            target=f"u{number}",
        )
    run(plane, "DELETE FROM rk_migration WHERE number = 6")

    assert [step.number for step in migrate(plane.database, clock.now)] == [6]

    sealed(plane, 1)
    assert audit_check.verify(plane).sealed == 4
    found = audit_trail.page(plane, Filter(actor="ada@x.test"))["events"]
    assert [event["target"] for event in found] == ["u2", "u1", "u0"]


def test_a_secret_is_in_no_event(plane: Plane) -> None:
    with plane.database.transaction():
        audit.record(plane, EventTag.USER_UPDATE, SHELL, after={"password": Secret("correct horse")})

    assert plane.database.one("SELECT `after` FROM rk_audit_event WHERE tag = 'user:update'") == ('{"password":"***"}',)


def keep_for(plane: Plane, days: int) -> None:
    settings.set_variable(plane, SHELL, "audit.retention_days", days)
    plane.variables.forget()


def test_whole_segments_are_dropped_when_their_time_is_over_and_the_rest_stays_verifiable(
    plane: Plane, clock: Clock
) -> None:
    with plane.database.transaction():
        happen(plane, BATCH, target="forgotten@x.test", actor="both@x.test")
    audit_sealing.seal_all(plane)
    clock.forward(days=40)
    sealed(plane, 3, target="remembered@x.test", actor="both@x.test")

    nothing_set = audit_retention.drop_segment(plane)
    keep_for(plane, 30)
    dropped = audit_retention.drop_segment(plane)
    again = audit_retention.drop_segment(plane)
    audit_sealing.seal_all(plane)

    assert (nothing_set, dropped, again) == (0, BATCH, 0)
    verdict = audit_check.verify(plane)
    assert (verdict.problem, verdict.dropped, verdict.sealed, verdict.unsealed) == (None, BATCH, 5, 0)
    assert plane.database.one("SELECT COUNT(*) FROM rk_audit_event WHERE tag = 'audit:drop'") == (1,)
    names = [name for (name,) in plane.database.all("SELECT name FROM rk_audit_name")]
    assert "forgotten@x.test" not in names
    assert {"remembered@x.test", "both@x.test"} <= set(names)


def test_that_a_clock_was_ahead_and_nothing_is_dropped_for_it_is_told(
    plane: Plane, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.forward(days=7000)
    with plane.database.transaction():
        happen(plane, BATCH)
    audit_sealing.seal_all(plane)
    clock.forward(days=-7000)
    keep_for(plane, 30)

    assert audit_retention.drop_segment(plane) == 0
    assert "nothing of the audit trail is dropped for 7030 days" in caplog.text
    assert audit_check.verify(plane).problem is None
    # Nor does a moment that no calendar has stop the job.
    run(plane, "UPDATE rk_audit_anchor SET newest_at = 9223372036854775807")
    assert audit_retention.drop_segment(plane) == 0


def test_a_segment_that_nobody_dropped_can_not_be_said_to_be(plane: Plane, clock: Clock) -> None:
    sealed(plane, 3)
    run(plane, "UPDATE rk_audit_anchor SET dropped_at = 1, drop_key_id = key_id, drop_mac = mac")
    run(plane, "DELETE FROM rk_audit_event")
    run(plane, "DELETE FROM rk_audit_seal")

    assert problem(plane).kind == "missing"


def test_a_segment_can_not_be_said_to_have_been_dropped_during_a_look(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed(plane, 3)
    read = audit_check.sealed_between

    def taken_out_before(plane: Plane, after: int, end: int) -> object:
        for table in ("rk_audit_event", "rk_audit_seal"):
            plane.database.run(f"DELETE FROM {table}")
        run(plane, "UPDATE rk_audit_anchor SET dropped_at = 1, drop_key_id = key_id, drop_mac = mac")
        return read(plane, after, end)

    monkeypatch.setattr(audit_check, "sealed_between", taken_out_before)

    assert problem(plane).kind == "missing"


def test_what_is_put_back_into_a_dropped_segment_is_found(plane: Plane, clock: Clock) -> None:
    uid = sealed(plane, 3)[0]
    row = plane.database.one("SELECT seq, uid, key_id, digest FROM rk_audit_seal WHERE uid = ?", (uid,))
    assert row is not None
    clock.forward(days=40)
    sealed(plane, 1)
    keep_for(plane, 30)
    assert audit_retention.drop_segment(plane) == 3

    run(plane, "INSERT INTO rk_audit_seal (seq, uid, key_id, digest) VALUES (?, ?, ?, ?)", *row)

    found = problem(plane)
    assert (found.kind, found.uid, found.seq) == ("inserted", uid, 1)


def test_a_time_that_was_put_into_the_database_drops_nothing(plane: Plane, clock: Clock) -> None:
    sealed(plane, 3)
    clock.forward(days=40)
    sealed(plane, 1)
    keep_for(plane, 60)

    run(plane, "UPDATE rk_variable SET value = '30' WHERE name = 'audit.retention_days'")
    run(plane, "UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    plane.variables.forget()
    unsaid = audit_retention.drop_segment(plane)
    event = plane.database.one("SELECT uid FROM rk_audit_event WHERE tag = 'setting:update'")
    assert event is not None
    forged = "f" * len(event[0])
    copy_of(plane, event[0], uid=forged, after='{"value":30}')
    unsigned = audit_retention.drop_segment(plane)
    run(plane, "DELETE FROM rk_audit_event WHERE uid = ?", forged)
    keep_for(plane, 20)
    said = audit_retention.drop_segment(plane)

    assert (unsaid, unsigned, said) == (0, 0, 3)


@pytest.mark.race
def test_a_time_that_is_set_while_a_segment_goes_is_said_by_the_newest_event(
    plane: Plane, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing more would go: the drop, by the time of before, would seem to come after what was set."""
    for _ in range(2):
        sealed(plane, 2, actor="ada@x.test")
        clock.forward(days=80)
    keep_for(plane, 30)
    sealed(plane, 1)
    is_set, looks = threading.Event(), threading.Event()

    def set_anew() -> None:
        with plane.database.transaction():
            settings.set_variable(plane, SHELL, "audit.retention_days", 60)
            is_set.set()
            looks.wait(10)
        plane.database.close()

    setter = threading.Thread(target=set_anew)
    lock, transaction = plane.database.lock, plane.database.transaction

    def seen(name: str) -> None:
        if name == "settings" and threading.current_thread() is not setter:
            looks.set()
        lock(name)

    def begun() -> object:
        if threading.current_thread() is not setter and not stores.is_server("metadata"):
            looks.set()
        return transaction()

    monkeypatch.setattr(plane.database, "lock", seen)
    monkeypatch.setattr(plane.database, "transaction", begun)
    setter.start()
    assert is_set.wait(10)
    audit_retention.drop_segment(plane)
    looks.set()
    setter.join(10)
    plane.variables.forget()
    audit_sealing.seal_all(plane)

    assert audit_retention.drop_segment(plane) > 0
    assert audit_check.verify(plane).is_whole


def test_a_time_that_was_gone_back_to_counts(plane: Plane, clock: Clock) -> None:
    sealed(plane, 3)
    clock.forward(days=40)
    sealed(plane, 1)
    for days in (30, 60):
        keep_for(plane, days)
    *_, first = settings.history(plane, "audit.retention_days")["changes"]
    before = audit_retention.drop_segment(plane)
    settings.roll_back(plane, SHELL, "audit.retention_days", first["id"])

    assert (before, audit_retention.drop_segment(plane)) == (0, 3)


def test_what_was_set_before_all_that_is_left_is_still_known(plane: Plane, clock: Clock) -> None:
    keep_for(plane, 30)
    for _ in range(3):
        sealed(plane, 2)
        clock.forward(days=40)
    sealed(plane, 1)

    assert [audit_retention.drop_segment(plane) for _ in range(3)] == [3, 2, 2]
    assert plane.database.one("SELECT COUNT(*) FROM rk_audit_event WHERE tag = 'setting:update'") == (0,)


def test_a_segment_that_only_seems_to_be_old_is_not_dropped(plane: Plane) -> None:
    keep_for(plane, 30)
    sealed(plane, 3)
    newest_at = plane.database.one("SELECT newest_at FROM rk_audit_anchor")
    assert newest_at is not None

    run(plane, "UPDATE rk_audit_anchor SET newest_at = 0")
    dropped = audit_retention.drop_segment(plane)
    run(plane, "UPDATE rk_audit_anchor SET newest_at = ?", *newest_at)

    assert dropped == 0
    verdict = audit_check.verify(plane)
    assert (verdict.problem, verdict.sealed) == (None, 4)


def test_an_anchor_of_events_that_only_seemed_to_be_old_is_found_and_drops_nothing(plane: Plane) -> None:
    keep_for(plane, 30)
    happen(plane, 3)

    run(plane, "UPDATE rk_audit_event SET at = at - 40 * 86400000")
    audit_sealing.seal_all(plane)
    run(plane, "UPDATE rk_audit_event SET at = at + 40 * 86400000")

    assert audit_retention.drop_segment(plane) == 0
    assert problem(plane).kind == "anchor"


def test_a_segment_whose_beginning_is_not_told_is_not_dropped(plane: Plane, clock: Clock) -> None:
    keep_for(plane, 30)
    for _ in range(2):
        sealed(plane, 2)
        clock.forward(days=40)
    sealed(plane, 1)

    run(plane, "UPDATE rk_audit_anchor SET number = 7 WHERE number = 1")

    assert audit_retention.drop_segment(plane) == 0


_HIDDEN = {
    "renamed": ("UPDATE rk_audit_event SET target_key = 'x' WHERE uid = ?",),
    "taken out": ("DELETE FROM rk_audit_event WHERE uid = ?",),
    "taken out with its seal": ("DELETE FROM rk_audit_event WHERE uid = ?", "DELETE FROM rk_audit_seal WHERE uid = ?"),
    "cut off": ("DELETE FROM rk_audit_event WHERE uid >= ?", "DELETE FROM rk_audit_seal WHERE uid >= ?"),
}


@pytest.mark.parametrize("how", list(_HIDDEN))
@pytest.mark.parametrize("more", [0, 2])
def test_a_time_that_was_set_later_can_not_be_hidden_until_something_is_dropped(
    plane: Plane, clock: Clock, how: str, more: int, caplog: pytest.LogCaptureFixture
) -> None:
    sealed(plane, 3)
    clock.forward(days=40)
    keep_for(plane, 30)
    sealed(plane, 1)
    keep_for(plane, 60)
    sealed(plane, more)
    later = plane.database.one("SELECT MAX(uid) FROM rk_audit_event WHERE tag = 'setting:update'")
    assert later is not None
    clock.forward(hours=1)

    for statement in _HIDDEN[how]:
        run(plane, statement, *later)
    run(plane, "UPDATE rk_variable SET value = '30' WHERE name = 'audit.retention_days'")
    run(plane, "UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    plane.variables.forget()

    assert audit_retention.drop_segment(plane) == 0
    assert "nothing of the audit trail is dropped" in caplog.text


@pytest.mark.parametrize("uid", ["x'ff'", "'g'", "CAST(x'ff' AS TEXT)", "'é'"])
def test_a_time_that_was_set_later_can_not_be_hidden_behind_an_event_of_another_kind(
    embedded: Plane, clock: Clock, uid: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with embedded.database.transaction():
            happen(embedded, 2 * BATCH)
        audit_sealing.seal_all(embedded)
    clock.forward(days=40)
    keep_for(embedded, 30)
    assert audit_retention.drop_segment(embedded) > 0
    audit_sealing.seal_all(embedded)
    clock.forward(seconds=1)
    keep_for(embedded, 60)
    sealed(embedded, 1)

    columns = "at, tag, result, target_key, `after`, key_id, mac"
    run(
        embedded,
        f"INSERT INTO rk_audit_event (uid, {columns}) SELECT {uid}, {columns} FROM rk_audit_event "
        "WHERE tag = 'setting:update' LIMIT 1",
    )
    run(embedded, "UPDATE rk_variable SET value = '30' WHERE name = 'audit.retention_days'")
    run(embedded, "UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    embedded.variables.forget()

    assert audit_retention.drop_segment(embedded) == 0
    assert "nothing of the audit trail is dropped" in caplog.text


def test_a_time_that_was_set_later_can_not_be_hidden_behind_one_that_seems_to_wait(plane: Plane, clock: Clock) -> None:
    sealed(plane, 3)
    clock.forward(days=40)
    for days in (30, 60):
        clock.forward(seconds=1)
        keep_for(plane, days)
        audit_sealing.seal_all(plane)
    rows = plane.database.all("SELECT uid FROM rk_audit_event WHERE tag = 'setting:update' ORDER BY uid")

    run(plane, "UPDATE rk_audit_event SET target_key = 'x' WHERE uid = ?", *rows[1])
    run(plane, "DELETE FROM rk_audit_seal WHERE uid = ?", *rows[0])
    run(plane, "UPDATE rk_variable SET value = '30' WHERE name = 'audit.retention_days'")
    run(plane, "UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    plane.variables.forget()

    assert audit_retention.drop_segment(plane) == 0


def test_a_time_that_was_set_later_can_not_be_hidden_before_one_that_was_made_to_be_sealed_again(
    plane: Plane, clock: Clock
) -> None:
    sealed(plane, 3)
    clock.forward(days=40)
    for days in (30, 60):
        clock.forward(seconds=1)
        keep_for(plane, days)
        sealed(plane, 1)
    clock.forward(hours=1)
    rows = plane.database.all("SELECT uid FROM rk_audit_event WHERE tag = 'setting:update' ORDER BY uid")

    run(plane, "DELETE FROM rk_audit_seal WHERE uid = ?", *rows[0])
    run(plane, "INSERT INTO rk_audit_unsealed (uid) VALUES (?)", *rows[0])
    audit_sealing.seal_all(plane)
    run(plane, "UPDATE rk_audit_event SET target_key = 'x' WHERE uid = ?", *rows[1])
    run(plane, "UPDATE rk_variable SET value = '30' WHERE name = 'audit.retention_days'")
    run(plane, "UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    plane.variables.forget()

    assert audit_retention.drop_segment(plane) == 0


def test_a_time_that_was_set_later_can_not_be_hidden_from_an_index(
    embedded: Plane, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    sealed(embedded, 3)
    clock.forward(days=40)
    for days in (30, 60):
        clock.forward(seconds=1)
        keep_for(embedded, days)
    sealed(embedded, 1)
    later = embedded.database.one("SELECT MAX(uid) FROM rk_audit_event WHERE tag = 'setting:update'")
    assert later is not None
    clock.forward(hours=1)

    have_index_of(embedded, "rk_audit_by_tag_target", "tag, target_key, uid", f"uid <> '{later[0]}'")
    run(embedded, "UPDATE rk_variable SET value = '30' WHERE name = 'audit.retention_days'")
    run(embedded, "UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    embedded.variables.forget()

    assert audit_retention.drop_segment(embedded) == 0
    assert f"event {later[0]} (number" in caplog.text


@pytest.mark.parametrize("column", ["newest_at", "seq", "at", "mac"])
def test_an_anchor_with_values_of_other_kinds_is_told_and_drops_nothing(
    embedded: Plane, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    sealed(embedded, 3)
    keep_for(embedded, 1)
    audit_sealing.seal_all(embedded)
    run(embedded, f"UPDATE rk_audit_anchor SET newest_at = 0, {column} = x'ff'")

    assert audit_retention.drop_segment(embedded) == 0
    assert "nothing of the audit trail is dropped: anchor 1 was changed" in caplog.text


def test_an_id_with_line_ends_makes_no_line_of_its_own(
    plane: Plane, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    keep_for(plane, 1)
    *_, last = sealed(plane, 3)
    clock.forward(days=2)
    run(plane, "UPDATE rk_audit_seal SET uid = ? WHERE uid = ?", "x\n\x1b[2Jall is whole", last)

    assert audit_retention.drop_segment(plane) == 0
    assert problem(plane).text == "event x\\n\\x1b[2Jall is whole (number 4) is missing: its row was removed"
    assert "\x1b" not in caplog.text
    assert caplog.text.count("\n") == 1


def test_a_number_of_an_anchor_with_line_ends_makes_no_line_of_its_own(
    embedded: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    keep_for(embedded, 1)
    sealed(embedded, 3)
    run(embedded, "UPDATE rk_audit_anchor SET newest_at = ?, seq = ?", 2**62, "x\n\x1b[2Jall is whole")

    assert audit_retention.drop_segment(embedded) == 0
    assert "\x1b" not in caplog.text
    assert caplog.text.count("\n") == 1


def test_a_trail_that_can_not_be_put_right_can_be_begun_anew(plane: Plane, clock: Clock) -> None:
    """As docs/audit.md has it."""
    keep_for(plane, 1)
    gone = sealed(plane, 3)[1]
    run(plane, "DELETE FROM rk_audit_event WHERE uid = ?", gone)
    for table in ("event", "seal", "anchor", "unsealed", "name"):
        plane.database.run(f"DELETE FROM rk_audit_{table}")
    for path in plane.settings.home.glob("audit-*"):
        path.rename(path.with_name(f"old-{path.name}"))

    keep_for(plane, 2)
    sealed(plane, 3)
    clock.forward(days=3)
    sealed(plane, 1)

    assert audit_retention.drop_segment(plane) == 4
    verdict = audit_check.verify(plane)
    assert (verdict.problem, verdict.dropped, verdict.notes) == (None, 4, ())
