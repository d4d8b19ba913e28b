"""The fields of a line of a usage file, or of a table of an account file: instants, numbers, texts, read strictly."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.measure import QUANTITY_MAX, Amounts, Kind, Measure, Unit
from sms_aaa.rules.money import exact
from sms_aaa.rules.plan_table import TEXT_LENGTH_MAX, Form
from sms_aaa.rules.usage_lines import LineInvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

AMOUNT_MAX = 10**15
"""Of money, in units of the currency."""

# A cycle is looked for in the months beside an instant, and those have to have a date.
_INSTANT_LEAST, _INSTANT_END = (instant_us(datetime(year, 1, 1, tzinfo=UTC)) for year in (1900, 9999))
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")
_COUNTS = (
    ("octets_in", "write whole octets"),
    ("octets_out", "write whole octets"),
    ("seconds", "write whole seconds"),
    ("events", "write a whole number of events"),
)


class Fields:
    """A line by its number, or with 0 a table of an account file at `place`. Every reader raises LineInvalidError."""

    def __init__(self, line: int, values: Mapping[str, object], place: str = "") -> None:
        self.line = line
        self.values = values
        self._place = place

    def invalid(self, field: str, reason: str, remedy: str) -> LineInvalidError:
        return LineInvalidError(self.line, f"{self._place}{field}", reason, remedy)

    def has(self, field: str) -> bool:
        return field in self.values

    def text(self, field: str, default: str | None = None) -> str:
        """One printable line, not empty; without `default` it is obligatory."""
        value = self.values.get(field, default)
        if value is None:
            raise self.invalid(field, "is missing", "write it")
        if not isinstance(value, str):
            raise self.invalid(field, f"is of type {_type(value)}", "write a text in quotes")
        if len(value) > TEXT_LENGTH_MAX or not value.isprintable() or (not value and default is None):
            raise self.invalid(field, "is empty, too long or not printable", f"write 1 to {TEXT_LENGTH_MAX} characters")
        return value

    def optional_text(self, field: str) -> str | None:
        return self.text(field) if field in self.values else None

    def flag(self, field: str, *, default: bool) -> bool:
        value = self.values.get(field, default)
        if not isinstance(value, bool):
            raise self.invalid(field, f"is of type {_type(value)}", Form.FLAG.remedy)
        return value

    def whole(self, field: str) -> int | None:
        """A whole number >= 0; None if it is not there."""
        value = self.values.get(field)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= QUANTITY_MAX:
            raise self.invalid(field, "is not a whole number from 0 on", "write one")
        return value

    def instant(self, field: str) -> int | None:
        """Microseconds since 2000, of a year that calendars reach; None if it is not there."""
        found = self.end(field)
        if found is not None and not _INSTANT_LEAST <= found < _INSTANT_END:
            raise self.invalid(field, f"is {self.values[field]}, out of bounds", "write an instant of 1900 to 9998")
        return found

    def end(self, field: str) -> int | None:
        """As `instant`, of any year: many write the end of 9999 for never."""
        value = self.values.get(field)
        if value is None:
            return None
        if isinstance(value, datetime) and value.tzinfo is not None:
            return instant_us(value)  # as TOML has them
        if not isinstance(value, str) or not _INSTANT.fullmatch(value):
            shown = repr(value)[:40] if isinstance(value, str) else f"of type {_type(value)}"
            raise self.invalid(field, f"is {shown}, no instant of RFC 3339", Form.INSTANT.remedy)
        try:
            return instant_us(datetime.fromisoformat(value.upper()))
        except (ValueError, OverflowError) as fault:
            raise self.invalid(field, f"is {value!r}: {fault}", Form.INSTANT.remedy) from None

    def number(self, field: str, *, least: int | None = 0, most: int = AMOUNT_MAX) -> Fraction | None:
        """An exact number; None if it is not there."""
        value = self.values.get(field)
        if value is None:
            return None
        try:
            found = exact(value)
        except ValueError as fault:
            raise self.invalid(field, str(fault), Form.NUMBER.remedy) from None
        if (least is not None and found < least) or abs(found) > most:
            raise self.invalid(field, f"is {_short(value)}, out of bounds", f"write {least or 0} to {most}")
        return found

    def amounts(self) -> Amounts | None:
        """Quantities by their names, or `quantity` with its unit; None if there is none."""
        values = self.values
        if "quantity" in values or "unit" in values:
            return self._of_unit()
        if "measure" in values:
            raise self.invalid("measure", "stands without a quantity", "write quantity and unit, or leave it out")
        found = []
        is_there = False
        for field, remedy in _COUNTS:
            value = values.get(field, 0)
            is_there = is_there or field in values
            if type(value) is not int:
                value = self._count(field, remedy)
            if not 0 <= value <= QUANTITY_MAX:
                raise self.invalid(field, f"is {value}, out of bounds", f"write 0 to {QUANTITY_MAX}")
            found.append(value)
        return Amounts(*found) if is_there else None

    def quantity(self) -> tuple[int, Kind]:
        """`quantity` and `unit` in base units."""
        text = self.text("unit")
        try:
            unit = Unit.by_label(text)
        except ValueError as fault:
            raise self.invalid("unit", str(fault), "write one of them") from None
        quantity = self.number("quantity", most=QUANTITY_MAX)
        if quantity is None:
            raise self.invalid("quantity", "is missing", "write it beside its unit")
        size = quantity * unit.size
        if size.denominator != 1 or size > QUANTITY_MAX:
            remedy = "write a quantity that is whole in octets, seconds, events or millionths of a unit"
            raise self.invalid(
                "quantity", f"is {_short(self.values['quantity'])} {unit.label}, not a whole number", remedy
            )
        return int(size), unit.kind

    def _of_unit(self) -> Amounts:
        for field, _ in _COUNTS:
            if field in self.values:
                raise self.invalid(field, "stands beside quantity and unit", "write either")
        size, kind = self.quantity()
        measure = self.text("measure", Measure.DOWNLOAD.value)
        if measure not in {Measure.UPLOAD, Measure.DOWNLOAD}:
            raise self.invalid("measure", f"is {measure!r}", "write upload or download")
        if kind is not Kind.OCTETS:
            if "measure" in self.values:
                raise self.invalid("measure", f"stands beside a quantity of {kind}", "leave it out")
            measure = kind.value
        return Amounts(**{measure: size})

    def _count(self, field: str, remedy: str) -> int:
        found = self.number(field, most=QUANTITY_MAX)
        if found is None or found.denominator != 1:
            raise self.invalid(field, f"is {_short(self.values[field])}, not a whole number", remedy)
        return int(found)


def _short(value: object) -> str:
    return str(value)[:40]


def _type(value: object) -> str:
    return type(value).__name__
