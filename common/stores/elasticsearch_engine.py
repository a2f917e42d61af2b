"""The document engine on an Elasticsearch 8 or 9, which a RAGFlow may share."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from elastic_transport import BaseNode, NodeConfig, SerializationError, TransportError, Urllib3HttpNode
from elasticsearch import ApiError, BadRequestError, Elasticsearch, NotFoundError, UnsupportedProductError

from common.conf.file import SettingsError
from common.conf.sections import ElasticsearchSection
from common.core.errors import BadField, StoreUnavailable
from common.stores.bounded_http import KEPT, BoundedHttpPool, BoundedHttpsPool, tls_context
from common.stores.breaker import Breaker
from common.stores.doc_engine import (
    PAGE_LIMIT,
    TIME_FIELD,
    Page,
    check_document,
    first_place,
    tenant_index,
    write_cursor,
)
from common.stores.network import TimeLimit, failure_of

# It tells every request, and a failure several times; the breaker says once what is to be known.
logging.getLogger("elastic_transport").setLevel(logging.ERROR)

T = TypeVar("T")

STORE = "documents"
_DEFAULT_PORT = 9200
#: Seconds that each document of a batch may take, beyond the time limit of a call.
SLOWEST_WRITE_S = 0.005
#: A server's rule, narrowed: no pattern, list, date or alias that would reach further than one index.
_INDEX = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}", re.ASCII)

# What is searched for is indexed; of everything else there is only the text of the document, so that no two documents
# can disagree about a field's type.
_MAPPINGS = {
    "dynamic": False,
    "properties": {"id": {"type": "keyword"}, "kb_id": {"type": "keyword"}, TIME_FIELD: {"type": "long"}},
}
# Seconds for what the cluster says of its blocks, in a health check that it has answered already: a server that is slow
# to say it is no less well.
_BLOCKS_WAIT_S = 0.5
# A health check has as long as the section says, with everything around it.
_BLOCKS_SHARE = 0.9
_EXISTS_ALREADY = "resource_already_exists_exception"


class Credentials(NamedTuple):
    """What the server is told with every request; both may be empty."""

    username: str
    password: str


class _Kept(NamedTuple):
    """A client, the process that it belongs to, and what it logs in with."""

    client: Elasticsearch
    pid: int
    credentials: Credentials


class ElasticsearchEngine:
    """Documents on a server: each exchange within the section's ``timeout`` in all, a batch as much longer as it takes.

    Of several hosts the next one is tried where one can't be reached. When the credentials are refused, ``reread``
    gives the section as it is configured now (None: it can't be told), and they are tried once more if they are others.
    """

    def __init__(
        self, section: ElasticsearchSection, *, reread: Callable[[], ElasticsearchSection | None] = lambda: None
    ) -> None:
        self._timeout_s = section.timeout
        self._limit = TimeLimit()
        self._hosts = _hosts_of(section)
        self._node_class = _node_class(self._limit, section, self._hosts)
        self._credentials = _credentials_of(section)
        self._reread = reread
        self._breaker = Breaker(STORE, self._probe)
        self._kept = self._connected()

    def prepare(self) -> None:
        """Nothing to make, so a server that is down delays no start."""

    def health(self) -> dict[str, Any]:
        """See ``DocEngine.health``; the rest is what the cluster says. Asked even while the breaker is open.

        Raises StoreUnavailable also where the cluster says that it, or the index of a tenant, takes no writes.
        """
        ends_at = time.monotonic() + self._timeout_s * _BLOCKS_SHARE
        with self._breaker.observe():
            said = self._asked(_health)
        why = self._why_no_writes(ends_at - time.monotonic())
        if why:
            raise StoreUnavailable(STORE, why, lost=False)
        return said

    def info(self) -> dict[str, Any]:
        """See ``DocEngine.info``; RAGFlow's selection of the cluster's statistics, none where they may not be seen."""

        def look(client: Elasticsearch) -> dict[str, Any]:
            try:
                return selected(client.cluster.stats().body)
            except ApiError as error:
                if error.meta.status != 403:
                    raise
                return {}

        return self._ask(look)

    def bulk_write(self, index: str, documents: Sequence[Mapping[str, Any]]) -> int:
        """See ``DocEngine.bulk_write``; returns when they are counted and read."""
        if not _INDEX.fullmatch(index):
            raise BadField("The document engine takes no index of this name.", field="index")
        lines = [line for document in documents for line in _lines(document)]

        def write(client: Elasticsearch) -> int:
            if lines:
                _make_index(client, index)
                self._limit.extend(len(documents) * SLOWEST_WRITE_S)
                # The client's types want objects; texts it sends as they are.
                answer = client.bulk(index=index, operations=lines, refresh=True)  # type: ignore[arg-type]
                _check_items(answer.body)
            return len(documents)

        return self._ask(write)

    def count(self, index: str, kb_id: str | None = None) -> int:
        """See ``DocEngine.count``."""

        def look(client: Elasticsearch) -> int:
            return int(client.count(index=index, query=_query(kb_id)).body["count"])

        return self._ask_index(index, look, 0)

    def time_range(
        self, index: str, start_ms: int, end_ms: int, *, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """See ``DocEngine.time_range``."""
        after = first_place(cursor, start_ms)
        size = max(1, min(limit, PAGE_LIMIT))

        def look(client: Elasticsearch) -> Page:
            answer = client.search(
                index=index,
                query={"range": {TIME_FIELD: {"gte": start_ms, "lt": end_ms}}},
                # An index of another program's has fields of its own.
                sort=[
                    {TIME_FIELD: {"order": "asc", "unmapped_type": "long"}},
                    {"id": {"order": "asc", "unmapped_type": "keyword"}},
                ],
                search_after=list(after),
                size=size + 1,
                track_total_hits=False,
            )
            found = answer.body["hits"]["hits"]
            documents = [each["_source"] for each in found[:size]]
            return Page(documents, write_cursor(*found[size - 1]["sort"]) if len(found) > size else None)

        return self._ask_index(index, look, Page([], None))

    def delete_tenant(self, tenant_id: str, *, limit: int = 1000) -> int:
        """See ``DocEngine.delete_tenant``; the index goes with the last of its documents."""
        index = tenant_index(tenant_id)

        def delete(client: Elasticsearch) -> int:
            deleted = self._deleted(client, index, limit)
            if deleted < limit:
                client.indices.delete(index=index, ignore_unavailable=True)
            return deleted

        return self._ask_index(index, delete, 0)

    def close(self) -> None:
        """Nothing to close: the connections are shared by all threads."""

    def _deleted(self, client: Elasticsearch, index: str, limit: int) -> int:
        self._limit.extend(limit * SLOWEST_WRITE_S)
        answer = client.delete_by_query(
            index=index, query=_query(None), max_docs=limit, conflicts="proceed", refresh=True
        ).body
        failures = answer.get("failures") or []
        if failures:
            cause = failures[0].get("cause") or failures[0].get("reason") or {}
            raise _refused(int(failures[0].get("status") or 0), cause)
        if not answer["deleted"] and answer.get("version_conflicts"):
            raise StoreUnavailable(STORE, "documents were changed while they were deleted", lost=False)
        return int(answer["deleted"])

    def _ask_index(self, index: str, call: Callable[[Elasticsearch], T], nothing: T) -> T:
        """What the call gives, ``nothing`` where there is no such index."""

        def ask(client: Elasticsearch) -> T:
            if not _INDEX.fullmatch(index):
                return nothing
            try:
                return call(client)
            except NotFoundError as error:
                if _cause_of(error).get("type") != "index_not_found_exception":
                    raise
                return nothing

        return self._ask(ask)

    def _probe(self) -> None:
        """The breaker's own look, from a thread of its own."""
        self._asked(_health)

    def _why_no_writes(self, left_s: float) -> str:
        """Why the cluster takes no writes; "" where it takes them, and where it does not say: it has just answered."""
        with suppress(StoreUnavailable):
            return self._asked(_blocked, min(left_s, _BLOCKS_WAIT_S))
        return ""

    def _ask(self, call: Callable[[Elasticsearch], T]) -> T:
        with self._breaker.guard():
            return self._asked(call)

    def _asked(self, call: Callable[[Elasticsearch], T], within_s: float | None = None) -> T:
        """What the call gives. Raises StoreUnavailable when the server is lost, or refuses it."""
        with self._limit.within(self._timeout_s if within_s is None else within_s):
            try:
                try:
                    return call(self._client())
                except ApiError as error:
                    if error.meta.status != 401 or not self._credentials_changed():
                        raise
                    return call(self._client())
            except (ApiError, TransportError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise _unavailable(error) from error

    def _client(self) -> Elasticsearch:
        """This process's client; its connections are shared by all threads, and by no other process."""
        if self._kept.pid != os.getpid() or self._kept.credentials != self._credentials:
            self._kept = self._connected()
        return self._kept.client

    def _connected(self) -> _Kept:
        credentials = self._credentials
        client = Elasticsearch(
            hosts=list(self._hosts),
            node_class=self._node_class,
            basic_auth=(credentials.username, credentials.password) if credentials.username else None,
            # A refused connection is tried with the next host; an answer, or none in time, is what it is.
            max_retries=len(self._hosts) - 1,
            retry_on_status=(),
            retry_on_timeout=False,
        )
        return _Kept(client, os.getpid(), credentials)

    def _credentials_changed(self) -> bool:
        """Whether other credentials are configured than those that were refused; they are used from now on."""
        refused = self._kept.credentials
        section = self._reread()
        if section is not None:
            self._credentials = _credentials_of(section)
        return self._credentials != refused


def _health(client: Elasticsearch) -> dict[str, Any]:
    said = dict(client.cluster.health().body)
    return {**said, "type": "elasticsearch", "status": str(said["status"])}


def _blocked(client: Elasticsearch) -> str:
    """Why there are no writes, by the blocks of the whole cluster and of the indices of tenants; "" for no reason."""
    wanted = ("blocks.global", f"blocks.indices.{_TENANTS}*")
    blocks = client.cluster.state(metric="blocks", filter_path=wanted).body.get("blocks", {})
    whole = {number for number, each in blocks.get("global", {}).items() if _WRITING & set(each["levels"])}
    if whole:
        return next((words for number, words in _OF_THE_CLUSTER.items() if number in whole), _BLOCKED)
    indices = (each for name, each in blocks.get("indices", {}).items() if name.startswith(_TENANTS))
    single = {number for each in indices for number in each}
    return next((words for number, words in _OF_AN_INDEX.items() if number in single), "")


def _query(kb_id: str | None) -> dict[str, Any]:
    return {"match_all": {}} if kb_id is None else {"term": {"kb_id": kb_id}}


def _lines(document: Mapping[str, Any]) -> tuple[str, str]:
    """The two lines of a bulk request. Raises BadField.

    In ASCII: half a surrogate pair has no form in UTF-8, and the client would send it as something that is none.
    """
    document_id = check_document(document).id
    return json.dumps({"index": {"_id": document_id}}), json.dumps(dict(document))


def _make_index(client: Elasticsearch, index: str) -> None:
    """An index that is made by the first document that comes would guess the types of its fields."""
    if client.indices.exists(index=index):
        return
    try:
        client.indices.create(index=index, mappings=_MAPPINGS)
    except BadRequestError as error:
        # Somebody made it meanwhile.
        if _cause_of(error).get("type") != _EXISTS_ALREADY:
            raise


def _check_items(answer: Mapping[str, Any]) -> None:
    """Raises StoreUnavailable for the first document that was refused."""
    for each in answer["items"] if answer["errors"] else ():
        item = each["index"]
        if item.get("error"):
            raise _refused(int(item["status"]), item["error"])


def _hosts_of(section: ElasticsearchSection) -> tuple[NodeConfig, ...]:
    """The hosts, without user and password. Raises SettingsError for none, or a scheme that there isn't."""
    hosts: dict[NodeConfig, None] = {}
    for each in filter(None, (part.strip() for part in section.hosts.reveal().split(","))):
        parts = urlsplit(each if "://" in each else f"http://{each}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("es.hosts: expected http://host:port or https://host:port, several with commas.")
        path = parts.path.rstrip("/")
        hosts[NodeConfig(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORT, path_prefix=path)] = None
    if not hosts:
        raise SettingsError("es.hosts: expected http://host:port or https://host:port, several with commas.")
    return tuple(hosts)


def _credentials_of(section: ElasticsearchSection) -> Credentials:
    """What the section names, else what stands before the host in the first URL."""
    if section.username:
        return Credentials(section.username, section.password.reveal() if section.password else "")
    first = urlsplit(section.hosts.reveal().split(",")[0].strip())
    return Credentials(unquote(first.username or ""), unquote(first.password or ""))


def _node_class(limit: TimeLimit, section: ElasticsearchSection, hosts: Sequence[NodeConfig]) -> type[BaseNode]:
    """How the client speaks to a host. Raises SettingsError for TLS files that can't be used."""
    tls = (
        tls_context(limit, "es", verify=section.verify, ca_certs=section.ssl_ca_certs)
        if any(host.scheme == "https" for host in hosts)
        else None
    )

    class BoundedNode(Urllib3HttpNode):
        """A host; the client makes these itself, so the class knows the limit."""

        def __init__(self, config: NodeConfig) -> None:
            BaseNode.__init__(self, config)
            if config.scheme == "https":
                self.pool = BoundedHttpsPool(config.host, config.port, limit=limit, maxsize=KEPT, ssl_context=tls)
            else:
                self.pool = BoundedHttpPool(config.host, config.port, limit=limit, maxsize=KEPT)

    return BoundedNode


def _cause_of(error: ApiError) -> Mapping[str, Any]:
    """The type and the reason that the server gave, {} where it gave none."""
    said = error.body.get("error") if isinstance(error.body, dict) else None
    return said if isinstance(said, dict) else {}


def _unavailable(error: Exception) -> StoreUnavailable:
    """What went wrong, in words for operators; never an address, a name or a credential."""
    if isinstance(error, UnsupportedProductError):
        return StoreUnavailable(
            STORE, "it is no Elasticsearch, or a proxy takes away what it says of itself", lost=False
        )
    if isinstance(error, ApiError):
        return _refused(error.meta.status, _cause_of(error))
    if isinstance(error, TransportError) and not isinstance(error, SerializationError):
        return StoreUnavailable(STORE, _network_failure(error))
    return StoreUnavailable(STORE, "its answer is not that of an Elasticsearch")


def _network_failure(error: TransportError) -> str:
    found = (failure_of(each) for each in (error, *error.errors) if isinstance(each, BaseException))
    return next(filter(None, found), "the connection was cut")


_OVERLOADED = "it is overloaded"
_NO_MASTER = "its cluster has no master"
_STARTING = "it is still starting"
_BLOCKED = "its cluster is blocked"
_FLOOD = "it takes no writes: its disk is nearly full (flood-stage watermark)"
# What a cluster calls its blocks, by their numbers.
_OF_THE_CLUSTER = {
    "1": _STARTING,
    "2": _NO_MASTER,
    **dict.fromkeys(("6", "13"), "it takes no writes: its cluster is read-only"),
}
_OF_AN_INDEX = {"12": _FLOOD, **dict.fromkeys(("5", "8"), "it takes no writes: an index of a tenant is read-only")}
_WRITING = frozenset({"write", "metadata_write"})
_TENANTS = tenant_index("")
# By the type of the server's error, and of those that have several meanings by words of the reason. It may quote names
# and addresses, so it is not shown itself.
_CAUSES: Mapping[str, Sequence[tuple[str, str]]] = {
    "cluster_block_exception": (
        ("flood", _FLOOD),
        ("master", _NO_MASTER),
        ("recovered", _STARTING),
        ("read-only", "it takes no writes: the index is read-only"),
        ("", _BLOCKED),
    ),
    "master_not_discovered_exception": (("", _NO_MASTER),),
    "es_rejected_execution_exception": (("", _OVERLOADED),),
    "circuit_breaking_exception": (("", "it is short of memory"),),
    "no_shard_available_action_exception": (("", "shards are missing: the cluster is red"),),
    "unavailable_shards_exception": (("", "shards are missing: the cluster is red"),),
    "search_phase_execution_exception": (("", "shards are missing, or can't be searched"),),
}
_STATUSES = {
    401: "it refuses the user name or the password",
    403: "the user may not do that there",
    406: "it does not speak as Elasticsearch 8 or 9 does",
    413: "the batch is too large for it",
    415: "it does not speak as Elasticsearch 8 or 9 does",
    429: _OVERLOADED,
    503: "it is not available just now",
}


def _refused(status: int, cause: Mapping[str, Any]) -> StoreUnavailable:
    """The server answers, so the breaker stays closed: another index, or a read, may fare better."""
    kind, reason = str(cause.get("type", "")), str(cause.get("reason", ""))
    for words, meaning in _CAUSES.get(kind, ()):
        if words in reason:
            return StoreUnavailable(STORE, meaning, lost=False)
    shown = kind if re.fullmatch(r"[a-z_]{1,80}", kind) else f"status {status}"
    return StoreUnavailable(STORE, _STATUSES.get(status, f"it refused the call ({shown})"), lost=False)


# RAGFlow's names, and where each figure stands in the statistics; sizes become texts.
_FIGURES = {
    "cluster_name": "cluster_name",
    "status": "status",
    "indices": "indices.count",
    "indices_shards": "indices.shards.total",
    "docs": "indices.docs.count",
    "docs_deleted": "indices.docs.deleted",
    "store_size": "indices.store.size_in_bytes",
    "total_dataset_size": "indices.store.total_data_set_size_in_bytes",
    "mappings_fields": "indices.mappings.total_field_count",
    "mappings_deduplicated_fields": "indices.mappings.total_deduplicated_field_count",
    "mappings_deduplicated_size": "indices.mappings.total_deduplicated_mapping_size_in_bytes",
    "nodes": "nodes.count.total",
    "nodes_version": "nodes.versions",
    "os_mem": "nodes.os.mem.total_in_bytes",
    "os_mem_used": "nodes.os.mem.used_in_bytes",
    "os_mem_used_percent": "nodes.os.mem.used_percent",
    "jvm_versions": "nodes.jvm.versions.0.vm_version",
    "jvm_heap_used": "nodes.jvm.mem.heap_used_in_bytes",
    "jvm_heap_max": "nodes.jvm.mem.heap_max_in_bytes",
}


def selected(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a cluster's statistics that RAGFlow shows, as far as it is there; sizes such as ``3.76 GB``."""
    chosen = {}
    for name, path in _FIGURES.items():
        value: Any = stats
        for step in path.split("."):
            if isinstance(value, list):
                value = value[int(step)] if step.isdigit() and int(step) < len(value) else None
            else:
                value = value.get(step) if isinstance(value, Mapping) else None
        if value is not None:
            chosen[name] = _size(value) if path.endswith("_in_bytes") else value
    return chosen


def _size(size_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size_bytes < 1024:
            return f"{size_bytes:.2f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.2f} PB"
