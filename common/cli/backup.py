"""``ragkeeper backup`` and ``ragkeeper restore``: the home in one file, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from common.cli import serving
from common.cli.console import err, hint, say
from common.cli.offline import sentences, settings_with_warnings
from common.core.errors import StoreUnavailable
from common.services import backup as backups
from common.services import restore as restoring
from common.services.archive import Manifest

Archive = Annotated[Path, typer.Argument(help="The archive, a tar file.", dir_okay=False)]


def backup(path: Archive) -> None:
    """Write the home into one file, also while the plane is running: databases, objects and keys.

    The file is as secret as the home, and readable by its owner only. What is on servers is not in it;
    docs/operations.md says how to back that up. Nothing is overwritten.
    """
    os.umask(0o077)
    with sentences(), err.status("Backing up …") as status:
        loaded = settings_with_warnings()
        manifest = backups.back_up(loaded, path, lambda what: status.update(f"Backing up {what} …"))
    say(f"{path}: {manifest.summary()}")
    _mention_what_is_missing(manifest)
    try:
        backups.note(loaded, path, manifest)
    except StoreUnavailable as error:
        # A backup is wanted most when nothing can be written.
        hint(f"The backup is whole, but the audit trail does not tell of it: {error.reason}.")


def restore(
    path: Archive,
    force: Annotated[bool, typer.Option("--force", help="Move a home that is not empty aside.")] = False,
) -> None:
    """Make the home out of a backup, checked first, whole or not at all. Stop everything that uses the home before.

    Everybody has to log in again. What was done after the backup is undone: accounts that were switched off since are
    on again, and tokens and tenants that were deleted are back.
    """
    os.umask(0o077)
    with sentences(), err.status("Restoring …") as status:
        loaded = settings_with_warnings()
        if force and loaded.home.is_dir() and any(loaded.home.iterdir()):
            serving.hold_home(loaded.home)
        manifest, aside = restoring.restore(
            loaded, path, lambda what: status.update(f"Restoring: {what} …"), force=force
        )
    say(f"{loaded.home}: {manifest.summary()}")
    if aside is not None:
        hint(f"What was there before is in {aside}; remove it when it is no longer needed.")
    _mention_what_is_missing(manifest)


def _mention_what_is_missing(manifest: Manifest) -> None:
    if manifest.not_included:
        hint(f"Not in the archive: {', '.join(manifest.not_included)}.")
