"""The price telescopes, slices add up, and posted differences are the rounded total: whatever the cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import accumulate, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.rules.charging import Fact, cut
from sms_aaa.rules.instants import instant_of, instant_us
from sms_aaa.rules.ledger import Event, post
from sms_aaa.rules.measure import Amounts, Kind, Measure, Unit
from sms_aaa.rules.pricing import explain_price, posted_minor, price_numerator, rate
from sms_aaa.rules.rating import slice_quantities
from sms_aaa.rules.slots import ANYTIME, Band, Calendar, Slot
from sms_aaa.rules.tariff import Switch, Tier, UsageComponent

GB = Unit.GB.size
TRAFFIC = [measure for measure in Measure if measure.kind is Kind.OCTETS]
VOLUMES = [unit for unit in Unit if unit.kind is Kind.OCTETS]
QUANTITIES = st.lists(st.integers(0, 200 * GB), max_size=12)
INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(lambda instant: instant.replace(tzinfo=UTC))
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/Santiago", "Asia/Kathmandu"])
MICROSECOND = timedelta(microseconds=1)

# 50 GB included, 0.50 beyond, 0.25 from 100 GB on.
DATA = UsageComponent(
    "data",
    Measure.TOTAL,
    GB,
    (Tier(50 * GB, 0), Tier(100 * GB, 500_000_000_000), Tier(None, 250_000_000_000)),
)


@st.composite
def components(draw: st.DrawFn) -> UsageComponent:
    bounds = sorted(draw(st.sets(st.integers(1, 500 * GB), max_size=4)))
    prices = [draw(st.integers(0, 10**13)) for _ in range(len(bounds) + 1)]
    tiers = tuple(Tier(bound, price) for bound, price in zip([*bounds, None], prices, strict=True))
    return UsageComponent("data", draw(st.sampled_from(TRAFFIC)), draw(st.sampled_from(VOLUMES)).size, tiers)


@pytest.mark.parametrize(
    ("octets", "price"),
    [
        (0, "0"),
        (50 * GB, "0"),
        (50 * GB + 1, "0.0000000005"),
        (60 * GB, "5"),
        (100 * GB, "25"),
        (100 * GB + 1, "25.00000000025"),
        (140 * GB, "35"),
    ],
)
def test_a_tier_reaches_up_to_and_including_its_bound(octets: int, price: str) -> None:
    assert Fraction(price_numerator(DATA, octets), DATA.denominator) == Fraction(price)


@settings(max_examples=200, deadline=None)
@given(components(), QUANTITIES)
def test_any_cut_of_the_same_usage_costs_exactly_the_same(component: UsageComponent, quantities: list[int]) -> None:
    total, cost = 0, 0
    for quantity in quantities:
        rated = rate(component, total_before=total, quantity=quantity)
        assert (rated.quantity, rated.total_before, rated.total_after) == (quantity, total, total + quantity)
        total, cost = rated.total_after, cost + rated.numerator
    assert cost == rate(component, total_before=0, quantity=sum(quantities)).numerator


@settings(max_examples=200, deadline=None)
@given(components(), QUANTITIES, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(component: UsageComponent, quantities: list[int], random: object) -> None:
    shuffled = list(quantities)
    random.shuffle(shuffled)

    def cost(order: list[int]) -> int:
        return sum(
            rate(component, total_before=before, quantity=after - before).numerator
            for before, after in pairwise(accumulate(order, initial=0))
        )

    assert cost(shuffled) == cost(quantities)


@settings(max_examples=200, deadline=None)
@given(components(), QUANTITIES, st.sampled_from(["EUR", "JPY", "KWD"]))
def test_posted_differences_add_up_to_the_rounded_total(
    component: UsageComponent, quantities: list[int], currency: str
) -> None:
    posted_total = 0
    for before, after in pairwise(accumulate(quantities, initial=0)):
        moved_minor = posted_minor(component, currency, after) - posted_minor(component, currency, before)
        entry = post(Event.USAGE, moved_minor, currency, component=component.name)
        posted_total += entry.amount_minor if entry else 0
    assert posted_total == posted_minor(component, currency, sum(quantities))


def test_rounding_each_delta_by_itself_would_be_wrong() -> None:
    component = UsageComponent("data", Measure.TOTAL, GB, (Tier(None, 4_000_000_000),))  # 0.004 a GB
    each = [posted_minor(component, "EUR", GB)] * 10
    assert sum(each) == 0
    assert posted_minor(component, "EUR", 10 * GB) == 4


@settings(max_examples=200, deadline=None)
@given(components(), st.integers(0, 10**15), st.integers(0, 10**15))
def test_more_usage_never_costs_less(component: UsageComponent, one: int, other: int) -> None:
    less, more = sorted((one, other))
    assert 0 <= price_numerator(component, less) <= price_numerator(component, more)


@settings(max_examples=200, deadline=None)
@given(components(), st.integers(0, 700 * GB), st.integers(0, 700 * GB))
def test_the_explained_parts_add_up_to_the_price(component: UsageComponent, before: int, quantity: int) -> None:
    parts = explain_price(component, before=before, after=before + quantity)
    assert sum(part.numerator for part in parts) == rate(component, total_before=before, quantity=quantity).numerator
    assert sum(part.quantity for part in parts) == quantity
    assert all(part.quantity > 0 and part.numerator == part.quantity * part.price_picounits for part in parts)


def test_a_price_is_explained_tier_by_tier() -> None:
    parts = explain_price(DATA, before=40 * GB, after=120 * GB)
    shown = [(part.tier_from, part.tier_up_to, part.quantity, part.price_picounits) for part in parts]
    assert shown == [
        (0, 50 * GB, 10 * GB, 0),
        (50 * GB, 100 * GB, 50 * GB, 500_000_000_000),
        (100 * GB, None, 20 * GB, 250_000_000_000),
    ]
    assert explain_price(DATA, before=7, after=7) == ()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**63 - 1), INSTANTS, st.sets(st.integers(1, 10**12), min_size=1, max_size=8))
def test_slices_of_a_quantity_add_up_and_are_within_one_octet_of_linear(
    quantity: int, start: datetime, offsets: set[int]
) -> None:
    *edges, end = [start + offset * MICROSECOND for offset in sorted(offsets)]
    parts = slice_quantities(quantity, start=start, end=end, edges=edges)
    assert len(parts) == len(edges) + 1
    assert sum(parts) == quantity
    assert all(part >= 0 for part in parts)
    duration = (end - start) // MICROSECOND
    for edge, total in zip(edges, accumulate(parts), strict=False):
        linear = Fraction(quantity * ((edge - start) // MICROSECOND), duration)
        assert -Fraction(1, 2) < total - linear <= Fraction(1, 2)


def test_a_half_octet_goes_to_the_earlier_slice() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    edge, end = start + timedelta(hours=1), start + timedelta(hours=2)
    assert slice_quantities(3, start=start, end=end, edges=[edge]) == [2, 1]
    assert slice_quantities(1, start=start, end=start + 3 * MICROSECOND, edges=[start + MICROSECOND]) == [0, 1]
    assert slice_quantities(3, start=start, end=start, edges=[]) == [3]


@pytest.mark.parametrize("hours", [[0], [2], [3], [-1], [1.5, 1], [1, 1]])
def test_edges_outside_or_out_of_order_are_our_own_bug(hours: list[int]) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    edges = [start + timedelta(hours=hour) for hour in hours]
    with pytest.raises(AssertionError):
        slice_quantities(3, start=start, end=start + timedelta(hours=2), edges=edges)


NIGHTS = (Slot("night", (), 22 * 3600, 6 * 3600),)
HALF_HOURS = (Band("first", 0, 1800), Band("second", 1800, 3600))


def fact_of(octets: tuple[int, int], from_at: datetime, length: timedelta) -> Fact:
    begin = instant_us(from_at)
    return Fact(1, "s", 1, begin, begin, begin + length // MICROSECOND, "default", Amounts(*octets))


@settings(max_examples=200, deadline=None)
@given(
    octets=st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)),
    from_at=INSTANTS,
    length=st.timedeltas(timedelta(0), timedelta(days=9)),
    zone=ZONES,
    bands=st.sampled_from([(), HALF_HOURS]),
    offsets=st.lists(st.integers(-(10**12), 10**12), max_size=4),
    switch=st.sampled_from(Switch),
)
def test_slices_of_a_delta_tile_it_in_time_and_quantity(
    octets: tuple[int, int],
    from_at: datetime,
    length: timedelta,
    zone: str,
    bands: tuple[Band, ...],
    offsets: list[int],
    switch: Switch,
) -> None:
    fact = fact_of(octets, from_at, length)
    edges = [fact.from_us + offset for offset in offsets]
    parts = cut(fact, Calendar(zone, NIGHTS, ()), bands, edges, switch)
    for measure in TRAFFIC:
        quantities = [part.quantity(measure) for part in parts]
        assert sum(quantities) == measure.of(fact.amounts)
        assert all(quantity >= 0 for quantity in quantities)
    assert all(part.quantity(Measure.TOTAL) == sum(map(part.quantity, TRAFFIC[:2])) for part in parts)
    assert [part.index for part in parts] == list(range(len(parts)))
    assert (parts[0].from_us, parts[-1].to_us) == (fact.from_us, fact.to_us)
    assert all(earlier.to_us == later.from_us for earlier, later in pairwise(parts))
    for part in parts:
        hour = instant_of(part.from_us).astimezone(ZoneInfo(zone)).hour
        assert part.slot == ("night" if hour >= 22 or hour < 6 else ANYTIME)
        assert not any(part.from_us < edge < part.to_us for edge in edges)


def test_a_delta_across_an_edge_is_cut_there_linearly() -> None:
    edge = datetime(2026, 2, 1, tzinfo=UTC)
    fact = fact_of((100, 900), edge - timedelta(minutes=3), timedelta(minutes=5))
    parts = cut(fact, Calendar("UTC", (), ()), (), [instant_us(edge)], Switch.LINEAR)
    assert [part.quantity(Measure.TOTAL) for part in parts] == [600, 400]


def test_a_delta_that_ends_on_an_edge_belongs_before_it_and_one_without_length_after_it() -> None:
    edge = datetime(2026, 2, 1, 22, tzinfo=UTC)
    (before,), (after,) = (
        cut(fact_of((1, 1), edge - length, length), Calendar("UTC", NIGHTS, ()), (), [instant_us(edge)], Switch.LINEAR)
        for length in (timedelta(minutes=5), timedelta(0))
    )
    assert (before.slot, after.slot) == (ANYTIME, "night")
