"""Telling the owners of API tokens, two weeks, three days and a day before, that one will expire."""

from __future__ import annotations

from typing import Any

from common.core import mail_texts
from common.models.token import ExpiryNotice
from common.services import jobs, mail, tokens
from common.services.jobs import Task
from common.services.plane import Plane
from common.stores.database import Taken

SEARCH = "token.expiry"
MAIL = "mail.token_expiry"
#: Days before the end at which there is a notice, the nearest one first.
NOTICES = (1, 3, 14)

_DAY_MS = 24 * 3600 * 1000
_PAGE = 500


def due(created_at: int, expires_at: int, now_ms: int) -> int | None:
    """Which notice (its days) is due for a token, or None. A token that lives no longer than that gets none."""
    left_ms = expires_at - now_ms
    if left_ms <= 0:
        return None
    nearest = next((days for days in NOTICES if left_ms <= days * _DAY_MS), None)
    return nearest if nearest is not None and expires_at - created_at > nearest * _DAY_MS else None


def search(task: Task) -> None:
    """The job ``token.expiry``: enqueue a mail for every notice that is due and was not given yet.

    Each is claimed in the transaction of its mail's job, so that none comes twice. Nothing is claimed while no mail
    server is configured.
    """
    plane = task.plane
    if not mail.is_configured(plane):
        task.save({"enqueued": 0, "reason": "No mail server is configured."})
        return
    now = plane.now_ms()
    enqueued, after = 0, (now, "")
    while rows := _expiring(plane, after, now + NOTICES[-1] * _DAY_MS):
        task.pause_point()
        for token_id, created_at, expires_at in rows:
            days = due(created_at, expires_at, now)
            if days is not None and _claim(plane, token_id, days):
                enqueued += 1
        after = (rows[-1][2], rows[-1][0])
    task.save({"enqueued": enqueued})


def _expiring(plane: Plane, after: tuple[int, str], until: int) -> list[tuple[Any, ...]]:
    """A page of the tokens of active accounts in the order of their end; what is being rotated needs no notice."""
    expires_at, token_id = after
    return plane.database.all(
        "SELECT t.id, t.created_at, t.expires_at FROM rk_token t JOIN user u ON u.id = t.user_id "
        "LEFT JOIN rk_token_trait r ON r.token_id = t.id WHERE r.replaced_by IS NULL "
        "AND t.expires_at >= ? AND t.expires_at <= ? AND (t.expires_at > ? OR t.id > ?) "
        "AND u.is_active = '1' AND u.status = '1' ORDER BY t.expires_at, t.id LIMIT ?",
        (expires_at, until, expires_at, token_id, _PAGE),
    )


def _claim(plane: Plane, token_id: str, days: int) -> bool:
    if plane.database.one("SELECT 1 FROM rk_expiry_notice WHERE token_id = ? AND days = ?", (token_id, days)):
        return False
    try:
        with plane.database.transaction():
            plane.database.insert(ExpiryNotice, token_id=token_id, days=days, noticed_at=plane.now_ms())
            jobs.enqueue(plane, MAIL, {"token_id": token_id, "days": days})
    except Taken:
        return False
    return True


def send_notice(task: Task) -> None:
    """The job ``mail.token_expiry`` ``{token_id, days}``: mail the token's owner, in the owner's language.

    Nothing is sent for a token that is gone or has expired meanwhile. Raises as ``mail.deliver``.
    """
    plane = task.plane
    row = plane.database.one(
        "SELECT t.name, t.display, t.expires_at, u.email, u.language FROM rk_token t JOIN user u ON u.id = t.user_id "
        "LEFT JOIN rk_token_trait r ON r.token_id = t.id WHERE r.replaced_by IS NULL "
        "AND t.id = ? AND t.expires_at > ? AND u.is_active = '1' AND u.status = '1'",
        (task.job.payload["token_id"], plane.now_ms()),
    )
    if row is None:
        mail.leave_unsent(task, "The token is gone, or nobody uses it any more.")
        return
    name, display, expires_at, address, language = row
    text = mail_texts.token_expiry(
        language,
        token=name or display,
        address=address,
        expires=mail.minute(expires_at),
        link=mail.frontend_link(plane, "/user-setting/api"),
    )
    mail.deliver(task, address, text)


def prune(plane: Plane, after: str = "", *, limit: int = 1000) -> tuple[int, str | None]:
    """Delete the notices of tokens that are gone; see ``tokens.prune_gone``."""
    return tokens.prune_gone(plane, ExpiryNotice, after, limit)
