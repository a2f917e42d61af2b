"""The installed command against real servers."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.people import new_password
from tests.servers import COMMAND, Live, environment_for, running


@dataclass
class Shell:
    """The command, with a profile of its own."""

    live: Live
    folder: Path
    password: str

    def run(self, *arguments: str, given: str = "", status: int = 0) -> str:
        """Run the command; ``given`` is its standard input. Returns what it printed."""
        environment = environment_for(self.live.home, XDG_CONFIG_HOME=str(self.folder), COLUMNS="200")
        done = subprocess.run(
            [str(COMMAND), *arguments], env=environment, input=given, capture_output=True, text=True, timeout=60
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def log_in(self) -> str:
        arguments = ("--email", "admin@ragflow.io", "--password-stdin", "--api-url", self.live.api_url)
        return self.run("login", self.live.admin_url, *arguments, given=f"{self.password}\n")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, str]]:
    password = new_password()
    with running(tmp_path_factory.mktemp("cli") / "home", RAGKEEPER_ADMIN_PASSWORD=password) as live:
        yield live, password


@pytest.fixture
def shell(served: tuple[Live, str], tmp_path: Path) -> Shell:
    made = Shell(served[0], tmp_path, served[1])
    made.log_in()
    return made


@pytest.fixture
def email(shell: Shell) -> str:
    address = f"{uuid4().hex[:10]}@ragkeeper.test"
    shell.run("user", "create", address, "--password-stdin", given=f"{new_password()}\n")
    return address


def test_the_profile_is_readable_by_its_owner_only(shell: Shell) -> None:
    path = shell.folder / "ragkeeper" / "profile.json"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert shell.password not in path.read_text()


def test_without_a_login_the_command_says_how_to(served: tuple[Live, str], tmp_path: Path) -> None:
    assert "ragkeeper login" in Shell(served[0], tmp_path, "").run("user", "list", status=1)


def test_a_wrong_password_and_a_dead_server_are_sentences(shell: Shell) -> None:
    wrong = Shell(shell.live, shell.folder, "not the password")
    arguments = ("login", shell.live.admin_url, "--email", "admin@ragflow.io", "--password-stdin")
    assert "do not match" in wrong.run(*arguments, given="not the password\n", status=1)
    dead = shell.run("login", "http://127.0.0.1:9", "--email", "a@b.co", "--password-stdin", given="x\n", status=1)
    assert "can't be reached" in dead


def test_accounts_from_creation_to_deletion(shell: Shell, email: str) -> None:
    assert email in shell.run("user", "list", "--q", email[:6])
    assert json.loads(shell.run("user", "show", email, "--json"))["is_active"] == "1"
    assert "still active" in shell.run("user", "delete", email, "--yes", status=1)
    shell.run("user", "deactivate", email)
    assert "Nothing was deleted" in shell.run("user", "delete", email, "--dry-run")
    shell.run("user", "delete", email, "--yes")
    assert "not found" in shell.run("user", "show", email, status=1)


def test_roles_from_creation_to_what_they_allow(shell: Shell, email: str) -> None:
    name = f"role-{uuid4().hex[:8]}"
    shell.run("role", "create", name, "--parent", "viewer")
    shell.run("role", "grant", name, "dataset", "read", "write")
    shell.run("role", "revoke", name, "dataset", "write")
    shell.run("role", "assign", email, name)
    rows = json.loads(shell.run("role", "permissions", email, "--json"))
    assert {"resource": "dataset", "action": "read", "source": name} in rows
    assert {"resource": "user", "action": "read", "source": "viewer"} in rows
    assert {"dataset:write"}.isdisjoint(f"{row['resource']}:{row['action']}" for row in rows)
    assert email in shell.run("role", "delete", name, status=1)


def test_tokens_are_shown_once(shell: Shell, email: str) -> None:
    made = json.loads(shell.run("token", "create", email, "--name", "a program", "--json"))
    listed = shell.run("token", "list", email, "--json")
    assert made["token"] not in listed
    assert made["id"] in listed
    shell.run("token", "delete", email, made["id"])
    assert json.loads(shell.run("token", "list", email, "--json")) == []


def test_tenants_and_services_are_listed(shell: Shell, email: str) -> None:
    tenants = json.loads(shell.run("tenant", "list", "--json", "--limit", "500"))["tenants"]
    assert email in {tenant["owner_email"] for tenant in tenants}
    services = json.loads(shell.run("service", "list", "--json"))
    assert [service["status"] for service in services] == ["alive"] * 6
    assert "alive" in shell.run("service", "show", "1")
    assert "yes" in shell.run("health")


def test_settings_are_shown_masked_with_their_origin(shell: Shell) -> None:
    shown = shell.run("config", "show", "--json")

    assert "environment RAGKEEPER_HOME" in shown


def test_an_administrator_who_is_locked_out_gets_back_in(shell: Shell, email: str) -> None:
    printed = shell.run("recover-admin", email)

    assert "Generated password" in printed
    assert json.loads(shell.run("user", "show", email, "--json"))["is_superuser"] is True


def test_every_command_explains_itself(shell: Shell) -> None:
    for arguments in ((), ("serve",), ("user",), ("user", "create"), ("role",), ("token",), ("tenant",), ("login",)):
        assert "Usage" in shell.run(*arguments, "--help")
