"""Notices that an API token will expire: three of them, once each, to whoever made it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from common.models.token import TokenRecord
from common.services import accounts, jobs, token_expiry
from common.services.accounts import AccountRow
from common.services.plane import Plane
from common.worker import periodic
from common.worker.loop import Worker, handlers
from common.worker.tally import Tally
from tests.mail_sink import MailSink
from tests.people import Clock

DAY_MS = 86_400_000


@pytest.fixture
def sink() -> Iterator[MailSink]:
    with MailSink() as listening:
        yield listening


@pytest.fixture
def mailing(plane: Plane, sink: MailSink) -> Plane:
    """The plane with a mail server."""
    section = sink.settings(mail_frontend_url="https://rag.test")
    return replace(plane, settings=plane.settings.model_copy(update={"smtp": section}))


@pytest.fixture
def ann(plane: Plane) -> AccountRow:
    with plane.database.transaction():
        return accounts.make(plane, email="ann@ragkeeper.test", nickname="Ann", password_hash=None)


def give_token(plane: Plane, owner: AccountRow, lives_days: float, name: str = "nightly") -> str:
    """A token that expires so many days from now."""
    token_id = f"{name}-{lives_days}"
    plane.database.insert(
        TokenRecord,
        id=token_id,
        stored=f"sha256:{token_id}",
        tenant_id=owner.id,
        user_id=owner.id,
        display="ragflow-…abcd",
        beta_display="",
        name=name,
        created_at=plane.now_ms(),
        expires_at=plane.now_ms() + round(lives_days * DAY_MS),
    )
    return token_id


def look(plane: Plane) -> None:
    """What the worker does once a period: search, and send."""
    with plane.database.transaction():
        jobs.enqueue(plane, token_expiry.SEARCH, {})
    worker = Worker(plane, "worker", handlers(), Tally(), threading.Event())
    while worker.work_once():
        pass


def test_there_is_a_notice_14_3_and_1_days_before_and_each_comes_once(
    mailing: Plane, ann: AccountRow, sink: MailSink, clock: Clock
) -> None:
    give_token(mailing, ann, 30)
    start, noticed = clock.now, []
    for _ in range(31 * 4):
        before = len(sink.messages)
        look(mailing)
        noticed += [30 - (clock.now - start) / DAY_MS] * (len(sink.messages) - before)
        clock.forward(hours=6)

    assert noticed == [14, 3, 1]
    assert sink.recipients == [ann.email] * 3
    subject = sink.messages[0]["Subject"]
    ends = datetime.fromtimestamp((start + 30 * DAY_MS) / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M")
    assert "nightly" in subject
    assert ends in subject
    part = sink.messages[0].get_body(("plain",))
    assert part is not None
    assert "https://rag.test/user-setting/api" in part.get_content()


@pytest.mark.parametrize(("lives_days", "notices"), [(0.5, []), (1, []), (2, [1]), (10, [3, 1]), (14, [3, 1])])
def test_a_token_that_was_meant_to_be_short_gets_no_notice_at_its_birth(lives_days: float, notices: list[int]) -> None:
    ends = round(lives_days * DAY_MS)

    seen = [token_expiry.due(0, ends, now) for now in range(0, ends + DAY_MS, DAY_MS // 4)]

    assert list(dict.fromkeys(days for days in seen if days)) == notices


def test_a_notice_that_was_missed_is_not_made_up_for_by_two(
    mailing: Plane, ann: AccountRow, sink: MailSink, clock: Clock
) -> None:
    give_token(mailing, ann, 30)
    clock.forward(days=29.5)

    look(mailing)

    assert len(sink.messages) == 1


def test_a_great_many_tokens_that_end_at_one_moment_are_all_found(
    mailing: Plane, ann: AccountRow, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_expiry, "_PAGE", 3)
    for number in range(8):
        give_token(mailing, ann, 30, f"t{number}")
    clock.forward(days=17)
    with mailing.database.transaction():
        job_id = jobs.enqueue(mailing, token_expiry.SEARCH, {})

    Worker(mailing, "worker", {token_expiry.SEARCH: token_expiry.search}, Tally(), threading.Event()).work_once()

    assert jobs.get(mailing, str(job_id))["progress"] == {"enqueued": 8}
    assert len({job["id"] for job in jobs.page(mailing, state="ready")["jobs"]}) == 8


@pytest.mark.parametrize("over", ["deleted", "off"])
def test_nobody_is_told_about_a_token_that_is_gone_or_an_account_that_is_off(
    mailing: Plane, ann: AccountRow, sink: MailSink, clock: Clock, over: str
) -> None:
    token_id = give_token(mailing, ann, 30)
    clock.forward(days=17)
    with mailing.database.transaction():
        job_id = jobs.enqueue(mailing, token_expiry.MAIL, {"token_id": token_id, "days": 14})
    if over == "deleted":
        mailing.database.run("DELETE FROM rk_token")
    else:
        mailing.database.run("UPDATE user SET is_active = '0'")

    look(mailing)

    assert sink.messages == []
    assert jobs.get(mailing, str(job_id))["progress"]["sent"] is False


def test_without_a_mail_server_no_notice_is_used_up(
    plane: Plane, mailing: Plane, ann: AccountRow, sink: MailSink, clock: Clock
) -> None:
    give_token(plane, ann, 30)
    clock.forward(days=17)
    look(plane)

    look(mailing)

    assert len(sink.messages) == 1


def test_notices_of_tokens_that_are_gone_are_forgotten(
    mailing: Plane, ann: AccountRow, sink: MailSink, clock: Clock
) -> None:
    give_token(mailing, ann, 30, "gone")
    give_token(mailing, ann, 30, "kept")
    clock.forward(days=17)
    look(mailing)
    mailing.database.run("DELETE FROM rk_token WHERE name = 'gone'")

    assert token_expiry.prune(mailing) == (1, None)
    assert mailing.database.all("SELECT token_id FROM rk_expiry_notice") == [("kept-30",)]


def test_the_search_is_on_the_schedule() -> None:
    assert token_expiry.SEARCH in {each.kind for each in periodic.SCHEDULE}
