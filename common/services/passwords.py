"""Hashing and checking passwords. Each takes some 30 ms of a core, so routes that may do it say so (``hashes``)."""

from __future__ import annotations

from contextlib import suppress

import argon2
from werkzeug.security import check_password_hash, generate_password_hash

from common.core import passwords as rules
from common.core.errors import BadField, PasswordLoginDisabled
from common.services.keys import Undecryptable
from common.services.plane import Plane

# OWASP's minimum for argon2id: 19 MiB, two passes, one lane.
_ARGON2 = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

# Hashes of random values nobody knows: checking a password of an unknown account costs what a known one's does.
_NOBODY_ARGON2 = "$argon2id$v=19$m=19456,t=2,p=1$dOq06ROthWU7KhuxROMOSw$6uAYZgqgw9LTvr0lKkqNolXwO+M2HxnbVXlJ3A5uiio"


class _NoHash(Exception):
    """A stored text is nobody's password, because no hash looks like that."""


def refuse_where_disabled(plane: Plane) -> None:
    """Raises PasswordLoginDisabled where nobody may get a session of the user API by a password."""
    if plane.settings.disable_password_login:
        raise PasswordLoginDisabled


def new_hash(plane: Plane, wire: str, *, field: str = "password") -> str:
    """The hash to store for a new password as it came over the wire. Raises as ``open_new``."""
    return hash_opened(plane, open_new(plane, wire, field=field))


def open_new(plane: Plane, wire: str, *, field: str) -> bytes:
    """base64(plain) of a new password as it came over the wire, held to the policy.

    Raises BadField naming ``field`` for a password outside the policy or one that can't be decrypted.
    """
    try:
        opened = plane.keys.open_password(wire)
    except Undecryptable as error:
        raise BadField(
            f"{field}: send plain text of at most 128 characters, or the encrypted form made with this "
            "server's public key (GET /api/v1/system/public-key).",
            field=field,
        ) from error
    plain = rules.decode_from_hash_form(opened) or ""
    rules.check_password(plain, rules.PasswordPolicy(plane.settings.password_policy), field=field)
    return opened


def hash_opened(plane: Plane, opened: bytes) -> str:
    """Hash base64(plain): werkzeug's scrypt where RAGFlow must be able to check it, argon2id otherwise."""
    with plane.hashing:
        return generate_password_hash(opened.decode()) if plane.shared else _ARGON2.hash(opened)


def matches(plane: Plane, stored: str | None, wire: str) -> bool:
    """Whether a password as it came over the wire is the one whose hash is stored.

    Takes as long where none is stored (unknown account, SSO account), or what is stored is no hash.
    """
    try:
        opened = plane.keys.open_password(wire)
    except Undecryptable:
        opened, stored = b"", None
    return opened_matches(plane, stored, opened)


def opened_matches(plane: Plane, stored: str | None, opened: bytes) -> bool:
    """Like ``matches`` for base64(plain)."""
    with plane.hashing:
        # A hash is ASCII, and werkzeug can't compare anything else.
        if stored and stored.isascii():
            with suppress(_NoHash):
                return _check(stored, opened)
        _spend_a_check(plane, opened)
    return False


def _check(stored: str, opened: bytes) -> bool:
    """Whether a stored hash is this password's. Raises _NoHash for what is none, having computed none."""
    try:
        if stored.startswith("$argon2"):
            return _ARGON2.verify(stored, opened)
        if stored.count("$") < 2:
            raise _NoHash
        return check_password_hash(stored, opened.decode())
    except argon2.exceptions.VerifyMismatchError:
        return False
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, ValueError, OverflowError) as none:
        raise _NoHash from none


def _spend_a_check(plane: Plane, opened: bytes) -> None:
    if plane.shared:
        generate_password_hash(opened.decode())
        return
    with suppress(argon2.exceptions.VerifyMismatchError):
        _ARGON2.verify(_NOBODY_ARGON2, opened)
