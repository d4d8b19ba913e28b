"""The charging of one group: slices in canonical order -> what buckets covered, what was priced, what money paid.

This is the reference. A cycle's money is what this state is after all slices of the cycle went through it, in the order
of `Slice.order`; live rating goes on from a state that was stored, and gives the same as long as slices come in order.
The set-based SQL of db/bulk_rating.py is held equal to it by a property test.

A slice goes through the components it belongs to, in the tariff's order. In each: unit buckets in their order cover
what they can; the rest moves the component's total from P(before) to P(after); money buckets pay the difference.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import Overage
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.money import PICOUNITS, round_half_away
from sms_aaa.rules.pricing import rate, shaped
from sms_aaa.rules.slots import band_segments, slot_segments
from sms_aaa.rules.tariff import Scope, SessionLimit, Switch

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from fractions import Fraction

    from sms_aaa.rules.covering import Bucket, Session, Use
    from sms_aaa.rules.measure import Amounts
    from sms_aaa.rules.slots import Band, Calendar
    from sms_aaa.rules.tariff import UsageComponent


@dataclass(frozen=True, slots=True)
class Fact:
    """What rating needs of a usage delta. `member`: the account; instants in microseconds since 2000.

    `seq` counts the deltas of a session. Without length it lies at its instant.
    """

    member: int
    session: Session
    seq: int
    session_from_us: int
    from_us: int
    to_us: int
    key: str
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Slice:
    """The part [from_us, to_us) of a fact in one slot, band and cycle. `index` counts a fact's slices from 0."""

    fact: Fact
    index: int
    from_us: int
    to_us: int
    slot: str
    band: str
    switch: Switch

    def quantity(self, measure: Measure) -> int:
        """What of the fact's quantity lies here: >= 0, and over all slices of the fact exactly all of it.

        The running total at an edge is round_half_up(quantity * elapsed / duration). Events lie where the fact begins.
        A total is the sum of its directions: so the slices add up to the fact whatever measure counts each of them.
        """
        fact = self.fact
        whole = measure.of(fact.amounts)
        is_first, is_last = self.from_us == fact.from_us, self.to_us == fact.to_us
        if is_first and is_last:
            return whole
        if self.switch is Switch.START or measure is Measure.EVENTS:
            return whole if is_first else 0
        if self.switch is Switch.END:
            return whole if is_last else 0
        if measure is Measure.TOTAL:
            return self.quantity(Measure.UPLOAD) + self.quantity(Measure.DOWNLOAD)
        duration = fact.to_us - fact.from_us
        marks = [round_half_away(whole * (edge - fact.from_us), duration) for edge in (self.from_us, self.to_us)]
        return marks[1] - marks[0]

    @property
    def order(self) -> tuple[int, Hashable, int, int]:
        """Canonical: end of the slice, session, sequence, index."""
        return self.to_us, self.fact.session, self.fact.seq, self.index


def cut(
    fact: Fact,
    calendar: Calendar,
    bands: tuple[Band, ...],
    edges: Iterable[int],
    switch: Switch,
    within: tuple[int, int] | None = None,
) -> tuple[Slice, ...]:
    """Slices of a fact: cut at slots, bands and `edges` (of cycles, buckets, plans); those outside of it do nothing.

    `within`: the only part of the fact that they are wanted of.
    """
    from_us, to_us = within or (fact.from_us, fact.to_us)
    slots = slot_segments(calendar, from_us, to_us)
    spans = band_segments(bands, fact.session_from_us, from_us, to_us)
    inside = {edge for edge in edges if from_us < edge < to_us}
    begins = sorted(inside | {begin for begin, _ in slots} | {begin for begin, _ in spans})
    ends = [*begins[1:], to_us]
    return tuple(
        Slice(fact, index, begin, end, _at(slots, begin), _at(spans, begin), switch)
        for index, (begin, end) in enumerate(zip(begins, ends, strict=True))
    )


def _at(segments: Sequence[tuple[int, str]], instant_us: int) -> str:
    return segments[bisect_right(segments, instant_us, key=_begin) - 1][1]


def _begin(segment: tuple[int, str]) -> int:
    return segment[0]


@dataclass(slots=True)
class Total:
    """A component's total: quantity beyond buckets, and its exact price as a numerator over the denominator."""

    quantity: int = 0
    numerator: int = 0


@dataclass(frozen=True, slots=True)
class Charged:
    """What a slice came to in one component. quantity = covered by `uses` + uncovered + priced.

    `priced` on top of `total_before` costs `numerator`. `paid`: by (money bucket, picounits). `uncovered`: usage behind
    a bucket that blocks (`blocked_by`), which costs nothing; the bucket names it as its overrun.
    """

    part: UsageComponent
    slice: Slice
    quantity: int
    uses: tuple[Use, ...]
    uncovered: int
    priced: int
    total_before: int
    numerator: int
    paid: tuple[tuple[int, Fraction], ...]
    session_ends: bool
    blocked_by: int | None = None


@dataclass(slots=True)
class Charging:
    """The state of a charging group, and the one step that moves it.

    `totals`: by scope, the subscription's cycle; `session_totals`: by (scope's subscription, component, session), of
    components with scope session, over cycles. A scope is any hashable (subscription, cycle).
    """

    buckets: list[Bucket] = field(default_factory=list)
    totals: dict[tuple[Hashable, Hashable, str], Total] = field(default_factory=dict)
    session_totals: dict[tuple[Hashable, str, Session], int] = field(default_factory=dict)

    def charge(
        self, piece: Slice, parts: Iterable[UsageComponent], subscription: Hashable, cycle: Hashable
    ) -> list[Charged]:
        """Moves the state by a slice, through the components of its tariff that it belongs to."""
        return [
            self._charge(piece, part, subscription, cycle)
            for part in parts
            if part.is_for(piece.fact.key, piece.slot, piece.band) and piece.quantity(part.measure)
        ]

    def total(self, subscription: Hashable, cycle: Hashable, part: UsageComponent) -> Total:
        return self.totals.setdefault((subscription, cycle, part.name), Total())

    def _charge(self, piece: Slice, part: UsageComponent, subscription: Hashable, cycle: Hashable) -> Charged:
        quantity = piece.quantity(part.measure)
        uses, priced, blocked_by = self._cover(piece, part, quantity)
        uncovered = quantity - priced - sum(use.quantity for use in uses)
        total = self.total(subscription, cycle, part)
        before = total.quantity
        if part.scope is Scope.SESSION:
            before = self.session_totals.get((subscription, part.name, piece.fact.session), 0)
            self.session_totals[subscription, part.name, piece.fact.session] = before + priced
        rated = rate(part, total_before=before, quantity=priced)
        was = total.numerator
        total.quantity += priced
        total.numerator += rated.numerator
        paid = self._pay(piece, part, was, total.numerator)
        return Charged(
            part,
            piece,
            quantity,
            uses,
            uncovered,
            priced,
            before,
            rated.numerator,
            paid,
            self._ends(part, rated.total_after),
            blocked_by,
        )

    def _usable(self, piece: Slice, part: UsageComponent) -> list[Bucket]:
        fitting = (
            bucket
            for bucket in self.buckets
            if bucket.is_of(piece.fact.member)
            and bucket.is_usable(piece.from_us, piece.to_us)
            and bucket.is_for(part, piece.fact.key, piece.slot)
        )
        found = list(fitting)
        if len(found) > 1:
            found.sort(key=lambda bucket: bucket.grant.order)
        return found

    def _cover(self, piece: Slice, part: UsageComponent, quantity: int) -> tuple[tuple[Use, ...], int, int | None]:
        """(uses of unit buckets, what is left to be priced, the bucket for which the rest is not charged)."""
        uses = []
        left = quantity
        for bucket in self._usable(piece, part):
            if bucket.terms.measure is None or not left:
                continue
            use = bucket.use(left, piece.fact.session, piece.fact.member)
            if use.quantity or use.taken:
                uses.append(use)
                left -= use.quantity
            if left and bucket.terms.blocks:
                if bucket.terms.overage is Overage.CHARGE:
                    break
                bucket.overrun += left
                return tuple(uses), 0, bucket.grant.bucket_id
        return tuple(uses), left, None

    def _pay(self, piece: Slice, part: UsageComponent, was: int, now: int) -> tuple[tuple[int, Fraction], ...]:
        """Money buckets pay in their order; a price that fell is given back to the last first."""
        if not any(bucket.terms.measure is None for bucket in self.buckets):
            return ()
        money = [bucket for bucket in self._usable(piece, part) if bucket.terms.measure is None]
        picounits = (shaped(part, now) - shaped(part, was)) * PICOUNITS
        paid = []
        for bucket in money if picounits >= 0 else reversed(money):
            if not picounits:
                break
            share = bucket.pay(picounits, piece.fact.session, piece.fact.member)
            if share:
                paid.append((bucket.grant.bucket_id, share))
                picounits -= share
        return tuple(paid)

    def _ends(self, part: UsageComponent, quantity: int) -> bool:
        """Whether the session has cost as much as one may, and is to be disconnected."""
        if part.session_maximum_picounits is None or part.session_limit is not SessionLimit.DISCONNECT:
            return False
        whole = rate(part, total_before=0, quantity=quantity).numerator
        return whole >= part.session_maximum_picounits * (part.denominator // PICOUNITS)
