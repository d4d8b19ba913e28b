"""Where usage belongs: which subscription's, in which cycle of the account that pays for it.

Most of it lies in one cycle of one plain tariff, where the usage before it lay, and is known at once. The rest is
looked up: its stretches, one for each plan and cycle that it touches.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db import rating as db_rating
from sms_aaa.db.cycles import OpenedRow
from sms_aaa.db.rating import TenureRow, TotalKey
from sms_aaa.db.rating_queue import QueuedDelta
from sms_aaa.flows.cycle_book import CycleBook
from sms_aaa.flows.cycles import begin_standings
from sms_aaa.flows.meters import Meter, Standing
from sms_aaa.rules.instants import INSTANT_MAX, INSTANT_MIN
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.pricing import tier_at
from sms_aaa.rules.rating import DELTA_MAX

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating import StandingRow
    from sms_aaa.flows.meters import ShardMemory
    from sms_aaa.flows.shelf import PlanShelf, PricedTariff

NO_SUBSCRIPTION = "no-subscription"
"""Suspense: the service was never on a plan, so no tariff says what its usage costs."""

IMPLAUSIBLE_TIMES = "implausible-times"
"""Suspense: the delta is longer than any session is without a reading; its NAS's clock is to be looked at."""

_DELTA_US_MAX = DELTA_MAX // timedelta(microseconds=1)


class Stretch(Struct, frozen=True, gc=False):
    """[from_us, to_us) of a delta under one plan and in one cycle."""

    from_us: int
    to_us: int
    standing: Standing


class Visit(Struct, frozen=True, gc=False):
    """A delta that is to be cut or weighed: its stretches, which tile it."""

    delta: QueuedDelta
    zone: str
    stretches: tuple[Stretch, ...]


Placed = Standing | Visit | str
"""Where a delta belongs: to one plain standing whole, to what has to be looked at, or nowhere: a reason of suspense."""


def place(
    connection: Connection,
    shelf: PlanShelf,
    kept: ShardMemory,
    queued: Sequence[QueuedDelta],
    special: Container[int],
) -> list[Placed]:
    """Where each delta belongs; cycles that it falls into and that are not open yet are opened, with their fees.

    `special`: accounts with buckets, or in a group that may have some; nothing of theirs is plain.
    """
    latest = kept.latest
    placed: list[Placed] = []
    unknown = []
    for index, delta in enumerate(queued):
        standing = latest.get(delta.service_id)
        if (
            standing is not None
            and standing.account_id == delta.account_id
            and standing.begins_us <= delta.from_us
            and standing.since_us <= delta.to_us < standing.until_us
            and delta.account_id not in special
        ):
            placed.append(standing)
        else:
            placed.append("")
            unknown.append(index)
    if unknown:
        found = look_up(connection, shelf.cycles, [queued[index] for index in unknown])
        _open(connection, shelf, kept, [one for one in found if isinstance(one, Found)])
        for index, one in zip(unknown, found, strict=True):
            placed[index] = _settle(kept, one, special) if isinstance(one, Found) else one
    return placed


def find_tenure(tenures: Sequence[TenureRow], at_us: int) -> int:
    """Which of a service's subscriptions, in order of time, ran at an instant; else the last begun; else the first.

    Usage after the end of a subscription, or a moment before its beginning by a NAS's clock, belongs to it.
    """
    at = len(tenures) - 1
    while at and tenures[at].starts_us > at_us:
        at -= 1
    return at


def find_reasons(connection: Connection, deltas: Sequence[QueuedDelta]) -> list[str | None]:
    """Why each of these cannot be rated; None: it can."""
    found = look_up(connection, CycleBook(), deltas)
    return [one if isinstance(one, str) else None for one in found]


class Part(Struct, frozen=True, gc=False):
    """[from_us, to_us) of a delta in a tenure and in its account's cycle [start_us, end_us)."""

    from_us: int
    to_us: int
    tenure: TenureRow
    start_us: int
    end_us: int


class Found(Struct, frozen=True, gc=False):
    """A delta with its parts. The last one's tenure has all that ends in [since_us, until_us)."""

    delta: QueuedDelta
    parts: tuple[Part, ...]
    since_us: int
    until_us: int


def look_up(connection: Connection, cycles: CycleBook, deltas: Sequence[QueuedDelta]) -> list[Found | str]:
    """The parts of each delta, one for each subscription and cycle that it touches; or why it cannot be rated."""
    tenures: dict[tuple[int, int], list[TenureRow]] = {}
    for row in db_rating.list_tenures(connection, list({(d.service_id, d.account_id) for d in deltas})):
        if row.subscription_id is not None:
            tenures.setdefault((row.service_id, row.account_id), []).append(row)
    return [_find(cycles, delta, tenures.get((delta.service_id, delta.account_id), ())) for delta in deltas]


def _find(cycles: CycleBook, delta: QueuedDelta, tenures: Sequence[TenureRow]) -> Found | str:
    if not tenures:
        return NO_SUBSCRIPTION
    if delta.to_us - delta.from_us > _DELTA_US_MAX:
        return IMPLAUSIBLE_TIMES
    parts: list[Part] = []
    at_us = delta.from_us
    while True:
        at = find_tenure(tenures, at_us)
        tenure = tenures[at]
        start_us, end_us = cycles.cycle_at(tenure.zone, tenure.anchor_day, at_us)
        next_us = tenures[at + 1].starts_us if at + 1 < len(tenures) else INSTANT_MAX
        to_us = min(delta.to_us, end_us, next_us)
        parts.append(Part(at_us, to_us, tenure, start_us, end_us))
        # [from, to): what ends on an edge has nothing behind it.
        if to_us == delta.to_us:
            return Found(delta, tuple(parts), tenure.starts_us if at else INSTANT_MIN, next_us)
        at_us = to_us


def _open(connection: Connection, shelf: PlanShelf, kept: ShardMemory, found: Iterable[Found]) -> None:
    """Sees to it that every standing that is visited is in memory."""
    parts = {
        (part.tenure.account_id, part.tenure.subscription_id or 0, part.start_us): (part.tenure, part.end_us)
        for one in found
        for part in one.parts
    }
    wanted = {place: one for place, one in parts.items() if place not in kept.standings}
    if wanted:
        open_standings(connection, shelf, kept, wanted)


def open_standings(
    connection: Connection,
    shelf: PlanShelf,
    kept: ShardMemory,
    wanted: Mapping[tuple[int, int, int], tuple[TenureRow, int]],
) -> None:
    """Reads these, with the totals that are stored; cycles are opened with their fees.

    By (account, subscription, start of the cycle): the tenure and the end of the cycle.
    """
    stored = _list_standings(connection, wanted)
    new = sorted({(p[0], p[2], wanted[p][1]) for p in wanted if p not in stored})
    cycle_ids = db_rating.upsert_cycles(connection, new) if new else {}
    opened = {
        place: OpenedRow(
            place[0],
            stored[place][0].cycle_id if place in stored else cycle_ids[place[0], place[2]],
            place[1],
            tenure.plan_version_id,
        )
        for place, (tenure, _) in wanted.items()
    }
    beginning = [place for place in wanted if _begins(place, *wanted[place], stored.get(place, []))]
    if beginning:
        begin_standings(connection, shelf, [opened[place] for place in beginning])
        stored |= _list_standings(connection, beginning)
    for place, (tenure, end_us) in wanted.items():
        rows = stored.get(place, [])
        totals = {row.component_id: row for row in rows if row.component_id is not None}
        priced = shelf.tariff(connection, tenure.plan_version_id)
        is_closed = bool(rows) and rows[0].is_closed
        account_id, subscription_id, start_us = place
        kept.standings[place] = Standing(
            account_id,
            subscription_id,
            opened[place].cycle_id,
            start_us,
            end_us,
            is_closed,
            priced,
            tuple(_meters(opened[place], priced, totals, is_closed)),
            start_us,
        )


def _begins(place: tuple[int, int, int], tenure: TenureRow, end_us: int, rows: Sequence[StandingRow]) -> bool:
    """Whether it has nothing yet of what a cycle begins with, and the subscription runs in the cycle.

    Usage of a session that outlives its subscription may fall into a cycle that owes no fee.
    """
    _, _, start_us = place
    has_totals = any(row.component_id is not None for row in rows)
    runs = tenure.starts_us < end_us and (tenure.ends_us is None or tenure.ends_us > start_us)
    return runs and not has_totals and not (rows and rows[0].is_closed)


def _list_standings(
    connection: Connection, places: Iterable[tuple[int, int, int]]
) -> dict[tuple[int, int, int], list[StandingRow]]:
    """The rows of those places whose cycles are open or closed, by place."""
    wanted = list(places)
    stored: dict[tuple[int, int, int], list[StandingRow]] = {}
    for row in db_rating.list_standings(connection, wanted):
        stored.setdefault(wanted[row.index], []).append(row)
    return stored


def _settle(kept: ShardMemory, one: Found, special: Container[int]) -> Standing | Visit:
    """What a delta's parts lead to; and the last of them is remembered for what comes next."""
    stretches = tuple(
        Stretch(part.from_us, part.to_us, kept.standings[part.tenure.account_id, part.tenure.subscription_id or 0,
                                                         part.start_us])
        for part in one.parts
    )  # fmt: skip
    last = stretches[-1].standing
    is_plain = last.priced.is_plain and not last.is_closed and one.delta.account_id not in special
    if is_plain:
        # A delta may begin where its plan does, and end before the next plan and the next cycle begin.
        last.begins_us = last.since_us = max(one.since_us, last.start_us)
        last.until_us = min(one.until_us, last.end_us)
        known = kept.latest.get(one.delta.service_id)
        if known is None or known.begins_us <= last.begins_us:
            kept.latest[one.delta.service_id] = last
    if is_plain and len(stretches) == 1:
        return last
    return Visit(one.delta, one.parts[0].tenure.zone, stretches)


def _meters(
    opened: OpenedRow, priced: PricedTariff, totals: dict[int, StandingRow], is_closed: bool
) -> Iterable[Meter]:
    for part, component_id in zip(priced.tariff.usage, priced.component_ids, strict=True):
        key = TotalKey(opened.account_id, opened.cycle_id, opened.subscription_id, component_id)
        stored = totals.get(component_id)
        quantity = stored.quantity if stored else 0
        until, picounits = tier_at(part, quantity)
        directions = part.measure.directions
        yield Meter(
            key=key,
            component=part,
            currency=priced.tariff.currency,
            counts_in=Measure.UPLOAD in directions,
            counts_out=Measure.DOWNLOAD in directions,
            counts_seconds=Measure.SECONDS in directions,
            counts_events=Measure.EVENTS in directions,
            owner=db_rating.pack_owner(key),
            quantity=quantity,
            covered=stored.covered if stored else 0,
            numerator=int(stored.numerator) if stored else 0,
            posted_minor=stored.posted_minor if stored else 0,
            tier_until=until,
            tier_picounits=picounits,
            is_closed=is_closed,
            is_stored=stored is not None,
        )
