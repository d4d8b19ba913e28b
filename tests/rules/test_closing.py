"""What a cycle closes with, worked out by hand; and that its lines add up."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms_aaa.rules.buckets import BucketKind, BucketTerms, Rollover
from sms_aaa.rules.closing import CycleFee, LineKind, RolledOver, closing_lines, granted_amount, roll_over
from sms_aaa.rules.measure import Measure, Unit
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.pricing import price_numerator
from sms_aaa.rules.tariff import Bound, Period, RecurringComponent, Rounding, Shape, Tariff, Tier, UsageComponent

GB = Unit.GB.size


def priced(name: str, measure: Measure, price: str, **shape: object) -> UsageComponent:
    picounits = int(Fraction(price) * PICOUNITS)
    return UsageComponent(name, measure, GB, (Tier(None, picounits),), shape=Shape(**shape))  # type: ignore[arg-type] - as each test says


def euros(amount: str) -> int:
    return int(Fraction(amount) * PICOUNITS)


def lines(
    usage: list[UsageComponent],
    used_gb: list[str],
    *bounds: Bound,
    run: str = "1",
    fees: dict[str, CycleFee] | None = None,
) -> list[tuple[str, str, str, int]]:
    tariff = Tariff("EUR", (), tuple(usage), bounds=bounds)
    numerators = {
        part.name: price_numerator(part, int(Fraction(used) * GB)) for part, used in zip(usage, used_gb, strict=True)
    }
    return [
        (line.name, line.kind.value, str(line.amount), line.amount_minor)
        for line in closing_lines(tariff, numerators, fees or {}, Fraction(run))
    ]


@pytest.mark.parametrize(
    ("shape", "used", "run", "expected"),
    [
        ({}, "10", "1", [("up", "usage", "10", 1000)]),
        ({}, "0", "1", [("up", "usage", "0", 0)]),
        # 10 % off 12.345 is 11.1105; then the cap.
        ({"discount_billionths": 10**8}, "12.345", "1", [("up", "usage", "22221/2000", 1111)]),
        ({"discount_billionths": 10**8, "maximum_picounits": euros("11")}, "12.345", "1",
         [("up", "usage", "11", 1100)]),
        # The component's own scale first: 1.2345 is 1.235 at three decimals, and 1.24 then; plainly it is 1.23.
        ({"rounding_scale": 3}, "1.2345", "1", [("up", "usage", "247/200", 124)]),
        ({}, "1.2345", "1", [("up", "usage", "2469/2000", 123)]),
        ({"rounding": Rounding.UP}, "1.231", "1", [("up", "usage", "1231/1000", 124)]),
        ({"rounding": Rounding.DOWN}, "1.239", "1", [("up", "usage", "1239/1000", 123)]),
        # Five euros at least, a third of that for a third of the cycle, or all of it.
        ({"minimum_picounits": euros("5")}, "3.2", "1", [("up", "usage", "16/5", 320), ("up", "minimum", "9/5", 180)]),
        ({"minimum_picounits": euros("5")}, "3.2", "1/3", [("up", "usage", "16/5", 320)]),
        ({"minimum_picounits": euros("5")}, "1", "1/3", [("up", "usage", "1", 100), ("up", "minimum", "67/100", 67)]),
        ({"minimum_picounits": euros("5"), "is_minimum_prorated": False}, "1", "1/3",
         [("up", "usage", "1", 100), ("up", "minimum", "4", 400)]),
        ({"minimum_picounits": euros("5")}, "5", "1", [("up", "usage", "5", 500)]),
    ],
)  # fmt: skip
def test_a_component_closes(shape: dict[str, object], used: str, run: str, expected: list[object]) -> None:
    free = priced("down", Measure.DOWNLOAD, "0")
    found = lines([priced("up", Measure.UPLOAD, "1", **shape), free], [used, "5"], run=run)
    assert [line for line in found if line[0] != "down"] == expected


UP, DOWN = priced("up", Measure.UPLOAD, "1"), priced("down", Measure.DOWNLOAD, "2")


@pytest.mark.parametrize(
    ("bound", "used", "run", "expected"),
    [
        (Bound("cap", ("up", "down"), euros("20")), ["4", "6"], "1", []),
        (Bound("cap", ("up", "down"), euros("20")), ["4", "9.5"], "1", [("cap", "bound", "-3", -300)]),
        (Bound("least", ("up", "down"), None, euros("30")), ["4", "9"], "1", [("least", "bound", "8", 800)]),
        (Bound("least", ("up", "down"), None, euros("30")), ["4", "9"], "1/2", []),
        (Bound("least", ("up", "down"), None, euros("30")), ["0", "0"], "1/2", [("least", "bound", "15", 1500)]),
        (Bound("least", ("up",), None, euros("30"), is_minimum_prorated=False), ["4", "9"], "1/2",
         [("least", "bound", "26", 2600)]),
    ],
)  # fmt: skip
def test_a_bound_over_components(bound: Bound, used: list[str], run: str, expected: list[object]) -> None:
    assert lines([UP, DOWN], used, bound, run=run)[2:] == expected


def test_a_bound_counts_fees_minimums_and_the_bounds_inside_it() -> None:
    up = priced("up", Measure.UPLOAD, "1", minimum_picounits=euros("2"))
    inner, outer = Bound("inner", ("up", "down"), euros("10")), Bound("outer", ("up", "down", "fee"), euros("15"))
    found = closing_lines(
        Tariff("EUR", (RecurringComponent("fee", 700, Period.MONTH),), (up, DOWN), bounds=(inner, outer)),
        {"up": 0, "down": price_numerator(DOWN, 6 * GB)},
        {"fee": CycleFee(Fraction(7), 700)},
        Fraction(1),
    )
    # 0 + 2 (minimum) + 12 is 14: 4 off; 10 and the fee of 7 are 17: 2 off.
    assert [(line.name, line.kind, line.amount_minor) for line in found] == [
        ("up", LineKind.USAGE, 0),
        ("down", LineKind.USAGE, 1200),
        ("up", LineKind.MINIMUM, 200),
        ("inner", LineKind.BOUND, -400),
        ("outer", LineKind.BOUND, -200),
    ]


AMOUNTS = st.integers(0, 50 * 10**9)
LIMITS = st.integers(0, 40).map(lambda euro: euro * PICOUNITS)


@given(AMOUNTS, AMOUNTS, LIMITS, LIMITS, LIMITS, st.fractions(0, 1, max_denominator=31))
def test_the_lines_add_up_to_what_the_bounds_allow(
    used_up: int, used_down: int, minimum: int, least: int, more: int, run: Fraction
) -> None:
    up = priced("up", Measure.UPLOAD, "1", minimum_picounits=minimum)
    bound = Bound("both", ("up", "down"), least + more, least)
    found = closing_lines(
        Tariff("EUR", (), (up, DOWN), bounds=(bound,)),
        {"up": price_numerator(up, used_up), "down": price_numerator(DOWN, used_down)},
        {},
        run,
    )
    total_minor = sum(line.amount_minor for line in found)
    assert total_minor <= (least + more) * 100 // PICOUNITS
    assert total_minor >= int(least * run * 100 / PICOUNITS)
    if all(line.kind is not LineKind.BOUND for line in found):
        own = sum(line.amount_minor for line in found if line.name == "up")
        assert own >= int(minimum * run * 100 / PICOUNITS)


TERMS = BucketTerms("data", Measure.TOTAL, 50 * GB, rollover=Rollover(minimum=GB, maximum=20 * GB, periods=2))


@pytest.mark.parametrize(
    ("terms", "left", "expected"),
    [
        (TERMS, 5 * GB, 5 * GB),
        (TERMS, GB, GB),
        (TERMS, GB - 1, None),
        (TERMS, 50 * GB, 20 * GB),
        (BucketTerms("data", Measure.TOTAL, GB), GB, None),
        (BucketTerms("data", Measure.TOTAL, GB, rollover=Rollover()), 0, None),
        (BucketTerms("data", Measure.TOTAL, GB, kind=BucketKind.ROLLOVER, rollover=Rollover()), GB, None),
    ],
)
def test_what_is_rolled_over(terms: BucketTerms, left: int, expected: int | None) -> None:
    rolled = roll_over(terms, Fraction(left), at=datetime(2026, 1, 31, tzinfo=UTC), zone="UTC", anchor_day=31)
    assert (rolled.granted if rolled else None) == expected
    if isinstance(rolled, RolledOver):
        assert rolled.until == datetime(2026, 3, 31, tzinfo=UTC)  # over February, which ends on the 28th
        assert (rolled.terms.kind, rolled.terms.rollover) == (BucketKind.ROLLOVER, None)


def test_a_grant_is_prorated_where_the_bucket_says_so() -> None:
    assert granted_amount(TERMS, Fraction(1, 3)) == 50 * GB
    prorated = BucketTerms("data", Measure.TOTAL, 50 * GB, is_prorated=True)
    assert granted_amount(prorated, Fraction(1, 3)) == 16_666_666_667
