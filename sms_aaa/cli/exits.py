"""How a command ends: the exit codes, and the one exception that carries one to the shell.

A script branches on the code, a person reads the line on stderr. Each line says what is wrong and what to do about it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import IO, Any

import click


class Exit(IntEnum):
    """0 to 6 are outcomes; 70 is a mistake of ours, and far off so that no script takes it for a finding."""

    OK = 0
    DIFFERENT = 1
    INVALID = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    ABORTED = 6
    BUG = 70


EPILOG = """\b
Exit codes:
  0   done
  1   a check found something (reconcile, ledger balance, journal verify, replica verify, config check, db check),
      or an import rejected rows
  2   usage, or a value that cannot be
  3   not found
  4   conflict: something is in the way
  5   the database or the daemon is not there
  6   aborted by the user
  70  a mistake of this program
"""


class Failure(click.ClickException):
    """Ends the command with a code and one line: the reason, then the remedy."""

    def __init__(self, code: Exit, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.code = code
        self.reason = reason
        self.remedy = remedy

    # click declares it as a constant of the class; here it belongs to each failure.
    @property
    def exit_code(self) -> int:  # type: ignore[override]  # read only, as click does
        return int(self.code)

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"sms-aaa: {_one_line(self.message)}", file=file, err=file is None)


def _one_line(text: str) -> str:
    return " ".join(text.split())
