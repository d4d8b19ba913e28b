"""Buckets: amounts that are used before usage costs anything: allowances, top-ups, promotions, what was rolled over.

The terms are what a tariff or a top-up says; a Bucket is one grant of them, with what was used and what is held. Of the
buckets that may be used, the one of the lower priority number goes first, then the one that expires first, then the
oldest. What a bucket covers, it covers before the price function sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sms_aaa.rules.measure import Kind, Measure

FACTOR_PARTS = 10**6
"""A factor is an int of millionths: 2_000_000 takes two octets of the bucket for each octet of usage."""


class BucketKind(StrEnum):
    ALLOWANCE = "allowance"  # of the plan, each cycle
    TOP_UP = "top-up"  # bought
    PROMOTION = "promotion"  # given
    ROLLOVER = "rollover"  # what an earlier one had left


class Overage(StrEnum):
    """What becomes of usage of a blocking bucket that is used up."""

    CHARGE = "charge"  # the component's price
    BLOCK = "block"  # not allowed: what is used nevertheless is a named overrun, and costs nothing
    ABSORB = "absorb"  # allowed, and costs nothing


@dataclass(frozen=True, slots=True)
class Rollover:
    """What is left at the end becomes a new bucket, if it is `minimum` or more: at most `maximum` (None: all of it).

    It lasts `periods` cycles; what was rolled over is not rolled over again beyond them.
    """

    minimum: int = 0
    maximum: int | None = None
    periods: int = 1


@dataclass(frozen=True, slots=True)
class BucketTerms:
    """What a bucket is. Quantities are base units of `measure`; of a money bucket (`measure` None) picounits.

    A unit bucket covers the usage components whose measure it counts: a total bucket covers upload, download and total;
    any other the components of the same measure. `components`, `keys` and `slots` narrow that down (empty: all).
    `increment`: it is used in steps of so much, rounded up per session. `factor_parts`: so many millionths of it are
    used for one of usage. `connect_fee`: used once a session. `blocks`: once it is used up, buckets behind it are not
    used, and `overage` says what becomes of the usage. `keeps_overage`: usage beyond it is taken from the next grant.
    `member_maximum`: of a shared bucket, what one member may use.
    """

    name: str
    measure: Measure | None
    amount: int
    kind: BucketKind = BucketKind.ALLOWANCE
    priority: int = 100
    components: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    increment: int = 1
    factor_parts: int = FACTOR_PARTS
    connect_fee: int = 0
    blocks: bool = False
    overage: Overage = Overage.CHARGE
    keeps_overage: bool = False
    is_shared: bool = False
    member_maximum: int | None = None
    is_prorated: bool = False
    valid_seconds: int | None = None
    rollover: Rollover | None = None

    def __post_init__(self) -> None:
        if self.amount < 0 or self.increment < 1 or self.factor_parts < 0 or self.connect_fee < 0:
            raise ValueError("a bucket's amount, factor and connect fee are not negative, its increment is above 0")
        if self.overage is not Overage.CHARGE and not self.blocks:
            raise ValueError("only a bucket that blocks says what becomes of usage beyond it")
        if self.keeps_overage and self.overage is not Overage.ABSORB:
            raise ValueError(
                "usage is taken from the next grant only if it costs nothing now: overage absorb, of blocks"
            )

    def can_cover(self, measure: Measure) -> bool:
        """Whether it counts what a component of this measure counts, or is of money, which pays for any."""
        return self.measure in {None, Measure.TOTAL if measure.kind is Kind.OCTETS else measure, measure}


@dataclass(frozen=True, slots=True)
class Grant:
    """A bucket that was granted: usable in [from_us, until_us), microseconds since 2000; None: without end."""

    bucket_id: int
    terms: BucketTerms
    granted: int
    from_us: int
    until_us: int | None
    created_us: int

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Ascending: which of two is used first."""
        never = 2**63 - 1
        return self.terms.priority, never if self.until_us is None else self.until_us, self.created_us, self.bucket_id
