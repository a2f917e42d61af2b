"""The plane's keys: what signs sessions, what encrypts stored secrets, and the pair for passwords on the wire."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from itsdangerous import BadData, URLSafeTimedSerializer

from common.core.errors import StoreUnavailable
from common.core.passwords import ciphertext_of, decode_from_hash_form, encode_for_hash, is_plain_form
from common.secret import Secret
from common.settings import MIN_SECRET_KEY_LENGTH, Settings, SettingsError
from common.stores.cache import Cache

log = logging.getLogger(__name__)

_ENCRYPTED = "rk1:"
_SEALED = "rk2:"
_NONCE_BYTES = 12
#: The file of the home's own keys.
OWN = "secret_key"
# After so many seconds the keys may be looked up again for something that none of them opens.
_LOOK_EVERY_S = 1.0
# The keys that were shared through the cache store, one a line, the newest first.
_REMEMBERED = "shared_secret_keys"


_Opened = TypeVar("_Opened")


class Undecryptable(Exception):
    """A value in RAGFlow's encrypted form that this private key doesn't open."""


class SharedKeyUnknown(StoreUnavailable):
    """The secret key that others sign with is in the cache store, which has not been reached since the first start."""

    def __init__(self, reason: str) -> None:
        super().__init__("cache", f"the shared secret key is not known: {reason}")


class _Ring:
    """What one list of secret keys can do; the first one signs and encrypts, all of them read."""

    def __init__(self, secret_keys: Sequence[Secret]) -> None:
        self.secret_keys = tuple(secret_keys)
        self.first = Fernet(_derived(secret_keys[0], "stored-secrets"))
        self.wrapping = MultiFernet([Fernet(_derived(key, "data-keys")) for key in secret_keys])
        self.first_wrapping = Fernet(_derived(secret_keys[0], "data-keys"))
        self.signers = [URLSafeTimedSerializer(key.reveal()) for key in secret_keys]
        self.fernet = MultiFernet([Fernet(_derived(key, "stored-secrets")) for key in secret_keys])
        self.macs = [_derived(key, "macs") for key in secret_keys]
        self.audit = {_key_id(key): key for key in (_derived(secret, "audit") for secret in secret_keys)}

    def unsign(self, wire: str) -> str | None:
        for signer in self.signers:
            try:
                value = signer.loads(wire)
            except BadData:
                continue
            return value if isinstance(value, str) else None
        return None

    def decrypt(self, ciphertext: str) -> Secret | None:
        try:
            return Secret(self.fernet.decrypt(ciphertext.encode()).decode())
        except InvalidToken:
            return None


class Keys:
    """Signs and recognises session values, encrypts what is stored, opens passwords in RAGFlow's form.

    ``awaited`` is for a plane that doesn't know yet which key the others have: it gives all the keys, or raises
    StoreUnavailable. Until it has given them nothing is encrypted, for nobody else could read it; and sessions are
    signed with the key that there is only if ``sign_alone`` says that nobody else looks at a signature. ``source``
    gives the keys as they are now, for what none of those that are known opens: they may have been rotated.
    """

    def __init__(
        self,
        secret_keys: Sequence[Secret],
        password_key: rsa.RSAPrivateKey,
        *,
        awaited: Callable[[], Sequence[Secret]] | None = None,
        source: Callable[[], Sequence[Secret]] | None = None,
        sign_alone: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ring = _Ring(secret_keys)
        self._awaited = awaited
        self._source = source
        self._clock = clock
        self._look_at = 0.0
        self._sign_alone = sign_alone
        self._password_key = password_key

    def sign(self, value: str) -> str:
        """The wire form of a session value: RAGFlow's signature with the first key. Raises SharedKeyUnknown."""
        if not self._sign_alone:
            self._take_awaited()
        signed = self._ring.signers[0].dumps(value)
        return signed if isinstance(signed, str) else signed.decode()

    def unsign(self, wire: str) -> str | None:
        """The value of a wire form that any of the keys signed, or None. Like RAGFlow it looks at no age.

        Raises SharedKeyUnknown for one that may be good, but can't be told from a forged one yet.
        """
        value = self._ring.unsign(wire)
        if value is None and self._awaited is not None:
            self._take_awaited()
            value = self._ring.unsign(wire)
        return value

    def encrypt(self, secret: Secret) -> str:
        """The form in which a secret is stored. Raises SharedKeyUnknown."""
        self._take_awaited()
        return _ENCRYPTED + self._ring.fernet.encrypt(secret.reveal().encode()).decode()

    def decrypt(self, stored: str) -> Secret | None:
        """A stored secret; one that RAGFlow wrote in the clear is returned as it is; None when no key opens it.

        Raises SharedKeyUnknown for one that the key that isn't known yet may open.
        """
        if not stored.startswith(_ENCRYPTED):
            return Secret(stored)
        ciphertext = stored.removeprefix(_ENCRYPTED)
        return self._opened(lambda ring: ring.decrypt(ciphertext))

    def seal(self, secret: Secret, name: str) -> str:
        """The form in which the secret of this name is stored: by a data key of its own, which the first key wraps.

        What is sealed under one name opens under no other. Raises SharedKeyUnknown.
        """
        self._take_awaited()
        data_key, nonce = AESGCM.generate_key(256), os.urandom(_NONCE_BYTES)
        sealed = nonce + AESGCM(data_key).encrypt(nonce, secret.reveal().encode(), name.encode())
        return f"{_SEALED}{self._ring.wrapping.encrypt(data_key).decode()}:{base64.b64encode(sealed).decode()}"

    def unseal(self, stored: str, name: str) -> Secret | None:
        """The secret that was sealed under this name; a text in the clear is returned as it is; None: nothing opens it.

        Raises SharedKeyUnknown for one that the key that isn't known yet may open.
        """
        if not stored.startswith(_SEALED):
            return Secret(stored)
        wrapped, _, sealed = stored.removeprefix(_SEALED).partition(":")
        data_key = self._opened(lambda ring: _open(ring.wrapping, wrapped))
        if data_key is None:
            return None
        try:
            octets = base64.b64decode(sealed, validate=True)
            opened = AESGCM(data_key).decrypt(octets[:_NONCE_BYTES], octets[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            return None
        return Secret(opened.decode())

    def renewed(self, stored: str) -> str | None:
        """A stored secret, encrypted or sealed, under the first key; None where it is so already, or nothing opens it.

        Of a sealed one only the data key is wrapped anew. Raises SharedKeyUnknown.
        """
        self._take_awaited()
        ring = self._ring
        if stored.startswith(_SEALED):
            wrapped, _, sealed = stored.removeprefix(_SEALED).partition(":")
            if _open(ring.first_wrapping, wrapped) is not None:
                return None
            data_key = _open(ring.wrapping, wrapped)
            return None if data_key is None else f"{_SEALED}{ring.wrapping.encrypt(data_key).decode()}:{sealed}"
        if not stored.startswith(_ENCRYPTED):
            return None
        ciphertext = stored.removeprefix(_ENCRYPTED)
        secret = None if _open(ring.first, ciphertext) is not None else ring.decrypt(ciphertext)
        return None if secret is None else self.encrypt(secret)

    def opens(self, stored: str) -> bool:
        """Whether any key opens a stored secret, encrypted or sealed; one in the clear needs none."""
        if stored.startswith(_SEALED):
            wrapped, _, _ = stored.removeprefix(_SEALED).partition(":")
            return _open(self._ring.wrapping, wrapped) is not None
        return self.decrypt(stored) is not None

    @property
    def count(self) -> int:
        """How many secret keys there are; the first one signs and encrypts."""
        return len(self._ring.secret_keys)

    def _opened(self, open_with: Callable[[_Ring], _Opened | None]) -> _Opened | None:
        """What a ring opens; where this one does not, the keys are looked up again, for they may have been rotated."""
        opened = open_with(self._ring)
        if opened is None and self._awaited is not None:
            self._take_awaited()
            opened = open_with(self._ring)
        if opened is None and self._clock() >= self._look_at and self.look_again():
            opened = open_with(self._ring)
        return opened

    def look_again(self) -> bool:
        """Look the keys up at their source, for they may have been rotated; whether there are others now."""
        self._look_at = self._clock() + _LOOK_EVERY_S
        if self._source is None:
            return False
        try:
            secret_keys = self._source()
        except StoreUnavailable as error:
            log.warning("the secret keys can't be looked up again: %s", error.reason)
            return False
        if tuple(secret_keys) == self._ring.secret_keys:
            return False
        self._ring = _Ring(secret_keys)
        log.info("the secret keys were rotated: there are %d now", len(secret_keys))
        return True

    def _take_awaited(self) -> None:
        """Use the keys that were waited for, if they can be had now. Raises SharedKeyUnknown."""
        if self._awaited is None:
            return
        try:
            self._ring = _Ring(self._awaited())
        except StoreUnavailable as error:
            raise SharedKeyUnknown(error.reason) from error
        self._awaited = None
        log.info("the shared secret key is known now")

    def mac(self, purpose: str, text: str) -> str:
        """A keyed hash (HMAC-SHA-256, hexadecimal) of a text that is too short to be kept as a plain hash.

        Raises SharedKeyUnknown.
        """
        self._take_awaited()
        return _mac(self._ring.macs[0], purpose, text)

    def is_mac(self, mac: str, purpose: str, text: str) -> bool:
        """Whether this is the ``mac`` of the text by any of the keys. Raises SharedKeyUnknown."""

        def matches(ring: _Ring) -> bool | None:
            return any(hmac.compare_digest(mac, _mac(key, purpose, text)) for key in ring.macs) or None

        self._take_awaited()
        return self._opened(matches) is not None

    def audit_key(self) -> tuple[str, bytes]:
        """The key that signs audit events now, and the id under which it is found again.

        While the shared secret key isn't known it is the home's own, which stays among the keys: no act waits for that.
        """
        return next(iter(self._ring.audit.items()))

    def audit_keys(self) -> Mapping[str, bytes]:
        """Every key that audit events may have been signed with, by id, the newest first. Raises SharedKeyUnknown."""
        self._take_awaited()
        return self._ring.audit

    def open_password(self, value: str) -> bytes:
        """What is hashed for a password as it came over the wire: base64 of its UTF-8 bytes.

        Takes RAGFlow's form (base64 of RSA PKCS#1 v1.5 of base64) or plain text of at most 128 code points.
        Raises Undecryptable for anything else.
        """
        if is_plain_form(value):
            return encode_for_hash(value)
        ciphertext = ciphertext_of(value)
        if ciphertext is None:
            raise Undecryptable
        try:
            opened = self._password_key.decrypt(ciphertext, padding.PKCS1v15())
        except ValueError as error:
            raise Undecryptable from error
        if decode_from_hash_form(opened) is None:
            raise Undecryptable
        return opened

    @property
    def public_pem(self) -> str:
        """The public half of the password pair, as PEM."""
        return (
            self._password_key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )


def load_keys(settings: Settings, cache: Cache | None = None, *, sign_alone: bool = True) -> Keys:
    """The configured keys; else the one that all programs on a shared cache store have; else that of the home.

    The home's is made at first use, and offered to the cache store if there is none there. Raises SettingsError with
    one sentence. A cache store that is down is no error: see Keys.
    """
    if settings.secret_keys:
        return Keys(settings.secret_keys, _password_key(settings))
    path = settings.home / OWN
    own = own_secrets(path)
    if cache is None:
        return Keys(own, _password_key(settings), source=lambda: own_secrets(path))
    known = _remembered(settings.home / _REMEMBERED)

    def agreed() -> Sequence[Secret]:
        return _agreed(cache, settings.home / _REMEMBERED, own_secrets(path))

    try:
        return Keys(agreed(), _password_key(settings), source=agreed)
    except StoreUnavailable as error:
        if known:
            log.warning("the shared secret key can't be looked up (%s): the one known so far is used", error.reason)
            return Keys((*known, *own), _password_key(settings), source=agreed)
        without = "stored" if sign_alone else "signed and stored"
        log.warning(
            "the shared secret key is not known (%s): until it is, nothing is %s with it", error.reason, without
        )
        return Keys(own, _password_key(settings), awaited=agreed, source=agreed, sign_alone=sign_alone)


def audit_key_of(settings: Settings) -> tuple[str, bytes]:
    """``Keys.audit_key`` for a command that asks no cache store: of the newest key that this home knows."""
    path = settings.home
    known = settings.secret_keys or (*_remembered(path / _REMEMBERED), *own_secrets(path / OWN))
    return next(iter(_Ring(known[:1]).audit.items()))


def put_first(settings: Settings, cache: Cache) -> None:
    """Make a new secret key the first one, where the keys are not configured; those that there were go on reading.

    On a cache store that programs share it becomes their shared key, else the home's own. Raises StoreUnavailable.
    """
    path, remembered = settings.home / OWN, settings.home / _REMEMBERED
    own, new = own_secrets(path), Secret(secrets.token_hex(32))
    shared = cache.shared_secret([*_remembered(remembered), *own][0].reveal())
    if shared is None:
        _write_secrets(path, [new, *own])
        return
    # Remembered first: whatever comes in between, the key that others sign with is not lost.
    _write_secrets(remembered, _distinct([Secret(shared), *_remembered(remembered)]))
    cache.replace_shared_secret(shared, new.reveal())


def _distinct(secret_keys: Sequence[Secret]) -> list[Secret]:
    return [Secret(text) for text in dict.fromkeys(key.reveal() for key in secret_keys)]


def _write_secrets(path: Path, secret_keys: Sequence[Secret]) -> None:
    _replace(path, "".join(f"{key.reveal()}\n" for key in secret_keys).encode())


def _agreed(cache: Cache, path: Path, own: Sequence[Secret]) -> Sequence[Secret]:
    """The shared key first, then those that were shared before, and the home's own. Raises StoreUnavailable.

    The shared one is remembered in the home, so that this home starts without the cache store too.
    """
    before = _remembered(path)
    offer = before[0] if before else own[0]
    text = cache.shared_secret(offer.reveal())
    if text is None:
        return own
    if len(text) < MIN_SECRET_KEY_LENGTH:
        log.warning("the shared secret key has fewer than %d characters and is ignored", MIN_SECRET_KEY_LENGTH)
        return own
    keys = _distinct([Secret(text), *before])
    if before != keys:
        _write_secrets(path, keys)
    return _distinct([*keys, *own])


def _remembered(path: Path) -> list[Secret]:
    """The keys that were shared so far, the newest first."""
    try:
        return [Secret(line) for line in path.read_text().splitlines() if line]
    except FileNotFoundError:
        return []


def own_secrets(path: Path) -> tuple[Secret, ...]:
    """The home's own keys, one a line, the newest first; one is made where there is none. Raises SettingsError."""
    lines = _made_once(path, lambda: secrets.token_hex(32).encode()).decode(errors="replace").split()
    for key in lines or [""]:
        if len(key) < MIN_SECRET_KEY_LENGTH:
            raise SettingsError(f"{path}: expected at least {MIN_SECRET_KEY_LENGTH} characters, found {len(key)}.")
    return tuple(map(Secret, lines))


def _password_key(settings: Settings) -> rsa.RSAPrivateKey:
    path = settings.password_private_key
    passphrase = settings.password_private_key_passphrase
    if path is None:
        path, passphrase = settings.home / "password_key.pem", None
        pem, named = _made_once(path, _new_pair), str(path)
        remedy = "bring it back from a backup, or remove it and a new pair is made, which clients then fetch"
    else:
        named = f"RAGKEEPER_PASSWORD_PRIVATE_KEY: {path}"
        remedy = "expected is one that the passphrase (RAGKEEPER_PASSWORD_PRIVATE_KEY_PASSPHRASE) opens, if it has one"
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"RAGKEEPER_PASSWORD_PRIVATE_KEY: can't read {path}: {error.strerror}.") from error
    try:
        key = serialization.load_pem_private_key(pem, passphrase.reveal().encode() if passphrase is not None else None)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{named} holds no PEM private key that can be read; {remedy}.") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != 2048:
        raise SettingsError(f"{named} must hold an RSA key of 2048 bits, as clients use.")
    return key


def _new_pair() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """The file's content; made with mode 0600 if absent, so that one process of several that start at once wins."""
    if not path.exists():
        draft = _draft(path, make())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()


def _replace(path: Path, content: bytes) -> None:
    """Write the file with mode 0600, whole at any moment."""
    _draft(path, content).replace(path)


def _draft(path: Path, content: bytes) -> Path:
    """A file beside the one that it is to become, safe on the disk."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink()
        raise
    return draft


def _open(fernet: Fernet | MultiFernet, ciphertext: str) -> bytes | None:
    try:
        return fernet.decrypt(ciphertext.encode())
    except InvalidToken:
        return None


def _derived(key: Secret, purpose: str) -> bytes:
    """A key for one purpose, so that a signature never doubles as an encryption key."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"ragkeeper:{purpose}:{key.reveal()}".encode()).digest())


def _mac(key: bytes, purpose: str, text: str) -> str:
    return hmac.new(key, f"{purpose}\n{text}".encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def _key_id(key: bytes) -> str:
    """What tells keys apart and says nothing of them."""
    return hashlib.sha256(b"ragkeeper:key-id:" + key).hexdigest()[:16]
