"""Credentials that are known and no longer good: whoever still presents one is in the audit trail, once in a while."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from common.core.audit_tags import EventTag
from common.core.errors import NotSignedIn, StoreUnavailable
from common.services import audit
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
    """The error for a dead credential of an account, which begins with its id and its e-mail."""
    return Misused(Principal(user_id=account[0], email=account[1], credential=credential, origin=origin), reason)


def record(plane: Plane, route: str, misused: Misused) -> None:
    """Record that a dead credential was presented to a route, unless this process has just done so. The refusal stands
    also when the trail can't be written."""
    credential = misused.who.credential or ""
    if not plane.misuses.is_news(credential, plane.now_ms()):
        return
    is_token = credential.startswith("token:")
    try:
        with plane.database.transaction():
            audit.record(
                plane,
                EventTag.TOKEN_MISUSE if is_token else EventTag.SESSION_MISUSE,
                misused.who,
                target=("route", route),
                after={"reason": misused.reason},
                result="refused",
            )
    except StoreUnavailable as unavailable:
        log.warning("misuse of %s not recorded: %s", credential, unavailable.reason)
