"""A plane on embedded stores while a file or a folder of it is away, is locked, or its disk is full; and on an S3 whose
disk is.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.stores.s3_storage import TRIAL_NAME
from tests.backends.s3 import S3Server, running_s3
from tests.breaking import PLACES, WIRE_NAMES, written_by_another
from tests.faults.book import Entry
from tests.faults.ground import ADMINISTRATOR, Answer, ask, eventually
from tests.people import new_password
from tests.servers import Live, running

pytestmark = pytest.mark.whole_table

RECOVERY_LIMIT_S = 20.0
SEEN_WITHIN_S = 15.0
LIVEZ_LIMIT_S = 1.0
# Of a server that fails inside it takes two trial changes to be sure, and what was found is shared for a second.
FAILING_SEEN_WITHIN_S = 25.0


class Small:
    """A running plane, and its administrator."""

    def __init__(self, live: Live, password: str) -> None:
        self.live = live
        account = {"email": ADMINISTRATOR, "password": password}
        self._root = ask(live.admin_port, "POST", "/api/v1/admin/login", account).session

    def users(self) -> Answer:
        return ask(self.live.admin_port, "GET", "/api/v1/admin/users", credential=self._root)

    def make(self, email: str) -> Answer:
        body = {"username": email, "password": new_password()}
        return ask(self.live.admin_port, "POST", "/api/v1/admin/users", body, credential=self._root)

    def set_level(self) -> Answer:
        """A write to the cache."""
        level = {"pkg_name": "faults", "level": "INFO"}
        return ask(self.live.admin_port, "PUT", "/api/v1/admin/log_levels", level, credential=self._root)

    def emails(self) -> set[str]:
        return {each["email"] for each in self.users().body["data"]}

    def words(self) -> list[list[str]]:
        """What healthz says is not well, by several answers of both ports."""
        answers = [ask(port, "GET", "/v1/system/healthz") for port in (self.live.admin_port, self.live.api_port) * 3]
        return [[name for name in WIRE_NAMES.values() if each.body[name] != "ok"] for each in answers]

    def says(self, *words: str) -> bool:
        return all(each == list(words) for each in self.words())

    def alive_s(self) -> float:
        answer = ask(self.live.api_port, "GET", "/livez")
        assert answer.status == 200
        return answer.seconds


@contextmanager
def standing(home: Path) -> Iterator[Small]:
    password = new_password()
    with running(home, RAGKEEPER_ADMIN_PASSWORD=password) as live:
        yield Small(live, password)


@contextmanager
def standing_on(s3: S3Server, folder: Path) -> Iterator[Small]:
    """One whose objects are on this server."""
    conf = folder / "conf" / "service_conf.yaml"
    conf.parent.mkdir()
    conf.write_text(json.dumps({"minio": s3.section(timeout=1)}))
    with standing(folder / "home") as small:
        yield small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with standing(tmp_path_factory.mktemp("embedded") / "home") as small:
        yield small


def test_a_cache_that_was_removed_is_made_anew_by_whoever_uses_it(small: Small) -> None:
    entry = Entry("cache", "embedded-removed")
    place = small.live.home / PLACES["cache"]
    for end in ("", "-wal", "-shm"):
        Path(f"{place}{end}").unlink(missing_ok=True)
    assert small.make("without-cache@ragkeeper.test").status == 200
    assert small.set_level().status == 200
    back, entry.recovery_s = eventually(small.says, RECOVERY_LIMIT_S)
    assert back, small.words()
    entry.acknowledged, entry.lost, entry.verdict = 1, 0, "passed"
    assert "without-cache@ragkeeper.test" in small.emails()
    entry.write()


@pytest.mark.parametrize("store", ["metadata", "documents", "objects"])
def test_what_is_moved_away_is_named_and_well_again_when_it_is_back(small: Small, store: str) -> None:
    entry = Entry(store, "embedded-moved-away")
    place = small.live.home / PLACES[store]
    files = [each for each in (place, *(Path(f"{place}{end}") for end in ("-wal", "-shm"))) if each.exists()]
    assert small.make(f"before-{store}@ragkeeper.test").status == 200
    for each in files:
        each.rename(f"{each}.away")
    try:
        seen, _ = eventually(lambda: small.says(WIRE_NAMES[store]), SEEN_WITHIN_S)
        assert seen, small.words()
        entry.healthz = [WIRE_NAMES[store]]
        entry.livez_ms = small.alive_s() * 1000
        made = small.make(f"during-{store}@ragkeeper.test")
        assert made.status == (503 if store == "metadata" else 200), made
        assert not place.exists(), "somebody made it anew"
    finally:
        for each in files:
            Path(f"{each}.away").rename(each)
    back, entry.recovery_s = eventually(small.says, RECOVERY_LIMIT_S)
    assert back, small.words()
    expected = {f"before-{store}@ragkeeper.test"}
    if made.status == 200:
        expected.add(f"during-{store}@ragkeeper.test")
    entry.acknowledged, entry.lost = len(expected), len(expected - small.emails())
    entry.verdict = "passed" if not entry.lost else "failed"
    entry.write()
    assert entry.lost == 0
    assert entry.livez_ms < LIVEZ_LIMIT_S * 1000


def test_while_another_process_writes_reads_go_on_and_writes_are_refused(small: Small) -> None:
    with written_by_another(small.live.home / PLACES["metadata"]):
        made = small.make("locked-out@ragkeeper.test")
        assert made.status == 503
        assert "metadata store" in made.message
        assert small.users().status == 200
        assert small.alive_s() < LIVEZ_LIMIT_S
    assert small.make("let-in@ragkeeper.test").status == 200
    assert {"locked-out@ragkeeper.test", "let-in@ragkeeper.test"} & small.emails() == {"let-in@ragkeeper.test"}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of a few MB; only root may make one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_on_a_full_disk_what_reads_goes_on_and_what_was_acknowledged_stays(tmp_path: Path) -> None:
    entry = Entry("metadata", "embedded-disk-full")
    with small_disk(tmp_path / "disk") as disk, standing(disk / "home") as small:
        acknowledged = {"first@ragkeeper.test"}
        assert small.make("first@ragkeeper.test").status == 200
        filler = disk / "filler"
        fill(filler)
        # What it has reserved already may still take some.
        for number in range(200):
            made = small.make(f"{number}@ragkeeper.test")
            if made.status != 200:
                break
            acknowledged.add(f"{number}@ragkeeper.test")
        assert made.status == 503, small.live.printed()
        assert "metadata store" in made.message
        entry.needing, entry.needing_said = [503], made.message
        entry.healthz = list(WIRE_NAMES.values())

        def said() -> bool:
            # What was given back meanwhile, as by a log that was cut, is room.
            fill(filler)
            return small.says(*entry.healthz)

        seen, entry.seen_s = eventually(said, SEEN_WITHIN_S)
        assert seen, small.words()
        entry.livez_ms = small.alive_s() * 1000
        assert acknowledged <= small.emails()
        filler.unlink()
        back, entry.recovery_s = eventually(
            lambda: small.says() and small.make("after@ragkeeper.test").status in (200, 409), RECOVERY_LIMIT_S
        )
        assert back, small.words()
        entry.acknowledged, entry.lost = len(acknowledged), len(acknowledged - small.emails())
        entry.verdict = "passed"
        entry.write()
        assert entry.lost == 0


def test_an_object_server_whose_disk_is_full_is_named_and_well_again_when_it_has_room(tmp_path: Path) -> None:
    """A real server, which fails inside: what the front of the other faults says is what a MinIO says."""
    entry = Entry("objects", "s3-disk-full")
    with small_disk(tmp_path / "disk") as disk, running_s3(disk) as s3, standing_on(s3, tmp_path) as small:
        well, _ = eventually(lambda: small.says() and s3.client().bucket_exists(TRIAL_NAME), SEEN_WITHIN_S)
        assert well, small.words()
        filler = disk / "filler"
        fill(filler)
        entry.healthz = [WIRE_NAMES["objects"]]
        seen, entry.seen_s = eventually(lambda: small.says(*entry.healthz), FAILING_SEEN_WITHIN_S)
        assert seen, small.words()
        assert small.make("during@ragkeeper.test").status == 200
        filler.unlink()
        back, entry.recovery_s = eventually(small.says, RECOVERY_LIMIT_S)
        assert back, small.words()
        empty, _ = eventually(lambda: not s3.names(TRIAL_NAME), SEEN_WITHIN_S)
        assert empty, s3.names(TRIAL_NAME)
        entry.acknowledged, entry.lost = 1, 1 - len({"during@ragkeeper.test"} & small.emails())
        entry.verdict = "passed"
        entry.write()
        assert entry.lost == 0


def fill(filler: Path) -> None:
    """Write on until there is no room."""
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
