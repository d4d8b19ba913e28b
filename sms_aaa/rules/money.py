"""Money: currencies, the one rounding, and amounts as text.

An amount is an int of minor units (cents) beside its currency. A unit price has up to 12 decimals and is an int of
picounits, 10^-12 of the currency's unit. What lies between the two, an exact price, is a fraction of two ints: it is
rounded once, by `round_half_away`, where it becomes minor units. Nothing here is binary floating point, and nothing
divides except with a remainder.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

PICOUNITS = 10**12  # of one unit of a currency
PRICE_MAX = 9_000_000  # units of a currency; so a price in picounits fits PostgreSQL's bigint
AMOUNT_MINOR_MAX = 10**15  # one amount on a plan; far above any fee, far below bigint

# Every exact price ends within this many decimals: 12 of the price, and 40 of a division by 1 TiB = 2^40.
_DECIMALS_MAX = 52

_NUMBER = re.compile(r"-?[0-9]{1,16}(\.[0-9]{1,16})?")

# ISO 4217 list one, as published on 2026-01-01, by number of decimals of the minor unit. The codes that have none there
# ("N.A.": XXX no currency, XTS tests, XDR, XSU, XUA, bond units, metals) are left out, for nobody can owe a minor unit
# of them. A currency that is withdrawn later stays here: the ledger keeps its entries for good.
_CODES_BY_EXPONENT = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
        "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF "
        "IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
        "MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
        "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG "
        "YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_EXPONENT_BY_CODE = {code: decimals for decimals, codes in _CODES_BY_EXPONENT.items() for code in codes.split()}

ABSTRACT = "XXX"
"""ISO 4217's "no currency": a tariff in abstract units, to be calculated with and never to be sold."""

ABSTRACT_DECIMALS = 6
"""Of amounts in abstract units: they have no minor unit, and nothing is rounded to it."""


class CurrencyUnknownError(ValueError):
    """A code that ISO 4217 does not list today with a minor unit."""

    def __init__(self, currency: str) -> None:
        super().__init__(f"{currency!r} is no ISO 4217 currency in use; write its three capital letters, such as EUR")


def exponent(currency: str) -> int:
    """The decimals of a currency's minor unit: EUR 2, JPY 0, KWD 3; of abstract units (XXX) 6.

    CurrencyUnknownError for any other text.
    """
    found = ABSTRACT_DECIMALS if currency == ABSTRACT else _EXPONENT_BY_CODE.get(currency)
    if found is None:
        raise CurrencyUnknownError(currency)
    return found


def round_half_away(numerator: int, denominator: int) -> int:
    """The whole number nearest to numerator / denominator (> 0); a half goes away from zero, so -x mirrors x."""
    assert denominator > 0
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -magnitude if numerator < 0 else magnitude


def exact(number: object) -> Fraction:
    """A number as a file writes it: text such as "0.05", a Decimal or an int. ValueError for anything inexact."""
    if isinstance(number, str):
        if not _NUMBER.fullmatch(number):
            raise ValueError(f'{number[:40]!r} is not a plain decimal number such as "0.05"')
        return Fraction(number)
    if isinstance(number, int) and not isinstance(number, bool):
        return Fraction(number)
    if isinstance(number, Decimal):
        # The magnitude is looked at first: 1E+999999 as a fraction is a million digits long.
        if not number.is_finite() or not -30 < number.adjusted() < 30:
            raise ValueError(f"{number} is out of bounds")
        return Fraction(number)
    raise ValueError(f"is of type {type(number).__name__}, which is not an exact number")


def minor_of(amount: Fraction, currency: str) -> int:
    """An amount in units of the currency as minor units; ValueError if it is finer than the currency or too large."""
    decimals = exponent(currency)
    minor = amount * 10**decimals
    if minor.denominator != 1:
        raise ValueError(f"is finer than the minor unit of {currency}, which has {decimals} decimals")
    if abs(minor) > AMOUNT_MINOR_MAX:
        raise ValueError(f"is above {format_minor(AMOUNT_MINOR_MAX, currency)}")
    return int(minor)


def picounits_of(price: Fraction) -> int:
    """A unit price >= 0 in picounits; ValueError if it is negative, has more than 12 decimals or is too large."""
    picounits = price * PICOUNITS
    if picounits.denominator != 1:
        raise ValueError("has more than 12 decimals")
    if price < 0:
        raise ValueError("is negative")
    if price > PRICE_MAX:
        raise ValueError(f"is above {PRICE_MAX}")
    return int(picounits)


def format_minor(amount_minor: int, currency: str) -> str:
    """1234 of EUR as "12.34 EUR"."""
    return f"{_with_point(amount_minor, exponent(currency))} {currency}"


def format_exact(numerator: int, denominator: int, currency: str) -> str:
    """An exact amount in units of the currency: "0.0005 EUR", "0.50 EUR"; never rounded.

    At least the decimals of the currency, and no more zeros than that. ValueError where no finite decimal exists;
    prices by the units of rules/tariff.py always have one, for these are powers of 2 and 10.
    """
    for decimals in range(exponent(currency), _DECIMALS_MAX + 1):
        scaled, rest = divmod(numerator * 10**decimals, denominator)
        if rest == 0:
            return f"{_with_point(scaled, decimals)} {currency}"
    raise ValueError(f"{numerator}/{denominator} has no decimal form of {_DECIMALS_MAX} places")


def _with_point(scaled: int, decimals: int) -> str:
    digits = str(abs(scaled)).rjust(decimals + 1, "0")
    sign = "-" if scaled < 0 else ""
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}" if decimals else f"{sign}{digits}"
