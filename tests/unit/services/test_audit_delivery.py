"""Sealed events on their way out: in order, at least once, to a webhook and into a file."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from common.core.errors import BadField
from common.services import audit_delivery, audit_retention, jobs, settings
from common.services.audit_delivery import FOLDER, TO_FILE, TO_WEBHOOK
from common.services.jobs import Task, TryLater
from common.services.plane import Plane
from common.worker.loop import lanes
from tests.people import Clock
from tests.trail import SHELL, happen, sealed, uids
from tests.unit.stores.servers import http_server, send


def configure(plane: Plane, **values: object) -> None:
    for name, value in values.items():
        settings.set_variable(plane, SHELL, f"audit.{name}", value)
    plane.variables.forget()


def task(plane: Plane, kind: str) -> Task:
    """The job of this kind that waits, claimed."""
    job = jobs.claim(plane, "worker", 60, [kind])
    assert job is not None
    return Task(plane, job, 60)


def waits(plane: Plane, kind: str) -> bool:
    row = plane.database.one("SELECT state FROM rk_job WHERE dedupe_key = ?", (kind,))
    return row is not None and row[0] == "ready"


@dataclass
class Hook:
    """A webhook that keeps what it was sent, and answers as told."""

    status: int = 204
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.heard.append((dict(handler.headers), body))
        send(handler, self.status, b"")

    def events(self) -> list[dict[str, Any]]:
        return [event for _, body in self.heard for event in json.loads(body)["events"]]


@contextmanager
def listening() -> Iterator[Hook]:
    hook = Hook()
    with http_server(hook.answer) as port:
        hook.url = f"http://127.0.0.1:{port}/hook"
        yield hook


def test_a_webhook_is_sent_every_sealed_event_in_order_and_signed(plane: Plane) -> None:
    with listening() as hook:
        configure(plane, webhook_url=hook.url, webhook_secret="between us")
        sealed(plane, 3)
        happen(plane)
        audit_delivery.enqueue_due(plane)

        audit_delivery.deliver(task(plane, TO_WEBHOOK))

    headers, body = hook.heard[0]
    assert [event["id"] for event in hook.events()] == uids(plane)
    assert [event["seq"] for event in hook.events()] == [1, 2, 3, 4, 5]
    at, _, mac = headers["X-Ragkeeper-Signature"].removeprefix("t=").partition(",v1=")
    assert mac == hmac.digest(b"between us", at.encode() + b"." + body, "sha256").hex()
    assert b"between us" not in body
    assert headers["Content-Type"] == "application/json"


def test_what_was_delivered_is_not_sent_again(plane: Plane) -> None:
    with listening() as hook:
        configure(plane, webhook_url=hook.url)
        sealed(plane, 2)
        audit_delivery.enqueue_due(plane)
        first = task(plane, TO_WEBHOOK)
        audit_delivery.deliver(first)
        jobs.finish(plane, first.job)
        audit_delivery.enqueue_due(plane)
        idle = waits(plane, TO_WEBHOOK)
        sealed(plane, 1)
        audit_delivery.enqueue_due(plane)
        audit_delivery.deliver(task(plane, TO_WEBHOOK))

    assert not idle
    assert [event["seq"] for event in hook.events()] == [1, 2, 3, 4]
    assert len(hook.heard) == 2


def test_a_seal_that_somebody_put_behind_the_end_is_not_delivered(plane: Plane) -> None:
    configure(plane, file="trail.jsonl")
    first, *_ = sealed(plane, 2)
    plane.database.run("INSERT INTO rk_audit_seal VALUES (?, ?, 'x', 'y')", (2**63 - 1, first))
    for _ in range(2):
        audit_delivery.enqueue_due(plane)
        delivery = task(plane, TO_FILE)
        audit_delivery.deliver(delivery)
        jobs.finish(plane, delivery.job)
        sealed(plane, 2)

    lines = (plane.settings.home / FOLDER / "trail.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3, 4, 5]


def test_an_outlet_that_is_said_to_be_further_than_the_chain_begins_anew(plane: Plane) -> None:
    configure(plane, file="trail.jsonl")
    sealed(plane, 2)
    plane.database.run("INSERT INTO rk_state (name, value) VALUES ('audit_file_seq', 1000)")
    audit_delivery.enqueue_due(plane)
    audit_delivery.deliver(task(plane, TO_FILE))

    lines = (plane.settings.home / FOLDER / "trail.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]


def test_an_outlet_that_is_never_through_leaves_its_turn_to_the_other(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_delivery, "_TURN_S", 0.0)
    monkeypatch.setattr(audit_delivery, "_BATCH", 2)
    with listening() as hook:
        configure(plane, webhook_url=hook.url, file="trail.jsonl")
        sealed(plane, 3)
        audit_delivery.enqueue_due(plane)
        turns = []
        while (job := jobs.claim(plane, "worker", 60, [TO_WEBHOOK, TO_FILE])) is not None:
            audit_delivery.deliver(Task(plane, job, 60))
            jobs.finish(plane, job)
            audit_delivery.enqueue_due(plane)
            turns.append(job.kind)

    assert turns == [TO_WEBHOOK, TO_FILE] * 3
    assert [event["seq"] for event in hook.events()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("status", [500, 404, 301])
def test_a_batch_that_was_not_taken_is_sent_again(plane: Plane, status: int) -> None:
    with listening() as hook:
        configure(plane, webhook_url=hook.url)
        sealed(plane, 2)
        audit_delivery.enqueue_due(plane)
        hook.status = status
        again = task(plane, TO_WEBHOOK)
        with pytest.raises(TryLater, match=str(status)):
            audit_delivery.deliver(again)
        hook.status = 200
        audit_delivery.deliver(again)

    assert [event["seq"] for event in hook.events()] == [1, 2, 3, 1, 2, 3]


def test_a_webhook_that_may_not_be_called_or_is_not_there_is_tried_later(plane: Plane) -> None:
    configure(plane, webhook_url="http://10.0.0.1/hook")
    sealed(plane, 1)
    audit_delivery.enqueue_due(plane)

    with pytest.raises(TryLater, match="not a public one"):
        audit_delivery.deliver(task(plane, TO_WEBHOOK))


def test_a_file_gets_every_sealed_event_as_a_line(plane: Plane) -> None:
    configure(plane, file="trail.jsonl")
    sealed(plane, 2)
    audit_delivery.enqueue_due(plane)
    audit_delivery.deliver(task(plane, TO_FILE))

    path = plane.settings.home / FOLDER / "trail.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in lines] == uids(plane)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_full_disk_left_of_a_batch_stands_alone_in_the_file(plane: Plane) -> None:
    configure(plane, file="trail.jsonl")
    sealed(plane, 2)
    audit_delivery.enqueue_due(plane)
    (plane.settings.home / FOLDER).mkdir()
    path = plane.settings.home / FOLDER / "trail.jsonl"
    path.write_text('{"id":"half of a')

    audit_delivery.deliver(task(plane, TO_FILE))

    half, *whole = path.read_text().splitlines()
    assert half == '{"id":"half of a'
    assert [json.loads(line)["id"] for line in whole] == uids(plane)


def test_a_file_that_can_not_be_written_to_is_tried_later(plane: Plane) -> None:
    configure(plane, file="trail.jsonl")
    sealed(plane, 1)
    audit_delivery.enqueue_due(plane)
    (plane.settings.home / FOLDER).write_text("in the way")

    with pytest.raises(TryLater):
        audit_delivery.deliver(task(plane, TO_FILE))


def test_a_file_that_leads_elsewhere_is_not_written_to(plane: Plane) -> None:
    configure(plane, file="trail.jsonl")
    sealed(plane, 1)
    audit_delivery.enqueue_due(plane)
    (plane.settings.home / FOLDER).mkdir()
    (plane.settings.home / FOLDER / "trail.jsonl").symlink_to(plane.settings.home / "elsewhere")

    with pytest.raises(TryLater):
        audit_delivery.deliver(task(plane, TO_FILE))
    assert not (plane.settings.home / "elsewhere").exists()


@pytest.mark.parametrize("name", ["../secret_key", "/etc/passwd", ".hidden", "a/b", "a b", "é"])
def test_a_file_is_a_name_in_its_folder(plane: Plane, name: str) -> None:
    with pytest.raises(BadField):
        configure(plane, file=name)


def test_nothing_is_enqueued_without_an_outlet(plane: Plane) -> None:
    sealed(plane, 2)

    audit_delivery.enqueue_due(plane)

    assert not waits(plane, TO_WEBHOOK)
    assert not waits(plane, TO_FILE)


def test_a_segment_stays_until_its_outlets_have_it(plane: Plane, clock: Clock) -> None:
    configure(plane, file="trail.jsonl", webhook_url="http://10.0.0.1/hook", retention_days=30)
    sealed(plane, 2)
    clock.forward(days=40)
    sealed(plane, 1)
    before = audit_retention.drop_segment(plane)
    audit_delivery.enqueue_due(plane)
    audit_delivery.deliver(task(plane, TO_FILE))
    while_one_waits = audit_retention.drop_segment(plane)
    configure(plane, webhook_url="")

    assert (before, while_one_waits) == (0, 0)
    assert audit_retention.drop_segment(plane) == 5


def test_an_outlet_whose_address_breaks_the_rule_by_now_is_still_waited_for(plane: Plane) -> None:
    configure(plane, webhook_url="https://audit.example")
    plane.database.run("UPDATE rk_variable SET value = 'https://u:p@audit.example' WHERE name = 'audit.webhook_url'")
    plane.database.run("UPDATE rk_state SET value = value + 1 WHERE name = 'variables_version'")
    plane.variables.forget()

    assert plane.variables.text("audit.webhook_url") == ""
    assert audit_delivery.delivered_to(plane) == 0


def test_a_webhook_that_hangs_and_a_long_purge_hold_up_no_other_job() -> None:
    registry = dict.fromkeys(("mail.invitation", TO_WEBHOOK, TO_FILE, "ragflow.follow", "purge"), lambda task: None)

    found = lanes(registry)

    assert {of: sorted(lane) for of, lane in found.items()} == {
        "mail": ["mail.invitation"],
        "audit": [TO_FILE, TO_WEBHOOK],
        "ragflow": ["ragflow.follow"],
        "jobs": ["purge"],
    }
