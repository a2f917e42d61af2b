"""The installed command against real servers: each act is judged by what the servers say afterwards."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.people import new_password
from tests.servers import COMMAND, Live, environment_for, running

pytestmark = pytest.mark.slow

ROOT = "admin@ragflow.io"


@dataclass
class Operator:
    """Somebody at a shell."""

    live: Live
    config: Path
    #: The administrator's.
    password: str

    def run(
        self, *words: str, stdin: str = "", start_new_session: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A command that may fail."""
        given = {"XDG_CONFIG_HOME": str(self.config), **environment}
        return subprocess.run(
            [COMMAND, *words],
            env=environment_for(self.live.home, **given),
            cwd=self.config,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=start_new_session,
        )

    def does(self, *words: str, stdin: str = "", **environment: str) -> str:
        """What a command that has to succeed prints."""
        done = self.run(*words, stdin=stdin, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def asks(self, *words: str) -> Any:
        """The answer in the machine's form."""
        return json.loads(self.does(*words, "--json"))

    def fails(self, *words: str, stdin: str = "") -> str:
        """The sentence of a command that has to fail."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return done.stderr

    def logs_in(self, email: str, password: str, **environment: str) -> str:
        return self.does(
            *("login", self.live.admin_url, "--email", email, "--password-stdin"),
            stdin=f"{password}\n",
            **environment,
        )


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, str]]:
    """A running plane, and the password of its administrator."""
    password = new_password()
    room = tmp_path_factory.mktemp("cli")
    (room / "conf").mkdir()
    (room / "conf" / "service_conf.yaml").write_text("permissions: {report: [read]}\n")
    with running(room / "home", RAGKEEPER_ADMIN_PASSWORD=password) as started:
        yield started, password


@pytest.fixture
def at_shell(live: tuple[Live, str], tmp_path: Path) -> Operator:
    """Somebody who is not logged in."""
    return Operator(live[0], tmp_path, live[1])


@pytest.fixture
def operator(at_shell: Operator, live: tuple[Live, str]) -> Operator:
    """The administrator, logged in."""
    at_shell.logs_in(ROOT, live[1])
    return at_shell


@pytest.fixture
def make_user(operator: Operator) -> Callable[[], tuple[str, str]]:
    """Makes accounts; gives e-mail and password."""

    def make() -> tuple[str, str]:
        email, password = f"{uuid4().hex[:12]}@example.org", new_password()
        operator.does("user", "create", email, "--password-stdin", stdin=f"{password}\n")
        return email, password

    return make


def test_without_a_login_it_says_how_to_log_in(at_shell: Operator) -> None:
    assert "run `ragkeeper login" in at_shell.fails("user", "list")


def test_a_wrong_password_is_the_servers_sentence_and_leaves_no_login(at_shell: Operator) -> None:
    words = ("login", at_shell.live.admin_url, "--email", ROOT, "--password-stdin")
    assert at_shell.fails(*words, stdin="wrong\n").startswith("ragkeeper: ")
    assert not list(at_shell.config.glob("**/profiles.json"))


def test_a_login_is_used_until_logout_which_ends_it_on_the_server_too(operator: Operator) -> None:
    [stored] = operator.config.glob("**/profiles.json")
    session = json.loads(stored.read_text())["default"]["session"]
    assert stored.stat().st_mode & 0o077 == 0
    assert operator.asks("whoami")["email"] == ROOT
    operator.does("logout")
    gone = httpx.get(f"{operator.live.api_url}/v1/user/info", headers={"Authorization": session})
    assert gone.status_code == 401
    assert "not logged in" in operator.fails("whoami")


def test_profiles_keep_several_logins(operator: Operator, make_user: Callable[[], tuple[str, str]]) -> None:
    email, password = make_user()
    operator.does("user", "grant-superuser", email)
    operator.logs_in(email, password, RAGKEEPER_PROFILE="other")
    assert json.loads(operator.does("--profile", "other", "whoami", "--json"))["email"] == email
    assert operator.asks("whoami")["email"] == ROOT


def test_an_account_is_made_switched_off_and_deleted(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, _ = make_user()
    assert [row["email"] for row in operator.asks("user", "list", "--q", email[:10])["users"]] == [email]
    assert "still active" in operator.fails("user", "delete", email, "--yes").lower()
    operator.does("user", "deactivate", email)
    assert operator.asks("user", "show", email)["is_active"] == "0"
    operator.does("user", "delete", email, "--dry-run")
    assert operator.asks("user", "show", email)["email"] == email
    assert "Aborted" in operator.fails("user", "delete", email, stdin="n\n")
    operator.does("user", "delete", email, "--yes")
    assert email in operator.fails("user", "show", email)


def test_a_new_password_comes_from_standard_input_and_counts(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, old = make_user()
    chosen = new_password()
    operator.does("user", "password", email, "--password-stdin", stdin=f"{chosen}\n")
    for password, code in ((old, 109), (chosen, 0)):
        account = {"email": email, "password": password}
        answer = httpx.post(f"{operator.live.api_url}/v1/user/login", json=account, timeout=10)
        assert answer.json()["code"] == code


def test_roles_are_made_granted_assigned_and_refused_while_held(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, _ = make_user()
    name = f"r{uuid4().hex[:8]}"
    operator.does("role", "create", name, "--description", "Keeps [datasets]", "--parent", "viewer")
    operator.does("role", "grant", name, "dataset", "read", "write")
    operator.does("role", "assign", email, name)
    held = {(row["resource"], row["action"]): row["source"] for row in operator.asks("role", "permissions", email)}
    assert held["dataset", "write"] == name
    assert held["user", "read"] == "viewer"
    assert email in operator.fails("role", "delete", name)
    operator.does("role", "revoke", name, "dataset", "write")
    operator.does("role", "update", name, "--no-parents")
    shown = operator.asks("role", "show", name)
    assert {(row["resource"], row["action"]) for row in shown["held"]} == {("dataset", "read")}
    assert [holder["email"] for holder in shown["holders"]] == [email]
    assert email in operator.does("role", "show", name)
    assert "Keeps [datasets]" in operator.does("role", "list")
    operator.does("role", "assign", email, "member")
    operator.does("role", "delete", name)
    assert name not in operator.does("role", "list")
    assert "dataset" in operator.does("role", "permissions")


def test_several_roles_are_tried_given_explained_and_handed_over(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, _ = make_user()
    base, heir = f"b{uuid4().hex[:8]}", f"h{uuid4().hex[:8]}"
    for name in (base, heir):
        operator.does("role", "create", name)
    operator.does("role", "grant", base, "audit", "read")

    operator.does("role", "parents", heir, "--add", base, "--add", "viewer")
    operator.does("role", "parents", heir, "--remove", "viewer")
    assert operator.does("role", "parents", heir).split() == [base]
    assert "give either" in operator.fails("role", "parents", heir, "--add", base, "--remove", base)

    planned = operator.does("role", "add", email, heir, "service-operator", "--dry-run")
    assert (email in planned, "audit:read" in planned) == (True, True)
    assert f"{heir}, service-operator" in operator.does("role", "add", email, heir, "service-operator")
    assert email in operator.does("role", "grant", base, "audit", "export", "--dry-run")
    assert "Nobody would gain" in operator.does("role", "update", heir, "--description", "x", "--dry-run")

    explained = operator.does("permission", "explain", email, "audit", "read")
    assert f"{heir} → {base}" in explained
    denied = operator.run("permission", "explain", email, "audit", "export")
    assert (denied.returncode, "may not export audit" in denied.stdout) == (1, True)
    for words in ((f"no-{email}", "audit", "export"), (email, "audits", "export"), (email, "audit", "exports")):
        assert operator.run("permission", "explain", *words).returncode == 2
    assert operator.asks("permission", "explain", email, "service", "control")["paths"] == [["service-operator"]]

    assert f"inherited by 1 role(s) ({heir})" in operator.fails("role", "delete", base)
    operator.does("role", "delete", base, "--reassign-to", "auditor")
    assert operator.does("role", "parents", heir).split() == ["auditor"]
    operator.does("role", "delete", heir, "--reassign-to", "member", "--dry-run")
    operator.does("role", "delete", heir, "--reassign-to", "member")
    assert "member, service-operator" in operator.does("role", "remove", email, "viewer")
    operator.does("role", "remove", email, "member", "service-operator")


def test_a_token_is_shown_once_and_dead_when_deleted(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, _ = make_user()
    token = operator.does("token", "create", email, "--name", "tour", "--expires-in-days", "1").strip()
    asked = {"url": f"{operator.live.api_url}/v1/user/info", "headers": {"Authorization": f"Bearer {token}"}}
    assert httpx.get(**asked).status_code == 200
    [listed] = operator.asks("token", "list", email)
    assert token not in json.dumps(listed)
    assert listed["expires_at"]
    operator.does("token", "delete", email, listed["id"])
    assert httpx.get(**asked).status_code == 401


def test_the_white_list_is_filled_from_a_file_shown_and_emptied(operator: Operator, tmp_path: Path) -> None:
    domain = f"{uuid4().hex[:12]}.test"
    operator.does("whitelist", "add", f"@{domain}")
    path = tmp_path / "list.csv"
    path.write_text(f"email\na@{domain}\nno address\n")
    shown = operator.does("whitelist", "import", str(path))
    assert "no address" in shown
    assert "Added 1" in shown
    assert operator.asks("whitelist", "import", str(path))["listed"] == 1
    assert [row["email"] for row in operator.asks("whitelist", "list", "--q", f"@{domain}")["white_list"]] == [
        f"@{domain}"
    ]
    for pattern in (f"@{domain}", f"a@{domain}"):
        assert pattern in operator.does("whitelist", "list")
        operator.does("whitelist", "remove", pattern)
    assert "not on the white list" in operator.fails("whitelist", "remove", f"@{domain}")
    assert "No such file" in operator.fails("whitelist", "import", str(tmp_path / "none.csv"))


def test_registrations_that_wait_are_approved_and_rejected(operator: Operator) -> None:
    operator.does("setting", "set", "registration.mode", "approval")
    try:
        emails = [registered(operator.live) for _ in range(2)]
        waiting = {row["email"]: row["id"] for row in operator.asks("approval", "list")["approvals"]}
        assert set(emails) <= set(waiting)
        assert emails[0] in operator.does("approval", "approve", str(waiting[emails[0]]))
        assert operator.asks("user", "show", emails[0])["email"] == emails[0]
        assert emails[1] in operator.does("approval", "reject", str(waiting[emails[1]]))
        assert emails[1] in operator.fails("user", "show", emails[1])
        assert "awaits" in operator.fails("approval", "approve", str(waiting[emails[1]]))
    finally:
        operator.does("setting", "set", "registration.mode", "open")


def registered(live: Live) -> str:
    """Register until the server knows that somebody has to agree; the address that has to wait."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        email = f"{uuid4().hex[:12]}@example.org"
        body = {"email": email, "nickname": "Newcomer", "password": new_password()}
        answer = httpx.post(f"{live.api_url}/v1/user/register", json=body, timeout=10).json()
        if answer["data"] == {"awaits_approval": True}:
            return email
    raise AssertionError("the setting was never known")


def test_a_link_to_reset_a_password_is_shown_where_a_setting_says_so(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, _ = make_user()
    assert "password.show_reset_link" in operator.fails("user", "reset-link", email)
    operator.does("setting", "set", "password.show_reset_link", "true")
    token, chosen = operator.does("user", "reset-link", email).strip(), new_password()
    body = {"token": token, "new_password": chosen}
    assert httpx.post(f"{operator.live.admin_url}/api/v1/admin/reset-link", json=body, timeout=10).status_code == 200
    account = {"email": email, "password": chosen}
    assert httpx.post(f"{operator.live.api_url}/v1/user/login", json=account, timeout=10).json()["code"] == 0


def test_a_token_with_scopes_is_shown_with_them_and_rotated(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, _ = make_user()

    made = operator.asks(
        "token", "create", email, "--scope", "read:dataset", "--scope", "write:chat", "--expires", "90d"
    )
    assert made["scopes"] == ["read:dataset", "write:chat"]
    new = operator.asks("token", "rotate", email, made["id"], "--grace", "60", "--expires", "2040-01-31T12:00:00Z")
    assert (new["replaces"], new["expires_at"]) == (made["id"], "2040-01-31T12:00:00.000Z")
    listed = operator.does("token", "list", email)
    assert "rotating" in listed
    assert new["id"] in operator.fails("token", "rotate", email, made["id"])
    assert "scopes" in operator.fails("token", "create", email, "--scope", "nothing")
    assert "either" in operator.fails("token", "create", email, "--expires", "1d", "--expires-in-days", "1")


def test_a_token_to_be_deleted_is_read_from_standard_input(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, _ = make_user()
    token = operator.does("token", "create", email).splitlines()[0]
    assert "names nothing" in operator.fails("token", "delete", email, "-")
    operator.does("token", "delete", email, "-", stdin=f"{token}\n")
    assert operator.asks("token", "list", email) == []


def test_sessions_are_listed_and_ended(operator: Operator, make_user: Callable[[], tuple[str, str]]) -> None:
    email, password = make_user()
    account = {"email": email, "password": password}

    def opens() -> dict[str, str]:
        answer = httpx.post(f"{operator.live.api_url}/v1/user/login", json=account, headers={"User-Agent": "Phone/1"})
        return {"Authorization": answer.headers["Authorization"]}

    def works(session: dict[str, str]) -> bool:
        return httpx.get(f"{operator.live.api_url}/v1/user/info", headers=session).status_code == 200

    first, second, third = opens(), opens(), opens()
    listed = operator.asks("session", "list", "--of", email)["sessions"]
    assert [each["agent"] for each in listed] == ["Phone/1"] * 3
    operator.does("session", "end", listed[-1]["id"], "--of", email)
    assert [works(session) for session in (first, second, third)] == [False, True, True]
    assert operator.does("session", "end", "--all", "--of", email) == "Ended 2 session(s).\n"
    assert not works(second)
    assert "not found" in operator.fails("session", "end", listed[0]["id"], "--of", email)
    assert "say which session" in operator.fails("session", "end")

    [current] = [each for each in operator.asks("session", "list")["sessions"] if each["current"]]
    operator.does("session", "end", "--all")
    assert [each["id"] for each in operator.asks("session", "list")["sessions"]] == [current["id"]]


def test_members_come_and_go(operator: Operator, make_user: Callable[[], tuple[str, str]]) -> None:
    (owner, _), (guest, _) = make_user(), make_user()
    tenants = operator.asks("tenant", "list", "--limit", "200")["tenants"]
    [tenant] = [each["tenant_id"] for each in tenants if each["owner_email"] == owner]
    operator.does("tenant", "add-member", tenant, guest)
    assert {row["email"] for row in operator.asks("tenant", "members", tenant)["users"]} == {owner, guest}
    assert operator.asks("tenant", "show", tenant)["owners"] == [owner]
    operator.does("tenant", "remove-member", tenant, guest)
    assert {row["email"] for row in operator.asks("tenant", "members", tenant)["users"]} == {owner}


def test_services_and_health_tell_how_the_platform_is(operator: Operator) -> None:
    services = operator.asks("service", "list")
    assert {"ragflow_0", "task_executor"} <= {row["name"] for row in services}
    assert operator.asks("service", "show", str(services[0]["id"]))["status"] == "alive"
    assert all(row["ready"] for row in operator.asks("health"))
    assert operator.does("user", "datasets", ROOT) == "It sees no datasets.\n"
    assert operator.does("user", "agents", ROOT) == "It sees no agents.\n"


def test_health_fails_where_nothing_listens(at_shell: Operator) -> None:
    profiles = at_shell.config / "ragkeeper" / "profiles.json"
    profiles.parent.mkdir()
    nowhere = "http://127.0.0.1:1"
    profiles.write_text(
        json.dumps({"default": {"url": nowhere, "api_url": nowhere, "email": "a@b.co", "session": "x"}})
    )
    done = at_shell.run("health")
    assert done.returncode == 1
    assert "not reachable" in done.stdout
    rows = json.loads(at_shell.run("health", "--json").stdout)
    assert [(row["down"], row["error"]) for row in rows] == [([], "not reachable")] * 2


@pytest.mark.parametrize("words", [("user", "create", "a@b.co"), ("login", "http://127.0.0.1:1", "--email", "a@b.co")])
def test_without_a_terminal_nobody_is_asked_for_a_password(operator: Operator, words: tuple[str, ...]) -> None:
    done = operator.run(*words, stdin="a password that would be shown\n", start_new_session=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "ragkeeper: there is no terminal to ask for the password on; hand it over with --password-stdin."
    ]


def test_a_login_at_the_user_api_says_that_it_is_no_admin_server(at_shell: Operator) -> None:
    url = at_shell.live.api_url
    said = at_shell.fails("login", url, "--email", ROOT, "--password-stdin", stdin="some password\n")
    assert said.splitlines()[-1].startswith(f"ragkeeper: {url} is no admin server, whose usual port is 9381")


@pytest.mark.parametrize(
    "words",
    [
        ("ftp://x",),
        ("127.0.0.1:9381",),
        ("http://",),
        ("http://127.0.0.1:port",),
        ("http://127.0.0.1?a=b",),
        ("http://ann:secret@127.0.0.1",),
        ("http://127.0.0.1:9381", "--api-url", "ftp://x"),
    ],
    ids=" ".join,
)
def test_a_login_refuses_what_is_no_address_before_it_asks_for_anything(
    at_shell: Operator, words: tuple[str, ...]
) -> None:
    done = at_shell.run("login", *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("ragkeeper: ")
    assert "is no address of a server" in done.stderr


def test_a_login_finds_the_user_api_on_whatever_port(operator: Operator) -> None:
    assert operator.asks("whoami")["user_api"] == operator.live.api_url


def test_a_locked_out_administrator_is_recovered_beside_running_servers(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, _ = make_user()
    operator.does("user", "deactivate", email)
    said = operator.does("recover-admin", email)
    [line] = [line for line in said.splitlines() if line.startswith("Generated password")]
    assert "change it now" in operator.logs_in(email, line.split()[-1])
    assert "Change your password first" in operator.fails("user", "list")
    operator.does("user", "password", email, "--password-stdin", stdin=f"{new_password()}\n")
    assert operator.asks("user", "show", email)["is_superuser"] is True


@pytest.mark.parametrize(("role", "asked"), [("user-manager", False), ("viewer", False), ("viewer", True)])
def test_a_password_that_is_too_short_for_an_administrator_is_changed_after_the_login(
    operator: Operator, role: str, asked: bool
) -> None:
    """Long after the login that takes the current one as well; the admin server is enough for it."""
    email, short, chosen = f"{uuid4().hex[:12]}@example.org", "corr3ct horse!", new_password()
    operator.does("user", "create", email, "--password-stdin", stdin=f"{short}\n")
    operator.does("role", "assign", email, role)

    words = ("--email", email, "--password-stdin", "--api-url", "http://127.0.0.1:9")
    said = operator.does("login", operator.live.admin_url, *words, stdin=f"{short}\n")
    assert f"change it now: ragkeeper user password {email}" in said
    assert "Change your password first" in operator.fails("user", "list")
    if asked:
        with closing(sqlite3.connect(operator.live.home / "ragkeeper.db", timeout=10)) as database, database:
            database.execute(
                "UPDATE rk_session SET created_at = created_at - 700000 "
                "WHERE user_id = (SELECT id FROM user WHERE email = ?)",
                (email,),
            )
        assert "is not right" in operator.fails(
            *("user", "password", email, "--password-stdin"), stdin=f"{chosen}\n{chosen}\n"
        )
        assert "in a second line" in operator.fails(
            *("user", "password", email, "--password-stdin"), stdin=f"{chosen}\n"
        )
    given = f"{chosen}\n{short}\n" if asked else f"{chosen}\n"
    assert "Password updated" in operator.does("user", "password", email, "--password-stdin", stdin=given)

    assert operator.asks("user", "show", email)["email"] == email
    assert "change it now" not in operator.logs_in(email, chosen)


def test_doctor_finds_a_running_home_healthy(operator: Operator) -> None:
    assert operator.asks("doctor")["healthy"] is True


def test_config_show_masks_secrets_and_names_origins(at_shell: Operator) -> None:
    said = at_shell.does("config", "show", RAGKEEPER_SECRET_KEY="k" * 40)
    assert "k" * 40 not in said
    assert "environment RAGKEEPER_SECRET_KEY" in said


@pytest.mark.parametrize("words", [("frobnicate",), ("user", "show"), ("user", "list", "--limit", "0")])
def test_a_wrong_command_line_is_a_usage_error(at_shell: Operator, words: tuple[str, ...]) -> None:
    done = at_shell.run(*words)
    assert done.returncode == 2
    assert "Usage" in done.stderr


def test_a_waiting_job_is_cancelled_found_among_the_dead_and_retried(operator: Operator) -> None:
    with closing(sqlite3.connect(operator.live.home / "ragkeeper.db")) as database, database:
        # Of a kind that no worker takes, so it waits.
        job_id = database.execute(
            "INSERT INTO rk_job (kind, payload, state, attempts, visible_at, created_at) "
            "VALUES ('unknown', '{}', 'ready', 0, 0, 0)"
        ).lastrowid
    assert "cancelled" in operator.does("job", "cancel", str(job_id))
    [dead] = operator.asks("job", "list", "--state", "dead")["jobs"]
    assert (dead["id"], dead["error"]) == (job_id, f"Cancelled by {ROOT}.")
    assert "ready" in operator.does("job", "retry", str(job_id))
    assert operator.asks("job", "show", str(job_id))["state"] == "ready"
    assert "unknown" in operator.does("job", "list", "--state", "ready")
    assert "only a dead job" in operator.fails("job", "retry", str(job_id))


def test_settings_are_listed_set_looked_back_at_and_rolled_back(operator: Operator) -> None:
    name = "probe.retry_count"
    assert operator.does("setting", "set", name, "2") == f"{name}: the default -> 2\n"
    assert operator.does("setting", "set", name, "-1") == f"{name}: 2 -> -1\n"
    assert operator.does("setting", "set", name, "-1") == "It is so already.\n"
    assert operator.asks("setting", "get", name)["value"] == -1
    assert name in [row["name"] for row in operator.asks("setting", "list", "--set")]
    assert name in operator.does("setting", "list")
    assert ROOT in operator.does("setting", "get", name)
    operator.does("setting", "unset", name, "--dry-run")
    latest, first = operator.asks("setting", "history", name)["changes"]
    assert (latest["after"], first["after"]) == (-1, 2)
    assert operator.does("setting", "rollback", name, str(first["id"])) == f"{name}: -1 -> 2\n"
    assert "the default" in operator.does("setting", "unset", name)
    assert name not in operator.does("setting", "list", "--set")
    assert "-1 to 10" in operator.fails("setting", "set", name, "11")
    assert "no setting no.such" in operator.fails("setting", "get", "no.such")
    # What may be a value, for one may begin with a hyphen.
    assert "no option '--dryrun'" in operator.fails("setting", "set", "mail.username", "--dryrun")


def test_a_secret_setting_never_stands_in_the_command_line(operator: Operator) -> None:
    assert "--value-stdin" in operator.fails("setting", "set", "mail.password", "a secret of mine")
    assert operator.asks("setting", "get", "mail.password")["is_set"] is False
    said = operator.does("setting", "set", "mail.password", "--value-stdin", stdin="a secret of mine\n")
    assert said == "mail.password: the default -> ***\n"
    assert operator.asks("setting", "get", "mail.password")["value"] == "***"
    assert "a secret of mine" not in operator.does("setting", "history", "mail.password")
    done = operator.run("setting", "set", "mail.password", stdin="shown\n", start_new_session=True)
    assert done.stderr == (
        "ragkeeper: there is no terminal to ask for the value on; hand it over with --value-stdin.\n"
    )
    operator.does("setting", "unset", "mail.password")


def test_flags_are_made_switched_and_deleted(operator: Operator, make_user: Callable[[], tuple[str, str]]) -> None:
    make_user()
    tenant = operator.asks("tenant", "list")["tenants"][0]["tenant_id"]
    operator.does("flag", "create", "reranking", "--description", "Rerank [what] was found")
    assert [row["state"] for row in operator.asks("flag", "list")] == ["off"]
    assert operator.does("flag", "on", "reranking") == "reranking is on.\n"
    assert operator.does("flag", "only", "reranking", tenant) == f"reranking is on for {tenant}.\n"
    assert tenant in operator.does("flag", "list")
    assert operator.does("flag", "off", "reranking") == "reranking is off.\n"
    operator.does("flag", "delete", "reranking")
    assert operator.does("flag", "list") == "There are no flags.\n"
    assert "not found" in operator.fails("flag", "on", "reranking")


def test_limits_are_shown_and_set(operator: Operator, make_user: Callable[[], tuple[str, str]]) -> None:
    email, _ = make_user()
    [tenant] = [
        each["tenant_id"]
        for each in operator.asks("tenant", "list", "--limit", "200")["tenants"]
        if each["owner_email"] == email
    ]
    operator.does("limit", "defaults", "--tokens", "5")
    operator.does("limit", "set", tenant, "--members", "3", "--tokens", "1")
    assert operator.asks("limit", "show", tenant)["limits"]["tokens"] == 1
    assert "its own" in operator.does("limit", "show", tenant)
    operator.does("token", "create", email)
    assert "1 tokens" in operator.fails("token", "create", email)
    operator.does("limit", "set", tenant, "--tokens", "default")
    assert operator.asks("limit", "show", tenant)["limits"] == {
        "members": 3, "tokens": 5, "datasets": 0, "requests_per_minute": 0,
    }  # fmt: skip
    assert operator.asks("limit", "defaults", "--tokens", "0")["tokens"] == 0
    assert "a number, 0 for any number" in operator.fails("limit", "set", tenant, "--tokens", "many")
    assert "which limit" in operator.fails("limit", "set", tenant)


def test_the_key_is_rotated_under_running_servers_and_sessions_go_on(operator: Operator) -> None:
    operator.does("setting", "set", "mail.password", "--value-stdin", stdin="a secret\n")
    key_file = operator.live.home / "secret_key"
    before = key_file.read_text().split()

    rotated = operator.asks("keys", "rotate")

    after = key_file.read_text().split()
    assert (rotated["new_key"], rotated["lost"], after[1:]) == (True, [], before)
    assert operator.asks("whoami")["email"] == ROOT
    assert operator.asks("setting", "get", "mail.password")["value"] == "***"
    done = operator.run("keys", "rotate", RAGKEEPER_SECRET_KEY="k" * 40)
    assert done.returncode == 1
    assert "set RAGKEEPER_SECRET_KEY to a new key, a comma and the key of now" in " ".join(done.stderr.split())
    assert "k" * 40 not in done.stderr
    operator.does("setting", "unset", "mail.password")


def test_a_file_makes_roles_assignments_settings_and_flags_and_an_export_is_such_a_file(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, _ = make_user()
    other, _ = make_user()
    operator.does("role", "assign", other, "member")
    operator.does("role", "add", other, "viewer")
    path = operator.config / "access.yaml"
    path.write_text(
        f"""
version: 1
roles:
  apprentice: {{parents: [keeper]}}
  keeper: {{description: Keeps, parents: [viewer], grants: {{dataset: [read, write], report: [read]}}}}
assignments: {{{email}: apprentice}}
settings: {{probe.timeout: 9}}
features: {{from-file: {{state: on}}}}
"""
    )
    plan = operator.does("apply", "-f", str(path), "--dry-run")
    assert f"~ {email}: member -> apprentice" in plan
    assert operator.asks("setting", "get", "probe.timeout")["value"] == 0

    assert operator.does("apply", "-f", str(path)) == plan
    held = {(row["resource"], row["action"]): row["source"] for row in operator.asks("role", "permissions", email)}
    assert (held["dataset", "write"], held["user", "read"]) == ("keeper", "viewer")
    assert operator.asks("setting", "get", "probe.timeout")["value"] == 9
    assert operator.does("apply", "-f", str(path)) == "Everything is so already.\n"

    exported = operator.does("export")
    assert operator.does("apply", "-f", "-", stdin=exported) == "Everything is so already.\n"
    assert f"{email}: apprentice" in exported
    # Whatever the first role is.
    assert f"{other}:\n  - member\n  - viewer\n" in exported
    path.write_text("version: 1\nassignments: {nobody@x.test: viewer}\n")
    assert "not found" in operator.fails("apply", "-f", str(path))
    path.write_text("version: 1\nsettings: {a: [}\n")
    assert "is no YAML" in operator.fails("apply", "-f", str(path))
    assert "No such file" in operator.fails("apply", "-f", "nothing.yaml")
    for words in (("user", email, "member"), ("apprentice",), ("keeper",)):
        verb = ("role", "assign", *words[1:]) if len(words) == 3 else ("role", "delete", *words)
        operator.does(*verb)
    operator.does("flag", "delete", "from-file")
    operator.does("setting", "unset", "probe.timeout")


def chain(length: int) -> str:
    roles = [f"  r{each}: {{parents: [r{each + 1}]}}" for each in range(1, length)]
    return "\n".join(["roles:", *roles, f"  r{length}: {{}}"])


def many_parents(count: int) -> str:
    names = [f"p{each}" for each in range(count)]
    return "\n".join(["roles:", f"  k1: {{parents: [{', '.join(names)}]}}", *(f"  {name}: {{}}" for name in names)])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "roles: {k1: {parents: [k2]}, k2: {parents: [k1]}}",
            "roles.k2: Roles would inherit in a circle: k2 → k1 → k2",
        ),
        (chain(34), "roles.r33: Roles inherit over at most 32 steps"),
        (many_parents(65), "roles.k1: A role has at most 64 parents, not 65."),
        (
            f"roles: {{k1: {{}}}}\nassignments: {{{ROOT}: auditor}}",
            f"assignments.{ROOT}: You can't take the superuser's role from your own account.",
        ),
        (f"roles: {{k1: {{}}}}\nassignments: {{{ROOT}: [superuser, k2]}}", "there is no role 'k2'"),
        ("roles: {k1: {}}\nsettings: {probe.timeout: 61}", "probe.timeout takes a whole number of 0 to 60"),
        ("roles: {k1: {}}\nsettings: {default_role: superuser}", "not every new account can be a superuser"),
        ("roles: {k1: {}, k1: {}}", "line 2: the key 'k1' stands in line 2 already"),
    ],
)
def test_a_file_that_can_not_be_applied_to_its_end_is_refused_before_anything_is_done(
    operator: Operator, text: str, told: str
) -> None:
    path = operator.config / "access.yaml"
    path.write_text(f"version: 1\n{text}\n")
    before = operator.does("export")

    for more in (["--dry-run"], []):
        done = operator.run("apply", "-f", str(path), *more)
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr
        assert done.stderr.count("\n") == 1

    assert operator.does("export") == before


def test_parents_that_change_places_and_a_default_role_of_the_same_file_are_applied(operator: Operator) -> None:
    path = operator.config / "access.yaml"
    path.write_text("version: 1\nroles: {k1: {parents: [k2]}, k2: {}}\nsettings: {default_role: k1}\n")
    operator.does("apply", "-f", str(path))
    path.write_text("version: 1\nroles: {k2: {parents: [k1]}, k1: {}}\nsettings: {default_role: K2}\n")

    operator.does("apply", "-f", str(path))

    assert operator.does("role", "parents", "k2").split() == ["k1"]
    operator.does("setting", "unset", "default_role")
    for name in ("k2", "k1"):
        operator.does("role", "delete", name)


def test_who_may_not_look_accounts_up_applies_roles_and_is_refused_what_they_may_not_give(
    operator: Operator, make_user: Callable[[], tuple[str, str]]
) -> None:
    email, password = make_user()
    path = operator.config / "access.yaml"
    permissions = "{role: [read, create, write], setting: [read, write]}"
    path.write_text(f"version: 1\nroles: {{maker: {{grants: {permissions}}}}}\nassignments: {{{email}: maker}}\n")
    operator.does("apply", "-f", str(path))
    operator.logs_in(email, password)

    path.write_text("version: 1\nroles: {made: {grants: {setting: [read]}}}\n")
    operator.does("apply", "-f", str(path))
    operator.does("role", "show", "made")

    operator.logs_in(ROOT, operator.password)
    operator.does("role", "grant", "maker", "user", "read")
    operator.logs_in(email, password)
    path.write_text("version: 1\nroles: {further: {}, made: {grants: {audit: [read]}}}\n")
    refused = operator.fails("apply", "-f", str(path))
    assert "roles.made: You can't give what you do not hold: audit:read." in refused
    assert "further" not in operator.does("role", "list")

    operator.logs_in(ROOT, operator.password)
    operator.does("role", "assign", email, "member")
    for name in ("made", "maker"):
        operator.does("role", "delete", name)


def test_the_audit_trail_is_listed_online_and_verified_on_the_home(operator: Operator) -> None:
    operator.does("user", "list")

    listed = operator.asks("audit", "list", "--tag", "session:login", "--limit", "1")

    assert [event["tag"] for event in listed["events"]] == ["session:login"]
    assert operator.asks("audit", "verify")["whole"]
    assert operator.does("audit", "export").count('"tag":"session:login"') >= 1
