"""What the command prints, and how it fails: one sentence on standard error, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


def fail(message: str, status: int = 1) -> NoReturn:
    """Say what is wrong and what to do, and end."""
    err.print(f"ragkeeper: {message}", style="red", markup=False, highlight=False)
    raise typer.Exit(status)


def say(text: str) -> None:
    """A plain line."""
    out.print(text, markup=False, highlight=False)


def show_json(value: Any) -> None:
    """The machine's form of an answer."""
    say(json.dumps(value, ensure_ascii=False, indent=2))


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
    out.print(table, markup=False)


def show_fields(row: Mapping[str, Any]) -> None:
    """One thing, a line for each of its fields."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in row.items():
        table.add_row(name.replace("_", " "), _cell(value))
    out.print(table, markup=False)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
