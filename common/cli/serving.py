"""Running the plane: what is checked before a start, and the programs that one supervising process keeps up."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import locale
import os
import secrets
import shlex
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common.cli import tether
from common.settings import Settings, SettingsError

# A path of a unix socket has 108 bytes with its end on Linux (unix(7)); supervisor adds a suffix while it starts.
_SOCKET_PATH_BYTES = 90
# What a server may take to end: it goes on serving for ``drain_s``, requests in flight get the rest.
STOP_S = 8
WORKERS = 2
# How long a run that was killed may take to let go of its ports.
_LEAVING_S = STOP_S + 2
# For glibc's allocator (mallopt(3)). By itself it raises these limits with the largest block that was freed, so that
# the 19 and 32 MiB of a password's hash would stay with every process that hashed one; with fixed limits they go back
# to the system. Page faults are the price: a hash takes about a third more of the processor's time.
_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(1024 * 1024),
}
# In the supervisor's file: no letter of the file's folder.
_NOTHING = "%(here).0s"
_APPS = {"admin": "admin.server.wsgi:application()", "api": "api.wsgi:application()"}


def hold_home(home: Path) -> int:
    """Take the home for this process, and for the supervisor it turns into; returns the open lock.

    Raises SettingsError when another one has it.
    """
    descriptor = os.open(home / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        number = _running(home)
        which = f"another `ragkeeper serve` runs on {home}" + (f" (process {number})" if number else "")
        raise SettingsError(f"RAGKEEPER_HOME: {which}; stop it first.") from error
    return descriptor


def _running(home: Path) -> int | None:
    """The process of the supervisor that has noted its number in the home; None where there is none, or not yet."""
    try:
        number = int(_pid_file(home).read_text())
        os.kill(number, 0)
    except (OSError, ValueError, OverflowError):
        return None
    return number


def check_paths(settings: Settings) -> None:
    """Raises SettingsError for a path that is no line of text, which is all that the supervisor's file can hold."""
    _check_path("RAGKEEPER_HOME", str(settings.home))
    _check_path("Python", sys.executable)


def _check_path(name: str, path: str) -> None:
    if "\n" in path or "\r" in path:
        raise SettingsError(f"{name}: {path!r} has a line break in it; `ragkeeper serve` needs a path without.")
    try:
        path.encode(locale.getpreferredencoding(do_setlocale=False))
    except UnicodeEncodeError as error:
        raise SettingsError(
            f"{name}: {path!r} is no text in this locale; `ragkeeper serve` needs one that is."
        ) from error


def check_ports(settings: Settings, servers: Sequence[str] = ("admin", "api")) -> None:
    """Raises SettingsError when the host, or the port of one of these servers, can't be listened on."""
    # The supervisor removes this file when it ends well. After any other end its programs may still be ending.
    deadline = time.monotonic() + (_LEAVING_S if _pid_file(settings.home).exists() else 0)
    for server in servers:
        variable, port = f"RAGKEEPER_{server.upper()}_PORT", port_of(settings, server)
        while (error := _refusal(settings.host, port)) is not None:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise SettingsError(f"RAGKEEPER_HOST: {settings.host} is no address of this machine.") from error
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                reason = (error.strerror or str(error)).lower()
                raise SettingsError(f"{variable}: can't listen on {settings.host} port {port}: {reason}.") from error
            time.sleep(0.1)


def port_of(settings: Settings, server: str) -> int:
    """The port of ``admin`` or ``api``."""
    return settings.admin_port if server == "admin" else settings.api_port


def _refusal(host: str, port: int) -> OSError | None:
    """What the system says to a listener there, or None."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None


def _pid_file(home: Path) -> Path:
    return home / "supervisord.pid"


def gunicorn_command(settings: Settings, server: str) -> list[str]:
    """The command of one server: ``admin`` or ``api``."""
    port = port_of(settings, server)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    options: dict[str, object] = {
        "config": "python:common.http.server_hooks",
        "bind": f"{host}:{port}",
        "worker-class": "common.http.server_worker.PlaneWorker",
        "workers": WORKERS,
        "graceful-timeout": STOP_S,
        "keep-alive": 5,
        "backlog": 2048,
        "log-level": "warning",
        "limit-request-line": 8190,
        "limit-request-fields": 100,
        "limit-request-field_size": 8190,
        # Who is believed, and how far, is decided by common.http.forwarded alone; gunicorn believes this machine.
        "forwarded-allow-ips": "",
        "header-map": "drop",
    }
    # Its workers show that they are alive by touching a file; one on a disk may keep them waiting.
    if os.access("/dev/shm", os.W_OK):  # noqa: S108
        options["worker-tmp-dir"] = "/dev/shm"  # noqa: S108
    listed = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "gunicorn", "--preload", "--no-control-socket", *listed, _APPS[server]]


def worker_command() -> list[str]:
    """The command of the worker."""
    return [sys.executable, "-m", "common.worker"]


def environment() -> dict[str, str]:
    """The environment of the servers, and of the supervisor and what it starts: this one, with a frugal allocator.

    Whoever has set up the allocator otherwise keeps that.
    """
    return {**_ALLOCATOR, **os.environ}


def write_supervisor_file(settings: Settings) -> Path:
    """Write the supervisor's configuration into the home, readable by its owner only.

    Its programs read the same settings as this process, so the only secret in it is that of its own control socket.
    """
    home = settings.home
    programs = {
        "admin": gunicorn_command(settings, "admin"),
        "api": gunicorn_command(settings, "api"),
        "worker": worker_command(),
    }
    control, password = _control_socket(home), secrets.token_hex(16)
    sections = [
        f"[unix_http_server]\nfile={_quoted(str(control))}\nchmod=0600\nusername=ragkeeper\npassword={password}",
        "[supervisord]\nnodaemon=true\nloglevel=warn\n"
        # In the foreground it says everything on its output, too.
        "logfile=/dev/null\nlogfile_maxbytes=0\n"
        f"pidfile={_quoted(str(_pid_file(home)))}\nchildlogdir={_quoted(str(home))}\n"
        + ("user=root" if os.geteuid() == 0 else ""),
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        f"[supervisorctl]\nserverurl=unix://{_quoted(str(control))}\nusername=ragkeeper\npassword={password}",
        # One group: its programs are told to stop at the same moment, not one after the other.
        f"[group:ragkeeper]\nprograms={','.join(programs)}",
        *(_program(home, name, command) for name, command in programs.items()),
    ]
    path = home / "supervisord.conf"
    draft = home / ".supervisord.conf"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n\n".join(sections) + "\n")
    draft.replace(path)
    return path


def _program(home: Path, name: str, command: list[str]) -> str:
    return "\n".join(
        [
            f"[program:{name}]",
            f"command={_quoted(shlex.join([*_tethered(), *command]))}",
            # Their output goes to the supervisor's own (common.cli.foreground).
            "stdout_logfile=NONE",
            "stderr_logfile=NONE",
            "autorestart=true",
            "startsecs=1",
            "startretries=1000000",
            f"stopwaitsecs={STOP_S + 1}",
            "killasgroup=true",
        ]
    )


def append_output() -> None:
    """Let the output, where it is a file, be written at its end only, also when somebody has cut it meanwhile."""
    for descriptor in (1, 2):
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)


def _tethered() -> list[str]:
    """The start of a command that ends with the supervisor, which this process turns into under the same number."""
    return [sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid())]


def _control_socket(home: Path) -> Path:
    """In the home; where the home's path is too long for a socket, in a private folder that is named after it.

    The supervisor's file in the home says where it is.
    """
    path = home / "supervisor.sock"
    if not _fits(path):
        name = f"ragkeeper-{os.getuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}/supervisor.sock"
        places = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir())
        path = next((Path(place, name) for place in places if place and _fits(Path(place, name))), Path("/tmp", name))  # noqa: S108
        _make_private(path.parent)
    path.unlink(missing_ok=True)
    return path


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _SOCKET_PATH_BYTES


def _make_private(folder: Path) -> None:
    """Make a folder for this user alone, in a place where others may have been first. Raises SettingsError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SettingsError(f"RAGKEEPER_HOME: {folder}, for the control socket, is not this user's alone; remove it.")


def _quoted(text: str) -> str:
    """A value as the supervisor's file takes it, and reads it as it was.

    Per cent signs start an expansion there, %(here)s even where they are doubled, a semicolon or # after a space starts
    a comment, and space at the end is dropped: unless an expansion that is empty stands between.
    """
    escaped = text.replace("%", "%%")
    for mark in "(;#":
        escaped = escaped.replace(mark, _NOTHING + mark)
    return escaped + _NOTHING if escaped != escaped.rstrip() else escaped
