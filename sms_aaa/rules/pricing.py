"""P(x): what a quantity so far costs, exactly; and what a price becomes on its way to the ledger.

A further quantity costs P(after) - P(before): the differences telescope, so any cut of the same usage, in any order,
costs the same to the last digit. P is a numerator over the component's fixed denominator and is never rounded. It may
fall where a tier makes everything cheaper, and P(0) is what a cycle costs that nothing is used in.

The way of x through a component: grace, minimum, increments (`billable`), then the tiers by their model, then the
connect fee, then the maximum of a session. The way of a price: discount, then cap (`shaped`), then rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.measure import QUANTITY_MAX
from sms_aaa.rules.money import PICOUNITS, exponent, round_half_away
from sms_aaa.rules.tariff import DISCOUNT_PARTS, Model, Rounding, Scope, Shape

if TYPE_CHECKING:
    from sms_aaa.rules.tariff import Tier, UsageComponent

_UNSHAPED = Shape()


@dataclass(frozen=True, slots=True)
class Rated:
    """A quantity rated on top of a total; `numerator` over the component's denominator is its exact price."""

    quantity: int
    total_before: int
    total_after: int
    numerator: int


@dataclass(frozen=True, slots=True)
class PricePart:
    """What of a price fell into one tier, (tier_from, tier_up_to]; None: open. `quantity` after increments.

    `flat_picounits`: fees that became due with it; below zero where a tier was left.
    """

    tier_from: int
    tier_up_to: int | None
    quantity: int
    price_picounits: int
    numerator: int
    flat_picounits: int = 0


def billable(part: UsageComponent, quantity: int) -> int:
    """What of a quantity so far is priced: none within the grace, else at least the minimum, in whole increments."""
    if quantity <= part.grace_quantity:
        return 0
    least = max(quantity, part.minimum_quantity, part.initial_increment)
    return part.initial_increment + _whole(least - part.initial_increment, part.following_increment)


def price_numerator(part: UsageComponent, quantity: int) -> int:
    """P(quantity), exact: the price of a scope's usage so far, as a numerator over the component's denominator."""
    assert quantity >= 0
    counted = billable(part, quantity)
    numerator = sum(each.numerator for each in _parts(part, counted))
    scale = part.denominator // PICOUNITS
    if counted:
        numerator += part.connect_fee_picounits * scale
    if part.session_maximum_picounits is not None:
        numerator = min(numerator, part.session_maximum_picounits * scale)
    return numerator


def opening_numerator(part: UsageComponent) -> int:
    """What a total begins with when a cycle opens: P(0). A session that costs something unused does so when it is."""
    return price_numerator(part, 0) if part.scope is Scope.CYCLE else 0


def rate(part: UsageComponent, *, total_before: int, quantity: int) -> Rated:
    """What `quantity` >= 0 more cost after `total_before` of them in the same scope."""
    assert total_before >= 0
    assert quantity >= 0
    total_after = total_before + quantity
    assert total_after <= QUANTITY_MAX
    if not quantity:  # as often as buckets cover all of it
        return Rated(0, total_before, total_after, 0)
    numerator = price_numerator(part, total_after) - price_numerator(part, total_before)
    return Rated(quantity=quantity, total_before=total_before, total_after=total_after, numerator=numerator)


def explain_price(part: UsageComponent, *, before: int, after: int) -> tuple[PricePart, ...]:
    """P(after) - P(before) as the tiers that it is made of, 0 <= before <= after.

    Their numerators add up to it, but for a connect fee and for what a session's maximum cuts off.
    """
    assert 0 <= before <= after
    left = {each.tier_from: each for each in _parts(part, billable(part, before))}
    found = []
    for each in _parts(part, billable(part, after)):
        was = left.pop(each.tier_from, None)
        found.append(_difference(each, was) if was is not None else each)
    found += [
        _difference(PricePart(was.tier_from, was.tier_up_to, 0, was.price_picounits, 0), was) for was in left.values()
    ]
    return tuple(each for each in sorted(found, key=lambda each: each.tier_from) if each.quantity or each.numerator)


def is_plain(part: UsageComponent) -> bool:
    """Whether a further quantity costs its tiers' price and nothing else: graduated over a cycle, to the base unit."""
    return (
        part.model is Model.GRADUATED
        and part.scope is Scope.CYCLE
        and (part.initial_increment, part.following_increment) == (1, 1)
        and not (part.minimum_quantity or part.grace_quantity or part.connect_fee_picounits)
        and all(not tier.flat_picounits and tier.increment == 1 for tier in part.tiers)
    )


def tier_at(part: UsageComponent, quantity: int) -> tuple[int, int]:
    """(until, numerator): after a total of `quantity`, each base unit up to the total `until` costs that.

    Of a component that is not plain nothing is said: `until` is `quantity`.
    """
    if not is_plain(part):
        return quantity, 0
    scale = part.denominator // PICOUNITS
    for tier in part.tiers:
        if tier.up_to is None or quantity < tier.up_to:
            until = QUANTITY_MAX if tier.up_to is None else tier.up_to
            return until, tier.price_picounits * (scale // (tier.rate_unit or part.rate_unit))
    raise AssertionError("the last tier is open")


def shaped(part: UsageComponent, numerator: int) -> Fraction:
    """A component's price of a cycle after discount and cap, in units of the currency; not rounded, no minimum yet."""
    amount = Fraction(numerator, part.denominator)
    if part.shape.discount_billionths:
        amount *= Fraction(DISCOUNT_PARTS - part.shape.discount_billionths, DISCOUNT_PARTS)
    if part.shape.maximum_picounits is not None:
        amount = min(amount, Fraction(part.shape.maximum_picounits, PICOUNITS))
    return amount


def round_to(amount: Fraction, decimals: int, mode: Rounding = Rounding.HALF_AWAY) -> Fraction:
    """`amount` with so many decimals; a credit is the mirror of a charge."""
    scaled = amount * 10**decimals
    if mode is Rounding.HALF_AWAY:
        return Fraction(round_half_away(scaled.numerator, scaled.denominator), 10**decimals)
    magnitude = abs(scaled)
    whole = -(-magnitude.numerator // magnitude.denominator) if mode is Rounding.UP else int(magnitude)
    return Fraction(whole if scaled >= 0 else -whole, 10**decimals)


def rounded(part: UsageComponent, currency: str, amount: Fraction) -> Fraction:
    """A component's amount at its own scale, or the currency's if it has none, by its own mode."""
    scale = part.shape.rounding_scale
    return round_to(amount, exponent(currency) if scale is None else scale, part.shape.rounding)


def amount_minor(part: UsageComponent, currency: str, numerator: int) -> int:
    """A component's price so far in minor units: what the ledger must show of it before its cycle is closed."""
    if not numerator:
        return 0
    if part.shape == _UNSHAPED:  # most are, and there is one for every total that moved
        return round_half_away(numerator * 10 ** exponent(currency), part.denominator)
    amount = round_to(rounded(part, currency, shaped(part, numerator)), exponent(currency), part.shape.rounding)
    return int(amount * 10 ** exponent(currency))


@dataclass(frozen=True, slots=True)
class PriceStep:
    """What a price of a cycle came to by a step of its way to the ledger, in units of the currency."""

    name: str
    amount: Fraction


def price_steps(part: UsageComponent, currency: str, exact: Fraction) -> tuple[PriceStep, ...]:
    """exact, then discount, cap and the component's own rounding where it has them, then posted. Credits likewise."""
    shape = part.shape
    steps = [PriceStep("exact", exact)]
    discounted = exact * Fraction(DISCOUNT_PARTS - shape.discount_billionths, DISCOUNT_PARTS)
    if shape.discount_billionths:
        steps.append(PriceStep("discount", discounted))
    if shape.maximum_picounits is not None:
        steps.append(PriceStep("cap", min(discounted, Fraction(shape.maximum_picounits, PICOUNITS))))
    own = rounded(part, currency, steps[-1].amount)
    if shape.rounding_scale is not None:
        steps.append(PriceStep("rounded", own))
    return (*steps, PriceStep("posted", round_to(own, exponent(currency), shape.rounding)))


def posted_minor(part: UsageComponent, currency: str, quantity: int) -> int:
    """`amount_minor` of a cycle's usage so far, for a component whose scope is the cycle."""
    return amount_minor(part, currency, price_numerator(part, quantity))


def _parts(part: UsageComponent, counted: int) -> list[PricePart]:
    """The tiers that a billable quantity lies in, with what each of them costs.

    A session with nothing to bill costs nothing: there P(0) is 0, and the first tier's flat fee comes with the first
    unit. A cycle opens with P(0).
    """
    if not counted and part.scope is Scope.SESSION:
        return []
    if part.model is Model.PACKAGE:
        return [_package(part, counted)]
    if part.model is Model.GRADUATED:
        return _graduated(part, counted)
    begin = 0
    for tier in part.tiers:
        if tier.up_to is None or counted <= tier.up_to:
            return [_priced(part, tier, begin, counted if part.model is Model.VOLUME else 0)]
        begin = tier.up_to
    raise AssertionError("the last tier is open")


def _graduated(part: UsageComponent, counted: int) -> list[PricePart]:
    found, begin = [], 0
    for tier in part.tiers:
        if begin and counted <= begin:
            break
        end = counted if tier.up_to is None else min(counted, tier.up_to)
        found.append(_priced(part, tier, begin, end - begin))
        begin = end if tier.up_to is None else tier.up_to
    return found


def _priced(part: UsageComponent, tier: Tier, begin: int, quantity: int) -> PricePart:
    scale = part.denominator // PICOUNITS
    whole = _whole(quantity, tier.increment)
    unit_scale = scale // (tier.rate_unit or part.rate_unit)
    numerator = whole * tier.price_picounits * unit_scale + tier.flat_picounits * scale
    return PricePart(begin, tier.up_to, whole, tier.price_picounits, numerator, tier.flat_picounits)


def _package(part: UsageComponent, counted: int) -> PricePart:
    [tier] = part.tiers
    size = tier.rate_unit or part.rate_unit
    packages = -(-max(counted - part.free_quantity, 0) // size)
    numerator = packages * tier.price_picounits * (part.denominator // PICOUNITS)
    return PricePart(0, None, packages * size, tier.price_picounits, numerator)


def _difference(later: PricePart, earlier: PricePart) -> PricePart:
    return PricePart(
        later.tier_from,
        later.tier_up_to,
        later.quantity - earlier.quantity,
        later.price_picounits,
        later.numerator - earlier.numerator,
        later.flat_picounits - earlier.flat_picounits,
    )


def _whole(quantity: int, increment: int) -> int:
    """`quantity` rounded up to whole increments."""
    return -(-quantity // increment) * increment
