"""A server process: logging, settings and stores, opened once when gunicorn loads the app."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from functools import partial

from flask import Flask

from common.core.errors import PlaneError, StoreUnavailable
from common.http import bodies
from common.http.access import write_line
from common.http.bridge import Bridge, Fixed
from common.http.health_front import HealthFront
from common.http.route import Route, requests_to
from common.secret import Secret
from common.services import level_watch
from common.services.first_start import catch_up, first_words
from common.services.opening import first_administrator, open_unready
from common.services.plane import Plane
from common.settings import SettingsError, load

log = logging.getLogger(__name__)


def served(plane: Plane, app: Flask, pings: Mapping[str, Fixed], once_open: Callable[[], None] | None = None) -> Bridge:
    """What gunicorn serves: the app behind the bridge, with the answers to ``pings`` given before it."""
    settings = plane.settings
    routes: list[Route] = app.extensions["ragkeeper.routes"]
    # What is there now stays: left out of collections, it also stays shared among the workers that are forked next.
    gc.collect()
    gc.freeze()
    return Bridge(
        app,
        fixed=pings,
        max_body=settings.max_content_length,
        max_upload=bodies.most_bytes(settings.max_content_length, uploads=True),
        drain_s=settings.drain_s,
        aside=HealthFront(plane).answer,
        uploads=requests_to(route for route in routes if route.uploads),
        hashing=requests_to(route for route in routes if route.hashes),
        waiting=requests_to(route for route in routes if route.waits),
        at_once=requests_to(route for route in routes if route.at_once and settings.mysql is None),
        once_open=once_open,
    )


def opened_plane(*, make_administrator: bool) -> tuple[Plane, Callable[[], None] | None]:
    """The plane of this process, from the environment and the configuration file.

    With ``make_administrator`` the first administrator is made where there is none, and a password that was generated
    goes to standard output: whoever started this process may have found the database down. Where it still is, also what
    is to run in each process that serves, and ends when the database is there: it migrates and does the same.
    """
    settings = load()
    level_watch.start_logging(settings.log_levels)
    plane, down = open_unready(settings)
    if down is None and make_administrator:
        try:
            _introduce(plane, partial(first_administrator, plane))
        except StoreUnavailable as error:
            down = error
    plane.level_watch.follow(plane.cache)
    # gunicorn forks after this: each thread of each worker opens connections of its own.
    for store in (plane.database, plane.cache, plane.documents):
        store.close()
    if down is None:
        return plane, None
    log.warning("not ready: the %s store can't be used: %s", down.store, down.reason)
    return plane, partial(_introduce, plane, partial(catch_up, plane, make_administrator, told=down.why))


def _introduce(plane: Plane, make: Callable[[], Secret | None]) -> None:
    """Have the first administrator made, if there is one to make. Raises StoreUnavailable."""
    try:
        password = make()
    except StoreUnavailable:
        raise
    except SettingsError as error:
        log.error("%s", error)
        return
    except PlaneError as error:
        log.error("the first administrator can't be made: %s: %s", error.field, error.message)
        return
    if password is not None:
        for line in first_words(plane.settings, password):
            write_line(line.encode())
