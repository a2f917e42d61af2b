"""What the command prints: names are text, whatever is in them."""

from __future__ import annotations

import json

import pytest

from common.cli import console


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", ":smile:", "a_b", "ünï"])
def test_a_name_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.show_rows([{"name": name}], ("name",), "none")
    console.show_fields({"name": name})
    console.say(name)
    assert capsys.readouterr().out.count(name) == 3


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\x9b2Jb", "a\u202eb", "a\rb"])
def test_a_name_can_not_steer_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.show_rows([{"name": name}], ("name",), "none")
    console.show_fields({"name": [name]})
    console.say(name)
    shown = capsys.readouterr().out
    assert not set("\x1b\x9b\u202e\r") & set(shown)
    assert shown.count("\ufffd") == 3


def test_json_keeps_every_character_and_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "ü [red] \x1b \x9b \u202e " + "long " * 100}
    console.show_json(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert not set("\x1b\x9b\u202e") & set(shown)


def test_a_long_row_is_one_line_where_no_terminal_sets_a_width(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_rows([{"name": "x" * 500}], ("name",), "none")
    assert "x" * 500 in capsys.readouterr().out


def test_no_rows_are_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_rows([], ("name",), "There are none.")
    assert capsys.readouterr().out == "There are none.\n"
