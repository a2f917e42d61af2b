"""A new secret key, and what older ones encrypted brought under it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.models.base import created
from common.models.token import TenantLangfuse
from common.secret import Secret
from common.services import audit_check, key_rotation, opening, sessions, settings
from common.services.key_rotation import KeyIsConfigured, Rotation, rotate
from common.services.keys import Keys, load_keys
from common.services.plane import Plane
from tests.people import Clock, World, settings_for
from tests.roles import SHELL


@pytest.fixture
def configured(tmp_path: Path, clock: Clock) -> Iterator[Any]:
    """Opens planes on one home with the secret keys that are given."""
    opened: list[Plane] = []

    def open_with(keys: str) -> Plane:
        opened.append(opening.open_plane(settings_for(tmp_path / "home", RAGKEEPER_SECRET_KEY=keys), now_ms=clock))
        return opened[-1]

    yield open_with
    for plane in opened:
        for store in (plane.database, plane.cache, plane.documents):
            store.close()


def store_secrets(plane: Plane) -> None:
    """A setting's secret with a past, and Langfuse credentials."""
    for password in ("first", "second"):
        settings.update_config(plane, SHELL, {"mail.password": password})
    values = {"secret_key": plane.keys.encrypt(Secret("sk-lf-1")), "public_key": "pk", "host": "h"}
    with plane.database.transaction():
        plane.database.insert(TenantLangfuse, tenant_id="t", **values, **created(plane.now_ms(), plane.zone))


def secrets_of(plane: Plane) -> dict[str, str | None]:
    """What can be read of them now."""
    rows = plane.database.all("SELECT value FROM rk_variable_change WHERE name = 'mail.password' ORDER BY id")
    langfuse = plane.database.one("SELECT secret_key FROM tenant_langfuse WHERE tenant_id = 't'")
    assert langfuse
    plane.variables.forget()
    found = {
        "now": plane.variables.secret("mail.password"),
        "langfuse": plane.keys.decrypt(langfuse[0]),
        **{f"change {index}": plane.keys.unseal(text, "mail.password") for index, (text,) in enumerate(rows)},
    }
    return {name: secret.reveal() if secret else None for name, secret in found.items()}


ALL = {"now": "second", "langfuse": "sk-lf-1", "change 0": "first", "change 1": "second"}


def without_old_keys(plane: Plane) -> Plane:
    """The plane as it is when every key but the first has been taken away."""
    keys = Keys(plane.keys._ring.secret_keys[:1], plane.keys._password_key)
    variables = type(plane.variables)(plane.database, unseal=keys.unseal)
    return replace(plane, keys=keys, variables=variables)


def test_a_rotation_brings_everything_under_a_new_key(plane: Plane) -> None:
    store_secrets(plane)

    done = rotate(plane)

    assert done == Rotation(True, 4, ())
    assert secrets_of(plane) == ALL
    assert secrets_of(without_old_keys(plane)) == ALL
    again = load_keys(plane.settings, plane.cache)
    assert again.count == plane.keys.count == 2
    assert plane.database.one("SELECT COUNT(*) FROM rk_audit_event WHERE tag = 'keys:rotate'") == (1,)


def test_sessions_that_the_old_key_signed_go_on(world: World) -> None:
    session = world.root.session

    rotate(world.plane)

    assert world.api.ask("GET", "/v1/user/info", credential=session).json["code"] == 0
    assert world.plane.keys.unsign(session) is not None


def test_one_that_broke_off_is_finished_by_the_next_without_another_key(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_secrets(plane)
    write, written = key_rotation._replace, []

    def break_off(*given: Any) -> int:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(given)
        return write(*given)

    monkeypatch.setattr(key_rotation, "_replace", break_off)
    with pytest.raises(KeyboardInterrupt):
        rotate(plane)
    monkeypatch.undo()
    assert secrets_of(plane) == ALL, "nothing is lost in between"

    assert rotate(plane) == Rotation(False, 2, ())
    assert secrets_of(without_old_keys(plane)) == ALL
    assert rotate(plane).new_key, "the next one is a rotation again"


def test_what_no_key_opens_is_named_and_left_alone(plane: Plane, world: World) -> None:
    store_secrets(plane)
    plane.database.run("UPDATE tenant_langfuse SET secret_key = 'rk1:garbage'")

    done = rotate(plane)

    assert (done.renewed, done.lost) == (3, ("tenant_langfuse t",))
    assert plane.database.one("SELECT secret_key FROM tenant_langfuse") == ("rk1:garbage",)


def test_what_has_been_entered_again_is_lost_no_more_whatever_it_was_before(plane: Plane) -> None:
    store_secrets(plane)
    plane.database.run("UPDATE rk_variable SET value = 'rk2:garbage:garbage'")
    plane.database.run("UPDATE rk_variable_change SET value = 'rk2:garbage:garbage'")
    assert rotate(plane).lost == ("rk_variable mail.password",)

    settings.update_config(plane, SHELL, {"mail.password": "third"})

    assert rotate(plane).lost == ()


@pytest.mark.parametrize("text", ["rk1:somebody", "rk2:somebody:else"])
def test_a_setting_that_only_looks_like_a_secret_is_none(plane: Plane, text: str) -> None:
    store_secrets(plane)
    settings.set_variable(plane, SHELL, "mail.username", text)

    done = rotate(plane)

    assert (done.renewed, done.lost) == (4, ())
    assert plane.database.one("SELECT value FROM rk_variable WHERE name = 'mail.username'") == (text,)


def test_a_value_that_is_set_meanwhile_is_not_overwritten(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.update_config(plane, SHELL, {"mail.password": "first"})
    write = key_rotation._replace

    def late(*given: Any) -> int:
        settings.update_config(plane, SHELL, {"mail.password": "meanwhile"})
        monkeypatch.setattr(key_rotation, "_replace", write)
        return write(*given)

    monkeypatch.setattr(key_rotation, "_replace", late)
    rotate(plane)

    plane.variables.forget()
    assert plane.variables.secret("mail.password") == Secret("meanwhile")


def test_a_key_that_is_configured_is_rotated_where_it_is_configured(configured: Any) -> None:
    old, new = "o" * 40, "n" * 40
    plane = configured(old)
    store_secrets(plane)
    with pytest.raises(KeyIsConfigured, match=r"environment RAGKEEPER_SECRET_KEY.*a comma and the key of now") as told:
        rotate(plane)
    assert old not in str(told.value)

    done = rotate(configured(f"{new},{old}"))

    assert done == Rotation(False, 4, ())
    assert secrets_of(configured(new)) == ALL


def test_a_process_that_still_signs_with_the_old_key_knows_the_sessions_of_the_new_one(world: World) -> None:
    other = opening.open_plane(world.plane.settings, now_ms=world.plane.now_ms)
    rotate(world.plane)
    session = world.root.session

    try:
        who = sessions.authenticate(other, session, "user", SHELL.origin)
        assert who.email == world.root.email
    finally:
        for store in (other.database, other.cache, other.documents):
            store.close()


def test_what_was_hashed_by_one_key_is_known_on_both_sides_of_a_rotation(world: World) -> None:
    plane, other = world.plane, load_keys(world.plane.settings, world.plane.cache)
    before = plane.keys.mac("for a test", "12345678")
    rotate(plane)
    after = plane.keys.mac("for a test", "12345678")

    assert before != after
    assert plane.keys.is_mac(before, "for a test", "12345678")
    assert other.is_mac(after, "for a test", "12345678")
    assert not other.is_mac(after, "for a test", "12345679")
    assert not other.is_mac(after, "for another", "12345678")


def test_the_audit_trail_stays_whole_over_a_rotation(plane: Plane) -> None:
    settings.update_config(plane, SHELL, {"probe.timeout": 1})
    rotate(plane)
    settings.update_config(plane, SHELL, {"probe.timeout": 2})

    verdict = audit_check.verify(plane)

    assert verdict.problem is None
    assert plane.database.one("SELECT COUNT(DISTINCT key_id) FROM rk_audit_event") == (2,)


@pytest.mark.race
def test_two_rotations_at_once_lose_no_key(plane: Plane) -> None:
    store_secrets(plane)
    together = threading.Barrier(2)

    def rotated() -> Rotation:
        other = opening.open_plane(plane.settings, now_ms=plane.now_ms)
        try:
            together.wait(20)
            return rotate(other)
        finally:
            for store in (other.database, other.cache, other.documents):
                store.close()

    with ThreadPoolExecutor(2) as pool:
        done = [each.result(30) for each in [pool.submit(rotated), pool.submit(rotated)]]

    assert [each.lost for each in done] == [(), ()]
    again = load_keys(plane.settings, plane.cache)
    assert again.count == 1 + sum(each.new_key for each in done)
    plane.keys.look_again()
    assert secrets_of(plane) == ALL
