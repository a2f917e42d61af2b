"""Commands that work on the home: serve, the single processes, migrate, recover-admin, config."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Annotated, NoReturn

import typer

from common import settings as configuration
from common.cli import serving
from common.cli.console import JsonFlag, fail, say, show_json, show_rows
from common.core.errors import PlaneError, StoreUnavailable
from common.migrations.runner import pending
from common.services import database_mark, first_start, keys, opening, recovery
from common.services.plane import Plane
from common.settings import Settings, SettingsError
from common.worker import process

# For servers that a start finds hanging, before they are left to the programs that it starts, which ask once more.
_PATIENCE_S = 0.5
config = typer.Typer(no_args_is_help=True, help="Look at the settings.")


@contextmanager
def sentences() -> Iterator[None]:
    """Turns what can be wrong with settings, home and stores into one sentence."""
    try:
        yield
    except SettingsError as error:
        fail(str(error), 2)
    except StoreUnavailable as error:
        fail(f"the {error.store} store can't be used: {error.reason}. `ragkeeper config show` says where it is.")
    except PlaneError as error:
        setting = error.field if error.field and error.field.startswith("RAGKEEPER_") else None
        fail(f"{setting}: {error.message}" if setting else error.message)
    except BrokenPipeError:
        # Whoever reads the output has had enough of it.
        raise
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror or error}.")


def settings_with_warnings() -> Settings:
    """The settings; what is odd about them is said on standard error."""
    loaded = configuration.load()
    for warning in loaded.warnings:
        typer.echo(f"ragkeeper: warning: {warning}", err=True)
    return loaded


def opened() -> Plane:
    """The plane of the configured home, migrated; no home is made. Raises SettingsError where there is none."""
    loaded = configuration.load()
    _check_home(loaded)
    return opening.open_plane(loaded)


def _has_no_key(loaded: Settings) -> bool:
    """Whether a key would be made for a database on a server, in whose trail nothing else is signed with it."""
    kept_elsewhere = loaded.secret_keys or loaded.redis is not None
    # Not the mark of a database: that names its host, which an operator may have changed.
    return loaded.mysql is not None and not kept_elsewhere and not (loaded.home / keys.OWN).exists()


def _check_home(loaded: Settings) -> None:
    """Raises SettingsError where a plane has never been: what a new one says would be taken for the real one's."""
    if not loaded.home.is_dir():
        missing = f"{loaded.home}: there is no such folder"
    elif loaded.mysql is None and not loaded.database_path.exists() and not database_mark.is_left(loaded):
        missing = f"{loaded.home}: its database {loaded.database_path} is not there"
    elif _has_no_key(loaded):
        missing = f"{loaded.home}: no plane has been in it, so it has no key of the database's plane"
    else:
        return
    raise SettingsError(f"RAGKEEPER_HOME: {missing}; set it to the home of the plane, which `ragkeeper serve` makes.")


def serve() -> None:
    """Run the admin server, the user API and the worker in the foreground, under one supervising process.

    Everything is kept in RAGKEEPER_HOME. The first start makes the first administrator: with RAGKEEPER_ADMIN_PASSWORD
    if that is given, else with a generated password that is printed once. Stop with ^C or SIGTERM;
    it ends with its terminal, too, except under nohup.

    It listens on RAGKEEPER_HOST (127.0.0.1), the admin server on RAGKEEPER_ADMIN_PORT (9381), the user API on
    RAGKEEPER_API_PORT (9380). `ragkeeper config show` has every setting; `ragkeeper health` asks how it is.
    """
    _begin()
    with sentences():
        loaded = settings_with_warnings()
        serving.check_paths(loaded)
        opening.make_home(loaded)
        opening.check_tables(loaded)
        serving.hold_home(loaded.home)
        serving.check_ports(loaded)
        # The last step that can fail before there is a password to be shown.
        path = serving.write_supervisor_file(loaded)
        administrator = _first_administrator(loaded)
    say(f"Admin server  {first_start.address(loaded, loaded.admin_port)}   (API documents at /docs)")
    say(f"User API      {first_start.address(loaded, loaded.api_port)}   (API documents at /docs)")
    say(f"Home          {loaded.home}")
    _become([sys.executable, "-m", "common.cli.foreground", "-n", "-c", str(path)], administrator)


def admin() -> None:
    """Run the admin server alone in the foreground, for a supervisor of your own.

    Like `serve` it makes the first administrator where there is none.
    """
    _begin()
    with sentences():
        loaded = settings_with_warnings()
        opening.make_home(loaded)
        opening.check_tables(loaded)
        serving.check_ports(loaded, ("admin",))
        administrator = _first_administrator(loaded)
    _become(serving.gunicorn_command(loaded, "admin"), administrator)


def api() -> None:
    """Run the user API alone in the foreground, for a supervisor of your own."""
    _begin()
    with sentences():
        loaded = settings_with_warnings()
        opening.make_home(loaded)
        opening.check_tables(loaded)
        serving.check_ports(loaded, ("api",))
    _forget_given_password()
    _become(serving.gunicorn_command(loaded, "api"), [])


def _begin() -> None:
    # What any of the processes writes is its owner's alone.
    os.umask(0o077)


def _first_administrator(loaded: Settings) -> list[str]:
    """Make it where there is none; what to say of it.

    While the database server is down it is left to the admin server, with the given password where there is one; so
    it is when the server has no answer in a moment, which a start would wait for twice.
    """
    plane, down = opening.open_unready(opening.hurried(loaded, _PATIENCE_S))
    try:
        if down is not None:
            return [
                "",
                f"Not ready: the {down.store} store can't be used: {down.reason}.",
                "What needs it is served once it can be, without a restart. `ragkeeper config show` says where it is.",
            ]
        # With the whole time limit: a password that is generated here must not be lost to an answer that comes late.
        plane.database.close()
        plane = replace(plane, settings=loaded, database=opening.database_of(loaded))
        generated = opening.first_administrator(plane)
        asleep = recovery.no_active_superuser(plane)
        _forget_given_password()
    finally:
        for store in (plane.database, plane.cache, plane.documents):
            store.close()
    if generated is not None:
        return first_start.first_words(loaded, generated)
    if asleep:
        return ["", "There is no active superuser. `ragkeeper recover-admin E-MAIL` makes one, also while this runs."]
    return []


def _forget_given_password() -> None:
    """What was needed for the first administrator is nobody's business from here on."""
    os.environ.pop("RAGKEEPER_ADMIN_PASSWORD", None)
    os.environ.pop("DEFAULT_SUPERUSER_PASSWORD", None)


def _become(command: list[str], last_words: list[str]) -> NoReturn:
    for line in last_words:
        say(line)
    sys.stdout.flush()
    serving.append_output()
    os.execve(command[0], command, serving.environment())  # noqa: S606 - no shell is wanted


def worker() -> None:
    """Run one worker in the foreground; several may run side by side."""
    raise typer.Exit(process.main())


def migrate() -> None:
    """Bring the database up to date; every start does the same."""
    with sentences():
        loaded = settings_with_warnings()
        opening.make_home(loaded)
        opening.check_tables(loaded)
        database = opening.database_of(loaded)
        database_mark.check(loaded, database)
        steps = pending(database)
        opening.open_plane(loaded)
    for step in steps:
        say(f"applied {step.number:04d} {step.name}")
    if not steps:
        say("nothing to do: the database is up to date")


def recover_admin(
    email: Annotated[str, typer.Argument(help="The account to make superuser; made if there is none.")],
) -> None:
    """Make an account an active superuser with a new generated password, shown once; its sessions end."""
    with sentences():
        password = recovery.recover_admin(opened(), email)
    say(f"Administrator       {email}")
    say(f"Generated password  {password.reveal()}")
    say("It must be changed before anything else.")


@config.command("show")
def config_show(as_json: JsonFlag = False) -> None:
    """Every setting with its value, secrets masked, and where the value came from."""
    with sentences():
        lines = [asdict(line) for line in configuration.describe(settings_with_warnings())]
    if as_json:
        show_json(lines)
        return
    show_rows(lines, ("name", "value_masked", "origin"), "no settings")
