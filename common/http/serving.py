"""A server process: logging, settings and stores, opened once when gunicorn loads the app."""

from __future__ import annotations

import logging
import sys

from common.http.probes import Application
from common.services import level_watch
from common.services.opening import open_plane
from common.services.plane import Plane
from common.settings import load

__all__ = ["Application", "opened_plane", "start_logging"]


def start_logging(levels: dict[str, str] | None = None) -> None:
    """Log lines go to standard error; access lines, which stand apart, to standard output (common.http.access)."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    level_watch.apply(levels or {})


def opened_plane() -> Plane:
    """The plane of this process, from the environment and the configuration file."""
    settings = load()
    start_logging(dict(settings.log_levels))
    plane = open_plane(settings)
    plane.level_watch.follow(plane.cache)
    # gunicorn forks after this: each thread of each worker opens connections of its own.
    for store in (plane.database, plane.cache, plane.documents):
        store.close()
    return plane
