"""`sms-aaa usage`: what a subscriber used, by cycle, hour, day, month or session, and what a cycle costs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options, parse_instant
from sms_aaa.cli.output import Cell, Format, Shown, document, heading, listing, money, octets, say
from sms_aaa.cli.usage_export import export
from sms_aaa.cli.usage_spans import AskedSpan, show_spans, span_options
from sms_aaa.cli.verbs import DefaultVerbs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.explaining import CycleUsage, Line

_COLUMNS = ("component", "kind", "plan", "quantity", "exact", "posted_minor", "currency")
_CSV_COLUMNS = ("account_id", "starts_at", "ends_at", *_COLUMNS)
CYCLES_BACK_MAX = 1200


def cycle_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --at and --cycle, which name a cycle of the account."""
    at = click.option("--at", metavar="DATE", help="The cycle of that day, by the account's clock.")
    cycle = click.option(
        "--cycle", type=click.IntRange(-CYCLES_BACK_MAX, 0), metavar="N", help="0: this one, -1: the one before..."
    )
    return at(cycle(command))


@click.group(cls=DefaultVerbs, default="show", subcommand_metavar="NAME | COMMAND [ARGS]...")
def usage() -> None:
    """What was used: by a subscriber in a cycle, by hour, day, month or session; or by all, as a file.

    `usage NAME` is `usage show NAME`, with all its options.
    """


@usage.command(short_help="A subscriber's usage, by cycle with what it costs, or by hour, day, month, session.")
@click.argument("name")
@cycle_options
@span_options
@listing_options
@pass_caller
def show(caller: Caller, name: str, at: str | None, cycle: int | None, *, asked: AskedSpan, form: Format) -> None:
    """Show what a subscriber used in this cycle, and what it costs so far; or, --by hour and so on, when it was used.

    The exact price is what tariff and octets make; posted is its rounding, which the ledger has. Hours, days and
    months are those of the account's clock; a record between two of them is shared out by time.

    Example: sms-aaa usage show alice --cycle -1

    Example: sms-aaa usage alice --by day --from 2026-01-01 --to 2026-02-01
    """
    if asked.by is not None:
        if at is not None or cycle is not None:
            raise click.UsageError("--by takes --from and --to; --at and --cycle name a cycle.")
        show_spans(caller, name, asked, form)
        return
    asked.check_unused()
    with caller.connect() as connection:
        found = find_cycles(connection, name, at, cycle)
    if form is Format.JSON:
        document([usage_document(one) for one in found])
        return
    if form is Format.CSV:
        rows = [
            [one.account_id, one.starts_at, one.ends_at, *_cells(line, one.currency).values()]
            for one in found
            for line in one.lines
        ]
        listing(_CSV_COLUMNS, rows, form)
        return
    for one in found:
        usage_listing(one, form)


usage.add_command(export)


def find_cycles(connection: Connection, name: str, at: str | None, cycle: int | None) -> list[CycleUsage]:
    """The cycle that is meant, of each account of the subscriber; Failure when there is none."""
    from sms_aaa.flows.explaining import find_usage, list_usage
    from sms_aaa.flows.provisioning.subscribers import get_subscriber
    from sms_aaa.flows.shelf import PlanShelf

    if at is not None and cycle is not None:
        raise click.UsageError("--at and --cycle exclude each other: give one.")
    shelf, found = PlanShelf(), []
    accounts = {row.account_id: row.zone or "UTC" for row in get_subscriber(connection, name) if row.account_id}
    for account_id, zone in sorted(accounts.items()):
        instant = parse_instant(at, zone) if at is not None else datetime.now(UTC)
        if cycle:
            past = [one for one in list_usage(connection, shelf, account_id) if one.starts_at <= instant]
            found += past[cycle - 1 : cycle] if len(past) >= 1 - cycle else []
        elif (one := find_usage(connection, shelf, account_id, instant)) is not None:
            found.append(one)
    if not found:
        raise Failure(
            Exit.NOT_FOUND,
            f"{name} has no cycle then: none was open, or the rater has not opened it yet",
            "see `sms-aaa subscriber show` and, if it is new, `sms-aaa status`",
        )
    return found


def usage_listing(one: CycleUsage, form: Format) -> None:
    """A cycle's components and their sum, for people."""
    heading(f"cycle {one.starts_at:%Y-%m-%d %H:%M:%SZ} to {one.ends_at:%Y-%m-%d %H:%M:%SZ}")
    columns = ("component", "kind", "plan", "quantity", "exact", "posted_minor")
    rows = [[_cells(line, one.currency)[column] for column in columns] for line in one.lines]
    titles = (*columns[:-1], "posted")
    listing(titles, rows, form)
    say(f"total {money(one.total_minor, one.currency).text}")


def usage_document(one: CycleUsage) -> dict[str, object]:
    """A cycle for programs."""
    return {
        "account_id": one.account_id,
        "cycle_id": one.cycle_id,
        "starts_at": one.starts_at,
        "ends_at": one.ends_at,
        "currency": one.currency,
        "components": [_cells(line, one.currency) for line in one.lines],
        "total_minor": one.total_minor,
    }


def _cells(line: Line, currency: str) -> dict[str, Cell]:
    row = line.row
    posted = money(row.posted_minor, currency)
    cells: tuple[Cell, ...] = (
        row.component,
        row.kind,
        row.plan,
        octets(row.quantity) if line.component is not None else None,
        exact(int(row.numerator), line.denominator, currency) if line.component else _amount(posted.text),
        posted,
        currency,
    )
    return dict(zip(_COLUMNS, cells, strict=True))


def exact(numerator: int, denominator: int, currency: str) -> Shown:
    """An exact price in units of its currency: programs get the digits alone."""
    from sms_aaa.rules.money import format_exact

    return _amount(format_exact(numerator, denominator, currency))


def _amount(text: str) -> Shown:
    return Shown(text.partition(" ")[0], text)
