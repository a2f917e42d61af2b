"""The published ragflow-cli 0.22.1, unmodified but for the public key it is handed, through every command.

The client exits with 0 whatever happens and echoes what it was asked, so each command is judged by the state it left.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from common.core.passwords import encode_for_hash
from common.models.content import Knowledgebase, UserCanvas
from common.services import accounts, opening, passwords
from common.services.plane import Plane
from common.settings import Settings
from tests.people import new_password
from tests.servers import running

CLIENT = Path(__file__).parents[2] / ".venv-contract" / "bin" / "ragflow-cli"
SITE = Path(__file__).parent / "client"


@dataclass
class Client:
    """The published client, and the plane whose state it changes."""

    port: int
    password: str
    key_file: Path
    plane: Plane

    def run(self, command: str) -> str:
        """Run one command and return what the client printed."""
        done = subprocess.run(
            [str(CLIENT), "-h", "127.0.0.1", "-p", str(self.port), "-w", self.password, command],
            env={**os.environ, "PYTHONPATH": str(SITE), "PUBLIC_KEY_FILE": str(self.key_file)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "Authentication successful." in done.stdout, done.stdout + done.stderr
        return done.stdout

    def one(self, sql: str, *params: object) -> tuple[object, ...] | None:
        """A row of the database behind the server."""
        return self.plane.database.one(sql, params)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The client with a server of its own; a given password need not be changed."""
    home = tmp_path_factory.mktemp("contract") / "home"
    password = new_password()
    with running(home, RAGKEEPER_ADMIN_PASSWORD=password) as live:
        plane = opening.open_plane(Settings(home=home))
        key_file = home.parent / "public.pem"
        key_file.write_text(plane.keys.public_pem)
        yield Client(live.admin_port, password, key_file, plane)
        plane.database.close()
        plane.cache.close()
        plane.documents.close()


@pytest.fixture
def email(client: Client) -> str:
    """The address of an account that is there."""
    address = f"{uuid4().hex[:10]}@ragkeeper.test"
    with client.plane.database.transaction():
        accounts.make(client.plane, email=address, nickname="Someone", password_hash=None)
    return address


@pytest.fixture
def role(client: Client) -> str:
    """The name of a role that is there."""
    name = f"role-{uuid4().hex[:10]}"
    client.run(f"create role {name} description 'made for a test';")
    return name


def grants(client: Client, role: str) -> set[tuple[str, str]]:
    rows = client.plane.database.all(
        "SELECT g.resource, g.action FROM rk_role_grant g JOIN rk_role r ON r.id = g.role_id WHERE r.name = ?", (role,)
    )
    return {(resource, action) for resource, action in rows}


def test_list_services(client: Client) -> None:
    printed = client.run("list services;")

    for service_type in ("ragflow_server", "meta_data", "file_store", "retrieval", "message_queue", "task_executor"):
        assert service_type in printed


@pytest.mark.parametrize("number", range(6))
def test_show_service(client: Client, number: int) -> None:
    printed = client.run(f"show service {number};")

    assert "is alive" in printed
    assert "Fail" not in printed


@pytest.mark.parametrize("verb", ["startup", "shutdown", "restart"])
def test_R8_the_client_only_prints_for_service_control(client: Client, verb: str) -> None:
    printed = client.run(f"{verb} service 1;")

    assert f"{verb.capitalize()} service 1" in printed


def test_list_users(client: Client, email: str) -> None:
    assert email in client.run("list users;")


def test_show_user(client: Client, email: str) -> None:
    printed = client.run(f"show user '{email}';")

    assert email in printed
    assert "login_channel" in printed


def test_create_user(client: Client) -> None:
    address, password = f"{uuid4().hex[:10]}@ragkeeper.test", new_password()

    client.run(f"create user '{address}' '{password}';")

    account = accounts.get(client.plane, address)
    assert not account.is_superuser
    assert passwords.matches(client.plane, account.password, password)
    assert client.one("SELECT role FROM user_tenant WHERE user_id = ?", account.id) == ("owner",)


def test_alter_user_password(client: Client, email: str) -> None:
    password = new_password()

    client.run(f"alter user password '{email}' '{password}';")

    assert passwords.matches(client.plane, accounts.get(client.plane, email).password, password)


def test_alter_user_active_off_and_on(client: Client, email: str) -> None:
    client.run(f"alter user active '{email}' off;")
    assert not accounts.get(client.plane, email).is_active

    client.run(f"alter user active '{email}' on;")
    assert accounts.get(client.plane, email).is_active


def test_drop_user_only_when_switched_off(client: Client, email: str) -> None:
    assert "Fail to drop user" in client.run(f"drop user '{email}';")
    assert accounts.find(client.plane, email) is not None

    client.run(f"alter user active '{email}' off;")
    client.run(f"drop user '{email}';")

    assert accounts.find(client.plane, email) is None


def test_list_datasets_and_agents(client: Client, email: str) -> None:
    owner = accounts.get(client.plane, email).id
    name = uuid4().hex
    client.plane.database.insert(
        Knowledgebase, id=name, tenant_id=owner, name=f"set-{name}", embd_id="", created_by=owner
    )
    client.plane.database.insert(UserCanvas, id=name, user_id=owner, title=f"agent-{name}")

    assert f"set-{name}" in client.run(f"list datasets of '{email}';")
    assert f"agent-{name}" in client.run(f"list agents of '{email}';")


def test_create_role_with_description(client: Client, role: str) -> None:
    assert client.one("SELECT description FROM rk_role WHERE name = ?", role) == ("made for a test",)


def test_alter_role(client: Client, role: str) -> None:
    client.run(f"alter role {role} set description 'another text';")

    assert client.one("SELECT description FROM rk_role WHERE name = ?", role) == ("another text",)


def test_list_roles(client: Client, role: str) -> None:
    assert role in client.run("list roles;")


def test_grant_show_and_revoke(client: Client, role: str) -> None:
    client.run(f"grant read,write on dataset to role {role};")
    assert grants(client, role) == {("dataset", "read"), ("dataset", "write")}

    shown = client.run(f"show role {role};")
    assert "dataset" in shown
    assert "write" in shown

    client.run(f"revoke write on dataset from role {role};")
    assert grants(client, role) == {("dataset", "read")}


def test_granting_what_is_not_registered_changes_nothing(client: Client, role: str) -> None:
    assert "Fail to grant" in client.run(f"grant fly on dataset to role {role};")
    assert grants(client, role) == set()


def test_set_role_of_user_and_show_permission(client: Client, role: str, email: str) -> None:
    client.run(f"grant share on chat to role {role};")

    client.run(f"alter user '{email}' set role {role};")

    account = accounts.get(client.plane, email)
    assert client.one(
        "SELECT r.name FROM rk_user_role h JOIN rk_role r ON r.id = h.role_id WHERE h.user_id = ?", account.id
    ) == (role,)
    shown = client.run(f"show user permission '{email}';")
    assert "chat" in shown
    assert "share" in shown


def test_drop_role(client: Client, role: str) -> None:
    client.run(f"drop role {role};")

    assert client.one("SELECT 1 FROM rk_role WHERE name = ?", role) is None


def test_show_version(client: Client) -> None:
    assert "v0." in client.run("show version;")


def test_the_password_that_ragflow_begins_with_is_changed_with_the_client_itself(client: Client) -> None:
    plane, administrator = client.plane, "admin@ragflow.io"
    plane.database.run(
        "UPDATE user SET password = ? WHERE email = ?",
        (passwords.hash_opened(plane, encode_for_hash("admin")), administrator),
    )
    beginner = replace(client, password="admin")
    assert "Change your password first" in beginner.run("list users;")

    beginner.run(f"alter user password '{administrator}' '{client.password}';")

    assert administrator in client.run("list users;")


def test_a_wrong_password_is_refused(client: Client) -> None:
    refused = Client(client.port, "not the password", client.key_file, client.plane)

    with pytest.raises(AssertionError, match="password is wrong"):
        refused.run("list users;")
