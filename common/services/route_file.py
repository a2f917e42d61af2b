"""The file that says which permission each route of the RAGFlow behind asks for."""

from __future__ import annotations

from pathlib import Path

import yaml

from common.core.permissions import Registry
from common.core.route_table import RouteTable, TableError, parse_table
from common.settings import SettingsError


class RouteFile:
    """The table, read when it is first asked for: only one of the servers needs it."""

    def __init__(self, path: Path, registry: Registry) -> None:
        self._path = path
        self._registry = registry
        self._table: RouteTable | None = None

    def table(self) -> RouteTable:
        """The table of the file. Raises SettingsError, which names the file and what is wrong in it."""
        if self._table is None:
            self._table = self._read()
        return self._table

    def _read(self) -> RouteTable:
        try:
            document = yaml.safe_load(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"{self._path}: it can't be read ({error.strerror}).") from error
        except (yaml.YAMLError, ValueError) as error:
            raise SettingsError(f"{self._path}: it is no valid YAML.") from error
        try:
            return parse_table(document, self._registry)
        except TableError as error:
            raise SettingsError(f"{self._path}: {error}") from error
