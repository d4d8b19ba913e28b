"""The general way of rating: slices in canonical order through rules/charging.py, from the state that is stored.

What is not plain comes here: cut deltas, slots, bands, keys, scopes, increments, buckets. Totals are the meters of the
fast way; what is more (buckets, totals of sessions, how far a group was rated) is read for the batch and written with
it. A slice that comes after later ones, where that matters, is rated on top of them, and makes its group dirty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sms_aaa.db import charging as db_charging
from sms_aaa.db.charging import ChargedRow, DirtyRow, SessionTotal
from sms_aaa.flows.bucket_state import BucketState, load_buckets, store_buckets
from sms_aaa.flows.purses import purses_of
from sms_aaa.flows.weighing import cut_visits
from sms_aaa.rules.charging import Charging, Total
from sms_aaa.rules.pricing import tier_at
from sms_aaa.rules.tariff import Scope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sms_aaa.db.charging import Position
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.meters import Meter, Standing
    from sms_aaa.flows.placing import Visit
    from sms_aaa.flows.purses import Purses
    from sms_aaa.flows.weighing import Portion
    from sms_aaa.rules.charging import Charged

LATE_USAGE = "late-usage"
"""Why a group is dirty: a slice came after later ones."""

FIRST_GENERATION = 1


@dataclass(slots=True)
class Group:
    """A charging group at work: what its slices move."""

    head_id: int
    buckets: list[BucketState]
    charging: Charging
    was_until: Position | None = None
    is_ordered: bool = False
    until: Position | None = None
    late_us: int | None = None


@dataclass(slots=True)
class Work:
    """What the groups of a batch came to. `moved`: meters in the order in which they moved first.

    `ended`: sessions that have cost as much as one may, and are to be disconnected, with the component.
    """

    groups: dict[int, Group]
    heads: Mapping[int, int]
    moved: list[Meter]
    charged: list[tuple[Portion, Meter, Charged]] = field(default_factory=list)
    session_totals: dict[tuple[int, int, int], int] = field(default_factory=dict)
    ended: list[tuple[int, str]] = field(default_factory=list)

    def group_of(self, account_id: int) -> Group:
        return self.groups[self.heads.get(account_id, account_id)]

    @property
    def purses(self) -> Purses:
        """Money buckets of the accounts."""
        return purses_of({head_id: group.buckets for head_id, group in self.groups.items()}, self.heads)

    def edges_of(self, account_id: int) -> Iterable[int]:
        """Where buckets begin and end that the account may use."""
        for state in self.group_of(account_id).buckets:
            grant = state.bucket.grant
            if not state.bucket.is_of(account_id):
                continue
            yield grant.from_us
            if grant.until_us is not None:
                yield grant.until_us


def rate_visits(
    connection: Connection, visits: Sequence[Visit], heads: Mapping[int, int], moved: list[Meter], run_id: int
) -> tuple[int, Purses]:
    """Rates these and stores it, but for the totals and what money pays of them.

    The meters that move are added to `moved`. How many rows that made, and the money buckets of the accounts.

    `heads`: of accounts in groups or with buckets; any other is a group of its own without any.
    """
    work = load_work(connection, visits, heads, moved)
    portions = cut_visits(connection, visits, work.edges_of)
    load_session_totals(connection, work, portions)
    charge(work, portions)
    rows = [row_of(portion, meter, done) for portion, meter, done in work.charged]
    rows += _empty_rows(visits, work)
    db_charging.insert_charged(connection, rows, run_id)
    store_work(connection, work, run_id)
    _note_order(connection, work)
    if work.ended:
        db_charging.insert_cost_limits(connection, work.ended)
    return len(rows), work.purses


def load_work(
    connection: Connection,
    visits: Sequence[Visit],
    heads: Mapping[int, int],
    moved: list[Meter],
    *,
    since_us: int | None = None,
    also_ids: Collection[int] = (),
) -> Work:
    """The groups of these visits, with their buckets locked and how far they were rated.

    `since_us`: closed buckets too, that were valid then or later; and those of `also_ids`.
    """
    account_ids = {visit.delta.account_id for visit in visits}
    head_ids = {heads.get(account_id, account_id) for account_id in account_ids}
    special = account_ids & heads.keys()
    buckets: dict[int, list[BucketState]] = {}
    untils: dict[int, Position] = {}
    if special:
        session_ids = {visit.delta.session_id for visit in visits if visit.delta.account_id in special}
        buckets = load_buckets(connection, special, heads, session_ids, since_us=since_us, also_ids=also_ids)
        untils = db_charging.list_rated_until(connection, {heads[account_id] for account_id in special})
    groups = {}
    for head_id in head_ids:
        states = buckets.get(head_id, [])
        charging = Charging([state.bucket for state in states if state.bucket.terms.measure is not None])
        until = untils.get(head_id)
        groups[head_id] = Group(
            head_id, states, charging, until, is_ordered=until is not None or bool(states), until=until
        )
    return Work(groups, heads, moved)


def load_session_totals(connection: Connection, work: Work, portions: Sequence[Portion]) -> None:
    """Those of sessions that a component's price runs up over."""
    asked = [portion for portion in portions if portion.standing.priced.is_ordered]
    if not asked:
        return
    names = {meter.key.component_id: meter.component.name for portion in asked for meter in portion.standing.meters}
    groups = {portion.visit.delta.session_id: work.group_of(portion.visit.delta.account_id) for portion in asked}
    for row in db_charging.list_session_totals(connection, groups):
        if row.component_id in names:
            key = (row.subscription_id, names[row.component_id], row.session_id)
            groups[row.session_id].charging.session_totals[key] = row.quantity


def charge(work: Work, portions: Sequence[Portion]) -> None:
    """Moves the groups, and the meters with them, by slices in canonical order."""
    begun: dict[int, list[tuple[Meter, Total]]] = {}
    for portion in portions:
        standing = portion.standing
        group = work.group_of(standing.account_id)
        if id(standing) not in begun:
            begun[id(standing)] = [(meter, _begin(group, standing, meter)) for meter in standing.meters]
        _watch_order(group, portion)
        tariff = standing.priced.tariff
        for done in group.charging.charge(portion.piece, tariff.usage, standing.subscription_id, standing.cycle_id):
            meter = standing.meter(done.part.name)
            work.charged.append((portion, meter, done))
            meter.covered += done.quantity - done.priced
            meter.at_us = portion.piece.to_us
            note_moved(work.moved, meter)
            # The price is cut off at the maximum: what still cost something is what reached it.
            if done.session_ends and done.numerator:
                work.ended.append((portion.visit.delta.session_id, done.part.name))
            if done.part.scope is Scope.SESSION:
                key = (portion.visit.delta.session_id, standing.subscription_id, meter.key.component_id)
                work.session_totals[key] = done.total_before + done.priced
    for meter, total in (pair for pairs in begun.values() for pair in pairs):
        meter.quantity, meter.numerator = total.quantity, total.numerator
        meter.tier_until, meter.tier_picounits = tier_at(meter.component, total.quantity)
        if not meter.is_stored:
            note_moved(work.moved, meter)  # P(0) is due, whatever was used


def note_moved(moved: list[Meter], meter: Meter) -> None:
    if not meter.has_moved:
        meter.has_moved = True
        moved.append(meter)


def row_of(portion: Portion, meter: Meter, done: Charged, generation: int = FIRST_GENERATION) -> ChargedRow:
    """As it is stored."""
    delta = portion.visit.delta
    uses = [number for use in done.uses for number in (use.bucket_id, use.quantity, use.taken)]
    if done.blocked_by is not None and (not done.uses or done.uses[-1].bucket_id != done.blocked_by):
        uses += (done.blocked_by, 0, 0)
    return ChargedRow(
        meter.owner,
        delta.session_id,
        delta.seq,
        delta.to_us,
        portion.piece.index,
        generation,
        done.quantity,
        done.quantity - done.priced - done.uncovered,
        done.uncovered,
        done.total_before,
        done.numerator,
        tuple(uses),
    )


def empty_row(visit: Visit) -> ChargedRow:
    """Of a delta that no component counts anything of: it was rated nevertheless."""
    standing, delta = visit.stretches[0].standing, visit.delta
    meter = standing.meters[0]
    return ChargedRow(meter.owner, delta.session_id, delta.seq, delta.to_us, 0, FIRST_GENERATION, 0, 0, 0, 0, 0, ())


def store_work(connection: Connection, work: Work, run_id: int, *, is_again: bool = False) -> None:
    """Buckets with their entries, and totals of sessions. `is_again`: a re-rating; its differences are adjustments."""
    units = [
        state for group in work.groups.values() for state in group.buckets if state.bucket.terms.measure is not None
    ]
    store_buckets(connection, units, run_id, is_again=is_again)
    if work.session_totals:
        totals = [SessionTotal(*key, quantity) for key, quantity in sorted(work.session_totals.items())]
        db_charging.upsert_session_totals(connection, totals)


def _begin(group: Group, standing: Standing, meter: Meter) -> Total:
    total = Total(meter.quantity, meter.numerator)
    group.charging.totals[standing.subscription_id, standing.cycle_id, meter.component.name] = total
    return total


def _watch_order(group: Group, portion: Portion) -> None:
    """How far the group is rated; and whether this slice comes too late, in a cycle that is still open."""
    group.is_ordered |= portion.standing.priced.is_ordered
    delta, to_us = portion.visit.delta, portion.piece.to_us
    position = (to_us, delta.session_id, delta.seq)
    if group.was_until is not None and position < group.was_until and not portion.standing.is_closed:
        group.late_us = to_us if group.late_us is None else min(group.late_us, to_us)
    if group.until is None or position > group.until:
        group.until = position


def _note_order(connection: Connection, work: Work) -> None:
    ordered = [group for group in work.groups.values() if group.is_ordered]
    ahead = {group.head_id: group.until for group in ordered if group.until not in {None, group.was_until}}
    if ahead:
        db_charging.upsert_rated_until(connection, {head: until for head, until in ahead.items() if until is not None})
    late = [DirtyRow(group.head_id, group.late_us, LATE_USAGE) for group in ordered if group.late_us is not None]
    if late:
        db_charging.upsert_dirty(connection, late)


def _empty_rows(visits: Sequence[Visit], work: Work) -> list[ChargedRow]:
    counted = {id(portion.visit) for portion, _, _ in work.charged}
    return [empty_row(visit) for visit in visits if id(visit) not in counted]
