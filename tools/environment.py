"""Bring one of the project's virtual environments up to date.

    python3 tools/environment.py runtime|dev|contract

The standard library only, in a syntax that an older Python can read: this file is what tells its owner that
it is too old. An environment that is up to date costs a hash of its locks and no start of pip, so that every
task can ask for it first.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from shutil import rmtree
from typing import List, NamedTuple, Tuple

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"]
Version = Tuple[int, ...]


class Environment(NamedTuple):
    """A folder, the lock that goes into it, and the Pythons that may run it: from `oldest`, below `below`."""

    folder: Path
    lock: str
    has_project: bool
    oldest: Version
    below: Version
    python_missing: str


TOO_OLD = "Python 3.11 or newer is needed; install it: apt-get install python3 python3-venv"
NOT_OURS = (
    "{} is somebody else's and its environment is not up to date; run this task as its owner, or in a clone of your own"
)
NO_CONTRACT_PYTHON = (
    "the published ragflow-cli runs on Python 3.10, 3.11 and 3.12 only and none of them is here; "
    "install one: apt-get install python3.12-venv"
)
ENVIRONMENTS = {
    "runtime": Environment(Path(".venv"), "requirements.lock", True, (3, 11), (4,), TOO_OLD),
    "dev": Environment(Path(".venv"), "requirements-dev.lock", True, (3, 11), (4,), TOO_OLD),
    "contract": Environment(
        Path(".venv-contract"), "requirements-contract.lock", False, (3, 10), (3, 13), NO_CONTRACT_PYTHON
    ),
}


class CannotBuild(Exception):
    """The environment can't be made on this machine; the message says why and what to install."""


def main(name: str) -> int:
    """Bring the environment `name` up to date; returns the exit status."""
    os.chdir(ROOT)
    if not os.access(ROOT, os.W_OK):
        # Somebody else's clone can be used as it is, and not be changed.
        if is_current(name):
            return 0
        print(f"ragkeeper: {NOT_OURS.format(ROOT)}", file=sys.stderr)
        return 1
    try:
        # Two tasks started at once must not install into one folder. The lock goes with the last process that has it:
        # when this one is killed, what it has started goes on.
        with Path(".environment.lock").open("w") as lock:
            os.set_inheritable(lock.fileno(), True)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_current(name):
                build(name)
    except (CannotBuild, OSError) as error:
        print(f"ragkeeper: {error}", file=sys.stderr)
        return 1
    return 0


def is_current(name: str) -> bool:
    """Whether it was finished from these very files, in this place, and its Python is still there."""
    folder = ENVIRONMENTS[name].folder
    if half_made(folder).exists() or not os.access(folder / "bin" / "python", os.X_OK):
        return False
    mark = made_from(name)
    return mark.exists() and mark.read_text() == fingerprint(name)


def build(name: str) -> None:
    """Install what the environment's lock names, and the project; begins afresh after a run that was killed.

    Raises CannotBuild.
    """
    environment = ENVIRONMENTS[name]
    folder = environment.folder
    started = time.monotonic()
    afresh = half_made(folder).exists() or not is_usable(environment)
    python = find_python(environment) if afresh else ""
    print(f"Installing {environment.lock} into {folder} (about a minute when it is new) ...", flush=True)
    if afresh:
        make_folder(folder, python)
    half_made(folder).touch()
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"]
    run([*pip, "--require-hashes", "-r", environment.lock], f"{environment.lock} could not be installed")
    if environment.has_project:
        # Neither an index nor a build environment: setuptools is in the lock.
        project = ["--no-index", "--no-build-isolation", "--editable", "."]
        run([*pip, *project], f"the project could not be installed into {folder}")
    made_from(name).write_text(fingerprint(name))
    if name == "dev":
        # The development lock is the runtime lock and more.
        made_from("runtime").write_text(fingerprint("runtime"))
    half_made(folder).unlink()
    print(f"... done in {time.monotonic() - started:.0f} s.", flush=True)


def fingerprint(name: str) -> str:
    """A hash of what the environment is made from, its place included: scripts in it carry their path."""
    environment = ENVIRONMENTS[name]
    digest = hashlib.sha256(str(ROOT).encode())
    digest.update(Path(environment.lock).read_bytes())
    if environment.has_project:
        # With the runtime lock in it, a changed runtime lock renews the development environment too.
        digest.update(Path("requirements.lock").read_bytes())
        digest.update(Path("pyproject.toml").read_bytes())
    return digest.hexdigest()


def made_from(name: str) -> Path:
    """Where the fingerprint of a finished environment is kept."""
    return ENVIRONMENTS[name].folder / f".{name}-made-from"


def half_made(folder: Path) -> Path:
    """The mark that stands in the folder while something is being installed into it."""
    return folder / ".half-made"


def is_usable(environment: Environment) -> bool:
    """Whether the folder is an environment made in this place, with a fitting Python and a working pip."""
    programs = environment.folder / "bin"
    python, pip = str(programs / "python"), programs / "pip"
    if not environment.oldest <= version_of(python) < environment.below or not succeeds([python, "-c", "import pip"]):
        return False
    # In a folder that was moved or copied, the programs still start the Python of the old place.
    return pip.exists() and f"{ROOT / programs}/" in pip.read_text(errors="replace")


def make_folder(folder: Path, python: str) -> None:
    """An empty environment in place of whatever was there."""
    rmtree(folder, ignore_errors=True)
    folder.mkdir()
    half_made(folder).touch()
    run([python, "-m", "venv", str(folder)], f"{python} could not make the virtual environment {folder}")


def find_python(environment: Environment) -> str:
    """The first Python on the path that may run the environment and can make one; raises CannotBuild."""
    fitting = [p for p in PYTHONS if environment.oldest <= version_of(p) < environment.below]
    for python in fitting:
        if succeeds([python, "-c", "import ensurepip, venv"]):
            return python
    if not fitting:
        raise CannotBuild(environment.python_missing)
    package = "python{}.{}-venv".format(*version_of(fitting[0]))
    raise CannotBuild(f"{fitting[0]} is here without its venv module; install it: apt-get install {package}")


def version_of(python: str) -> Version:
    """(major, minor) of a Python, (0, 0) if it doesn't start: a name on the path may be an empty shim."""
    script = "import sys; print(*sys.version_info[:2])"
    try:
        asked = subprocess.run([python, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return (0, 0)
    return tuple(int(part) for part in asked.stdout.split()) if asked.returncode == 0 else (0, 0)


def succeeds(command: List[str]) -> bool:
    """Whether the command ends with status 0; what it writes is dropped."""
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def run(command: List[str], failure: str) -> None:
    """Run a command silently; if it fails, show all that it wrote and raise CannotBuild with the sentence."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, close_fds=False
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        raise CannotBuild(f"{failure}; the reason stands above")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ENVIRONMENTS:
        sys.exit(f"usage: python3 tools/environment.py {'|'.join(ENVIRONMENTS)}")
    try:
        sys.exit(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit("ragkeeper: stopped; the next run begins afresh")
