"""The stored profile: which server the online commands speak to, and the session they use."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from common.cli.console import fail


@dataclass(frozen=True)
class Profile:
    """One login. The session is a secret: the file is readable by its owner only."""

    url: str
    api_url: str
    email: str
    session: str


def path() -> Path:
    """Where the profile lies."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "ragkeeper" / "profile.json"


def save(profile: Profile) -> None:
    """Write the profile, mode 0600, whole or not at all."""
    target = path()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = target.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(profile), file)
    draft.replace(target)


def load() -> Profile:
    """The stored profile; ends the command with a sentence when there is none."""
    try:
        return Profile(**json.loads(path().read_text()))
    except FileNotFoundError:
        fail("you are not logged in; run `ragkeeper login http://127.0.0.1:9381`.")
    except (OSError, ValueError, TypeError):
        fail(f"the profile {path()} can't be read; run `ragkeeper login URL` again.")


def forget() -> None:
    """Delete the profile."""
    path().unlink(missing_ok=True)
