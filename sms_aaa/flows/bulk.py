"""Bulk rating: a long queue is rated set-wise, in SQL; what does not fit is given back, to be rated slice by slice.

In the transaction that has locked the shard: claimed, rated and stored, or nothing of it. What the statements need to
know of tariffs is worked out here, by the same rules as everywhere: where slots and cycles begin, which bucket covers
what, and prices in closed form.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from sms_aaa.db import bulk_rating as db_bulk
from sms_aaa.db import bulk_storing as db_storing
from sms_aaa.db.bulk_pricing import Features, insert_priced
from sms_aaa.db.bulk_rating import BulkPart, CalendarRow, JudgedTerms
from sms_aaa.rules.buckets import BucketTerms
from sms_aaa.rules.cycle import cycle_at
from sms_aaa.rules.instants import INSTANT_MAX, SECOND_US, instant_of, instant_us
from sms_aaa.rules.ledger import Event, sides_of
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.money import PICOUNITS, exponent
from sms_aaa.rules.set_wise import (
    cover_mask,
    is_set_wise,
    is_set_wise_bucket,
    slot_mask,
    slot_names,
    steps_of,
    stops,
    swallows,
)
from sms_aaa.rules.slots import Calendar, slot_segments
from sms_aaa.rules.tariff import DISCOUNT_PARTS, Rounding, Scope, Switch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sms_aaa.db.bulk_rating import CalendarAsked
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating_queue import QueuedDelta
    from sms_aaa.flows.shelf import PlanShelf, PricedPlan
    from sms_aaa.rules.tariff import UsageComponent

BULK_MAX = 100_000
"""Deltas in one transaction."""

SPAN_BEHIND = timedelta(days=45)
SPAN_AHEAD = timedelta(days=2)
"""Of now: usage beyond has a clock or a delay that is rare enough to be looked at slice by slice."""

EDGES_MAX = 400
"""Of a tariff's calendar: so many lie in a page, with what begins at each. Beyond, as with slots of an hour and usage
of a month, it is rated slice by slice."""

LATE_USAGE = "late-usage"

_MODES = {Rounding.HALF_AWAY: 0, Rounding.UP: 1, Rounding.DOWN: 2}
_SWITCHES = {Switch.LINEAR: 0, Switch.START: 1, Switch.END: 2}


@dataclass(frozen=True, slots=True)
class BulkRated:
    """What a bulk batch did. `left`: deltas that were taken off the queue and are still to be rated."""

    deltas: int
    slices: int
    entries: int
    queued_at: datetime
    left: list[QueuedDelta]


def rate_in_bulk(
    connection: Connection,
    shelf: PlanShelf,
    shard: int,
    run_id: int,
    *,
    now: datetime,
    at_least: int,
    limit: int = BULK_MAX,
) -> BulkRated | None:
    """Rates up to `limit` deltas of a locked shard's queue set-wise; None: fewer than `at_least` wait there."""
    waiting, queued_at = db_bulk.count_waiting(connection, shard, at_least)
    if waiting < at_least or queued_at is None:
        return None
    with _planned(connection):
        db_bulk.create_bulk_tables(connection)
        claimed = db_bulk.claim_bulk(connection, shard, limit)
        left, features = _prepare(connection, shelf, now)
        slices = entries = 0
        if claimed > len(left):
            insert_priced(connection, features)
            slices = db_storing.insert_rated_usage(connection, run_id, features.rounds)
            db_bulk.set_planner(connection, _BY_KEY)
            entries = db_storing.move_totals(connection, run_id)
            if features.has_sessions:
                db_storing.move_session_totals(connection)
            db_storing.use_buckets(connection, run_id, features.rounds)
            if features.has_order:
                db_storing.note_order(connection, LATE_USAGE)
    return BulkRated(claimed - len(left), slices, entries, queued_at, left)


_PLANNER = {
    "enable_hashjoin": "on", "enable_mergejoin": "off", "enable_nestloop": "off", "enable_seqscan": "on", "jit": "off",
    "work_mem": "256MB", "max_parallel_workers_per_gather": "0",
}  # fmt: skip


_BY_KEY = {"enable_nestloop": "on", "enable_seqscan": "off"}
"""Rows of large tables are found where they are known to be: reading all of such a table through is never faster."""


@contextmanager
def _planned(connection: Connection) -> Iterator[None]:
    """What a batch of a hundred thousand rows wants of the planner, and not whoever comes after it."""
    before = db_bulk.set_planner(connection, _PLANNER)
    yield
    db_bulk.set_planner(connection, before)


def _prepare(connection: Connection, shelf: PlanShelf, now: datetime) -> tuple[list[QueuedDelta], Features]:
    """Fills the tables that the pricing reads; the deltas that stay out, and what the others need."""
    plans = _insert_calendars(connection, shelf, now)
    found = db_bulk.insert_buckets(connection)
    terms = [msgspec.convert(one.terms, BucketTerms) for one in found]
    db_bulk.insert_parts(connection, list(_part_rows(plans, terms)))
    judged = [
        JudgedTerms(row.terms_hash, is_set_wise_bucket(one), stops(one), swallows(one))
        for row, one in zip(found, terms, strict=True)
    ]
    rounds = db_bulk.judge_buckets(connection, judged)
    db_bulk.insert_meters(connection)
    left = db_bulk.take_out(connection)
    if rounds:
        db_bulk.fill_purses(connection, rounds)
    usage = [part for priced in plans.values() for part in priced.plan.tariff.usage]
    has_sessions = any(part.scope is Scope.SESSION for part in usage)
    features = Features(
        rounds=rounds,
        has_sessions=has_sessions,
        has_increments=any(has_increments(part) for part in usage),
        has_steps=not all(steps_of(part).is_line for part in usage),
        has_stops=any(one.stops or one.swallows for one in judged),
        has_order=has_sessions or db_bulk.is_ordered(connection),
    )
    return left, features


def _insert_calendars(connection: Connection, shelf: PlanShelf, now: datetime) -> dict[int, PricedPlan]:
    """The plans of the batch that can be rated set-wise, by their versions, with their calendars stored."""
    asked = db_bulk.insert_owners(connection, now - SPAN_BEHIND, now + SPAN_AHEAD)
    plans = {one.plan_version_id: shelf.get(connection, one.plan_version_id) for one in asked}
    unfit = {number for number, priced in plans.items() if not is_set_wise(priced.plan.tariff)}
    calendars = [_calendar(one, plans[one.plan_version_id]) for one in asked if one.plan_version_id not in unfit]
    unfit |= {row.plan_version_id for row in calendars if len(row.edges) > EDGES_MAX}
    if unfit:
        db_bulk.exclude_plans(connection, list(unfit))
    db_bulk.insert_calendars(connection, [row for row in calendars if row.plan_version_id not in unfit])
    return {number: priced for number, priced in plans.items() if number not in unfit}


def _part_rows(plans: Mapping[int, PricedPlan], terms: Sequence[BucketTerms]) -> Iterator[BulkPart]:
    n = 0
    for number, priced in plans.items():
        tariff = priced.plan.tariff
        for ordinal, part in enumerate(tariff.usage):
            yield part_row(
                n,
                number,
                ordinal,
                priced.component_ids[part.name],
                part,
                tariff.currency,
                slots=slot_mask(tariff, part.slots),
                covers=[cover_mask(tariff, part, one) for one in terms],
            )
            n += 1


def _calendar(asked: CalendarAsked, priced: PricedPlan) -> CalendarRow:
    """A row of bulk_calendar: edges tile time from before the first to after the last instant that is asked for."""
    tariff = priced.plan.tariff
    cycles = [cycle_at(instant_of(asked.first_us), asked.zone, asked.anchor_day)]
    while instant_us(cycles[-1].end) <= asked.last_us:
        cycles.append(cycle_at(cycles[-1].end, asked.zone, asked.anchor_day))
    starts_us = [instant_us(cycle.start) for cycle in cycles]
    names = slot_names(tariff)
    slots = slot_segments(
        Calendar(asked.zone, tariff.slots, tariff.holidays), asked.first_us - SECOND_US, asked.last_us + SECOND_US
    )
    found = dict(slots)
    begins = sorted({*found, *(start for start in starts_us if start > slots[0][0])})
    rows = []
    slot, cycle = "", 0
    for begin in begins:
        slot = found.get(begin, slot)
        while cycle < len(starts_us) and starts_us[cycle] <= begin:
            cycle += 1
        rows.append((begin, names.index(slot), max(cycle, 1)))
    return CalendarRow(
        n=asked.n,
        plan_version_id=asked.plan_version_id,
        parts=len(tariff.usage),
        switch=_SWITCHES[tariff.switch],
        edges=[*(begin for begin, _, _ in rows), INSTANT_MAX],
        slots=[slot for _, slot, _ in rows],
        cycles=[cycle for _, _, cycle in rows],
        cycle_starts=starts_us,
    )


def part_row(
    n: int,
    plan_version_id: int,
    ordinal: int,
    component_id: int,
    part: UsageComponent,
    currency: str,
    *,
    slots: int,
    covers: Sequence[int],
) -> BulkPart:
    """A row of bulk_part. `slots`: the bits of those that it is for; `covers`: those in which each bucket covers it."""
    steps = steps_of(part)
    is_narrow = steps.narrow_max >= 0
    narrow = [tuple(each // steps.factor if is_narrow else 0 for each in row) for row in (steps.units, steps.bases)]
    maximum = None if steps.session_maximum is None else steps.session_maximum // steps.factor
    shape = part.shape
    # The price is (numerator x kept) / denominator; the cap is brought to the same denominator.
    denominator = part.denominator * DISCOUNT_PARTS
    cap = None if shape.maximum_picounits is None else shape.maximum_picounits * (denominator // PICOUNITS)
    decimals = exponent(currency)
    return BulkPart(
        (
            n, plan_version_id, ordinal, component_id, slots, list(covers),
            int(Measure.UPLOAD in part.measure.directions), int(Measure.DOWNLOAD in part.measure.directions),
            int(part.measure is Measure.SECONDS), int(part.measure is Measure.EVENTS), part.scope is Scope.SESSION,
            part.grace_quantity, max(part.minimum_quantity, part.initial_increment), part.initial_increment,
            part.following_increment, list(steps.begins), list(steps.origins), list(steps.increments),
            list(steps.units), list(steps.bases), steps.connect, steps.session_maximum, steps.factor,
            steps.narrow_max, list(narrow[0]), list(narrow[1]), steps.connect // steps.factor if is_narrow else 0,
            maximum if is_narrow else None, denominator, DISCOUNT_PARTS - shape.discount_billionths, cap,
            10 ** (decimals if shape.rounding_scale is None else shape.rounding_scale), 10**decimals,
            _MODES[shape.rounding], currency, *sides_of(Event.USAGE, component=part.name),
        )
    )  # fmt: skip


def has_increments(part: UsageComponent) -> bool:
    """Whether a billable quantity may be another than the quantity."""
    return bool(
        part.grace_quantity or part.minimum_quantity or part.initial_increment > 1 or part.following_increment > 1
    )
