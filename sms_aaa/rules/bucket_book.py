"""The buckets of an account in an evaluation: granted, ended, rolled over, reset; what one cycle leaves to the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import FACTOR_PARTS, BucketKind, Grant
from sms_aaa.rules.closing import granted_amount, roll_over
from sms_aaa.rules.covering import Bucket
from sms_aaa.rules.instants import SECOND_US, instant_of, instant_us
from sms_aaa.rules.usage_lines import ITSELF

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sms_aaa.rules.buckets import BucketTerms
    from sms_aaa.rules.covering import Session
    from sms_aaa.rules.cycle_setting import BucketKey, Contract, Setting
    from sms_aaa.rules.usage_lines import Given

_LINE, _PLAN, _ROLLED = "line", "plan", "rolled"
_PLAN_IDS, _STEPS, _LINE_IDS = 10**15, 10**6, 10**18
"""Ids decide between buckets that are equal in all else: rolled over, the account's, the plan's, of lines."""


@dataclass(slots=True)
class Held:
    """A bucket in an evaluation. `granted`: before `rolled` of it was taken out to be rolled over.

    `by_session`: what sessions took of it; kept only where there are reservations.
    """

    key: BucketKey
    bucket: Bucket
    granted: int
    rolled: int = 0
    is_over: bool = False
    by_session: dict[Session, int] = field(default_factory=dict)

    def copy(self) -> Held:
        bucket = self.bucket
        same = replace(bucket, reserved=dict(bucket.reserved), covered=dict(bucket.covered), taken=dict(bucket.taken))
        return Held(self.key, same, self.granted, self.rolled, self.is_over, dict(self.by_session))

    def take(self, session: Session, taken: Fraction | int) -> None:
        """Notes what a session took of it: whole base units, or begun picounits."""
        self.by_session[session] = self.by_session.get(session, 0) + int(-(-taken // 1))

    @property
    def is_plain(self) -> bool:
        """Whether it is used to the base unit, by anybody: while some of it is left, nobody has missed any."""
        terms = self.bucket.terms
        is_whole = terms.increment == 1 and terms.factor_parts == FACTOR_PARTS and not terms.connect_fee
        return is_whole and terms.member_maximum is None and self.left > 0

    @property
    def left(self) -> Fraction:
        """What nobody used, nobody holds, and was not rolled over."""
        return Fraction(self.granted - self.bucket.used - self.bucket.held - self.rolled)


@dataclass(slots=True)
class Book:
    """`overruns`: by the bucket's name, usage that is to be taken from the next grant.

    `session_totals` are those of Charging, which go on over cycles.
    """

    buckets: list[Held] = field(default_factory=list)
    session_totals: dict[tuple[object, str, Session], int] = field(default_factory=dict)
    overruns: dict[str, int] = field(default_factory=dict)
    zone: str = "UTC"
    anchor_day: int = 1
    rolled: Mapping[BucketKey, int] = field(default_factory=dict)
    holds: Mapping[BucketKey, Mapping[Session, int]] = field(default_factory=dict)

    def copy(self) -> Book:
        return replace(
            self,
            buckets=[held.copy() for held in self.buckets],
            session_totals=dict(self.session_totals),
            overruns=dict(self.overruns),
        )

    def begin(self, setting: Setting) -> None:
        """A cycle: with the buckets that lines grant in it."""
        self.rolled, self.holds = setting.rolled, setting.holds
        for given in setting.given:
            owner = None if given.member is None else setting.member_id(given.member)
            bucket_id = _LINE_IDS + given.line if given.line > 0 else 1 - given.line
            self._add((_LINE, given.line, 0, 0), bucket_id, given, owner)

    def edges(self) -> Iterator[int]:
        for held in self.buckets:
            yield held.bucket.grant.from_us
            if held.bucket.grant.until_us is not None:
                yield held.bucket.grant.until_us

    def ends(self) -> set[int]:
        """Of buckets that leave something to others."""
        return {
            held.bucket.grant.until_us
            for held in self.buckets
            if held.bucket.grant.until_us is not None and _leaves_something(held.bucket.terms)
        }

    def usable_from(self, begin_us: int) -> list[Bucket]:
        """What may still be used at this instant or later."""
        return [
            held.bucket
            for held in self.buckets
            if not held.is_over and (held.bucket.grant.until_us is None or held.bucket.grant.until_us > begin_us)
        ]

    def end_buckets(self, at_us: int) -> None:
        """Those that have ended by this instant; what they leave to others begins."""
        for held in list(self.buckets):
            until_us = held.bucket.grant.until_us
            if not held.is_over and until_us is not None and until_us <= at_us:
                self.end(held, until_us)

    def end(self, held: Held, at_us: int) -> None:
        held.is_over = True
        bucket = held.bucket
        if bucket.terms.keeps_overage and bucket.overrun:
            self.overruns[bucket.terms.name] = self.overruns.get(bucket.terms.name, 0) + bucket.overrun
        fixed = self.rolled.get(held.key)
        left = Fraction(fixed) if fixed is not None else held.left
        rolled = roll_over(bucket.terms, left, at=instant_of(at_us), zone=self.zone, anchor_day=self.anchor_day)
        if rolled is None:
            return
        if fixed is None:
            held.rolled = rolled.granted
        grant = Grant(-bucket.grant.bucket_id, rolled.terms, rolled.granted, at_us, instant_us(rolled.until), at_us)
        self._hold(Held((_ROLLED, bucket.grant.bucket_id, at_us, 0), Bucket(grant), rolled.granted), bucket.owner)

    def add_plan(self, setting: Setting, contract: Contract, place: tuple[int, int], at_us: int, granted: int) -> None:
        """Grants a bucket of the contract's plan; `place`: (step of the cycle, number in the tariff)."""
        step, number = place
        terms = contract.tariff.buckets[number]
        until_us = _plan_until(setting, contract, terms, at_us)
        bucket_id = _PLAN_IDS + (setting.number * _STEPS + step) * 100 + number
        grant = Grant(bucket_id, terms, granted, at_us, until_us, at_us)
        overrun = min(self.overruns.get(terms.name, 0), granted)
        if overrun:
            self.overruns[terms.name] -= overrun
        owner = None if terms.is_shared else setting.member_id(ITSELF)
        bucket = Bucket(grant, used=Fraction(overrun))
        self._hold(Held((_PLAN, contract.number, number, at_us), bucket, granted), owner)

    def _add(self, key: BucketKey, bucket_id: int, given: Given, owner: int | None) -> None:
        grant = Grant(bucket_id, given.terms, given.granted, given.at_us, given.until_us, given.at_us)
        self._hold(Held(key, Bucket(grant, used=given.used), given.granted), owner)

    def _hold(self, held: Held, owner: int | None) -> None:
        """Puts it into the book, with what is known of its later life."""
        bucket = held.bucket
        bucket.owner = owner
        held.rolled = self.rolled.get(held.key, 0)
        if held.rolled:
            # What rolled over stays: a subscription that ended in the closed cycle after all makes it no smaller.
            held.granted = max(held.granted, held.rolled)
            bucket.grant = replace(bucket.grant, granted=held.granted - held.rolled)
        for session, amount in self.holds.get(held.key, {}).items():
            # A bucket that turns out smaller, since its subscription ended early, cannot hold all that it did.
            bucket.reserved[session] = max(min(amount, int(held.left)), 0)
        self.buckets.append(held)


def plan_ends(setting: Setting, begin_us: int) -> Iterator[int]:
    """When buckets of plans would end that are granted at this instant, as far as that is for a time of their own."""
    for contract in setting.contracts:
        for terms in contract.tariff.buckets:
            if terms.valid_seconds is not None:
                yield begin_us + terms.valid_seconds * SECOND_US


def open_buckets(book: Book, setting: Setting, contract: Contract, begin_us: int, step: int, run: Fraction) -> None:
    """What a contract's plan grants when a cycle, or the contract in it, begins. `run`: the part of the cycle."""
    is_beginning = contract.term.start == contract.term.began_at and contract.start_us == begin_us
    for number, terms in enumerate(contract.tariff.buckets):
        if terms.kind is not BucketKind.PROMOTION or is_beginning:
            book.add_plan(setting, contract, (step, number), begin_us, granted_amount(terms, run))


def reset_buckets(book: Book, setting: Setting, at_us: int, step: int) -> None:
    """Ends what a reset at this instant ends, and grants the plan's allowances anew, in full."""
    for reset in setting.resets:
        if reset.at_us != at_us:
            continue
        for held in list(book.buckets):
            bucket = held.bucket
            is_named = reset.bucket in {None, bucket.terms.name}
            if not is_named or held.is_over or not bucket.is_usable(at_us, at_us) or not _is_reset(held):
                continue
            bucket.grant = replace(bucket.grant, until_us=at_us)
            book.end(held, at_us)
            if held.key[0] == _PLAN:
                contract = next(each for each in setting.contracts if each.number == held.key[1])
                book.add_plan(setting, contract, (step, held.key[2]), at_us, bucket.terms.amount)


def _is_reset(held: Held) -> bool:
    if held.key[0] == _PLAN:
        return held.bucket.terms.kind is BucketKind.ALLOWANCE
    return held.bucket.terms.rollover is not None


def _leaves_something(terms: BucketTerms) -> bool:
    return terms.rollover is not None or terms.keeps_overage


def _plan_until(setting: Setting, contract: Contract, terms: BucketTerms, at_us: int) -> int | None:
    if terms.valid_seconds is not None:
        return at_us + terms.valid_seconds * SECOND_US
    ends = [] if terms.kind is BucketKind.PROMOTION else [setting.end_us]
    return min([*ends, *([contract.end_us] if contract.end_us is not None else [])], default=None)
