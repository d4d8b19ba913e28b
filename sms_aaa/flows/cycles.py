"""Cycles are opened when they begin, with what they cost before anything is used, and with the fees that are due.

Idle accounts too: what a cycle costs does not wait for usage. A thousand subscriptions take a handful of statements.

Of each subscription it is known when something is due next: its next cycle, a fee within it, its end. So a fee is
charged when it falls due and not before, and a rater that was away opens what it missed, a cycle at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import cycles as db_cycles
from sms_aaa.db import rating as db_rating
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.cycles import CycleRow, OpenedRow, OpeningRow
from sms_aaa.db.usage import SHARDS
from sms_aaa.flows.fees import charge_due, contracts_of, has_arrears
from sms_aaa.flows.granting import grant_allowances
from sms_aaa.rules.cycle import Cycle, cycle_at
from sms_aaa.rules.instants import instant_of, instant_us
from sms_aaa.rules.ledger import Event, sides_of
from sms_aaa.rules.pricing import amount_minor, opening_numerator
from sms_aaa.rules.recurring import next_edge
from sms_aaa.rules.tariff import Carry, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sms_aaa.db.cycles import DueRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.fees import Contract
    from sms_aaa.flows.shelf import PlanShelf

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Due:
    """A subscription of which something is due, in this cycle of the account that pays."""

    row: DueRow
    cycle: Cycle
    opened: OpenedRow


def open_cycles(connection: Connection, shelf: PlanShelf, *, now: datetime, limit: int) -> int:
    """Does what is due of up to `limit` subscriptions, idle ones too, in one cycle of each; how many were looked at.

    As many as `limit` are said to be looked at too when one of them has more that is due. Those that have ended and are
    done with are due no more.
    """
    looked_at = db_cycles.list_due(connection, now, limit=limit)
    done_with = [row.subscription_id for row in looked_at if not row.account_id]
    rows = [row for row in looked_at if row.account_id]
    db_queue.lock_shards(connection, (row.head_id % SHARDS for row in rows))
    due = _placed(connection, rows)
    opened = [each.opened for each in due]
    if opened:
        arrears = list(_cycles_before(connection, shelf, due))
        cycles, contracts = _known(connection, [*opened, *arrears])
        if _open_totals(connection, shelf, opened):
            # What raters remember of these shards is out of date.
            db_queue.touch_shards(connection, (row.head_id % SHARDS for row in rows))
        grant_allowances(connection, shelf, opened, cycles, contracts)
        instead = _instead(connection, due, cycles, now)
        charge_due(connection, shelf, [*opened, *arrears], cycles, contracts, now=now, instead=instead)
        done_with += [each.row.subscription_id for each in due if _is_done_with(each, contracts[_place(each)], now)]
    if done_with:
        db_cycles.delete_due(connection, done_with)
    left = [each for each in due if each.row.subscription_id not in set(done_with)]
    next_us = [_next_us(connection, shelf, each, contracts[_place(each)], now) for each in left]
    if left:
        db_cycles.update_due(connection, [each.row.subscription_id for each in left], next_us)
    has_more = any(due_us <= instant_us(now) for due_us in next_us)
    return limit if has_more else len(looked_at)


def postpone_next(connection: Connection, *, now: datetime, until: datetime) -> list[int]:
    """Puts the subscription off of which something is due first: it was tried alone and cannot be done. Its id."""
    ids = [row.subscription_id for row in db_cycles.list_due(connection, now, limit=1)]
    db_cycles.update_due(connection, ids, [instant_us(until)] * len(ids))
    return ids


def begin_standings(connection: Connection, shelf: PlanShelf, opened: Sequence[OpenedRow]) -> None:
    """Totals and fees that these begin with, for a rater that meets them first; it holds their shards."""
    if opened:
        _open_totals(connection, shelf, opened)
        known = _known(connection, opened)
        grant_allowances(connection, shelf, opened, *known)
        charge_due(connection, shelf, opened, *known, now=None)


def _open_totals(connection: Connection, shelf: PlanShelf, opened: Sequence[OpenedRow]) -> int:
    """The totals that these begin with, and P(0) in the ledger, where there are none yet; how many were new."""
    numbers = sorted({row.plan_version_id for row in opened})
    openings = [opening for number in numbers for opening in openings_of(connection, shelf, number)]
    return db_cycles.insert_totals(connection, opened, openings)


def openings_of(connection: Connection, shelf: PlanShelf, plan_version_id: int) -> Iterator[OpeningRow]:
    """What the totals of a plan version begin with."""
    priced = shelf.get(connection, plan_version_id)
    tariff = priced.plan.tariff
    for part in tariff.usage:
        numerator = opening_numerator(part)
        yield OpeningRow(
            plan_version_id,
            priced.component_ids[part.name],
            numerator,
            amount_minor(part, tariff.currency, numerator),
            *sides_of(Event.USAGE, component=part.name),
            tariff.currency,
            tariff.carry is Carry.ON and part.scope is Scope.CYCLE,
        )


def _placed(connection: Connection, rows: Sequence[DueRow]) -> list[_Due]:
    """The cycles that these are due in, opened."""
    if not rows:
        return []
    known: dict[tuple[str, int, int], Cycle] = {}
    cycles = []
    for row in rows:
        # At the turn of a month a thousand subscriptions are due at the same few instants.
        place = (row.zone, row.anchor_day, row.at_us)
        if place not in known:
            known[place] = cycle_at(instant_of(row.at_us), row.zone, row.anchor_day)
        cycles.append(known[place])
    wanted = {(row.account_id, *_bounds_us(cycle)) for row, cycle in zip(rows, cycles, strict=True)}
    ids = db_rating.upsert_cycles(connection, sorted(wanted))
    return [
        _Due(
            row,
            cycle,
            OpenedRow(
                row.account_id, ids[row.account_id, instant_us(cycle.start)], row.subscription_id, row.plan_version_id
            ),
        )
        for row, cycle in zip(rows, cycles, strict=True)
    ]


def _cycles_before(connection: Connection, shelf: PlanShelf, due: Sequence[_Due]) -> Iterator[OpenedRow]:
    """Where a cycle has just begun, the one before it, for whoever pays in arrears."""
    wanted = []
    for each in due:
        tariff = shelf.get(connection, each.row.plan_version_id).plan.tariff
        if each.row.at_us == instant_us(each.cycle.start) and has_arrears(tariff):
            before = cycle_at(each.cycle.start - _MICROSECOND, each.row.zone, each.row.anchor_day)
            wanted.append((each, _bounds_us(before)))
    if wanted:
        cycles = {(each.row.account_id, *bounds) for each, bounds in wanted}
        ids = db_rating.upsert_cycles(connection, sorted(cycles))
        for each, (starts_us, _) in wanted:
            cycle_id = ids[each.row.account_id, starts_us]
            yield OpenedRow(each.row.account_id, cycle_id, each.row.subscription_id, each.row.plan_version_id)


def _instead(
    connection: Connection, due: Sequence[_Due], cycles: Mapping[int, CycleRow], now: datetime
) -> dict[int, CycleRow]:
    """The present cycles of whoever has something due in one that is closed, by the closed one."""
    closed = [each for each in due if cycles[each.opened.cycle_id].is_closed]
    if not closed:
        return {}
    bounds = {each.opened: _bounds_us(cycle_at(now, each.row.zone, each.row.anchor_day)) for each in closed}
    ids = db_rating.upsert_cycles(connection, sorted({(row.account_id, *bounds[row]) for row in bounds}))
    return {
        row.cycle_id: CycleRow(
            ids[row.account_id, starts_us], starts_us, ends_us, False, cycles[row.cycle_id].zone,
            cycles[row.cycle_id].anchor_day,
        )
        for row, (starts_us, ends_us) in bounds.items()
    }  # fmt: skip


def _known(
    connection: Connection, opened: Sequence[OpenedRow]
) -> tuple[dict[int, CycleRow], dict[tuple[int, int], Contract]]:
    rows = db_cycles.list_cycles(connection, sorted({row.cycle_id for row in opened}))
    cycles = {row.cycle_id: row for row in rows}
    return cycles, contracts_of(connection, opened, cycles)


def _place(due: _Due) -> tuple[int, int]:
    return due.opened.subscription_id, due.opened.cycle_id


def _is_done_with(due: _Due, contract: Contract, now: datetime) -> bool:
    end = contract.term.end
    return end is not None and end <= now and end <= due.cycle.end


def _next_us(connection: Connection, shelf: PlanShelf, due: _Due, contract: Contract, now: datetime) -> int:
    """When something is due next: a fee in this cycle, the end of it or of the subscription."""
    edges = [due.cycle.end]
    if now < due.cycle.end:
        term = contract.term
        edges += [term.end] if term.end is not None else []
        tariff = shelf.get(connection, due.row.plan_version_id).plan.tariff
        edges += [next_edge(fee, term, now) for fee in tariff.recurring]
    return instant_us(min(edges))


def _bounds_us(cycle: Cycle) -> tuple[int, int]:
    return instant_us(cycle.start), instant_us(cycle.end)
