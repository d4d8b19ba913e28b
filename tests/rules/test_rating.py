"""The price telescopes, slices add up, and posted differences are the rounded total: whatever the cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.rules.cycle import cycle_at
from sms_aaa.rules.ledger import LedgerAccount, difference_entry, revenue
from sms_aaa.rules.measure import Amounts, Kind, Measure, Unit
from sms_aaa.rules.pricing import explain_price, posted_minor, price_numerator, rate
from sms_aaa.rules.rating import UsageFact, cycles_of, price_cycle, slice_quantities, slices
from sms_aaa.rules.tariff import Period, RecurringComponent, Tariff, Tier, UsageComponent

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
        entry = difference_entry(
            before_minor=posted_minor(component, currency, before),
            after_minor=posted_minor(component, currency, after),
            debit=LedgerAccount.UNBILLED_RECEIVABLE,
            credit=revenue(component.name),
            currency=currency,
        )
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


def test_a_cycle_is_fees_and_usage_each_by_its_measure() -> None:
    upload = UsageComponent("up", Measure.UPLOAD, GB, (Tier(None, 10**12),))
    download = UsageComponent("down", Measure.DOWNLOAD, GB, (Tier(None, 2 * 10**12),))
    tariff = Tariff("EUR", (RecurringComponent("fee", 2990, Period.MONTH),), (upload, download))
    priced = price_cycle(tariff, octets_upload=3 * GB, octets_download=5 * GB)
    assert [(part.name, part.amount_minor) for part in priced] == [("fee", 2990), ("up", 300), ("down", 1000)]


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


@settings(max_examples=200, deadline=None)
@given(
    component=components(),
    octets=st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)),
    from_at=INSTANTS,
    length=st.timedeltas(timedelta(0), timedelta(days=200)),
    zone=ZONES,
    anchor_day=st.integers(1, 31),
)
def test_slices_of_a_delta_tile_it_in_time_and_quantity(
    component: UsageComponent,
    octets: tuple[int, int],
    from_at: datetime,
    length: timedelta,
    zone: str,
    anchor_day: int,
) -> None:
    fact = UsageFact(*octets, from_at, from_at + length)
    parts = slices(fact, component, cycles_of(fact, zone, anchor_day))
    assert sum(part.quantity for part in parts) == component.measure.of(Amounts(upload=octets[0], download=octets[1]))
    assert [part.index for part in parts] == list(range(len(parts)))
    assert (parts[0].from_at, parts[-1].to_at) == (fact.from_at, fact.to_at)
    assert all(earlier.to_at == later.from_at == later.cycle.start for earlier, later in pairwise(parts))
    for part in parts:
        assert part.quantity >= 0
        assert part.cycle == cycle_at(part.from_at, zone, anchor_day)
        assert part.to_at <= part.cycle.end


def test_a_delta_across_a_cycle_edge_is_cut_there_linearly() -> None:
    edge = datetime(2026, 2, 1, tzinfo=UTC)
    fact = UsageFact(100, 900, edge - timedelta(minutes=3), edge + timedelta(minutes=2))
    assert [part.quantity for part in slices(fact, DATA, cycles_of(fact, "UTC", 1))] == [600, 400]


def test_a_delta_that_ends_on_an_edge_belongs_before_it_and_one_without_length_after_it() -> None:
    edge = datetime(2026, 2, 1, tzinfo=UTC)
    early, late = UsageFact(1, 1, edge - timedelta(minutes=5), edge), UsageFact(1, 1, edge, edge)
    (before,) = slices(early, DATA, cycles_of(early, "UTC", 1))
    (after,) = slices(late, DATA, cycles_of(late, "UTC", 1))
    assert before.cycle.end == edge == after.cycle.start


def test_a_delta_over_more_than_a_century_is_refused() -> None:
    fact = UsageFact(1, 1, datetime(1900, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="crosses more than 1200 cycles"):
        cycles_of(fact, "UTC", 1)
