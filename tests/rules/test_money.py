"""Currencies, rounding, text; and the law that no binary floating point comes near money."""

from __future__ import annotations

import ast
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.rules import money
from sms_aaa.rules.money import (
    AMOUNT_MINOR_MAX,
    PRICE_MAX,
    CurrencyUnknownError,
    exact,
    exponent,
    format_exact,
    format_minor,
    minor_of,
    picounits_of,
    round_half_away,
)

MONEY_MODULES = ["money", "tariff", "plan", "rating", "cycle", "ledger"]


@pytest.mark.parametrize(
    ("currency", "decimals"),
    [("EUR", 2), ("USD", 2), ("JPY", 0), ("ISK", 0), ("KWD", 3), ("CLF", 4), ("XCG", 2), ("XXX", 6)],
)
def test_a_currency_has_the_decimals_of_iso_4217(currency: str, decimals: int) -> None:
    assert exponent(currency) == decimals


@pytest.mark.parametrize("code", ["XTS", "XAU", "XDR", "DEM", "BGN", "eur", "EURO", ""])
def test_a_code_without_a_minor_unit_or_out_of_use_is_refused_with_a_remedy(code: str) -> None:
    with pytest.raises(CurrencyUnknownError, match="write its three capital letters, such as EUR"):
        exponent(code)


def test_no_currency_is_listed_twice() -> None:
    codes = " ".join(money._CODES_BY_EXPONENT.values()).split()
    assert len(codes) == len(set(codes)) == 165
    assert all(len(code) == 3 and code.isupper() for code in codes)


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [(1, 2, 1), (-1, 2, -1), (3, 2, 2), (-3, 2, -2), (5, 2, 3), (49, 100, 0), (-49, 100, 0), (51, 100, 1), (0, 7, 0)],
)
def test_a_half_is_rounded_away_from_zero(numerator: int, denominator: int, rounded: int) -> None:
    assert round_half_away(numerator, denominator) == rounded


@settings(max_examples=200, deadline=None)
@given(st.integers(), st.integers(min_value=1))
def test_rounding_goes_to_the_nearest_and_mirrors_at_zero(numerator: int, denominator: int) -> None:
    rounded = round_half_away(numerator, denominator)
    assert abs(2 * (rounded * denominator - numerator)) <= denominator
    assert round_half_away(-numerator, denominator) == -rounded


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (1234, "EUR", "12.34 EUR"),
        (-5, "EUR", "-0.05 EUR"),
        (0, "EUR", "0.00 EUR"),
        (1234, "JPY", "1234 JPY"),
        (-7, "JPY", "-7 JPY"),
        (1, "KWD", "0.001 KWD"),
        (10**20, "EUR", "1000000000000000000.00 EUR"),
    ],
)
def test_minor_units_are_written_with_the_currency_s_decimals(amount_minor: int, currency: str, text: str) -> None:
    assert format_minor(amount_minor, currency) == text


@pytest.mark.parametrize(
    ("numerator", "denominator", "currency", "text"),
    [
        (1, 2, "EUR", "0.50 EUR"),
        (5, 10_000, "EUR", "0.0005 EUR"),
        (-5, 10_000, "EUR", "-0.0005 EUR"),
        (3, 1, "EUR", "3.00 EUR"),
        (3, 2, "JPY", "1.5 JPY"),
        (1, 10**12, "EUR", "0.000000000001 EUR"),
        (1, 2**10, "EUR", "0.0009765625 EUR"),
    ],
)
def test_an_exact_amount_is_written_to_its_last_digit(
    numerator: int, denominator: int, currency: str, text: str
) -> None:
    assert format_exact(numerator, denominator, currency) == text


@settings(max_examples=200, deadline=None)
@given(st.integers(), st.sampled_from([1, 10**9, 2**30, 10**12, 2**40]))
def test_every_exact_price_has_a_decimal_form_that_reads_back(numerator: int, rate_unit: int) -> None:
    denominator = rate_unit * money.PICOUNITS
    text, currency = format_exact(numerator, denominator, "EUR").split(" ")
    assert Fraction(text) == Fraction(numerator, denominator)
    assert currency == "EUR"


def test_a_third_has_no_decimal_form() -> None:
    with pytest.raises(ValueError, match="no decimal form"):
        format_exact(1, 3, "EUR")


@pytest.mark.parametrize("number", ["0.05", Decimal("0.05"), Decimal("5E-2")])
def test_text_and_decimals_are_exact_numbers(number: object) -> None:
    assert exact(number) == Fraction(5, 100)
    assert exact(3) == 3


@pytest.mark.parametrize(
    "number",
    [
        0.05,
        True,
        None,
        "",
        ".5",
        "5.",
        "1e3",
        "1_000",
        "٣",
        "+1",
        "NaN",
        Decimal("NaN"),
        Decimal("1E+999999"),
        "9" * 17,
    ],
)
def test_anything_else_is_not_an_exact_number(number: object) -> None:
    with pytest.raises(ValueError):
        exact(number)


def test_an_amount_finer_than_its_currency_is_refused() -> None:
    assert minor_of(Fraction("29.90"), "EUR") == 2990
    assert minor_of(Fraction("0.001"), "KWD") == 1
    with pytest.raises(ValueError, match="finer than the minor unit of EUR, which has 2 decimals"):
        minor_of(Fraction("0.001"), "EUR")
    with pytest.raises(ValueError, match="finer"):
        minor_of(Fraction("0.5"), "JPY")
    with pytest.raises(ValueError, match="above"):
        minor_of(Fraction(AMOUNT_MINOR_MAX + 1, 100), "EUR")


def test_a_price_has_up_to_12_decimals_and_fits_a_bigint() -> None:
    assert picounits_of(Fraction("0.000000000001")) == 1
    assert picounits_of(Fraction(PRICE_MAX)) < 2**63
    for price, reason in ((Fraction(1, 10**13), "12 decimals"), (Fraction(-1), "negative"), (PRICE_MAX + 1, "above")):
        with pytest.raises(ValueError, match=reason):
            picounits_of(Fraction(price))


@pytest.mark.parametrize("module", MONEY_MODULES)
def test_no_float_and_no_true_division_stands_near_money(module: str) -> None:
    path = Path(money.__file__).with_name(f"{module}.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), f"{where}: a float literal"
        assert not (isinstance(node, ast.Name) and node.id == "float"), f"{where}: float"
        if isinstance(node, ast.BinOp | ast.AugAssign):
            assert not isinstance(node.op, ast.Div), f"{where}: true division"
