"""The command as a whole: its help, what it suggests, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.cli.main import app

ROOT = Path(__file__).parents[3]


def test_help_names_every_command_under_what_it_works_on():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output

    here, there = shown.index("On this machine"), shown.index("A running server")
    assert here < shown.index("recover-admin") < there < shown.index("whoami") < shown.index("audit  ")


@pytest.mark.parametrize(("asked", "meant"), [("usr", "user"), ("revocer-admin", "recover-admin")])
def test_a_misspelt_command_is_guessed(asked, meant):
    answered = CliRunner().invoke(app, [asked])

    assert answered.exit_code == 2
    assert f"Did you mean '{meant}'" in answered.output


@pytest.mark.parametrize("command", ["login", "user", "role", "setting", "job", "whitelist", "apply"])
def test_a_command_that_speaks_to_a_server_imports_nothing_of_one(command):
    script = (
        "import sys; from typer.testing import CliRunner; from common.cli.main import app; "
        f"assert CliRunner().invoke(app, [{command!r}, '--help']).exit_code == 0; "
        "print(*(name for name in ('peewee', 'flask', 'common.services') if name in sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize("asked", ["--version", "--help"])
def test_output_that_a_full_disk_does_not_take_is_one_sentence(asked):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from common.cli.main import main; main()", asked],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (1, "ragkeeper: No space left on device.\n")


def test_output_that_nobody_reads_any_more_is_nothing_to_say(tmp_path):
    main = [sys.executable, "-c", "from common.cli.main import main; main()"]
    environment = {**os.environ, "RAGKEEPER_HOME": str(tmp_path)}
    subprocess.run([*main, "migrate"], cwd=ROOT, env=environment, capture_output=True, check=True, timeout=60)
    reader, writer = os.pipe()
    os.close(reader)

    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(
            [*main, "audit", "export", "--format", "csv"],
            cwd=ROOT, env=environment, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_traceback(closed):
    script = "from common.cli.main import main; main()"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script, "--version"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_the_terminal_has_no_letters_for_is_shown_as_an_escape():
    script = "import sys; sys.argv[1:] = ['--version']; from common.cli import main; "
    script += "main.version_text = lambda: '\u00e9\u2026'"

    done = subprocess.run(
        [sys.executable, "-c", f"{script}; main.main()"],
        cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, capture_output=True, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, b"ragkeeper \xe9\\u2026\n", b"")


@pytest.mark.parametrize("number", ["9" * 5000, "1e3", "-1", "\u0663"])
def test_a_limit_that_is_no_number_is_told(number):
    done = CliRunner().invoke(app, ["limit", "set", "tenant", "--members", number])

    assert done.exit_code == 2
    assert "--members takes a number" in done.stderr
    assert len(done.stderr) < 200
