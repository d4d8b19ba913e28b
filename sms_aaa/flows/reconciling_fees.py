"""The proof of fees: what is charged is what the plan says of the subscription's time, neither more nor less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import reconcile_fees as db_fees
from sms_aaa.db.cycles import CycleRow, OpenedRow
from sms_aaa.db.reconcile import Violation
from sms_aaa.flows.fees import contracts_of, fees_in
from sms_aaa.rules.instants import instant_us

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.reconcile_fees import OpenedFeeRow
    from sms_aaa.flows.fees import Contract
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.recurring import FeeCharge

FEE_LAW = "a cycle that is opened is charged each fee of the plan, as the tariff says"
SUBSCRIPTIONS_AT_ONCE = 1_000

_Key = tuple[int, int, str, "datetime"]
"""Subscription, component, kind, begin of the service period: what is charged once."""


def fee_violations(connection: Connection, shelf: PlanShelf) -> Iterator[Violation]:
    """Fees that are due and not charged, or charged with another amount, or that no plan has."""
    after = 0
    while True:
        ids = db_fees.list_subscriptions(connection, after=after, limit=SUBSCRIPTIONS_AT_ONCE)
        if not ids:
            return
        yield from _violations(connection, shelf, ids)
        after = ids[-1]


def _violations(connection: Connection, shelf: PlanShelf, subscription_ids: Sequence[int]) -> Iterator[Violation]:
    charged = {
        (row.subscription_id, row.component_id, row.kind, row.from_at): row
        for row in db_fees.list_charged(connection, subscription_ids)
    }
    for row, contract in _opened(connection, subscription_ids):
        ids = shelf.get(connection, row.plan_version_id).component_ids
        opened = OpenedRow(row.account_id, row.cycle_id, row.subscription_id, row.plan_version_id)
        for fee in fees_in(connection, shelf, opened, contract, row.starts_at, row.ends_at):
            key: _Key = (row.subscription_id, ids[fee.name], fee.kind, fee.from_at)
            found = charged.pop(key, None)
            if found is None and _is_owed(row, contract, fee):
                yield _violation(row.account_id, row.cycle_id, key, "nothing", fee.amount_minor)
            elif found is not None and found.amount_minor != fee.amount_minor:
                yield _violation(found.account_id, found.cycle_id, key, found.amount_minor, fee.amount_minor)
    for key, found in charged.items():
        yield _violation(found.account_id, found.cycle_id, key, found.amount_minor, "nothing")


def _is_owed(row: OpenedFeeRow, contract: Contract, fee: FeeCharge) -> bool:
    """Whether it should have been charged by now: when its cycle was opened, or what was due since was done."""
    return row.due_at is None or fee.due_at < row.due_at or fee.due_at <= max(row.starts_at, contract.term.start)


def _opened(connection: Connection, subscription_ids: Sequence[int]) -> Iterator[tuple[OpenedFeeRow, Contract]]:
    rows = db_fees.list_opened(connection, subscription_ids)
    opened = [OpenedRow(row.account_id, row.cycle_id, row.subscription_id, row.plan_version_id) for row in rows]
    cycles = {
        row.cycle_id: CycleRow(
            row.cycle_id,
            instant_us(row.starts_at),
            instant_us(row.ends_at),
            row.is_closed,
            row.zone,
            row.anchor_day,
        )
        for row in rows
    }
    contracts = contracts_of(connection, opened, cycles) if rows else {}
    for row in rows:
        yield row, contracts[row.subscription_id, row.cycle_id]


def _violation(account_id: int, cycle_id: int, key: _Key, charged: int | str, owed: int | str) -> Violation:
    subscription_id, component_id, _, _ = key
    where = f"account {account_id} cycle {cycle_id} subscription {subscription_id} component {component_id}"
    return Violation(FEE_LAW, where, f"charged {charged}, owed {owed}")
