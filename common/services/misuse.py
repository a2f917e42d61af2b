"""Credentials that are known and no longer good: whoever still presents one is in the audit trail, once in a while."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from common.core.audit_tags import EventTag
from common.core.errors import NotSignedIn, StoreUnavailable
from common.models.base import rfc3339
from common.services import audit
from common.services.misuse_memory import AGAIN_MS
from common.services.plane import Plane
from common.services.principal import Origin, Principal

log = logging.getLogger(__name__)


class Misused(NotSignedIn):
    """A credential that was good once; the answer doesn't say so. ``who`` is whose it was, ``reason`` why it isn't."""

    def __init__(self, who: Principal, reason: str) -> None:
        super().__init__("Unauthorized")
        self.who = who
        self.reason = reason


def of_account(account: Sequence[Any], credential: str, reason: str, origin: Origin) -> Misused:
    """The error for a dead credential of an account: id, e-mail, nickname, flag of superusers, whether it is active,
    status, whether its password is due, ids of its roles.
    """
    user_id, email, _, is_superuser, _, _, _, roles, *_ = account
    who = Principal(
        user_id=user_id,
        email=email,
        is_superuser=bool(is_superuser),
        role_ids=tuple(roles.split(",")) if roles else (),
        credential=credential,
        origin=origin,
    )
    return Misused(who, reason)


def record(plane: Plane, route: str, misused: Misused) -> None:
    """Record that a dead credential was presented to a route, unless this process has just done so, or too often of the
    account: the last event before says until when. The refusal stands also when the trail can't be written."""
    credential, now = misused.who.credential or "", plane.now_ms()
    if not plane.misuses.is_news(credential, now):
        return
    account = str(misused.who.user_id)
    room, until = plane.misuses.room(account, now)
    if not room:
        plane.misuses.put_off(credential, until)
        return
    last = {"more_left_out_until": rfc3339(until)} if room == 1 else {}
    is_token = credential.startswith("token:")
    try:
        with plane.database.transaction():
            audit.record(
                plane,
                EventTag.TOKEN_MISUSE if is_token else EventTag.SESSION_MISUSE,
                misused.who,
                target=("route", route),
                after={"reason": misused.reason, **last},
                result="refused",
            )
    except StoreUnavailable as unavailable:
        plane.misuses.put_off(credential, now + AGAIN_MS)
        plane.misuses.give_room(account)
        log.warning("misuse of %s not recorded: %s", credential, unavailable.reason)
