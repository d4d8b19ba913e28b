"""Numbers of the pricing door as text: exact, and never a binary float."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.rules.instants import instant_of
from sms_aaa.rules.measure import UNIT_PARTS, Kind
from sms_aaa.rules.money import ABSTRACT, exponent, round_half_away

if TYPE_CHECKING:
    from fractions import Fraction

    from sms_aaa.rules.measure import Measure

ENDLESS_DECIMALS = 18
"""Of an amount that has no finite decimal: rounded half away from zero."""


def amount_fields(name: str, amount: Fraction, currency: str) -> dict[str, object]:
    """The field of an amount; and beside it, where no decimal is exact, its fraction."""
    text = {name: amount_text(amount, currency)}
    if _decimals(amount) is None:
        text[f"{name}_fraction"] = f"{amount.numerator}/{amount.denominator}"
    return dict(text)


def amount_text(amount: Fraction, currency: str) -> str:
    """At least the decimals of the currency, and no more zeros than that; of abstract units none are needed."""
    found = _decimals(amount)
    decimals = max(ENDLESS_DECIMALS if found is None else found, 0 if currency == ABSTRACT else exponent(currency))
    scaled = round_half_away(amount.numerator * 10**decimals, amount.denominator)
    return _with_point(scaled, decimals)


def quantity_text(quantity: int | Fraction, measure: Measure | None) -> str:
    """In base units; abstract units with their decimals."""
    if measure is None or measure.kind is not Kind.UNITS:
        return str(int(quantity))
    whole, parts = divmod(abs(int(quantity)), UNIT_PARTS)
    digits = f"{parts:06d}".rstrip("0")
    return f"{'-' if quantity < 0 else ''}{whole}{'.' if digits else ''}{digits}"


def instant_text(us: int | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if us is None else instant_of(us).isoformat().replace("+00:00", "Z")


def _decimals(amount: Fraction) -> int | None:
    """How many decimals say it exactly; None: no number of them does."""
    rest, twos, fives = amount.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def _with_point(scaled: int, decimals: int) -> str:
    digits = str(abs(scaled)).rjust(decimals + 1, "0")
    sign = "-" if scaled < 0 else ""
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}" if decimals else f"{sign}{digits}"
