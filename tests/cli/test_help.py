"""What the help promises, and that it is there at once."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from sms_aaa.cli.exits import Exit
from sms_aaa.cli.main import COMMANDS, main

HEAVY = {"psycopg", "rich", "sqlalchemy", "alembic", "cryptography", "lmdb", "msgspec", "prometheus_client"}
CHANGES = {
    "add",
    "clear",
    "import",
    "rebuild",
    "replay",
    "rerate",
    "retry",
    "dismiss",
    "set",
    "set-plan",
    "keep-plan",
    "remove",
    "rotate-secret",
    "suspend",
    "restore",
    "block",
    "unblock",
    "bind",
    "unbind",
    "upgrade",
    "grant",
    "top-up",
    "expire",
    "join",
    "leave",
}
NOT_LISTINGS = CHANGES | {"serve", "demo", "load", "export", "rate", "schema"}


def commands() -> list[tuple[str, click.Command]]:
    """Every command that can be typed, by its path."""
    found = []
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        found += verbs(name, command)
    return found


def verbs(path: str, command: click.Command) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    return [one for name, inner in command.commands.items() for one in verbs(f"{path} {name}", inner)]


ALL = commands()
IDS = [path for path, _ in ALL]


def test_the_help_lists_every_command_with_its_line(lonely):
    help_text = lonely.done("--help")
    for name, (_, text) in COMMANDS.items():
        assert f"  {name} " in help_text
        assert text.split()[0] in help_text


def test_the_help_documents_every_exit_code(lonely):
    help_text = lonely.done("--help")
    for code in Exit:
        assert f"  {int(code)} " in help_text


@pytest.mark.parametrize(("path", "command"), ALL, ids=IDS)
def test_every_command_teaches_by_an_example_of_itself(path, command):
    assert command.help is not None
    example = command.help.partition("Example: ")[2]
    assert example.startswith("sms-aaa ")
    assert f" {path}" in example.splitlines()[0]


@pytest.mark.parametrize(("path", "command"), ALL, ids=IDS)
def test_whatever_lists_or_shows_takes_json_and_csv(path, command):
    options = {option for parameter in command.params for option in parameter.opts}
    if path.split()[-1] not in NOT_LISTINGS:
        assert {"--json", "--csv"} <= options


@pytest.mark.parametrize(("path", "command"), ALL, ids=IDS)
def test_whatever_changes_something_takes_a_ticket(path, command):
    options = {option for parameter in command.params for option in parameter.opts}
    if path.split()[-1] in CHANGES - {"upgrade"}:
        assert "--ticket" in options


def test_the_help_imports_nothing_heavy():
    program = "import sys, sms_aaa.cli.main; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert "sms_aaa" in loaded
    assert HEAVY & set(loaded) == set()


def test_a_command_that_is_not_there_is_a_usage_error(lonely):
    answer = lonely.type("sesions")
    assert answer.code == Exit.INVALID
    assert "sesions" in answer.err
