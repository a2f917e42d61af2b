"""Reads ``service_conf.yaml`` and ``local.service_conf.yaml`` in RAGFlow's layout, by its rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILE_NAME = "service_conf.yaml"

# ${NAME:-default}, the only form in RAGFlow's Docker template. Any other dollar is meant literally.
_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*):-([^}]*)\}")


class SettingsError(Exception):
    """A setting that cannot be used: one sentence with its name and what was expected, never its value."""


@dataclass(frozen=True)
class ConfigFile:
    """The top-level sections, in the file's order, and the name of the file that each one came from."""

    sections: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def read_config(place: Path, environ: Mapping[str, str], *, required: bool) -> ConfigFile:
    """Read a configuration file, or the one in a folder, and the ``local.`` one beside it.

    A top-level key of the local file replaces the whole section, as RAGFlow has it; one without a value
    takes the section away. ``required`` says whether a missing file is an error or an empty configuration.
    Raises SettingsError: missing, unreadable, no YAML, or not a mapping of sections.
    """
    path = place / FILE_NAME if place.is_dir() else place
    if not path.exists():
        if required:
            raise SettingsError(
                f"{path}: there is no such file; RAGKEEPER_CONF names a file, or a folder with {FILE_NAME}"
            )
        return ConfigFile()
    sections: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for each in (path, path.with_name(f"local.{path.name}")):
        if each == path or each.exists():
            found = _read(each, environ)
            sections.update(found)
            sources.update(dict.fromkeys(found, each.name))
    present = {key: value for key, value in sections.items() if value is not None}
    return ConfigFile(present, {key: sources[key] for key in present})


def _read(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise SettingsError(f"{path}: it cannot be read ({exc.strerror})") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: it is not UTF-8 text") from None
    try:
        document = _Loader(text, environ).get_single_data()
    # PyYAML lets Python's own errors out for `!!int x`, `!!bool x`, `!!timestamp x` and endless nesting.
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as exc:
        # The parser's own text quotes the line, which may hold a password.
        raise SettingsError(
            f"{path}: it is not valid YAML{_position(exc)}; put quotes around values with special characters"
        ) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: expected sections (a mapping), found {_kind(document)}")
    return {str(key): value for key, value in document.items()}


def _position(exc: Exception) -> str:
    mark = getattr(exc, "problem_mark", None)
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _kind(document: object) -> str:
    return "a list" if isinstance(document, list) else "a single value"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of plain values, as RAGFlow's parser has it, and no value that loses its text.

    PyYAML alone would read ``0123`` as 83, ``22:30`` as 1350 and ``2025-01-01`` as a date: all of them may
    be passwords. Only true, false, null and canonical whole numbers are values here; everything else stays
    text, which the typed sections read.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own table

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        super().__init__(text)
        self._environ = environ

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        expanded = _PLACEHOLDER.sub(self._value, event.value)
        if expanded != event.value:
            event.value = expanded
            # What came from the environment is text (a password of digits stays one); nothing is no value.
            if event.implicit[0] and expanded:
                event.implicit = (False, True)
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        return node

    def _value(self, match: re.Match[str]) -> str:
        return self._environ.get(match[1]) or match[2]


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^(?:0|-?[1-9][0-9]{0,17})$"), list("-0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
