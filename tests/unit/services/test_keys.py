"""The plane's keys."""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from common.core.errors import StoreUnavailable
from common.secret import Secret
from common.services.keys import Keys, Undecryptable, load_keys, put_first
from common.settings import Settings, SettingsError
from common.stores.cache import SqliteCache


def encrypted(keys: Keys, plain: bytes, *, twice: bool = True) -> str:
    public = serialization.load_pem_public_key(keys.public_pem.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    inner = base64.b64encode(plain) if twice else plain
    return base64.b64encode(public.encrypt(inner, padding.PKCS1v15())).decode()


def write_pair(path: Path, passphrase: bytes | None, bits: int = 2048) -> None:
    protection = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    path.write_bytes(
        rsa.generate_private_key(public_exponent=65537, key_size=bits).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, protection
        )
    )


def test_a_home_makes_its_keys_once_and_closes_them_to_others(tmp_path: Path) -> None:
    first, second = load_keys(Settings(home=tmp_path)), load_keys(Settings(home=tmp_path))

    assert first.public_pem == second.public_pem
    assert second.unsign(first.sign("a value")) == "a value"
    for name in ("secret_key", "password_key.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert len((tmp_path / "secret_key").read_text()) == 64
    assert len(list(tmp_path.iterdir())) == 2, "no draft is left"


def test_both_forms_of_a_password_open_to_the_same(tmp_path: Path) -> None:
    keys = load_keys(Settings(home=tmp_path))
    wire = encrypted(keys, "pässword of mine".encode())
    broken_lines = "\n".join(wire[index : index + 64] for index in range(0, len(wire), 64))

    assert keys.open_password(wire) == keys.open_password("pässword of mine") == keys.open_password(broken_lines)


def test_what_does_not_decrypt_is_undecryptable_and_nothing_else(tmp_path: Path) -> None:
    keys = load_keys(Settings(home=tmp_path))
    foreign = Keys([Secret("x" * 32)], rsa.generate_private_key(public_exponent=65537, key_size=2048))

    for value in (
        "x" * 129,
        "A" * 342 + "==",
        encrypted(foreign, b"for another server"),
        encrypted(keys, b"not base64 inside!", twice=False),
        encrypted(keys, b"\xff\xfe"),
    ):
        with pytest.raises(Undecryptable):
            keys.open_password(value)


def test_an_operators_pair_is_opened_with_its_passphrase(tmp_path: Path) -> None:
    pem = tmp_path / "private.pem"
    write_pair(pem, b"open it")

    settings = Settings(home=tmp_path, password_private_key=pem, password_private_key_passphrase=Secret("open it"))
    assert load_keys(settings).public_pem.startswith("-----BEGIN PUBLIC KEY-----")

    with pytest.raises(SettingsError, match="RAGKEEPER_PASSWORD_PRIVATE_KEY"):
        load_keys(Settings(home=tmp_path, password_private_key=pem, password_private_key_passphrase=Secret("no")))
    with pytest.raises(SettingsError, match="RAGKEEPER_PASSWORD_PRIVATE_KEY"):
        load_keys(Settings(home=tmp_path, password_private_key=pem))


def test_a_missing_or_unfit_pair_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't read"):
        load_keys(Settings(home=tmp_path, password_private_key=tmp_path / "nothing.pem"))
    write_pair(tmp_path / "long.pem", None, 3072)
    with pytest.raises(SettingsError, match="2048"):
        load_keys(Settings(home=tmp_path, password_private_key=tmp_path / "long.pem"))


@pytest.mark.parametrize("content", [b"", b"no PEM"])
def test_a_pair_of_the_home_that_is_broken_is_named_by_its_file_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password_key.pem").write_bytes(content)

    with pytest.raises(SettingsError, match=f"^{tmp_path}/password_key.pem holds no PEM private key"):
        load_keys(Settings(home=tmp_path))


def test_rotated_keys_still_read_what_the_old_one_wrote(tmp_path: Path) -> None:
    pair = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    old, new = Secret("o" * 40), Secret("n" * 40)
    before, after = Keys([old], pair), Keys([new, old], pair)

    assert after.unsign(before.sign("value")) == "value"
    opened = after.decrypt(before.encrypt(Secret("sk-lf-1")))
    assert opened is not None
    assert opened.reveal() == "sk-lf-1"
    assert before.unsign(after.sign("value")) is None
    assert before.decrypt(after.encrypt(Secret("sk-lf-1"))) is None


def test_a_stored_secret_is_not_readable_and_a_plain_one_of_ragflow_is(tmp_path: Path) -> None:
    keys = load_keys(Settings(home=tmp_path))

    assert "sk-lf-secret" not in keys.encrypt(Secret("sk-lf-secret"))
    plain = keys.decrypt("sk-lf-written-by-ragflow")
    assert plain is not None
    assert plain.reveal() == "sk-lf-written-by-ragflow"


class Shared:
    """A cache store that programs share, up or down as a test has it."""

    def __init__(self) -> None:
        self.held: str | None = None
        self.down = False
        self.asked = 0

    def shared_secret(self, offer: str) -> str | None:
        self.asked += 1
        if self.down:
            raise StoreUnavailable("cache", "no answer in time")
        self.held = self.held or offer
        return self.held

    def replace_shared_secret(self, old: str, new: str) -> bool:
        if self.held != old:
            return False
        self.held = new
        return True


class NotShared(SqliteCache):
    """The cache store of one home."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), clock=lambda: 0)


@pytest.fixture
def shared() -> Any:
    return Shared()


RAGFLOWS = "f" * 64


def keys_with(secret: str) -> Keys:
    return Keys([Secret(secret)], rsa.generate_private_key(public_exponent=65537, key_size=2048))


def test_what_is_configured_wins_over_what_is_shared(tmp_path: Path, shared: Any) -> None:
    shared.held = RAGFLOWS
    keys = load_keys(Settings(home=tmp_path, secret_keys=(Secret("c" * 40),)), shared)

    assert keys_with("c" * 40).unsign(keys.sign("v")) == "v"
    assert shared.asked == 0


def test_the_shared_key_signs_and_the_homes_own_still_reads(tmp_path: Path, shared: Any) -> None:
    before = load_keys(Settings(home=tmp_path))
    stored = before.encrypt(Secret("sk-lf-1"))
    shared.held = RAGFLOWS
    keys = load_keys(Settings(home=tmp_path), shared)

    assert keys_with(RAGFLOWS).unsign(keys.sign("v")) == "v"
    assert keys.unsign(before.sign("v")) == "v"
    assert keys.decrypt(stored) == Secret("sk-lf-1")


def test_the_first_home_offers_its_own_key_and_the_next_one_takes_it(tmp_path: Path, shared: Any) -> None:
    homes = [tmp_path / "first", tmp_path / "second"]
    for home in homes:
        home.mkdir()
    first, second = (load_keys(Settings(home=home), shared) for home in homes)

    assert shared.held == (homes[0] / "secret_key").read_text()
    assert second.unsign(first.sign("v")) == "v"
    assert first.decrypt(second.encrypt(Secret("sk-lf-1"))) == Secret("sk-lf-1")


def test_a_home_that_has_known_the_shared_key_starts_without_the_cache_store(
    tmp_path: Path, shared: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shared.held = RAGFLOWS
    load_keys(Settings(home=tmp_path), shared)
    assert stat.S_IMODE((tmp_path / "shared_secret_keys").stat().st_mode) == 0o600
    shared.down = True
    keys = load_keys(Settings(home=tmp_path), shared, sign_alone=False)

    assert keys_with(RAGFLOWS).unsign(keys.sign("v")) == "v"
    assert keys.decrypt(keys.encrypt(Secret("sk-lf-1"))) == Secret("sk-lf-1")
    assert len(caplog.records) == 1
    assert RAGFLOWS not in caplog.text


def test_a_cache_store_that_was_emptied_gets_the_key_back_that_was_shared(tmp_path: Path, shared: Any) -> None:
    shared.held = RAGFLOWS
    load_keys(Settings(home=tmp_path), shared)
    shared.held = None
    load_keys(Settings(home=tmp_path), shared)

    assert shared.held == RAGFLOWS


def test_another_shared_key_signs_from_the_next_start_on_and_the_old_one_still_reads(
    tmp_path: Path, shared: Any
) -> None:
    shared.held = RAGFLOWS
    before = load_keys(Settings(home=tmp_path), shared)
    shared.held = "n" * 64
    keys = load_keys(Settings(home=tmp_path), shared)

    assert keys_with("n" * 64).unsign(keys.sign("v")) == "v"
    assert keys.unsign(before.sign("v")) == "v"
    assert (tmp_path / "shared_secret_keys").read_text() == f"{'n' * 64}\n{RAGFLOWS}\n"


def test_until_the_shared_key_is_known_nothing_is_written_that_others_could_not_read(
    tmp_path: Path, shared: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shared.down = True
    keys = load_keys(Settings(home=tmp_path), shared, sign_alone=False)

    assert len(caplog.records) == 1
    for call in (
        lambda: keys.sign("v"),
        lambda: keys.encrypt(Secret("sk-lf-1")),
        lambda: keys.unsign(keys_with(RAGFLOWS).sign("v")),
        lambda: keys.decrypt(keys_with(RAGFLOWS).encrypt(Secret("sk-lf-1"))),
    ):
        with pytest.raises(StoreUnavailable) as raised:
            call()
        assert raised.value.store == "cache"
    shared.down, shared.held = False, RAGFLOWS
    assert keys_with(RAGFLOWS).unsign(keys.sign("v")) == "v"
    assert keys_with(RAGFLOWS).decrypt(keys.encrypt(Secret("sk-lf-1"))) == Secret("sk-lf-1")
    asked = shared.asked
    keys.sign("v")
    assert shared.asked == asked, "what is known is not asked for again"


def test_where_nobody_else_looks_at_signatures_logins_go_on_without_the_shared_key(tmp_path: Path, shared: Any) -> None:
    shared.down = True
    keys = load_keys(Settings(home=tmp_path), shared)

    assert keys.unsign(keys.sign("v")) == "v"
    with pytest.raises(StoreUnavailable):
        keys.encrypt(Secret("sk-lf-1"))


def test_a_shared_key_that_is_too_weak_is_not_used(
    tmp_path: Path, shared: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shared.held = "short"
    keys = load_keys(Settings(home=tmp_path), shared)

    assert keys_with("short").unsign(keys.sign("v")) is None
    assert "fewer than 32 characters" in caplog.text


# Sealed values


def test_a_sealed_value_opens_under_its_own_name_only_and_with_a_data_key_of_its_own(tmp_path: Path) -> None:
    keys = load_keys(Settings(home=tmp_path))
    first, second = (keys.seal(Secret("a secret"), "mail.password") for _ in range(2))

    assert keys.unseal(first, "mail.password") == Secret("a secret")
    assert keys.unseal(first, "another.name") is None
    assert first != second
    wrapped, sealed = first.removeprefix("rk2:").split(":")
    swapped = f"rk2:{second.removeprefix('rk2:').split(':')[0]}:{sealed}"
    assert keys.unseal(swapped, "mail.password") is None
    assert "a secret" not in first
    assert base64.b64encode(b"a secret").decode() not in wrapped + sealed


def test_what_is_no_sealed_value_is_in_the_clear_and_what_is_broken_opens_not(tmp_path: Path) -> None:
    keys = load_keys(Settings(home=tmp_path))
    sealed = keys.seal(Secret("x"), "n")

    assert keys.unseal("written by RAGFlow", "n") == Secret("written by RAGFlow")
    for broken in ("rk2:", "rk2:::", sealed[:-4], sealed[:20], f"{sealed}=x", "rk2:é:é"):
        assert keys.unseal(broken, "n") is None


def test_under_a_new_first_key_only_the_data_key_of_a_sealed_value_changes(tmp_path: Path) -> None:
    pair = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    old, new = Secret("o" * 40), Secret("n" * 40)
    before, after, without_old = Keys([old], pair), Keys([new, old], pair), Keys([new], pair)
    sealed, encrypted_text = before.seal(Secret("x"), "name"), before.encrypt(Secret("y"))

    renewed, renewed_text = after.renewed(sealed), after.renewed(encrypted_text)

    assert renewed is not None
    assert renewed_text is not None
    assert renewed.rpartition(":")[2] == sealed.rpartition(":")[2]
    assert without_old.unseal(renewed, "name") == Secret("x")
    assert without_old.decrypt(renewed_text) == Secret("y")
    assert without_old.unseal(sealed, "name") is None
    for done in (renewed, renewed_text, "in the clear"):
        assert after.renewed(done) is None
        assert after.opens(done)
    assert without_old.renewed(sealed) is None
    assert not without_old.opens(sealed)
    assert not without_old.opens(encrypted_text)


def test_a_home_with_several_keys_signs_with_the_first_and_reads_with_all(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text(f"{'n' * 40}\n{'o' * 40}\n")
    keys = load_keys(Settings(home=tmp_path))

    assert keys.count == 2
    assert keys.unsign(keys_with("o" * 40).sign("value")) == "value"
    assert keys_with("n" * 40).unsign(keys.sign("value")) == "value"
    (tmp_path / "secret_key").write_text(f"{'n' * 40}\nshort\n")
    with pytest.raises(SettingsError, match="at least 32 characters, found 5"):
        load_keys(Settings(home=tmp_path))


def test_a_process_that_runs_finds_the_new_key_by_itself(tmp_path: Path) -> None:
    running = load_keys(Settings(home=tmp_path))
    old = running.seal(Secret("old"), "n")

    put_first(Settings(home=tmp_path), NotShared())
    rotated = load_keys(Settings(home=tmp_path))
    sealed, text = rotated.seal(Secret("new"), "n"), rotated.encrypt(Secret("text"))

    assert rotated.count == 2
    assert running.unseal(old, "n") == rotated.unseal(old, "n") == Secret("old")
    assert running.unseal(sealed, "n") == Secret("new")
    assert running.decrypt(text) == Secret("text")
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600


def test_what_no_key_opens_does_not_have_the_keys_looked_up_each_time(tmp_path: Path) -> None:
    asked: list[float] = []
    now = [100.0]

    def source() -> list[Secret]:
        asked.append(now[0])
        return [Secret("o" * 40)]

    pair = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = Keys([Secret("o" * 40)], pair, source=source, clock=lambda: now[0])
    foreign = keys_with("x" * 40).seal(Secret("x"), "n")

    for _ in range(5):
        assert keys.unseal(foreign, "n") is None
    now[0] += 1.0
    assert keys.unseal(foreign, "n") is None

    assert len(asked) == 2


def test_a_shared_key_is_replaced_where_it_is_shared_and_the_old_one_still_reads(tmp_path: Path, shared: Any) -> None:
    settings = Settings(home=tmp_path)
    running = load_keys(settings, shared)
    signed, sealed = running.sign("value"), running.seal(Secret("x"), "n")
    before = shared.held

    put_first(settings, shared)
    rotated = load_keys(settings, shared)

    assert shared.held not in (before, None)
    assert rotated.unsign(signed) == "value"
    assert rotated.unseal(sealed, "n") == Secret("x")
    assert rotated.renewed(sealed) is not None
    assert running.unseal(rotated.seal(Secret("y"), "n"), "n") == Secret("y")
