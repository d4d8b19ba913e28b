"""Cycles are opened when they begin, with a total of nothing for each usage component and with the fees of the plan.

Idle accounts too: what a cycle costs does not wait for usage. A thousand subscriptions take a handful of statements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import cycles as db_cycles
from sms_aaa.db import rating as db_rating
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.cycles import FeeRow, OpenedRow
from sms_aaa.db.usage import SHARDS
from sms_aaa.rules.cycle import Cycle, cycle_at
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.ledger import LedgerAccount, difference_entry, revenue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.shelf import PlanShelf


def open_cycles(connection: Connection, shelf: PlanShelf, *, now: datetime, limit: int) -> int:
    """Opens the present cycle of up to `limit` subscriptions that have none, idle ones too; how many were looked at.

    Those that have ended meanwhile are due no more.
    """
    due = db_cycles.list_due(connection, now, limit=limit)
    ended = [row.subscription_id for row in due if row.has_ended]
    if ended:
        db_cycles.delete_due(connection, ended)
    running = [row for row in due if not row.has_ended]
    if not running:
        return len(due)
    db_queue.lock_shards(connection, (row.account_id % SHARDS for row in running))
    cycles = {place: cycle_at(now, *place) for place in {(row.zone, row.anchor_day) for row in running}}
    bounds_us = {place: _bounds_us(cycle) for place, cycle in cycles.items()}
    present = {row.account_id: bounds_us[row.zone, row.anchor_day] for row in running}
    ids = db_rating.upsert_cycles(connection, sorted((account_id, *bounds) for account_id, bounds in present.items()))
    opened = [
        OpenedRow(
            row.account_id, ids[row.account_id, present[row.account_id][0]], row.subscription_id, row.plan_version_id
        )
        for row in running
    ]
    db_cycles.insert_zero_totals(connection, opened)
    charge_fees(connection, shelf, opened)
    db_cycles.update_due(
        connection, [row.subscription_id for row in running], [present[row.account_id][1] for row in running]
    )
    return len(due)


def postpone_next(connection: Connection, *, now: datetime, until: datetime) -> list[int]:
    """Puts the subscription off whose cycle is due first: it was tried alone and cannot be opened. Its id."""
    ids = [row.subscription_id for row in db_cycles.list_due(connection, now, limit=1)]
    db_cycles.update_due(connection, ids, [instant_us(until)] * len(ids))
    return ids


def charge_fees(connection: Connection, shelf: PlanShelf, opened: Sequence[OpenedRow]) -> int:
    """Charges and posts the recurring fees of these, in advance and whole, once; how many ledger entries that made."""
    fees = [
        fee for number in sorted({row.plan_version_id for row in opened}) for fee in _fees(connection, shelf, number)
    ]
    return db_cycles.insert_charges(connection, opened, fees) if fees else 0


def _fees(connection: Connection, shelf: PlanShelf, plan_version_id: int) -> Iterable[FeeRow]:
    priced = shelf.get(connection, plan_version_id)
    tariff = priced.plan.tariff
    for fee in tariff.recurring:
        entry = difference_entry(
            before_minor=0,
            after_minor=fee.amount_minor,
            debit=LedgerAccount.UNBILLED_RECEIVABLE,
            credit=revenue(fee.name),
            currency=tariff.currency,
        )
        sides = (entry.debit, entry.credit) if entry is not None else ("", "")
        yield FeeRow(plan_version_id, priced.component_ids[fee.name], fee.amount_minor, *sides, tariff.currency)


def _bounds_us(cycle: Cycle) -> tuple[int, int]:
    return instant_us(cycle.start), instant_us(cycle.end)
