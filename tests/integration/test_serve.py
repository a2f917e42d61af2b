"""``ragkeeper serve`` as its operator meets it: what it prints, what it refuses, how it heals and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.people import new_password
from tests.pipes import fill_pipe
from tests.ports import free_ports
from tests.servers import COMMAND, Live, end, environment_for, running, start, until, wait_until_ready

pytestmark = pytest.mark.slow

ADMINISTRATOR = "admin@ragflow.io"
# What a stop may take, and a supervisor's way to notice a death and to start anew.
STOP_S = 10.0
HEAL_S = 20.0


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short enough for the control socket to be in a home, wherever the folders of the other tests are."""
    with tempfile.TemporaryDirectory(prefix="rk-", dir="/tmp") as folder:
        yield Path(folder)


def log_in(live: Live, password: str) -> httpx.Response:
    account = {"email": ADMINISTRATOR, "password": password}
    return httpx.post(f"{live.admin_url}/api/v1/admin/login", json=account, timeout=10)


def refused(home: Path, **given: str) -> str:
    """The one line that a start which can't be made says."""
    done = subprocess.run(
        [COMMAND, "serve"], env=environment_for(home, **given), cwd=home.parent, capture_output=True, timeout=30
    )
    said = done.stderr.decode()
    assert done.returncode != 0
    assert done.stdout == b""
    assert "Traceback" not in said
    assert said.startswith("ragkeeper: ")
    assert said.count("\n") == 1
    return said


def of_program(live: Live, *words: str) -> psutil.Process | None:
    """The supervisor's child whose command has these words, if it is there."""
    for child in psutil.Process(live.process.pid).children():
        try:
            if set(words) <= set(child.cmdline()):
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def test_it_prints_both_addresses_and_a_password_once_which_must_be_changed_first(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home) as live:
        said = live.printed()
        assert live.admin_url in said
        assert live.api_url in said
        [password] = re.findall(r"Generated password +(\S+)", said)
        for url in (live.admin_url, live.api_url):
            assert httpx.get(f"{url}/livez").status_code == 200

        session = {"Authorization": log_in(live, password).headers["Authorization"]}
        closed = httpx.get(f"{live.admin_url}/api/v1/admin/users", headers=session)
        assert closed.status_code == 403
        assert "Change your password first" in closed.json()["message"]

        chosen = new_password()
        changed = httpx.put(
            f"{live.admin_url}/api/v1/admin/users/{ADMINISTRATOR}/password",
            json={"new_password": chosen},
            headers=session,
            timeout=10,
        )
        assert changed.status_code == 200
        assert httpx.get(f"{live.admin_url}/api/v1/admin/users", headers=session).status_code == 200

    with running(home) as again:
        assert "assword" not in again.printed()
        assert log_in(again, password).status_code == 401
        assert log_in(again, chosen).status_code == 200


def test_a_given_password_counts_and_shows_in_no_argument_no_file_and_no_environment(tmp_path: Path) -> None:
    given = new_password()
    home = tmp_path / "home"
    with running(home, RAGKEEPER_ADMIN_PASSWORD=given) as live:
        session = {"Authorization": log_in(live, given).headers["Authorization"]}
        assert httpx.get(f"{live.admin_url}/api/v1/admin/users", headers=session).status_code == 200
        assert given not in live.printed()
        for process in live.family():
            assert given not in " ".join(process.cmdline())
            assert given not in process.environ().values()
    for file in home.glob("super*"):
        assert given not in file.read_text()
        assert file.stat().st_mode & 0o077 == 0


def test_S8_S24_nothing_secret_is_printed_and_a_session_works_on_both_ports_and_after_a_restart(tmp_path: Path) -> None:
    home, given = tmp_path / "home", new_password()
    environment_for(home)
    (tmp_path / "conf" / "service_conf.yaml").write_text(
        "user_default_llm: {api_key: hunter2-a, default_models: {chat_model: {name: m, api_key: hunter2-b}}}\n"
        "smtp: {mail_server: '127.0.0.1', mail_password: hunter2-c}\n"
        "oceanbase: {config: {host: '127.0.0.1', password: hunter2-d}}\n"
        "opendal: {scheme: fs, config: {password: hunter2-e}}\n"
    )
    printed, sessions = "", list[str]()
    for _ in range(2):
        with running(home, RAGKEEPER_ADMIN_PASSWORD=given, LOG_LEVELS="root=DEBUG") as live:
            sessions.append(log_in(live, given).headers["Authorization"])
            for session in sessions:
                for url in (f"{live.admin_url}/api/v1/admin/users", f"{live.api_url}/v1/user/info"):
                    answer = httpx.get(url, headers={"Authorization": session}, timeout=10)
                    assert (answer.status_code, answer.json()["code"]) == (200, 0)
            printed += live.printed()

    assert "task_executor_" in printed
    for secret in ("hunter2", given, (home / "secret_key").read_text().strip()):
        assert secret not in printed


def test_R39_it_starts_while_every_superuser_is_switched_off_and_the_shell_lets_one_in_again(tmp_path: Path) -> None:
    home, given = tmp_path / "home", new_password()
    with running(home, RAGKEEPER_ADMIN_PASSWORD=given) as live:
        assert log_in(live, given).status_code == 200
    with closing(sqlite3.connect(home / "ragkeeper.db")) as database, database:
        assert database.execute("UPDATE user SET is_active = '0' WHERE is_superuser").rowcount == 1

    with running(home, RAGKEEPER_ADMIN_PASSWORD=given) as live:
        assert log_in(live, given).status_code == 401
        assert "Generated password" not in live.printed()
        with closing(sqlite3.connect(home / "ragkeeper.db")) as database:
            assert database.execute("SELECT is_active FROM user").fetchall() == [("0",)], "nobody else was made"

        said = subprocess.run(
            [COMMAND, "recover-admin", ADMINISTRATOR], env=environment_for(home), capture_output=True, timeout=30
        )
        assert said.returncode == 0, said.stderr
        [password] = re.findall(r"Generated password +(\S+)", said.stdout.decode())
        assert log_in(live, password).status_code == 200


def test_a_port_in_use_an_unwritable_home_and_a_wrong_setting_are_one_sentence_each(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = str(holder.getsockname()[1])
        said = refused(home, RAGKEEPER_ADMIN_PORT=taken)
    assert f"RAGKEEPER_ADMIN_PORT: can't listen on 127.0.0.1 port {taken}: address already in use." in said
    assert "RAGKEEPER_HOME" in refused(tmp_path / "file")
    assert "RAGKEEPER_API_PORT" in refused(home, RAGKEEPER_API_PORT="eighty")
    assert "RAGKEEPER_ADMIN_PASSWORD" in refused(home, RAGKEEPER_ADMIN_PASSWORD="short")
    assert "RAGKEEPER_PASSWORD_PRIVATE_KEY" in refused(home, RAGKEEPER_PASSWORD_PRIVATE_KEY=str(tmp_path / "file"))


def test_a_second_one_on_the_same_home_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home) as live:
        said = refused(home)
        assert f"another `ragkeeper serve` runs on {home} (process {live.process.pid}); stop it first." in said
        assert httpx.get(f"{live.admin_url}/readyz").status_code == 200


def test_sigterm_finishes_the_request_in_flight_and_leaves_nothing(tmp_path: Path) -> None:
    given = new_password()
    with (
        running(tmp_path / "home", RAGKEEPER_ADMIN_PASSWORD=given, RAGKEEPER_EGRESS_ALLOW_CIDRS="127.0.0.0/8") as live,
        slow_langfuse() as (host, asked, go_on),
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(save_langfuse_keys, live, log_in(live, given).headers["Authorization"], host)
        assert asked.wait(10)
        everything = live.family()
        told_at = time.monotonic()
        live.process.terminate()
        # The worker is told together with the servers; once it has gone, they have been told too.
        until(lambda: re.search(r"worker \S+ stopped", live.printed()), live)
        assert not answer.done()
        go_on.set()

        assert answer.result(10).json()["code"] == 102
        assert live.process.wait(STOP_S) == 0
        gone, left = psutil.wait_procs(everything, timeout=STOP_S - (time.monotonic() - told_at))
        assert left == []
        assert len(gone) == len(everything)
        assert not (live.home / "supervisor.sock").exists()


def save_langfuse_keys(live: Live, session: str, host: str) -> httpx.Response:
    keys = {"host": host, "public_key": "pk-lf-1", "secret_key": "sk-lf-1"}
    return httpx.put(f"{live.api_url}/v1/langfuse/api_key", json=keys, headers={"Authorization": session}, timeout=20)


@contextmanager
def slow_langfuse() -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A host that takes a request and refuses the keys only once it is told to go on."""
    asked, go_on = threading.Event(), threading.Event()

    def refuse_late(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            asked.set()
            go_on.wait(10)
            connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=refuse_late, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked, go_on
        go_on.set()
        thread.join(20)


@pytest.mark.parametrize("kind", ["terminal", "pipe", "socket"])
def test_it_shows_what_the_programs_say_and_ends_with_control_c(tmp_path: Path, kind: str) -> None:
    """A socket is what systemd's journal gives, which nobody can open by a name."""
    home = tmp_path / "home"
    if kind == "socket":
        left, right = socket.socketpair()
        reader, writer = left.detach(), right.detach()
    else:
        reader, writer = os.openpty() if kind == "terminal" else os.pipe()
    live = start(home, sink=writer)
    os.close(writer)
    said: list[bytes] = []
    collector = threading.Thread(target=collect, args=(reader, said))
    collector.start()
    try:
        for port in (live.admin_port, live.api_port):
            wait_until_ready(live, port)

        def all_spoke() -> bool:
            output = b"".join(said).decode()
            return "task_executor_" in output and '"route":"/v1/user/info"' in output

        assert httpx.get(f"{live.api_url}/v1/user/info").status_code == 401
        until(all_spoke, live)
        assert [path.name for path in home.glob("*.log")] == ["audit-written.log"]
        everything = live.family()
        # A terminal sends it to the foreground group, of which the programs are no part.
        os.killpg(live.process.pid, signal.SIGINT)
        assert live.process.wait(STOP_S) == 0
        assert psutil.wait_procs(everything, timeout=1)[1] == []
    finally:
        end(live.process)
        collector.join(5)
        os.close(reader)
    assert live.admin_url in b"".join(said).decode()


def collect(reader: int, said: list[bytes]) -> None:
    """Read until the other side is closed, which a terminal tells as an error."""
    try:
        while chunk := os.read(reader, 65536):
            said.append(chunk)
    except OSError:
        return


@pytest.mark.parametrize("stuck", ["standard output", "standard error"])
def test_with_a_reader_that_is_stuck_it_answers_starts_what_was_killed_and_ends(tmp_path: Path, stuck: str) -> None:
    (reader, writer), sink = os.pipe(), os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)
    os.set_blocking(reader, False)
    outputs = (writer, sink) if stuck == "standard output" else (sink, writer)
    live = start(tmp_path / "home", sink=outputs[0], errors=outputs[1])
    try:
        for port in (live.admin_port, live.api_port):
            wait_until_ready(live, port)
        until(lambda: of_program(live, "common.worker"), live)
        drain(reader)
        fill_pipe(writer)
        url = f"{live.api_url}/v1/user/info"
        # More than the pipes between the programs hold.
        with httpx.Client(timeout=5) as client:
            assert {client.get(url).status_code for _ in range(600)} == {401}
        killed = of_program(live, "common.worker")
        assert killed is not None
        killed.kill()
        until(lambda: of_program(live, "common.worker") not in (None, killed), live, HEAL_S)
        everything = live.family()
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(STOP_S) == 0
        assert psutil.wait_procs(everything, timeout=1)[1] == []
    finally:
        end(live.process)
        for descriptor in (reader, writer, sink):
            os.close(descriptor)


@contextmanager
def hangups(are: signal.Handlers) -> Iterator[None]:
    """What is started within finds SIGHUP ignored (as under nohup), or not, however these tests were started."""
    before = signal.signal(signal.SIGHUP, are)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_a_terminal_that_is_closed_leaves_nothing(tmp_path: Path, kind: str) -> None:
    reader, writer = os.openpty() if kind == "terminal" else os.pipe()
    with hangups(signal.SIG_DFL):
        live = start(tmp_path / "home", sink=writer)
    os.close(writer)
    try:
        for port in (live.admin_port, live.api_port):
            wait_until_ready(live, port)
        until(lambda: of_program(live, "common.worker"), live)
        everything = live.family()
    finally:
        # What is said from here on can't be written.
        os.close(reader)
    try:
        # The supervisor speaks before the signal comes: of a program that has ended.
        killed = of_program(live, "common.worker")
        assert killed is not None
        killed.kill()
        until(lambda: not killed.is_running(), live)
        os.killpg(live.process.pid, signal.SIGHUP)
        assert live.process.wait(STOP_S) == 0
        assert psutil.wait_procs(everything, timeout=1)[1] == []
        assert not (live.home / "supervisor.sock").exists()
        assert not (live.home / "supervisord.pid").exists()
    finally:
        end(live.process)


def test_one_that_was_started_with_hangups_ignored_goes_on(tmp_path: Path) -> None:
    with hangups(signal.SIG_IGN):
        live = start(tmp_path / "home")
    try:
        for port in (live.admin_port, live.api_port):
            wait_until_ready(live, port)
        everything = live.family()
        os.killpg(live.process.pid, signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            live.process.wait(2)
        assert all(process.is_running() for process in everything)
        assert httpx.get(f"{live.admin_url}/readyz").status_code == 200
    finally:
        end(live.process)


def test_what_is_killed_comes_back(tmp_path: Path) -> None:
    with running(tmp_path / "home") as live:
        for words in (("admin.server.wsgi:application()",), ("api.wsgi:application()",), ("common.worker",)):
            killed = of_program(live, *words)
            assert killed is not None
            killed.kill()
            psutil.wait_procs([killed], timeout=5)

        def all_back() -> bool:
            return all(
                of_program(live, word)
                for word in ("admin.server.wsgi:application()", "api.wsgi:application()", "common.worker")
            )

        until(all_back, live, HEAL_S)
        for port in (live.admin_port, live.api_port):
            wait_until_ready(live, port)
        until(lambda: len(re.findall(r"worker \S+ started", live.printed())) == 2, live, HEAL_S)


def test_a_supervisor_that_was_killed_leaves_nothing_in_the_way_of_the_next_one(tmp_path: Path) -> None:
    home, ports = tmp_path / "home", free_ports(2)
    with running(home, ports=ports) as live:
        orphans = live.family()[1:]
        live.process.kill()
        live.process.wait()
        assert (home / "supervisor.sock").exists()

        with running(home, ports=ports) as again:
            # Until they had gone, it was they who might have answered.
            assert psutil.wait_procs(orphans, timeout=STOP_S)[1] == []
            for port in ports:
                wait_until_ready(again, port)


def test_a_home_whose_path_is_too_long_for_a_socket_works(tmp_path: Path) -> None:
    home = tmp_path / ("long " * 30 + "path") / "home"
    home.parent.mkdir()
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime, running(home, XDG_RUNTIME_DIR=runtime) as live:
        assert httpx.get(f"{live.api_url}/readyz").status_code == 200
        [path] = re.findall(r"^file=(.*)$", (home / "supervisord.conf").read_text(), re.MULTILINE)
        assert path.startswith(runtime)
        assert Path(path).is_socket()
        assert Path(path).stat().st_mode & 0o077 == 0


def test_a_home_with_odd_letters_works_and_one_with_a_line_break_is_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    home = tmp_path / "a ;b #c" / "100% it's home "
    with running(home) as live:
        assert httpx.get(f"{live.admin_url}/readyz").status_code == 200
        until(lambda: of_program(live, "common.worker") is not None, live)

    broken = tmp_path / "a\nb"
    assert "RAGKEEPER_HOME: " in refused(broken)
    assert not broken.exists()


def test_the_servers_run_alone_too_and_the_database_is_brought_up_to_date_before(tmp_path: Path) -> None:
    """For a supervisor of one's own; a port in use is a sentence here as well."""
    home, (admin_port, api_port) = tmp_path / "home", free_ports(2)
    ports = {"RAGKEEPER_ADMIN_PORT": str(admin_port), "RAGKEEPER_API_PORT": str(api_port)}
    environment = environment_for(home, **ports)

    def run(name: str) -> subprocess.CompletedProcess[str]:
        given = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 30}
        return subprocess.run([COMMAND, name], **given)

    assert "applied 0001" in run("migrate").stdout
    assert "nothing to do" in run("migrate").stdout
    for name, port in (("admin", admin_port), ("api", api_port)):
        output = tmp_path / f"{name}.txt"
        with output.open("wb") as sink:
            process = subprocess.Popen([COMMAND, name], env=environment, cwd=tmp_path, stdout=sink, stderr=sink)
        try:
            wait_until_ready(Live(process, home, admin_port, api_port, output), port)
            assert ("Generated password" in output.read_text()) == (name == "admin")
            assert "address already in use" in run(name).stderr
            process.terminate()
            assert process.wait(STOP_S) == 0
        finally:
            end(process)


def test_a_server_whose_log_nobody_reads_any_more_answers_for_its_liveness(tmp_path: Path) -> None:
    """A cache that hangs is noted where requests wait for its probe, on the event loop; and processes die."""
    home, (port, other_port) = tmp_path / "home", free_ports(2)
    reader, writer = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as hanging, (tmp_path / "output").open("wb") as sink:
        given = {
            "RAGKEEPER_API_PORT": str(port),
            "RAGKEEPER_ADMIN_PORT": str(other_port),
            "RAGKEEPER_REDIS_URL": f"redis://127.0.0.1:{hanging.getsockname()[1]}/0",
        }
        process = subprocess.Popen(
            [COMMAND, "api"], env=environment_for(home, **given), cwd=tmp_path, stdout=sink, stderr=writer
        )
        live = Live(process, home, other_port, port, tmp_path / "output")
        try:
            until(lambda: says(f"{live.api_url}/livez") == 200, live)
            fill_pipe(writer)
            for _ in range(6):
                # A connection each, so that both processes of the server are met.
                assert says(f"{live.api_url}/v1/system/healthz") == 500
            assert [says(f"{live.api_url}/livez") for _ in range(20)] == [200] * 20
            # The master has something to say of this, too, and makes new ones.
            killed = psutil.Process(process.pid).children()
            for server in killed:
                server.kill()
            until(lambda: says(f"{live.api_url}/livez") == 200, live)
            assert not set(psutil.Process(process.pid).children()) & set(killed)
            os.set_blocking(reader, False)
            drain(reader)
            psutil.Process(process.pid).children()[0].kill()
            until(lambda: b"log lines were dropped: standard error was not read" in drain(reader), live)
        finally:
            end(process)
            os.close(reader)
            os.close(writer)


def drain(reader: int) -> bytes:
    """What is in a pipe."""
    try:
        return os.read(reader, 1 << 20)
    except BlockingIOError:
        return b""


def says(url: str) -> int | None:
    """The status of a GET over a connection of its own, None where there is no answer."""
    try:
        return httpx.get(url, timeout=10).status_code
    except httpx.TransportError:
        return None
