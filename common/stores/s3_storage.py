"""The object store on MinIO or any server that speaks S3, in RAGFlow's layout."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import check_bucket_name as check_s3_name
from urllib3.exceptions import HTTPError

from common.conf.file import SettingsError
from common.conf.sections import MinioSection, S3Section
from common.core.errors import BadField, StoreUnavailable
from common.stores.bounded_http import BoundedPoolManager, tls_context
from common.stores.breaker import Breaker
from common.stores.network import TimeLimit, failure_of
from common.stores.refused_writes import RefusedWrites
from common.stores.s3_trial import Stored, Trial
from common.stores.storage import (
    LIST_LIMIT,
    TRIAL_BYTES,
    ObjectNotFound,
    StorageHealth,
    check_bucket_name,
    check_object_name,
)

T = TypeVar("T")

STORE = "objects"
# Nothing is ever stored under this name, neither as a bucket nor as a folder of one.
_HEALTH_NAME = "ragkeeper-health"
#: Where trial changes are made: a bucket of this name, or a folder in the one bucket of an operator.
TRIAL_NAME = "ragkeeper-trial"
#: The slowest rate of content, in bytes a second, that is waited for beyond the time limit of a call.
SLOWEST_BYTES_PER_S = 1024 * 1024
#: Seconds that each object of a batch may take to be deleted, beyond the time limit of a call.
SLOWEST_DELETION_S = 0.01
# Content up to here goes in one request: the client sends parts from threads, which have no time limit of ours.
_PART_BYTES = 5 * 1024 * 1024

_NO_BUCKET = "NoSuchBucket"
_NOTHING_THERE = frozenset({_NO_BUCKET, "NoSuchKey"})
_BAD_NAMES = frozenset({"InvalidObjectName", "XMinioInvalidObjectName", "KeyTooLongError"})
_OWN_ALREADY = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_WRONG_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch"})
# With these the keys may have been changed; without a body, as after HEAD, a wrong key is just a denied access.
_REREAD = _WRONG_KEYS | {"AccessDenied", "MissingAuthenticationToken"}


class Keys(NamedTuple):
    """What requests are signed with."""

    access: str
    secret: str


class _Server(NamedTuple):
    """What a section says, whichever of the two it is."""

    kind: str
    endpoint: str
    secure: bool
    region: str | None
    virtual_style: bool | None
    bucket: str
    prefix: str


class _Kept(NamedTuple):
    """A client, the process that it belongs to, and the keys that it signs with."""

    client: Minio
    pid: int
    keys: Keys


class _Place(NamedTuple):
    """Where a bucket is kept: the server's bucket, and what its objects' names begin with there."""

    bucket: str
    prefix: str


class S3Storage:
    """Buckets on a server: each exchange within the section's ``timeout`` in all, and as much longer as content takes.

    RAGFlow's layout: a bucket is a bucket. Where the section names a ``bucket``, everything is in that one, and an
    object is called ``prefix_path/<bucket>/<object>`` there; it is the operator's, so it is neither made nor removed.
    When the keys are refused, ``reread`` gives the section as it is configured now (None: it can't be told), and they
    are tried once more if they are others. In the file ``refusals`` the processes of a home tell each other that the
    server refuses changes.
    """

    def __init__(
        self,
        section: MinioSection | S3Section,
        *,
        reread: Callable[[], MinioSection | S3Section | None] = lambda: None,
        refusals: Path | None = None,
    ) -> None:
        self._server = _server_of(section)
        self._timeout_s = section.timeout
        self._limit = TimeLimit()
        name = self._server.kind
        self._tls = (
            tls_context(self._limit, name, verify=section.verify, ca_certs=section.ssl_ca_certs)
            if self._server.secure
            else None
        )
        self._keys = _keys_of(section)
        self._reread = reread
        self._trial = Trial()
        self._trial_bucket = _trial_bucket_of(section)
        self._failed_inside = False
        self._breaker = Breaker(STORE, self._probe)
        self._refused = RefusedWrites(STORE, _NO_CHANGES, refusals)
        self._kept = self._connected()

    def prepare(self) -> None:
        """Nothing to make, so a server that is down delays no start."""

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """See ``Storage.put``."""
        check_object_name(name)
        place = self._place(bucket)
        self._change(lambda client: self._store(client, place, name, content))

    def get(self, bucket: str, name: str) -> bytes:
        """See ``Storage.get``."""
        place = self._place_if_possible(bucket, name)

        def read(client: Minio) -> bytes | None:
            if place is None:
                return None
            try:
                answer = client.get_object(place.bucket, place.prefix + name)
            except S3Error as error:
                return self._nothing(error, None)
            try:
                self._limit.extend(int(answer.headers.get("Content-Length", 0)) / SLOWEST_BYTES_PER_S)
                return answer.read()
            finally:
                answer.close()
                answer.release_conn()

        content = self._ask(read)
        if content is None:
            raise ObjectNotFound(bucket, name)
        return content

    def delete(self, bucket: str, name: str) -> bool:
        """See ``Storage.delete``."""
        place = self._place_if_possible(bucket, name)

        def remove(client: Minio) -> bool:
            if place is None:
                return False
            try:
                client.stat_object(place.bucket, place.prefix + name)
                client.remove_object(place.bucket, place.prefix + name)
            except S3Error as error:
                return self._nothing(error, False)
            return True

        return self._change(remove)

    def delete_some(self, bucket: str, names: Sequence[str]) -> int:
        """See ``Storage.delete_some``; names that are not there any more count too, for the server does not tell."""
        place = self._place_if_possible(bucket)

        def remove(client: Minio) -> int:
            if place is None or not names:
                return 0
            try:
                self._remove(client, place.bucket, [DeleteObject(place.prefix + name) for name in names])
            except S3Error as error:
                return self._nothing(error, 0)
            return len(names)

        return self._change(remove)

    def list(self, bucket: str, prefix: str = "", *, limit: int = 100, after: str = "") -> list[str]:
        """See ``Storage.list``."""
        place = self._place_if_possible(bucket)
        size = max(0, min(limit, LIST_LIMIT))

        def look(client: Minio) -> list[str]:
            if place is None or not size:
                return []
            try:
                return [name.removeprefix(place.prefix) for name in islice(_names(client, place, prefix, after), size)]
            except S3Error as error:
                return self._nothing(error, [])

        return self._ask(look)

    def delete_bucket(self, bucket: str, *, limit: int = 1000) -> int:
        """See ``Storage.delete_bucket``; where a bucket keeps old versions of its objects, they go and count too."""
        place = self._place_if_possible(bucket)
        size = max(0, min(limit, LIST_LIMIT))

        def clear(client: Minio) -> int:
            if place is None or not size:
                return 0
            try:
                names = list(islice(_names(client, place), size))
                self._remove(client, place.bucket, [DeleteObject(name) for name in names])
                if len(names) < size and not self._server.bucket:
                    return len(names) + self._remove_bucket(client, place.bucket, size - len(names))
                return len(names)
            except S3Error as error:
                return self._nothing(error, 0)

        return self._change(clear)

    def bucket_exists(self, bucket: str) -> bool:
        """See ``Storage.bucket_exists``; in the one bucket of an operator it is there while it holds an object."""
        place = self._place_if_possible(bucket)

        def look(client: Minio) -> bool:
            if place is None:
                return False
            if not self._server.bucket:
                return client.bucket_exists(place.bucket)
            return next(_names(client, place), None) is not None

        return self._ask(look)

    def try_change(self) -> None:
        """See ``Storage.try_change``: in a bucket of its own, which stays, or in the one of an operator.

        For one thread of a process. A server fails inside for one change now and then, and for each where its disk is
        full: health says so from the second one on.
        """
        place, content = self._place(self._trial_bucket), os.urandom(TRIAL_BYTES)
        failed_before, self._failed_inside = self._failed_inside, False
        try:
            self._change(
                lambda client: self._trial.make(client, lambda name: self._store(client, place, name, content))
            )
        except StoreUnavailable as error:
            self._failed_inside = error.reason == _FAILED
            if failed_before and self._failed_inside:
                self._refused.note(_FAILS)
            raise

    def health(self) -> StorageHealth:
        """See ``Storage.health``: a signed look into the configured bucket, else at one that need not be there.

        The server is asked even while the breaker is open. That it is full or read-only, whoever changes something
        has found out.
        """
        with self._breaker.observe():
            well = self._asked(self._look)
        self._refused.check()
        if well:
            return {"storage": self._server.kind, "status": "green"}
        return {
            "storage": self._server.kind,
            "status": "red",
            "error": f"the bucket {self._server.bucket} does not exist",
        }

    def _probe(self) -> None:
        """The breaker's own look, from a thread of its own."""
        self._asked(self._look)

    def _look(self, client: Minio) -> bool:
        """Whether all is there. A listing, because the answer to HEAD would not say why it was refused."""
        place = _Place(self._server.bucket or _HEALTH_NAME, f"{_HEALTH_NAME}/")
        try:
            next(_names(client, place), None)
        except S3Error as error:
            if error.code != _NO_BUCKET:
                raise
            return not self._server.bucket
        return True

    def _place(self, bucket: str) -> _Place:
        """Raises BadField for a name that no bucket can have here."""
        check_bucket_name(bucket)
        server = self._server
        if server.bucket:
            return _Place(server.bucket, f"{server.prefix}{bucket}/")
        try:
            check_s3_name(bucket, strict=True)
        except ValueError as error:
            raise BadField("The object store takes no bucket of this name.", field="bucket") from error
        return _Place(bucket, server.prefix)

    def _place_if_possible(self, bucket: str, name: str = "any") -> _Place | None:
        try:
            check_object_name(name)
            return self._place(bucket)
        except BadField:
            return None

    def _nothing(self, error: S3Error, answer: T) -> T:
        """The answer where the server says that there is nothing; raises any other error of its."""
        # Without the operator's bucket nothing is known of what was in it.
        missing = error.code == _NO_BUCKET and self._server.bucket
        if missing or error.code not in _NOTHING_THERE | _BAD_NAMES:
            raise error
        return answer

    def _store(self, client: Minio, place: _Place, name: str, content: bytes) -> Stored:
        """Store an object, and make its bucket if need be. Raises BadField for a name that the server does not take."""
        try:
            return self._send(client, place, name, content)
        except S3Error as error:
            if error.code in _BAD_NAMES:
                raise BadField("The object store takes no object of this name.", field="name") from error
            if error.code != _NO_BUCKET or self._server.bucket:
                raise
            self._make_bucket(client, place.bucket)
            return self._send(client, place, name, content)

    def _send(self, client: Minio, place: _Place, name: str, content: bytes) -> Stored:
        size = len(content)
        self._limit.extend(size / SLOWEST_BYTES_PER_S)
        sent = client.put_object(
            place.bucket, place.prefix + name, io.BytesIO(content), size, part_size=max(size, _PART_BYTES)
        )
        return Stored(place.bucket, place.prefix + name, sent.version_id)

    def _make_bucket(self, client: Minio, bucket: str) -> None:
        try:
            client.make_bucket(bucket)
        except S3Error as error:
            # Somebody made it meanwhile.
            if error.code not in _OWN_ALREADY:
                raise

    def _remove_bucket(self, client: Minio, bucket: str, limit: int) -> int:
        """Remove a bucket whose objects are gone; of one that keeps old versions some of these. How many went."""
        try:
            client.remove_bucket(bucket)
            return 0
        except S3Error as error:
            if error.code != "BucketNotEmpty":
                raise
        versions = islice(client.list_objects(bucket, recursive=True, include_version=True), limit)
        chosen = [DeleteObject(each.object_name or "", each.version_id) for each in versions]
        self._remove(client, bucket, chosen)
        return len(chosen)

    def _remove(self, client: Minio, bucket: str, chosen: Sequence[DeleteObject]) -> None:
        """Delete a batch. Raises StoreUnavailable where the server kept some of it."""
        self._limit.extend(len(chosen) * SLOWEST_DELETION_S)
        kept = list(client.remove_objects(bucket, chosen))
        if kept:
            why = _word(kept[0].code)
            self._refused.note(_REFUSALS.get(kept[0].code, ""))
            raise StoreUnavailable(STORE, f"it kept {len(kept)} of {len(chosen)} objects ({why})", lost=False)

    def _change(self, call: Callable[[Minio], T]) -> T:
        """``_ask`` for what changes something: where that is refused, health says so for a while."""
        try:
            return self._ask(call)
        except StoreUnavailable as error:
            self._refused.note(error.reason)
            raise

    def _ask(self, call: Callable[[Minio], T]) -> T:
        with self._breaker.guard():
            return self._asked(call)

    def _asked(self, call: Callable[[Minio], T]) -> T:
        """What the call gives. Raises StoreUnavailable when the server is lost, or refuses it."""
        with self._limit.within(self._timeout_s):
            try:
                try:
                    return call(self._client())
                except S3Error as error:
                    if error.code not in _REREAD or not self._keys_changed():
                        raise
                    return call(self._client())
            except (MinioException, HTTPError, OSError, ParseError, ValueError) as error:
                raise self._failure(error) from error

    def _failure(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, S3Error) and error.code == _NO_BUCKET and self._server.bucket:
            return StoreUnavailable(STORE, f"the bucket {self._server.bucket} does not exist", lost=False)
        return _unavailable(error)

    def _client(self) -> Minio:
        """This process's client; its connections are shared by all threads, and by no other process."""
        if self._kept.pid != os.getpid() or self._kept.keys != self._keys:
            self._kept = self._connected()
        return self._kept.client

    def _connected(self) -> _Kept:
        server, keys = self._server, self._keys
        try:
            client = Minio(
                server.endpoint,
                access_key=keys.access or None,
                secret_key=keys.secret,
                secure=server.secure,
                region=server.region,
                http_client=BoundedPoolManager(self._limit, self._tls),
            )
        except ValueError as error:
            raise SettingsError(f"{server.kind}: the server's address or region can't be used ({error}).") from error
        if server.virtual_style is True:
            client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        elif server.virtual_style is False:
            client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        return _Kept(client, os.getpid(), keys)

    def _keys_changed(self) -> bool:
        """Whether other keys are configured than those that were refused; they are used from now on."""
        refused = self._kept.keys
        section = self._reread()
        if section is not None:
            self._keys = _keys_of(section)
        return self._keys != refused


def _names(client: Minio, place: _Place, prefix: str = "", after: str = "") -> Iterator[str]:
    """The names on the server, in order, read by pages of at most 1000."""
    found = client.list_objects(
        place.bucket,
        prefix=place.prefix + prefix,
        recursive=True,
        start_after=place.prefix + after if after else None,
    )
    return (each.object_name or "" for each in found)


def _keys_of(section: MinioSection | S3Section) -> Keys:
    if isinstance(section, MinioSection):
        return Keys(section.user, section.password.reveal() if section.password else "")
    access, secret = section.access_key, section.secret_key
    return Keys(access.reveal() if access else "", secret.reveal() if secret else "")


def _trial_bucket_of(section: MinioSection | S3Section) -> str:
    """The bucket of trial changes, or the folder in an operator's.

    Amazon's customers, and those of its like, share the names of buckets. So there the access key is in it: a bucket of
    somebody else's would refuse whatever is stored.
    """
    if isinstance(section, MinioSection) or section.bucket:
        return TRIAL_NAME
    return f"{TRIAL_NAME}-{hashlib.sha256(_keys_of(section).access.encode()).hexdigest()[:16]}"


def _server_of(section: MinioSection | S3Section) -> _Server:
    """Raises SettingsError for a style or a way of signing that there isn't."""
    prefix = section.prefix_path.strip("/")
    prefix = f"{prefix}/" if prefix else ""
    if isinstance(section, MinioSection):
        endpoint, secure = _endpoint(section.host or "127.0.0.1:9000", section.secure)
        return _Server("minio", endpoint, secure, None, None, section.bucket, prefix)
    if section.signature_version not in ("", "v4", "s3v4"):
        raise SettingsError("s3.signature_version: expected v4; nothing older is signed here.")
    styles = {"": None, "auto": None, "path": False, "virtual": True}
    if section.addressing_style not in styles:
        raise SettingsError("s3.addressing_style: expected auto, path or virtual.")
    endpoint, secure = _endpoint(section.endpoint_url.reveal() or "https://s3.amazonaws.com", True)
    style = styles[section.addressing_style]
    return _Server("s3", endpoint, secure, section.region or None, style, section.bucket, prefix)


def _endpoint(address: str, secure: bool) -> tuple[str, bool]:
    """``host:port``, and whether to speak TLS; a URL's scheme says so too."""
    if "://" not in address:
        return address, secure
    parts = urlsplit(address)
    # A path is left in, for the client to refuse.
    return parts.netloc.rpartition("@")[2] + parts.path.rstrip("/"), parts.scheme == "https"


_OVERLOADED = "it is overloaded"
_FULL = "it is full"
_DENIED = "it denies the access: the keys are wrong, or its policy forbids it"
_TOO_FEW_DRIVES = "it takes no writes: too few of its drives are there"
_FAILED = "it failed inside"
_FAILS = "it fails inside each time, as with a full disk"
# Why a server that is read changes nothing.
_NO_CHANGES = frozenset({_FULL, _DENIED, _TOO_FEW_DRIVES, _FAILS})
# Insufficient Storage: with any code that is not known here.
_FULL_STATUS = 507
# What the server's codes mean. Its own words may quote names and addresses, so they are not shown.
_REFUSALS = {
    **dict.fromkeys(_WRONG_KEYS, "it refuses the access key or the secret key"),
    "AccessDenied": _DENIED,
    "MissingAuthenticationToken": "it wants an access key",
    "RequestTimeTooSkewed": "its clock and this machine's differ too much",
    "AuthorizationHeaderMalformed": "it refuses the signature: the region is another one",
    **dict.fromkeys(("SlowDown", "ServiceUnavailable", "TooManyRequests"), _OVERLOADED),
    **dict.fromkeys(("XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"), _FULL),
    "XMinioServerNotInitialized": "it is still starting",
    # Of each pair the second is what newer MinIOs say.
    **dict.fromkeys(("XMinioReadQuorum", "SlowDownRead"), "too few of its drives can be read"),
    **dict.fromkeys(("XMinioWriteQuorum", "SlowDownWrite"), _TOO_FEW_DRIVES),
    "InternalError": _FAILED,
}


def _unavailable(error: Exception) -> StoreUnavailable:
    """What went wrong, in words for operators; never an address, a name or a key."""
    if isinstance(error, S3Error):
        # It answers, and promptly, so the breaker stays closed: another object may fare better.
        return StoreUnavailable(STORE, _refusal(error), lost=False)
    if isinstance(error, ServerError):
        return StoreUnavailable(STORE, f"it answered with status {error.status_code}", lost=False)
    if isinstance(error, (InvalidResponseError, ParseError)):
        return StoreUnavailable(STORE, "its answer is not that of an S3 server")
    if isinstance(error, (HTTPError, OSError)):
        return StoreUnavailable(STORE, failure_of(error) or "the connection was cut")
    return StoreUnavailable(STORE, "its answer is not that of an S3 server")


def _refusal(error: S3Error) -> str:
    known = _REFUSALS.get(error.code or "")
    if known is None and error.response.status == _FULL_STATUS:
        return _FULL
    return known or f"it refused the call ({_word(error.code)})"


def _word(code: str | None) -> str:
    """A code of the server's, as far as it looks like one."""
    return code if code and code.isalnum() and len(code) <= 64 else "unknown"
