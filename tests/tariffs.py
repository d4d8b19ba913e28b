"""Random tariffs with everything that one can have."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from sms_aaa.rules.buckets import FACTOR_PARTS, BucketKind, BucketTerms, Overage, Rollover
from sms_aaa.rules.measure import Kind, Measure, Unit
from sms_aaa.rules.money import PICOUNITS, exponent
from sms_aaa.rules.slots import ANY_BAND, ANYTIME, Band, Day, Holiday, Slot
from sms_aaa.rules.tariff import (
    DEFAULT_KEY,
    DISCOUNT_PARTS,
    Anchor,
    Bound,
    Carry,
    Due,
    KeyRule,
    Model,
    OneTimeComponent,
    Period,
    Proration,
    RecurringComponent,
    Rounding,
    Scope,
    SessionLimit,
    Shape,
    Switch,
    Tariff,
    Tier,
    UsageComponent,
    complete_usage,
)

CURRENCIES = ["EUR", "JPY", "KWD"]
QUANTITIES = st.integers(0, 10**10)
SELDOM = st.sampled_from([0, 0, 0, 5, 10**6])
"""Quantities that would hide what usage costs if they were large."""

STEPS = st.sampled_from([1, 7, 60, 1000])
PRICES = st.integers(0, 9 * 10**15)
SIZES = {kind: {unit.size for unit in Unit if unit.kind is kind} for kind in Kind}


def amounts(currency: str) -> st.SearchStrategy[int]:
    """In picounits, of whole minor units."""
    return st.integers(0, 10**9).map(lambda minor: minor * PICOUNITS // 10 ** exponent(currency))


def some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=2).map(tuple)


@st.composite
def shapes(draw: st.DrawFn, currency: str) -> Shape:
    bounds = sorted([draw(amounts(currency)), draw(amounts(currency))])
    return Shape(
        discount_billionths=draw(st.just(0) | st.integers(0, DISCOUNT_PARTS)),
        maximum_picounits=draw(st.sampled_from([None, None, None, bounds[1]])),
        minimum_picounits=draw(st.sampled_from([0, 0, 0, bounds[0]])),
        is_minimum_prorated=draw(st.booleans()),
        rounding_scale=draw(st.none() | st.integers(0, 12)),
        rounding=draw(st.sampled_from(Rounding)),
    )


@st.composite
def tiers(draw: st.DrawFn, model: Model, rate_unit: int, kind: Kind) -> tuple[Tier, ...]:
    own = st.none() | st.integers(1, 10**6).filter(lambda size: size not in SIZES[kind] and size != rate_unit)
    if model is Model.PACKAGE:
        return (Tier(None, draw(PRICES), rate_unit=draw(own) if rate_unit == min(SIZES[kind]) else None),)
    bounds = [*sorted(draw(st.sets(st.integers(1, 10**10), max_size=3))), None]
    if model is Model.STAIRSTEP:
        return tuple(Tier(bound, 0, draw(PRICES)) for bound in bounds)
    flat = st.sampled_from([0, 10**12])
    return tuple(Tier(bound, draw(PRICES), draw(flat), draw(own), draw(STEPS)) for bound in bounds)


@st.composite
def usage_components(draw: st.DrawFn, name: str, measure: Measure, currency: str) -> UsageComponent:
    """For every place; see `replace`."""
    model, scope = draw(st.sampled_from(Model)), draw(st.sampled_from(Scope))
    rate_unit = draw(st.sampled_from(sorted(SIZES[measure.kind])))
    is_session = scope is Scope.SESSION
    return UsageComponent(
        name,
        measure,
        rate_unit,
        draw(tiers(model, rate_unit, measure.kind)),
        model=model,
        scope=scope,
        free_quantity=draw(QUANTITIES) if model is Model.PACKAGE else 0,
        initial_increment=draw(STEPS),
        following_increment=draw(STEPS),
        minimum_quantity=draw(SELDOM),
        grace_quantity=draw(SELDOM),
        connect_fee_picounits=draw(PRICES),
        session_maximum_picounits=draw(st.sampled_from([None, None, 10**13])) if is_session else None,
        session_limit=draw(st.sampled_from(SessionLimit)) if is_session else SessionLimit.FREE,
        shape=draw(shapes(currency)),
    )


@st.composite
def buckets(
    draw: st.DrawFn, name: str, usage: tuple[UsageComponent, ...], keys: list[str], slots: list[str], currency: str
) -> BucketTerms:
    measure = draw(st.none() | st.sampled_from([part.measure for part in usage]))
    amount = QUANTITIES if measure else amounts(currency)
    coverable = [part.name for part in usage if measure is None or part.measure is measure]
    is_shared = draw(st.booleans())
    terms = BucketTerms(
        name,
        measure,
        draw(amount),
        kind=draw(st.sampled_from([BucketKind.ALLOWANCE, BucketKind.PROMOTION])),
        priority=draw(st.integers(0, 1000)),
        components=draw(some(coverable)),
        keys=draw(st.just(()) | some(keys)),
        slots=draw(st.just(()) | some(slots)),
        is_shared=is_shared,
        member_maximum=draw(st.none() | amount) if is_shared else None,
        is_prorated=draw(st.booleans()),
        valid_seconds=draw(st.none() | st.integers(1, 10**7)),
        rollover=draw(st.none() | st.builds(Rollover, amount, st.none() | amount, st.integers(1, 12))),
    )
    if measure is None:
        return terms
    blocks = draw(st.booleans())
    overage = draw(st.sampled_from(Overage)) if blocks else Overage.CHARGE
    return replace(
        terms,
        increment=draw(STEPS),
        factor_parts=draw(st.integers(0, 10 * FACTOR_PARTS)),
        connect_fee=draw(st.integers(0, 10**6)),
        blocks=blocks,
        overage=overage,
        keeps_overage=overage is Overage.ABSORB and draw(st.booleans()),
    )


@st.composite
def usages(draw: st.DrawFn, currency: str, grid: list[tuple[str, str, str]]) -> tuple[UsageComponent, ...]:
    """Traffic shared out over one axis of the grid; time, events and units; what is left is free."""
    parts: list[UsageComponent] = []

    def add(measure: Measure, **where: tuple[str, ...]) -> None:
        part = draw(usage_components(f"u{len(parts)}", measure, currency))
        parts.append(replace(part, **where))

    axis = draw(st.sampled_from(["keys", "slots", "bands"]))
    values = list(dict.fromkeys(place[["keys", "slots", "bands"].index(axis)] for place in grid))
    for value in draw(st.lists(st.sampled_from(values), unique=True, max_size=2)):
        for measure in draw(st.sampled_from([(Measure.TOTAL,), (Measure.UPLOAD, Measure.DOWNLOAD), (Measure.UPLOAD,)])):
            add(measure, **{axis: (value,)})
    for measure in draw(st.lists(st.sampled_from([Measure.SECONDS, Measure.EVENTS, Measure.UNITS]), max_size=2)):
        add(measure, **{axis: draw(some(values))})
    return complete_usage(tuple(parts), grid)


@st.composite
def tariffs(draw: st.DrawFn, currencies: list[str] = CURRENCIES) -> Tariff:
    currency = draw(st.sampled_from(currencies))
    slots = draw(
        st.lists(
            st.builds(
                Slot,
                st.sampled_from(["night", "weekend"]),
                st.lists(st.sampled_from(Day), unique=True).map(tuple),
                st.integers(0, 86_399),
                st.integers(1, 86_400),
            ),
            max_size=3,
        )
    )
    bands = draw(
        st.lists(
            st.builds(
                lambda name, begin, length: Band(name, begin, None if length is None else begin + length),
                st.sampled_from(["first", "later"]),
                st.integers(0, 7_200),
                st.none() | st.integers(1, 7_200),
            ),
            max_size=2,
        )
    )
    texts = st.lists(st.sampled_from(["iptv", "abroad", "a b"]), max_size=2, unique=True).map(tuple)
    rules = st.builds(KeyRule, st.sampled_from(["roaming", "tv"]), texts, texts, texts, texts)
    keys = draw(st.lists(rules.filter(lambda rule: rule != KeyRule(rule.name)), max_size=2))
    grid = [
        (key, slot, band)
        for key in dict.fromkeys([DEFAULT_KEY, *(rule.name for rule in keys)])
        for slot in dict.fromkeys([ANYTIME, *(slot.name for slot in slots)])
        for band in dict.fromkeys([ANY_BAND, *(band.name for band in bands)])
    ]
    usage = draw(usages(currency, grid))
    recurring = draw(
        st.lists(
            st.builds(
                RecurringComponent,
                st.sampled_from(["r1", "r2", "r3"]),
                st.integers(0, 10**6),
                st.sampled_from(Period),
                st.sampled_from(Due),
                st.sampled_from(Proration),
                st.sampled_from(Anchor),
                st.integers(0, 9),
                st.integers(0, 60),
            ),
            max_size=2,
            unique_by=lambda fee: fee.name,
        )
    )
    one_time = draw(
        st.lists(st.builds(OneTimeComponent, st.just("once"), st.integers(0, 10**6), st.integers(0, 3)), max_size=1)
    )
    known = [[place[at] for place in grid] for at in (0, 1)]
    named = [draw(buckets(f"b{at}", usage, *known, currency)) for at in range(draw(st.sampled_from([0, 1, 1, 2])))]
    fees = [part.name for part in (*recurring, *usage)]
    least, most = sorted([draw(amounts(currency)), draw(amounts(currency))])
    of_fees = st.lists(st.sampled_from(fees), min_size=1, max_size=3, unique=True).map(tuple)
    bounds = st.builds(Bound, st.just("bound"), of_fees, st.just(most + PICOUNITS), st.just(least), st.booleans())
    return Tariff(
        currency,
        tuple(recurring),
        usage,
        one_time=tuple(one_time),
        bounds=tuple(draw(st.lists(bounds, max_size=1))),
        buckets=tuple(named),
        slots=tuple(slots),
        holidays=tuple(draw(st.lists(st.sampled_from([Holiday(12, 25), Holiday(2, 29, 2028)]), unique=True))),
        bands=tuple(bands),
        keys=tuple(keys),
        switch=draw(st.sampled_from(Switch)),
        carry=draw(st.sampled_from(Carry)),
    )
