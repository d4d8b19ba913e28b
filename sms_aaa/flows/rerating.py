"""Rating a charging group again: what is stored becomes what its slices in canonical order make it.

Where order matters, usage that comes late was rated on top of what it should have come before, and its group is dirty.
Here the group's slices from an instant on are taken back from the state that is stored, and go through the rules again
in their order. What comes out otherwise is written as a new generation, and totals, buckets and the ledger move by the
difference: so a second run finds nothing to write. Only open cycles are rated again; what lies in a closed one stays.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sms_aaa import __version__
from sms_aaa.db import audit as db_audit
from sms_aaa.db import charging as db_charging
from sms_aaa.db import rating as db_rating
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.charging import ChargedRow
from sms_aaa.db.rating import TotalKey, pack_owner
from sms_aaa.db.rating_queue import QueuedDelta
from sms_aaa.db.usage import SHARDS
from sms_aaa.flows.charging import (
    FIRST_GENERATION,
    charge,
    empty_row,
    load_session_totals,
    load_work,
    note_moved,
    row_of,
    store_work,
)
from sms_aaa.flows.meters import ShardMemory
from sms_aaa.flows.placing import Visit, open_standings, place
from sms_aaa.flows.posting import post, post_paid
from sms_aaa.flows.purses import pay_owed
from sms_aaa.flows.weighing import cut_visits
from sms_aaa.rules.instants import INSTANT_MAX
from sms_aaa.rules.tariff import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.charging import RatedDeltaRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.charging import Work
    from sms_aaa.flows.meters import Meter, Standing
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.flows.weighing import Portion
    from sms_aaa.rules.actor import Actor

RERATED = "re-rating"
"""Reason of what a re-rating posts."""

DeltaKey = tuple[int, int]
PartKey = tuple[int, int, int]
"""(session id, seq) of a delta; and with the component id."""


@dataclass(frozen=True, slots=True)
class Rerated:
    """What rating a group again came to: how many deltas were looked at, how many rows differed and were written.

    `moved`: totals that are other now, as (key, currency, posted before, posted after). `paid`: what money buckets paid
    of what was owed, as (account id, bucket id, currency, minor units).
    """

    head_id: int
    deltas: int
    rows: int
    entries: int
    moved: tuple[tuple[TotalKey, str, int, int], ...]
    paid: tuple[tuple[int, int, str, int], ...] = ()


@dataclass(slots=True)
class _Past:
    """What is stored of a group from an instant on."""

    visits: list[Visit]
    portions: list[Portion]
    rows: list[RatedDeltaRow]
    standings: dict[tuple[int, int], Standing]
    work: Work
    moved: list[Meter]


def rerate_group(
    connection: Connection, shelf: PlanShelf, head_id: int, *, since_us: int, now: datetime, actor: Actor | None = None
) -> Rerated:
    """Rates the open cycles of a charging group again, from the slices on that end at `since_us` or later.

    One transaction, in which the group is clean afterwards. Nothing is written where nothing differs. `actor`: who
    asked for it; the rater by itself is its own trace.
    """
    db_queue.touch_shards(connection, [head_id % SHARDS])
    members = db_charging.list_members(connection, head_id)
    past = _read_past(connection, shelf, members, since_us)
    db_charging.delete_dirty(connection, head_id)
    if past is None:
        return Rerated(head_id, 0, 0, 0, ())
    posted = {meter.key: meter.posted_minor for standing in past.standings.values() for meter in standing.meters}
    stored = _take_back(past)
    charge(past.work, past.portions)
    rows = list(_differing(past, stored))
    run_id = entries = 0
    if rows:
        run_id = db_rating.insert_run(connection, program=__version__, started_at=now, kind="rerate")
        db_rating.add_to_run(connection, run_id, len({(row.session_id, row.seq) for row in rows}))
        db_charging.insert_charged(connection, rows, run_id)
        entries = _store(connection, shelf, past, run_id)
    purses = past.work.purses
    paid = pay_owed(
        connection, purses, [(portion.piece, meter, done.numerator) for portion, meter, done in past.work.charged]
    )
    if paid:
        run_id = run_id or db_rating.insert_run(connection, program=__version__, started_at=now, kind="rerate")
        entries += post_paid(connection, paid, purses, run_id)
    moved = tuple(
        (meter.key, meter.currency, posted[meter.key], meter.posted_minor)
        for meter in past.moved
        if posted[meter.key] != meter.posted_minor
    )
    if actor is not None and run_id:
        after = {"run": run_id, "rows": len(rows), "amounts": len(moved)}
        db_audit.insert_change(
            connection, actor, action="rerate", object_kind="account", object_id=head_id, before=None, after=after
        )
    payments = tuple((one.meter.key.account_id, one.bucket_id, one.meter.currency, one.share_minor) for one in paid)
    return Rerated(head_id, len(past.visits), len(rows), entries, moved, payments)


def _store(connection: Connection, shelf: PlanShelf, past: _Past, run_id: int) -> int:
    store_work(connection, past.work, run_id, is_again=True)
    return post(connection, shelf, past.moved, run_id, reason=RERATED, purses=past.work.purses)


def _read_past(connection: Connection, shelf: PlanShelf, members: Sequence[int], since_us: int) -> _Past | None:
    """The group's slices in open cycles, from one on that ends at `since_us` or later; None: there are none.

    A delta that is cut has slices that end before it does; between them lie those of others. So the beginning moves
    back until no slice is left before it that belongs to a delta behind it.
    """
    open_us = db_charging.get_open_since(connection, members)
    since_us = max(since_us, open_us)
    if since_us == INSTANT_MAX:
        return None
    heads = dict.fromkeys(members, members[0])
    while True:
        rows = db_charging.list_rated_deltas(connection, members, since_us)
        visits, kept = _visit_again(connection, shelf, rows, heads)
        if not visits:
            return None
        moved: list[Meter] = []
        used = {number for row in rows for number in (row.uses or ())[::3]}
        work = load_work(connection, visits, heads, moved, since_us=since_us, also_ids=used)
        portions = [one for one in cut_visits(connection, visits, work.edges_of) if not one.standing.is_closed]
        earliest_us = portions[0].piece.to_us if portions else since_us
        if earliest_us >= since_us:
            break
        since_us = earliest_us
    load_session_totals(connection, work, portions)
    standings = {(one.subscription_id, one.cycle_id): one for one in kept.standings.values()}
    _open_missing(connection, shelf, kept, standings, rows)
    return _Past(visits, portions, rows, standings, work, moved)


def _visit_again(
    connection: Connection, shelf: PlanShelf, rows: Sequence[RatedDeltaRow], heads: dict[int, int]
) -> tuple[list[Visit], ShardMemory]:
    """Where the deltas of these belong today."""
    deltas = {
        (row.session_id, row.seq): QueuedDelta(
            row.to_us, row.session_id, row.seq, row.account_id, row.service_id, row.from_us, row.octets_in,
            row.octets_out, row.seconds,
        )
        for row in rows
    }  # fmt: skip
    kept = ShardMemory()
    placed = place(connection, shelf, kept, list(deltas.values()), heads)
    return [where for where in placed if isinstance(where, Visit)], kept


def _open_missing(
    connection: Connection,
    shelf: PlanShelf,
    kept: ShardMemory,
    standings: dict[tuple[int, int], Standing],
    rows: Sequence[RatedDeltaRow],
) -> None:
    """Standings that usage was rated in and does not belong to any more, since a plan was changed in retrospect."""
    missing = {
        (row.subscription_id, row.cycle_id) for row in rows if (row.subscription_id, row.cycle_id) not in standings
    }
    if not missing:
        return
    wanted = {}
    for tenure, start_us, end_us in db_charging.list_places(connection, sorted(missing)):
        assert tenure.subscription_id is not None
        wanted[tenure.account_id, tenure.subscription_id, start_us] = (tenure, end_us)
    open_standings(connection, shelf, kept, wanted)
    standings.update({(one.subscription_id, one.cycle_id): one for one in kept.standings.values()})


def _take_back(past: _Past) -> dict[PartKey, list[RatedDeltaRow]]:
    """Takes from totals and buckets what the stored slices in open cycles gave them; all stored rows by part."""
    known = {(visit.delta.session_id, visit.delta.seq) for visit in past.visits}
    stored: dict[PartKey, list[RatedDeltaRow]] = defaultdict(list)
    buckets = {state.bucket.grant.bucket_id: state for group in past.work.groups.values() for state in group.buckets}
    for state in buckets.values():
        # What others hold stays held; nobody's own reservation is used a second time.
        state.bucket.reserved = {"": state.bucket.held} if state.bucket.held else {}
        state.reserved = dict(state.bucket.reserved)
    for row in past.rows:
        if (row.session_id, row.seq) not in known:
            continue
        stored[row.session_id, row.seq, row.component_id].append(row)
        standing = past.standings[row.subscription_id, row.cycle_id]
        if standing.is_closed:
            continue
        meter = next(one for one in standing.meters if one.key.component_id == row.component_id)
        _take_from_meter(past, row, standing, meter)
        uses = row.uses or ()
        for bucket_id, quantity, taken in zip(uses[::3], uses[1::3], uses[2::3], strict=True):
            bucket = buckets[bucket_id].bucket
            bucket.used -= taken
            if row.session_id in bucket.covered:
                bucket.covered[row.session_id] -= quantity
            if row.account_id in bucket.taken:
                bucket.taken[row.account_id] -= taken
        if row.uncovered:
            buckets[uses[-3]].bucket.overrun -= row.uncovered
    return stored


def _take_from_meter(past: _Past, row: RatedDeltaRow, standing: Standing, meter: Meter) -> None:
    priced = row.quantity - row.covered - row.uncovered
    meter.quantity -= priced
    meter.covered -= row.covered + row.uncovered
    meter.numerator -= row.numerator
    note_moved(past.moved, meter)
    if meter.component.scope is Scope.SESSION:
        totals = past.work.group_of(standing.account_id).charging.session_totals
        key = (standing.subscription_id, meter.component.name, row.session_id)
        totals[key] = totals.get(key, 0) - priced
        past.work.session_totals[row.session_id, standing.subscription_id, meter.key.component_id] = totals[key]


def _differing(past: _Past, stored: dict[PartKey, list[RatedDeltaRow]]) -> list[ChargedRow]:
    """The rows of the next generation, of deltas in components that come out otherwise than stored."""
    shifts = _shifts(past, stored)
    rated: dict[PartKey, list[ChargedRow]] = defaultdict(list)
    for portion, meter, done in past.work.charged:
        row = row_of(portion, meter, done)
        shift = shifts.get((row.session_id, row.seq), 0)
        rated[row.session_id, row.seq, meter.key.component_id].append(replace(row, slice=row.slice + shift))
    closed = {place for place, standing in past.standings.items() if standing.is_closed}
    for key, was in stored.items():
        rated[key] += (_as_charged(row) for row in was if (row.subscription_id, row.cycle_id) in closed)
    visits = {(visit.delta.session_id, visit.delta.seq): visit for visit in past.visits}
    found: list[ChargedRow] = []
    for key, rows in rated.items():
        before = [_as_charged(row) for row in stored.get(key, ())]
        if _essence(before) == _essence(rows):
            continue
        generation = max((row.generation for row in before), default=FIRST_GENERATION - 1) + 1
        # What a component counted once and does not any more gets a row that says so.
        written = rows or [replace(empty_row(visits[key[:2]]), owner=before[0].owner)]
        found += (replace(row, generation=generation) for row in written)
    return found


def _shifts(past: _Past, stored: dict[PartKey, list[RatedDeltaRow]]) -> dict[DeltaKey, int]:
    """By how much the slices of a delta are numbered higher, so that those in a closed cycle keep their numbers."""
    taken: dict[DeltaKey, int] = {}
    for (session_id, seq, _), rows in stored.items():
        for row in rows:
            if past.standings[row.subscription_id, row.cycle_id].is_closed:
                taken[session_id, seq] = max(taken.get((session_id, seq), -1), row.slice)
    firsts: dict[DeltaKey, int] = {}
    for portion in past.portions:
        key = (portion.visit.delta.session_id, portion.visit.delta.seq)
        firsts[key] = min(firsts.get(key, portion.piece.index), portion.piece.index)
    return {key: max(last + 1 - firsts.get(key, 0), 0) for key, last in taken.items()}


def _as_charged(row: RatedDeltaRow) -> ChargedRow:
    owner = pack_owner(TotalKey(row.account_id, row.cycle_id, row.subscription_id, row.component_id))
    return ChargedRow(
        owner,
        row.session_id,
        row.seq,
        row.to_us,
        row.slice,
        row.generation,
        row.quantity,
        row.covered,
        row.uncovered,
        row.total_before,
        row.numerator,
        row.uses or (),
    )


def _essence(rows: Sequence[ChargedRow]) -> list[ChargedRow]:
    """What rows say, whatever their generation; rows of nothing say nothing."""
    said = (replace(row, generation=FIRST_GENERATION) for row in rows if row.quantity or row.numerator or row.uses)
    return sorted(said, key=lambda row: row.slice)
