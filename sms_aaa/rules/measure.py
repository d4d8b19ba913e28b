"""What usage is counted in: measures, their units, and amounts of them as whole numbers.

Every quantity is an int in the base unit of its kind: octets, seconds, events, or millionths of an abstract unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from fractions import Fraction

QUANTITY_MAX = 2**63 - 1  # PostgreSQL's bigint
UNIT_PARTS = 10**6
"""Parts of one abstract unit: quantities of it have six decimals."""

_QUANTITY = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,16})?) ?([A-Za-z]{1,8})")


class Kind(StrEnum):
    """What a quantity is made of; quantities of different kinds are never added."""

    OCTETS = "octets"
    SECONDS = "seconds"
    EVENTS = "events"
    UNITS = "units"


class Measure(StrEnum):
    """What a component counts; octets as seen from the subscriber."""

    # RFC 2866 sections 5.3 and 5.4: Acct-Input-Octets were received from the user, Acct-Output-Octets sent to the user.
    # Input and output are the NAS's view; on an invoice the first are upload and the second download.
    UPLOAD = "upload"
    DOWNLOAD = "download"
    TOTAL = "total"
    SECONDS = "seconds"
    EVENTS = "events"
    UNITS = "units"

    @property
    def directions(self) -> frozenset[Measure]:
        """The simple measures that it covers: both directions of traffic for the total, else itself."""
        return frozenset((Measure.UPLOAD, Measure.DOWNLOAD)) if self is Measure.TOTAL else frozenset((self,))

    @property
    def kind(self) -> Kind:
        return Kind.OCTETS if self in _TRAFFIC else Kind(self.value)

    def of(self, amounts: Amounts) -> int:
        """Of these amounts, what it counts."""
        if self is Measure.TOTAL:
            return amounts.upload + amounts.download
        return int(getattr(amounts, self.value))


_TRAFFIC = frozenset((Measure.UPLOAD, Measure.DOWNLOAD, Measure.TOTAL))


@dataclass(frozen=True, slots=True)
class Amounts:
    """What was used, each >= 0: octets from and to the subscriber, seconds, events, millionths of abstract units."""

    upload: int = 0
    download: int = 0
    seconds: int = 0
    events: int = 0
    units: int = 0


class Unit(Enum):
    """(label, base units, kind). Decimal and binary units are different units: 1 GiB is 7.4 % more than 1 GB."""

    OCTET = ("octet", 1, Kind.OCTETS)
    KB = ("kB", 10**3, Kind.OCTETS)
    MB = ("MB", 10**6, Kind.OCTETS)
    GB = ("GB", 10**9, Kind.OCTETS)
    TB = ("TB", 10**12, Kind.OCTETS)
    KIB = ("KiB", 2**10, Kind.OCTETS)
    MIB = ("MiB", 2**20, Kind.OCTETS)
    GIB = ("GiB", 2**30, Kind.OCTETS)
    TIB = ("TiB", 2**40, Kind.OCTETS)
    SECOND = ("s", 1, Kind.SECONDS)
    MINUTE = ("min", 60, Kind.SECONDS)
    HOUR = ("h", 3_600, Kind.SECONDS)
    DAY = ("d", 86_400, Kind.SECONDS)
    EVENT = ("event", 1, Kind.EVENTS)
    UNIT = ("unit", UNIT_PARTS, Kind.UNITS)

    def __init__(self, label: str, size: int, kind: Kind) -> None:
        self.label = label
        self.size = size
        self.kind = kind

    @classmethod
    def by_label(cls, label: str) -> Unit:
        """The unit of a text such as "GB", letter for letter, or "bytes"; ValueError lists the units there are."""
        for unit in cls:
            if unit.label == label:
                return unit
        if label in IN_FULL:
            return IN_FULL[label]
        raise ValueError(f"{label!r} is not one of the units {', '.join(unit.label for unit in cls)}")

    @classmethod
    def by_size(cls, size: int, kind: Kind) -> Unit:
        """The unit of this size; ValueError if there is none."""
        for unit in cls:
            if unit.size == size and unit.kind is kind:
                return unit
        raise ValueError(f"no unit has {size} {kind}")


IN_FULL = {
    "octets": Unit.OCTET, "byte": Unit.OCTET, "bytes": Unit.OCTET, "second": Unit.SECOND, "seconds": Unit.SECOND,
    "minute": Unit.MINUTE, "minutes": Unit.MINUTE, "hour": Unit.HOUR, "hours": Unit.HOUR, "day": Unit.DAY,
    "days": Unit.DAY, "events": Unit.EVENT, "units": Unit.UNIT,
}  # fmt: skip
"""What people and other programs call units too."""


def quantity_of(text: str, kind: Kind = Kind.OCTETS) -> int:
    """A quantity such as "50 GB", "1.5 TiB", "90 min" or "0.5 unit" in base units of `kind`.

    ValueError if it is not one, is of another kind, or is not a whole number of base units.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not {_SAMPLES[kind]}")
    unit = Unit.by_label(match[2])
    if unit.kind is not kind:
        raise ValueError(f"{text!r} counts {unit.kind}, where {kind} are counted")
    size = Fraction(match[1]) * unit.size
    if size.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of {_BASE[kind]}")
    if size > QUANTITY_MAX:
        raise ValueError(f"{text!r} is above {QUANTITY_MAX} {_BASE[kind]}")
    return int(size)


def quantity_text(quantity: int, kind: Kind) -> str:
    """A quantity >= 0 as `quantity_of` reads it, in the largest decimal unit that it is a whole number of: "50 GB"."""
    if kind is Kind.UNITS:
        whole, parts = divmod(quantity, UNIT_PARTS)
        return f"{whole}.{parts:06d}".rstrip("0").rstrip(".") + f" {Unit.UNIT.label}"
    units = [unit for unit in _SHOWN if unit.kind is kind]
    unit = next(unit for unit in units if quantity % unit.size == 0 and (quantity or unit.size == 1))
    return f"{quantity // unit.size} {unit.label}"


_SHOWN = (Unit.TB, Unit.GB, Unit.MB, Unit.KB, Unit.OCTET, Unit.DAY, Unit.HOUR, Unit.MINUTE, Unit.SECOND, Unit.EVENT)
_SAMPLES = {
    Kind.OCTETS: 'a volume such as "50 GB"',
    Kind.SECONDS: 'a time such as "90 min"',
    Kind.EVENTS: 'a count such as "10 event"',
    Kind.UNITS: 'a quantity such as "0.5 unit"',
}
_BASE = {
    Kind.OCTETS: "octets",
    Kind.SECONDS: "seconds",
    Kind.EVENTS: "events",
    Kind.UNITS: "millionths of a unit",
}
