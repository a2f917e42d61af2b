"""The probes of what the plane stands on, and their verdicts. Nothing here writes to a store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from common.core import verdicts
from common.core.verdicts import Verdict
from common.services.plane import Plane
from common.services.probing import Finding, Outcome, Probe
from common.settings import HealthConfig
from common.stores.cache import HEARTBEATS_KEPT_S

STORES = ("metadata", "cache", "documents", "objects")
EXECUTORS = "task_executor"
#: What a store is called in RAGFlow's healthz.
HEALTHZ_NAMES = {"db": "metadata", "redis": "cache", "doc_engine": "documents", "storage": "objects"}
#: Readiness is asked with a time limit of one second (the default of Kubernetes), so it is told before.
READINESS_WAIT_S = 0.8


class Heartbeats(dict[str, list[dict[str, Any]]]):
    """The heartbeats of each task executor, oldest first."""


def check_db(plane: Plane) -> tuple[bool, dict[str, str]]:
    """Whether the metadata store is well, and ``{elapsed: ms as text, error?}``; the error is for operators."""
    return _checked(plane, "metadata")


def check_redis(plane: Plane) -> tuple[bool, dict[str, str]]:
    """Whether the cache store is well, whichever it is; see ``check_db``."""
    return _checked(plane, "cache")


def check_doc_engine(plane: Plane) -> tuple[bool, dict[str, str]]:
    """Whether the document engine is well; one that answers that it is red is not. See ``check_db``."""
    return _checked(plane, "documents")


def check_storage(plane: Plane) -> tuple[bool, dict[str, str]]:
    """Whether object storage is well; one without its bucket is not. See ``check_db``."""
    return _checked(plane, "objects")


def run_health_checks(plane: Plane, *, reasons: bool = False) -> tuple[dict[str, Any], bool]:
    """RAGFlow's healthz body, ``{db, redis, doc_engine, storage, status, _meta}``, and whether all is well.

    The stores are probed side by side. ``_meta`` has ``{elapsed: ms as text}`` of each that is not well, with
    ``reasons`` the error too, which only operators may see.
    """
    return healthz_body(plane.prober.run(store_probes(plane)), reasons=reasons)


def healthz_body(outcomes: Mapping[str, Outcome], *, reasons: bool = False) -> tuple[dict[str, Any], bool]:
    """What ``run_health_checks`` gives, from the outcomes of all stores."""
    body: dict[str, Any] = {}
    failed: dict[str, dict[str, str]] = {}
    for name, store in HEALTHZ_NAMES.items():
        outcome = outcomes[store]
        body[name] = _word(outcome.ok)
        if not outcome.ok:
            failed[name] = _meta(outcome) if reasons else {"elapsed": outcome.elapsed}
    return {**body, "status": _word(not failed), "_meta": failed}, not failed


def stores_down(plane: Plane, stores: Sequence[str] = STORES) -> list[str]:
    """The names of the stores that are not well, within READINESS_WAIT_S whatever hangs."""
    return not_well(plane.prober.run(store_probes(plane, stores), wait_s=READINESS_WAIT_S))


def not_well(outcomes: Mapping[str, Outcome]) -> list[str]:
    """The names of those that are not well."""
    return [name for name, outcome in outcomes.items() if not outcome.ok]


def readiness(down: Sequence[str]) -> dict[str, Any]:
    """The body of readyz: ``{status: ok or nok, down: [names]}``."""
    return {"status": _word(not down), "down": list(down)}


def get_mysql_status(plane: Plane) -> dict[str, Any]:
    """``{status, message}`` of the metadata store; no statements of other sessions are in it."""
    return shown(plane.prober.run({"metadata": store_probe(plane, "metadata")})["metadata"])


def get_redis_info(plane: Plane) -> dict[str, Any]:
    """``{status, message}`` of the cache store; of a Redis the message has RAGFlow's selection of its INFO."""
    return shown(plane.prober.run({"cache": store_probe(plane, "cache")})["cache"])


def check_minio_alive(plane: Plane) -> dict[str, Any]:
    """``{status, message}`` of object storage."""
    return shown(plane.prober.run({"objects": store_probe(plane, "objects")})["objects"])


def check_task_executor_alive(plane: Plane) -> dict[str, Any]:
    """``{status, message}``: the heartbeats of the last 30 minutes by executor, or a text when there are none.

    Alive when one executor's last heartbeat is at most 90 s old.
    """
    return shown(plane.prober.run({EXECUTORS: executors_probe(plane)})[EXECUTORS])


def store_probes(plane: Plane, stores: Sequence[str] = STORES) -> dict[str, Probe]:
    """The probes of several of the plane's own stores."""
    return {name: store_probe(plane, name) for name in stores}


def store_probe(plane: Plane, store: str) -> Probe:
    """The probe of one of the plane's own stores, within ``limits``."""
    settings = plane.settings
    look, section = {
        "metadata": (_look_at_metadata, settings.mysql),
        "cache": (_look_at_cache, settings.redis),
        "documents": (_look_at_documents, settings.elasticsearch),
        "objects": (_look_at_objects, settings.object_store),
    }[store]
    return Probe(lambda _: look(plane), limits(plane, section))


def limits(plane: Plane, section: HealthConfig | None) -> HealthConfig:
    """How to probe: as the settings ``probe.*`` say, and where they say nothing as this section of the file does.

    Waits for no store: a health check must not hang on what it asks about.
    """
    of_file = section or HealthConfig()
    timeout, retry_count, interval = map(
        plane.variables.glance, ("probe.timeout", "probe.retry_count", "probe.check_interval")
    )
    if not timeout and retry_count < 0 and not interval:
        return of_file
    return HealthConfig(
        timeout=timeout or of_file.timeout,
        retry_count=of_file.retry_count if retry_count < 0 else retry_count,
        check_interval=interval or of_file.check_interval,
    )


def detail_probe(plane: Plane, store: str) -> Probe:
    """Like ``store_probe``, with the figures that a document engine shows of itself, which take it more effort."""
    probe = store_probe(plane, store)
    return Probe(lambda _: _look_into_documents(plane), probe.limits) if store == "documents" else probe


def executors_probe(plane: Plane) -> Probe:
    """The probe of the task executors; its details are their heartbeats, oldest first."""
    return Probe(lambda _: _look_at_executors(plane), limits(plane, plane.settings.task_executor))


def shown(outcome: Outcome) -> dict[str, Any]:
    """``{status, message}`` as the service pages show it: what the service says of itself, or what is wrong."""
    details = outcome.details
    if isinstance(details, Heartbeats):
        # A client that draws the last heartbeat of each executor stumbles over one that has none.
        message: Any = {name: beats for name, beats in details.items() if beats}
    elif details:
        message = details if outcome.ok else {**details, "error": outcome.reason}
    else:
        message = None
    return {
        "status": outcome.status,
        "message": message or outcome.reason or f"Confirmed in {outcome.elapsed} ms.",
    }


def _checked(plane: Plane, store: str) -> tuple[bool, dict[str, str]]:
    outcome = plane.prober.run({store: store_probe(plane, store)})[store]
    return outcome.ok, _meta(outcome)


def _meta(outcome: Outcome) -> dict[str, str]:
    return {"elapsed": outcome.elapsed} | ({} if outcome.ok else {"error": outcome.reason})


def _word(ok: bool) -> str:
    return Verdict(ok).word


def _look_at_metadata(plane: Plane) -> Finding:
    elapsed_ms = plane.database.health()
    kind = "mysql" if plane.settings.mysql else "sqlite"
    return Finding(Verdict(True), {"type": kind, "status": "green", "elapsed_ms": f"{elapsed_ms:.1f}"})


def _look_at_cache(plane: Plane) -> Finding:
    try:
        elapsed_ms = plane.cache.health()
        said = plane.cache.info()
    finally:
        plane.cache.close()
    kind = "redis" if plane.settings.redis else "sqlite"
    return Finding(Verdict(True), {"type": kind, "status": "green", "elapsed_ms": f"{elapsed_ms:.1f}", **said})


def _look_at_documents(plane: Plane) -> Finding:
    try:
        health = plane.documents.health()
    finally:
        plane.documents.close()
    return Finding(verdicts.cluster_verdict(health["status"]), dict(health))


def _look_into_documents(plane: Plane) -> Finding:
    finding = _look_at_documents(plane)
    try:
        figures = plane.documents.info()
    finally:
        plane.documents.close()
    return Finding(finding.verdict, {"type": finding.details["type"], **figures} if figures else finding.details)


def _look_at_objects(plane: Plane) -> Finding:
    health = plane.objects.health()
    well = health["status"] == "green"
    reason = health.get("error") or f"the object store says that it is {health['status']}"
    return Finding(Verdict(well, "" if well else reason), dict(health))


def _look_at_executors(plane: Plane) -> Finding:
    now_s = plane.now_ms() / 1000
    try:
        # Asked first, as it makes no file where the store's own is gone.
        plane.cache.health()
        beats = plane.cache.heartbeats(now_s - HEARTBEATS_KEPT_S)
    finally:
        plane.cache.close()
    last = {name: _last_beat_s(name, each) for name, each in beats.items()}
    return Finding(verdicts.executors_verdict(last, now_s), Heartbeats(beats))


def _last_beat_s(name: str, beats: Sequence[dict[str, Any]]) -> float | None:
    beat = verdicts.parse_heartbeat(json.dumps(beats[-1]), name=name) if beats else None
    return beat.now_s if beat else None
