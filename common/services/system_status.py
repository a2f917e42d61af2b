"""What the user API tells of the system: RAGFlow's status document."""

from __future__ import annotations

from typing import Any

from common import health_utils
from common.services.plane import Plane
from common.services.principal import Principal
from common.services.probing import Outcome


def get_system_status(plane: Plane, who: Principal) -> dict[str, Any]:
    """``{doc_engine, storage, database, redis, task_executor, task_executor_heartbeats}``, probed side by side.

    Each part has ``status`` and ``elapsed`` (ms as text). Errors, what executors have in hand, and ``fallbacks`` of
    ``redis`` are shown to those who may read services: how often this process has had to count by itself what limits
    are judged by, since its start. Heartbeats are null, and not empty, when they can't be read.
    """
    probes = {name: health_utils.store_probe(plane, name) for name in health_utils.STORES}
    found = plane.prober.run({**probes, health_utils.EXECUTORS: health_utils.executors_probe(plane)})
    operator = who.may("service", "read")

    def part(outcome: Outcome) -> dict[str, str]:
        error = outcome.reason if operator else "not available"
        status = {"status": "green" if outcome.ok else "red", "elapsed": outcome.elapsed}
        return status if outcome.ok else {**status, "error": error}

    executors = found[health_utils.EXECUTORS]
    return {
        "doc_engine": {"type": "unknown", **part(found["documents"]), **_own_words(found["documents"])},
        "storage": {"storage": _storage_kind(plane), **part(found["objects"])},
        "database": {"database": "mysql" if plane.settings.mysql else "sqlite", **part(found["metadata"])},
        "redis": {**part(found["cache"]), **({"fallbacks": plane.counts.fallbacks} if operator else {})},
        "task_executor": part(executors),
        "task_executor_heartbeats": _heartbeats(executors, operator),
    }


def _own_words(documents: Outcome) -> dict[str, Any]:
    """What the engine says of itself, its yellow and red included."""
    return dict(documents.details or {})


def _storage_kind(plane: Plane) -> str:
    store = plane.settings.object_store
    return str(store.extra()["store_type"]) if store else "local"


def _heartbeats(executors: Outcome, operator: bool) -> dict[str, list[dict[str, Any]]] | None:
    beats: dict[str, list[dict[str, Any]]] | None = executors.details
    if beats is None or operator:
        return beats
    # A task in hand tells of another tenant's documents.
    return {name: [{**beat, "current": {}} for beat in each] for name, each in beats.items()}
