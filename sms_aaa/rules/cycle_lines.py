"""What a cycle comes to, component by component: fees, usage, minimums and bounds, less what was billed before.

Of an open cycle nothing is rounded to the currency, and what has not fallen due is not there. A closed one is what
rules/closing.py makes of it, each line rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.closing import CycleFee, LineKind, closing_lines
from sms_aaa.rules.money import ABSTRACT, exponent
from sms_aaa.rules.pricing import price_numerator, round_to, rounded, shaped
from sms_aaa.rules.recurring import fee_charges, one_time_charges, share_run
from sms_aaa.rules.tariff import Rounding, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sms_aaa.rules.cycle_run import CycleRun
    from sms_aaa.rules.cycle_setting import Contract
    from sms_aaa.rules.measure import Measure
    from sms_aaa.rules.recurring import FeeCharge
    from sms_aaa.rules.tariff import UsageComponent

_NOTHING = Fraction(0)


class ComponentKind(StrEnum):
    RECURRING = "recurring"
    ONE_TIME = "one-time"
    USAGE = "usage"
    BOUND = "bound"


@dataclass(frozen=True, slots=True)
class ComponentLine:
    """A component in a cycle and subscription. Amounts in units of the currency; of fees there are no quantities.

    quantity = covered + uncovered + priced, in base units. `price`: exact, before discount and cap; `amount`: after
    them, with `minimum`, less `billed`; `amount_rounded` likewise, each of them rounded.
    """

    name: str
    kind: ComponentKind
    subscription: int
    amount: Fraction
    amount_rounded: Fraction
    measure: Measure | None = None
    unit: str = ""
    quantity: int = 0
    covered: int = 0
    uncovered: int = 0
    priced: int = 0
    price: Fraction = _NOTHING
    minimum: Fraction = _NOTHING
    billed: Fraction | None = None


@dataclass(frozen=True, slots=True)
class FeeLine:
    """A fee, or a credit of one, and the subscription it is of."""

    subscription: int
    charge: FeeCharge


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a cycle comes to."""

    lines: tuple[ComponentLine, ...] = ()
    fees: tuple[FeeLine, ...] = ()

    @property
    def amount(self) -> Fraction:
        return sum((line.amount for line in self.lines), _NOTHING)

    @property
    def amount_rounded(self) -> Fraction:
        return sum((line.amount_rounded for line in self.lines), _NOTHING)


@dataclass(frozen=True, slots=True)
class Before:
    """What a first cycle had before this calculation, by component: quantities, and amounts that were billed."""

    totals: Mapping[str, int] = field(default_factory=dict)
    billed: Mapping[str, Fraction] = field(default_factory=dict)


def sheet_of(run: CycleRun, currency: str, *, until: datetime | None, before: Before | None) -> Sheet:
    """`until`: what falls due later is not there, for the cycle is open; None: it is closed."""
    fees = _fees(run, currency, until)
    lines: list[ComponentLine] = []
    for contract in run.setting.contracts:
        own = [fee.charge for fee in fees if fee.subscription == contract.number]
        found = [*_fee_lines(contract, own, currency, is_closed=until is None)]
        if contract in run.contracts:
            found += _usage_lines(run, contract, currency, own, is_closed=until is None)
        lines += found
    if before is not None:
        lines = _less_billed(lines, run, currency, before, is_closed=until is None)
    return Sheet(tuple(lines), tuple(fees))


def _fees(run: CycleRun, currency: str, until: datetime | None) -> list[FeeLine]:
    cycle, found = run.setting.cycle, []
    charged: list[str] = []
    for contract in run.setting.contracts:
        term, tariff = contract.term, contract.tariff
        once = one_time_charges(tariff.one_time, currency, term, charged_before=charged)
        charged += [fee.name for fee in tariff.one_time]
        each = [charge for charge in once if cycle.start <= charge.booked_at < cycle.end]
        for fee in tariff.recurring:
            each += fee_charges(fee, currency, term, since=cycle.start, until=cycle.end)
        found += [FeeLine(contract.number, charge) for charge in each if until is None or charge.due_at <= until]
    return found


def _fee_lines(
    contract: Contract, charges: list[FeeCharge], currency: str, *, is_closed: bool
) -> Iterable[ComponentLine]:
    tariff = contract.tariff
    kinds = {fee.name: ComponentKind.RECURRING for fee in tariff.recurring}
    kinds |= {fee.name: ComponentKind.ONE_TIME for fee in tariff.one_time}
    for name, kind in kinds.items():
        own = [charge for charge in charges if charge.name == name]
        if own:
            fee = _sum(own)
            whole = _of_minor(fee.amount_minor, currency)
            amount = fee.amount if currency == ABSTRACT or not is_closed else whole
            yield ComponentLine(name, kind, contract.number, fee.amount, amount, price=fee.amount)


def _usage_lines(
    run: CycleRun, contract: Contract, currency: str, charges: list[FeeCharge], *, is_closed: bool
) -> list[ComponentLine]:
    tariff = contract.tariff
    lines = {part.name: _usage_line(run, contract, part, currency) for part in tariff.usage}
    if not is_closed:
        return list(lines.values())
    numerators = {part.name: _numerator(run, contract, part) for part in tariff.usage}
    fees = {fee.name: _sum([each for each in charges if each.name == fee.name]) for fee in tariff.recurring}
    bounds = []
    rest = dict.fromkeys(lines, _NOTHING)
    for closing in closing_lines(tariff, numerators, fees, share_run(contract.term, run.setting.cycle)):
        whole = closing.amount if currency == ABSTRACT else _of_minor(closing.amount_minor, currency)
        if closing.kind is LineKind.BOUND:
            bounds.append(ComponentLine(closing.name, ComponentKind.BOUND, contract.number, closing.amount, whole))
            continue
        line, rest[closing.name] = lines[closing.name], rest[closing.name] + whole
        if closing.kind is LineKind.MINIMUM:
            least = line.amount_rounded + closing.amount  # of an open cycle: rounded to its own scale
            lines[closing.name] = replace(line, amount=least, minimum=closing.amount)
    return [*(replace(line, amount_rounded=rest[name]) for name, line in lines.items()), *bounds]


def _usage_line(run: CycleRun, contract: Contract, part: UsageComponent, currency: str) -> ComponentLine:
    scope = (contract.number, part.name)
    begun_quantity, begun_numerator = run.begun.get(scope, (0, 0))
    numerator = _numerator(run, contract, part)
    used = run.sums.get(scope)
    total = run.charging.totals.get((contract.number, run.setting.number, part.name))
    amount = shaped(part, numerator)
    own = amount if part.shape.rounding_scale is None else rounded(part, currency, amount)
    return ComponentLine(
        part.name,
        ComponentKind.USAGE,
        contract.number,
        amount,
        own,
        measure=part.measure,
        unit=part.unit.label,
        quantity=used.quantity if used else 0,
        covered=used.covered if used else 0,
        uncovered=used.uncovered if used else 0,
        priced=(total.quantity if total else 0) - begun_quantity,
        price=Fraction(numerator - begun_numerator, part.denominator),
    )


def _numerator(run: CycleRun, contract: Contract, part: UsageComponent) -> int:
    total = run.charging.totals.get((contract.number, run.setting.number, part.name))
    return total.numerator if total else 0


def _less_billed(
    lines: list[ComponentLine], run: CycleRun, currency: str, before: Before, *, is_closed: bool
) -> list[ComponentLine]:
    """Of each component the first line carries what was billed of it before."""
    left = {**_priced_before(run, before), **before.billed}
    found = []
    for line in lines:
        billed = left.pop(line.name, None)
        if billed is None:
            found.append(line)
            continue
        part = next((each for each in run.setting.contracts[0].tariff.usage if each.name == line.name), None)
        found.append(
            replace(
                line,
                billed=billed,
                amount=line.amount - billed,
                amount_rounded=line.amount_rounded - _round(billed, part, currency, is_closed=is_closed),
            )
        )
    return found


def _priced_before(run: CycleRun, before: Before) -> dict[str, Fraction]:
    parts = {part.name: part for part in run.setting.contracts[0].tariff.usage if part.scope is Scope.CYCLE}
    return {
        name: shaped(parts[name], price_numerator(parts[name], quantity))
        for name, quantity in before.totals.items()
        if name in parts
    }


def _round(billed: Fraction, part: UsageComponent | None, currency: str, *, is_closed: bool) -> Fraction:
    if part is not None and part.shape.rounding_scale is not None:
        billed = rounded(part, currency, billed)
    if not is_closed or currency == ABSTRACT:
        return billed
    return round_to(billed, exponent(currency), part.shape.rounding if part is not None else Rounding.HALF_AWAY)


def _sum(charges: list[FeeCharge]) -> CycleFee:
    return CycleFee(sum((each.amount for each in charges), _NOTHING), sum(each.amount_minor for each in charges))


def _of_minor(amount_minor: int, currency: str) -> Fraction:
    return Fraction(amount_minor, 10 ** exponent(currency))
