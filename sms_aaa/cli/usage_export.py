"""`sms-aaa usage export`: everybody's usage in a span of time into a file, with what it has to add up to."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import parse_since, ticket_option
from sms_aaa.cli.output import note
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.usage_export import ExportFilter
    from sms_aaa.flows.exporting_usage import UsageExport

STATEMENT_SECONDS_MAX = 6 * 3600
SAID_EVERY_SECONDS = 5.0
BYS = ("delta", "session", "hour", "day")
STDOUT = "-"


@click.command(cls=Verb, short_help="Everybody's usage as a file, with what it adds up to.")
@click.option("--from", "start", metavar="WHEN", required=True, help="From then on: a date, or 12h or 7d ago.")
@click.option("--to", "end", metavar="WHEN", required=True, help="Up to then, which is not in it.")
@click.option("--by", type=click.Choice(BYS), default="delta", show_default=True, help="What a row is.")
@click.option("--format", "form", type=click.Choice(("csv", "jsonl", "parquet")), default="csv", show_default=True)
@click.option("--output", metavar="FILE", default=STDOUT, help="Into a file, mode 0600; else to standard output.")
@click.option("--nas", "nas_name", metavar="NAME", help="Of sessions on one NAS.")
@click.option("--subscriber", metavar="NAME", help="Of one subscriber.")
@click.option("--pseudonyms", is_flag=True, help="In place of names; the same ones every time, under this node's key.")
@ticket_option
@pass_caller
def export(
    caller: Caller,
    start: str,
    end: str,
    by: str,
    form: str,
    output: str,
    nas_name: str | None,
    subscriber: str | None,
    *,
    pseudonyms: bool,
    ticket: str | None,
) -> None:
    """Write everybody's usage of a span of time, a row a delta, session, hour or day.

    A delta, and a session's deltas, belong to the span in which they end, so that two spans that adjoin have each of
    them once. Hours and days are those of each account's clock, the dates of this installation's zone. The file is
    there when it is whole. At its end it says rows, octets and SHA-256, and that the database counts the same.

    It names persons: who was online, and when. Who took it out is kept in the audit trail.

    Example: sms-aaa usage export --from 2026-01-01 --to 2026-02-01 --by day --output january.csv
    """
    from sms_aaa.cli.export_files import Digested, check_format, write_rows
    from sms_aaa.cli.importfiles import open_export_octets
    from sms_aaa.db.engine import begin_snapshot
    from sms_aaa.flows.exporting_usage import UsageExport, record_usage_export

    check_format(form)
    if form == "parquet" and output == STDOUT and sys.stdout.isatty():
        raise Failure(Exit.INVALID, "Parquet is nothing for a screen", "name a file with --output")
    hide = caller.load_vault().pseudonym if pseudonyms else None
    with caller.connect(statement_timeout_seconds=STATEMENT_SECONDS_MAX) as connection:
        wanted = _wanted(connection, caller, start, end, by, nas_name, subscriber)
        record_usage_export(connection, caller.actor(ticket), wanted, pseudonyms=pseudonyms)
        connection.commit()
        begin_snapshot(connection)
        exported = UsageExport(connection, wanted, hide)
        with open_export_octets(output) as out:
            file = Digested(out)
            write_rows(form, exported.columns, _told(exported.rows()), file)
            _check_whole(exported)
    given = exported.given
    note(f"{given.rows} rows, {given.octets_in} octets up, {given.octets_out} octets down: as the database counts them")
    note(f"sha256 {file.sha256}")


def _wanted(
    connection: Connection, caller: Caller, start: str, end: str, by: str, nas_name: str | None, subscriber: str | None
) -> ExportFilter:
    from sms_aaa.db.usage_export import ExportBy, ExportFilter
    from sms_aaa.flows.provisioning.nas import get_nas
    from sms_aaa.flows.provisioning.subscribers import get_subscriber

    kind, zone, now = ExportBy(by), caller.settings.rating.zone, datetime.now(UTC)
    start_at = parse_since(start, zone, now, option="--from")
    end_at = parse_since(end, zone, now, option="--to")
    if start_at >= end_at:
        raise click.BadParameter(f"{start} is not before {end}.", param_hint="'--from'")
    if nas_name is not None and kind in {ExportBy.HOUR, ExportBy.DAY}:
        raise click.UsageError("hours and days are kept by service, not by NAS: --nas goes with --by delta or session.")
    wall = ZoneInfo(zone)
    last_day = (end_at - timedelta(microseconds=1)).astimezone(wall).date()
    return ExportFilter(
        by=kind,
        start=start_at,
        end=end_at,
        first_day=start_at.astimezone(wall).date(),
        end_day=last_day + timedelta(days=1),
        nas_id=get_nas(connection, nas_name).id if nas_name is not None else None,
        subscriber_id=get_subscriber(connection, subscriber)[0].subscriber_id if subscriber is not None else None,
    )


def _check_whole(exported: UsageExport) -> None:
    """Before the file takes its place: a file that is not whole must not look like one."""
    counted = exported.counted()
    if counted != exported.given:
        raise Failure(
            Exit.DIFFERENT,
            f"{exported.given.rows} rows were written where the database counts {counted.rows}",
            "nothing was kept; run `sms-aaa reconcile`, which names what does not add up",
        )


def _told(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The rows, with a line on stderr now and then."""
    said_at = time.monotonic()
    for index, row in enumerate(rows, 1):
        if index % 10_000 == 0 and time.monotonic() - said_at >= SAID_EVERY_SECONDS:
            said_at = time.monotonic()
            note(f"{index} rows so far")
        yield row
