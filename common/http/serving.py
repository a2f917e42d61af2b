"""A server process: logging, settings and stores, opened once when gunicorn loads the app."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Mapping

from common.http.bridge import Bridge, Fixed
from common.http.health_front import HealthFront
from common.http.wsgi_types import Application
from common.services import level_watch
from common.services.opening import open_plane
from common.services.plane import Plane
from common.settings import load


def start_logging(levels: dict[str, str] | None = None) -> None:
    """Log lines go to standard error; access lines, which stand apart, to standard output (common.http.access)."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    level_watch.apply(levels or {})


def served(plane: Plane, app: Application, pings: Mapping[str, Fixed]) -> Bridge:
    """What gunicorn serves: the app behind the bridge, with the answers to ``pings`` given before it."""
    settings = plane.settings
    # What is there now stays: left out of collections, it also stays shared among the workers that are forked next.
    gc.collect()
    gc.freeze()
    return Bridge(
        app,
        fixed=pings,
        max_body=settings.max_content_length,
        drain_s=settings.drain_s,
        aside=HealthFront(plane).answer,
    )


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
