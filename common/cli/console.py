"""What the command prints, and how it fails: one sentence on standard error, never a traceback."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _open_what_is_closed() -> None:
    """Have what was closed by who started the command (``>&-``) lead nowhere, rather than into the next open file."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", encoding="utf-8", closefd=False))


_open_what_is_closed()
# Names that servers send are text and nothing else: no markup, no emoji, and no control characters (_printable).
# Where no terminal sets a width, a row is a line.
_WIDTH = None if sys.stdout.isatty() else 10_000
out = Console(soft_wrap=True, markup=False, emoji=False, highlight=False, width=_WIDTH)
err = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)


def fail(message: str, status: int = 1) -> NoReturn:
    """Say what is wrong and what to do, and end."""
    err.print(_printable(f"ragkeeper: {message}"), style="red")
    raise typer.Exit(status)


def say(text: str) -> None:
    """A plain line."""
    out.print(_printable(text))


def hint(text: str) -> None:
    """A line for a person, beside what a program would read."""
    err.print(_printable(text))


def show_json(value: Any) -> None:
    """The machine's form of an answer."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    out.print(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str) -> None:
    """Rows as a table of these columns, or the sentence for none."""
    if not rows:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    out.print(table)


def show_fields(row: Mapping[str, Any]) -> None:
    """One thing, a line for each of its fields."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in row.items():
        table.add_row(name.replace("_", " "), _cell(value))
    out.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return _printable(", ".join(map(str, value))) or "-"
    return _printable(json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value))


# What moves a terminal's cursor, changes its colours, or turns the direction of writing; line ends may stay.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _printable(text: str) -> str:
    return _CONTROL.sub("\ufffd", text)
