"""Objects on a real S3 server: RAGFlow's layout, every way in which the server can fail, and how long that may take."""

from __future__ import annotations

import io
import os
import socket
import ssl
import threading
import time

import pytest
import trustme

from common.conf.file import SettingsError
from common.conf.sections import MinioSection, S3Section
from common.core.errors import BadField, StoreUnavailable
from common.stores.s3_storage import S3Storage
from common.stores.storage import ObjectNotFound
from tests.backends.proxy import fault_proxy
from tests.backends.s3 import running_s3
from tests.backends.s3_front import s3_front
from tests.ports import free_ports
from tests.unit.stores.servers import drip, http_server, raw_server, say, send

TIMEOUT_S = 0.4
PATIENT_S = 10.0
# What a loaded machine may add to a deadline.
GRACE_S = 0.3
PATIENCE_S = 10.0


def storage_on(server, **changes):
    return S3Storage(MinioSection.model_validate(server.section(timeout=TIMEOUT_S, **changes)))


def storage_at(port, **changes):
    """A store on a server that only looks like one."""
    section = {"endpoint_url": f"http://127.0.0.1:{port}", "region": "us-east-1", "timeout": TIMEOUT_S}
    keys = {"access_key": "rag_flow", "secret_key": "s3cr3t-of-the-test"}
    return S3Storage(S3Section.model_validate({**section, **keys, **changes}))


@pytest.fixture
def storage(s3_server):
    return storage_on(s3_server)


@pytest.fixture
def proxy(s3_server):
    with fault_proxy(s3_server.port) as proxy:
        yield proxy


@pytest.fixture
def behind(s3_server, proxy):
    """The store on the other side of the fault proxy, with an object in it."""
    storage = storage_on(s3_server, host=proxy.address)
    storage.put("kb1", "a", b"content")
    return storage


def reason(call, *args):
    """Why a call did not reach the store."""
    with pytest.raises(StoreUnavailable) as raised:
        call(*args)
    assert raised.value.store == "objects"
    return raised.value.reason


def soon(call):
    """What a call gives as soon as the store is available again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except StoreUnavailable:
            assert time.monotonic() < deadline


def took(call, *args):
    began = time.monotonic()
    said = reason(call, *args)
    return said, time.monotonic() - began


def refusal(status, code):
    """An answer of S3's that refuses."""
    body = f"<Error><Code>{code}</Code><Message>m</Message><Resource>/r</Resource></Error>".encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


# RAGFlow's layout


def test_a_bucket_is_a_bucket(storage, s3_server):
    storage.put("kb1", "dir/report.pdf", b"x")
    assert s3_server.names("kb1") == ["dir/report.pdf"]


def test_an_object_that_ragflow_stored_is_read(storage, s3_server):
    s3_server.client().make_bucket("kb1")
    s3_server.client().put_object("kb1", "report.pdf", io.BytesIO(b"by RAGFlow"), 10)
    assert storage.get("kb1", "report.pdf") == b"by RAGFlow"


@pytest.mark.parametrize(
    ("section", "bucket", "name"),
    [
        ({"bucket": "everything", "prefix_path": "some/where"}, "everything", "some/where/kb1/a"),
        ({"bucket": "everything", "prefix_path": "/some/where/"}, "everything", "some/where/kb1/a"),
        ({"bucket": "everything"}, "everything", "kb1/a"),
        ({"prefix_path": "some/where"}, "kb1", "some/where/a"),
    ],
)
def test_the_place_of_an_object_where_a_bucket_or_a_prefix_is_configured(s3_server, section, bucket, name):
    s3_server.client().make_bucket("everything")
    storage = storage_on(s3_server, **section)
    storage.put("kb1", "a", b"x")
    assert s3_server.names(bucket) == [name]
    assert storage.list("kb1") == ["a"]
    assert storage.bucket_exists("kb1")


def test_in_one_bucket_only_what_is_meant_goes_and_the_bucket_stays(s3_server):
    s3_server.client().make_bucket("everything")
    storage = storage_on(s3_server, bucket="everything", prefix_path="p")
    for bucket in ("kb1", "kb10", "kb"):
        storage.put(bucket, "a", b"x")
    s3_server.client().put_object("everything", "somebody-elses", io.BytesIO(b"x"), 1)
    assert [storage.delete_bucket("kb1"), storage.delete_bucket("kb1")] == [1, 0]
    assert s3_server.names("everything") == ["p/kb/a", "p/kb10/a", "somebody-elses"]
    for bucket in ("kb", "kb10"):
        storage.delete_bucket(bucket)
    assert s3_server.client().bucket_exists("everything")


def test_the_one_bucket_is_not_made_and_without_it_nothing_is_known(s3_server):
    storage = storage_on(s3_server, bucket="everything")
    for call in (
        lambda: storage.put("kb1", "a", b"x"),
        lambda: storage.get("kb1", "a"),
        lambda: storage.list("kb1"),
        lambda: storage.delete_bucket("kb1"),
        lambda: storage.delete_some("kb1", ["a"]),
        lambda: storage.bucket_exists("kb1"),
        storage.try_change,
    ):
        assert reason(call) == "the bucket everything does not exist"
    assert s3_server.client().list_buckets() == []


def test_a_name_that_the_server_can_not_have_is_refused(storage, s3_server):
    for bucket in ("a", "Kb1", "a..b", "192.168.1.1"):
        with pytest.raises(BadField) as raised:
            storage.put(bucket, "a", b"x")
        assert raised.value.field == "bucket"
    assert s3_server.client().list_buckets() == []
    with raw_server(say(refusal(400, "KeyTooLongError"))) as port, pytest.raises(BadField) as raised:
        storage_at(port).put("kb1", "long", b"x")
    assert raised.value.field == "name"


def test_large_content_comes_back_whole(storage):
    content = os.urandom(6 * 1024 * 1024)
    storage.put("kb1", "large", content)
    assert storage.get("kb1", "large") == content


def test_a_page_is_what_was_asked_for_however_many_objects_there_are(storage):
    for number in range(12):
        storage.put("kb1", f"{number:02}", b"x")
    pages = []
    while page := storage.list("kb1", limit=5, after=pages[-1][-1] if pages else ""):
        pages.append(page)
    assert [len(page) for page in pages] == [5, 5, 2]
    assert [name for page in pages for name in page] == [f"{number:02}" for number in range(12)]


def test_a_bucket_that_keeps_old_versions_goes_with_them():
    versions = ["v1", "v2", "v3"]
    asked = []

    def answer(handler):
        asked.append(f"{handler.command} {handler.path}")
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if handler.command == "DELETE":
            code = "BucketNotEmpty" if versions else ""
            send(handler, 409 if code else 204, xml_error(code) if code else b"", Content_Type="application/xml")
        elif handler.command == "POST":
            gone = [each for each in versions if f"<VersionId>{each}</VersionId>".encode() in body]
            versions[:] = [each for each in versions if each not in gone]
            send(handler, 200, b"<DeleteResult/>", Content_Type="application/xml")
        else:
            kept = "".join(
                f"<Version><Key>a</Key><VersionId>{each}</VersionId><IsLatest>false</IsLatest></Version>"
                for each in (versions if "versions=" in handler.path else [])
            )
            listed = f"<ListBucketResult><Name>kb1</Name><IsTruncated>false</IsTruncated>{kept}</ListBucketResult>"
            send(handler, 200, listed.encode(), Content_Type="application/xml")

    with http_server(answer) as port:
        storage = storage_at(port)
        assert [storage.delete_bucket("kb1", limit=2) for _ in range(3)] == [2, 1, 0]
    assert asked[-1] == "DELETE /kb1"


def xml_error(code):
    return f"<Error><Code>{code}</Code><Message>m</Message><Resource>/r</Resource></Error>".encode()


def test_what_the_server_kept_of_a_batch_is_no_success():
    def answer(handler):
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        listed = "<Contents><Key>a</Key></Contents><Contents><Key>b</Key></Contents>"
        body = f"<ListBucketResult><Name>kb1</Name>{listed}</ListBucketResult>"
        if handler.command == "POST":
            body = "<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>"
        send(handler, 200, body.encode(), Content_Type="application/xml")

    with http_server(answer) as port:
        storage = storage_at(port)
        assert storage.health()["status"] == "green"
        assert reason(storage.delete_bucket, "kb1") == "it kept 1 of 2 objects (AccessDenied)"
        assert "it refused a change: it denies the access" in reason(storage.health)
        assert reason(storage_at(port).delete_some, "kb1", ["a", "b"]) == "it kept 1 of 2 objects (AccessDenied)"


# Health


def test_health_writes_nothing(storage, s3_server):
    assert storage.health() == {"storage": "minio", "status": "green"}
    assert s3_server.client().list_buckets() == []


def test_R15_without_the_configured_bucket_it_is_red_and_with_it_green(s3_server):
    storage = storage_on(s3_server, bucket="everything")
    said = {"storage": "minio", "status": "red", "error": "the bucket everything does not exist"}
    assert storage.health() == said
    s3_server.client().make_bucket("everything")
    assert storage.health() == {"storage": "minio", "status": "green"}


CHANGES = {
    "put": lambda storage: storage.put("kb1", "b", b"x"),
    "delete": lambda storage: storage.delete("kb1", "a"),
    "delete some": lambda storage: storage.delete_some("kb1", ["a"]),
    "delete a bucket": lambda storage: storage.delete_bucket("kb1"),
    "trial": lambda storage: storage.try_change(),
}
NO_CHANGES = {
    "AccessDenied": (403, "it denies the access: the keys are wrong, or its policy forbids it"),
    "XMinioStorageFull": (507, "it is full"),
    # Ceph and others.
    "QuotaExceeded": (403, "it is full"),
    "CodeOfItsOwn": (507, "it is full"),
    "XMinioWriteQuorum": (503, "it takes no writes: too few of its drives are there"),
    "SlowDownWrite": (503, "it takes no writes: too few of its drives are there"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("code", NO_CHANGES)
def test_health_says_that_a_change_was_refused_and_reads_go_on(s3_server, tmp_path, change, code):
    status, words = NO_CHANGES[code]
    with s3_front(s3_server) as front:
        # Nothing here is about time, and a server may wait for its disk when it makes a bucket.
        section = MinioSection.model_validate(s3_server.section(timeout=PATIENT_S, host=f"127.0.0.1:{front.port}"))
        refusals = tmp_path / "objects.refused"
        storage, other = (S3Storage(section, refusals=refusals) for _ in range(2))
        storage.put("kb1", "a", b"content")
        front.refuse("PUT|POST|DELETE", status, code)
        assert storage.health()["status"] == "green"
        assert reason(CHANGES[change], storage) == words
        assert reason(storage.health) == reason(other.health) == f"it refused a change: {words}"
        assert other.get("kb1", "a") == b"content"


def test_a_look_that_is_denied_is_no_change(s3_server):
    with s3_front(s3_server) as front:
        storage = storage_on(s3_server, host=f"127.0.0.1:{front.port}")
        front.refuse("GET", 403, "AccessDenied")
        assert "it denies the access" in reason(storage.get, "kb1", "a")
        front.well()
        assert storage.health()["status"] == "green"


# Trial changes


class OneBucket:
    """What answers as a server with one bucket, and keeps note of the changes that it was asked for.

    ``version`` is of what is stored; ``refusals`` are the beginnings of requests that it refuses, each with a code.
    """

    def __init__(self, version=None):
        self.version = version
        self.refusals = {}
        self.asked = []

    def __call__(self, handler):
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        method, asked = handler.command, f"{handler.command} {handler.path}"
        if method == "GET":
            listed = "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
            said = "<LocationConstraint/>" if "location" in handler.path else listed
            send(handler, 200, said.encode(), Content_Type="application/xml")
            return
        self.asked.append(asked.replace(TRIAL, "TRIAL"))
        for beginning, code in self.refusals.items():
            if asked.startswith(beginning):
                send(handler, 403, xml_error(code), Content_Type="application/xml")
                return
        headers = {"x_amz_version_id": self.version} if self.version and method == "PUT" else {}
        send(handler, 200 if method == "PUT" else 204, **headers)


TRIAL = f"{socket.gethostname()}-{os.getpid()}"


@pytest.fixture
def one_bucket():
    return OneBucket()


@pytest.fixture
def trying(one_bucket):
    """A store on that server."""
    with http_server(one_bucket) as port:
        keys = {"user": "rag_flow", "password": "s3cr3t-of-the-test"}
        yield S3Storage(MinioSection.model_validate({"host": f"127.0.0.1:{port}", "timeout": TIMEOUT_S, **keys}))


def test_a_trial_makes_one_bucket_once_and_leaves_it_empty(storage, s3_server):
    for _ in range(3):
        storage.try_change()
    assert [bucket.name for bucket in s3_server.client().list_buckets()] == ["ragkeeper-trial"]
    assert s3_server.names("ragkeeper-trial") == []


def test_a_trial_is_one_object_and_its_removal(trying, one_bucket):
    for _ in range(2):
        trying.try_change()
    assert one_bucket.asked == ["PUT /ragkeeper-trial/TRIAL", "DELETE /ragkeeper-trial/TRIAL"] * 2


def test_a_bucket_of_trials_that_somebody_removed_is_made_anew(storage, s3_server):
    storage.try_change()
    s3_server.client().remove_bucket("ragkeeper-trial")
    storage.try_change()
    assert s3_server.client().bucket_exists("ragkeeper-trial")


def test_in_the_bucket_of_an_operator_no_other_is_made(s3_server):
    s3_server.client().make_bucket("everything")
    storage = storage_on(s3_server, bucket="everything", prefix_path="p")
    storage.put("kb1", "a", b"x")
    storage.try_change()
    assert [bucket.name for bucket in s3_server.client().list_buckets()] == ["everything"]
    assert s3_server.names("everything") == ["p/kb1/a"]


def test_where_customers_share_the_names_of_buckets_each_has_one_of_their_own(s3_server):
    def made_by(access_key):
        asked = OneBucket()
        with http_server(asked) as port:
            for section in ({}, {"bucket": "everything"}):
                storage_at(port, access_key=access_key, **section).try_change()
        return [each.split("/")[1:-1] for each in asked.asked if each.startswith("PUT")]

    (one, of_the_operators), (another, _), (one_again, _) = (made_by(key) for key in ("one", "another", "one"))
    assert one == one_again != another
    assert one[0].startswith("ragkeeper-trial-")
    assert of_the_operators == ["everything", "ragkeeper-trial"]


def test_what_is_stored_in_a_bucket_with_versions_goes_with_its_version(trying, one_bucket):
    one_bucket.version = "v1"
    trying.try_change()
    assert one_bucket.asked == ["PUT /ragkeeper-trial/TRIAL", "DELETE /ragkeeper-trial/TRIAL?versionId=v1"]


def test_keys_that_may_remove_no_versions_leave_one_and_are_not_tried_again(trying, one_bucket, caplog):
    one_bucket.version = "v1"
    one_bucket.refusals = {f"DELETE /ragkeeper-trial/{TRIAL}?versionId": "AccessDenied"}
    for _ in range(3):
        trying.try_change()
    assert one_bucket.asked == [
        "PUT /ragkeeper-trial/TRIAL",
        "DELETE /ragkeeper-trial/TRIAL?versionId=v1",
        "DELETE /ragkeeper-trial/TRIAL",
    ]
    assert trying.health()["status"] == "green"
    assert caplog.text.count("versions of objects can't be removed") == 1


@pytest.mark.parametrize("code", ["InvalidRequest", "MethodNotAllowed"])
def test_versions_that_a_lock_keeps_are_left_too(trying, one_bucket, code):
    one_bucket.version = "v1"
    one_bucket.refusals = {f"DELETE /ragkeeper-trial/{TRIAL}?versionId": code}
    for _ in range(2):
        trying.try_change()
    assert len(one_bucket.asked) == 3
    assert trying.health()["status"] == "green"


@pytest.mark.parametrize("code", ["NoSuchBucket", "NoSuchKey", "NoSuchVersion"])
def test_what_has_gone_before_it_was_removed_keeps_no_trial_from_being_made(trying, one_bucket, code):
    one_bucket.refusals = {"DELETE": code}
    for _ in range(2):
        trying.try_change()
    assert [each.split()[0] for each in one_bucket.asked] == ["PUT", "DELETE"] * 2


@pytest.mark.parametrize("version", [None, "v1"])
def test_what_could_not_be_removed_is_removed_before_anything_is_stored(trying, one_bucket, version):
    one_bucket.version = version
    one_bucket.refusals = {"DELETE": "AccessDenied"}
    for _ in range(2):
        assert "it denies the access" in reason(trying.try_change)
    assert "it denies the access" in reason(trying.health)
    one_bucket.refusals = {}
    trying.try_change()
    assert [each.split()[0] for each in one_bucket.asked if each.startswith("PUT")] == ["PUT"] * 2
    assert one_bucket.asked[-3:] == [one_bucket.asked[-1], "PUT /ragkeeper-trial/TRIAL", one_bucket.asked[-1]]


def test_on_a_full_server_health_says_so_and_what_deletes_goes_on(s3_server):
    with s3_front(s3_server) as front:
        storage = storage_on(s3_server, host=f"127.0.0.1:{front.port}")
        for name in ("a", "b", "c"):
            storage.put("kb1", name, b"x")
        front.refuse("PUT", 507, "XMinioStorageFull")
        assert reason(storage.try_change) == "it is full"
        assert reason(storage.health) == "it refused a change: it is full"
        assert storage.delete("kb1", "a")
        assert storage.delete_some("kb1", ["b"]) == 1
        assert [storage.delete_bucket("kb1") for _ in range(2)] == [1, 0]
        assert reason(storage.health) == "it refused a change: it is full"


def test_a_server_that_fails_inside_is_not_well_from_the_second_trial_on(trying, one_bucket):
    def refused(code):
        one_bucket.refusals = {"PUT": code} if code else {}
        return reason(trying.try_change) if code else trying.try_change()

    for code in ("InternalError", None, "InternalError", "SlowDown", "InternalError"):
        refused(code)
        assert trying.health()["status"] == "green"
    assert refused("InternalError") == "it failed inside"
    assert reason(trying.health) == "it refused a change: it fails inside each time, as with a full disk"


def test_while_a_server_is_lost_no_trial_waits_for_it(behind, proxy):
    proxy.hang()
    assert took(behind.try_change)[1] >= TIMEOUT_S * 0.9
    before = proxy.accepted
    assert took(behind.try_change)[1] < 0.05
    assert proxy.accepted - before <= 1, "at most one probe asks the server"
    proxy.pass_through()
    soon(behind.try_change)
    assert behind.health()["status"] == "green"


# Keys


@pytest.mark.parametrize("wrong", [{"password": "s3cr3t-of-the-test"}, {"user": "nobody"}])
def test_wrong_keys_are_said_at_once(s3_server, wrong):
    storage = storage_on(s3_server, **wrong)
    for call in (storage.health, lambda: storage.list("kb1")):
        said, seconds = took(call)
        assert said == "it refuses the access key or the secret key"
        assert seconds < TIMEOUT_S


def test_no_keys_where_they_are_wanted(s3_server):
    assert reason(storage_on(s3_server, user="", password=None).health) == "it wants an access key"


def test_keys_that_are_refused_are_read_again(tmp_path):
    with running_s3(tmp_path / "own") as server:
        configured = [MinioSection.model_validate(server.section())]
        storage = S3Storage(configured[0], reread=lambda: configured[0])
        storage.put("kb1", "a", b"x")
        server.stop()
        server.secret_key = "the next one"
        server.start()
        assert reason(storage.get, "kb1", "a") == "it refuses the access key or the secret key"
        configured[0] = MinioSection.model_validate(server.section())
        assert storage.get("kb1", "a") == b"x"


# What the server says


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (503, "SlowDown", "it is overloaded"),
        (507, "XMinioStorageFull", "it is full"),
        (503, "XMinioWriteQuorum", "it takes no writes: too few of its drives are there"),
        (403, "AccessDenied", "it denies the access: the keys are wrong, or its policy forbids it"),
        (403, "RequestTimeTooSkewed", "its clock and this machine's differ too much"),
        (400, "SomethingElse", "it refused the call (SomethingElse)"),
        (400, "at 10.0.0.1", "it refused the call (unknown)"),
    ],
)
def test_a_server_that_refuses_is_not_lost(status, code, words):
    with raw_server(say(refusal(status, code))) as port:
        storage = storage_at(port)
        assert reason(storage.put, "kb1", "a", b"x") == words
        assert reason(storage.put, "kb1", "a", b"x") == words, "it is asked again"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<html",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: 5\r\n\r\n<html",
    ],
)
def test_a_server_that_is_none_of_s3(answer):
    with raw_server(say(answer)) as port:
        assert reason(storage_at(port).list, "kb1") == "its answer is not that of an S3 server"


def test_a_server_of_another_protocol():
    with raw_server(say(b"-ERR unknown command\r\n")) as port:
        assert reason(storage_at(port).list, "kb1") == "the connection was cut"


# Faults


def test_a_server_that_is_gone_refuses_at_once_and_recovers(tmp_path):
    with running_s3(tmp_path / "own") as server:
        storage = storage_on(server)
        storage.put("kb1", "a", b"x")
        server.kill()
        assert "connection" in reason(storage.get, "kb1", "a")
        said, seconds = took(storage.health)
        assert said == "the connection was refused"
        assert seconds < TIMEOUT_S
        server.start()
        assert soon(lambda: storage.get("kb1", "a")) == b"x"


def test_a_restart_between_two_calls_is_not_noticed(tmp_path):
    with running_s3(tmp_path / "own") as server:
        storage = storage_on(server)
        storage.put("kb1", "a", b"x")
        server.stop()
        server.start()
        assert storage.get("kb1", "a") == b"x"


def test_a_server_that_hangs_costs_its_time_limit_and_no_more(tmp_path):
    with running_s3(tmp_path / "own") as server:
        storage = storage_on(server)
        storage.put("kb1", "a", b"x")
        server.freeze()
        said, seconds = took(storage.get, "kb1", "a")
        assert said == "no answer in time"
        assert TIMEOUT_S * 0.9 <= seconds < TIMEOUT_S + GRACE_S
        server.thaw()
        assert soon(lambda: storage.get("kb1", "a")) == b"x"


HANGS = {
    "after accepting": lambda proxy: proxy.hang(),
    "in the middle of an answer": lambda proxy: proxy.hang_mid_answer(20),
    "in the middle of a body": lambda proxy: proxy.hang_mid_answer(300),
    "for longer than the limit before each answer": lambda proxy: proxy.slow(TIMEOUT_S + 1),
}


@pytest.mark.parametrize("fault", HANGS.values(), ids=HANGS)
@pytest.mark.parametrize("kept", [True, False])
def test_a_hang_costs_the_time_limit_and_no_more(s3_server, behind, proxy, fault, kept):
    behind.put("kb1", "a", b"content" * 100)
    storage = behind if kept else storage_on(s3_server, host=proxy.address)
    fault(proxy)
    said, seconds = took(storage.get, "kb1", "a")
    assert said == "no answer in time"
    assert TIMEOUT_S * 0.9 <= seconds < TIMEOUT_S + GRACE_S
    proxy.pass_through()
    assert soon(lambda: storage.get("kb1", "a")) == b"content" * 100


def test_a_call_of_several_slow_answers_has_one_time_limit(behind, proxy):
    # To look, and to delete: each within the limit, both beyond it.
    proxy.slow(TIMEOUT_S * 0.6)
    said, seconds = took(behind.delete, "kb1", "a")
    assert said == "no answer in time"
    assert seconds < TIMEOUT_S + GRACE_S


@pytest.mark.parametrize("before", [b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_an_answer_that_drips_has_the_same_time_limit(before):
    with raw_server(drip(before)) as port:
        said, seconds = took(storage_at(port).get, "kb1", "a")
        assert said == "no answer in time"
        assert seconds < TIMEOUT_S + GRACE_S


def test_large_content_may_take_longer():
    size = 2 * 1024 * 1024

    def talk(connection, over):
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(4):
            over.wait(TIMEOUT_S / 3)
            connection.sendall(b"x" * (size // 4))

    with raw_server(talk) as port:
        assert storage_at(port).get("kb1", "a") == b"x" * size


def test_large_content_may_take_longer_to_be_taken_too():
    size = 16 * 1024 * 1024

    def talk(connection, over):
        left = size
        while left > 0:
            # By pieces, with pauses: longer than a call may take in all.
            left -= len(connection.recv(4 * 1024 * 1024, socket.MSG_WAITALL))
            over.wait(TIMEOUT_S / 3)
        connection.sendall(b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        over.wait()

    with raw_server(talk) as port:
        storage_at(port).put("kb1", "a", b"x" * size)


def test_content_that_breaks_off_is_no_content():
    with raw_server(say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")) as port:
        assert reason(storage_at(port).get, "kb1", "a") == "the connection was cut"


def test_a_connection_that_is_cut_while_idle_is_not_noticed(behind, proxy):
    proxy.cut_once()
    assert behind.get("kb1", "a") == b"content"


def test_a_kept_connection_that_the_server_closes_at_the_very_moment_is_opened_anew():
    served = []

    def talk(connection, over):
        served.append(connection)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        if len(served) == 1:
            # The second request on this connection is read, and never answered.
            connection.recv(65536)

    with raw_server(talk) as port:
        storage = storage_at(port)
        assert [storage.get("kb1", "a") for _ in range(2)] == [b"x", b"x"]
    assert len(served) == 2


def test_connections_that_are_cut_are_said_to_be(behind, proxy):
    proxy.cut()
    assert reason(behind.get, "kb1", "a") == "the connection was cut"
    proxy.pass_through()
    assert soon(lambda: behind.get("kb1", "a")) == b"content"


def test_a_host_name_that_there_is_not(s3_server):
    storage = storage_on(s3_server, host="no-such-host.invalid:9000")
    assert reason(storage.list, "kb1") in ("its host name is not known", "no answer in time")


def test_no_reason_tells_a_secret_or_an_address(s3_server):
    port = free_ports(1)[0]
    for changes in (
        {"password": "s3cr3t-of-the-test"},
        {"host": f"127.0.0.1:{port}", "password": "s3cr3t-of-the-test"},
        {"user": "s3cr3t-of-the-test"},
    ):
        with pytest.raises(StoreUnavailable) as raised:
            storage_on(s3_server, **changes).get("kb1", "s3cr3t-of-the-test")
        told = raised.value.reason + raised.value.message + str(raised.value.data)
        assert "s3cr3t" not in told
        assert s3_server.secret_key not in told
        assert "127.0.0.1" not in told


# The breaker


def test_after_one_missed_deadline_nobody_waits_and_one_probe_finds_the_recovery(behind, proxy):
    proxy.hang()
    assert took(behind.get, "kb1", "a")[1] >= TIMEOUT_S * 0.9
    before = proxy.accepted
    waits = []

    def call():
        waits.append(took(behind.get, "kb1", "a")[1])

    callers = [threading.Thread(target=call) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(waits) == 20
    assert max(waits) < 0.05
    assert proxy.accepted - before <= 1, "at most one probe asks the server"
    proxy.pass_through()
    assert soon(lambda: behind.get("kb1", "a")) == b"content"


def test_health_asks_also_while_the_breaker_is_open_and_closes_it(behind, proxy):
    proxy.refuse()
    assert "connection" in reason(behind.get, "kb1", "a")
    assert reason(behind.health) == "the connection was refused"
    assert "not asked again" in reason(behind.get, "kb1", "a")
    proxy.pass_through()
    assert behind.health()["status"] == "green"
    assert behind.get("kb1", "a") == b"content"


# Threads, processes, TLS, settings


def test_many_threads_share_it_and_each_gets_its_own(storage):
    wrong = []

    def use(number):
        for turn in range(10):
            content = f"{number}-{turn}".encode()
            storage.put(f"kb{number}", "a", content)
            if storage.get(f"kb{number}", "a") != content:
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len([number for number in range(8) if storage.bucket_exists(f"kb{number}")]) == 8


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_uses_no_connection_of_its_parent(behind, proxy):
    before = proxy.accepted
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, behind.get("kb1", "a"))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    os.close(writer)
    assert proxy.accepted == before + 1
    assert behind.get("kb1", "a") == b"content"
    assert proxy.accepted == before + 1, "the parent goes on with its own"


def test_it_speaks_tls_and_believes_only_whom_it_should(s3_server, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with fault_proxy(s3_server.port, tls=tls) as proxy:

        def secured(**changes):
            return storage_on(s3_server, host=proxy.address, secure=True, **changes)

        storage = secured(ssl_ca_certs=str(tmp_path / "ca.pem"))
        storage.put("kb1", "a", b"content" * 100)
        assert storage.get("kb1", "a") == b"content" * 100
        assert secured(verify=False).get("kb1", "a") == b"content" * 100
        for stranger in (secured(), secured(ssl_ca_certs=str(tmp_path / "other.pem"))):
            assert reason(stranger.get, "kb1", "a").startswith("its certificate is not trusted")

        for fault in (proxy.hang, lambda: proxy.hang_mid_answer(300)):
            fault()
            said, seconds = took(storage.health) if fault == proxy.hang else took(storage.get, "kb1", "a")
            assert said == "no answer in time"
            assert seconds < TIMEOUT_S + GRACE_S
            proxy.pass_through()
            assert soon(lambda: storage.get("kb1", "a")) == b"content" * 100


def test_tls_to_a_server_that_has_none_ends_in_time(s3_server):
    said, seconds = took(storage_on(s3_server, secure=True).list, "kb1")
    assert said in ("the TLS handshake failed", "the connection was cut", "no answer in time")
    assert seconds < TIMEOUT_S + GRACE_S


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (MinioSection(host="m:9000", secure=True, ssl_ca_certs="/missing.pem"), r"minio: /missing\.pem"),
        (MinioSection(host="http://m:9000/path"), "minio: the server's address"),
        (S3Section(signature_version="s3"), r"s3\.signature_version: expected v4"),
        (S3Section(addressing_style="dns"), r"s3\.addressing_style: expected auto, path or virtual"),
    ],
)
def test_a_section_that_can_not_be_used_stops_the_start(section, words):
    with pytest.raises(SettingsError, match=words):
        S3Storage(section)


def test_an_object_in_a_bucket_with_a_host_name_of_its_own():
    hosts = []

    def answer(handler):
        hosts.append((handler.headers["Host"], handler.path))
        send(handler, 404, xml_error("NoSuchKey"), Content_Type="application/xml")

    with http_server(answer) as port:
        for style in ("virtual", "path"):
            storage = storage_at(port, endpoint_url=f"http://localhost:{port}", addressing_style=style)
            if style == "path":
                with pytest.raises(ObjectNotFound):
                    storage.get("kb1", "a")
            else:
                # kb1.localhost need not have an address on this machine.
                with pytest.raises((ObjectNotFound, StoreUnavailable)):
                    storage.get("kb1", "a")
    assert (f"localhost:{port}", "/kb1/a") in hosts
    assert not [path for host, path in hosts if host.startswith("kb1.") and path != "/a"]
