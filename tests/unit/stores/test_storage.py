"""The contract of the object store, for every implementation, and the embedded one's folder."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from common.conf.sections import MinioSection, S3Section
from common.core.errors import BadField, StoreUnavailable
from common.stores.s3_storage import S3Storage
from common.stores.storage import TRIAL_BYTES, FolderStorage, ObjectNotFound


def folder_storage(request):
    return FolderStorage(request.getfixturevalue("tmp_path") / "objects")


def minio_storage(request, **changes):
    server = request.getfixturevalue("s3_server")
    return S3Storage(MinioSection.model_validate(server.section(timeout=10, **changes)))


def one_bucket_storage(request):
    request.getfixturevalue("s3_server").client().make_bucket("everything")
    return minio_storage(request, bucket="everything", prefix_path="some/where")


def s3_storage(request):
    server = request.getfixturevalue("s3_server")
    section = {"endpoint_url": f"http://{server.address}", "region": "us-east-1", "timeout": 10}
    keys = {"access_key": server.access_key, "secret_key": server.secret_key}
    return S3Storage(S3Section.model_validate({**section, **keys}))


ON_S3 = {"minio": minio_storage, "one bucket on minio": one_bucket_storage, "s3": s3_storage}
IMPLEMENTATIONS = {"folder": folder_storage, **ON_S3}


@pytest.fixture(params=IMPLEMENTATIONS)
def storage(request):
    storage = IMPLEMENTATIONS[request.param](request)
    storage.prepare()
    return storage


@pytest.fixture
def embedded(tmp_path):
    storage = FolderStorage(tmp_path / "objects")
    storage.prepare()
    return storage


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_is_put_is_got(storage):
    storage.put("kb1", "report.pdf", b"\0\xff bytes")
    assert storage.get("kb1", "report.pdf") == b"\0\xff bytes"


def test_an_object_replaces_the_one_of_its_name(storage):
    storage.put("kb1", "a", b"old and longer")
    storage.put("kb1", "a", b"new")
    assert storage.get("kb1", "a") == b"new"
    assert storage.list("kb1") == ["a"]


def test_an_empty_object_is_an_object(storage):
    storage.put("kb1", "a", b"")
    assert storage.get("kb1", "a") == b""


@pytest.mark.parametrize(("bucket", "name"), [("kb1", "missing"), ("nowhere", "a"), ("kb1", "../a"), ("..", "a")])
def test_an_object_that_is_not_there_is_not_found_and_nothing_to_delete(storage, bucket, name):
    storage.put("kb1", "a", b"x")
    with pytest.raises(ObjectNotFound):
        storage.get(bucket, name)
    assert storage.delete(bucket, name) is False


def test_a_deleted_object_is_gone(storage):
    storage.put("kb1", "a", b"x")
    assert storage.delete("kb1", "a") is True
    assert storage.list("kb1") == []


LONG = "文" * 300 + "/" + "x" * 100


AWKWARD = [
    ["dir", "dir/child", "dir/child/grandchild"],
    [".hidden", "...", "a..b", "%2E%2E", "a+b", "a+", "+", "a b\n\t", "~", "-rf", "CON", "\\..\\x"],
    [LONG, LONG[:-1], LONG + "y"],
    ["x" * 200, "x" * 200 + "y", "x" * 400],
    ["x" * 200 + "..", "x" * 200 + ".", "x" * 199 + ".."],
]
# The rest is beyond the tests' S3 server, whose objects are files of the same names.
AWKWARD_ON_S3 = [
    ["dir/child", "dir/child2/grandchild"],
    [".hidden", "...", "a..b", "a+b", "a+", "+", "a b", "~", "-rf", "CON", "&<>\"'?#=", "文/é"],
    ["x" * 200, "x" * 200 + "y", "/".join(["y" * 200] * 3)],
]
CASES = [("folder", names) for names in AWKWARD] + [(each, names) for each in ON_S3 for names in AWKWARD_ON_S3]


@pytest.mark.parametrize(("storage", "names"), CASES, indirect=["storage"])
def test_awkward_names_live_side_by_side(storage, names):
    for number, name in enumerate(names):
        storage.put("kb1", name, str(number).encode())
    assert [storage.get("kb1", name) for name in names] == [str(n).encode() for n in range(len(names))]
    assert storage.list("kb1") == sorted(names)
    assert storage.delete("kb1", names[0]) is True
    assert storage.list("kb1") == sorted(names[1:])
    assert storage.delete_bucket("kb1") == len(names) - 1


@pytest.mark.parametrize(
    "name",
    ["", "..", ".", "../x", "a/../b", "a/./b", "/etc/passwd", "a//b", "a/", "a\0b", "\ud800", "x" * 1025],
)
def test_a_name_that_no_object_can_have_is_refused(storage, name):
    with pytest.raises(BadField) as raised:
        storage.put("kb1", name, b"x")
    assert raised.value.field == "name"


@pytest.mark.parametrize("bucket", ["", ".", "..", "a/b", "/tmp", ".hidden", "x" * 64, "a\0", "a\n", "ü"])
def test_a_name_that_no_bucket_can_have_is_refused_and_does_not_exist(storage, bucket):
    with pytest.raises(BadField) as raised:
        storage.put(bucket, "a", b"x")
    assert raised.value.field == "bucket"
    assert storage.bucket_exists(bucket) is False
    assert storage.list(bucket) == []
    assert storage.delete_bucket(bucket) == 0


def test_nothing_is_ever_written_outside_the_buckets_folder(embedded, tmp_path):
    embedded.put("kb1", "x" * 200 + "..", b"x")
    embedded.put("kb1", "x" * 200 + "../a/..b/escaped", b"x")
    assert len(files(tmp_path)) == 2
    assert all(path.is_relative_to(tmp_path / "objects" / "kb1") for path in files(tmp_path))


def test_a_listing_is_a_page_by_prefix_in_order(storage):
    for name in ("b/2", "a", "b/1", "b/3", "c"):
        storage.put("kb1", name, b"x")
    assert storage.list("kb1", "b/") == ["b/1", "b/2", "b/3"]
    assert storage.list("kb1", limit=2) == ["a", "b/1"]
    assert storage.list("kb1", limit=2, after="b/1") == ["b/2", "b/3"]
    assert storage.list("kb1", limit=0) == []
    assert storage.list("nowhere") == []


def test_a_bucket_is_deleted_in_bounded_steps_and_its_neighbour_stays(storage):
    for name in ("a", "b", "dir/c", "d", "e"):
        storage.put("kb1", name, b"x")
    storage.put("kb2", "a", b"x")
    assert [storage.delete_bucket("kb1", limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert storage.bucket_exists("kb1") is False
    assert storage.list("kb2") == ["a"]
    assert storage.delete_bucket("kb1") == 0


def test_some_objects_of_a_bucket_are_deleted_and_the_others_stay(storage):
    for name in ("a", "b", "dir/c", "e"):
        storage.put("kb1", name, b"x")
    storage.put("kb2", "a", b"x")
    assert storage.delete_some("kb1", ["a", "dir/c"]) == 2
    assert storage.list("kb1") == ["b", "e"]
    assert storage.delete_some("kb1", []) == 0
    assert storage.delete_some("kb1", ["b", "e"]) == 2
    assert storage.list("kb1") == []
    assert storage.list("kb2") == ["a"]


def test_a_bucket_exists_from_its_first_object_on(storage):
    assert storage.bucket_exists("kb1") is False
    storage.put("kb1", "a", b"x")
    assert storage.bucket_exists("kb1") is True


def test_a_trial_change_leaves_nothing_and_is_in_nobodys_way(storage):
    storage.put("kb1", "a", b"x")
    for _ in range(3):
        storage.try_change()
    assert storage.list("ragkeeper-trial") == []
    assert storage.list("kb1") == ["a"]
    assert storage.health()["status"] == "green"


@pytest.mark.race
def test_putting_while_the_bucket_is_being_deleted_fails_nobody(embedded):
    failed = []
    done = threading.Event()

    def put():
        try:
            for number in range(100):
                embedded.put("kb1", f"n{number}", b"x")
        except StoreUnavailable as error:
            failed.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=put)
    thread.start()
    while not done.is_set():
        embedded.delete_bucket("kb1", limit=3)
    thread.join()
    assert failed == []


def test_a_put_that_fails_half_way_leaves_the_old_content_and_no_litter(embedded, tmp_path, monkeypatch):
    embedded.put("kb1", "a", b"old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(StoreUnavailable) as raised:
        embedded.put("kb1", "a", b"new")
    assert raised.value.store == "objects"
    assert embedded.get("kb1", "a") == b"old"
    assert len(files(tmp_path)) == 1


def test_a_trial_change_is_on_the_disk_for_a_moment(embedded, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    embedded.try_change()
    assert synced == [TRIAL_BYTES]
    assert files(tmp_path) == []


def test_a_trial_change_that_fails_says_so_and_leaves_no_litter(embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(StoreUnavailable) as raised:
        embedded.try_change()
    assert raised.value.store == "objects"
    assert files(tmp_path) == []


def test_what_a_crash_left_behind_is_no_object_and_goes_after_a_day(embedded, tmp_path):
    embedded.put("kb1", "a", b"x")
    old, young = (tmp_path / "objects" / ".incoming" / name for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert embedded.list("kb1") == ["a"]
    embedded.prepare()
    assert (old.exists(), young.exists()) == (False, True)


def test_a_missing_root_is_an_unavailable_store_and_is_not_made_anew(tmp_path):
    storage = FolderStorage(tmp_path / "objects")
    for call in (
        storage.health,
        lambda: storage.get("kb1", "a"),
        lambda: storage.put("kb1", "a", b"x"),
        lambda: storage.delete("kb1", "a"),
        lambda: storage.list("kb1"),
        lambda: storage.delete_bucket("kb1"),
        lambda: storage.delete_some("kb1", ["a"]),
        lambda: storage.bucket_exists("kb1"),
        storage.try_change,
    ):
        with pytest.raises(StoreUnavailable) as raised:
            call()
        assert raised.value.store == "objects"
    assert list(tmp_path.iterdir()) == []


def test_health_is_green_and_writes_nothing(embedded, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert embedded.health() == {"storage": "local", "status": "green"}
    assert sorted(tmp_path.rglob("*")) == before


def test_health_is_red_on_a_full_disk(embedded, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_blocks=100, f_bavail=0))
    assert embedded.health()["status"] == "red"


def test_health_is_red_where_nothing_can_be_written(embedded, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert embedded.health()["status"] == "red"


def test_objects_are_for_their_owner_only(embedded, tmp_path):
    embedded.put("kb1", "a", b"x")
    root = tmp_path / "objects"
    assert {path.stat().st_mode & 0o077 for path in (root, *root.rglob("*"))} == {0}
