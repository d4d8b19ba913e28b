"""The lines of a usage file as values: what was used, granted, held and paid, and what became of the subscription.

docs/pricing-door.md says what each means; usage_line_reading.py reads them. Instants are microseconds since 2000.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.rules.buckets import BucketTerms
from sms_aaa.rules.measure import Amounts
from sms_aaa.rules.rating_keys import Traits
from sms_aaa.rules.session import Reading
from sms_aaa.rules.tariff import Tariff

if TYPE_CHECKING:
    from collections.abc import Iterable

ITSELF = ""
"""The member that the account itself is."""


class LineInvalidError(ValueError):
    """Why a line is refused: its number, the field, the reason, and what to write instead."""

    def __init__(self, line: int, field: str, reason: str, remedy: str) -> None:
        super().__init__(f"{line}: {field}: {reason}; {remedy}")
        self.line = line
        self.field = field
        self.reason = reason
        self.remedy = remedy


class Used(Struct, frozen=True, gc=False):
    """Usage of [from_us, to_us). `session` None: one of its own; `session_from_us`, `seq` None: not told.

    `key` None: by `traits` if there are some, else the default one.
    """

    line: int
    session: str | None
    member: str
    key: str | None
    from_us: int
    to_us: int
    session_from_us: int | None
    seq: int | None
    amounts: Amounts
    traits: Traits | None = None


class Packet(Struct, frozen=True, gc=False):
    """An accounting record. `reading` None: its NAS rebooted at `at_us`. `nas`: what tells NASes apart."""

    line: int
    at_us: int
    nas: str
    session: str
    reading: Reading | None
    member: str
    key: str | None
    traits: Traits


class Given(Struct, frozen=True, gc=False):
    """A bucket that is granted; `granted` and `used` in base units, of money picounits.

    `line`: of the account file, which counts its own, 0 and below. `member` None: any may use it.
    """

    line: int
    at_us: int
    terms: BucketTerms
    granted: int
    until_us: int | None
    member: str | None
    used: Fraction = Fraction(0)
    valid_us: int | None = None  # for how long, where no instant was told


class Reserve(Struct, frozen=True, gc=False):
    """Asks to hold quantities, or else `amount` of money in picounits."""

    line: int
    at_us: int
    session: str
    member: str
    key: str | None
    amounts: Amounts
    amount: Fraction | None
    until_us: int | None


class Settle(Struct, frozen=True, gc=False):
    """Usage that is taken from what its session holds; `is_final`: the rest is given back."""

    used: Used
    is_final: bool


class Release(Struct, frozen=True, gc=False):
    line: int
    at_us: int
    session: str


class Payment(Struct, frozen=True, gc=False):
    """`amount` in units of the currency."""

    line: int
    at_us: int
    amount: Fraction


class Subscribe(Struct, frozen=True, gc=False):
    line: int
    at_us: int
    tariff: Tariff


class Change(Struct, frozen=True, gc=False):
    line: int
    at_us: int
    tariff: Tariff


class Cancel(Struct, frozen=True, gc=False):
    line: int
    at_us: int


class Rerate(Struct, frozen=True, gc=False):
    """Evaluates anew; with `tariff` it takes the place of `of`."""

    line: int
    at_us: int
    tariff: Tariff | None
    of: Tariff | None


class Reset(Struct, frozen=True, gc=False):
    """Allowances begin anew: all of them, or the one of the name `bucket`."""

    line: int
    at_us: int
    bucket: str | None


class Close(Struct, frozen=True, gc=False):
    """`at_us` None: all cycles that are open."""

    line: int
    at_us: int | None


Dated = Subscribe | Change | Cancel
Line = (
    Used | Packet | Given | Reserve | Settle | Release | Payment | Subscribe | Change | Cancel | Rerate | Reset | Close
)


def told_us(line: Line) -> tuple[int, int, int] | None:
    """(the earliest instant that a line tells, the last one, the last one if an end tells the instant before it)."""
    match line:
        case Used():
            return line.from_us, line.to_us, max(line.from_us, line.to_us - 1)
        case Settle():
            return told_us(line.used)
        case Packet():
            begin = line.at_us - (line.reading.session_seconds or 0) * 1_000_000 if line.reading else line.at_us
            return begin, line.at_us, max(begin, line.at_us - 1)
        case Close() | Cancel():
            return None if line.at_us is None else (line.at_us - 1, line.at_us, line.at_us - 1)
        case _:
            return line.at_us, line.at_us, line.at_us


def session_begins(lines: Iterable[Line]) -> dict[str, int]:
    """When each session that has a name began: the earliest instant that its usage lines tell."""
    begins: dict[str, int] = {}
    for line in lines:
        used = line.used if isinstance(line, Settle) else line
        if isinstance(used, Used) and used.session is not None:
            told = used.from_us if used.session_from_us is None else min(used.from_us, used.session_from_us)
            known = begins.get(used.session)
            if known is None or told < known:
                begins[used.session] = told
    return begins
