"""The pricing door's evaluation: lines of usage in arrival order -> what an account's cycles come to.

Pure: nothing here knows a clock, a file or a database. All usage that arrived is evaluated in canonical order, cycle by
cycle (cycle_run.py); a cycle that was closed keeps what it came to, and what it comes to differently later becomes
adjustments. Reservations alone act in the order of arrival (reservations.py).

A cycle is evaluated when somebody asks for it, from the state that the one before left; what arrives for a cycle makes
it and those after it stale.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sms_aaa.rules.bucket_book import Book
from sms_aaa.rules.charging import Fact
from sms_aaa.rules.cycle import cycle_at, next_cycle
from sms_aaa.rules.cycle_lines import Before, sheet_of
from sms_aaa.rules.cycle_run import run_cycle
from sms_aaa.rules.cycle_setting import Contract, Known, Setting, charge_each
from sms_aaa.rules.evaluation_result import (
    Adjustment,
    CycleResult,
    HoldState,
    MoneyState,
    Odd,
    Reason,
    Result,
    added,
    difference,
)
from sms_aaa.rules.instants import INSTANT_MAX, INSTANT_MIN, instant_of, instant_us
from sms_aaa.rules.measure import QUANTITY_MAX
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.packet_lines import Sessions
from sms_aaa.rules.recurring import terms_of
from sms_aaa.rules.reservations import Asked, Reservations
from sms_aaa.rules.subscribing import TariffSpan, subscriptions
from sms_aaa.rules.tariff import DEFAULT_KEY
from sms_aaa.rules.usage_lines import (
    ITSELF,
    Cancel,
    Change,
    Close,
    Given,
    LineInvalidError,
    Packet,
    Payment,
    Release,
    Rerate,
    Reserve,
    Reset,
    Settle,
    Subscribe,
    Used,
    told_us,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sms_aaa.rules.bucket_book import Held
    from sms_aaa.rules.cycle import Cycle
    from sms_aaa.rules.cycle_lines import ComponentLine, Sheet
    from sms_aaa.rules.cycle_run import CycleRun
    from sms_aaa.rules.cycle_setting import BucketKey, Kernel
    from sms_aaa.rules.tariff import Tariff
    from sms_aaa.rules.usage_lines import Dated, Line

CYCLES_MAX = 1_200
"""Of one evaluation: a century."""

_NOTHING_BEFORE = Before()


@dataclass(frozen=True, slots=True)
class Account:
    """Whose usage is priced: docs/pricing-door.md, section 3. Amounts in units of the currency.

    `credit_limit` None: no limit. `start`: an instant of the first cycle; `subscribed`: when the subscription began.
    """

    name: str = "account"
    zone: str = "UTC"
    anchor_day: int = 1
    is_prepaid: bool = False
    credit_limit: Fraction | None = None
    money: Fraction = Fraction(0)
    buckets: tuple[Given, ...] = ()
    before: Before = _NOTHING_BEFORE
    start_us: int | None = None
    subscribed_us: int | None = None


@dataclass(slots=True)
class _Closed:
    """A cycle that was closed: its sheet then; the run that its adjustments go to; what it comes to with them."""

    sheet: Sheet
    run: CycleRun
    adjusted: dict[str, ComponentLine]


class Evaluation:
    """Hears lines, and tells what all that was heard comes to.

    `first_us`: an instant of the first cycle, before which nothing lies. `begins`: of sessions by name.
    `is_subscribed`: without a line that says so; then the subscription begins with the first cycle, if not before.
    `duplicates`: of lines that were left out already.
    """

    def __init__(
        self,
        account: Account,
        tariff: Tariff,
        *,
        first_us: int,
        begins: Mapping[str, int] | None = None,
        is_subscribed: bool = True,
        kernel: Kernel = charge_each,
        keeps_charged: bool = True,
        rate_kbps: int = 0,
        duplicates: int = 0,
    ) -> None:
        self._account, self._currency, self._tariff = account, tariff.currency, tariff
        self._kernel, self._keeps = kernel, keeps_charged
        self._begins = begins or {}
        self._cycles = [cycle_at(instant_of(first_us), account.zone, account.anchor_day)]
        self._starts = [instant_us(self._cycles[0].start)]
        self._last = 0  # the last cycle that something was told of
        self._now_us = first_us
        self._is_subscribed = is_subscribed
        self._has_reservations = False
        self._dated: list[Dated] = []
        self._instead: dict[int, Tariff] = {}
        self._contracts: tuple[Contract, ...] = ()
        self._known: dict[int, list[Known]] = defaultdict(list)
        self._given: dict[int, list[Given]] = defaultdict(list)
        self._resets: dict[int, list[Reset]] = defaultdict(list)
        self._payments = Fraction(0)
        self._members: dict[str, int] = {ITSELF: 0, account.name: 0}
        self._sessions = Sessions(rate_kbps)
        self._anomalies: list[Odd] = []
        self._counted: set[tuple[str, int]] = set()
        self._duplicates = duplicates
        self._quantity = sum(account.before.totals.values())
        self._runs: list[CycleRun] = []
        self._closed: list[_Closed] = []
        self._rolled: dict[BucketKey, int] = {}
        self._adjustments: list[Adjustment] = []
        self._reservations = Reservations()
        self._contract()
        for given in account.buckets:
            self._given[0].append(_from_the_beginning(given, self._starts[0]))

    def hear(self, line: Line) -> None:
        """Takes one line in; LineInvalidError for what cannot be, such as a change of no subscription."""
        told = told_us(line)
        if told is not None:
            earliest, latest, within = told
            number = line.used.line if isinstance(line, Settle) else line.line
            self._index(earliest, number)
            self._last = max(self._last, self._index(within, number))
            self._now_us = max(self._now_us, latest)
            self._expire()
        self._take(line)

    def result(self) -> Result:
        """What all lines so far come to."""
        self._adjust(Reason.LATE_USAGE)
        cycles = tuple(self._cycle_result(number) for number in range(self._last + 1))
        last = self._run(self._last)
        book = last.after if cycles[-1].is_closed else last.book
        return Result(
            currency=self._currency,
            cycles=cycles,
            adjustments=tuple(self._adjustments),
            buckets=tuple(sorted(book.buckets, key=lambda held: held.bucket.grant.order)),
            money=self._money(),
            holds=tuple(self._reservations.holds),
            anomalies=tuple(self._anomalies),
            duplicates=self._duplicates,
            members={number: name for name, number in self._members.items() if name != ITSELF},
        )

    def _take(self, line: Line) -> None:
        match line:
            case Used():
                self._use(line)
            case Packet():
                self._read(line)
            case Settle():
                self._settle(line)
            case Reserve():
                self._reserve(line)
            case Release():
                self._give_back(line.session, HoldState.RELEASED)
            case Close():
                self._close(line)
            case Rerate():
                self._rerate(line)
            case Payment():
                self._payments += line.amount
            case _:
                self._note(line)

    def _note(self, line: Given | Reset | Dated) -> None:
        """What is granted, begun anew or subscribed to, at its instant."""
        if isinstance(line, Subscribe | Change | Cancel):
            self._dated.append(line)
            self._contract()
            return
        number = self._index(line.at_us, line.line)
        if isinstance(line, Given):
            self._given[number].append(line)
        else:
            self._resets[number].append(line)
        self._forget(number)

    def _use(self, used: Used) -> None:
        if used.session is not None and used.seq is not None:
            if (used.session, used.seq) in self._counted:
                self._duplicates += 1
                return
            self._counted.add((used.session, used.seq))
        amounts = used.amounts
        self._quantity += amounts.upload + amounts.download + amounts.seconds + amounts.events + amounts.units
        if self._quantity > QUANTITY_MAX:
            reason = "makes more usage in all than can be counted"
            raise LineInvalidError(used.line, "line", reason, f"price at most {QUANTITY_MAX} base units at a time")
        begin_us = used.from_us
        if used.session_from_us is not None:
            begin_us = used.session_from_us
        elif used.session is not None:
            begin_us = self._begins.get(used.session, begin_us)
        fact = Fact(
            self._member_id(used.member),
            used.line if used.session is None else used.session,
            used.line,
            min(begin_us, used.from_us),
            used.from_us,
            used.to_us,
            DEFAULT_KEY,
            amounts,
        )
        order = (
            used.session or "", used.seq or 0, used.from_us, used.member, used.key or "",
            amounts.upload, amounts.download, amounts.seconds, amounts.events, amounts.units, used.line,
        )  # fmt: skip
        known = Known(fact, used.key, used.traits, order)
        first = self._index(used.from_us, used.line)
        last = self._index(max(used.from_us, used.to_us - 1), used.line)
        for number in range(first, last + 1):
            self._known[number].append(known)
        is_newest = first == last == len(self._runs) - 1 and first >= len(self._closed)
        if not (is_newest and self._runs[first].add(known)):
            self._forget(first)

    def _read(self, packet: Packet) -> None:
        """A packet, by the rules of sessions: what it adds is usage."""
        for heard in self._sessions.hear(packet):
            if isinstance(heard, Odd):
                self._anomalies.append(heard)
            else:
                self._index(heard.from_us, heard.line)
                self._use(heard)

    def _settle(self, line: Settle) -> None:
        session = line.used.session
        assert session is not None
        before = self._amount_charged() if not line.is_final and self._reservations.money.get(session) else None
        self._use(line.used)
        if line.is_final:
            self._give_back(session, HoldState.SETTLED)
        elif before is not None:
            self._reservations.spend(session, self._amount_charged() - before)

    def _reserve(self, line: Reserve) -> None:
        if not self._has_reservations:
            self._has_reservations = True
            self._forget(0)
        run = self._run(self._index(line.at_us, line.line))
        begin_us = self._begins.get(line.session, line.at_us)
        asked = Asked(line, self._member_id(line.member), min(begin_us, line.at_us))
        self._hold(line.session, run, self._reservations.reserve(asked, run, self._money().available))

    def _give_back(self, session: str, state: HoldState) -> None:
        run = self._run(self._last)
        self._hold(session, run, self._reservations.give_back(session, run.book, state))

    def _hold(self, session: str, run: CycleRun, changes: list[tuple[Held, int]]) -> None:
        """What a session holds now. Where nobody missed any of it, nothing that was evaluated comes out differently."""
        is_last = run is self._runs[-1]
        begun_us = run.setting.start_us
        if not is_last or not all(held.is_plain and held.bucket.grant.from_us >= begun_us for held, _ in changes):
            self._forget(0 if changes else len(self._runs))
            return
        for held, change in changes:
            reserved = held.bucket.reserved
            reserved[session] = reserved.get(session, 0) + change
        run.touch()

    def _expire(self) -> None:
        for session in self._reservations.expired(self._now_us):
            self._give_back(session, HoldState.EXPIRED)

    def _rerate(self, line: Rerate) -> None:
        if line.tariff is None:
            self._adjust(Reason.LATE_USAGE)
            return
        self._adjust(Reason.LATE_USAGE)
        of = line.of or self._tariff
        self._instead[id(of)] = line.tariff
        self._contract()
        self._adjust(Reason.RERATE)

    def _close(self, line: Close) -> None:
        at_us = instant_us(self._cycles[self._last].end) if line.at_us is None else line.at_us
        first = self._cycles[0]
        if at_us < instant_us(first.end):
            raise LineInvalidError(
                line.line,
                "at",
                "lies before the end of the first cycle",
                f"write {text_of(first.end)}, or leave it out",
            )
        self._adjust(Reason.LATE_USAGE)
        self._now_us = max(self._now_us, at_us)
        while len(self._closed) <= self._last and instant_us(self._cycles[len(self._closed)].end) <= at_us:
            run = self._run(len(self._closed))
            sheet = sheet_of(run, self._currency, until=None, before=self._before(len(self._closed)))
            self._closed.append(_Closed(sheet, run, _came(sheet)))
            for held in run.after.buckets:
                if held.is_over:
                    self._rolled.setdefault(held.key, held.rolled)

    def _adjust(self, reason: Reason) -> None:
        """What closed cycles come to differently becomes adjustments."""
        for number, closed in enumerate(self._closed):
            run = self._run(number)
            if run is closed.run:
                continue
            closed.run = run
            sheet = sheet_of(run, self._currency, until=None, before=self._before(number))
            came = _came(sheet)
            booked = self._cycle(len(self._closed))
            for name in dict.fromkeys((*closed.adjusted, *came)):
                found = difference(closed.adjusted.get(name), came.get(name))
                if found.quantity or found.amount or found.amount_rounded:
                    self._adjustments.append(Adjustment(run.setting.cycle, booked, reason, found))
            closed.adjusted = came

    def _cycle_result(self, number: int) -> CycleResult:
        run = self._run(number)
        if number < len(self._closed):
            return CycleResult(run.setting.cycle, True, self._closed[number].sheet, run)
        until = instant_of(self._now_us)
        return CycleResult(
            run.setting.cycle, False, sheet_of(run, self._currency, until=until, before=self._before(number)), run
        )

    def _before(self, number: int) -> Before | None:
        return self._account.before if number == 0 else None

    def _amount_charged(self) -> Fraction:
        cycles = [self._cycle_result(number).sheet.amount_rounded for number in range(self._last + 1)]
        return sum([*cycles, *(each.line.amount_rounded for each in self._adjustments)], Fraction(0))

    def _money(self) -> MoneyState:
        account = self._account
        paid = sum((self._run(number).paid for number in range(self._last + 1)), Fraction(0))
        return MoneyState(
            is_prepaid=account.is_prepaid,
            opening=account.money,
            payments=self._payments,
            charged=self._amount_charged(),
            from_buckets=Fraction(paid, PICOUNITS),
            reserved=sum(self._reservations.money.values(), Fraction(0)),
            credit_limit=account.credit_limit,
        )

    def _member_id(self, member: str) -> int:
        return self._members.setdefault(member, len(self._members))

    def _contract(self) -> None:
        """The subscriptions by all that was said of them."""
        spans = subscriptions(self._first_span(), self._dated) or [
            TariffSpan(self._cycles[0].start, None, self._tariff)
        ]
        account = self._account
        terms = terms_of([(span.start, span.end) for span in spans], account.zone, account.anchor_day)
        starts = [INSTANT_MIN, *(instant_us(term.start) for term in terms[1:]), INSTANT_MAX]
        self._contracts = tuple(
            Contract(number + 1, term, self._tariff_of(span.tariff), starts[number], starts[number + 1])
            for number, (term, span) in enumerate(zip(terms, spans, strict=True))
        )
        self._forget(0)

    def _first_span(self) -> TariffSpan | None:
        subscribed_us = self._account.subscribed_us
        if subscribed_us is None and not self._is_subscribed:
            return None
        start = self._cycles[0].start if subscribed_us is None else instant_of(subscribed_us)
        return TariffSpan(start, None, self._tariff)

    def _tariff_of(self, tariff: Tariff) -> Tariff:
        """The tariff, or what it was last repriced with."""
        return self._instead.get(id(tariff), tariff)

    def _cycle(self, number: int) -> Cycle:
        while len(self._cycles) <= number:
            self._cycles.append(next_cycle(self._cycles[-1], self._account.zone, self._account.anchor_day))
            self._starts.append(instant_us(self._cycles[-1].start))
        return self._cycles[number]

    def _index(self, at_us: int, line: int) -> int:
        """The cycle that an instant lies in."""
        if at_us < self._starts[0]:
            raise LineInvalidError(
                line, "line", f"lies before the first cycle, which begins at {text_of(self._cycles[0].start)}",
                "write an earlier start in the account file",
            )  # fmt: skip
        while at_us >= instant_us(self._cycles[-1].end):
            if len(self._cycles) == CYCLES_MAX:
                raise LineInvalidError(line, "line", f"lies {CYCLES_MAX} cycles after the first", "correct its instant")
            self._cycle(len(self._cycles))
        return bisect_right(self._starts, at_us) - 1

    def _forget(self, number: int) -> None:
        """A cycle and those after it are to be evaluated anew."""
        del self._runs[number:]

    def _run(self, number: int) -> CycleRun:
        while len(self._runs) <= number:
            at = len(self._runs)
            account = self._account
            before = self._runs[-1].after if self._runs else Book(zone=account.zone, anchor_day=account.anchor_day)
            setting = Setting(
                at, self._cycle(at), self._contracts, self._known[at], self._given[at], self._resets[at],
                self._rolled, self._reservations.by_bucket, account.before.totals if at == 0 else {},
                self._member_id, self._kernel, self._keeps, self._has_reservations,
            )  # fmt: skip
            self._runs.append(run_cycle(setting, before))
        return self._runs[number]


def _from_the_beginning(given: Given, start_us: int) -> Given:
    if given.at_us != INSTANT_MIN:
        return given
    until_us = given.until_us if given.valid_us is None else start_us + given.valid_us
    return replace(given, at_us=start_us, until_us=until_us)


def text_of(instant: datetime) -> str:
    """RFC 3339, in UTC."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _came(sheet: Sheet) -> dict[str, ComponentLine]:
    """What components came to, by name."""
    found: dict[str, ComponentLine] = {}
    for line in sheet.lines:
        known = found.get(line.name)
        found[line.name] = line if known is None else added(known, line)
    return found
