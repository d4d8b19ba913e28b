"""The lines that cycles close with, from what stands in the tables: when they are closed, and when they move later."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.db import closing as db_closing
from sms_aaa.db.cycles import CycleRow, OpenedRow
from sms_aaa.flows.fees import contracts_of
from sms_aaa.rules.closing import CycleFee, LineKind, closing_lines
from sms_aaa.rules.cycle import Cycle
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.recurring import share_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sms_aaa.db.closing import ClosableRow, ClosingTotalRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.fees import Contract
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.closing import ClosingLine
    from sms_aaa.rules.recurring import Term


def list_lines(
    connection: Connection, shelf: PlanShelf, rows: Sequence[ClosableRow]
) -> Iterator[tuple[OpenedRow, Term, dict[str, ClosingTotalRow], ClosingLine]]:
    """Each line that these cycles close with, with its subscription's term and totals."""
    cycles = {row.cycle_id: row for row in rows}
    totals: dict[OpenedRow, dict[str, ClosingTotalRow]] = defaultdict(dict)
    for total in db_closing.list_closing_totals(connection, list(cycles)):
        opened = OpenedRow(total.account_id, total.cycle_id, total.subscription_id, total.plan_version_id)
        totals[opened][total.component] = total
    if not totals:
        return
    fees = _fees(connection, list(cycles))
    contracts = _contracts(connection, rows, list(totals))
    for opened, parts in totals.items():
        row = cycles[opened.cycle_id]
        term = contracts[opened.subscription_id, opened.cycle_id].term
        tariff = shelf.get(connection, opened.plan_version_id).plan.tariff
        found = closing_lines(
            tariff,
            {name: int(total.numerator) for name, total in parts.items()},
            fees.get((opened.cycle_id, opened.subscription_id), {}),
            share_run(term, Cycle(row.starts_at, row.ends_at)),
        )
        for line in found:
            # A component without a total was never opened here: it has nothing to freeze.
            if line.kind is not LineKind.USAGE or line.name in parts:
                yield opened, term, parts, line


def _fees(connection: Connection, cycle_ids: Sequence[int]) -> dict[tuple[int, int], dict[str, CycleFee]]:
    """By (cycle, subscription) and component, credits counted in."""
    found: dict[tuple[int, int], dict[str, CycleFee]] = defaultdict(dict)
    for fee in db_closing.list_closing_fees(connection, cycle_ids):
        place = found[fee.cycle_id, fee.subscription_id]
        was = place.get(fee.component, CycleFee(Fraction(0), 0))
        amount = was.amount + Fraction(int(fee.numerator), int(fee.denominator))
        place[fee.component] = CycleFee(amount, was.amount_minor + fee.amount_minor)
    return found


def _contracts(
    connection: Connection, rows: Sequence[ClosableRow], opened: Sequence[OpenedRow]
) -> Mapping[tuple[int, int], Contract]:
    cycles = {
        row.cycle_id: CycleRow(
            row.cycle_id, instant_us(row.starts_at), instant_us(row.ends_at), False, row.zone, row.anchor_day
        )
        for row in rows
    }
    return contracts_of(connection, opened, cycles)
