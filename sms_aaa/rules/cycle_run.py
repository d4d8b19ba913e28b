"""One cycle of an account evaluated: from the state that the cycle before left, and all that is known of this one.

A run is a pure function of its Setting, so it gives the same however its usage arrived. Time is walked in steps: where
a subscription begins, or a bucket ends, is reset or granted anew; between two steps the kernel charges the slices in
canonical order.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.bucket_book import Book, open_buckets, plan_ends, reset_buckets
from sms_aaa.rules.charging import Charging, Fact, cut
from sms_aaa.rules.cycle_setting import Placed
from sms_aaa.rules.instants import INSTANT_MIN
from sms_aaa.rules.pricing import price_numerator
from sms_aaa.rules.recurring import share_run
from sms_aaa.rules.slicing import Span, cut_spans
from sms_aaa.rules.slots import Calendar
from sms_aaa.rules.tariff import Carry, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sms_aaa.rules.charging import Charged, Slice
    from sms_aaa.rules.cycle_setting import Contract, Known, Setting
    from sms_aaa.rules.tariff import UsageComponent


_BEFORE_ALL = (INSTANT_MIN, (), 0)


@dataclass(slots=True)
class Sum:
    """A component's usage of a cycle: quantity = covered + uncovered + what was priced."""

    quantity: int = 0
    covered: int = 0
    uncovered: int = 0


@dataclass(slots=True)
class CycleRun:
    """What came of a cycle. `book` is as it stands after its last usage, `after` as the next cycle finds it.

    `edges`: where slices are cut; `last_step` and `last_key`: what a slice must lie behind that is still to be added.

    By (contract, component): `sums`; `begun`: the quantity and the numerator that its total began with; `openings`:
    P(0), where it began with that. `blocked`: uncovered usage by (component, bucket id).
    """

    setting: Setting
    charging: Charging
    book: Book
    edges: list[int]
    last_step: int
    last_key: tuple[int, tuple[object, ...], int] = _BEFORE_ALL
    charged: list[tuple[int, Charged]] = field(default_factory=list)
    sums: dict[tuple[int, str], Sum] = field(default_factory=dict)
    begun: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    openings: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    blocked: dict[tuple[str, int], int] = field(default_factory=dict)
    paid: Fraction = Fraction(0)
    _after: Book | None = None

    @property
    def after(self) -> Book:
        if self._after is None:
            self._after = self.book.copy()
            self._after.end_buckets(self.setting.end_us)
        return self._after

    def touch(self) -> None:
        """Its book was changed."""
        self._after = None

    def add(self, known: Known) -> bool:
        """Charges a fact that lies behind all others, as a run with it would; False if it does not lie there."""
        keyed = list(_keyed(self.setting, known, self.edges, _calendars(self.setting)))
        for to_us, order, index, placed in keyed:
            is_open = any(number == placed.subscription for number, _ in self.begun)
            if not is_open or placed.piece.from_us < self.last_step or (to_us, order, index) <= self.last_key:
                return False
        for to_us, order, index, placed in keyed:
            self.last_key = (to_us, order, index)
            _charge(self, [placed])
        self.touch()
        return True

    @property
    def contracts(self) -> list[Contract]:
        """Those that ran in the cycle, or had usage in it."""
        numbers = {number for number, _ in (*self.begun, *self.sums)}
        return [contract for contract in self.setting.contracts if contract.number in numbers]


def run_cycle(setting: Setting, before: Book) -> CycleRun:
    """The cycle, from a copy of the book that the one before left."""
    book = before.copy()
    book.begin(setting)
    steps = _steps(setting, book)
    edges = sorted({edge for edge in (*book.edges(), *steps) if setting.start_us < edge < setting.end_us})
    run = CycleRun(setting, Charging([], {}, book.session_totals), book, edges, steps[-1])
    batches = _batches(setting, steps, edges)
    _open_early(run, {placed.subscription for batch in batches for *_, placed in batch})
    for number, (begin, batch) in enumerate(zip(steps, batches, strict=True)):
        if begin > setting.start_us:
            book.end_buckets(begin)
        reset_buckets(book, setting, begin, number)
        _open(run, begin, number)
        run.charging.buckets = book.usable_from(begin)
        batch.sort()
        if batch:
            *_, last = batch
            run.last_key = max(run.last_key, last[:3])
        _charge(run, [placed for *_, placed in batch])
    return run


def _steps(setting: Setting, book: Book) -> list[int]:
    """Where something begins or ends within the cycle, from its start on."""
    begins = {setting.start_us} | {contract.start_us for contract in setting.contracts}
    begins |= {reset.at_us for reset in setting.resets}
    ends = book.ends() | {end for begin in begins for end in plan_ends(setting, begin)}
    return sorted(step for step in begins | ends if setting.start_us <= step < setting.end_us)


def _open_early(run: CycleRun, used: set[int]) -> None:
    """The totals of contracts whose usage lies outside of them: in a cycle that they do not run in, or before it."""
    setting = run.setting
    for contract in setting.contracts:
        end_us = contract.end_us
        runs = contract.start_us < setting.end_us and (end_us is None or end_us > setting.start_us)
        begins_within = runs and contract.start_us > setting.start_us
        is_first = contract.number == 1
        if contract.number in used and (not runs or (is_first and begins_within)):
            _open_totals(run, contract, max(setting.start_us, contract.start_us) if runs else setting.start_us)


def _open(run: CycleRun, begin_us: int, step: int) -> None:
    """The contracts that begin at this instant, or with the cycle."""
    setting = run.setting
    for contract in setting.contracts:
        end_us = contract.end_us
        if max(contract.start_us, setting.start_us) != begin_us or (end_us is not None and end_us <= begin_us):
            continue
        if all((contract.number, part.name) not in run.begun for part in contract.tariff.usage):
            _open_totals(run, contract, begin_us)
        open_buckets(run.book, setting, contract, begin_us, step, share_run(contract.term, setting.cycle))


def _open_totals(run: CycleRun, contract: Contract, begin_us: int) -> None:
    """P(0), or where another total goes on: of the plan before, or from before this calculation."""
    setting, tariff = run.setting, contract.tariff
    before = next((each for each in setting.contracts if each.end_us == contract.start_us), None)
    for part in tariff.usage:
        total = run.charging.total(contract.number, setting.number, part)
        scope = (contract.number, part.name)
        if part.name in setting.priors:
            total.quantity = setting.priors[part.name]
            total.numerator = price_numerator(part, total.quantity) if part.scope is Scope.CYCLE else 0
        elif part.scope is Scope.CYCLE:
            earlier = _earlier(run, before, part) if tariff.carry is Carry.ON else None
            total.quantity = earlier or 0
            if earlier is None:
                total.numerator = price_numerator(part, 0)
                run.openings[scope] = (begin_us, total.numerator)
        run.begun[scope] = (total.quantity, total.numerator if scope not in run.openings else 0)


def _earlier(run: CycleRun, before: Contract | None, part: UsageComponent) -> int | None:
    """The quantity that the component of the same name had come to on the plan before, in this cycle."""
    if before is None or (before.number, part.name) not in run.begun:
        return None
    same = next((each for each in before.tariff.usage if each.name == part.name), None)
    if same is None or same.measure is not part.measure or same.scope is not part.scope:
        return None
    return run.charging.total(before.number, run.setting.number, same).quantity


_Keyed = tuple[int, tuple[object, ...], int, Placed]


def _batches(setting: Setting, steps: list[int], edges: list[int]) -> list[list[_Keyed]]:
    """The cycle's slices, by the step that they follow; each with what puts it in canonical order."""
    batches: list[list[_Keyed]] = [[] for _ in steps]
    calendars = _calendars(setting)
    for known in setting.known:
        for keyed in _keyed(setting, known, edges, calendars):
            begin_us = keyed[3].piece.from_us
            batches[bisect_right(steps, begin_us) - 1 if len(steps) > 1 else 0].append(keyed)
    return batches


def _keyed(setting: Setting, known: Known, edges: Sequence[int], calendars: Mapping[int, Calendar]) -> Iterator[_Keyed]:
    for piece, contract in _slices(setting, known, edges, calendars):
        placed = Placed(piece, contract.tariff.usage, contract.number, setting.number)
        yield piece.to_us, known.order, piece.index, placed


def _calendars(setting: Setting) -> dict[int, Calendar]:
    return {
        contract.number: Calendar(contract.term.zone, contract.tariff.slots, contract.tariff.holidays)
        for contract in setting.contracts
    }


def _slices(
    setting: Setting, known: Known, edges: Sequence[int], calendars: Mapping[int, Calendar]
) -> Iterable[tuple[Slice, Contract]]:
    """Those of a fact that lie in the cycle. By which switch it is cut is the affair of the plan that it begins in."""
    fact, key, traits, _ = known
    first = setting.contract_at(fact.from_us)
    calendar = calendars[first.number]
    start_us, end_us = setting.start_us, setting.end_us
    if start_us <= fact.from_us and fact.to_us <= min(end_us, first.until_us):
        named = first.key_of(key, traits)
        keyed = fact if named == fact.key else _with_key(fact, named)
        return [(piece, first) for piece in cut(keyed, calendar, first.tariff.bands, edges, first.tariff.switch)]
    bounds = {start_us, end_us} | {contract.since_us for contract in setting.contracts}
    begins = [fact.from_us, *sorted(bound for bound in bounds if fact.from_us < bound < fact.to_us)]
    owners = [setting.contract_at(begin) for begin in begins]
    spans = [
        Span(begin, end, calendars[owner.number], owner.tariff.bands, owner.key_of(key, traits))
        for begin, end, owner in zip(begins, [*begins[1:], fact.to_us], owners, strict=True)
    ]
    here = [number for number, begin in enumerate(begins) if start_us <= begin < end_us]
    cuts = cut_spans(fact, [spans[number] for number in here], edges, first.tariff.switch)
    return [(piece, owners[here[number]]) for piece, number in cuts]


def _with_key(fact: Fact, key: str) -> Fact:
    return Fact(fact.member, fact.session, fact.seq, fact.session_from_us, fact.from_us, fact.to_us, key, fact.amounts)


def _charge(run: CycleRun, placed: Sequence[Placed]) -> None:
    setting, sums = run.setting, run.sums
    alone = setting.contracts[0].number if len(setting.contracts) == 1 else None
    for each in setting.kernel(run.charging, placed):
        number = alone if alone is not None else setting.contract_at(each.slice.from_us).number
        found = sums.get((number, each.part.name))
        if found is None:
            found = sums[number, each.part.name] = Sum()
        found.quantity += each.quantity
        if each.uses:
            found.covered += sum(use.quantity for use in each.uses)
        if each.uncovered:
            found.uncovered += each.uncovered
            assert each.blocked_by is not None
            place = (each.part.name, each.blocked_by)
            run.blocked[place] = run.blocked.get(place, 0) + each.uncovered
        for _, share in each.paid:
            run.paid += share
        if setting.has_reservations:
            _note_taken(run, each)
        if setting.keeps_charged:
            run.charged.append((number, each))


def _note_taken(run: CycleRun, charged: Charged) -> None:
    taken = [*((use.bucket_id, Fraction(use.taken)) for use in charged.uses), *charged.paid]
    for bucket_id, share in taken:
        held = next(each for each in run.book.buckets if each.bucket.grant.bucket_id == bucket_id)
        held.take(charged.slice.fact.session, share)
