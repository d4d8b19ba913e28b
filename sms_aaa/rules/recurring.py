"""Fees by time: the periods of a recurring component, what is charged for them, and what is given back.

Periods tile time from an origin on: the account's cycle in which the subscription began, or where that did, after its
trial. A period is charged when it falls due: in advance where its part of the subscription begins, in arrears where
that ends. The charge in advance goes to the end of the period, whether the end of the subscription was known or not;
what lies behind that end is given back by a credit of its own. So the charges do not depend on when somebody learned of
the end, and a change of plan is the credit of the old plan and the charge of the new one.

By days, a day belongs to one subscription of a service only: to the one that the customer is on when it ends, or, where
none follows at once, to the one that ended on it. Exact amounts of the parts of a period add up to its whole amount;
each charge is rounded once, and a credit mirrors the charge of the same part.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from sms_aaa.rules.cycle import Cycle, cycle_at, month_start, wall_instant, zone_of
from sms_aaa.rules.money import exponent, round_half_away
from sms_aaa.rules.tariff import Anchor, Due, Period, Proration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from zoneinfo import ZoneInfo

    from sms_aaa.rules.tariff import OneTimeComponent, RecurringComponent

GRIDS_KEPT = 4096
_MICROSECOND = timedelta(microseconds=1)
_DAYS_IN_WEEK = 7
_MONTHS = {Period.MONTH: 1, Period.QUARTER: 3, Period.YEAR: 12}


class FeeKind(StrEnum):
    RECURRING = "recurring"
    ONE_TIME = "one-time"
    CREDIT = "credit"  # of a fee that was charged in advance, for what lies behind the end of the subscription


@dataclass(frozen=True, slots=True)
class Term:
    """A subscription of a service, [start, end), in an account; `end` None: it goes on. Instants in UTC.

    `began_at`: the start of the first of the subscriptions that followed upon each other without a gap up to it; trial
    and periods count from there, so that a change of plan does not move them. [day_from, day_until), as ordinals of
    dates on the account's wall, are the days that are its own: `terms_of` shares them out.
    """

    start: datetime
    end: datetime | None
    zone: str
    anchor_day: int
    began_at: datetime
    day_from: int
    day_until: int | None


@dataclass(frozen=True, slots=True)
class FeeCharge:
    """A fee for [from_at, until_at), `parts` of the `whole` period's days or microseconds. A credit is below zero.

    `amount`: exact, in units of the currency. `booked_at`: an instant of the account's cycle that it belongs to; in
    advance that is where it falls due, in arrears and for a credit the last microsecond before the end of the part.
    """

    name: str
    kind: FeeKind
    booked_at: datetime
    from_at: datetime
    until_at: datetime
    quantity: int
    parts: int
    whole: int
    amount: Fraction
    amount_minor: int

    @property
    def due_at(self) -> datetime:
        """When it can be booked: not before the part of a charge in arrears, or the subscription, has ended."""
        return self.from_at if self.booked_at == self.from_at else self.booked_at + _MICROSECOND


def terms_of(spans: Sequence[tuple[datetime, datetime | None]], zone: str, anchor_day: int) -> list[Term]:
    """The terms of a service's subscriptions [start, end), which ascend and do not overlap."""
    wall = zone_of(zone)
    terms: list[Term] = []
    billed_until = 0
    for number, (start, end) in enumerate(spans):
        last = terms[-1] if terms else None
        is_change = last is not None and last.end == start
        day_from = max(_day(start, wall), billed_until)
        day_until = None
        if end is not None:
            is_followed = number + 1 < len(spans) and spans[number + 1][0] == end
            # An instant before the end is in its last day, unless another takes the day over.
            last_day = _day(end, wall) if is_followed else _day(max(end - _MICROSECOND, start), wall) + 1
            day_until = max(day_from, last_day)
            billed_until = day_until
        terms.append(
            Term(start, end, zone, anchor_day, last.began_at if is_change and last else start, day_from, day_until)
        )
    return terms


def period_at(fee: RecurringComponent, term: Term, instant: datetime) -> Cycle:
    """The whole period that an instant lies in; not before the first one."""
    grid = _grid_of(fee, term)
    number = grid.number_at(instant)
    return Cycle(grid.edge(number), grid.edge(number + 1))


def fee_charges(
    fee: RecurringComponent, currency: str, term: Term, *, since: datetime, until: datetime
) -> list[FeeCharge]:
    """The charges and credits of a fee that are booked in [since, until), in order of time."""
    paid_from = max(term.start, _paid_from(fee, term))
    if term.end is not None and term.end <= paid_from:
        return []
    charges = _in_advance if fee.due is Due.ADVANCE else _in_arrears
    found = charges(fee, currency, term, paid_from, since, until)
    return [charge for charge in found if since <= charge.booked_at < until]


def next_edge(fee: RecurringComponent, term: Term, after: datetime) -> datetime:
    """The first instant later than `after` at which a period of the fee begins, or its trial ends."""
    paid_from = _paid_from(fee, term)
    if after < paid_from:
        return paid_from
    grid = _grid_of(fee, term)
    return grid.edge(grid.number_at(after) + 1)


def one_time_charges(
    fees: Sequence[OneTimeComponent], currency: str, term: Term, *, charged_before: Collection[str] = ()
) -> list[FeeCharge]:
    """The fees that are due when a subscription begins, but for those that an earlier one, changed into it, charged."""
    return [
        _charge(fee, FeeKind.ONE_TIME, currency, (term.start, term.start, term.start), (1, 1))
        for fee in fees
        if not (term.began_at < term.start and fee.name in charged_before)
    ]


def share_run(term: Term, cycle: Cycle) -> Fraction:
    """What part of a cycle's days a subscription ran, 0 to 1; for minimums and grants that are prorated."""
    wall = zone_of(term.zone)
    first, last = _day(cycle.start, wall), _day(cycle.end, wall)
    day_until = last if term.day_until is None else min(term.day_until, last)
    return Fraction(max(day_until - max(term.day_from, first), 0), last - first)


def earned_minor(amount_minor: int, from_at: datetime, until_at: datetime, at: datetime) -> int:
    """What of an amount for [from_at, until_at) is earned up to an instant, by time, rounded half away from zero.

    The differences over cycles that tile it add up to the amount.
    """
    if at >= until_at:
        return amount_minor
    elapsed, duration = (max(moment - from_at, timedelta()) // _MICROSECOND for moment in (at, until_at))
    return round_half_away(amount_minor * elapsed, duration)


def _in_advance(
    fee: RecurringComponent, currency: str, term: Term, paid_from: datetime, since: datetime, until: datetime
) -> Iterator[FeeCharge]:
    grid = _grid_of(fee, term)
    for number, begin in _parts_from(grid, paid_from, since):
        # The credit of a period is booked at the end of the term, which may be long after the period was charged.
        if begin >= until or (term.end is not None and begin >= term.end):
            break
        end = grid.edge(number + 1)
        parts, whole = _share(fee, grid, number, term, (begin, end))
        if parts:
            yield _charge(fee, FeeKind.RECURRING, currency, (begin, begin, end), (parts, whole))
        if term.end is not None and term.end < end and fee.proration is not Proration.NONE:
            used, _ = _share(fee, grid, number, term, (begin, term.end), term.day_until)
            if parts > used:
                booked_at = term.end - _MICROSECOND
                yield _charge(fee, FeeKind.CREDIT, currency, (booked_at, term.end, end), (used - parts, whole))


def _in_arrears(
    fee: RecurringComponent, currency: str, term: Term, paid_from: datetime, since: datetime, until: datetime
) -> Iterator[FeeCharge]:
    grid = _grid_of(fee, term)
    for number, begin in _parts_from(grid, paid_from, since):
        if begin >= until or (term.end is not None and begin >= term.end):
            break
        end = grid.edge(number + 1)
        if term.end is not None:
            end = min(end, term.end)
        parts, whole = _share(fee, grid, number, term, (begin, end), term.day_until)
        if parts:
            yield _charge(fee, FeeKind.RECURRING, currency, (end - _MICROSECOND, begin, end), (parts, whole))


def _parts_from(grid: _Grid, paid_from: datetime, since: datetime) -> Iterator[tuple[int, datetime]]:
    """(period, begin of its paid part) from the period on that `since` lies in."""
    number = grid.number_at(max(paid_from, since))
    while True:
        yield number, max(grid.edge(number), paid_from)
        number += 1


def _share(
    fee: RecurringComponent,
    grid: _Grid,
    number: int,
    term: Term,
    part: tuple[datetime, datetime],
    day_until: int | None = None,
) -> tuple[int, int]:
    """(what is paid of a period, the whole period), by the fee's proration; `day_until`: of the term, if it counts."""
    begin, end = part
    if fee.proration is Proration.NONE:
        return 1, 1
    first, last = grid.edge(number), grid.edge(number + 1)
    if fee.proration is Proration.SECOND:
        return (end - begin) // _MICROSECOND, (last - first) // _MICROSECOND
    first_day, last_day = _day(first, grid.wall), _day(last, grid.wall)
    paid_from = max(first_day, term.day_from, _day(begin, grid.wall))
    paid_until = last_day if day_until is None else min(last_day, day_until)
    return max(paid_until - paid_from, 0), last_day - first_day


def _charge(
    fee: RecurringComponent | OneTimeComponent,
    kind: FeeKind,
    currency: str,
    times: tuple[datetime, datetime, datetime],
    share: tuple[int, int],
) -> FeeCharge:
    parts, whole = share
    numerator = fee.amount_minor * fee.quantity * parts
    amount = Fraction(numerator, whole * 10 ** exponent(currency))
    return FeeCharge(fee.name, kind, *times, fee.quantity, abs(parts), whole, amount, round_half_away(numerator, whole))


@dataclass(frozen=True, slots=True)
class _Grid:
    """The edges of a fee's periods: `first`, and from there on each `days` or `months` by the clock on the wall.

    `month`: of `first`, counted from the year 0; `day`: the anchor day of months, or the ordinal that weeks begin with.
    """

    wall: ZoneInfo
    first: datetime
    days: int
    months: int
    month: int
    day: int
    clock: time

    def edge(self, number: int) -> datetime:
        """Where the period `number` begins, in UTC; the one before ends there."""
        if number == 0:
            return self.first
        if self.days:
            return wall_instant(
                datetime.combine(date.fromordinal(self.day + number * self.days), self.clock), self.wall
            )
        year, month = divmod(self.month + number * self.months, 12)
        if self.clock == time.min:
            return month_start(year, month + 1, self.wall, self.day)
        day = min(self.day, calendar.monthrange(year, month + 1)[1])
        return wall_instant(datetime.combine(date(year, month + 1, day), self.clock), self.wall)

    def number_at(self, instant: datetime) -> int:
        """The period that an instant lies in; 0 for any before `first`."""
        local = instant.astimezone(self.wall)
        if self.days:
            number = (local.toordinal() - self.day) // self.days
        else:
            number = (local.year * 12 + local.month - 1 - self.month) // self.months
        number = max(number, 0)
        while number and self.edge(number) > instant:
            number -= 1
        while self.edge(number + 1) <= instant:
            number += 1
        return number


def _grid_of(fee: RecurringComponent, term: Term) -> _Grid:
    if fee.anchor is Anchor.ACCOUNT:
        return _account_grid(fee.period, term.began_at, term.zone, term.anchor_day)
    return _subscription_grid(fee.period, _paid_from(fee, term), term.zone, fee.proration is Proration.DAY)


@lru_cache(GRIDS_KEPT)
def _account_grid(period: Period, origin: datetime, zone: str, anchor_day: int) -> _Grid:
    wall = zone_of(zone)
    first = cycle_at(origin, zone, anchor_day).start
    local = first.astimezone(wall)
    if period is Period.WEEK:
        return _Grid(wall, first, _DAYS_IN_WEEK, 0, 0, local.toordinal(), time.min)
    month = local.year * 12 + local.month - 1
    # Where the last day of a month was skipped, its cycle begins in the next month.
    if month_start(local.year, local.month, wall, anchor_day) != first:
        month -= 1
    return _Grid(wall, first, 0, _MONTHS[period], month, anchor_day, time.min)


@lru_cache(GRIDS_KEPT)
def _subscription_grid(period: Period, origin: datetime, zone: str, is_by_day: bool) -> _Grid:
    wall = zone_of(zone)
    local = origin.astimezone(wall).replace(tzinfo=None)
    first = origin
    if is_by_day:
        local = datetime.combine(local.date(), time.min)
        first = wall_instant(local, wall)
    if period is Period.WEEK:
        return _Grid(wall, first, _DAYS_IN_WEEK, 0, 0, local.toordinal(), local.time())
    return _Grid(wall, first, 0, _MONTHS[period], local.year * 12 + local.month - 1, local.day, local.time())


def _paid_from(fee: RecurringComponent, term: Term) -> datetime:
    """Where the trial ends, by the clock on the wall; by days it ends with the day before."""
    if not fee.trial_days:
        return term.began_at
    wall = zone_of(term.zone)
    local = term.began_at.astimezone(wall).replace(tzinfo=None) + timedelta(days=fee.trial_days)
    if fee.proration is Proration.DAY:
        local = datetime.combine(local.date(), time.min)
    return wall_instant(local, wall)


def _day(instant: datetime, wall: ZoneInfo) -> int:
    """The date on the wall, as an ordinal."""
    return instant.astimezone(wall).toordinal()
