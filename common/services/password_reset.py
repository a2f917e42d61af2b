"""A forgotten password: an image to be read, a code by mail, then a new password and a session.

An address that nobody has is answered like any other, in words and in time: no step before the new password looks at
accounts, and the mail is prepared for every address and dropped by the worker where there is no account. What is
pending stands in the cache store, as keyed hashes only; under a plain hash of the address, as failed logins do.
"""

from __future__ import annotations

import hashlib
from typing import Any

from common.core import mail_texts, reset_codes
from common.core.audit_tags import EventTag
from common.core.emails import email_key
from common.core.errors import BadField, CoolingDown, MailNotConfigured, NotEffective, StoreUnavailable, WrongCode
from common.core.passwords import decode_from_hash_form
from common.models.account import Account
from common.secret import Secret
from common.services import accounts, audit, captcha_image, jobs, limits, mail, passwords, sessions
from common.services.accounts import AccountRow
from common.services.jobs import GiveUp, Task
from common.services.plane import Plane
from common.services.principal import Origin, Principal, stranger

CODE_MAIL = "mail.reset_code"

_CODES = "reset-code"
_EXPIRED_CODE = "There is no valid code for this address: it was used or has expired. Ask for a new one."


def captcha(plane: Plane, email: str) -> bytes:
    """An image for an address, whose text counts once and for a minute; see ``captcha_image.draw``.

    Raises MailNotConfigured.
    """
    _require_a_use(plane)
    text = reset_codes.new_captcha()
    plane.cache.set(_key(plane, "captcha", email), _mac(plane, email, text), reset_codes.CAPTCHA_S)
    return captcha_image.draw(text)


def send_code(plane: Plane, origin: Origin, email: str, captcha_text: str) -> None:
    """Mail a code to an address whose image was read right. A code that was sent before is replaced.

    Raises MailNotConfigured, NotEffective without a pending image, WrongCode, CoolingDown within a minute of the last
    code or while the address is locked, and StoreUnavailable: then no minute begins and the code of before holds on,
    unless this one may be on its way, or the cache store is what is gone.
    """
    _require_a_use(plane)
    limits.forgotten_password(plane, origin)
    _use_captcha(plane, email, captcha_text)
    _refuse_if_locked(plane, email)
    sent_key = _key(plane, "sent", email)
    sent = plane.cache.incr(sent_key, reset_codes.COOL_DOWN_S)
    if sent.value > 1:
        raise CoolingDown("A code was sent a moment ago.", resets_in=sent.resets_in)
    may_be_mailed = False
    try:
        with plane.database.transaction():
            _enqueue_code(plane, origin, email)
            may_be_mailed = True
    except StoreUnavailable:
        if not may_be_mailed:
            plane.cache.delete(sent_key)
        raise


def _enqueue_code(plane: Plane, origin: Origin, email: str) -> None:
    """Within a transaction."""
    code = reset_codes.new_code()
    task = {
        "email": email.strip(),
        "code": plane.keys.encrypt(Secret(code)),
        "expires_at": plane.now_ms() + round(reset_codes.CODE_S * 1000),
    }
    jobs.enqueue(plane, CODE_MAIL, task)
    audit.record(plane, EventTag.USER_RESET_ASK, stranger(origin), target=("user", email))
    # Last, so that a code which was mailed before holds on where this one can't be.
    plane.cache.set(_key(plane, "code", email), _mac(plane, email, code), reset_codes.CODE_S)


def send_code_mail(task: Task) -> None:
    """The job ``mail.reset_code`` ``{email, code (encrypted), expires_at}``: mail the code to its account, if any.

    Raises as ``mail.deliver``.
    """
    plane, payload = task.plane, task.job.payload
    account = accounts.find(plane, payload["email"])
    if account is None or not account.is_active:
        mail.leave_unsent(task, "No active account has this address.")
        return
    if payload["expires_at"] <= plane.now_ms():
        mail.leave_unsent(task, "The code has expired.")
        return
    code = plane.keys.decrypt(payload["code"])
    if code is None:
        raise GiveUp("The code can't be decrypted: the secret key was changed meanwhile.")
    row = plane.database.one("SELECT language FROM user WHERE id = ?", (account.id,))
    text = mail_texts.reset_code(
        row[0] if row else None,
        address=account.email,
        code=code.reveal(),
        minutes=round(reset_codes.CODE_S / 60),
    )
    mail.deliver(task, account.email, text)


def verify(plane: Plane, origin: Origin, email: str, code: str) -> None:
    """Take a code for what ``reset`` without a code does afterwards, from the same client, within five minutes.

    Raises MailNotConfigured, NotEffective, WrongCode, CoolingDown, and StoreUnavailable, which uses the code up only
    where the verification may stand: then ``reset`` tells.
    """
    _require_a_use(plane)
    _check_code(plane, origin, email, code)
    proof = _mac(plane, email, _client(origin))
    # In one step: a store that goes away in between would have used up the code for nothing.
    if not plane.cache.redeem(_key(plane, "code", email), _key(plane, "verified", email), proof, reset_codes.CODE_S):
        raise NotEffective(_EXPIRED_CODE)


def reset(
    plane: Plane, origin: Origin, email: str, new_password: str, confirmation: str, code: str | None = None
) -> tuple[Principal, str]:
    """Set the password of whoever proved to read the address's mail, and log in; its principal and wire form.

    The proof is the code, or without one a ``verify`` from the same client. All other sessions end. Each password is
    base64 of the plain text, the plain text, or RAGFlow's encrypted form. Raises BadField for a password and
    StoreUnavailable without using up the proof (but where the password may have been set), else as ``verify``.
    """
    _require_a_use(plane)
    opened = _open_twice(plane, new_password, confirmation, passwords.Owner((email,)))
    if code is not None:
        _check_code(plane, origin, email, code)
        if not plane.cache.delete(_key(plane, "code", email)):
            raise NotEffective(_EXPIRED_CODE)
    else:
        _use_verification(plane, origin, email)
    may_be_kept = False
    try:
        account = accounts.find(plane, email)
        if account is None or not account.is_active:
            raise NotEffective(_EXPIRED_CODE)
        # What the policy knows of the account is told to nobody but whom the proof shows to be its owner.
        _open_twice(plane, new_password, confirmation, passwords.owner_of(plane, account))
        new_hash = passwords.hash_opened(plane, opened)
        with plane.database.transaction():
            session = _write(plane, origin, account, new_hash)
            # Whose answer to a COMMIT was lost may have been kept: then the proof has had its use.
            may_be_kept = True
        return session
    except (BadField, StoreUnavailable):
        if not may_be_kept:
            _give_back(plane, origin, email, code)
        raise


def _open_twice(plane: Plane, new_password: str, confirmation: str, owner: passwords.Owner) -> bytes:
    """base64(plain) of a new password that was typed twice. Raises BadField."""
    opened = passwords.open_new(plane, _plain_or_wire(new_password), owner, field="new_password")
    if passwords.open_new(plane, _plain_or_wire(confirmation), owner, field="confirm_new_password") != opened:
        raise BadField("The two passwords differ.", field="confirm_new_password")
    return opened


def _write(plane: Plane, origin: Origin, account: AccountRow, new_hash: str) -> tuple[Principal, str]:
    """Within a transaction."""
    # Whoever switched the account off while the hash was computed meant this login too.
    now = accounts.hold(plane, account.id)
    if now is None or not now.is_active:
        raise NotEffective(_EXPIRED_CODE)
    accounts.change(plane, account.id, password=new_hash)
    plane.database.execute(Account.update(must_change=False).where(Account.user_id == account.id))
    sessions.end_sessions(plane, account.id, "password")
    by: dict[str, Any] = {"by": "code"}
    audit.record(plane, EventTag.USER_PASSWORD, stranger(origin), target=account.target, after=by)
    limits.forget_failures(plane, account.email)
    return sessions.open_session(plane, origin, account, "user")


def _require_a_use(plane: Plane) -> None:
    """Raises PasswordLoginDisabled, MailNotConfigured."""
    passwords.refuse_where_disabled(plane)
    if not mail.is_configured(plane):
        raise MailNotConfigured


def _use_captcha(plane: Plane, email: str, text: str) -> None:
    """One try for each image: who was wrong needs another one."""
    key = _key(plane, "captcha", email)
    kept = plane.cache.get(key)
    if kept is None or not plane.cache.delete(key):
        raise NotEffective("There is no image for this address: it was used or has expired. Ask for a new one.")
    if not _is_mac(plane, kept, email, text):
        raise WrongCode("The text is not the one in the image; ask for a new one.")


def _check_code(plane: Plane, origin: Origin, email: str, code: str) -> None:
    """The code is not used up. Raises NotEffective, CoolingDown, WrongCode."""
    _refuse_if_locked(plane, email)
    kept = plane.cache.get(_key(plane, "code", email))
    if kept is None:
        raise NotEffective(_EXPIRED_CODE)
    # Counted before the look, so that tries at the same moment count too; a new code does not begin a new count.
    tries = plane.cache.incr(_key(plane, "tries", email), reset_codes.LOCK_S)
    if tries.value > reset_codes.TRIES:
        raise CoolingDown("Too many wrong codes.", resets_in=tries.resets_in)
    if not _is_mac(plane, kept, email, code):
        _refuse_code(plane, origin, email, last=tries.value == reset_codes.TRIES)
    # Before the code is used, which a store that goes away in between would have used up.
    plane.cache.delete(_key(plane, "tries", email))


def _refuse_code(plane: Plane, origin: Origin, email: str, *, last: bool) -> None:
    if last:
        _lock(plane, email)
    with plane.database.transaction():
        audit.record(
            plane,
            EventTag.USER_RESET_REFUSED,
            stranger(origin),
            target=("user", email),
            after={"locked": last},
            result="refused",
        )
    raise WrongCode("The code is not right.")


def _refuse_if_locked(plane: Plane, email: str) -> None:
    until = plane.cache.counted(_key(plane, "lock", email))
    if until:
        left_s = max(0.0, (until - plane.now_ms()) / 1000)
        if left_s > reset_codes.LOCK_S:
            # The clock was put back since.
            left_s = reset_codes.LOCK_S
            _lock(plane, email)
        raise CoolingDown("Too many wrong codes.", resets_in=left_s)


def _lock(plane: Plane, email: str) -> None:
    until = plane.now_ms() + round(reset_codes.LOCK_S * 1000)
    plane.cache.set(_key(plane, "lock", email), str(until), reset_codes.LOCK_S)


def _use_verification(plane: Plane, origin: Origin, email: str) -> None:
    """Its address is all that the client sends: whoever else knows it must not be let in meanwhile."""
    key = _key(plane, "verified", email)
    kept = plane.cache.get(key)
    if kept is None or not _is_mac(plane, kept, email, _client(origin)) or not plane.cache.delete(key):
        raise NotEffective("The code for this address was not verified here, or too long ago. Ask for a new one.")


def _give_back(plane: Plane, origin: Origin, email: str, code: str | None) -> None:
    """Let a proof that was used up for nothing count once more, unless there is a newer one."""
    what, proof = ("code", code) if code is not None else ("verified", _client(origin))
    if plane.cache.get(_key(plane, what, email)) is None:
        plane.cache.set(_key(plane, what, email), _mac(plane, email, proof), reset_codes.CODE_S)


def _client(origin: Origin) -> str:
    return f"{origin.address}\n{origin.agent}"


def _plain_or_wire(text: str) -> str:
    """The plain text of base64, which RAGFlow's web client sends here; anything else as it is.

    A plain password could be base64 of some text too: one in a hundred thousand of those with 16 letters and digits.
    """
    plain = decode_from_hash_form(text.encode("utf-8", errors="surrogatepass"))
    return plain if plain and plain.isprintable() else text


def _key(plane: Plane, what: str, email: str) -> str:
    # By no secret key, or after a rotation not every process would look in the same place.
    return f"reset:{what}:{hashlib.sha256(email_key(email).encode('utf-8', 'surrogatepass')).hexdigest()}"


def _mac(plane: Plane, email: str, text: str) -> str:
    return plane.keys.mac(_CODES, _of(email, text))


def _is_mac(plane: Plane, kept: str, email: str, text: str) -> bool:
    return plane.keys.is_mac(kept, _CODES, _of(email, text))


def _of(email: str, text: str) -> str:
    return f"{email_key(email)}\n{reset_codes.as_typed(text)}"
