"""The plane's keys: what signs sessions, what encrypts stored secrets, and the pair for passwords on the wire."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from itsdangerous import BadData, URLSafeTimedSerializer

from common.core.errors import StoreUnavailable
from common.core.passwords import ciphertext_of, decode_from_hash_form, encode_for_hash, is_plain_form
from common.secret import Secret
from common.settings import MIN_SECRET_KEY_LENGTH, Settings, SettingsError
from common.stores.cache import Cache

log = logging.getLogger(__name__)

_ENCRYPTED = "rk1:"
# The keys that were shared through the cache store, one a line, the newest first.
_REMEMBERED = "shared_secret_keys"


class Undecryptable(Exception):
    """A value in RAGFlow's encrypted form that this private key doesn't open."""


class SharedKeyUnknown(StoreUnavailable):
    """The secret key that others sign with is in the cache store, which has not been reached since the first start."""

    def __init__(self, reason: str) -> None:
        super().__init__("cache", f"the shared secret key is not known: {reason}")


class _Ring:
    """What one list of secret keys can do; the first one signs and encrypts, all of them read."""

    def __init__(self, secret_keys: Sequence[Secret]) -> None:
        self.signers = [URLSafeTimedSerializer(key.reveal()) for key in secret_keys]
        self.fernet = MultiFernet([Fernet(_derived(key, "stored-secrets")) for key in secret_keys])
        self.macs = _derived(secret_keys[0], "macs")
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
    signed with the key that there is only if ``sign_alone`` says that nobody else looks at a signature.
    """

    def __init__(
        self,
        secret_keys: Sequence[Secret],
        password_key: rsa.RSAPrivateKey,
        *,
        awaited: Callable[[], Sequence[Secret]] | None = None,
        sign_alone: bool = True,
    ) -> None:
        self._ring = _Ring(secret_keys)
        self._awaited = awaited
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
        secret = self._ring.decrypt(ciphertext)
        if secret is None and self._awaited is not None:
            self._take_awaited()
            secret = self._ring.decrypt(ciphertext)
        return secret

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
        return hmac.new(self._ring.macs, f"{purpose}\n{text}".encode("utf-8", "surrogatepass"), "sha256").hexdigest()

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
    own = _own_secret(settings.home / "secret_key")
    if cache is None:
        return Keys((own,), _password_key(settings))
    known = _remembered(settings.home / _REMEMBERED)

    def agreed() -> Sequence[Secret]:
        return _agreed(cache, settings.home / _REMEMBERED, own)

    try:
        return Keys(agreed(), _password_key(settings))
    except StoreUnavailable as error:
        if known:
            log.warning("the shared secret key can't be looked up (%s): the one known so far is used", error.reason)
            return Keys((*known, own), _password_key(settings))
        without = "stored" if sign_alone else "signed and stored"
        log.warning(
            "the shared secret key is not known (%s): until it is, nothing is %s with it", error.reason, without
        )
        return Keys((own,), _password_key(settings), awaited=agreed, sign_alone=sign_alone)


def _agreed(cache: Cache, path: Path, own: Secret) -> Sequence[Secret]:
    """The shared key first, then those that were shared before, and the home's own. Raises StoreUnavailable.

    The shared one is remembered in the home, so that this home starts without the cache store too.
    """
    before = _remembered(path)
    offer = before[0] if before else own
    text = cache.shared_secret(offer.reveal())
    if text is None:
        return (own,)
    if len(text) < MIN_SECRET_KEY_LENGTH:
        log.warning("the shared secret key has fewer than %d characters and is ignored", MIN_SECRET_KEY_LENGTH)
        return (own,)
    keys = [text, *(each.reveal() for each in before if each.reveal() != text)]
    if [each.reveal() for each in before] != keys:
        _replace(path, "".join(f"{key}\n" for key in keys).encode())
    return [Secret(key) for key in dict.fromkeys([*keys, own.reveal()])]


def _remembered(path: Path) -> list[Secret]:
    """The keys that were shared so far, the newest first."""
    try:
        return [Secret(line) for line in path.read_text().splitlines() if line]
    except FileNotFoundError:
        return []


def _own_secret(path: Path) -> Secret:
    key = _made_once(path, lambda: secrets.token_hex(32).encode()).decode(errors="replace").strip()
    if len(key) < MIN_SECRET_KEY_LENGTH:
        raise SettingsError(f"{path}: expected at least {MIN_SECRET_KEY_LENGTH} characters, found {len(key)}.")
    return Secret(key)


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


def _derived(key: Secret, purpose: str) -> bytes:
    """A key for one purpose, so that a signature never doubles as an encryption key."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"ragkeeper:{purpose}:{key.reveal()}".encode()).digest())


def _key_id(key: bytes) -> str:
    """What tells keys apart and says nothing of them."""
    return hashlib.sha256(b"ragkeeper:key-id:" + key).hexdigest()[:16]
