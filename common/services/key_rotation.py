"""Rotation of the secret key: a new one comes first, and what older ones encrypted is brought under it.

What older keys signed stays good until it ends, so they are kept. Each step can be repeated, so a rotation that broke
off is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from common.core.audit_tags import EventTag
from common.core.errors import PlaneError
from common.core.variables import VARIABLES
from common.services import audit
from common.services.keys import put_first
from common.services.plane import Plane
from common.services.principal import system

# Rows that are read at once.
_BATCH = 200


class KeyIsConfigured(PlaneError):
    """The secret key is given from outside, where this program can't put another one."""

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"The secret key is given by {origin}, so it is rotated there: set RAGKEEPER_SECRET_KEY to a new key, a "
            "comma and the key of now, restart every process, and run `ragkeeper keys rotate` again."
        )


class Rotation(NamedTuple):
    """What was done: whether a new key was made, and how many stored secrets were brought under the first key.

    ``lost`` are the places of those that no key opens, but for those of the past: nobody can enter these again.
    """

    new_key: bool
    renewed: int
    lost: tuple[str, ...]


class _Column(NamedTuple):
    """A column that holds encrypted or sealed texts, and the column that tells its rows apart.

    ``names`` are the settings of which it does, where it holds those of any, and ``past`` says that none counts now.
    """

    table: str
    key: str
    column: str
    names: tuple[str, ...] = ()
    past: bool = False


# In jobs there are codes that are valid for minutes; older keys open them for as long.
_SECRETS = tuple(name for name, variable in VARIABLES.items() if variable.secret)
_COLUMNS = (
    _Column("rk_variable", "name", "value", _SECRETS),
    _Column("rk_variable_change", "id", "value", _SECRETS, past=True),
    _Column("tenant_langfuse", "tenant_id", "secret_key"),
)


def rotate(plane: Plane) -> Rotation:
    """Make a new secret key, unless it is configured or an earlier rotation is unfinished, and renew what is stored.

    Raises KeyIsConfigured where there is but one configured key, and StoreUnavailable.
    """
    configured = plane.settings.secret_keys
    if len(configured) == 1:
        raise KeyIsConfigured(plane.settings.origins.get("secret_keys", "the configuration"))
    new_key = not configured and not _unfinished(plane)
    if new_key:
        with plane.database.transaction():
            # Two who read the file of keys and then write it would lose a key, and all that is encrypted with it.
            plane.database.lock("keys")
            put_first(plane.settings, plane.cache)
            plane.keys.look_again()
            after = {"keys": plane.keys.count}
            audit.record(plane, EventTag.KEYS_ROTATE, system("keys rotate"), target=("keys", "secret_key"), after=after)
    renewed, lost = 0, []
    for column in _COLUMNS:
        for key, stored in _rows(plane, column):
            fresh = plane.keys.renewed(stored)
            if fresh is not None:
                renewed += _replace(plane, column, key, stored, fresh)
            elif not column.past and not _opens(plane, stored):
                lost.append(f"{column.table} {key}")
    return Rotation(new_key, renewed, tuple(lost))


def _opens(plane: Plane, stored: str) -> bool:
    """Whether any key opens this, one that another rotation has just made included."""
    if plane.keys.opens(stored):
        return True
    plane.keys.look_again()
    return plane.keys.opens(stored)


def _unfinished(plane: Plane) -> bool:
    return any(plane.keys.renewed(stored) is not None for column in _COLUMNS for _, stored in _rows(plane, column))


def _rows(plane: Plane, column: _Column) -> Iterator[tuple[str | int, str]]:
    """Key and text of every row that holds something encrypted, read in pieces."""
    table, key, text, names, _ = column
    of_names = f" AND name IN ({', '.join('?' * len(names))})" if names else ""
    last: str | int | None = None
    while True:
        after = "" if last is None else f" AND {key} > ?"
        rows = plane.database.all(
            f"SELECT {key}, {text} FROM {table} WHERE ({text} LIKE ? OR {text} LIKE ?){of_names}{after} "
            f"ORDER BY {key} LIMIT {_BATCH}",
            ("rk1:%", "rk2:%", *names, *(() if last is None else (last,))),
        )
        if not rows:
            return
        yield from rows
        last = rows[-1][0]


def _replace(plane: Plane, column: _Column, key: str | int, stored: str, fresh: str) -> int:
    """Write one row, unless somebody has changed it meanwhile; how many that were."""
    table, name, text, *_ = column
    return plane.database.run(f"UPDATE {table} SET {text} = ? WHERE {name} = ? AND {text} = ?", (fresh, key, stored))
