"""What a plan costs: components by time (recurring), once, and by usage, each with its laws.

A usage component prices what one measure counts, in the slots, bands and rating keys that it names. Its price is a
function P of the quantity so far, in a cycle of the account or in a session, made of tiers: (previous, up to]. So there
is one form and one price function (rules/pricing.py), and an included volume is a first tier at price 0. The values
check their own laws when they are made, with ValueError; the reader of plan files (rules/plan.py) adds the place and
the remedy.

The law of coverage: in each slot, band and key, each direction of traffic belongs to exactly one usage component. Twice
would charge an octet twice, not at all would leave it unrated; what is free has a component at price 0, never a skipped
record. Seconds, events and abstract units may be counted by any number of components, or by none.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING, Protocol, TypeVar

from sms_aaa.rules.buckets import BucketTerms  # noqa: TC001 - msgspec reads the annotations of what it converts
from sms_aaa.rules.measure import Measure, Unit
from sms_aaa.rules.money import PICOUNITS, exponent
from sms_aaa.rules.slots import ANY_BAND, ANYTIME, Band, Holiday, Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TIERS_MAX = 32
PLACES_MAX = 1_000  # combinations of rating keys, slots and bands
COMPONENTS_MAX = 32  # of each kind, on one tariff
TOTAL_NAME = "total"  # the sum of a tariff's components; no component may be called so
DEFAULT_KEY = "default"
"""The rating key of usage that no key of the tariff matches."""

DISCOUNT_PARTS = 10**9
"""A discount is an int of billionths of the price: 100_000_000 is 10 %."""

_Group = TypeVar("_Group")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class Model(StrEnum):
    """How tiers make a price of a quantity x. In each, 0 lies in the first tier: P(0) is due when a cycle opens."""

    GRADUATED = "graduated"  # each tier's quantity at its own price; a tier's flat fee from its first unit on
    VOLUME = "volume"  # all of x at the price of the tier that x lies in, and that tier's flat fee
    PACKAGE = "package"  # whole packages of a rate unit, begun ones too, beyond the free quantity
    STAIRSTEP = "stairstep"  # the flat fee of the tier that x lies in


class Scope(StrEnum):
    """Over what a component's quantity runs up, and begins anew."""

    CYCLE = "cycle"
    SESSION = "session"


class Rounding(StrEnum):
    """Of an amount to a scale; a credit is rounded as the charge of its magnitude is."""

    HALF_AWAY = "half-away"
    UP = "up"  # away from zero
    DOWN = "down"  # towards zero


class SessionLimit(StrEnum):
    """What happens to a session that has cost as much as one may."""

    FREE = "free"
    DISCONNECT = "disconnect"


class Switch(StrEnum):
    """How a delta that crosses an edge is shared over the two sides."""

    LINEAR = "linear"  # by time, cumulatively, rounded half up
    START = "start"  # all of it where it began
    END = "end"  # all of it where it ended


class Carry(StrEnum):
    """Where tiers begin after a change of plan in mid-cycle."""

    ANEW = "anew"
    ON = "on"  # at the quantity of the component of the same name and measure on the old plan


class Period(StrEnum):
    """How often a recurring component falls due.

    By the account, months are its cycles, and the others begin with the cycle that the subscription began in.
    """

    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Due(StrEnum):
    ADVANCE = "advance"
    ARREARS = "arrears"


class Proration(StrEnum):
    """By what a period that is not whole is charged; the whole period is the denominator."""

    NONE = "none"  # any part of it costs all of it
    DAY = "day"  # days by the clock on the account's wall, begun ones too
    SECOND = "second"


class Anchor(StrEnum):
    """Where periods begin."""

    ACCOUNT = "account"  # the account's anchor day
    SUBSCRIPTION = "subscription"  # where the subscription began, or its trial ended; by days, on that day


@dataclass(frozen=True, slots=True)
class Tier:
    """What lies beyond the tier before, up to and including `up_to` (None: all the rest), and its price.

    `price_picounits`, in 10^-12 of the currency's unit, is for `rate_unit` base units (None: the component's). The
    tier's quantity is rounded up to whole increments of `increment` base units. `flat_picounits`: once.
    """

    up_to: int | None
    price_picounits: int
    flat_picounits: int = 0
    rate_unit: int | None = None
    increment: int = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """What is done to a component's price of a cycle, in this order: discount, then cap; minimum when the cycle closes.

    `rounding_scale`: decimals of the component's own amount; None: those of the currency.
    """

    discount_billionths: int = 0
    maximum_picounits: int | None = None
    minimum_picounits: int = 0
    is_minimum_prorated: bool = True
    rounding_scale: int | None = None
    rounding: Rounding = Rounding.HALF_AWAY

    def __post_init__(self) -> None:
        if not 0 <= self.discount_billionths <= DISCOUNT_PARTS:
            raise ValueError("a discount is 0 to 100 percent")
        if self.minimum_picounits < 0 or (self.maximum_picounits or 0) < 0:
            raise ValueError("a minimum and a maximum are not negative")
        if self.maximum_picounits is not None and self.minimum_picounits > self.maximum_picounits:
            raise ValueError("the minimum is above the maximum")


@dataclass(frozen=True, slots=True)
class UsageComponent:
    """A price by usage. `rate_unit` is a Unit's size; the last tier is open, the others ascend.

    `free_quantity` is for packages. Before the tiers see it, a quantity x > 0 becomes: 0 if it is at most
    `grace_quantity`; else at least `minimum_quantity`; then the initial increment and whole following increments.
    `connect_fee_picounits` is due once x > 0 costs anything at all (per session or per cycle, as the scope says).
    `session_maximum_picounits` bounds P of a session, with scope session only. `keys`, `slots` and `bands` are what it
    is for; empty: every one.
    """

    name: str
    measure: Measure
    rate_unit: int
    tiers: tuple[Tier, ...]
    model: Model = Model.GRADUATED
    scope: Scope = Scope.CYCLE
    free_quantity: int = 0
    initial_increment: int = 1
    following_increment: int = 1
    minimum_quantity: int = 0
    grace_quantity: int = 0
    connect_fee_picounits: int = 0
    session_maximum_picounits: int | None = None
    session_limit: SessionLimit = SessionLimit.FREE
    keys: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    shape: Shape = Shape()

    def __post_init__(self) -> None:
        named(self.name)
        Unit.by_size(self.rate_unit, self.measure.kind)
        check_tiers(self.tiers)
        _check_model(self)

    @property
    def denominator(self) -> int:
        """Exact prices of this component are whole multiples of 1 / denominator of the currency's unit."""
        unit = self.rate_unit
        for tier in self.tiers:
            if tier.rate_unit is not None and tier.rate_unit != unit:
                unit = math.lcm(unit, tier.rate_unit)
        return unit * PICOUNITS

    @property
    def unit(self) -> Unit:
        return Unit.by_size(self.rate_unit, self.measure.kind)

    def is_for(self, key: str, slot: str, band: str) -> bool:
        """Whether usage of this rating key in this slot and band belongs to it."""
        return (
            (not self.keys or key in self.keys)
            and (not self.slots or slot in self.slots)
            and (not self.bands or band in self.bands)
        )


@dataclass(frozen=True, slots=True)
class RecurringComponent:
    """A fee >= 0 that falls due once a period, times `quantity`. The first `trial_days` of a subscription are free."""

    name: str
    amount_minor: int
    period: Period
    due: Due = Due.ADVANCE
    proration: Proration = Proration.NONE
    anchor: Anchor = Anchor.ACCOUNT
    quantity: int = 1
    trial_days: int = 0

    def __post_init__(self) -> None:
        named(self.name)
        if self.amount_minor < 0:
            raise ValueError("a fee is negative")
        if self.quantity < 0 or self.trial_days < 0:
            raise ValueError("a quantity and a trial are not negative")


@dataclass(frozen=True, slots=True)
class OneTimeComponent:
    """A fee that is due once, when the subscription begins; not again when a plan with the same fee is changed to."""

    name: str
    amount_minor: int
    quantity: int = 1

    def __post_init__(self) -> None:
        named(self.name)
        if self.amount_minor < 0 or self.quantity < 0:
            raise ValueError("a fee is negative")


@dataclass(frozen=True, slots=True)
class Bound:
    """A minimum and a maximum over several components of a cycle; its amount is the difference: above or below zero."""

    name: str
    components: tuple[str, ...]
    maximum_picounits: int | None = None
    minimum_picounits: int = 0
    is_minimum_prorated: bool = True

    def __post_init__(self) -> None:
        named(self.name)
        if self.maximum_picounits is not None and self.minimum_picounits > self.maximum_picounits:
            raise ValueError("the minimum is above the maximum")


@dataclass(frozen=True, slots=True)
class KeyRule:
    """A rating key, and what usage is of it: each list that is not empty must have what the session has.

    Rules are tried in their order; usage that none matches is of the key `default`.
    """

    name: str
    service_classes: tuple[str, ...] = ()
    nas_zones: tuple[str, ...] = ()
    called_stations: tuple[str, ...] = ()
    realms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named(self.name)
        if self.name == DEFAULT_KEY:
            raise ValueError(f"{DEFAULT_KEY!r} is the key of all other usage, and needs no description")


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a plan costs. Names are unique among all components: they name revenue accounts and invoice lines."""

    currency: str
    recurring: tuple[RecurringComponent, ...]
    usage: tuple[UsageComponent, ...]
    one_time: tuple[OneTimeComponent, ...] = ()
    bounds: tuple[Bound, ...] = ()
    buckets: tuple[BucketTerms, ...] = ()
    slots: tuple[Slot, ...] = ()
    holidays: tuple[Holiday, ...] = ()
    bands: tuple[Band, ...] = ()
    keys: tuple[KeyRule, ...] = ()
    switch: Switch = Switch.LINEAR
    carry: Carry = Carry.ANEW

    def __post_init__(self) -> None:
        exponent(self.currency)
        _check_names(self)
        if len(places(self)) > PLACES_MAX:
            raise ValueError(f"there are more than {PLACES_MAX} combinations of rating keys, slots and bands")
        for terms in self.buckets:
            _check_cover(terms, self.usage)
        for direction in sorted(Measure.TOTAL.directions):
            for place in places(self):
                parts = [part for part in self.usage if direction in part.measure.directions]
                covering = [part.name for part in parts if part.is_for(*place)]
                if len(covering) != 1:
                    raise ValueError(
                        f"{direction} {_where(self, place)}is counted by {' and '.join(covering) or 'no component'},"
                        " not by exactly one"
                    )

    def component(self, name: str) -> UsageComponent:
        """The usage component of a name; StopIteration never: names come from the tariff itself."""
        return next(part for part in self.usage if part.name == name)


def places(tariff: Tariff) -> list[tuple[str, str, str]]:
    """Every (key, slot, band) that usage may lie in, the defaults first."""
    return list(
        product(
            (DEFAULT_KEY, *dict.fromkeys(rule.name for rule in tariff.keys)),
            (ANYTIME, *dict.fromkeys(slot.name for slot in tariff.slots)),
            (ANY_BAND, *dict.fromkeys(band.name for band in tariff.bands)),
        )
    )


UNMETERED = "unmetered"
"""In the names of components that count what a tariff leaves uncounted."""


def complete_usage(
    usage: tuple[UsageComponent, ...], grid: Sequence[tuple[str, str, str]] = ((DEFAULT_KEY, ANYTIME, ANY_BAND),)
) -> tuple[UsageComponent, ...]:
    """`usage`, and components at price 0 for whatever traffic it leaves uncounted anywhere on the grid of `places`."""
    missing: dict[Measure, list[tuple[str, str, str]]] = {}
    for place in grid:
        covering = (part.measure.directions for part in usage if part.is_for(*place))
        left = Measure.TOTAL.directions - frozenset[Measure]().union(*covering)
        if left:
            missing.setdefault(Measure.TOTAL if len(left) > 1 else next(iter(left)), []).append(place)
    added = []
    for measure, gaps in missing.items():
        name = UNMETERED if measure is Measure.TOTAL else f"{measure}-{UNMETERED}"
        boxes = _boxes(gaps, grid)
        names = [name] if len(boxes) == 1 else [f"{name}-{number}" for number, _ in enumerate(boxes, 1)]
        added += [_unmetered(each, measure, *box) for each, box in zip(names, boxes, strict=True)]
    return (*usage, *added)


def _boxes(
    gaps: Sequence[tuple[str, str, str]], grid: Sequence[tuple[str, str, str]]
) -> list[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    """(keys, slots, bands) that tile the gaps, few of them: bands go together, then slots of the same, then keys."""
    bands_by_row = _grouped((gap[:2], gap[2]) for gap in gaps)
    slots_by_plane = _grouped(((key, bands), slot) for (key, slot), bands in bands_by_row.items())
    keys_by_box = _grouped(((slots, bands), key) for (key, bands), slots in slots_by_plane.items())
    whole = [tuple(dict.fromkeys(place[axis] for place in grid)) for axis in range(3)]
    boxes = [(keys, slots, bands) for (slots, bands), keys in keys_by_box.items()]
    return [
        (_unless(keys, whole[0]), _unless(slots, whole[1]), _unless(bands, whole[2])) for keys, slots, bands in boxes
    ]


def _grouped(pairs: Iterable[tuple[_Group, str]]) -> dict[_Group, tuple[str, ...]]:
    found: dict[_Group, list[str]] = {}
    for group, name in pairs:
        found.setdefault(group, []).append(name)
    return {group: tuple(names) for group, names in found.items()}


def _unless(names: tuple[str, ...], whole: tuple[str, ...]) -> tuple[str, ...]:
    """All of an axis is said by naming none of it."""
    return () if names == whole else names


def named(name: str) -> str:
    """`name`, if it may name a plan or a component; ValueError if not."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is not a name of lower-case letters, digits and hyphens")
    return name


def _unmetered(
    name: str, measure: Measure, keys: tuple[str, ...], slots: tuple[str, ...], bands: tuple[str, ...]
) -> UsageComponent:
    return UsageComponent(name, measure, Unit.OCTET.size, (Tier(None, 0),), keys=keys, slots=slots, bands=bands)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def _where(tariff: Tariff, place: tuple[str, str, str]) -> str:
    return f"with key {place[0]} in slot {place[1]} and band {place[2]} " if len(places(tariff)) > 1 else ""


def _check_names(tariff: Tariff) -> None:
    names = [
        name for parts in (tariff.recurring, tariff.one_time, tariff.usage, tariff.bounds) for name in _names(parts)
    ]
    for name in names:
        if name == TOTAL_NAME:
            raise ValueError(f"a component is called {name!r}, which stands for the sum of all")
        if names.count(name) > 1:
            raise ValueError(f"two components are called {name!r}")
    buckets = [terms.name for terms in tariff.buckets]
    for name in buckets:
        if buckets.count(name) > 1:
            raise ValueError(f"two buckets are called {name!r}")
    for owner, referred, known in _references(tariff):
        for name in referred:
            if name not in known:
                raise ValueError(f"{owner} names {name!r}, which the tariff does not have")


def _names(parts: Iterable[_Named]) -> list[str]:
    return [part.name for part in parts]


def _references(tariff: Tariff) -> Iterator[tuple[str, tuple[str, ...], set[str]]]:
    keys = {DEFAULT_KEY, *(rule.name for rule in tariff.keys)}
    slots = {ANYTIME, *(slot.name for slot in tariff.slots)}
    bands = {ANY_BAND, *(band.name for band in tariff.bands)}
    usage = {part.name for part in tariff.usage}
    for part in tariff.usage:
        yield f"component {part.name}", part.keys, keys
        yield f"component {part.name}", part.slots, slots
        yield f"component {part.name}", part.bands, bands
    for terms in tariff.buckets:
        yield f"bucket {terms.name}", terms.keys, keys
        yield f"bucket {terms.name}", terms.slots, slots
        yield f"bucket {terms.name}", terms.components, usage
    for bound in tariff.bounds:
        yield f"bound {bound.name}", bound.components, {*_names(tariff.recurring), *_names(tariff.usage)}


def _check_cover(terms: BucketTerms, usage: tuple[UsageComponent, ...]) -> None:
    named_parts = [part for part in usage if part.name in terms.components]
    for part in named_parts:
        if not terms.can_cover(part.measure):
            raise ValueError(f"bucket {terms.name} counts {terms.measure}, and component {part.name} {part.measure}")
    if not any(terms.can_cover(part.measure) for part in usage):
        raise ValueError(f"bucket {terms.name} counts {terms.measure}, which no component does")


def check_tiers(tiers: tuple[Tier, ...]) -> None:
    """ValueError unless they ascend from above 0, the last one is open, and nothing in them is negative."""
    if not tiers or tiers[-1].up_to is not None:
        raise ValueError("the last tier is not open, so usage beyond it would have no price")
    position = 0
    for tier in tiers[:-1]:
        if tier.up_to is None or tier.up_to <= position:
            raise ValueError(f"tiers do not ascend: after {position} comes {tier.up_to}")
        position = tier.up_to
    if any(tier.price_picounits < 0 or tier.flat_picounits < 0 for tier in tiers):
        raise ValueError("a tier's price is negative")
    if any(tier.increment < 1 or (tier.rate_unit or 1) < 1 for tier in tiers):
        raise ValueError("a tier's rate unit and increment are above 0")


def _check_model(part: UsageComponent) -> None:
    if part.model is Model.PACKAGE:
        if len(part.tiers) > 1 or part.tiers[0].flat_picounits:
            raise ValueError("a package has one price and no tiers")
    elif part.free_quantity:
        raise ValueError("a free quantity is for packages; write a first tier at price 0")
    if part.model is Model.STAIRSTEP and any(tier.price_picounits for tier in part.tiers):
        raise ValueError("a stairstep has flat fees only")
    if part.session_maximum_picounits is not None and part.scope is not Scope.SESSION:
        raise ValueError("a maximum per session is for prices with scope session")
    if min(part.initial_increment, part.following_increment) < 1:
        raise ValueError("increments are above 0")
    sizes = (part.free_quantity, part.minimum_quantity, part.grace_quantity, part.connect_fee_picounits)
    if min(sizes) < 0:
        raise ValueError("free, minimum and grace quantities and a connect fee are not negative")
