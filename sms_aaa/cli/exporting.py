"""`sms-aaa subscriber export`: every subscriber into a file, in the form that an import reads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import confirm, ticket_option, yes_option
from sms_aaa.cli.output import csv_writer, note
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from sms_aaa.flows.roster import Row

STDOUT = "-"


@click.command(cls=Verb)
@click.argument("file", metavar="[FILE]", default=STDOUT)
@click.option("--with-passwords", is_flag=True, help="Passwords in the clear too; it is asked whether you mean it.")
@yes_option
@ticket_option
@pass_caller
def export(caller: Caller, file: str, *, with_passwords: bool, yes: bool, ticket: str | None) -> None:
    """Write every subscriber into a CSV file, or to standard output.

    It is what `subscriber import` reads: with the passwords, an import into an empty database (with the same plans,
    realms and NASes) makes the same subscribers. Without them there is no column of passwords, and an import with
    --update leaves them as they are. The file is there when it is whole; its mode is 0600.

    An export with passwords is kept in the audit trail.

    Example: sms-aaa subscriber export customers.csv
    """
    from sms_aaa.cli.importfiles import open_export
    from sms_aaa.db.engine import begin_snapshot
    from sms_aaa.flows.exporting import columns, export_rows, record_export

    if with_passwords:
        if file == STDOUT and sys.stdout.isatty():
            raise Failure(Exit.INVALID, "no password is shown on a screen", "name a file, or give it to a program")
        confirm(f"Every password goes in the clear into {_shown(file)}. Export?", yes=yes)
    names = columns(with_passwords=with_passwords)
    with caller.connect() as connection:
        vault = None
        if with_passwords:
            desk = caller.desk(connection, ticket)
            vault = desk.vault
            record_export(desk, to=_shown(file))
            connection.commit()
        begin_snapshot(connection)
        with open_export(file) as out:
            writer = csv_writer(out)
            writer.writerow(names)
            rows = unopened = 0
            for row in export_rows(connection, vault):
                writer.writerow([row[name] for name in names])
                rows += 1
                unopened += vault is not None and _lacks_password(row)
    note(f"{rows} subscribers exported")
    if unopened:
        note(f"{unopened} of them without their password, which does not open: is the key file the right one?")


def _shown(file: str) -> str:
    return "standard output" if file == STDOUT else file


def _lacks_password(row: Row) -> bool:
    from sms_aaa.flows.roster import Column

    return not row[Column.MAC] and not row[Column.PASSWORD]
