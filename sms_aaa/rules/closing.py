"""What a cycle closes with: usage as it stands, what is missing to a minimum, what is above a maximum over components.

Usage goes discount, cap, rounding at the component's own scale, then minor units. A minimum is a line of its own: what
the component's amount is short of it. A bound looks at the sum of its components' lines, and of the bounds before it
that lie within its components; its line is above zero for a minimum and below it for a maximum. So the lines of a cycle
add up to what it costs, to the minor unit, and each says why it is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import BucketKind
from sms_aaa.rules.cycle import cycle_at, next_cycle
from sms_aaa.rules.money import PICOUNITS, exponent, round_half_away
from sms_aaa.rules.pricing import amount_minor, round_to, rounded, shaped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sms_aaa.rules.buckets import BucketTerms
    from sms_aaa.rules.tariff import Bound, Tariff, UsageComponent


class LineKind(StrEnum):
    USAGE = "usage"
    MINIMUM = "minimum"
    BOUND = "bound"


@dataclass(frozen=True, slots=True)
class ClosingLine:
    """`amount` in units of the currency, exact but for a scale that the component has itself; `amount_minor` of it."""

    name: str
    kind: LineKind
    amount: Fraction
    amount_minor: int


@dataclass(frozen=True, slots=True)
class CycleFee:
    """What the recurring component of a name came to in a cycle, its credits counted in."""

    amount: Fraction
    amount_minor: int


def closing_lines(
    tariff: Tariff, numerators: Mapping[str, int], fees: Mapping[str, CycleFee], run: Fraction
) -> tuple[ClosingLine, ...]:
    """The lines of one subscription's cycle: usage of each component, then minimums, then bounds that do something.

    `numerators`: exact price so far over the component's denominator, P(0) where nothing was used; a component that is
    missing has none. `run`: the part of the cycle that the subscription ran, for minimums that are prorated.
    """
    usage = [_usage_line(part, tariff.currency, numerators.get(part.name, 0)) for part in tariff.usage]
    lines = [*usage]
    for part, line in zip(tariff.usage, usage, strict=True):
        least = _least(part.shape.minimum_picounits, run, is_prorated=part.shape.is_minimum_prorated)
        if least and line.amount < (least := rounded(part, tariff.currency, least)):
            missing = _minor(part, tariff.currency, least) - line.amount_minor
            lines.append(ClosingLine(part.name, LineKind.MINIMUM, least - line.amount, missing))
    for bound in tariff.bounds:
        line = _bound_line(tariff, bound, lines, fees, run)
        if line.amount or line.amount_minor:
            lines.append(line)
    return tuple(lines)


def _usage_line(part: UsageComponent, currency: str, numerator: int) -> ClosingLine:
    amount = shaped(part, numerator)
    if part.shape.rounding_scale is not None:
        amount = rounded(part, currency, amount)
    return ClosingLine(part.name, LineKind.USAGE, amount, amount_minor(part, currency, numerator))


def _minor(part: UsageComponent, currency: str, amount: Fraction) -> int:
    return int(round_to(amount, exponent(currency), part.shape.rounding) * 10 ** exponent(currency))


def _bound_line(
    tariff: Tariff, bound: Bound, lines: list[ClosingLine], fees: Mapping[str, CycleFee], run: Fraction
) -> ClosingLine:
    bounded = {bound.name: frozenset(bound.components) for bound in tariff.bounds}
    parts = [
        (line.amount, line.amount_minor)
        for line in lines
        if (bounded[line.name] <= bounded[bound.name] if line.kind is LineKind.BOUND else line.name in bound.components)
    ]
    parts += [(fees[name].amount, fees[name].amount_minor) for name in bound.components if name in fees]
    amount = sum((exact for exact, _ in parts), Fraction(0))
    minor = sum(whole for _, whole in parts)
    least = _least(bound.minimum_picounits, run, is_prorated=bound.is_minimum_prorated)
    most = None if bound.maximum_picounits is None else Fraction(bound.maximum_picounits, PICOUNITS)
    least_minor = _whole(least, tariff.currency)
    most_minor = None if most is None else _whole(most, tariff.currency)
    return ClosingLine(
        bound.name,
        LineKind.BOUND,
        _between(amount, least, most) - amount,
        int(_between(Fraction(minor), least_minor, most_minor)) - minor,
    )


def _between(amount: Fraction, least: Fraction, most: Fraction | None) -> Fraction:
    raised = max(amount, least) if least else amount
    return raised if most is None else min(raised, most)


def _least(picounits: int, run: Fraction, *, is_prorated: bool) -> Fraction:
    """A minimum, in units; none where the subscription did not run at all."""
    share = run if is_prorated or not run else Fraction(1)
    return Fraction(picounits, PICOUNITS) * share


def _whole(amount: Fraction, currency: str) -> Fraction:
    """In minor units, rounded to whole ones."""
    return round_to(amount * 10 ** exponent(currency), 0)


@dataclass(frozen=True, slots=True)
class RolledOver:
    """A bucket that what was left of another becomes: its terms, its amount, and until when it can be used."""

    terms: BucketTerms
    granted: int
    until: datetime


def granted_amount(terms: BucketTerms, run: Fraction) -> int:
    """What a cycle grants of a bucket of the plan: prorated by the part that the subscription runs, if it says so."""
    share = terms.amount * run if terms.is_prorated else Fraction(terms.amount)
    return round_half_away(share.numerator, share.denominator)


def roll_over(terms: BucketTerms, left: Fraction, *, at: datetime, zone: str, anchor_day: int) -> RolledOver | None:
    """What becomes of `left` in a bucket that ended at `at`: None if it is lost.

    Below the minimum nothing is kept, above the maximum the maximum; it lasts that many of the account's cycles from
    `at` on, and what was rolled over once is not rolled over again.
    """
    rule = terms.rollover
    amount = int(left)  # of a money bucket whole picounits
    if rule is None or terms.kind is BucketKind.ROLLOVER or amount <= 0 or amount < rule.minimum:
        return None
    cycle = cycle_at(at, zone, anchor_day)
    for _ in range(rule.periods - 1):
        cycle = next_cycle(cycle, zone, anchor_day)
    granted = amount if rule.maximum is None else min(amount, rule.maximum)
    if granted == 0 or rule.periods < 1:
        return None
    rolled = replace(
        terms, kind=BucketKind.ROLLOVER, amount=granted, is_prorated=False, valid_seconds=None, rollover=None
    )
    return RolledOver(rolled, granted, cycle.end)
