"""Asking a person for a password."""

from __future__ import annotations

import sys
import warnings
from getpass import GetPassWarning
from typing import Annotated

import typer

from common.cli.console import fail

PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def asked_password(from_stdin: bool, prompt: str, *, confirm: bool = False, what: str = "password") -> str:
    """A password from standard input or a prompt; never from an argument, where other accounts can read it.

    The command has an option ``--password-stdin``, or with ``what`` instead of the first word.
    """
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    with warnings.catch_warnings():
        # Without a terminal it would go on and show what is typed.
        warnings.simplefilter("error", GetPassWarning)
        try:
            answer: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm)
        except GetPassWarning:
            # The prompt stands there already.
            typer.echo()
            fail(f"there is no terminal to ask for the {what} on; hand it over with --{what}-stdin.")
    return answer
