"""Reservations in an evaluation: what sessions hold of buckets and of money, so that two never hold the same.

A hold of a bucket is known to every later evaluation from the bucket's beginning on: others see it as used, its session
uses it first. What a session has used of it stays with it; what was given back leaves no trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.charging import Total
from sms_aaa.rules.evaluation_result import Hold, HoldState
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.reserving import Promise, Want, cost_of, funds_of, hold_money, promise, usable_for
from sms_aaa.rules.slots import Calendar, band_segments, slot_segments
from sms_aaa.rules.tariff import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.rules.bucket_book import Book, Held
    from sms_aaa.rules.covering import Bucket
    from sms_aaa.rules.cycle_run import CycleRun
    from sms_aaa.rules.cycle_setting import BucketKey, Contract
    from sms_aaa.rules.tariff import UsageComponent
    from sms_aaa.rules.usage_lines import Reserve


@dataclass(frozen=True, slots=True)
class Asked:
    """A line that reserves, with the number of its member and the beginning of its session."""

    line: Reserve
    member: int
    session_from_us: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where usage would lie that is asked for."""

    contract: Contract
    key: str
    slot: str
    band: str


@dataclass(slots=True)
class Reservations:
    """`by_bucket`: what sessions hold, or used of what they held. `money`: by session, in units of the currency.

    `members`: whose a session is that ever held something.
    """

    holds: list[Hold] = field(default_factory=list)
    by_bucket: dict[BucketKey, dict[object, int]] = field(default_factory=dict)
    money: dict[str, Fraction] = field(default_factory=dict)
    members: dict[object, int] = field(default_factory=dict)

    def reserve(self, asked: Asked, run: CycleRun, available: Fraction | None) -> list[tuple[Held, int]]:
        """Holds what there is of it. `run`: all usage so far; `available`: money, None: any amount.

        What it holds of buckets, which the run's book does not show yet.
        """
        line = asked.line
        place = _place(asked, run)
        self.members.setdefault(line.session, asked.member)
        buckets = [self._spoken_for(held.bucket) for held in run.book.buckets if not held.is_over]
        open_ = {held.bucket.grant.bucket_id: held for held in run.book.buckets if not held.is_over}
        if line.amount is not None:
            measure, quantity = None, line.amount
            promised = _promise_money(asked, buckets, place, line.amount, available)
        else:
            part = _component(line, place)
            measure, quantity = part.measure, Fraction(part.measure.of(line.amounts))
            promised = _promise_usage(asked, run, buckets, place, part, available)
        takes = [(open_[hold.bucket_id], hold.quantity) for hold in promised.holds]
        for held, taken in takes:
            sessions = self.by_bucket.setdefault(held.key, {})
            before = held.by_session.get(line.session, 0) + held.bucket.reserved.get(line.session, 0)
            sessions[line.session] = before + taken
        owed = Fraction(promised.owed_picounits, PICOUNITS)
        if owed:
            self.money[line.session] = self.money.get(line.session, Fraction(0)) + owed
        taken_of = [(hold.bucket_id, hold.quantity) for hold in promised.holds]
        self.holds.append(
            Hold(
                line.line, line.at_us, line.session, measure, quantity, Fraction(promised.granted),
                promised.granted < quantity, taken_of, owed, line.until_us,
            )
        )  # fmt: skip
        return takes

    def _spoken_for(self, bucket: Bucket) -> Bucket:
        """As it is for who asks: what a member's sessions hold is of the member's share."""
        if bucket.terms.member_maximum is None or not bucket.reserved:
            return bucket
        taken = dict(bucket.taken)
        for session, quantity in bucket.reserved.items():
            member = self.members[session]
            taken[member] = taken.get(member, 0) + quantity
        return replace(bucket, taken=taken)

    def give_back(self, session: str, book: Book, state: HoldState) -> list[tuple[Held, int]]:
        """What a session holds and has not used; of buckets, which the book still shows as held."""
        given_back = []
        self.money.pop(session, None)
        for held in book.buckets:
            sessions = self.by_bucket.get(held.key, {})
            unused = held.bucket.reserved.get(session, 0)
            if session in sessions and unused:
                sessions[session] -= unused
                given_back.append((held, -unused))
        for hold in self.holds:
            if hold.session == session and hold.state is HoldState.HELD:
                hold.state = state
        return given_back

    def spend(self, session: str, amount: Fraction) -> None:
        """Money that a session held and has used."""
        self.money[session] = max(self.money[session] - max(amount, Fraction(0)), Fraction(0))

    def expired(self, now_us: int) -> list[str]:
        """The sessions whose holds have ended by themselves."""
        over = [
            hold.session
            for hold in self.holds
            if hold.state is HoldState.HELD and hold.until_us is not None and hold.until_us <= now_us
        ]
        return list(dict.fromkeys(over))


def _place(asked: Asked, run: CycleRun) -> _Place:
    at_us = asked.line.at_us
    contract = run.setting.contract_at(at_us)
    tariff = contract.tariff
    [(_, slot)] = slot_segments(Calendar(contract.term.zone, tariff.slots, tariff.holidays), at_us, at_us)
    [(_, band)] = band_segments(tariff.bands, asked.session_from_us, at_us, at_us)
    return _Place(contract, contract.key_of(asked.line.key, None), slot, band)


def _component(line: Reserve, place: _Place) -> UsageComponent:
    """The first that usage of these quantities would belong to; traffic always has one."""
    fitting = [part for part in place.contract.tariff.usage if part.is_for(place.key, place.slot, place.band)]
    return next((part for part in fitting if part.measure.of(line.amounts)), fitting[0])


def _promise_usage(
    asked: Asked,
    run: CycleRun,
    buckets: Sequence[Bucket],
    place: _Place,
    part: UsageComponent,
    available: Fraction | None,
) -> Promise:
    """As the daemon promises it (reserving.py), on top of what was used."""
    line, contract = asked.line, place.contract.number
    total = run.charging.totals.get((contract, run.setting.number, part.name), Total())
    before = total.quantity
    if part.scope is Scope.SESSION:
        before = run.charging.session_totals.get((contract, part.name, line.session), 0)
    want = Want(part, part.measure.of(line.amounts), line.session, asked.member, place.key, place.slot, line.at_us)
    return promise(want, buckets, cost_of(part, total, before, 0), available)


def _promise_money(
    asked: Asked, buckets: Sequence[Bucket], place: _Place, picounits: Fraction, available: Fraction | None
) -> Promise:
    """An amount by itself: of the money buckets that pay for anything here, then of the account's own money."""
    want = Want(
        place.contract.tariff.usage[0], 0, asked.line.session, asked.member, place.key, place.slot, asked.line.at_us
    )
    money = [bucket for bucket in usable_for(want, buckets) if bucket.terms.measure is None]
    amount = picounits / PICOUNITS
    if available is not None:
        amount = min(amount, funds_of(money, available, asked.member))
    holds, owed = hold_money(money, amount, asked.member)
    return Promise(int(amount * PICOUNITS), tuple(holds), owed)
