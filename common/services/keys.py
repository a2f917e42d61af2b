"""The plane's keys: what signs sessions, what encrypts stored secrets, and the pair for passwords on the wire."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from itsdangerous import BadData, URLSafeTimedSerializer

from common.core.passwords import ciphertext_of, decode_from_hash_form, encode_for_hash, is_plain_form
from common.secret import Secret
from common.settings import MIN_SECRET_KEY_LENGTH, Settings, SettingsError

_ENCRYPTED = "rk1:"


class Undecryptable(Exception):
    """A value in RAGFlow's encrypted form that this private key doesn't open."""


class Keys:
    """Signs and recognises session values, encrypts what is stored, opens passwords in RAGFlow's form."""

    def __init__(self, secret_keys: Sequence[Secret], password_key: rsa.RSAPrivateKey) -> None:
        self._signers = [URLSafeTimedSerializer(key.reveal()) for key in secret_keys]
        self._fernet = MultiFernet([Fernet(_derived(key, "stored-secrets")) for key in secret_keys])
        self._macs = _derived(secret_keys[0], "macs")
        self._password_key = password_key

    def sign(self, value: str) -> str:
        """The wire form of a session value: RAGFlow's signature with the first key."""
        signed = self._signers[0].dumps(value)
        return signed if isinstance(signed, str) else signed.decode()

    def unsign(self, wire: str) -> str | None:
        """The value of a wire form that any of the keys signed, or None. Like RAGFlow it looks at no age."""
        for signer in self._signers:
            try:
                value = signer.loads(wire)
            except BadData:
                continue
            return value if isinstance(value, str) else None
        return None

    def encrypt(self, secret: Secret) -> str:
        """The form in which a secret is stored."""
        return _ENCRYPTED + self._fernet.encrypt(secret.reveal().encode()).decode()

    def decrypt(self, stored: str) -> Secret | None:
        """A stored secret; one that RAGFlow wrote in the clear is returned as it is; None when no key opens it."""
        if not stored.startswith(_ENCRYPTED):
            return Secret(stored)
        try:
            return Secret(self._fernet.decrypt(stored.removeprefix(_ENCRYPTED).encode()).decode())
        except InvalidToken:
            return None

    def mac(self, purpose: str, text: str) -> str:
        """A keyed hash (HMAC-SHA-256, hexadecimal) of a text that is too short to be kept as a plain hash."""
        return hmac.new(self._macs, f"{purpose}\n{text}".encode("utf-8", "surrogatepass"), "sha256").hexdigest()

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


def load_keys(settings: Settings) -> Keys:
    """The configured keys, or those of the home, made at first use. Raises SettingsError with one sentence."""
    configured = settings.secret_keys or (_own_secret(settings.home / "secret_key"),)
    return Keys(configured, _password_key(settings))


def _own_secret(path: Path) -> Secret:
    key = _made_once(path, lambda: secrets.token_hex(32).encode()).decode(errors="replace").strip()
    if len(key) < MIN_SECRET_KEY_LENGTH:
        raise SettingsError(f"{path}: expected at least {MIN_SECRET_KEY_LENGTH} characters, found {len(key)}.")
    return Secret(key)


def _password_key(settings: Settings) -> rsa.RSAPrivateKey:
    path = settings.password_private_key
    passphrase = settings.password_private_key_passphrase
    if path is None:
        pem, passphrase = _made_once(settings.home / "password_key.pem", _new_pair), None
        path = settings.home / "password_key.pem"
    else:
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"RAGKEEPER_PASSWORD_PRIVATE_KEY: can't read {path}: {error.strerror}.") from error
    try:
        key = serialization.load_pem_private_key(pem, passphrase.reveal().encode() if passphrase is not None else None)
    except (ValueError, TypeError) as error:
        raise SettingsError(
            f"RAGKEEPER_PASSWORD_PRIVATE_KEY: {path} is not a PEM private key that the given passphrase "
            "(RAGKEEPER_PASSWORD_PRIVATE_KEY_PASSPHRASE) opens."
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != 2048:
        raise SettingsError(
            f"RAGKEEPER_PASSWORD_PRIVATE_KEY: {path} must hold an RSA key of 2048 bits, as clients use."
        )
    return key


def _new_pair() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """The file's content; made with mode 0600 if absent, so that one process of several that start at once wins."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
        finally:
            draft.unlink()
    return path.read_bytes()


def _derived(key: Secret, purpose: str) -> bytes:
    """A key for one purpose, so that a signature never doubles as an encryption key."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"ragkeeper:{purpose}:{key.reveal()}".encode()).digest())
