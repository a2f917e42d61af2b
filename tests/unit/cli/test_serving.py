"""What is written for the supervising process, and what is checked before it starts."""

from __future__ import annotations

import configparser
import shlex
import socket
from pathlib import Path

import pytest
from supervisor.options import UnhosedConfigParser

from common.cli import serving
from common.secret import Secret
from common.services import first_start
from common.settings import Settings, SettingsError
from tests.people import settings_for
from tests.ports import free_ports


def conf_of(settings: Settings) -> configparser.RawConfigParser:
    settings.home.mkdir(exist_ok=True)
    parser = configparser.RawConfigParser()
    parser.read(serving.write_supervisor_file(settings))
    return parser


def test_the_supervisors_file_is_private_and_its_programs_form_one_group(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "home")
    conf = conf_of(settings)
    assert (tmp_path / "home" / "supervisord.conf").stat().st_mode & 0o777 == 0o600
    assert conf["unix_http_server"]["chmod"] == "0600"
    assert conf["group:ragkeeper"]["programs"] == "admin,api,worker"
    for program in ("admin", "api", "worker"):
        assert conf[f"program:{program}"]["stopwaitsecs"] == "9"
        assert conf[f"program:{program}"]["killasgroup"] == "true"


def test_no_setting_that_is_secret_is_written_down(tmp_path: Path) -> None:
    secrets = {"RAGKEEPER_SECRET_KEY": "k" * 40, "RAGKEEPER_ADMIN_PASSWORD": "never to be written"}
    settings = settings_for(tmp_path / "home", **secrets)
    conf_of(settings)
    text = (tmp_path / "home" / "supervisord.conf").read_text()
    assert not [secret for secret in secrets.values() if secret in text]


ODD = ["100%home", "a ;b", "a #b", "a\t;b", ";a", "a b ", "%(here)s", 'it\'s "a"']


@pytest.mark.parametrize("name", ODD)
def test_whatever_is_in_the_home_or_the_interpreters_path_the_supervisor_reads_it_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home, interpreter = tmp_path / name, f"{tmp_path}/{name}/python"
    monkeypatch.setattr(serving, "_SOCKET_PATH_BYTES", len(str(tmp_path)) + 100)
    monkeypatch.setattr(serving.sys, "executable", interpreter)
    home.mkdir()
    conf = UnhosedConfigParser()
    conf.read([serving.write_supervisor_file(settings_for(home))])
    conf.expand_here(str(home))

    def read(section: str, option: str) -> str:
        value: str = conf.saneget(section, option, expansions={"here": str(home)})
        return value

    assert read("unix_http_server", "file") == f"{home}/supervisor.sock"
    assert read("supervisorctl", "serverurl") == f"unix://{home}/supervisor.sock"
    assert read("supervisord", "childlogdir") == str(home)
    assert shlex.split(read("program:worker", "command"))[-3:] == [interpreter, "-m", "common.worker"]


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "\udcff"])
def test_a_path_that_is_no_line_of_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(SettingsError, match=r"^RAGKEEPER_HOME: "):
        serving.check_paths(settings_for(tmp_path / name))
    monkeypatch.setattr(serving.sys, "executable", f"/opt/{name}/python")
    with pytest.raises(SettingsError, match=r"^Python: "):
        serving.check_paths(settings_for(tmp_path))


def test_the_socket_of_a_long_home_goes_where_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("x" * 100)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("y" * 100)))
    monkeypatch.setattr(serving.tempfile, "gettempdir", lambda: str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(serving, "_SOCKET_PATH_BYTES", len(str(tmp_path)) + 70)
    control = Path(conf_of(settings_for(home))["unix_http_server"]["file"])
    assert control.parent.parent == tmp_path / "t"
    assert control.parent.stat().st_mode & 0o777 == 0o700

    control.parent.chmod(0o755)
    with pytest.raises(SettingsError, match="is not this user's alone"):
        serving.write_supervisor_file(settings_for(home))


def test_a_home_is_held_by_one_only(tmp_path: Path) -> None:
    held = serving.hold_home(tmp_path)
    with pytest.raises(SettingsError, match="another `ragkeeper serve` runs"):
        serving.hold_home(tmp_path)
    serving.os.close(held)
    serving.os.close(serving.hold_home(tmp_path))


def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        (other,) = free_ports(1)
        settings = settings_for(tmp_path / "home", RAGKEEPER_API_PORT=str(taken), RAGKEEPER_ADMIN_PORT=str(other))
        with pytest.raises(SettingsError, match=f"can't listen on 127.0.0.1 port {taken}: address already in use"):
            serving.check_ports(settings)


@pytest.mark.parametrize("host", ["not.a.host.invalid", "203.0.113.7"])
def test_a_host_that_is_not_here_is_named_with_its_own_setting(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match=f"^RAGKEEPER_HOST: {host} "):
        serving.check_ports(settings_for(tmp_path / "home", RAGKEEPER_HOST=host))


def test_the_first_words_have_a_login_that_finds_both_servers(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "home", RAGKEEPER_ADMIN_PORT="7001", RAGKEEPER_API_PORT="7002")
    assert (
        "  ragkeeper login http://127.0.0.1:7001 --api-url http://127.0.0.1:7002 --email root@ragkeeper.test"
        in first_start.first_words(settings, Secret("x"))
    )


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("rag.test", "rag.test")],
)
def test_the_printed_address_is_one_that_can_be_opened(tmp_path: Path, host: str, shown: str) -> None:
    settings = settings_for(tmp_path / "home", RAGKEEPER_HOST=host)
    assert first_start.address(settings, 9381) == f"http://{shown}:9381"


def test_the_allocator_is_frugal_unless_it_was_set_up_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setenv("RAGKEEPER_HOST", "127.0.0.1")
    given = serving.environment()
    assert given["RAGKEEPER_HOST"] == "127.0.0.1"
    assert given["MALLOC_ARENA_MAX"] == "8"
    # Below the 19 MiB of argon2.
    assert int(given["MALLOC_MMAP_THRESHOLD_"]) < 19 * 2**20
