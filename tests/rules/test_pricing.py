"""P(x) by its models: vectors worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sms_aaa.rules.measure import Measure, Unit
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.pricing import explain_price, price_numerator
from sms_aaa.rules.tariff import Model, Scope, Tier, UsageComponent

STEPS = (Tier(10, 0, flat_picounits=2 * PICOUNITS), Tier(None, 0, flat_picounits=3 * PICOUNITS))


def price(part: UsageComponent, quantity: int) -> Fraction:
    return Fraction(price_numerator(part, quantity), part.denominator)


@pytest.mark.parametrize(("scope", "prices"), [(Scope.CYCLE, [2, 2, 2, 3]), (Scope.SESSION, [0, 0, 2, 3])])
def test_a_cycle_opens_with_its_flat_fee_and_a_session_with_its_first_unit(scope: Scope, prices: list[int]) -> None:
    part = UsageComponent("a", Measure.EVENTS, Unit.EVENT.size, STEPS, Model.STAIRSTEP, scope, grace_quantity=1)
    assert [price(part, quantity) for quantity in (0, 1, 2, 11)] == prices
    parts = explain_price(part, before=1, after=2)
    assert sum(each.numerator for each in parts) == price_numerator(part, 2) - price_numerator(part, 1)
