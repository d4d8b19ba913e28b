"""Fees of subscriptions: what falls due is charged once, and earned in the cycles that it is for.

A fee in advance stands in the cycle in which it falls due. If its period ends in that cycle too, it is revenue at once.
If it goes on (a quarter, a year, a month from the 10th on), all of it is deferred revenue first, and each cycle that is
opened earns its share of the time; a subscription that ends earns what is left in its last cycle. So the ledger has in
each cycle what belongs to it, and nothing stays deferred for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from sms_aaa.db import cycles as db_cycles
from sms_aaa.db.cycles import ChargeRow, EarningRow
from sms_aaa.rules.instants import instant_of, instant_us
from sms_aaa.rules.ledger import Event, sides_of
from sms_aaa.rules.recurring import earned_minor, fee_charges, one_time_charges, terms_of
from sms_aaa.rules.tariff import Anchor, Due, Period

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sms_aaa.db.cycles import CycleRow, DeferredRow, OpenedRow, SpanRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.recurring import FeeCharge, Term
    from sms_aaa.rules.tariff import Tariff


@dataclass(frozen=True, slots=True)
class Contract:
    """A subscription's term, and the plan versions that it was changed from without a gap, the first one first."""

    term: Term
    plans_before: tuple[int, ...]


def contracts_of(
    connection: Connection, opened: Sequence[OpenedRow], cycles: Mapping[int, CycleRow]
) -> dict[tuple[int, int], Contract]:
    """By (subscription, cycle): its term as the account of that cycle reckons time."""
    places: dict[int, list[int]] = {row.subscription_id: [] for row in opened}
    for row in opened:
        places[row.subscription_id].append(row.cycle_id)
    found = {}
    for _, group in groupby(db_cycles.list_spans(connection, list(places)), key=lambda span: span.service_id):
        spans = list(group)
        for zone, anchor_day in {
            (cycles[cycle_id].zone, cycles[cycle_id].anchor_day)
            for span in spans
            for cycle_id in places.get(span.subscription_id, ())
        }:
            contracts = _contracts(spans, zone, anchor_day)
            for span, contract in zip(spans, contracts, strict=True):
                for cycle_id in places.get(span.subscription_id, ()):
                    if (cycles[cycle_id].zone, cycles[cycle_id].anchor_day) == (zone, anchor_day):
                        found[span.subscription_id, cycle_id] = contract
    return found


def charge_due(
    connection: Connection,
    shelf: PlanShelf,
    opened: Sequence[OpenedRow],
    cycles: Mapping[int, CycleRow],
    contracts: Mapping[tuple[int, int], Contract],
    *,
    now: datetime | None,
    instead: Mapping[int, CycleRow] | None = None,
) -> int:
    """Charges what is due at `now` (None: when the cycle, or the subscription in it, begins); how much was new.

    What belongs to a cycle that is closed meanwhile stands in the one that `instead` has for it, if it has one.
    """
    charges = []
    for row in opened:
        cycle, contract = cycles[row.cycle_id], contracts[row.subscription_id, row.cycle_id]
        book = (instead or {}).get(row.cycle_id) if cycle.is_closed else cycle
        if book is None:
            continue
        due_at = max(instant_of(cycle.starts_us), contract.term.start) if now is None else now
        found = fees_in(connection, shelf, row, contract, instant_of(cycle.starts_us), instant_of(cycle.ends_us))
        tariff, ids = _priced(connection, shelf, row)
        charges += [
            charge_row(row, ids[charge.name], charge, tariff.currency, book)
            for charge in found
            if charge.due_at <= due_at
        ]
    added = db_cycles.insert_charges(connection, charges) if charges else 0
    _earn(connection, shelf, opened, cycles, contracts, now)
    return added


def charge_row(row: OpenedRow, component_id: int, charge: FeeCharge, currency: str, book: CycleRow) -> ChargeRow:
    """A fee as it is stored in the cycle `book`: what goes beyond the end of that is not earned yet."""
    until_us = instant_us(charge.until_at)
    is_deferred = until_us > book.ends_us
    sides = sides_of(Event.FEE_DEFERRED) if is_deferred else sides_of(Event.FEE, component=charge.name)
    return ChargeRow(
        row.account_id,
        book.cycle_id,
        row.subscription_id,
        component_id,
        charge.kind,
        instant_us(charge.from_at),
        until_us,
        charge.quantity,
        charge.amount.numerator,
        charge.amount.denominator,
        charge.amount_minor,
        *sides,
        currency,
    )


def fees_in(
    connection: Connection,
    shelf: PlanShelf,
    row: OpenedRow,
    contract: Contract,
    since: datetime,
    until: datetime,
) -> Iterator[FeeCharge]:
    """Whatever of the subscription's fees belongs to [since, until)."""
    tariff, _ = _priced(connection, shelf, row)
    for fee in tariff.recurring:
        yield from fee_charges(fee, tariff.currency, contract.term, since=since, until=until)
    if tariff.one_time and since <= contract.term.start < until:
        before = {
            fee.name
            for plan_version_id in contract.plans_before
            for fee in shelf.get(connection, plan_version_id).plan.tariff.one_time
        }
        yield from one_time_charges(tariff.one_time, tariff.currency, contract.term, charged_before=before)


def has_arrears(tariff: Tariff) -> bool:
    return any(fee.due is Due.ARREARS for fee in tariff.recurring)


def _earn(
    connection: Connection,
    shelf: PlanShelf,
    opened: Sequence[OpenedRow],
    cycles: Mapping[int, CycleRow],
    contracts: Mapping[tuple[int, int], Contract],
    now: datetime | None,
) -> None:
    """Earns in these cycles what is theirs of the fees that go beyond the cycle they were charged in."""
    rows: dict[int, list[OpenedRow]] = {}
    for row in opened:
        if not cycles[row.cycle_id].is_closed and _defers(_priced(connection, shelf, row)[0]):
            rows.setdefault(row.subscription_id, []).append(row)
    if not rows:
        return
    since = min(cycles[row.cycle_id].starts_us for group in rows.values() for row in group)
    earnings = []
    for fee in db_cycles.list_deferred(connection, list(rows), instant_of(since)):
        for row in rows[fee.subscription_id]:
            tariff, ids = _priced(connection, shelf, row)
            name = next(part.name for part in tariff.recurring if ids[part.name] == fee.component_id)
            sides = sides_of(Event.EARNING, component=name)
            term = contracts[row.subscription_id, row.cycle_id].term
            earnings += [
                EarningRow(fee.charge_id, until_us, row, fee.component_id, amount_minor, *sides, tariff.currency)
                for until_us, amount_minor in _shares(fee, cycles[row.cycle_id], term, now)
            ]
    if earnings:
        db_cycles.insert_earnings(connection, earnings)


def _shares(fee: DeferredRow, cycle: CycleRow, term: Term, now: datetime | None) -> Iterator[tuple[int, int]]:
    """(until, minor units) that a cycle earns of a fee; all that is left in the cycle that the subscription ends in."""
    ends_us = None if term.end is None else instant_us(term.end)
    if fee.until_us <= cycle.starts_us or (ends_us is not None and ends_us <= cycle.starts_us):
        return
    until_us = min(cycle.ends_us, fee.until_us)
    if fee.from_us < until_us:
        yield until_us, _earned(fee, until_us) - _earned(fee, max(cycle.starts_us, fee.from_us))
    has_ended = ends_us is not None and ends_us <= cycle.ends_us and now is not None and ends_us <= instant_us(now)
    if has_ended and until_us < fee.until_us:
        yield fee.until_us, fee.amount_minor - _earned(fee, max(until_us, fee.from_us))


def _earned(fee: DeferredRow, at_us: int) -> int:
    return earned_minor(fee.amount_minor, instant_of(fee.from_us), instant_of(fee.until_us), instant_of(at_us))


def _defers(tariff: Tariff) -> bool:
    """Whether it has fees whose periods may go beyond the cycle that they are charged in."""
    return any(
        fee.due is Due.ADVANCE and (fee.period is not Period.MONTH or fee.anchor is not Anchor.ACCOUNT)
        for fee in tariff.recurring
    )


def _priced(connection: Connection, shelf: PlanShelf, row: OpenedRow) -> tuple[Tariff, dict[str, int]]:
    priced = shelf.get(connection, row.plan_version_id)
    return priced.plan.tariff, priced.component_ids


def _contracts(spans: Sequence[SpanRow], zone: str, anchor_day: int) -> Iterable[Contract]:
    times = [(instant_of(span.starts_us), None if span.ends_us is None else instant_of(span.ends_us)) for span in spans]
    before: tuple[int, ...] = ()
    for number, term in enumerate(terms_of(times, zone, anchor_day)):
        before = (*before, spans[number - 1].plan_version_id) if term.began_at < term.start else ()
        yield Contract(term, before)
