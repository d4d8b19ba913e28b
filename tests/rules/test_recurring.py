"""Fees tile time: no day and no second is charged twice or left out, whatever the calendar and the changes of plan."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.rules.cycle import Cycle, cycle_at
from sms_aaa.rules.recurring import (
    FeeCharge,
    FeeKind,
    Term,
    earned_minor,
    fee_charges,
    one_time_charges,
    period_at,
    share_run,
    terms_of,
)
from sms_aaa.rules.tariff import Anchor, Due, OneTimeComponent, Period, Proration, RecurringComponent

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/Santiago", "America/Havana", "Australia/Lord_Howe"])
FEES = st.builds(
    RecurringComponent,
    st.just("fee"),
    st.integers(1, 10_000),
    st.sampled_from(Period),
    st.sampled_from(Due),
    st.sampled_from([Proration.DAY, Proration.SECOND]),
    st.sampled_from(Anchor),
    st.integers(1, 3),
)
BEGINS = st.datetimes(datetime(2023, 12, 1), datetime(2028, 3, 1)).map(lambda instant: instant.replace(tzinfo=UTC))
LENGTHS = st.lists(st.timedeltas(timedelta(minutes=1), timedelta(days=70)), min_size=1, max_size=4)
FOREVER = datetime(2040, 1, 1, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fee(period: Period, prorate: Proration, due: Due = Due.ADVANCE, **more: object) -> RecurringComponent:
    return RecurringComponent("fee", 3000, period, due, prorate, **more)  # type: ignore[arg-type] - as each test says


def term(start: str, end: str | None = None, zone: str = "UTC", anchor_day: int = 1) -> Term:
    return terms_of([(utc(start), utc(end) if end else None)], zone, anchor_day)[0]


def charged(component: RecurringComponent, run: Term, since: str, until: str) -> list[str]:
    """Each charge as "booked from until parts/whole amount", days only."""
    found = fee_charges(component, "EUR", run, since=utc(since), until=utc(until))
    return [shown(charge) for charge in found]


def shown(charge: FeeCharge) -> str:
    days = " ".join(f"{instant:%m-%d}" for instant in (charge.booked_at, charge.from_at, charge.until_at))
    return f"{days} {charge.parts}/{charge.whole} {charge.amount_minor}"


@pytest.mark.parametrize(
    ("component", "run", "until", "expected"),
    [
        # 10 March to 1 April: 22 of 31 days of 30.00 = 21.290.
        (fee(Period.MONTH, Proration.DAY), term("2026-03-10T15:00"), "2026-05-01",
         ["03-10 03-10 04-01 22/31 2129", "04-01 04-01 05-01 30/30 3000"]),
        # Any part costs all, and nothing of it comes back.
        (fee(Period.MONTH, Proration.NONE), term("2026-03-10", "2026-04-02"), "2026-06-01",
         ["03-10 03-10 04-01 1/1 3000", "04-01 04-01 05-01 1/1 3000"]),
        # Cancelled on 10 April at noon: that day is begun, 20 of 30 days come back.
        (fee(Period.MONTH, Proration.DAY), term("2026-04-01", "2026-04-10T12:00"), "2026-06-01",
         ["04-01 04-01 05-01 30/30 3000", "04-10 04-10 05-01 20/30 -2000"]),
        # In arrears the same is charged when it ends, and nothing has to come back.
        (fee(Period.MONTH, Proration.DAY, Due.ARREARS), term("2026-03-10", "2026-04-10T12:00"), "2026-06-01",
         ["03-31 03-10 04-01 22/31 2129", "04-10 04-01 04-10 10/30 1000"]),
        # From the 31st on: the last day of a shorter month stands in for it.
        (fee(Period.MONTH, Proration.DAY, anchor=Anchor.SUBSCRIPTION), term("2027-12-31"), "2028-04-01",
         ["12-31 12-31 01-31 31/31 3000", "01-31 01-31 02-29 29/29 3000", "02-29 02-29 03-31 31/31 3000",
          "03-31 03-31 04-30 30/30 3000"]),
        # A year from 29 February ends on the 28th, and has 365 days.
        (fee(Period.YEAR, Proration.DAY, anchor=Anchor.SUBSCRIPTION), term("2028-02-29"), "2029-03-01",
         ["02-29 02-29 02-28 365/365 3000", "02-28 02-28 02-28 365/365 3000"]),
        # Quarters start with the account's cycle in which the subscription began: 17 of 92 days are gone.
        (fee(Period.QUARTER, Proration.DAY), term("2026-05-22", anchor_day=5), "2026-09-01",
         ["05-22 05-22 08-05 75/92 2446", "08-05 08-05 11-05 92/92 3000"]),
        # A quarter is cut short: 31 May and 30 June days of 91 were used.
        (fee(Period.QUARTER, Proration.DAY), term("2026-04-01", "2026-06-01"), "2026-09-01",
         ["04-01 04-01 07-01 91/91 3000", "05-31 06-01 07-01 30/91 -989"]),
        (fee(Period.WEEK, Proration.DAY), term("2026-06-05"), "2026-06-21",
         ["06-05 06-05 06-08 3/7 1286", "06-08 06-08 06-15 7/7 3000", "06-15 06-15 06-22 7/7 3000"]),
        # Fourteen days are free; the rest of the month is 17 of 31 days.
        (fee(Period.MONTH, Proration.DAY, trial_days=14), term("2026-03-01T08:00"), "2026-04-02",
         ["03-15 03-15 04-01 17/31 1645", "04-01 04-01 05-01 30/30 3000"]),
        # From where the trial ends, if it is the subscription that anchors.
        (fee(Period.MONTH, Proration.NONE, anchor=Anchor.SUBSCRIPTION, trial_days=7), term("2026-03-01"), "2026-04-09",
         ["03-08 03-08 04-08 1/1 3000", "04-08 04-08 05-08 1/1 3000"]),
        (fee(Period.MONTH, Proration.DAY, trial_days=7), term("2026-03-01", "2026-03-08"), "2026-04-09", []),
        (fee(Period.MONTH, Proration.DAY, quantity=3), term("2026-02-15"), "2026-03-01",
         ["02-15 02-15 03-01 14/28 4500"]),
    ],
)  # fmt: skip
def test_fees_worked_out_by_hand(component: RecurringComponent, run: Term, until: str, expected: list[str]) -> None:
    assert charged(component, run, "2020-01-01", until) == expected


def test_a_change_of_plan_bills_its_day_once_and_to_the_new_plan() -> None:
    old, new = terms_of([(utc("2026-04-01"), utc("2026-04-11T14:00")), (utc("2026-04-11T14:00"), None)], "UTC", 1)
    monthly = fee(Period.MONTH, Proration.DAY)
    assert charged(monthly, old, "2026-04-01", "2026-05-01") == [
        "04-01 04-01 05-01 30/30 3000",
        "04-11 04-11 05-01 20/30 -2000",
    ]
    assert charged(monthly, new, "2026-04-01", "2026-05-01") == ["04-11 04-11 05-01 20/30 2000"]


def test_whoever_comes_back_on_the_day_that_he_left_does_not_pay_it_twice() -> None:
    left, back = terms_of([(utc("2026-04-01"), utc("2026-04-11T09:00")), (utc("2026-04-11T14:00"), None)], "UTC", 1)
    monthly = fee(Period.MONTH, Proration.DAY)
    assert charged(monthly, left, "2026-04-01", "2026-05-01")[1] == "04-11 04-11 05-01 19/30 -1900"
    assert charged(monthly, back, "2026-04-01", "2026-05-01") == ["04-11 04-11 05-01 19/30 1900"]
    assert back.began_at == back.start


def test_seconds_are_real_ones_on_days_of_23_and_25_hours() -> None:
    # Berlin's March 2026 has 31 * 24 - 1 = 743 hours, October 745; half a day of a day that is short is still half.
    by_second = fee(Period.MONTH, Proration.SECOND)
    march = term("2026-03-28T23:00", zone="Europe/Berlin")  # 29 March, 00:00: 71 hours are left
    [charge] = fee_charges(by_second, "EUR", march, since=utc("2026-03-01"), until=utc("2026-03-31T22:00"))
    assert charge.amount == 30 * Fraction(71, 743)
    october = term("2026-10-24T22:00", zone="Europe/Berlin")  # 25 October, 00:00: 7 days and an hour are left
    [charge] = fee_charges(by_second, "EUR", october, since=utc("2026-10-01"), until=utc("2026-10-31T23:00"))
    assert charge.amount == 30 * Fraction(169, 745)


def test_the_trial_and_the_periods_go_on_over_a_change_of_plan() -> None:
    spans = [(utc("2026-03-10T12:00"), utc("2026-03-20T12:00")), (utc("2026-03-20T12:00"), None)]
    _, new = terms_of(spans, "UTC", 1)
    anchored = fee(Period.MONTH, Proration.SECOND, anchor=Anchor.SUBSCRIPTION)
    assert period_at(anchored, new, utc("2026-03-21")) == Cycle(utc("2026-03-10T12:00"), utc("2026-04-10T12:00"))
    trial = fee(Period.MONTH, Proration.DAY, trial_days=14)
    assert charged(trial, new, "2026-03-01", "2026-04-01") == ["03-24 03-24 04-01 8/31 774"]


def test_one_time_fees_are_due_when_a_subscription_begins_and_not_again_when_it_changes() -> None:
    first, second = terms_of([(utc("2026-03-10"), utc("2026-03-20")), (utc("2026-03-20"), None)], "UTC", 1)
    fees = [OneTimeComponent("setup", 4900), OneTimeComponent("router", 1000, 2)]
    assert [(each.name, each.amount_minor) for each in one_time_charges(fees, "EUR", first)] == [
        ("setup", 4900),
        ("router", 2000),
    ]
    [router] = one_time_charges(fees, "EUR", second, charged_before=["setup"])
    assert (router.booked_at, router.kind, router.amount) == (second.start, FeeKind.ONE_TIME, 20)
    # Nothing changed into the first: what an earlier, separate subscription paid does not count.
    assert len(one_time_charges(fees, "EUR", first, charged_before=["setup"])) == 2


def spans_of(begin: datetime, lengths: list[timedelta], gap: timedelta) -> list[tuple[datetime, datetime]]:
    """As many plans one after the other, with a gap after the first."""
    found = []
    for number, length in enumerate(lengths):
        found.append((begin, begin + length))
        begin += length + (gap if number == 0 else timedelta())
    return found


GAPS = st.one_of(st.just(timedelta()), st.timedeltas(timedelta(minutes=1), timedelta(days=3)))


@settings(max_examples=50, deadline=None)
@given(FEES, BEGINS, LENGTHS, GAPS, ZONES, st.integers(1, 31))
def test_what_is_charged_less_what_comes_back_is_what_was_run(
    component: RecurringComponent,
    begin: datetime,
    lengths: list[timedelta],
    gap: timedelta,
    zone: str,
    anchor_day: int,
) -> None:
    # After a gap other periods are counted from where it ends; only an account's months go on.
    is_month = (component.anchor, component.period) == (Anchor.ACCOUNT, Period.MONTH)
    spans = spans_of(begin, lengths, gap if is_month else timedelta())
    terms = terms_of(spans, zone, anchor_day)
    wall = ZoneInfo(zone)
    days = {
        date
        for start, end in spans
        for date in range(
            start.astimezone(wall).toordinal(), (end - timedelta(microseconds=1)).astimezone(wall).toordinal() + 1
        )
    }
    billed: dict[tuple[datetime, datetime], Fraction] = {}
    for run in terms:
        charges = fee_charges(component, "EUR", run, since=begin, until=FOREVER)
        for charge in charges:
            period = period_at(
                component, run, charge.from_at if charge.parts and charge.amount > 0 else charge.booked_at
            )
            key = (period.start, period.end)
            billed[key] = billed.get(key, Fraction(0)) + charge.amount / component.quantity
            assert charge.amount_minor == round_half_away_plainly(charge.amount * 100)
        # The same in pieces, cycle by cycle.
        edges = [begin, begin + timedelta(days=30), begin + timedelta(days=31), begin + timedelta(days=77), FOREVER]
        pieces = [
            charge
            for since, until in pairwise(edges)
            for charge in fee_charges(component, "EUR", run, since=since, until=until)
        ]
        assert sorted(pieces, key=str) == sorted(charges, key=str)
    whole = Fraction(component.amount_minor, 100)
    assert all(0 <= amount <= whole for amount in billed.values())
    for (start, end), amount in billed.items():
        if component.proration is Proration.DAY:
            first, last = (edge.astimezone(wall).toordinal() for edge in (start, end))
            assert amount == whole * Fraction(sum(1 for day in days if first <= day < last), last - first)
        else:
            run_us = sum(
                max(min(end, until) - max(start, since), timedelta()) // timedelta(microseconds=1)
                for since, until in spans
            )
            assert amount == whole * Fraction(run_us, (end - start) // timedelta(microseconds=1))


def round_half_away_plainly(number: Fraction) -> int:
    whole = int(abs(number) + Fraction(1, 2))
    return whole if number >= 0 else -whole


@settings(max_examples=50, deadline=None)
@given(FEES, BEGINS, ZONES, st.integers(1, 31))
def test_periods_tile_and_an_accounts_months_are_its_cycles(
    component: RecurringComponent, begin: datetime, zone: str, anchor_day: int
) -> None:
    [run] = terms_of([(begin, None)], zone, anchor_day)
    period = period_at(component, run, begin)
    assert period.start <= begin < period.end
    for _ in range(14):
        following = period_at(component, run, period.end)
        assert following.start == period.end
        assert period_at(component, run, period.end - timedelta(microseconds=1)) == period
        if component.anchor is Anchor.ACCOUNT and component.period is not Period.WEEK:
            assert following.start == cycle_at(following.start, zone, anchor_day).start
            if component.period is Period.MONTH:
                assert following == cycle_at(following.start, zone, anchor_day)
        period = following


@given(BEGINS, st.lists(st.timedeltas(timedelta(seconds=1), timedelta(days=99)), max_size=6), st.integers(-9999, 9999))
def test_what_is_earned_cycle_by_cycle_adds_up(begin: datetime, lengths: list[timedelta], amount: int) -> None:
    edges = [begin]
    for length in lengths:
        edges.append(edges[-1] + length)
    end = edges[-1]
    earned = [earned_minor(amount, begin, end, at) for at in edges]
    assert sum(later - earlier for earlier, later in pairwise([0, *earned])) == amount
    assert all(abs(each) <= abs(amount) for each in earned)


def test_the_share_of_a_cycle_that_a_subscription_runs() -> None:
    april = Cycle(utc("2026-04-01"), utc("2026-05-01"))
    assert share_run(term("2026-03-01"), april) == 1
    assert share_run(term("2026-04-16T23:59"), april) == Fraction(1, 2)
    assert share_run(term("2026-03-01", "2026-04-10T12:00"), april) == Fraction(1, 3)
    assert share_run(term("2026-03-01", "2026-04-01"), april) == 0
