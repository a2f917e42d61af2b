"""Sealed audit events on their way out: to a webhook and into a file of lines of JSON, in the order of the chain, each
at least once. How far an outlet is stands in the database, and moves on only when a batch has been taken whole.
"""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from common.core.errors import PlaneError
from common.models.operation import State
from common.services import jobs
from common.services.audit_sealing import as_number, head_of
from common.services.audit_trail import as_json_line, sealed_events
from common.services.jobs import Task, TryLater
from common.services.plane import Plane
from common.stores.database import Taken
from common.stores.egress import fetch

log = logging.getLogger(__name__)

TO_WEBHOOK = "audit.webhook"
TO_FILE = "audit.file"
#: The folder of the home that the file is in.
FOLDER = "audit"

_BATCH = 200
_DEADLINE_S = 10.0
_TURN_S = 20.0
_ANSWER_BYTES = 65_536
# Behind every number that an event can have.
_NO_EVENT_WAITS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Outlet:
    """Where events go: the setting that names the place, the row that says how far it is, and who takes a batch."""

    setting: str
    state: str
    put: Callable[[Plane, list[dict[str, Any]]], None]


def enqueue_due(plane: Plane) -> None:
    """Enqueue a job for each outlet that is configured and behind. Raises StoreUnavailable.

    One that is said to be further than the chain, which has begun anew or was never so long, would get nothing more: it
    begins anew.
    """
    for kind, outlet in _OUTLETS.items():
        if not plane.variables.text(outlet.setting):
            continue
        at, head = _delivered(plane, outlet), head_of(plane).seq
        if at > head:
            log.error("%s is said to have had number %d, and the trail ends with %d: all of it is sent", kind, at, head)
            with plane.database.transaction():
                _move_on(plane, outlet, 0)
            at = 0
        if at < head and not _is_enqueued(plane, kind):
            with plane.database.transaction():
                jobs.enqueue(plane, kind, {}, dedupe_key=kind)


def deliver(task: Task) -> None:
    """The jobs ``audit.webhook`` and ``audit.file``: hand over what is sealed and was not taken yet.

    Nothing to do where the outlet is no longer configured. After _TURN_S what is left is for a job of its own, and the
    other outlet comes first: one that is slow, or never through, must not keep everything from it. Raises TryLater for
    a batch that was not taken.
    """
    plane, outlet = task.plane, _OUTLETS[task.job.kind]
    done, ends_at = 0, time.monotonic() + _TURN_S
    while plane.variables.text(outlet.setting):
        task.pause_point()
        at = _delivered(plane, outlet)
        events = sealed_events(plane, at, head_of(plane).seq, _BATCH)
        if not events:
            break
        outlet.put(plane, events)
        done += len(events)
        with plane.database.transaction():
            _move_on(plane, outlet, events[-1]["seq"])
            task.save({"delivered": done, "up_to": events[-1]["seq"]})
        if time.monotonic() >= ends_at:
            break


def delivered_to(plane: Plane) -> int:
    """The number up to which every configured outlet has taken the events; beyond all of them where there is none.

    One whose address counts no more, having been taken under an older rule, is still waited for.
    """
    stored = plane.variables.stored()
    configured = [outlet for outlet in _OUTLETS.values() if outlet.setting in stored and stored[outlet.setting].text]
    return min((_delivered(plane, outlet) for outlet in configured), default=_NO_EVENT_WAITS)


def _is_enqueued(plane: Plane, kind: str) -> bool:
    row = plane.database.one("SELECT 1 FROM rk_job WHERE dedupe_key = ? AND state <> 'dead'", (kind,))
    return row is not None


def _delivered(plane: Plane, outlet: _Outlet) -> int:
    row = plane.database.one("SELECT value FROM rk_state WHERE name = ?", (outlet.state,))
    return as_number(row[0]) if row else 0


def _move_on(plane: Plane, outlet: _Outlet, seq: int) -> None:
    if not plane.database.run("UPDATE rk_state SET value = ? WHERE name = ?", (seq, outlet.state)):
        with suppress(Taken), plane.database.transaction():
            plane.database.insert(State, name=outlet.state, value=seq)


def _post(plane: Plane, events: list[dict[str, Any]]) -> None:
    """POST a batch. With ``audit.webhook_secret`` the body is signed: HMAC-SHA-256 over ``<t>.<body>``."""
    body = orjson.dumps({"events": events})
    headers = {"Content-Type": "application/json", "User-Agent": "ragkeeper"}
    headers |= _signature(plane, body)
    url = plane.variables.text("audit.webhook_url")
    try:
        answer = fetch(
            url,
            headers=headers,
            deadline_s=_DEADLINE_S,
            max_bytes=_ANSWER_BYTES,
            guard=plane.egress,
            method="POST",
            body=body,
        )
    except PlaneError as error:
        raise TryLater(error.message) from error
    if not 200 <= answer.status < 300:
        raise TryLater(f"The webhook answered {answer.status}.")


def _signature(plane: Plane, body: bytes) -> Mapping[str, str]:
    secret = plane.variables.secret("audit.webhook_secret")
    if secret is None:
        return {}
    at = plane.now_ms() // 1000
    mac = hmac.digest(secret.reveal().encode(), b"%d." % at + body, "sha256").hex()
    return {"X-Ragkeeper-Signature": f"t={at},v1={mac}"}


def _write(plane: Plane, events: list[dict[str, Any]]) -> None:
    """Append a batch to the file, on the disk before it counts."""
    folder = plane.settings.home / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / plane.variables.text("audit.file")
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            size = file.tell()
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                # The disk was full in the middle of a batch, which comes again: what is there of it stands alone.
                file.write(b"\n")
            file.writelines(map(as_json_line, events))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TryLater(f"{folder}: {error.strerror}.") from error


_OUTLETS: Mapping[str, _Outlet] = {
    TO_WEBHOOK: _Outlet("audit.webhook_url", "audit_webhook_seq", _post),
    TO_FILE: _Outlet("audit.file", "audit_file_seq", _write),
}
