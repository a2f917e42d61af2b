"""Getting back in when no administrator can."""

from __future__ import annotations

import secrets

from common.core.audit_tags import EventTag
from common.core.passwords import encode_for_hash
from common.models.account import Account
from common.secret import Secret
from common.services import accounts, audit, limits, passwords, sessions
from common.services.plane import Plane
from common.services.principal import system

# 144 random bits, in characters that can be typed, and that no command line takes for an option.
_PASSWORD_BYTES = 18


def generated_password() -> Secret:
    """A password that nobody chose."""
    return Secret(secrets.token_hex(_PASSWORD_BYTES))


def no_active_superuser(plane: Plane) -> bool:
    """Whether nobody could administer everything."""
    return (
        plane.database.one(
            "SELECT 1 FROM user WHERE is_superuser = ? AND is_active = '1' AND status = '1' LIMIT 1", (True,)
        )
        is None
    )


def recover_admin(plane: Plane, email: str) -> Secret:
    """Make an account, made if need be, an active superuser with a new password that must be changed; returns it.

    Its sessions end. For someone with the host's shell; audited as the command. Raises BadEmail.
    """
    password = generated_password()
    stored = passwords.hash_opened(plane, encode_for_hash(password.reveal()))
    actor = system("ragkeeper recover-admin")
    with plane.database.transaction():
        plane.database.lock("superusers")
        account = accounts.find(plane, email)
        if account is None:
            account = accounts.make(plane, email=email, nickname="admin", password_hash=stored, is_superuser=True)
            audit.record(plane, EventTag.USER_CREATE, actor, target=account.target)
        accounts.change(plane, account.id, password=stored, is_superuser=True, is_active="1")
        plane.database.execute(Account.update(must_change=True).where(Account.user_id == account.id))
        sessions.end_sessions(plane, account.id, "recovered")
        audit.record(plane, EventTag.USER_PASSWORD, actor, target=account.target)
        audit.record(plane, EventTag.USER_SUPERUSER_GRANT, actor, target=account.target)
        if not account.is_active:
            audit.record(plane, EventTag.USER_ACTIVATE, actor, target=account.target)
        limits.forget_failures(plane, account.email)
    return password
