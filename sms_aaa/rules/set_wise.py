"""Which tariffs and buckets can be rated set-wise, by the SQL of db/bulk_rating.py; and their prices in closed form.

Set-wise means: not slice by slice, but each step over all slices at once. That works because buckets have one total
order: the first may be taken through all slices, then the second through what is left of them, and each is a running
sum. It works for prices because P is a closed form: look up the step, multiply, add.

What it cannot take is rated by rules/charging.py, slice by slice:

- tariffs with rating keys or with bands, for what a slice is then depends on the session;
- tariffs that disconnect a session at its maximum, for somebody has to be told at which slice;
- money buckets, for they are used by prices and not by quantities;
- buckets in increments, by a factor or with a connect fee, for what is used then depends on the session;
- buckets that bound a member's share, for a group then has two limits at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import FACTOR_PARTS, Overage
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.slots import ANYTIME
from sms_aaa.rules.tariff import DEFAULT_KEY, Model, SessionLimit

if TYPE_CHECKING:
    from sms_aaa.rules.buckets import BucketTerms
    from sms_aaa.rules.tariff import Tariff, UsageComponent

SLOTS_MAX = 62
"""Of a tariff: each is a bit of a bigint."""

_NARROW_MAX = 2**62
"""Half of a bigint: what stays below it can be added once more."""


def is_set_wise(tariff: Tariff) -> bool:
    """Whether SQL can rate its usage; buckets are judged each by itself, with `is_set_wise_bucket`."""
    return (
        not tariff.keys
        and not tariff.bands
        and len(slot_names(tariff)) <= SLOTS_MAX
        and all(
            part.session_maximum_picounits is None or part.session_limit is SessionLimit.FREE for part in tariff.usage
        )
    )


def is_set_wise_bucket(terms: BucketTerms) -> bool:
    """Whether what it covers is a running sum of quantities, and what it takes is what it covers."""
    return (
        terms.measure is not None
        and terms.increment == 1
        and terms.factor_parts == FACTOR_PARTS
        and terms.connect_fee == 0
        and terms.member_maximum is None
    )


def slot_names(tariff: Tariff) -> tuple[str, ...]:
    """The slots of a tariff by the number of their bit."""
    return (ANYTIME, *dict.fromkeys(slot.name for slot in tariff.slots))


def slot_mask(tariff: Tariff, slots: tuple[str, ...]) -> int:
    """The bits of these slots; of all where none is named."""
    return sum(1 << bit for bit, name in enumerate(slot_names(tariff)) if not slots or name in slots)


def cover_mask(tariff: Tariff, part: UsageComponent, terms: BucketTerms) -> int:
    """The bits of the slots in which a bucket of these terms covers usage of a component; key rules there are none."""
    if not terms.can_cover(part.measure) or (terms.components and part.name not in terms.components):
        return 0
    if terms.keys and DEFAULT_KEY not in terms.keys:
        return 0
    return slot_mask(tariff, terms.slots) & slot_mask(tariff, part.slots)


def stops(terms: BucketTerms) -> bool:
    """Whether usage beyond it goes to no bucket behind it, and is charged."""
    return terms.blocks and terms.overage is Overage.CHARGE


def swallows(terms: BucketTerms) -> bool:
    """Whether usage beyond it costs nothing and is its overrun."""
    return terms.blocks and terms.overage is not Overage.CHARGE


@dataclass(frozen=True, slots=True)
class Steps:
    """P in closed form, each tuple a value a step.

    Of a billable quantity c the last step counts that begins below c:

        P = bases + ceil(max(c - origins, 0) / increments) * increments * units, and `connect` more where c > 0

    Numerators are over the component's denominator. All of them are multiples of `factor`. Up to a total of
    `narrow_max` everything on the way fits 62 bits when it is divided by `factor`; -1: it never does.
    """

    begins: tuple[int, ...]
    origins: tuple[int, ...]
    increments: tuple[int, ...]
    units: tuple[int, ...]
    bases: tuple[int, ...]
    connect: int
    session_maximum: int | None
    factor: int
    narrow_max: int

    @property
    def is_line(self) -> bool:
        """Whether P = bases + c * units: one step, of which each unit costs by itself."""
        return len(self.begins) == 1 and self.origins == (0,) and self.increments == (1,)


def steps_of(part: UsageComponent) -> Steps:
    """P of a component as steps; rules/pricing.py says the same tier by tier."""
    scale = part.denominator // PICOUNITS
    begins, origins, increments, units, bases = [], [], [], [], []
    base = begin = 0
    for tier in part.tiers:
        size = tier.rate_unit or part.rate_unit
        flat = tier.flat_picounits * scale
        unit = tier.price_picounits * (scale // size)
        begins.append(begin)
        increments.append(size if part.model is Model.PACKAGE else tier.increment)
        units.append(0 if part.model is Model.STAIRSTEP else unit)
        if part.model is Model.GRADUATED:
            origins.append(begin)
            bases.append(base + flat)
            base += flat
            if tier.up_to is not None:
                base += -(-(tier.up_to - begin) // tier.increment) * tier.increment * unit
        else:
            origins.append(part.free_quantity)
            bases.append(flat)
        begin = tier.up_to or begin
    connect = part.connect_fee_picounits * scale
    maximum = None if part.session_maximum_picounits is None else part.session_maximum_picounits * scale
    factor = math.gcd(*units, *bases, connect, maximum or 0) or 1
    room = _NARROW_MAX - (max(bases) + connect) // factor
    margin = part.initial_increment + part.following_increment + part.minimum_quantity + max(increments)
    narrow = room // max(max(units) // factor, 1) - margin
    if max(maximum or 0, 0) // factor >= _NARROW_MAX:
        narrow = -1
    return Steps(
        tuple(begins),
        tuple(origins),
        tuple(increments),
        tuple(units),
        tuple(bases),
        connect,
        maximum,
        factor,
        max(narrow, -1),
    )
