"""What a bucket covers: the running state of a grant, and how much of a quantity or of an amount it can take.

Unit buckets are used by whole numbers of base units. For one session, covering a usage of x takes
`connect_fee + ceil(x * factor / increment) * increment` of the bucket (nothing for x = 0), so a use is a difference of
that function too, and no cut of the session's usage changes it. Money buckets take exact amounts.

A reservation holds a part of a bucket for one session: others see it as used, the session itself uses it first.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import FACTOR_PARTS

if TYPE_CHECKING:
    from sms_aaa.rules.buckets import BucketTerms, Grant
    from sms_aaa.rules.tariff import UsageComponent

Session = Hashable
"""What tells sessions apart: the id of a session in production, any name in a price calculation."""


@dataclass(frozen=True, slots=True)
class Use:
    """What of a slice's quantity a bucket covers, and what that takes of it. Both in base units, >= 0."""

    bucket_id: int
    quantity: int
    taken: int


@dataclass(slots=True)
class Bucket:
    """A grant with what was used and what is held. `used` of a money bucket may be a fraction of picounits.

    `owner`: the member that alone may use it; None: every member of the group. `covered`: usage that it covered, by
    session; kept only where the terms need it. `taken`: by member, likewise.
    `overrun`: usage beyond it that was absorbed or not allowed.
    """

    grant: Grant
    used: Fraction | int = Fraction(0)
    reserved: dict[Session, int] = field(default_factory=dict)
    covered: dict[Session, int] = field(default_factory=dict)
    taken: dict[int, Fraction | int] = field(default_factory=dict)
    overrun: int = 0
    owner: int | None = None

    @property
    def terms(self) -> BucketTerms:
        return self.grant.terms

    @property
    def held(self) -> int:
        """Reserved in all."""
        return sum(self.reserved.values())

    def left(self, session: Session) -> Fraction | int:
        """What this session may still use of it: what nobody used and nobody else holds."""
        if not self.reserved:
            return self.grant.granted - self.used
        return self.grant.granted - self.used - self.held + self.reserved.get(session, 0)

    def left_for(self, session: Session, member: int) -> Fraction | int:
        """What this session of this member may still use of it; below zero, if the member took more than its share."""
        left, maximum = self.left(session), self.terms.member_maximum
        return left if maximum is None else min(left, maximum - self.taken.get(member, 0))

    def is_of(self, member: int) -> bool:
        """Whether a member of the group may use it."""
        return self.owner is None or self.owner == member

    def is_usable(self, from_us: int, to_us: int) -> bool:
        """Whether it is valid in all of [from_us, to_us), or at the instant where they are equal."""
        until = self.grant.until_us
        if self.grant.from_us > from_us:
            return False
        return until is None or (to_us <= until if to_us > from_us else to_us < until)

    def is_for(self, part: UsageComponent, key: str, slot: str) -> bool:
        """Whether it covers usage of this component, key and slot; a money bucket pays for any component."""
        terms = self.terms
        return (
            terms.can_cover(part.measure)
            and (not terms.components or part.name in terms.components)
            and (not terms.keys or key in terms.keys)
            and (not terms.slots or slot in terms.slots)
        )

    def use(self, quantity: int, session: Session, member: int) -> Use:
        """Covers what it can of `quantity` >= 0 of a unit bucket's usage."""
        terms = self.terms
        left = int(self.left_for(session, member))
        before = self.covered.get(session, 0)
        # Nothing left covers what is left of a step that was taken whole; less than nothing is a share overdrawn.
        covers = min(quantity, self._reach(before, left) - before) if left >= 0 or not terms.factor_parts else 0
        taken = self._takes(before + covers) - self._takes(before)
        if self._is_stepped:
            self.covered[session] = before + covers
        self._note_share(member, taken)
        self._spend(taken, session)
        return Use(self.grant.bucket_id, covers, taken)

    def pay(self, amount: Fraction, session: Session, member: int) -> Fraction:
        """Pays what it can of an amount in picounits.

        Below zero it is a refund, of at most what was used, and by the member, where members have shares.
        """
        if amount >= 0:
            paid = max(min(amount, self.left_for(session, member)), 0)
        else:
            paid = -min(-amount, self.used if self.terms.member_maximum is None else self.taken.get(member, 0))
        self._note_share(member, paid)
        if paid > 0:
            self._spend(paid, session)
        else:
            self.used += paid
        return Fraction(paid)

    def _note_share(self, member: int, taken: Fraction | int) -> None:
        if self.terms.member_maximum is not None:
            self.taken[member] = self.taken.get(member, 0) + taken

    def _spend(self, taken: Fraction | int, session: Session) -> None:
        self.used += taken
        if session in self.reserved:
            self.reserved[session] = max(self.reserved[session] - -(-taken // 1), 0)

    @property
    def _is_stepped(self) -> bool:
        terms = self.terms
        return terms.increment > 1 or terms.factor_parts != FACTOR_PARTS or terms.connect_fee > 0

    def _takes(self, covered: int) -> int:
        """What covering so much of one session's usage takes in all."""
        terms = self.terms
        if not covered:
            return 0
        scaled = -(-covered * terms.factor_parts // FACTOR_PARTS)
        return terms.connect_fee + -(-scaled // terms.increment) * terms.increment

    def _reach(self, before: int, left: int) -> int:
        """The most usage of the session that `left` more of the bucket can cover, `before` of it covered already."""
        terms = self.terms
        if not terms.factor_parts:
            return before if terms.connect_fee > left + self._takes(before) else 2**63 - 1
        budget = self._takes(before) + left - terms.connect_fee
        if budget <= 0:
            return before
        return max(budget // terms.increment * terms.increment * FACTOR_PARTS // terms.factor_parts, before)
