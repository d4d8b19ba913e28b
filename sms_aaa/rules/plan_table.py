"""A table of a file, read strictly: which keys it may have, how each is written, and where what is wrong stands.

What a file may say is data: a Section is the keys of a table, a Key its form, default and meaning. The reader admits
what its section has and nothing else, and the JSON Schemas and the documentation are made of the same sections, so none
of the three can promise what another does not keep.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import Enum, StrEnum
from functools import partial
from typing import TypeVar

from sms_aaa.rules.measure import QUANTITY_MAX, UNIT_PARTS, Kind, quantity_of
from sms_aaa.rules.money import exact, picounits_of
from sms_aaa.rules.tariff import named

TEXT_LENGTH_MAX = 200
LIST_LENGTH_MAX = 1_000
"""Of texts; lists of tables have their own bounds."""

COUNT_MAX = 1_000_000

_DURATION = re.compile(r"([0-9]{1,9}) ?([smhd])")
_SECONDS_BY_UNIT = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


class Form(Enum):
    """How a value is written: (words for people, the pattern of its text, the remedy where it is not that)."""

    TEXT = ("text", None, f"write one line of at most {TEXT_LENGTH_MAX} characters")
    NAME = ("name", r"[a-z0-9][a-z0-9-]{0,63}", "write lower-case letters, digits and hyphens, at most 64")
    CURRENCY = ("currency", r"[A-Z]{3}", "name a currency of ISO 4217")
    CHOICE = ("one of", None, "")
    FLAG = ("true or false", None, "write true or false")
    COUNT = ("whole number", None, "")
    AMOUNT = (
        "amount", r"[0-9]{1,16}(\.[0-9]{1,16})?",
        'write an amount with no more decimals than the currency has, such as "29.90"',
    )  # fmt: skip
    PRICE = (
        "price", r"[0-9]{1,16}(\.[0-9]{1,16})?",
        'write the price per unit, such as "0.05": not negative, with at most 12 decimals',
    )  # fmt: skip
    PERCENT = ("percent", r"[0-9]{1,3}(\.[0-9]{1,7})?", 'write percent from 0 to 100 such as "12.5"')
    FACTOR = ("factor", r"[0-9]{1,4}(\.[0-9]{1,6})?", 'write a number from 0 to 1000 such as "2" or "0.5"')
    QUANTITY = (
        "quantity",
        r"[0-9]{1,19}(\.[0-9]{1,16})? ?[A-Za-z]{0,8}",
        'write a number and its unit such as "50 GB"',
    )
    PER = (
        "unit",
        r"([0-9]{1,19}(\.[0-9]{1,16})? ?)?[A-Za-z]{1,8}",
        'write the unit that the price is for, such as "GB", or so many of it, such as "100 MB"',
    )
    RATE = (
        "rate", r"[0-9]{1,12}(\.[0-9]{1,6})? ?[kMG]bit/s",
        'write a rate such as "20 Mbit/s", or leave it out for no limit',
    )  # fmt: skip
    DURATION = ("time", r"[0-9]{1,9} ?[smhd]", 'write a time of s, m, h or d such as "24h"')
    CLOCK = ("time of day", r"[0-2][0-9]:[0-5][0-9](:[0-5][0-9])?", 'write a time from "00:00" to "24:00"')
    HOLIDAYS = (
        "days", r"([0-9]{4}-)?[0-9]{2}-[0-9]{2}",
        'write days such as "2026-12-25", or "12-25" for every year',
    )  # fmt: skip
    NAMES = ("names", r"[a-z0-9][a-z0-9-]{0,63}", "write a list of names, or leave it out")
    CHOICES = ("some of", None, "")
    TEXTS = ("texts", None, "write a list of texts, or leave it out")
    TABLE = ("table", None, "write a table")
    TABLES = ("tables", None, "write a list of tables")
    TABLE_OR_TABLES = ("table, or a list of them", None, "write a table, or a list of tables")
    AMOUNTS = ("table of amounts", None, "write a table of names and amounts")
    QUANTITIES = ("table of quantities", None, "write a table of names and quantities")
    INSTANT = ("instant", None, 'write an instant with its zone, such as "2026-01-31T23:00:00Z"')
    NUMBER = ("number", None, 'write a number, or a text such as "1.5"')
    OBJECT = ("object", None, "write an object of names and values")

    def __init__(self, words: str, pattern: str | None, remedy: str) -> None:
        self.words = words
        self.pattern = pattern
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Key:
    """What a table may say under a name.

    `says`: what it means; `sample`: a value as TOML writes it. Left out it is read as `default` (as a file has it); if
    that is None it is obligatory, or, with `absent`, means that. `bounds`: of a count, of a time in seconds, or of a
    list's length.
    """

    name: str
    form: Form
    says: str
    sample: str
    default: str | int | bool | None = None
    absent: str = ""
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int] = (0, LIST_LENGTH_MAX)
    section: Section | None = None

    @property
    def is_obligatory(self) -> bool:
        return self.default is None and not self.absent

    @property
    def remedy(self) -> str:
        if self.form in {Form.CHOICE, Form.CHOICES}:
            return f"write {self.form.words} {', '.join(self.choices)}"
        if self.form is Form.COUNT:
            return f"write a number from {self.bounds[0]} to {self.bounds[1]}"
        if self.form is Form.DURATION:
            return f"write a time from {self.bounds[0]}s to {self.bounds[1]}s"
        return self.form.remedy


@dataclass(frozen=True, slots=True)
class Section:
    """The keys of a table. `title` is what documentation calls it."""

    title: str
    keys: tuple[Key, ...]

    def key(self, name: str) -> Key:
        """StopIteration never: the reader asks for what the section has."""
        return next(key for key in self.keys if key.name == name)


def one_of(name: str, choices: tuple[str, ...], default: str | None, says: str, sample: str, absent: str = "") -> Key:
    """A key whose value is one of these."""
    return Key(name, Form.CHOICE, says, sample, default=default, choices=choices, absent=absent)


class PlanInvalidError(ValueError):
    """Why a file is refused: `place` in it ("tariff.usage[0].price"), `reason`, `remedy`; str() is one line."""

    def __init__(self, place: str, reason: str, remedy: str) -> None:
        super().__init__(f"{place}: {reason}; {remedy}")
        self.place = place
        self.reason = reason
        self.remedy = remedy


def lawful(place: str, remedy: str, make: Callable[[], T]) -> T:
    """What `make` makes; the ValueError of a law that it breaks becomes a PlanInvalidError of this place."""
    try:
        return make()
    except PlanInvalidError:
        raise
    except ValueError as fault:
        raise PlanInvalidError(place, str(fault), remedy) from fault


class Table:
    """A table of the file and its place ("" is the file itself). Every reader raises PlanInvalidError."""

    def __init__(self, value: object, place: str, section: Section) -> None:
        self.place = place
        self._section = section
        if not isinstance(value, Mapping):
            raise PlanInvalidError(place or "the file", f"is of type {type(value).__name__}", "write a table")
        self._values = value
        known = {key.name for key in section.keys}
        for name in value:
            if name not in known:
                raise PlanInvalidError(
                    self.at(str(name)),
                    "is not a key of this table",
                    f"known are {', '.join(key.name for key in section.keys)}",
                )

    def at(self, name: str) -> str:
        """The place of a key; one that TOML would quote is quoted, so that the place stays on one line."""
        shown = name if _BARE_KEY.fullmatch(name) else ascii(name[:80])
        return f"{self.place}.{shown}" if self.place else shown

    def has(self, name: str) -> bool:
        return name in self._values

    def refuse(self, name: str, reason: str, remedy: str) -> None:
        """PlanInvalidError if the key is there."""
        if self.has(name):
            raise PlanInvalidError(self.at(name), reason, remedy)

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """What `read` reads of the key; None if it is not there."""
        return read(name) if self.has(name) else None

    def text(self, name: str) -> str:
        """One printable line."""
        return self._line(self._value(name), self.at(name), self._section.key(name).form)

    def read(self, name: str, form: Form, reader: Callable[[str], T]) -> T:
        """A text's meaning; `reader` raises ValueError."""
        key = self._section.key(name)
        assert key.form is form
        return lawful(self.at(name), key.remedy, partial(reader, self.text(name)))

    def name(self, name: str = "name") -> str:
        return self.read(name, Form.NAME, named)

    def choice(self, name: str, choices: type[E]) -> E:
        """A text that is one of the key's choices, which are values of this enum."""
        allowed = self._section.key(name).choices

        def chosen(text: str) -> E:
            if text not in allowed:
                raise ValueError(f"is {text[:40]!r}")
            return choices(text)

        return self.read(name, Form.CHOICE, chosen)

    def duration(self, name: str) -> int:
        """A time in seconds, within the key's bounds."""
        low, high = self._section.key(name).bounds
        return self.read(name, Form.DURATION, partial(_seconds_of, low=low, high=high))

    def price(self, name: str) -> int:
        """A unit price or a fee in picounits."""
        return self.number(name, Form.PRICE, picounits_of)

    def flag(self, name: str) -> bool:
        value = self._value(name, Form.FLAG)
        if not isinstance(value, bool):
            raise self._untyped(name, value)
        return value

    def count(self, name: str) -> int:
        value = self._value(name, Form.COUNT)
        key = self._section.key(name)
        # A bool is an int in Python, and not a number to whoever writes a plan.
        if not isinstance(value, int) or isinstance(value, bool) or not key.bounds[0] <= value <= key.bounds[1]:
            raise PlanInvalidError(self.at(name), "is not a whole number in bounds", key.remedy)
        return value

    def number(self, name: str, form: Form, convert: Callable[..., int]) -> int:
        """An exact number; `convert` takes it as a Fraction and raises ValueError."""
        value = self._value(name, form)
        return lawful(self.at(name), self._section.key(name).remedy, lambda: convert(exact(value)))

    def quantity(self, name: str, kind: Kind, *, least: int = 0) -> int:
        """A quantity with its unit, of at least `least` base units; events and abstract units may be plain numbers."""
        value = self._value(name, Form.QUANTITY, Form.QUANTITIES)

        def converted() -> int:
            found = quantity_in(value, kind)
            if found < least:
                raise ValueError(f"is below {least} {kind}" if least > 1 else "is 0")
            return found

        return lawful(self.at(name), f"write {_SAMPLES[kind]}", converted)

    def names(self, name: str, known: tuple[str, ...] | None = None, whose: str = "") -> tuple[str, ...]:
        """A list of names, each once, none if it is left out; if `known` is given only of those, which are `whose`."""
        found = self.items(name, Form.NAMES, named)
        for index, each in enumerate(found):
            if known is not None and each not in known:
                remedy = f"known are {', '.join(known)}" if known else f"write {whose}"
                raise PlanInvalidError(f"{self.at(name)}[{index}]", f"is {each!r}, and {whose} is not there", remedy)
            if each in found[:index]:
                raise PlanInvalidError(f"{self.at(name)}[{index}]", f"is {each!r} again", "name each once")
        return found

    def items(self, name: str, form: Form, reader: Callable[[str], T]) -> tuple[T, ...]:
        """What the texts of a list mean; none if it is left out, and a list that is there is not empty."""
        if not self.has(name):
            return ()
        key = self._section.key(name)
        values = self._value(name, form)
        if not isinstance(values, list) or not 1 <= len(values) <= key.bounds[1]:
            raise PlanInvalidError(self.at(name), f"is not a list of 1 to {key.bounds[1]}", key.remedy)
        lines = [self._line(value, f"{self.at(name)}[{index}]", form) for index, value in enumerate(values)]
        return tuple(
            lawful(f"{self.at(name)}[{index}]", key.remedy, partial(reader, line)) for index, line in enumerate(lines)
        )

    def table(self, name: str) -> Table:
        return Table(self._value(name, Form.TABLE), self.at(name), self._inner(name))

    def tables(self, name: str) -> list[Table]:
        """The tables of a list; none if the key is not there."""
        value = self._values.get(name, [])
        key = self._section.key(name)
        if key.form is Form.TABLE_OR_TABLES and isinstance(value, Mapping):
            return [self.inner(name, self._inner(name))]
        if not isinstance(value, list) or len(value) > key.bounds[1]:
            raise PlanInvalidError(self.at(name), "is not a list in bounds", f"write at most {key.bounds[1]} tables")
        return [Table(item, f"{self.at(name)}[{index}]", self._inner(name)) for index, item in enumerate(value)]

    def inner(self, name: str, section: Section) -> Table:
        """The table of a key whose names are not the format's but the file's own."""
        return Table(self._value(name), self.at(name), section)

    def _inner(self, name: str) -> Section:
        section = self._section.key(name).section
        assert section is not None
        return section

    @staticmethod
    def _line(value: object, place: str, form: Form) -> str:
        if form in {Form.HOLIDAYS, Form.CLOCK} and isinstance(value, date | time) and not isinstance(value, datetime):
            value = value.isoformat()  # TOML has a form of its own for days and times of day
        if not isinstance(value, str):
            raise PlanInvalidError(place, f"is of type {type(value).__name__}", "write a text in quotes")
        if len(value) > TEXT_LENGTH_MAX or not value.isprintable():
            raise PlanInvalidError(place, "is too long or not printable", Form.TEXT.remedy)
        return value

    def _untyped(self, name: str, value: object) -> PlanInvalidError:
        return PlanInvalidError(self.at(name), f"is of type {type(value).__name__}", self._section.key(name).remedy)

    def _value(self, name: str, *forms: Form) -> object:
        key = self._section.key(name)
        assert not forms or key.form in forms
        value = self._values.get(name, key.default)
        if value is None:
            raise PlanInvalidError(self.at(name), "is missing", "write it; the samples in policies/ show how")
        return value


def quantity_in(value: object, kind: Kind) -> int:
    """A quantity in base units: a text with its unit or, of what has no unit but itself, a number. ValueError."""
    if kind in {Kind.OCTETS, Kind.SECONDS} or (isinstance(value, str) and not value[-1:].isdigit()):
        if not isinstance(value, str):
            raise ValueError(f"is of type {type(value).__name__}, without a unit")
        return quantity_of(value, kind)
    quantity = exact(value) * (UNIT_PARTS if kind is Kind.UNITS else 1)
    if quantity.denominator != 1 or not 0 <= quantity <= QUANTITY_MAX:
        raise ValueError(f"{value} is not a number of {kind} from 0 on")
    return int(quantity)


def _seconds_of(time: str, *, low: int, high: int) -> int:
    match = _DURATION.fullmatch(time)
    if match is None:
        raise ValueError(f"{time[:40]!r} is not a time in s, m, h or d")
    seconds = int(match[1]) * _SECONDS_BY_UNIT[match[2]]
    if not low <= seconds <= high:
        raise ValueError(f"{time!r} is not from {low} to {high} seconds")
    return seconds


_SAMPLES = {
    Kind.OCTETS: 'a volume such as "50 GB" or "50 GiB"',
    Kind.SECONDS: 'a time such as "90 s" or "10 min"',
    Kind.EVENTS: 'a count such as 10 or "10 event"',
    Kind.UNITS: 'a quantity such as "2.5" or "2.5 unit"',
}
