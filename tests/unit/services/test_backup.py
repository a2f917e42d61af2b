"""A home in one file, and back."""

from __future__ import annotations

import errno
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from common.core.audit_tags import EventTag
from common.core.errors import StoreUnavailable
from common.secret import Secret
from common.services import archive, audit, audit_check, audit_sealing, backup, opening, restore, sessions
from common.services.archive import ArchiveRefused, Manifest
from common.services.keys import audit_key_of
from common.services.plane import Plane
from common.services.principal import Origin, system
from common.settings import Settings
from common.stores import sqlite_copy
from tests.people import World, settings_for

# What is backed up is the home; servers have means of their own.
pytestmark = pytest.mark.embedded

Members = dict[str, bytes]


def tell(_: str) -> None:
    """Nobody waits here."""


@pytest.fixture
def kept(plane: Plane, world: World, tmp_path: Path) -> Path:
    """The backup of a home with a superuser, who has a session and has ended one, documents and objects."""
    assert world.root.session
    world.root.administer("GET", "/logout")
    plane.documents.bulk_write("ragflow_t1", [{"id": "d1", "text": "some text"}])
    for name in ("a", "folder/b", "x" * 900, ".hidden"):
        plane.objects.put("bucket", name, name.encode())
    path = tmp_path / "kept.tar"
    backup.back_up(plane.settings, path, tell)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    """Settings of a home that does not exist."""
    return settings_for(tmp_path / "elsewhere" / "home")


def members_of(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def write(path: Path, members: Members, *more: tarfile.TarInfo) -> Path:
    """An archive with these members, and these beside them before the manifest."""
    with tarfile.open(path, "w") as tar:
        for header in more:
            tar.addfile(header)
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def refused(elsewhere: Settings, path: Path) -> str:
    """The sentence with which an archive is refused; it leaves nothing behind."""
    with pytest.raises(ArchiveRefused) as caught:
        restore.restore(elsewhere, path, tell)
    assert homes_at(elsewhere) == ["home"] * elsewhere.home.exists()
    return caught.value.message


def homes_at(settings: Settings) -> list[str]:
    """What lies where the home is to be, beside the configuration."""
    return sorted(path.name for path in settings.home.parent.iterdir() if not path.name.startswith("conf-"))


def test_a_restored_home_has_the_same_rows_objects_and_keys(
    plane: Plane, world: World, kept: Path, elsewhere: Settings
) -> None:
    encrypted = plane.keys.encrypt(Secret("a langfuse secret"))

    manifest, aside = restore.restore(elsewhere, kept, tell)

    assert aside is None
    assert elsewhere.home.stat().st_mode & 0o777 == 0o700
    assert [path for path in elsewhere.home.rglob("*") if path.is_file() and path.stat().st_mode & 0o077] == []
    before = sqlite_copy.rows_of_whole("metadata", plane.settings.database_path)
    assert manifest.rows["ragkeeper.db"] == before
    assert sqlite_copy.rows_of_whole("metadata", elsewhere.database_path) == {
        **before,
        "rk_audit_event": before["rk_audit_event"] + 1,
        "rk_audit_unsealed": before["rk_audit_unsealed"] + 1,
    }
    again = opening.open_plane(elsewhere)
    assert again.documents.count("ragflow_t1") == 1
    assert again.objects.list("bucket") == plane.objects.list("bucket")
    assert again.objects.get("bucket", "folder/b") == b"folder/b"
    assert again.keys.decrypt(encrypted) == Secret("a langfuse secret")
    assert again.keys.public_pem == plane.keys.public_pem
    sessions.log_in(again, Origin(), world.root.email, world.root.password, "admin")


def test_sessions_of_a_restored_home_are_over(plane: Plane, kept: Path, elsewhere: Settings) -> None:
    restore.restore(elsewhere, kept, tell)

    again = opening.open_plane(elsewhere)
    reasons = again.database.all("SELECT end_reason FROM rk_session ORDER BY end_reason")
    assert reasons == [("logout",), ("restored",)]
    [(after,)] = again.database.all("SELECT after FROM rk_audit_event WHERE tag = 'plane:restore'")
    assert after == '{"sessions_ended":1}'
    assert plane.database.all("SELECT end_reason FROM rk_session ORDER BY end_reason") == [(None,), ("logout",)]


def test_the_archive_is_private_and_holds_what_is_needed_and_nothing_more(kept: Path) -> None:
    assert kept.stat().st_mode & 0o777 == 0o600
    names = list(members_of(kept))
    assert names[-1] == archive.MANIFEST
    assert {name for name in names if not name.startswith("objects/")} == {
        "ragkeeper.db",
        "cache.sqlite3",
        "documents.sqlite3",
        "secret_key",
        "password_key.pem",
        "database_id",
        "manifest.json",
    }
    assert len(names) == 7 + 4
    assert [path.name for path in kept.parent.iterdir() if "ragkeeper-backup" in path.name] == []


def test_the_database_that_was_backed_up_tells_of_it(plane: Plane, tmp_path: Path) -> None:
    path = tmp_path / "kept.tar"
    manifest = backup.back_up(plane.settings, path, tell)
    before = sqlite_copy.rows_of_whole("metadata", plane.settings.database_path)["rk_audit_event"]

    backup.note(plane.settings, path, manifest)

    [(agent, actor, credential, after)] = plane.database.all(
        "SELECT agent, actor_id, credential, after FROM rk_audit_event WHERE tag = 'plane:backup'"
    )
    assert (agent, actor, credential) == ("ragkeeper backup", None, "system")
    assert json.loads(after) == {"archive": str(path), "created_at": manifest.created_at}
    assert manifest.rows["ragkeeper.db"]["rk_audit_event"] == before


def test_a_backup_overwrites_nothing(plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "there"
    target.write_text("precious")
    with pytest.raises(ArchiveRefused, match="exists already"):
        backup.back_up(plane.settings, target, tell)
    # Nor does it overwrite one that was made meanwhile.
    monkeypatch.setattr(Path, "exists", lambda path: path != target and os.path.lexists(path))
    with pytest.raises(ArchiveRefused, match="exists already"):
        backup.back_up(plane.settings, target, tell)
    assert target.read_text() == "precious"


@pytest.fixture(params=["EPERM", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EMLINK"])
def no_hard_links(plane: Plane, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that gives a file one name only."""
    number = getattr(errno, request.param)

    def refuse(source: Path, target: Path) -> None:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(source), None, str(target))
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_a_backup_is_made_as_well_and_overwrites_nothing(
    plane: Plane, tmp_path: Path, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, replace = tmp_path / "kept.tar", Path.replace

    def in_between(draft: Path, final: Path) -> Path:
        with pytest.raises(ArchiveRefused, match="exists already"):
            backup.back_up(plane.settings, target, tell)
        assert refused(elsewhere, target), "what stands there until it is whole is an archive already"
        return replace(draft, final)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", in_between)
        backup.back_up(plane.settings, target, tell)

    assert target.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(Path, "exists", lambda path: path != target and os.path.lexists(path))
    with pytest.raises(ArchiveRefused, match="exists already"):
        backup.back_up(plane.settings, target, tell)
    monkeypatch.undo()
    restore.restore(elsewhere, target, tell)


def test_without_hard_links_what_was_made_at_the_last_moment_is_not_overwritten_either(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "kept.tar"

    def too_late(source: Path, final: Path) -> None:
        final.write_text("precious")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(final))

    monkeypatch.setattr(os, "link", too_late)
    with pytest.raises(ArchiveRefused, match="exists already"):
        backup.back_up(plane.settings, target, tell)
    assert target.read_text() == "precious"


@pytest.mark.usefixtures("no_hard_links")
def test_an_archive_that_cant_get_its_name_leaves_nothing_and_is_one_sentence(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "kept.tar"

    def fail(draft: Path, final: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(draft), None, str(final))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        backup.back_up(plane.settings, target, tell)
    assert (caught.value.filename, caught.value.filename2) == (str(target), None)
    assert not [path for path in tmp_path.iterdir() if "kept" in path.name or "backup" in path.name]


def test_a_folder_that_takes_no_more_is_told_as_it_is(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        backup.back_up(plane.settings, tmp_path / "kept.tar", tell)
    assert not (tmp_path / "kept.tar").exists()


def test_what_is_not_there_is_not_backed_up(plane: Plane, tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match="no such folder"):
        backup.back_up(settings_for(tmp_path / "nowhere"), tmp_path / "kept", tell)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveRefused, match="there is no database"):
        backup.back_up(settings_for(tmp_path / "empty"), tmp_path / "kept", tell)
    objects = plane.settings.home / "objects"
    objects.rename(tmp_path / "unmounted")
    with pytest.raises(StoreUnavailable, match="objects"):
        backup.back_up(plane.settings, tmp_path / "kept", tell)
    assert not (tmp_path / "kept").exists()


def test_a_damaged_database_is_not_backed_up(plane: Plane, tmp_path: Path) -> None:
    plane.database.close()
    path = plane.settings.database_path
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable):
        backup.back_up(plane.settings, tmp_path / "kept", tell)
    assert not (tmp_path / "kept").exists()


def test_an_object_that_is_deleted_meanwhile_is_left_out(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        plane.objects.put("bucket", name, b"content")
    listed = backup._files_below

    def deleting(folder: Path) -> list[Path]:
        paths = list(listed(folder))
        plane.objects.delete("bucket", "a")
        return paths

    monkeypatch.setattr(backup, "_files_below", deleting)
    manifest = backup.back_up(plane.settings, tmp_path / "kept", tell)
    assert [name for name in manifest.members if name.startswith("objects/")] == ["objects/bucket/b"]


def test_it_says_what_lies_elsewhere(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    settings = settings_for(
        tmp_path / "home",
        RAGKEEPER_REDIS_URL="redis://127.0.0.1:1/0",
        RAGKEEPER_SECRET_KEY="k" * 40,
        RAGKEEPER_PASSWORD_PRIVATE_KEY=str(key),
    )
    said = backup.not_included(settings)
    assert said == (
        "cache (on a server)",
        "the secret key (in the settings)",
        f"the private key for passwords ({key})",
    )


def test_a_home_that_is_not_empty_is_left_alone_or_moved_aside(
    kept: Path, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.home.mkdir(parents=True)
    (elsewhere.home / "mine").write_text("precious")
    assert "is not empty" in refused(elsewhere, kept)

    _, aside = restore.restore(elsewhere, kept, tell, force=True)
    assert aside is not None
    assert (aside / "mine").read_text() == "precious"
    assert not (elsewhere.home / "mine").exists()
    assert elsewhere.database_path.exists()


def test_an_empty_home_is_filled(kept: Path, elsewhere: Settings) -> None:
    elsewhere.home.mkdir(parents=True)
    restore.restore(elsewhere, kept, tell)
    assert elsewhere.database_path.exists()


def test_a_home_that_can_not_be_replaced_stays(
    kept: Path, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.home.mkdir(parents=True)
    (elsewhere.home / "mine").write_text("precious")
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if ".restore-" in path.name:
            raise OSError(16, "Device or resource busy", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="busy"):
        restore.restore(elsewhere, kept, tell, force=True)
    assert homes_at(elsewhere) == ["home"]
    assert (elsewhere.home / "mine").read_text() == "precious"


def test_a_database_of_another_name_is_put_where_the_settings_want_it(kept: Path, tmp_path: Path) -> None:
    named = settings_for(tmp_path / "elsewhere" / "home", RAGKEEPER_DB_URL="sqlite:///sub/other.db")
    restore.restore(named, kept, tell)
    assert named.database_path == named.home / "sub" / "other.db"
    assert named.database_path.exists()
    outside = settings_for(tmp_path / "more" / "home", RAGKEEPER_DB_URL=f"sqlite:///{tmp_path}/outside.db")
    assert "is not in the home" in refused(outside, kept)


def link(kind: bytes, name: str) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, "/etc/passwd"
    return header


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "objects/../../evil",
        "objects/./evil",
        "objects//evil",
        "objects/",
        "objects",
        "supervisord.conf",
        "secret_key/x",
        "ragkeeper.db-wal",
        "./secret_key",
    ],
)
def test_a_member_that_leads_anywhere_else_is_refused(
    kept: Path, elsewhere: Settings, tmp_path: Path, name: str
) -> None:
    evil = write(tmp_path / "evil.tar", {name: b"evil", **members_of(kept)})
    assert "no backup has" in refused(elsewhere, evil)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_links_folders_and_devices_are_refused(kept: Path, elsewhere: Settings, tmp_path: Path, kind: bytes) -> None:
    evil = write(tmp_path / "evil.tar", members_of(kept), link(kind, "objects/evil"))
    assert "no backup has" in refused(elsewhere, evil)


def edited(change: Callable[[Members], object]) -> Callable[[Members], Members]:
    def edit(members: Members) -> Members:
        change(members)
        return members

    return edit


def other_manifest(**changed: object) -> Callable[[Members], Members]:
    def edit(members: Members) -> Members:
        manifest = Manifest.model_validate_json(members.pop(archive.MANIFEST))
        return {**members, archive.MANIFEST: manifest.model_copy(update=changed).model_dump_json().encode()}

    return edit


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edited(lambda members: members.pop("secret_key")), "'secret_key' is not what was backed up"),
        (edited(lambda members: members.update(secret_key=b"k" * 64)), "'secret_key' is not what was backed up"),
        (edited(lambda members: members.pop(archive.MANIFEST)), "its manifest is missing"),
        (edited(lambda members: members.update({archive.MANIFEST: b"{"})), "manifest can't be read"),
        (lambda members: {archive.MANIFEST: members.pop(archive.MANIFEST), **members}, "no backup has"),
        (other_manifest(format=2), "too old to read it"),
        (other_manifest(rows={}), "does not tell how many rows"),
    ],
    ids=["gone", "changed", "no manifest", "no JSON", "not last", "format", "no rows"],
)
def test_an_archive_that_is_not_as_it_was_written_is_refused(
    kept: Path, elsewhere: Settings, tmp_path: Path, change: Callable[[Members], Members], said: str
) -> None:
    assert said in refused(elsewhere, write(tmp_path / "changed.tar", change(members_of(kept))))


def test_an_archive_with_a_file_twice_is_refused(kept: Path, elsewhere: Settings, tmp_path: Path) -> None:
    twice = write(tmp_path / "twice.tar", members_of(kept), tarfile.TarInfo("secret_key"))
    assert "'secret_key' twice" in refused(elsewhere, twice)


@pytest.mark.parametrize("length", [0, 100, 5000, -20_000])
def test_an_archive_that_was_cut_is_refused(kept: Path, elsewhere: Settings, tmp_path: Path, length: int) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(kept.read_bytes()[:length])
    assert "is no whole backup" in refused(elsewhere, cut)


def test_a_database_that_a_later_program_made_is_refused(
    plane: Plane, kept: Path, elsewhere: Settings, tmp_path: Path
) -> None:
    plane.database.run("INSERT INTO rk_migration (number, name, applied_at) VALUES (999, 'later', 0)")
    backup.back_up(plane.settings, tmp_path / "later.tar", tell)
    assert "does not know its database" in refused(elsewhere, tmp_path / "later.tar")


def test_a_copy_of_a_file_that_is_written_to_is_of_one_moment(plane: Plane, tmp_path: Path) -> None:
    """Rows that are written in one transaction are in the copy together or not at all."""
    path, copy = tmp_path / "live.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.executescript("PRAGMA journal_mode = WAL; CREATE TABLE a (n); CREATE TABLE b (n)")
        writer.executescript("BEGIN; INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); COMMIT; BEGIN IMMEDIATE")
        writer.execute("INSERT INTO a VALUES (2)")
        sqlite_copy.copy_running("metadata", path, copy)
        writer.execute("COMMIT")
    assert sqlite_copy.rows_of_whole("metadata", copy) == {"a": 1, "b": 1}
    assert sqlite_copy.rows_of_whole("metadata", path) == {"a": 2, "b": 1}


def test_the_event_of_a_backup_is_signed_like_any_other(plane: Plane, tmp_path: Path) -> None:
    path = tmp_path / "signed.tar"
    backup.note(plane.settings, path, backup.back_up(plane.settings, path, tell))

    audit_sealing.seal_all(plane)

    verdict = audit_check.verify(plane)
    assert (verdict.problem, verdict.unsealed) == (None, 0)
    assert plane.database.one("SELECT COUNT(*) FROM rk_audit_event WHERE tag = 'plane:backup' AND mac IS NOT NULL") == (
        1,
    )


def test_a_database_of_before_events_were_signed_takes_the_event_of_a_backup(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "older")
    opening.make_home(settings)
    database = opening.database_of(settings)
    database.run(
        "CREATE TABLE rk_audit_event (id INTEGER PRIMARY KEY, at, tag, result, actor_id, actor_email, actor_roles, "
        "credential, address, agent, request_id, target_kind, target, `before`, `after`)"
    )

    audit.record_offline(settings.home, database, audit_key_of(settings), 1, EventTag.PLANE_BACKUP, system("older"))

    assert database.all("SELECT tag, agent FROM rk_audit_event") == [("plane:backup", "older")]
    database.close()
