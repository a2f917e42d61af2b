"""The settings that can be changed while the plane runs: a closed, typed registry.

What is not registered can be neither set nor read. Values have one of four kinds, RAGFlow's data types; their text form
is the one that RAGFlow's ``variables`` routes speak.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from common.core.errors import BadField

Kind = Literal["string", "integer", "bool", "json"]
Value = str | int | bool | dict[str, Any] | list[Any]

#: The longest value, in characters of its text form.
MAX_LENGTH = 65_536


@dataclass(frozen=True, slots=True)
class Variable:
    """A setting: what it takes, what holds without it, and what it is for (``help``: one sentence, with the unit).

    ``least`` and ``most`` bound an integer, or the length of a string. ``choices`` are the only strings taken, where
    there are any. The value of a ``secret`` one is never shown. ``restart`` says that processes read it only when
    they start.
    """

    name: str
    kind: Kind
    default: Value
    help: str
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    restart: bool = False


def _registry(variables: Iterable[Variable]) -> Mapping[str, Variable]:
    found = {variable.name: variable for variable in sorted(variables, key=lambda each: each.name)}
    return MappingProxyType(found)


_MINUTE_S, _YEAR_S = 60, 365 * 24 * 3600

_SESSIONS = (
    Variable(
        "session.most",
        "integer",
        10,
        "Sessions that an account has at once; a further login ends the one that was used least recently.",
        least=1,
        most=1000,
    ),
    *(
        Variable(f"session.{name}_s", "integer", default, text, least=5 * _MINUTE_S, most=_YEAR_S)
        for name, default, text in (
            ("admin_idle", 1800, "Seconds after which a session that administers ends when it is not used."),
            ("admin_absolute", 12 * 3600, "Seconds after which a session that administers ends in any case."),
            ("user_idle", 24 * 3600, "Seconds after which a session of the user API ends when it is not used."),
            ("user_absolute", 30 * 24 * 3600, "Seconds after which a session of the user API ends in any case."),
        )
    ),
)

VARIABLES: Mapping[str, Variable] = _registry(_SESSIONS)


def known(name: object) -> Variable:
    """The variable of this name. Raises BadField (``var_name``)."""
    variable = VARIABLES.get(name) if isinstance(name, str) else None
    if variable is None:
        raise BadField(f"There is no setting {reprlib.repr(name)}.", field="var_name")
    return variable


def parsed(variable: Variable, value: object, *, field: str = "var_value") -> Value:
    """The value in the variable's kind, from that kind or from its text form. Raises BadField, which says the rule."""
    read = _of_kind(variable, value)
    if read is None or not _within(variable, read):
        raise BadField(f"{variable.name} takes {rule(variable)}.", field=field)
    return read


def as_text(value: Value) -> str:
    """The text form of a value, which ``parsed`` reads again."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def rule(variable: Variable) -> str:
    """What the variable takes, in words."""
    if variable.choices:
        return f"one of {', '.join(variable.choices)}"
    if variable.kind == "bool":
        return "true or false"
    if variable.kind == "json":
        return f"a JSON {'list' if isinstance(variable.default, list) else 'object'}"
    what = "a whole number" if variable.kind == "integer" else "a text"
    unit = "" if variable.kind == "integer" else " characters"
    if variable.least is not None and variable.most is not None:
        return f"{what} of {variable.least} to {variable.most}{unit}"
    if variable.most is not None:
        return f"{what} of at most {variable.most}{unit}"
    return what if variable.least is None else f"{what} of at least {variable.least}{unit}"


def _of_kind(variable: Variable, value: object) -> Value | None:
    match variable.kind:
        case "string":
            return value if isinstance(value, str) else None
        case "bool":
            return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else _bool(value)
        case "integer":
            return _integer(value)
        case "json":
            return _json(variable, value)


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _integer(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.removeprefix("-").isdecimal() and value.isascii() and len(value) <= 20:
        return int(value)
    return None


def _json(variable: Variable, value: object) -> Value | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list if isinstance(variable.default, list) else dict) else None


def _within(variable: Variable, value: Value) -> bool:
    if variable.choices and value not in variable.choices:
        return False
    if variable.kind in ("string", "json") and len(as_text(value)) > MAX_LENGTH:
        return False
    if isinstance(value, bool) or not isinstance(value, int | str):
        return True
    size = len(value) if isinstance(value, str) else value
    return (variable.least is None or size >= variable.least) and (variable.most is None or size <= variable.most)
