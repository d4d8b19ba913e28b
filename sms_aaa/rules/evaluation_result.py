"""What an evaluation came to, as values: docs/pricing-door.md, section 4, says how they are printed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.money import exponent
from sms_aaa.rules.tariff import UNMETERED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sms_aaa.rules.bucket_book import Held
    from sms_aaa.rules.cycle import Cycle
    from sms_aaa.rules.cycle_lines import ComponentLine, Sheet
    from sms_aaa.rules.cycle_run import CycleRun
    from sms_aaa.rules.measure import Measure
    from sms_aaa.rules.session import AnomalyKind


class Reason(StrEnum):
    """Why a closed cycle came to something else."""

    LATE_USAGE = "late-usage"
    RERATE = "rerate"


class HoldState(StrEnum):
    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Adjustment:
    """By how much a component of a closed cycle, its own service period, came to differently; `booked`: in which."""

    cycle: Cycle
    booked: Cycle
    reason: Reason
    line: ComponentLine


@dataclass(slots=True)
class Hold:
    """A reservation. Quantities in base units of `measure`, of money (None) picounits; `amount` in units of currency.

    `held`: by bucket, what it holds of it. `is_final`: less was granted than asked for.
    """

    line: int
    at_us: int
    session: str
    measure: Measure | None
    asked: Fraction
    granted: Fraction
    is_final: bool
    held: list[tuple[int, int]]
    amount: Fraction
    until_us: int | None
    state: HoldState = HoldState.HELD


@dataclass(frozen=True, slots=True)
class MoneyState:
    """In units of the currency. `credit_limit`, `available` None: no limit."""

    is_prepaid: bool
    opening: Fraction
    payments: Fraction
    charged: Fraction
    from_buckets: Fraction
    reserved: Fraction
    credit_limit: Fraction | None

    @property
    def balance(self) -> Fraction:
        """Below zero: what is owed."""
        return self.opening + self.payments + self.from_buckets - self.charged

    @property
    def available(self) -> Fraction | None:
        if self.credit_limit is None:
            return None
        return max(self.balance + self.credit_limit - self.reserved, Fraction(0))


@dataclass(frozen=True, slots=True)
class CycleResult:
    """A cycle: as it was closed (`is_closed`), or as it stands. `run`: as it is evaluated now."""

    cycle: Cycle
    is_closed: bool
    sheet: Sheet
    run: CycleRun


@dataclass(frozen=True, slots=True)
class Odd:
    """What was odd about a packet."""

    line: int
    session: str
    kind: AnomalyKind


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that an evaluation came to. `members`: their names by their numbers; 0 is the account itself."""

    currency: str
    cycles: tuple[CycleResult, ...]
    adjustments: tuple[Adjustment, ...]
    buckets: tuple[Held, ...]
    money: MoneyState
    holds: tuple[Hold, ...]
    anomalies: tuple[Odd, ...]
    duplicates: int
    members: Mapping[int, str]

    @property
    def amount(self) -> Fraction:
        return _sum([*(each.sheet.amount for each in self.cycles), *(each.line.amount for each in self.adjustments)])

    @property
    def amount_rounded(self) -> Fraction:
        cycles = [each.sheet.amount_rounded for each in self.cycles]
        return _sum([*cycles, *(each.line.amount_rounded for each in self.adjustments)])

    @property
    def lines(self) -> list[ComponentLine]:
        return [line for each in self.cycles for line in each.sheet.lines]


def minor_of(amount: Fraction, currency: str) -> int | None:
    """An amount in minor units; None if it is not a whole number of them."""
    minor = amount * 10 ** exponent(currency)
    return int(minor) if minor.denominator == 1 else None


def component_totals(result: Result) -> list[ComponentLine]:
    """By name, over all cycles and adjustments, in the order in which they come."""
    found: dict[str, ComponentLine] = {}
    for line in (*result.lines, *(each.line for each in result.adjustments)):
        known = found.get(line.name)
        found[line.name] = line if known is None else added(known, line)
    return [line for line in found.values() if is_told(line)]


def is_told(line: ComponentLine) -> bool:
    """Not what no tariff says and nothing came to: traffic that was left uncounted, where there was none."""
    return bool(line.quantity or line.amount) or UNMETERED not in line.name


def added(first: ComponentLine, second: ComponentLine, times: int = 1) -> ComponentLine:
    """The first with so many times the second."""
    billed = first.billed if second.billed is None else (first.billed or Fraction(0)) + times * second.billed
    return replace(
        first,
        amount=first.amount + times * second.amount,
        amount_rounded=first.amount_rounded + times * second.amount_rounded,
        quantity=first.quantity + times * second.quantity,
        covered=first.covered + times * second.covered,
        uncovered=first.uncovered + times * second.uncovered,
        priced=first.priced + times * second.priced,
        price=first.price + times * second.price,
        minimum=first.minimum + times * second.minimum,
        billed=billed,
    )


def difference(before: ComponentLine | None, after: ComponentLine | None) -> ComponentLine:
    """What a component came to, less what it had come to; one of them is there."""
    known = after or before
    assert known is not None
    nothing = added(known, known, -1)
    return added(after or nothing, before or nothing, -1)


def _sum(amounts: list[Fraction]) -> Fraction:
    return sum(amounts, Fraction(0))
