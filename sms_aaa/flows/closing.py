"""Closing cycles: what was used is frozen into charges, minimums and maximums are charged, and nothing moves any more.

A cycle is closed a grace after its end, when everything that was settled by then is rated, in its right order, and all
its fees are charged. What comes later still is an adjustment with its own service period. A thousand cycles take a
handful of statements; what is closed is not closed again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.db import closing as db_closing
from sms_aaa.db import cycles as db_cycles
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.cycles import ChargeRow, OpenedRow
from sms_aaa.db.usage import SHARDS
from sms_aaa.flows.cycles import openings_of
from sms_aaa.flows.freezing import list_lines
from sms_aaa.flows.rerating import rerate_group
from sms_aaa.rules.closing import LineKind
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.ledger import Event, sides_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime, timedelta

    from sms_aaa.db.closing import ClosableRow, ClosingTotalRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.closing import ClosingLine
    from sms_aaa.rules.recurring import Term

CARRIED_TRIES_MAX = 8
"""So often a plan may be changed in one cycle, tiers carried on, and late usage move through all of them at once."""


@dataclass(frozen=True, slots=True)
class ClosedCycle:
    """A cycle that was closed, with the lines of each subscription in it, usage as it stood."""

    cycle: ClosableRow
    lines: tuple[tuple[int, ClosingLine], ...]


def close_cycles(
    connection: Connection,
    shelf: PlanShelf,
    *,
    now: datetime,
    grace: timedelta,
    limit: int,
    but: Collection[int] = (),
) -> list[ClosedCycle]:
    """Closes up to `limit` cycles that ended a grace ago and of which nothing is missing; those, the earliest first.

    `but`: cycles that are left as they are. AssertionError where the ledger has not what usage comes to.
    """
    found = db_closing.list_closable(connection, now=now, grace=grace, limit=limit, but=but)
    if not found:
        return []
    # Raters remember that these cycles are open.
    db_queue.touch_shards(connection, (row.head_id % SHARDS for row in found))
    ids = {row.cycle_id for row in found}
    _carry_on(connection, shelf, found, now=now)
    # Before the shards were locked usage may have come that is to be rated, or rated again, first.
    rows = db_closing.list_closable(connection, now=now, grace=grace, limit=limit, only=ids)
    return _close(connection, shelf, rows, now) if rows else []


def list_next(connection: Connection, *, now: datetime, grace: timedelta, but: Collection[int]) -> list[int]:
    """The cycle that `close_cycles` would close alone."""
    return [row.cycle_id for row in db_closing.list_closable(connection, now=now, grace=grace, limit=1, but=but)]


def _close(connection: Connection, shelf: PlanShelf, rows: Sequence[ClosableRow], now: datetime) -> list[ClosedCycle]:
    cycles = {row.cycle_id: row for row in rows}
    frozen: list[ChargeRow] = []
    posted: list[ChargeRow] = []
    lines: dict[int, list[tuple[int, ClosingLine]]] = defaultdict(list)
    for opened, term, totals, line in list_lines(connection, shelf, rows):
        lines[opened.cycle_id].append((opened.subscription_id, line))
        charge = _charge(connection, shelf, opened, cycles[opened.cycle_id], term, totals, line)
        if line.kind is LineKind.USAGE:
            assert line.amount_minor == totals[line.name].posted_minor, "the ledger has what usage comes to"
            frozen.append(charge)
        else:
            posted.append(charge)
    if frozen:
        db_cycles.insert_charges(connection, frozen, is_posted=False)
    if posted:
        db_cycles.insert_charges(connection, posted)
    db_closing.update_closed(connection, list(cycles), now)
    return [ClosedCycle(row, tuple(lines[row.cycle_id])) for row in rows]


def _charge(
    connection: Connection,
    shelf: PlanShelf,
    opened: OpenedRow,
    cycle: ClosableRow,
    term: Term,
    totals: Mapping[str, ClosingTotalRow],
    line: ClosingLine,
) -> ChargeRow:
    """A line as it is stored, for the part of the cycle that the subscription ran; usage that outlived it: for all."""
    since, until = max(cycle.starts_at, term.start), min(cycle.ends_at, term.end or cycle.ends_at)
    if since >= until:
        since, until = cycle.starts_at, cycle.ends_at
    return ChargeRow(
        opened.account_id,
        opened.cycle_id,
        opened.subscription_id,
        shelf.get(connection, opened.plan_version_id).component_ids[line.name],
        line.kind,
        instant_us(since),
        instant_us(until),
        totals[line.name].quantity if line.kind is LineKind.USAGE else 1,
        line.amount.numerator,
        line.amount.denominator,
        line.amount_minor,
        *sides_of(Event.USAGE, component=line.name),
        cycle.currency,
    )


def _carry_on(connection: Connection, shelf: PlanShelf, rows: Sequence[ClosableRow], *, now: datetime) -> None:
    """Rates those again whose tiers go on from a plan that usage came late of."""
    ids = [row.cycle_id for row in rows]
    plans = {total.plan_version_id for total in db_closing.list_closing_totals(connection, ids)}
    openings = [opening for number in sorted(plans) for opening in openings_of(connection, shelf, number)]
    if not any(opening.is_carried for opening in openings):
        return
    heads = {row.account_id: row.head_id for row in rows}
    for _ in range(CARRIED_TRIES_MAX):
        moved = db_closing.update_carried(connection, ids, openings)
        if not moved:
            return
        since = {heads[account_id]: at for account_id, at in moved.items()}
        for account_id, at in moved.items():
            since[heads[account_id]] = min(since[heads[account_id]], at)
        for head_id, at in sorted(since.items()):
            rerate_group(connection, shelf, head_id, since_us=instant_us(at), now=now)
    raise AssertionError("tiers that are carried on come to rest")
