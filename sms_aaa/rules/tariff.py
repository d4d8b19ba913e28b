"""What a plan costs: components by time (recurring) and by volume (usage), each with its laws.

A usage component is a list of graduated tiers: octets up to the first bound cost the first price, the octets beyond it
the second, and so on. An included volume is a first tier at price 0, so there is one form and one price function
(rules/rating.py). The values check their own laws when they are made, with ValueError; the reader of plan files
(rules/plan.py) adds the place and the remedy.

The law of coverage: each direction of traffic belongs to exactly one usage component. Twice would charge an octet
twice, not at all would leave it unrated; what is free has a component at price 0, never a skipped record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from fractions import Fraction

from sms_aaa.rules.money import PICOUNITS, exponent

OCTETS_MAX = 2**63 - 1  # PostgreSQL's bigint
TIERS_MAX = 32
COMPONENTS_MAX = 32  # of each kind, on one tariff
TOTAL_NAME = "total"  # the sum of a tariff's components; no component may be called so

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_VOLUME = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,16})?) ?([A-Za-z]{1,8})")


class Measure(StrEnum):
    """Which octets a component counts, seen from the subscriber."""

    # RFC 2866 sections 5.3 and 5.4: Acct-Input-Octets were received from the user, Acct-Output-Octets sent to the user.
    # Input and output are the NAS's view; on an invoice the first are upload and the second download.
    UPLOAD = "upload"
    DOWNLOAD = "download"
    TOTAL = "total"

    @property
    def directions(self) -> frozenset[Measure]:
        """The directions of traffic that it covers."""
        return frozenset((Measure.UPLOAD, Measure.DOWNLOAD)) if self is Measure.TOTAL else frozenset((self,))

    def octets(self, *, upload: int, download: int) -> int:
        """Of these octets, those that it counts."""
        return {Measure.UPLOAD: upload, Measure.DOWNLOAD: download, Measure.TOTAL: upload + download}[self]


class Unit(Enum):
    """(label, octets). Decimal and binary units are different units: 1 GiB is 7.4 % more than 1 GB."""

    OCTET = ("octet", 1)
    KB = ("kB", 10**3)
    MB = ("MB", 10**6)
    GB = ("GB", 10**9)
    TB = ("TB", 10**12)
    KIB = ("KiB", 2**10)
    MIB = ("MiB", 2**20)
    GIB = ("GiB", 2**30)
    TIB = ("TiB", 2**40)

    def __init__(self, label: str, octets: int) -> None:
        self.label = label
        self.octets = octets

    @classmethod
    def by_label(cls, label: str) -> Unit:
        """The unit of a text such as "GB", letter for letter; ValueError lists the units there are."""
        for unit in cls:
            if unit.label == label:
                return unit
        raise ValueError(f"{label!r} is not one of the units {', '.join(unit.label for unit in cls)}")

    @classmethod
    def by_octets(cls, octets: int) -> Unit:
        """The unit of this size; ValueError if there is none."""
        for unit in cls:
            if unit.octets == octets:
                return unit
        raise ValueError(f"no unit has {octets} octets")


class Period(StrEnum):
    """How often a recurring component falls due."""

    MONTH = "month"  # once in each cycle of the account


@dataclass(frozen=True, slots=True)
class Tier:
    """The octets beyond the tier before, up to and including `up_to_octets` (None: all the rest), and their price.

    `price_picounits` is the price of one rate unit of the component, in 10^-12 of the currency's unit.
    """

    up_to_octets: int | None
    price_picounits: int


@dataclass(frozen=True, slots=True)
class UsageComponent:
    """A price by volume. `unit_octets` is the rate unit, one of Unit; the last tier is open, the others ascend."""

    name: str
    measure: Measure
    unit_octets: int
    tiers: tuple[Tier, ...]

    def __post_init__(self) -> None:
        named(self.name)
        Unit.by_octets(self.unit_octets)
        _check_tiers(self.tiers)

    @property
    def denominator(self) -> int:
        """Exact prices of this component are whole multiples of 1 / denominator of the currency's unit."""
        return self.unit_octets * PICOUNITS

    @property
    def unit(self) -> Unit:
        return Unit.by_octets(self.unit_octets)


@dataclass(frozen=True, slots=True)
class RecurringComponent:
    """A fee >= 0 that falls due once a period."""

    name: str
    amount_minor: int
    period: Period

    def __post_init__(self) -> None:
        named(self.name)
        if self.amount_minor < 0:
            raise ValueError("a fee is negative")


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a plan costs. Names are unique among all components: they name revenue accounts and invoice lines."""

    currency: str
    recurring: tuple[RecurringComponent, ...]
    usage: tuple[UsageComponent, ...]

    def __post_init__(self) -> None:
        exponent(self.currency)
        names = [fee.name for fee in self.recurring] + [component.name for component in self.usage]
        for name in names:
            if name == TOTAL_NAME:
                raise ValueError(f"a component is called {name!r}, which stands for the sum of all")
            if names.count(name) > 1:
                raise ValueError(f"two components are called {name!r}")
        for direction in sorted(Measure.TOTAL.directions):
            covering = [component.name for component in self.usage if direction in component.measure.directions]
            if len(covering) != 1:
                raise ValueError(
                    f"{direction} is counted by {' and '.join(covering) or 'no component'}, not by exactly one"
                )


def complete_usage(usage: tuple[UsageComponent, ...]) -> tuple[UsageComponent, ...]:
    """`usage`, and a component at price 0 for whatever it leaves uncounted: total, upload or download."""
    covered = frozenset[Measure]().union(*(component.measure.directions for component in usage))
    missing = Measure.TOTAL.directions - covered
    if missing == Measure.TOTAL.directions:
        return (*usage, _unmetered("unmetered", Measure.TOTAL))
    return (*usage, *(_unmetered(f"{direction}-unmetered", direction) for direction in missing))


def named(name: str) -> str:
    """`name`, if it may name a plan or a component; ValueError if not."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is not a name of lower-case letters, digits and hyphens")
    return name


def octets_of(volume: str) -> int:
    """A volume such as "50 GB" or "1.5 TiB" in octets; ValueError if it is not one, or not whole octets."""
    match = _VOLUME.fullmatch(volume)
    if match is None:
        raise ValueError(f'{volume[:40]!r} is not a volume such as "50 GB"')
    octets = Fraction(match[1]) * Unit.by_label(match[2]).octets
    if octets.denominator != 1:
        raise ValueError(f"{volume!r} is not a whole number of octets")
    if octets > OCTETS_MAX:
        raise ValueError(f"{volume!r} is above {OCTETS_MAX} octets")
    return int(octets)


def _unmetered(name: str, measure: Measure) -> UsageComponent:
    return UsageComponent(name, measure, Unit.OCTET.octets, (Tier(None, 0),))


def _check_tiers(tiers: tuple[Tier, ...]) -> None:
    if not tiers or tiers[-1].up_to_octets is not None:
        raise ValueError("the last tier is not open, so usage beyond it would have no price")
    position = 0
    for tier in tiers[:-1]:
        if tier.up_to_octets is None or tier.up_to_octets <= position:
            raise ValueError(f"tiers do not ascend: after {position} octets comes {tier.up_to_octets}")
        position = tier.up_to_octets
    if any(tier.price_picounits < 0 for tier in tiers):
        raise ValueError("a tier's price is negative")
