"""Reservations in an evaluation: what sessions hold of buckets and of money, so that two never hold the same.

A hold of a bucket is known to every later evaluation from the bucket's beginning on: others see it as used, its session
uses it first. What a session has used of it stays with it; what was given back leaves no trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import Overage
from sms_aaa.rules.evaluation_result import Hold, HoldState
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.pricing import price_numerator, shaped
from sms_aaa.rules.slots import Calendar, band_segments, slot_segments
from sms_aaa.rules.tariff import Scope

if TYPE_CHECKING:
    from sms_aaa.rules.bucket_book import Book, Held
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
class _Grant:
    """What is granted so far; `takes`: of buckets, in their units; `amount` of money, in units of the currency."""

    granted: Fraction = Fraction(0)
    takes: list[tuple[Held, int]] = field(default_factory=list)
    amount: Fraction = Fraction(0)


@dataclass(slots=True)
class Reservations:
    """`by_bucket`: what sessions hold, or used of what they held. `money`: by session, in units of the currency."""

    holds: list[Hold] = field(default_factory=list)
    by_bucket: dict[BucketKey, dict[object, int]] = field(default_factory=dict)
    money: dict[str, Fraction] = field(default_factory=dict)

    def reserve(self, asked: Asked, run: CycleRun, available: Fraction | None) -> list[tuple[Held, int]]:
        """Holds what there is of it. `run`: all usage so far; `available`: money, None: any amount.

        What it holds of buckets, which the run's book does not show yet.
        """
        line = asked.line
        place = _place(asked, run)
        if line.amount is not None:
            measure, quantity = None, line.amount
            grant = _hold_money(asked, run, place, line.amount / PICOUNITS, available)
        else:
            part = _component(line, place)
            measure, quantity = part.measure, Fraction(part.measure.of(line.amounts))
            grant = _hold_units(asked, run, place, part, available)
        for held, taken in grant.takes:
            sessions = self.by_bucket.setdefault(held.key, {})
            before = held.by_session.get(line.session, 0) + held.bucket.reserved.get(line.session, 0)
            sessions[line.session] = before + taken
        if grant.amount:
            self.money[line.session] = self.money.get(line.session, Fraction(0)) + grant.amount
        taken_of = [(held.bucket.grant.bucket_id, taken) for held, taken in grant.takes]
        self.holds.append(
            Hold(
                line.line, line.at_us, line.session, measure, quantity, grant.granted, grant.granted < quantity,
                taken_of, grant.amount, line.until_us,
            )
        )  # fmt: skip
        return grant.takes

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


def _usable(asked: Asked, run: CycleRun, part: UsageComponent, place: _Place, *, money: bool) -> list[Held]:
    at_us = asked.line.at_us
    found = [
        held
        for held in run.book.buckets
        if not held.is_over
        and (held.bucket.terms.measure is None) is money
        and held.bucket.is_of(asked.member)
        and held.bucket.is_usable(at_us, at_us)
        and held.bucket.is_for(part, place.key, place.slot)
    ]
    return sorted(found, key=lambda held: held.bucket.grant.order)


def _hold_units(asked: Asked, run: CycleRun, place: _Place, part: UsageComponent, available: Fraction | None) -> _Grant:
    line, grant = asked.line, _Grant()
    left = part.measure.of(line.amounts)
    for held in _usable(asked, run, part, place, money=False):
        # What the session holds already is spoken for; the rest is looked at through a copy.
        copy = held.copy().bucket
        copy.used += copy.reserved.pop(line.session, 0)
        use = copy.use(left, line.session, asked.member)
        if use.taken:
            grant.takes.append((held, use.taken))
        grant.granted += use.quantity
        left -= use.quantity
        if left and held.bucket.terms.blocks:
            if held.bucket.terms.overage is Overage.CHARGE:
                break
            grant.granted += left if held.bucket.terms.overage is Overage.ABSORB else 0
            return grant
    if left:
        _price(asked, run, place, part, left, available, grant)
    return grant


def _price(
    asked: Asked,
    run: CycleRun,
    place: _Place,
    part: UsageComponent,
    left: int,
    available: Fraction | None,
    grant: _Grant,
) -> None:
    """Grants what money pays for of the rest."""
    promised = _usable(asked, run, part, place, money=True)
    funds = sum((_free(held) for held in promised), Fraction(0))
    if available is None:
        grant.granted += left
        return
    cost = _costs(asked, run, place, part)
    quantity = _most(left, funds + available, cost)
    grant.granted += quantity
    _take_money(promised, cost(quantity), grant)


def _hold_money(asked: Asked, run: CycleRun, place: _Place, amount: Fraction, available: Fraction | None) -> _Grant:
    grant = _Grant()
    promised = _usable(asked, run, place.contract.tariff.usage[0], place, money=True)
    funds = sum((_free(held) for held in promised), Fraction(0))
    held = amount if available is None else min(amount, funds + available)
    grant.granted = held * PICOUNITS
    _take_money(promised, held, grant)
    return grant


def _take_money(promised: list[Held], amount: Fraction, grant: _Grant) -> None:
    """Of money buckets first, whole picounits; the rest of the account's own."""
    for held in promised:
        share = min(amount, _free(held))
        if share > 0:
            grant.takes.append((held, int(-(-share * PICOUNITS // 1))))
            amount -= share
    grant.amount = max(amount, Fraction(0))


def _free(held: Held) -> Fraction:
    """Whole picounits of a money bucket that nobody used or holds, in units of the currency."""
    return Fraction(max(held.left // 1, 0), PICOUNITS)


class _costs:  # noqa: N801 - a function with what it remembers
    """What a further quantity costs on top of what was used: exactly, after discount and cap."""

    def __init__(self, asked: Asked, run: CycleRun, place: _Place, part: UsageComponent) -> None:
        scope = (place.contract.number, run.setting.number, part.name)
        total = run.charging.totals.get(scope)
        self._part = part
        self._numerator = total.numerator if total else 0
        self._quantity = total.quantity if total else 0
        if part.scope is Scope.SESSION:
            key = (place.contract.number, part.name, asked.line.session)
            self._quantity = run.charging.session_totals.get(key, 0)

    def __call__(self, quantity: int) -> Fraction:
        part = self._part
        more = price_numerator(part, self._quantity + quantity) - price_numerator(part, self._quantity)
        return shaped(part, self._numerator + more) - shaped(part, self._numerator)


def _most(quantity: int, funds: Fraction, cost: _costs) -> int:
    """The most of a quantity that costs no more than this."""
    if cost(quantity) <= funds:
        return quantity
    low, high = 0, quantity  # low can be paid, high cannot
    while high - low > 1:
        middle = (low + high) // 2
        if cost(middle) <= funds:
            low = middle
        else:
            high = middle
    return low
