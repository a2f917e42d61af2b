"""``ragkeeper keys …``: the secret keys of the home."""

from __future__ import annotations

import os

import typer

from common.cli.console import JsonFlag, hint, say, show_json
from common.cli.offline import opened, sentences
from common.services import key_rotation

keys = typer.Typer(no_args_is_help=True, help="The keys that sign sessions and encrypt what is stored.")


@keys.callback()
def _group() -> None:
    """Named even while there is one command only."""


@keys.command("rotate")
def rotate(as_json: JsonFlag = False) -> None:
    """Make a new secret key, and bring what is stored under it.

    May be done while everything runs. Sessions that the old key signed go on until they end. What breaks off is
    finished when the command is run again. Restart the processes afterwards, one by one, so that they sign with the
    new key.
    """
    os.umask(0o077)
    with sentences():
        plane = opened()
        try:
            done = key_rotation.rotate(plane)
        finally:
            for store in (plane.database, plane.cache, plane.documents):
                store.close()
    if as_json:
        show_json({"new_key": done.new_key, "renewed": done.renewed, "lost": list(done.lost)})
    else:
        say("Made a new secret key." if done.new_key else "Made no new key: what is stored was not all under this one.")
        say(f"Stored secrets brought under it: {done.renewed}.")
        hint("Restart the processes, so that they sign with it; older keys go on reading what they signed.")
    for place in done.lost:
        hint(f"ragkeeper: warning: no key opens {place}: it must be entered again.")
    if done.lost:
        raise typer.Exit(1)
