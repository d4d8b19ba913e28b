"""What each slice came to, as the rows that are shown of it: by bucket and by tier, each with quantity and price."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.pricing import billable, explain_price
from sms_aaa.rules.tariff import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.rules.charging import Charged
    from sms_aaa.rules.cycle_run import CycleRun
    from sms_aaa.rules.tariff import UsageComponent


class What(StrEnum):
    OPENING = "opening"  # P(0), when a cycle or a subscription in it begins
    BUCKET = "bucket"
    TIER = "tier"
    CONNECT_FEE = "connect-fee"
    SESSION_MAXIMUM = "session-maximum"  # what it cuts off, below zero
    UNCOVERED = "uncovered"


@dataclass(frozen=True, slots=True)
class Row:
    """Of a component, or of a slice in it. `amount` in units of the currency, before discount and cap.

    `bucket`: its id; `taken`: of it. `tier` from 1; `billed`: the tier's quantity after increments. `paid`: by money
    bucket, in units of the currency.
    """

    what: What
    subscription: int
    part: UsageComponent
    quantity: int
    amount: Fraction
    charged: Charged | None = None
    from_us: int = 0
    bucket: int | None = None
    taken: int | None = None
    tier: int | None = None
    billed: int | None = None
    paid: tuple[tuple[int, Fraction], ...] = ()


def rows_of(run: CycleRun) -> Iterator[Row]:
    """A cycle's, openings first. By component the amounts add up to its price, the quantities to its quantity."""
    for contract in run.contracts:
        for part in contract.tariff.usage:
            begin_us, numerator = run.openings.get((contract.number, part.name), (0, 0))
            if numerator:
                amount = Fraction(numerator, part.denominator)
                yield Row(What.OPENING, contract.number, part, 0, amount, from_us=begin_us, tier=1)
    for number, charged in run.charged:
        rows = list(_rows(number, charged))
        if charged.paid and rows:
            paid = tuple((bucket, Fraction(share, PICOUNITS)) for bucket, share in charged.paid)
            rows[-1] = _with_paid(rows[-1], paid)
        yield from rows


def _rows(number: int, charged: Charged) -> Iterator[Row]:
    part, nothing = charged.part, Fraction(0)
    for use in charged.uses:
        yield Row(What.BUCKET, number, part, use.quantity, nothing, charged, bucket=use.bucket_id, taken=use.taken)
    if charged.uncovered:
        yield Row(What.UNCOVERED, number, part, charged.uncovered, nothing, charged, bucket=charged.blocked_by)
    if not charged.priced and not charged.numerator:
        return
    before, after = charged.total_before, charged.total_before + charged.priced
    numerator = 0
    for tier, (quantity, billed, cost) in sorted(_tiers(part, before, after).items()):
        numerator += cost
        amount = Fraction(cost, part.denominator)
        yield Row(What.TIER, number, part, quantity, amount, charged, tier=tier + 1, billed=billed)
    rest = charged.numerator - numerator
    if billable(part, after) and not billable(part, before) and part.connect_fee_picounits:
        fee = part.connect_fee_picounits * (part.denominator // PICOUNITS)
        rest -= fee
        yield Row(What.CONNECT_FEE, number, part, 0, Fraction(fee, part.denominator), charged)
    if rest:
        yield Row(What.SESSION_MAXIMUM, number, part, 0, Fraction(rest, part.denominator), charged)


def _tiers(part: UsageComponent, before: int, after: int) -> dict[int, tuple[int, int, int]]:
    """(quantity, billed quantity, numerator) by tier, counted from 0."""
    begins = [0, *(tier.up_to for tier in part.tiers[:-1] if tier.up_to is not None)]
    found = {
        begins.index(each.tier_from): (0, each.quantity, each.numerator)
        for each in explain_price(part, before=before, after=after)
    }
    for tier, quantity in _raw(part, begins, before, after).items():
        _, billed, numerator = found.get(tier, (0, 0, 0))
        found[tier] = (quantity, billed, numerator)
    return found


def _raw(part: UsageComponent, begins: list[int], before: int, after: int) -> dict[int, int]:
    """The quantity itself by tier: by its place in the running total, or all of it in the tier that is reached."""
    if part.model is not Model.GRADUATED:
        counted = billable(part, after)
        reached = max(number for number, begin in enumerate(begins) if not number or begin < counted)
        return {reached: after - before}
    ends = [*begins[1:], after]
    shares = {
        number: min(after, end) - max(before, begin)
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True))
    }
    return {number: share for number, share in shares.items() if share > 0}


def _with_paid(row: Row, paid: tuple[tuple[int, Fraction], ...]) -> Row:
    return Row(
        row.what, row.subscription, row.part, row.quantity, row.amount, row.charged, row.from_us, row.bucket,
        row.taken, row.tier, row.billed, paid,
    )  # fmt: skip
