"""The [[example]] cases of a plan file: one whole cycle each, priced by the same rules as everybody's usage.

An example's subscription begins with January 2001, a Monday, on a wall of UTC; `cycle` says which of its months is
priced. Each table of usage lies at the beginning of the cycle, in the key, slot and band that it names, and the tables
are charged in their order. The plan's buckets are granted whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import BucketKind, Grant
from sms_aaa.rules.charging import Charging, Fact, Slice
from sms_aaa.rules.closing import CycleFee, closing_lines
from sms_aaa.rules.covering import Bucket
from sms_aaa.rules.cycle import Cycle, cycle_at
from sms_aaa.rules.instants import SECOND_US, instant_us
from sms_aaa.rules.measure import QUANTITY_MAX, Amounts, Kind, Measure, quantity_text
from sms_aaa.rules.money import ABSTRACT, PICOUNITS, exponent, format_exact, minor_of
from sms_aaa.rules.plan_table import Form, Key, PlanInvalidError, Section
from sms_aaa.rules.plan_usage import amount_picounits
from sms_aaa.rules.pricing import price_numerator, round_to
from sms_aaa.rules.recurring import fee_charges, one_time_charges, terms_of
from sms_aaa.rules.tariff import TOTAL_NAME, places

if TYPE_CHECKING:
    from sms_aaa.rules.buckets import BucketTerms
    from sms_aaa.rules.plan_table import Table
    from sms_aaa.rules.tariff import Tariff

_BEGINS_AT = datetime(2001, 1, 1, tzinfo=UTC)
_ZONE, _ANCHOR_DAY = "UTC", 1
ABSTRACT_DECIMALS_COMPARED = 12
_MEMBER = 1
_SUBSCRIPTION = 1
_QUANTITIES = (
    ("upload", Kind.OCTETS),
    ("download", Kind.OCTETS),
    ("seconds", Kind.SECONDS),
    ("events", Kind.EVENTS),
    ("units", Kind.UNITS),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What an example expects of a component or bucket (None: nothing), and what the tariff makes it, as text."""

    name: str
    place: str
    expected: str | None
    found: str

    @property
    def holds(self) -> bool:
        return self.expected in {None, self.found}


@dataclass(frozen=True, slots=True)
class Outcome:
    """An example, priced; `number` counts them from 0, as places do."""

    number: int
    comparisons: tuple[Comparison, ...]

    @property
    def broken(self) -> PlanInvalidError | None:
        """The first expectation that the tariff does not keep."""
        for each in self.comparisons:
            if not each.holds:
                reason = f"is {each.expected}, the tariff makes it {each.found}"
                return PlanInvalidError(each.place, reason, "correct one of them")
        return None


def price_example(number: int, table: Table, tariff: Tariff) -> Outcome:
    """A cycle with the example's usage, beside what it expects of components, of the total, and of buckets."""
    cycle = Cycle(_BEGINS_AT, _BEGINS_AT)
    for _ in range(table.count("cycle")):
        cycle = cycle_at(cycle.end, _ZONE, _ANCHOR_DAY)
    charging = _charging(tariff, cycle)
    used = 0
    for index, row in enumerate(table.tables("usage")):
        piece = _piece(row, index, tariff, cycle)
        used += sum(piece.quantity(measure) for measure in Measure)
        if used > QUANTITY_MAX:
            raise PlanInvalidError(row.place, "is more than can be counted", "use less")
        charging.charge(piece, tariff.usage, _SUBSCRIPTION, cycle)
    comparisons = [
        *_compared_amounts(table, tariff, _amounts(tariff, charging, cycle)),
        *_compared_uses(table, tariff, charging),
    ]
    return Outcome(number, tuple(comparisons))


def _charging(tariff: Tariff, cycle: Cycle) -> Charging:
    """As the cycle opens: with P(0), and each bucket whole."""
    from_us, until_us = instant_us(cycle.start), instant_us(cycle.end)
    charging = Charging()
    for number, terms in enumerate(tariff.buckets):
        if terms.kind is BucketKind.PROMOTION and cycle.start > _BEGINS_AT:
            continue
        ends_us = until_us if terms.valid_seconds is None else from_us + terms.valid_seconds * SECOND_US
        charging.buckets.append(Bucket(Grant(number, terms, terms.amount, from_us, ends_us, from_us)))
    for part in tariff.usage:
        charging.total(_SUBSCRIPTION, cycle, part).numerator = price_numerator(part, 0)
    return charging


def _piece(row: Table, index: int, tariff: Tariff, cycle: Cycle) -> Slice:
    amounts = Amounts(*(row.optional(name, partial(row.quantity, kind=kind)) or 0 for name, kind in _QUANTITIES))
    key, slot, band = (_place(row, name, tariff, at) for at, name in enumerate(("key", "slot", "band")))
    session = row.optional("session", row.name) or index
    at_us = instant_us(cycle.start)
    fact = Fact(_MEMBER, session, index, at_us, at_us, at_us, key, amounts)
    return Slice(fact, 0, at_us, at_us, slot, band, tariff.switch)


def _place(row: Table, name: str, tariff: Tariff, at: int) -> str:
    found = row.name(name)
    known = list(dict.fromkeys(place[at] for place in places(tariff)))
    if found not in known:
        reason = f"is {found!r}, which the tariff does not have"
        raise PlanInvalidError(row.at(name), reason, f"known are {', '.join(known)}")
    return found


def _amounts(tariff: Tariff, charging: Charging, cycle: Cycle) -> dict[str, Fraction]:
    """What each component comes to, in units of the currency: to its minor unit, exactly in abstract units."""
    [term] = terms_of([(_BEGINS_AT, None)], _ZONE, _ANCHOR_DAY)
    is_exact = tariff.currency == ABSTRACT
    scale = 10 ** exponent(tariff.currency)
    fees: dict[str, CycleFee] = {}
    for fee in tariff.recurring:
        charges = fee_charges(fee, tariff.currency, term, since=cycle.start, until=cycle.end)
        fees[fee.name] = CycleFee(
            sum((each.amount for each in charges), Fraction(0)), sum(each.amount_minor for each in charges)
        )
    once = one_time_charges(tariff.one_time, tariff.currency, term) if cycle.start == _BEGINS_AT else []
    found = {name: fee.amount if is_exact else Fraction(fee.amount_minor, scale) for name, fee in fees.items()}
    found |= {fee.name: Fraction(0) for fee in tariff.one_time}
    found |= {each.name: each.amount for each in once}
    found |= {part.name: Fraction(0) for part in tariff.usage}
    found |= {bound.name: Fraction(0) for bound in tariff.bounds}
    numerators = {part.name: charging.total(_SUBSCRIPTION, cycle, part).numerator for part in tariff.usage}
    for line in closing_lines(tariff, numerators, fees, Fraction(1)):
        found[line.name] += line.amount if is_exact else Fraction(line.amount_minor, scale)
    return found


def _compared_amounts(table: Table, tariff: Tariff, amounts: dict[str, Fraction]) -> list[Comparison]:
    known = {**amounts, TOTAL_NAME: sum(amounts.values(), Fraction(0))}
    expect = table.inner("expect", Section("expect", tuple(Key(name, Form.AMOUNT, "", "") for name in known)))
    found = []
    for name, amount in known.items():
        expected = None
        if name == TOTAL_NAME or expect.has(name):
            expected = _money(_expected(expect, name, tariff.currency), tariff.currency)
        found.append(Comparison(name, expect.at(name), expected, _money(amount, tariff.currency)))
    return found


def _expected(expect: Table, name: str, currency: str) -> Fraction:
    """No finer than what it is compared with."""
    scale = 10 ** _decimals(currency)

    def converted(amount: Fraction) -> int:
        if currency != ABSTRACT:
            return minor_of(amount, currency)
        if (amount * scale).denominator != 1:
            raise ValueError(f"has more than {ABSTRACT_DECIMALS_COMPARED} decimals")
        return int(amount * scale)

    return Fraction(expect.number(name, Form.AMOUNT, converted), scale)


def _compared_uses(table: Table, tariff: Tariff, charging: Charging) -> list[Comparison]:
    if not table.has("buckets"):
        return []
    keys = tuple(Key(terms.name, Form.QUANTITY, "", "") for terms in tariff.buckets)
    expect = table.inner("buckets", Section("buckets", keys))
    used = {bucket.terms.name: bucket.used for bucket in charging.buckets}
    found = []
    for terms in tariff.buckets:
        if expect.has(terms.name):
            wanted = _use(terms, Fraction(_wanted(expect, terms, tariff.currency)), tariff)
            use = _use(terms, Fraction(used.get(terms.name, 0)), tariff)
            found.append(Comparison(terms.name, expect.at(terms.name), wanted, use))
    return found


def _wanted(expect: Table, terms: BucketTerms, currency: str) -> int:
    if terms.measure is None:
        return amount_picounits(expect, terms.name, currency=currency, form=Form.QUANTITY)
    return expect.quantity(terms.name, terms.measure.kind)


def _use(terms: BucketTerms, used: Fraction, tariff: Tariff) -> str:
    if terms.measure is None:
        return _money(used / PICOUNITS, tariff.currency)
    return quantity_text(int(used), terms.measure.kind)


def _money(amount: Fraction, currency: str) -> str:
    shown = round_to(amount, _decimals(currency))
    return format_exact(shown.numerator, shown.denominator, currency)


def _decimals(currency: str) -> int:
    """Of what is compared: a third of an abstract unit has no decimal form."""
    return ABSTRACT_DECIMALS_COMPARED if currency == ABSTRACT else exponent(currency)
