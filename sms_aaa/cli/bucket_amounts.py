"""Amounts and quantities of the command line, as exact numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

    from sms_aaa.rules.measure import Measure


def read_amount(text: str, *, place: str) -> Fraction:
    """An amount >= 0 of a currency, such as 10.00; Invalid otherwise."""
    from sms_aaa.flows.provisioning.desk import Invalid
    from sms_aaa.rules.money import PRICE_MAX, exact

    remedy = 'write an amount such as "10.00"'
    try:
        amount = exact(text)
    except ValueError as fault:
        raise Invalid(place, str(fault), remedy) from fault
    if not 0 <= amount <= PRICE_MAX:
        raise Invalid(place, f"{text} is not from 0 to {PRICE_MAX}", remedy)
    return amount


def read_quantity(text: str, measure: Measure, *, place: str) -> int:
    """A quantity such as 5 GB in base units of the measure; Invalid otherwise."""
    from sms_aaa.flows.provisioning.desk import Invalid
    from sms_aaa.rules.measure import quantity_of

    try:
        return quantity_of(text, measure.kind)
    except ValueError as fault:
        raise Invalid(place, str(fault), 'write a number and its unit, such as "5 GB" or "90 min"') from fault
