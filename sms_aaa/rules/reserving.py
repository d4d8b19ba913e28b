"""Online charging: what a session may be promised before it uses it, of unit buckets first, then of money.

A promise is made of what nobody used and nobody holds, and is then held itself. So whatever is asked for at the same
time, what is used within promises and what is held never come to more than was granted. A NAS reports after use: what
goes beyond a promise is rated like any other usage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import Overage
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.pricing import price_numerator, shaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sms_aaa.rules.charging import Total
    from sms_aaa.rules.covering import Bucket, Session
    from sms_aaa.rules.tariff import UsageComponent


@dataclass(frozen=True, slots=True)
class Want:
    """What is asked for: usage of a component at an instant, by a member's session, >= 0."""

    part: UsageComponent
    quantity: int
    session: Session
    member: int
    key: str
    slot: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Hold:
    """What is to be held of a bucket, > 0: base units, of a money bucket picounits."""

    bucket_id: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Promise:
    """What is granted of a want; less than was asked: final. `priced` of it is beyond buckets.

    `owed_picounits`: held of what the account may owe.
    """

    granted: int
    holds: tuple[Hold, ...]
    owed_picounits: int
    priced: int = 0


def promise(want: Want, buckets: Iterable[Bucket], cost: Callable[[int], Fraction], credit: Fraction | None) -> Promise:
    """What may be used of a want.

    `cost`: what so much more costs, in units of the currency. `credit`: what the account may still owe, in these units
    too, below zero if it owes more already; None: without limit, so nothing is held for what is granted against it.
    """
    usable = usable_for(want, buckets)
    holds: list[Hold] = []
    left = want.quantity
    for bucket in usable:
        if bucket.terms.measure is None or not left:
            continue
        use = _unheld(bucket, want.session).use(left, want.session, want.member)
        holds += [Hold(use.bucket_id, use.taken)] if use.taken else []
        left -= use.quantity
        if left and bucket.terms.blocks:
            if bucket.terms.overage is Overage.CHARGE:
                break
            granted = want.quantity - (left if bucket.terms.overage is Overage.BLOCK else 0)
            return Promise(granted, tuple(holds), 0)
    if not left or credit is None:
        return Promise(want.quantity, tuple(holds), 0, left)
    money = [bucket for bucket in usable if bucket.terms.measure is None]
    paid = affordable(left, funds_of(money, credit, want.member), cost)
    of_money, owed = hold_money(money, cost(paid), want.member)
    return Promise(want.quantity - left + paid, (*holds, *of_money), owed, paid)


def usable_for(want: Want, buckets: Iterable[Bucket]) -> list[Bucket]:
    """Those that usage of the want's kind may use, in their order."""
    fitting = (bucket for bucket in buckets if _fits(bucket, want))
    return sorted(fitting, key=lambda bucket: bucket.grant.order)


def funds_of(money: Iterable[Bucket], credit: Fraction, member: int) -> Fraction:
    """What these money buckets have left for a member, and `credit`: in units of the currency, not below zero."""
    return max(sum((_free(bucket, member) for bucket in money), credit), Fraction(0))


def hold_money(money: Iterable[Bucket], amount: Fraction, member: int) -> tuple[list[Hold], int]:
    """Holds an amount in units of the currency: of these buckets in their order, whole picounits; the rest is owed.

    Beside the holds: the picounits of the rest.
    """
    holds = []
    for bucket in money:
        share = min(amount, _free(bucket, member))
        if share > 0:
            holds.append(Hold(bucket.grant.bucket_id, _picounits(share)))
            amount -= share
    return holds, _picounits(max(amount, Fraction(0)))


def affordable(quantity: int, funds: Fraction, cost: Callable[[int], Fraction]) -> int:
    """The most of `quantity` that costs no more than `funds`; where a price falls, what the search meets first."""
    if cost(quantity) <= funds:
        return quantity
    low, high = 0, quantity  # low can be paid, high cannot
    while high - low > 1:
        middle = (low + high) // 2
        if cost(middle) <= funds:
            low = middle
        else:
            high = middle
    return low


def cost_of(part: UsageComponent, total: Total, before: int, promised: int) -> Callable[[int], Fraction]:
    """What a further quantity costs, after discount and cap.

    It comes after `before` in the price's scope, on top of `total`, and after what is `promised` already.
    """
    was = price_numerator(part, before)
    spoken_for = shaped(part, total.numerator + price_numerator(part, before + promised) - was)

    def cost(quantity: int) -> Fraction:
        after = total.numerator + price_numerator(part, before + promised + quantity) - was
        return shaped(part, after) - spoken_for

    return cost


def spread(quantity: int, held: Sequence[int]) -> list[int]:
    """How much of a quantity >= 0 is of each hold, in their order: of none more than it is."""
    shares = []
    for each in held:
        shares.append(min(quantity, each))
        quantity -= shares[-1]
    return shares


def _fits(bucket: Bucket, want: Want) -> bool:
    return (
        bucket.is_of(want.member)
        and bucket.is_usable(want.at_us, want.at_us)
        and bucket.is_for(want.part, want.key, want.slot)
    )


def _unheld(bucket: Bucket, session: Session) -> Bucket:
    """A copy in which what the session holds already is spoken for."""
    others = {other: quantity for other, quantity in bucket.reserved.items() if other != session}
    own = bucket.reserved.get(session, 0)
    return replace(
        bucket, used=bucket.used + own, reserved=others, covered=dict(bucket.covered), taken=dict(bucket.taken)
    )


def _free(bucket: Bucket, member: int) -> Fraction:
    """Whole picounits of a money bucket that a member may use and nobody used or holds, in units of the currency."""
    free, maximum = bucket.grant.granted - bucket.used - bucket.held, bucket.terms.member_maximum
    if maximum is not None:
        free = min(free, maximum - bucket.taken.get(member, 0))
    return Fraction(max(int(free), 0), PICOUNITS)


def _picounits(amount: Fraction) -> int:
    """Whole ones, none less than the amount."""
    return -int(-amount * PICOUNITS // 1)
