"""Log levels of the server processes: shown, and changed while they run."""

from __future__ import annotations

import json
import logging

from common.core.audit_tags import EventTag
from common.core.errors import BadLogLevel
from common.services import audit, level_watch
from common.services.plane import Plane
from common.services.principal import Principal

MAX_NAME_LENGTH = 128
# Every name becomes a logger that stays as long as the process: far more than there are packages to set apart.
MAX_PACKAGES = 200


def get_log_levels(plane: Plane) -> dict[str, str]:
    """Level names by package as they hold in this process, ``root`` first. Raises StoreUnavailable (cache).

    Lists the packages that have a level of their own; the others follow the package above them.
    """
    plane.level_watch.refresh(plane.cache)
    loggers = logging.getLogger().manager.loggerDict
    own = {
        name: logging.getLevelName(logger.level)
        for name, logger in sorted(loggers.items())
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET
    }
    return {"root": logging.getLevelName(logging.getLogger().level), **own}


def set_log_level(plane: Plane, actor: Principal, pkg_name: str, level: str) -> dict[str, str]:
    """Set a package's level: here at once, in the other server processes within seconds; returns what was set.

    ``NOTSET`` lets a package follow the one above it again. Raises BadLogLevel and StoreUnavailable (cache).
    """
    package, name = check_log_level(pkg_name, level)
    # A cache store that is down is met here, where nobody waits behind a transaction.
    plane.level_watch.refresh(plane.cache)
    with plane.database.transaction():
        plane.database.lock("log_levels")
        levels = level_watch.stored(plane.cache)
        if package not in levels and len(levels) >= MAX_PACKAGES:
            raise BadLogLevel(f"At most {MAX_PACKAGES} packages can have a level of their own.", field="pkg_name")
        audit.record(
            plane,
            EventTag.SETTING_LOG_LEVEL,
            actor,
            target=("log_level", package),
            before={"level": levels.get(package)},
            after={"level": name},
        )
        plane.cache.set(level_watch.KEY, json.dumps(levels | {package: name}))
    plane.level_watch.refresh(plane.cache)
    return {"pkg_name": package, "level": name}


def check_log_level(pkg_name: object, level: object) -> tuple[str, str]:
    """Package and level name in their one form. Raises BadLogLevel in the words that RAGFlow's clients know."""
    if not isinstance(pkg_name, str) or not isinstance(level, str) or not pkg_name or not level:
        raise BadLogLevel("pkg_name and level are required", field="level" if pkg_name else "pkg_name")
    numbers = logging.getLevelNamesMapping()
    if level.upper() not in numbers:
        raise BadLogLevel(
            f"Invalid log level: must be one of {', '.join(sorted(numbers, key=numbers.__getitem__))}", field="level"
        )
    if len(pkg_name) > MAX_NAME_LENGTH or not _is_dotted(pkg_name):
        raise BadLogLevel(
            f"pkg_name: a module's dotted name of at most {MAX_NAME_LENGTH} characters.", field="pkg_name"
        )
    return pkg_name, logging.getLevelName(numbers[level.upper()])


def _is_dotted(name: str) -> bool:
    return name.isascii() and all(part.replace("-", "_").isidentifier() for part in name.split("."))
