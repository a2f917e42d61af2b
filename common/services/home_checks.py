"""What ``doctor`` looks at before it opens the plane: the home's files, its keys, its migrations."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.core.errors import StoreUnavailable
from common.migrations.runner import pending
from common.services import database_mark
from common.services.keys import load_keys
from common.services.opening import bring_up_to_date, database_of
from common.services.plane import Plane
from common.settings import Settings, SettingsError

State = Literal["ok", "fixed", "fixable", "problem"]
_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong, and how to put it right where that is safe."""

    message: str
    repair: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check: ``fixable`` waits for ``--fix``, a ``problem`` for a person."""

    check: str
    state: State
    message: str


def judged(check: str, troubles: Iterator[Trouble], *, fix: bool) -> list[Finding]:
    """The findings of one check, repaired where that is asked for and safe."""
    findings = []
    for trouble in troubles:
        state: State = "problem" if trouble.repair is None else "fixable"
        if fix and trouble.repair is not None:
            trouble.repair()
            state = "fixed"
        findings.append(Finding(check, state, trouble.message))
    return findings or [Finding(check, "ok", "")]


def examine_home(settings: Settings, *, fix: bool = False) -> tuple[list[Finding], bool]:
    """The findings about the home, and whether its plane can be opened. Changes nothing without ``fix``."""
    if not settings.home.is_dir():
        missing = f"{settings.home}: there is no such folder; `ragkeeper serve` makes it"
        return [Finding("home", "problem", missing)], False
    findings = judged("home", _about_modes(settings.home), fix=fix)
    had_one = database_mark.is_left(settings)
    if settings.mysql is None and not settings.database_path.exists() and not had_one:
        missing = f"{settings.database_path}: there is no database; `ragkeeper serve` makes it"
        return [*findings, Finding("migrations", "problem", missing)], False
    for check, troubles in (("keys", _about_keys(settings)), ("migrations", _about_migrations(settings))):
        found = judged(check, troubles, fix=fix)
        findings += found
        if any(finding.state in ("fixable", "problem") for finding in found):
            return findings, False
    return findings, True


def _about_modes(home: Path) -> Iterator[Trouble]:
    """Password hashes, keys and objects lie in here: nobody but the owner may read any of it."""
    for path in (home, *sorted(home.iterdir())):
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            continue
        if os.geteuid() not in (0, found.st_uid):
            yield Trouble(f"{path} belongs to another user of this machine; give it to the one that runs ragkeeper")
        elif found.st_mode & _OTHERS:
            yield Trouble(f"{path} is open to other users of this machine", _closing(path, found.st_mode))


def _closing(path: Path, mode: int) -> Callable[[], None]:
    return lambda: path.chmod(stat.S_IMODE(mode) & ~_OTHERS)


def _about_keys(settings: Settings) -> Iterator[Trouble]:
    made_here = {
        "secret_key": (
            settings.secret_keys,
            "sessions end, and secret settings and Langfuse secrets must be entered again",
        ),
        "password_key.pem": (settings.password_private_key, "clients that keep the public key must fetch the new one"),
    }
    lost = [
        f"{settings.home / name} is missing; bring it back from a backup, or a new one is made: {price}"
        for name, (configured, price) in made_here.items()
        if not configured and not (settings.home / name).exists()
    ]
    for message in lost:
        yield Trouble(message, lambda: _load(settings))
    if not lost:
        try:
            load_keys(settings)
        except (SettingsError, OSError) as error:
            yield Trouble(str(error))


def _load(settings: Settings) -> None:
    load_keys(settings)


def _about_migrations(settings: Settings) -> Iterator[Trouble]:
    database = database_of(settings)
    try:
        database_mark.check(settings, database)
        steps = pending(database)
        if steps:
            names = ", ".join(f"{step.number:04d} {step.name}" for step in steps)
            yield Trouble(f"not applied: {names}", lambda: _migrate(settings))
    except database_mark.DatabaseEmptied as error:
        yield Trouble(error.reason)
    except StoreUnavailable as error:
        what = settings.database_path if settings.mysql is None else "the metadata store"
        yield Trouble(f"{what} can't be used: {error.reason}")
    finally:
        database.close()


def _migrate(settings: Settings) -> None:
    database = database_of(settings)
    try:
        bring_up_to_date(settings, database, Plane.now_ms())
    finally:
        database.close()
