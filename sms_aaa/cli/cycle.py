"""`sms-aaa cycle`: billing cycles, what stands in them, and closing those that are over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import confirm, listing_options, yes_option
from sms_aaa.cli.output import Cell, Format, listing, money, say
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from sms_aaa.db.closing import CycleSummary
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.closing import ClosedCycle
    from sms_aaa.rules.closing import ClosingLine

CYCLES_SHOWN = 24
CLOSED_AT_ONCE_MAX = 1_000

_COLUMNS = (
    "cycle_id", "account_id", "starts_at", "ends_at", "state", "closed_at", "fees_minor", "usage_minor", "other_minor",
    "adjusted_minor", "total_minor", "currency",
)  # fmt: skip
_TITLES = ("cycle", "account", "starts at", "ends at", "state", "fees", "usage", "other", "adjusted", "total")
_LINE_COLUMNS = (
    "cycle_id",
    "account_id",
    "ends_at",
    "subscription_id",
    "component",
    "kind",
    "amount_minor",
    "currency",
)
_LINE_TITLES = ("cycle", "account", "ends at", "subscription", "component", "kind", "amount")


@click.group(cls=Verbs)
def cycle() -> None:
    """Billing cycles: what stands in them, and closing those that are over.

    Example: sms-aaa cycle list alice
    """


@cycle.command("list")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 10_000), default=CYCLES_SHOWN, show_default=True, help="The latest.")
@listing_options
@pass_caller
def list_(caller: Caller, name: str, limit: int, form: Format) -> None:
    """List the cycles of a subscriber's accounts, the latest first.

    Fees include what was given back; other is what minimums and bounds made of it when the cycle was closed; adjusted
    is what came late to a closed one.

    Example: sms-aaa cycle list alice --json
    """
    from sms_aaa.db.closing import list_cycle_summaries
    from sms_aaa.flows.provisioning.subscribers import get_subscriber

    with caller.connect() as connection:
        accounts = {row.account_id for row in get_subscriber(connection, name) if row.account_id is not None}
        rows = list_cycle_summaries(connection, sorted(accounts), limit=limit)
    if form is Format.TABLE:
        listing(_TITLES, [_shown(row) for row in rows], form, empty="no cycle was opened yet")
    else:
        listing(_COLUMNS, [list(_cells(row).values()) for row in rows], form)


@cycle.command()
@click.option("--dry-run", is_flag=True, help="Say what would be closed, and with which lines; change nothing.")
@yes_option
@listing_options
@pass_caller
def close(caller: Caller, *, dry_run: bool, yes: bool, form: Format) -> None:
    """Close the cycles that are over by the grace of rating.close_grace_days, as the rater does by itself.

    Usage is frozen, minimums and bounds are charged. A cycle waits while something of it is to be rated, or charged, or
    the cycle before it is open.

    Example: sms-aaa cycle close --dry-run
    """
    if not dry_run:
        confirm("What is closed stays closed; what comes later is an adjustment. Close?", yes=yes)
    grace = timedelta(days=caller.settings.rating.close_grace_days)
    with caller.connect() as connection:
        closed = _close(connection, grace)
        if dry_run:
            connection.rollback()
    rows = [_line_cells(one, *line) for one in closed for line in one.lines]
    if form is Format.TABLE:
        listing(_LINE_TITLES, [row[:-1] for row in rows], form, empty="nothing is to be closed")
        if closed:
            say(f"{len(closed)} {'cycle' if len(closed) == 1 else 'cycles'} {'to be closed' if dry_run else 'closed'}")
    else:
        listing(_LINE_COLUMNS, rows, form)


def _close(connection: Connection, grace: timedelta) -> list[ClosedCycle]:
    from sms_aaa.flows.closing import close_cycles
    from sms_aaa.flows.shelf import PlanShelf

    return close_cycles(connection, PlanShelf(), now=datetime.now(UTC), grace=grace, limit=CLOSED_AT_ONCE_MAX)


def _line_cells(one: ClosedCycle, subscription_id: int, line: ClosingLine) -> list[Cell]:
    return [
        one.cycle.cycle_id,
        one.cycle.account_id,
        one.cycle.ends_at,
        subscription_id,
        line.name,
        line.kind,
        money(line.amount_minor, one.cycle.currency),
        one.cycle.currency,
    ]


def _cells(row: CycleSummary) -> dict[str, Cell]:
    total = row.fees_minor + row.usage_minor + row.other_minor + row.adjusted_minor
    cells: tuple[Cell, ...] = (
        row.cycle_id,
        row.account_id,
        row.starts_at,
        row.ends_at,
        "open" if row.closed_at is None else "closed",
        row.closed_at,
        *(
            money(amount, row.currency)
            for amount in (row.fees_minor, row.usage_minor, row.other_minor, row.adjusted_minor, total)
        ),
        row.currency,
    )
    return dict(zip(_COLUMNS, cells, strict=True))


def _shown(row: CycleSummary) -> list[Cell]:
    cells = _cells(row)
    return [cells[name] for name in _COLUMNS if name not in {"closed_at", "currency"}]
