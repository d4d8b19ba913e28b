"""What an evaluation of one cycle is made of: the subscriptions, the usage, the buckets, and how slices are charged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.rating_keys import rating_key
from sms_aaa.rules.tariff import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sms_aaa.rules.charging import Charged, Charging, Fact, Slice
    from sms_aaa.rules.covering import Session
    from sms_aaa.rules.cycle import Cycle
    from sms_aaa.rules.rating_keys import Traits
    from sms_aaa.rules.recurring import Term
    from sms_aaa.rules.tariff import Tariff, UsageComponent
    from sms_aaa.rules.usage_lines import Given, Reset

BucketKey = tuple[str, int, int, int]
"""What a bucket is known by in every evaluation: where it comes from, and numbers that tell it apart there."""


class Placed(NamedTuple):
    """A slice, and whose it is: the components of its tariff, and the scope of their totals."""

    piece: Slice
    parts: tuple[UsageComponent, ...]
    subscription: int
    cycle: int


class Kernel(Protocol):
    """Moves the state by slices, in their order; what it did with each slice and component, in the same order."""

    def __call__(self, charging: Charging, placed: Sequence[Placed], /) -> Iterable[Charged]: ...


def charge_each(charging: Charging, placed: Sequence[Placed]) -> Iterator[Charged]:
    """The reference kernel: slice by slice."""
    for piece, parts, subscription, cycle in placed:
        yield from charging.charge(piece, parts, subscription, cycle)


@dataclass(frozen=True, slots=True)
class Contract:
    """A subscription: `number` counts them in time, from 1. Usage in [since_us, until_us) belongs to it."""

    number: int
    term: Term
    tariff: Tariff
    since_us: int
    until_us: int

    @property
    def start_us(self) -> int:
        return instant_us(self.term.start)

    @property
    def end_us(self) -> int | None:
        return None if self.term.end is None else instant_us(self.term.end)

    def key_of(self, key: str | None, traits: Traits | None) -> str:
        """The rating key that its tariff gives usage; one that it does not have is the default."""
        if key is not None:
            return key if any(rule.name == key for rule in self.tariff.keys) else DEFAULT_KEY
        return DEFAULT_KEY if traits is None else rating_key(self.tariff.keys, traits)


class Known(NamedTuple):
    """A usage fact with what is known beside it; its `fact.seq` is the number of its line.

    `order`: its place among the facts of which a slice ends at the same instant.
    """

    fact: Fact
    key: str | None
    traits: Traits | None
    order: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """All that a run of the cycle `number` is made of.

    `given` are those that begin in it. `rolled`: what was rolled over out of buckets when their cycle was closed; it
    stays so. `holds`: what sessions hold of buckets. `priors`: quantities that the totals of a first cycle begin with.
    """

    number: int
    cycle: Cycle
    contracts: tuple[Contract, ...]
    known: Sequence[Known]
    given: Sequence[Given]
    resets: Sequence[Reset]
    rolled: Mapping[BucketKey, int]
    holds: Mapping[BucketKey, Mapping[Session, int]]
    priors: Mapping[str, int]
    member_id: Callable[[str], int]
    kernel: Kernel
    keeps_charged: bool
    has_reservations: bool

    @property
    def start_us(self) -> int:
        return instant_us(self.cycle.start)

    @property
    def end_us(self) -> int:
        return instant_us(self.cycle.end)

    def contract_at(self, instant_us: int) -> Contract:
        """Whose usage of this instant is."""
        return next(each for each in self.contracts if each.since_us <= instant_us < each.until_us)
