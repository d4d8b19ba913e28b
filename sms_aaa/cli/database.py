"""`sms-aaa db`: the database's schema. Nothing else changes it but this, and `serve` for its own PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller, schema_problem
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Cell, Format, facts, listing, note, say
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.db.engine import Connection


@click.group(cls=Verbs)
def db() -> None:
    """The database: PostgreSQL 15 or newer at database.dsn, else the server's own.

    Example: sms-aaa db status
    """


@db.command()
@pass_caller
def upgrade(caller: Caller) -> None:
    """Bring the schema to what this program needs; nothing happens when it is there.

    Example: sms-aaa db upgrade
    """
    from sms_aaa.db.schema import SchemaState, find_status
    from sms_aaa.db.schema import upgrade as upgrade_schema

    with caller.connect_anyhow() as connection:
        before = find_status(connection)
    if before.state is SchemaState.UNKNOWN:
        raise Failure(Exit.CONFLICT, *schema_problem(before))
    if before.state is SchemaState.CURRENT:
        say(f"the schema is {before.revision} already")
        return
    upgrade_schema(caller.dsn())
    say(f"the schema is {before.needed} now; it was {before.revision or 'empty'}")


@db.command()
@listing_options
@pass_caller
def status(caller: Caller, form: Format) -> None:
    """Show which schema the database has, and which this program needs.

    Example: sms-aaa db status --json
    """
    from sms_aaa.db.schema import find_status

    with caller.connect_anyhow() as connection:
        found = find_status(connection)
    facts({"schema": found.state.value, "revision": found.revision or None, "needed": found.needed}, form)


@db.command()
@listing_options
@pass_caller
def check(caller: Caller, form: Format) -> None:
    """Check the schema, that every part of it can be read, and that nothing is in quarantine.

    A record in quarantine could not be settled; its octets are in no session. The exit code is 1 if anything is found.

    Example: sms-aaa db check
    """
    from sms_aaa.db.schema import SchemaState, find_status

    with caller.connect_anyhow() as connection:
        found = find_status(connection)
        rows: list[tuple[Cell, ...]] = [
            ("schema", found.state is SchemaState.CURRENT, found.state.value, found.revision or None)
        ]
        connection.commit()
        rows += [_probe(connection, name, probe) for name, probe in _probes().items()]
    listing(("check", "holds", "found", "detail"), rows, form)
    if not all(row[1] for row in rows):
        if found.state is not SchemaState.CURRENT:
            note(f"sms-aaa: {'; '.join(schema_problem(found))}")
        raise click.exceptions.Exit(Exit.DIFFERENT)


def _probes() -> dict[str, Callable[[Connection], tuple[bool, str]]]:
    from sms_aaa.db.nas import list_nas
    from sms_aaa.db.plans import count_plans
    from sms_aaa.db.quarantine import count_waiting
    from sms_aaa.db.rating_queue import queue_length
    from sms_aaa.db.subscribers import count_services

    def quarantine(connection: Connection) -> tuple[bool, str]:
        waiting = sum(count for _, count in count_waiting(connection))
        return waiting == 0, f"{waiting} records{'; see `sms-aaa quarantine list`' if waiting else ''}"

    return {
        "nas": lambda connection: (True, f"{len(list_nas(connection))} NASes"),
        "plan": lambda connection: (True, f"{count_plans(connection)} plans"),
        "service": lambda connection: (True, f"{count_services(connection)} services"),
        "rating queue": lambda connection: (True, f"{queue_length(connection)[0]} deltas"),
        "quarantine": quarantine,
    }


def _probe(connection: Connection, name: str, probe: Callable[[Connection], tuple[bool, str]]) -> tuple[Cell, ...]:
    from sms_aaa.db.engine import Misfit

    try:
        holds, found = probe(connection)
    except Misfit as fault:
        connection.rollback()
        return name, False, "cannot be read", type(fault).__name__
    return name, holds, found, None
