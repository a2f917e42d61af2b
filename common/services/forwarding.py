"""Deciding in front of a RAGFlow, which knows no permissions: who gets through, and with which credential.

RAGFlow believes its own signed session and nothing else: a signature over ``user.access_token``, of which an account
has one. Where the database is shared, every credential of this plane is turned into that form.
"""

from __future__ import annotations

import hmac
from uuid import uuid4

from common.core.audit_tags import EventTag
from common.core.errors import Forbidden, ScopeMissing
from common.core.route_table import Rule, parts_of
from common.core.tokens import has_scope, looks_like_token
from common.models.account import Session
from common.services import accounts, audit
from common.services.plane import Plane
from common.services.principal import Principal
from common.services.session_rows import hashed

#: A value that is made for RAGFlow alone is replaced after so long, at the next pruning.
MADE_FOR_MS = 24 * 3600 * 1000
# RAGFlow's rules for a value that it takes.
_LEAST_LENGTH = 32
_INVALID = "INVALID_"


def check_proxy(plane: Plane, secret: str | None) -> None:
    """Raises Forbidden unless the proxy that asks has shown the secret: the answer may carry a whole session.

    Where none is configured nobody is answered.
    """
    configured = plane.settings.forward_auth_secret
    if configured is None:
        raise Forbidden("Decisions in front of RAGFlow are not set up here (RAGKEEPER_FORWARD_AUTH_SECRET).")
    if not hmac.compare_digest(configured.reveal().encode(), (secret or "").encode("utf-8", "surrogateescape")):
        raise Forbidden("Only a proxy that knows the secret is answered here.")


def rule_of(plane: Plane, method: str, target: str) -> Rule:
    """What a request for RAGFlow asks of its caller; ``target`` is as it came over the wire. Raises Forbidden where
    nobody gets through, as for what the table doesn't know."""
    rule = plane.route_file.table().rule(method, target)
    if rule.kind == "denied":
        raise Forbidden("This is not open to anybody: no rule allows this method on this path.")
    return rule


def admit(plane: Plane, rule: Rule, who: Principal, credential: str, target: str) -> str | None:
    """The ``Authorization`` that a request may go on with, if any.

    Raises Forbidden, PermissionMissing, ScopeMissing where it may not.
    """
    if rule.kind == "session" and who.session_id is None:
        raise Forbidden("This takes a login: API tokens are not enough.")
    if rule.permission is not None:
        who.require(*rule.permission)
    elif who.is_limited:
        raise ScopeMissing(None)
    return _authorization(plane, who, credential, target)


def _authorization(plane: Plane, who: Principal, credential: str, target: str) -> str | None:
    if not plane.shared:
        return None
    under_rest = (parts_of(target) or ())[:2] == ("api", "v1")
    # RAGFlow knows none that has scopes.
    is_theirs = looks_like_token(credential) and not has_scope(credential)
    if plane.route_file.table().pass_tokens and under_rest and plane.plain_tokens and is_theirs:
        return f"Bearer {credential}"
    row = plane.database.one("SELECT access_token FROM user WHERE id = ?", (who.user_id,))
    value = row[0] if row else None
    return plane.keys.sign(value if value is not None and _counts(value) else _made(plane, who))


def _counts(value: str) -> bool:
    return len(value) >= _LEAST_LENGTH and not value.startswith(_INVALID)


def _made(plane: Plane, who: Principal) -> str:
    """A value for an account that RAGFlow knows no session of; one that this plane itself never takes.

    It stands as an ended session, so it can't be taken over as a session that RAGFlow made, and goes when that is
    pruned.
    """
    now = plane.now_ms()
    with plane.database.transaction():
        # Switched off meanwhile, it must not get what its switching off has just taken.
        accounts.acting_now(plane, who)
        row = plane.database.one("SELECT access_token FROM user WHERE id = ?", (who.user_id,))
        if row and row[0] and _counts(row[0]):
            return str(row[0])
        value = uuid4().hex + uuid4().hex
        audit.record(plane, EventTag.SESSION_TRANSLATE, who, target=("user", who.email))
        plane.database.insert(
            Session,
            id=uuid4().hex,
            user_id=who.user_id,
            token_hash=hashed(plane.keys.sign(value)),
            value_hash=hashed(value),
            realm="user",
            address=who.origin.address,
            agent="RAGFlow",
            created_at=now,
            last_seen_at=now,
            expires_at=now + MADE_FOR_MS,
            ended_at=now,
            end_reason="translated",
        )
        accounts.change(plane, str(who.user_id), access_token=value)
    return value
