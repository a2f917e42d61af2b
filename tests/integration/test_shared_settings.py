"""RAGFlow's own table of settings, which it has had since 0.24: what one program sets there, the other sees."""

from __future__ import annotations

from typing import Any

import pytest

from common.secret import Secret
from common.services import mail
from common.services.variables import Variables
from tests.people import START_MS
from tests.ragflow.fixtures import SharedWorld

SEEDS = {
    "enable_whitelist": ("bool", "true"),
    "default_role": ("string", ""),
    "mail.server": ("string", ""),
    "mail.port": ("integer", ""),
    "mail.username": ("string", ""),
    "mail.password": ("string", ""),
    "mail.default_sender": ("string", ""),
    "mail.use_ssl": ("bool", "false"),
    "mail.use_tls": ("bool", "false"),
    "mail.timeout": ("integer", "10"),
    "sandbox.provider_type": ("string", "self_managed"),
}


def has_table(shared: SharedWorld) -> bool:
    return "system_settings" in shared.ragflow.database.tables()


@pytest.fixture(autouse=True)
def seeded(shared: SharedWorld) -> None:
    """What RAGFlow fills in at its start."""
    fill_in(shared, create_time=START_MS - 1000, update_time=START_MS - 1000)


def fill_in(shared: SharedWorld, **times: int) -> None:
    if not has_table(shared):
        return
    for name, (data_type, value) in SEEDS.items():
        shared.ragflow.database.insert(
            "system_settings", name=name, source="variable", data_type=data_type, value=value, **times
        )


def there(shared: SharedWorld, name: str) -> Any:
    row = shared.ragflow.database.one("SELECT value FROM system_settings WHERE name = ?", (name,))
    return row[0] if row else None


def set_there(shared: SharedWorld, name: str, value: str) -> None:
    """As RAGFlow's admin server does."""
    shared.ragflow.database.all(
        "UPDATE system_settings SET value = ?, update_time = ? WHERE name = ?",
        (value, shared.plane.now_ms() + 5, name),
    )


def here(shared: SharedWorld, name: str) -> Any:
    [row] = shared.known("root").administer("GET", f"/variables?var_name={name}").json["data"]  # type: ignore[index]
    return row["value"]


def set_here(shared: SharedWorld, **values: Any) -> None:
    settings = {name.replace("mail_", "mail.", 1): value for name, value in values.items()}
    answer = shared.known("root").administer("PATCH", "/settings", {"settings": settings})
    assert answer.status_code == 200, answer.json


def test_what_ragflow_filled_in_by_itself_says_nothing(shared: SharedWorld) -> None:
    listed = shared.known("root").administer("GET", "/settings").json["data"]["settings"]  # type: ignore[index]

    assert [each["name"] for each in listed if each["value"] != each["default"]] == []
    assert here(shared, "enable_whitelist") == "false"


def test_what_is_set_here_is_so_there(shared: SharedWorld) -> None:
    set_here(shared, enable_whitelist=True, mail_server="mail.test", mail_port=2525, mail_use_tls=True)

    assert here(shared, "mail.server") == "mail.test"
    assert here(shared, "enable_whitelist") == "true"
    if has_table(shared):
        told = {name: there(shared, name) for name in ("enable_whitelist", "mail.server", "mail.port", "mail.use_tls")}
        assert told == {
            "enable_whitelist": "true", "mail.server": "mail.test", "mail.port": "2525", "mail.use_tls": "true",
        }  # fmt: skip


def test_what_was_set_here_outlives_what_a_ragflow_fills_in_when_it_is_brought_up_to_date(shared: SharedWorld) -> None:
    if has_table(shared):
        shared.ragflow.database.all("DELETE FROM system_settings")
    chosen = {"mail.server": "mail.test", "mail.timeout": "20", "mail.use_tls": "true", "default_role": "viewer"}
    set_here(shared, **{name.replace(".", "_", 1): value for name, value in chosen.items()})
    if has_table(shared):
        shared.ragflow.database.all("DELETE FROM system_settings")

    fill_in(shared)
    shared.plane.variables.forget()

    assert {name: here(shared, name) for name in chosen} == chosen
    if has_table(shared):
        set_there(shared, "mail.server", "")
        assert here(shared, "mail.server") == ""


def test_what_goes_back_to_its_default_here_does_there(shared: SharedWorld) -> None:
    set_here(shared, mail_server="mail.test", mail_timeout=20)
    set_here(shared, mail_server=None, mail_timeout=None)

    assert (here(shared, "mail.server"), here(shared, "mail.timeout")) == ("", "10")
    if has_table(shared):
        assert (there(shared, "mail.server"), there(shared, "mail.timeout")) == ("", "10")


def test_what_is_set_there_is_so_here_within_a_second_also_where_nobody_signs_in(shared: SharedWorld) -> None:
    if not has_table(shared):
        assert not shared.plane.variables._ragflow.present()
        return
    now = [100.0]
    variables = Variables(shared.plane.database, lambda: now[0], ragflow=shared.plane.variables._ragflow)
    assert variables.text("mail.server") == ""

    set_there(shared, "mail.server", "there.test")
    set_there(shared, "enable_whitelist", "true")
    now[0] += 1.0

    assert variables.text("mail.server") == "there.test"
    assert variables.flag("enable_whitelist")
    assert here(shared, "mail.server") == "there.test"


def test_the_traffic_of_those_who_sign_in_does_not_put_that_off(shared: SharedWorld) -> None:
    if not has_table(shared):
        assert here(shared, "mail.server") == ""
        return
    now = [100.0]
    variables = Variables(shared.plane.database, lambda: now[0], ragflow=shared.plane.variables._ragflow)
    row = shared.plane.database.one("SELECT value FROM rk_state WHERE name = 'variables_version'")
    assert row
    variables.follow(row[0])
    assert variables.text("mail.server") == ""
    set_there(shared, "mail.server", "there.test")

    for _ in range(3):
        now[0] += 0.4
        variables.follow(row[0])

    assert variables.text("mail.server") == "there.test"


def test_a_secret_does_not_stand_there_and_one_that_is_set_there_counts(shared: SharedWorld) -> None:
    set_here(shared, mail_server="mail.test", mail_password="set here")
    assert shared.plane.variables.secret("mail.password") == Secret("set here")
    if not has_table(shared):
        return
    assert there(shared, "mail.password") == ""

    set_there(shared, "mail.password", "set there")
    shared.plane.variables.forget()

    assert shared.plane.variables.secret("mail.password") == Secret("set there")
    server = mail.server_of(shared.plane)
    assert server is not None
    assert server.mail_password == Secret("set there")
    assert here(shared, "mail.password") == "***"
    set_here(shared, mail_password="set here again")
    shared.plane.variables.forget()
    assert shared.plane.variables.secret("mail.password") == Secret("set here again")
    assert there(shared, "mail.password") == ""


def test_what_is_no_value_of_ours_there_does_not_count(shared: SharedWorld) -> None:
    if not has_table(shared):
        assert here(shared, "mail.timeout") == "10"
        return
    set_there(shared, "mail.timeout", "99999")
    set_there(shared, "default_role", "no such role")
    shared.plane.variables.forget()

    assert shared.plane.variables.integer("mail.timeout") == 10
    assert shared.known("root").administer("GET", "/settings").status_code == 200
    person = shared.person()
    assert person.ask("GET", "/v1/user/info").status_code == 200


def test_a_row_that_ragflow_lacks_is_made(shared: SharedWorld) -> None:
    if not has_table(shared):
        assert here(shared, "mail.timeout") == "10"
        return
    shared.ragflow.database.all("DELETE FROM system_settings WHERE name = 'enable_whitelist'")

    set_here(shared, enable_whitelist=True)

    row = shared.ragflow.database.one("SELECT source, data_type, value FROM system_settings WHERE name = ?",
                                      ("enable_whitelist",))  # fmt: skip
    assert row == ("admin", "bool", "true")
    assert here(shared, "enable_whitelist") == "true"
    assert there(shared, "sandbox.provider_type") == "self_managed"
