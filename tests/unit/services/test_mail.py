"""The mail that invites, as a job."""

from __future__ import annotations

import threading
from dataclasses import replace
from email.message import EmailMessage
from functools import partial
from typing import Any

import pytest

from common.models.tenant import Invitation
from common.services import accounts, jobs, mail
from common.services.jobs import GiveUp, Task, TryLater
from common.services.plane import Plane
from common.stores import smtp
from common.worker.loop import Worker, handlers
from common.worker.tally import Tally
from tests.mail_sink import SENDER, MailSink, password
from tests.people import Clock


@pytest.fixture
def inviter(plane: Plane) -> accounts.AccountRow:
    """Ann, who owns a tenant."""
    with plane.database.transaction():
        return accounts.make(plane, email="ann@ragkeeper.test", nickname="Ann", password_hash=None)


def invite(plane: Plane, inviter: accounts.AccountRow, address: str = "you@ragkeeper.test") -> int:
    """An invitation that is open for a week, with its job."""
    with plane.database.transaction():
        plane.database.insert(
            Invitation,
            id="i",
            tenant_id=inviter.id,
            email=address,
            email_key=address,
            role="normal",
            invited_by=inviter.id,
            created_at=plane.now_ms(),
            expires_at=plane.now_ms() + 7 * 86_400_000,
        )
        return jobs.enqueue(plane, mail.INVITATION, {"invitation_id": "i"})


def work(plane: Plane, sink: MailSink | None, **smtp: Any) -> Any:
    """Run the waiting job against the sink; its progress."""
    section = sink.settings(**smtp) if sink else None
    configured = replace(plane, settings=plane.settings.model_copy(update={"smtp": section}))
    job = jobs.claim(plane, "worker", 60, [mail.INVITATION])
    assert job
    mail.send_invitation(Task(configured, job, 60))
    return jobs.get(plane, str(job.id))["progress"]


def plain(message: EmailMessage) -> str:
    """The plain text of a mail."""
    part = message.get_body(("plain",))
    assert part is not None
    return "\n".join(str(part.get_content()).splitlines()) + "\n"


def test_an_invitation_is_mailed_to_the_address_from_the_configured_sender(
    plane: Plane, inviter: accounts.AccountRow
) -> None:
    invite(plane, inviter)

    with MailSink() as sink:
        progress = work(plane, sink, mail_frontend_url="https://rag.test")

    [message] = sink.messages
    assert sink.recipients == ["you@ragkeeper.test"]
    assert message["From"] == f"{SENDER[0]} <{SENDER[1]}>"
    assert message["Subject"] == f"You are invited to join Ann{chr(0x2018)}s Kingdom"
    text = plain(message)
    assert "Ann (ann@ragkeeper.test)" in text
    assert "\nhttps://rag.test/login\n" in text, "somebody without an account has to register first"
    assert "2026-09-28 14:13 UTC" in text
    assert progress == {"sent": True, "message_id": message["Message-ID"]}


def test_the_same_text_stands_beside_it_as_a_page_with_names_escaped(
    plane: Plane, inviter: accounts.AccountRow
) -> None:
    plane.database.run("UPDATE tenant SET name = '<b>R&D</b>' WHERE id = ?", (inviter.id,))
    invite(plane, inviter)

    with MailSink() as sink:
        work(plane, sink, mail_frontend_url="https://rag.test/")

    page = sink.messages[0].get_body(("html",))
    assert page is not None
    assert "&lt;b&gt;R&amp;D&lt;/b&gt;" in page.get_content()
    assert '<a href="https://rag.test/login">' in page.get_content()


def test_an_account_that_is_invited_is_led_to_its_team_page_in_its_own_language(
    plane: Plane, inviter: accounts.AccountRow
) -> None:
    with plane.database.transaction():
        you = accounts.make(plane, email="You@ragkeeper.test", nickname="You", password_hash=None)
    plane.database.run("UPDATE user SET language = 'Chinese' WHERE id = ?", (you.id,))
    invite(plane, inviter)

    with MailSink() as sink:
        work(plane, sink, mail_frontend_url="https://rag.test/")

    assert sink.messages[0]["Subject"].startswith("邀请您加入")
    assert "\nhttps://rag.test/user-setting/team\n" in plain(sink.messages[0])


def test_a_mail_that_is_sent_twice_can_be_told_by_its_id_and_one_that_is_noted_is_not_sent_again(
    plane: Plane, inviter: accounts.AccountRow
) -> None:
    invite(plane, inviter)
    job = jobs.claim(plane, "worker", 60, [mail.INVITATION])
    assert job
    with MailSink() as sink:
        configured = replace(plane, settings=plane.settings.model_copy(update={"smtp": sink.settings()}))
        mail.send_invitation(Task(configured, job, 60))
        # As if its worker had been killed before the progress was stored, and then after.
        mail.send_invitation(Task(configured, job, 60))
        progress = jobs.get(plane, str(job.id))["progress"]
        mail.send_invitation(Task(configured, replace(job, progress=progress), 60))

    first, second = sink.messages
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Message-ID"].endswith("@ragkeeper.test>")


def test_an_address_that_would_be_two_is_given_up(plane: Plane, inviter: accounts.AccountRow) -> None:
    invite(plane, inviter, "you@ragkeeper.test, all@ragkeeper.test")

    with MailSink() as sink, pytest.raises(GiveUp, match="can't be mailed to"):
        work(plane, sink)

    assert sink.messages == []


def test_a_sender_with_a_name_may_have_letters_beyond_ascii_in_its_address(
    plane: Plane, inviter: accounts.AccountRow
) -> None:
    invite(plane, inviter)

    with MailSink() as sink:
        work(plane, sink, mail_default_sender=("Firma", "post@münchen.test"))

    assert sink.messages[0]["From"] == "Firma <post@münchen.test>"


@pytest.mark.parametrize("name", ["two\nlines", '"'])
def test_a_user_name_that_no_mail_can_be_from_is_given_up_with_what_to_set(
    plane: Plane, inviter: accounts.AccountRow, name: str
) -> None:
    invite(plane, inviter)
    with MailSink() as sink, pytest.raises(GiveUp, match=r"set mail\.default_sender"):
        work(plane, sink, mail_default_sender=("", ""), mail_username=name)


def test_it_speaks_the_inviters_language(plane: Plane, inviter: accounts.AccountRow) -> None:
    plane.database.run("UPDATE user SET language = 'Chinese' WHERE id = ?", (inviter.id,))
    invite(plane, inviter)

    with MailSink() as sink:
        work(plane, sink)

    assert sink.messages[0]["Subject"].startswith("邀请您加入")


@pytest.mark.parametrize("over", ["expired", "withdrawn"])
def test_nothing_is_sent_for_an_invitation_that_is_over(
    plane: Plane, inviter: accounts.AccountRow, clock: Clock, over: str
) -> None:
    invite(plane, inviter)
    if over == "expired":
        clock.forward(days=7)
    else:
        plane.database.run("DELETE FROM rk_invitation")

    with MailSink() as sink:
        progress = work(plane, sink)

    assert sink.messages == []
    assert progress["sent"] is False


def test_an_address_that_is_refused_for_good_is_given_up(plane: Plane, inviter: accounts.AccountRow) -> None:
    invite(plane, inviter)

    with MailSink({"RCPT": "550 no such mailbox"}) as sink, pytest.raises(GiveUp, match="550 no such mailbox"):
        work(plane, sink)


def test_a_server_that_asks_to_come_again_is_tried_again(plane: Plane, inviter: accounts.AccountRow) -> None:
    invite(plane, inviter)

    with MailSink({"RCPT": "450 greylisted"}) as sink, pytest.raises(TryLater, match="450 greylisted"):
        work(plane, sink)


Outcome = tuple[str, int, str | None]


def outcome_at(plane: Plane, sink: MailSink, **smtp_settings: Any) -> Outcome:
    """What ``job show`` says after a worker has tried: state, attempts, error."""
    section = sink.settings(**smtp_settings)
    configured = replace(plane, settings=plane.settings.model_copy(update={"smtp": section}))
    assert Worker(configured, "worker", handlers(), Tally(), threading.Event()).work_once()
    [shown] = jobs.page(plane)["jobs"]
    return shown["state"], shown["attempts"], shown["error"]


def test_a_server_that_refuses_connections_is_tried_again_later(plane: Plane, inviter: accounts.AccountRow) -> None:
    invite(plane, inviter)
    with MailSink() as gone:
        port = gone.settings().mail_port

    with MailSink() as another:
        state, attempts, error = outcome_at(plane, another, mail_port=port)

    assert (state, attempts) == ("ready", 1)
    assert error is not None
    assert "Refused" in error


def test_a_server_that_hangs_is_tried_again_later(
    plane: Plane, inviter: accounts.AccountRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    invite(plane, inviter)
    monkeypatch.setattr(smtp, "send", partial(smtp.send, answer_s=0.2))

    with MailSink(hangs_at="DATA") as sink:
        state, attempts, error = outcome_at(plane, sink)

    assert (state, attempts) == ("ready", 1)
    assert error is not None


def test_an_address_that_the_server_rejects_is_a_dead_letter_with_its_reason(
    plane: Plane, inviter: accounts.AccountRow
) -> None:
    invite(plane, inviter)

    with MailSink({"RCPT": "550 no such mailbox"}) as sink:
        assert outcome_at(plane, sink) == ("dead", 1, "the mail server said 550 no such mailbox")


def test_a_login_that_the_server_rejects_is_a_dead_letter_without_the_password(
    plane: Plane, inviter: accounts.AccountRow
) -> None:
    invite(plane, inviter)

    with MailSink(accounts={}) as sink:
        state, _, error = outcome_at(plane, sink, mail_username="plane", mail_password=password("hush hush"))

    assert state == "dead"
    assert error is not None
    assert "535" in error
    assert "hush" not in error


def test_waits_grow_while_the_server_asks_to_come_again_until_the_mail_is_out(
    plane: Plane, inviter: accounts.AccountRow, clock: Clock
) -> None:
    invite(plane, inviter)
    with MailSink({"RCPT": "450 greylisted"}) as sink:
        waits = []
        for _ in range(4):
            outcome_at(plane, sink)
            row = plane.database.one("SELECT visible_at FROM rk_job")
            assert row
            waits.append((row[0] - clock.now) / 1000)
            clock.now = row[0]
        sink.answers.clear()
        state, attempts, _ = outcome_at(plane, sink)

    # 5, 10, 20 and 40 seconds, each less up to a half by chance.
    assert all(longest / 2 <= wait <= longest for wait, longest in zip(waits, (5, 10, 20, 40), strict=True))
    assert (state, attempts, len(sink.messages)) == ("done", 5, 1)


def test_without_a_mail_server_the_job_says_what_to_configure(plane: Plane, inviter: accounts.AccountRow) -> None:
    invite(plane, inviter)

    with pytest.raises(GiveUp, match=r"smtp\.mail_server"):
        work(plane, None)


def test_a_tenants_name_adds_no_header(plane: Plane, inviter: accounts.AccountRow) -> None:
    plane.database.run("UPDATE tenant SET name = ? WHERE id = ?", ("X\r\nBcc: all@ragkeeper.test", inviter.id))
    invite(plane, inviter)

    with MailSink() as sink:
        work(plane, sink)

    assert sink.messages[0]["Bcc"] is None
    assert sink.recipients == ["you@ragkeeper.test"]
