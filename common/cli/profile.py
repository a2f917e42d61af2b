"""The stored profiles: which servers the online commands speak to, and the sessions they use."""

from __future__ import annotations

import json
import os
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.cli.console import fail

#: The name of the login to use, as ``--profile`` says.
chosen: ContextVar[str] = ContextVar("chosen", default="default")


@dataclass(frozen=True)
class Profile:
    """One login. The session is a secret: the file is readable by its owner only."""

    url: str
    api_url: str
    email: str
    session: str = field(repr=False)


def path() -> Path:
    """Where the profiles lie."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "ragkeeper" / "profiles.json"


def save(profile: Profile) -> None:
    """Keep a login under the chosen name."""
    _write({**_read(), chosen.get(): asdict(profile)})


def load() -> Profile:
    """The login of the chosen name; ends the command with a sentence when there is none."""
    stored = find()
    if stored is None:
        name = chosen.get()
        which = "" if name == "default" else f" with the profile {name}"
        fail(f"you are not logged in{which}; run `ragkeeper login http://127.0.0.1:9381`.")
    return stored


def find() -> Profile | None:
    """The login of the chosen name, or None."""
    stored = _read().get(chosen.get())
    try:
        return None if stored is None else Profile(**stored)
    except TypeError:
        fail(f"{path()} is not what ragkeeper wrote; delete it and log in again.")


def forget() -> None:
    """Delete the login of the chosen name."""
    _write({name: stored for name, stored in _read().items() if name != chosen.get()})


def _read() -> dict[str, Any]:
    try:
        stored = json.loads(path().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        fail(f"{path()} can't be read ({type(error).__name__}); delete it and log in again.")
    return stored if isinstance(stored, dict) else {}


def _write(profiles: dict[str, Any]) -> None:
    """Mode 0600, whole or not at all."""
    target = path()
    draft = target.with_suffix(f".{os.getpid()}")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(profiles, file, indent=2)
        draft.replace(target)
    except OSError as error:
        fail(f"{target} can't be written ({error.strerror}); XDG_CONFIG_HOME names another place.")
