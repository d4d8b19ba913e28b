"""From deltas to slices, each in one cycle; and what a whole cycle costs.

A delta is a fact and is never cut. Where it crosses the edge of a cycle, rating writes slices of it, linear in time:
the error is bounded by the usage of one interim, and `explain` shows the cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from sms_aaa.rules.cycle import Cycle, cycle_at, next_cycle
from sms_aaa.rules.measure import Amounts
from sms_aaa.rules.money import round_half_away
from sms_aaa.rules.pricing import posted_minor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.rules.tariff import Tariff, UsageComponent

CYCLES_MAX = 1_200  # that one delta may cross: a century
DELTA_MAX = timedelta(days=400)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class UsageFact:
    """What rating needs of a usage delta: octets of [from_at, to_at). Without length it lies at its instant."""

    octets_upload: int
    octets_download: int
    from_at: datetime
    to_at: datetime

    def __post_init__(self) -> None:
        assert self.octets_upload >= 0
        assert self.octets_download >= 0
        assert self.from_at <= self.to_at


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a delta in one cycle, as one component counts it. `index` counts a delta's slices from 0."""

    component_name: str
    index: int
    cycle: Cycle
    from_at: datetime
    to_at: datetime
    quantity: int


@dataclass(frozen=True, slots=True)
class PricedComponent:
    """What a component costs in one whole cycle."""

    name: str
    amount_minor: int


def price_cycle(tariff: Tariff, *, octets_upload: int, octets_download: int) -> tuple[PricedComponent, ...]:
    """One whole cycle with this usage: the fees, then the usage components, in the tariff's order."""
    fees = (PricedComponent(fee.name, fee.amount_minor) for fee in tariff.recurring)
    usage = (
        PricedComponent(
            component.name,
            posted_minor(
                component,
                tariff.currency,
                component.measure.of(Amounts(upload=octets_upload, download=octets_download)),
            ),
        )
        for component in tariff.usage
    )
    return (*fees, *usage)


def slice_quantities(quantity: int, *, start: datetime, end: datetime, edges: Sequence[datetime]) -> list[int]:
    """`quantity` >= 0 cut at `edges`, which ascend strictly inside (start, end): one part more than there are edges.

    The running total at an edge is round_half_up(quantity x elapsed / duration), so the parts are >= 0 and add up to
    `quantity` exactly. Without edges it stays whole, whatever its length.
    """
    assert quantity >= 0
    assert all(earlier < later for earlier, later in pairwise((start, *edges, end))) or not edges
    duration = (end - start) // _MICROSECOND
    # Half up is half away from zero here, for nothing is negative.
    marks = [round_half_away(quantity * ((edge - start) // _MICROSECOND), duration) for edge in edges]
    return [later - earlier for earlier, later in pairwise((0, *marks, quantity))]


def is_plausible(fact: UsageFact) -> bool:
    """Whether a delta's times can be true: a session reports more than once in DELTA_MAX."""
    return fact.to_at - fact.from_at <= DELTA_MAX


def slices(fact: UsageFact, component: UsageComponent, cycles: Sequence[Cycle]) -> tuple[Slice, ...]:
    """The delta's slices for one component, one per cycle that it touches; quantities add up to what it counts.

    `cycles`: those of `cycles_of`.
    """
    edges = [cycle.end for cycle in cycles[:-1]]
    quantity = component.measure.of(Amounts(upload=fact.octets_upload, download=fact.octets_download))
    parts = slice_quantities(quantity, start=fact.from_at, end=fact.to_at, edges=edges)
    bounds = pairwise((fact.from_at, *edges, fact.to_at))
    return tuple(
        Slice(component.name, index, cycle, from_at, to_at, part)
        for index, (cycle, (from_at, to_at), part) in enumerate(zip(cycles, bounds, parts, strict=True))
    )


def cycles_of(fact: UsageFact, zone: str, anchor_day: int) -> list[Cycle]:
    """The cycles of an account that a delta touches, in order.

    ValueError when there are more than CYCLES_MAX: its times are wrong; `is_plausible` tells before.
    """
    cycles = [cycle_at(fact.from_at, zone, anchor_day)]
    # [from_at, to_at): a delta that ends on an edge has nothing in the cycle that begins there.
    while cycles[-1].end < fact.to_at:
        if len(cycles) == CYCLES_MAX:
            raise ValueError(f"a delta from {fact.from_at} to {fact.to_at} crosses more than {CYCLES_MAX} cycles")
        cycles.append(next_cycle(cycles[-1], zone, anchor_day))
    return cycles
