"""Meters: the running total of a component in a cycle, what it moves by, and where usage belongs.

A rater remembers the meters of each shard from batch to batch. They are worth something only while nobody else changed
them: so a shard has a version, which whoever changes totals counts up in his transaction, and a rater that does not
find the version that it left forgets what it knew. What a service is subscribed to may change without that: the change
feed tells.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db import feed as db_feed
from sms_aaa.db import rating as db_rating
from sms_aaa.db.cycles import OpenedRow
from sms_aaa.db.rating import TenureRow, TotalKey
from sms_aaa.db.rating_queue import QueuedDelta
from sms_aaa.flows.cycles import charge_fees
from sms_aaa.rules.cycle import Cycle, cycle_at
from sms_aaa.rules.instants import instant_of, instant_us
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.pricing import tier_at
from sms_aaa.rules.rating import DELTA_MAX, UsageFact, slices
from sms_aaa.rules.tariff import UsageComponent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating import StandingRow
    from sms_aaa.db.rating_queue import ClaimedShard
    from sms_aaa.flows.shelf import PlanShelf

NO_SUBSCRIPTION = "no-subscription"
"""Suspense: the service was never on a plan, so no tariff says what its usage costs."""

IMPLAUSIBLE_TIMES = "implausible-times"
"""Suspense: the delta is longer than any session is without a reading; its NAS's clock is to be looked at."""

STANDINGS_MAX = 16_384
"""Of a shard, kept between batches: 0.7 kB each, so 90 MB where 130,000 accounts and more use the network at a time."""

UNHEARD_MAX = timedelta(days=1)
"""Without a look at the change feed, which forgets too."""

RUN_MAX = timedelta(hours=1)
"""So long the batches of a rater are one run."""

_DELTA_US_MAX = DELTA_MAX // timedelta(microseconds=1)
_INSTANT_MIN, _INSTANT_MAX = -(2**63), 2**63 - 1


class Meter(Struct, gc=False, kw_only=True):
    """A component's total in a cycle; `posted_minor` of it is in the ledger. `owner`: what its rated rows begin with.

    What follows up to the total `tier_until` costs `tier_picounits` a rate unit.
    """

    key: TotalKey
    component: UsageComponent
    currency: str
    counts_in: bool
    counts_out: bool
    owner: bytes
    quantity: int
    numerator: int
    posted_minor: int
    tier_until: int
    tier_picounits: int
    is_stored: bool
    has_moved: bool = False


class Standing(Struct, gc=False):
    """A subscription in one cycle of the account that pays for it, with a meter a component.

    A delta that begins at `begins_us` or later and ends in [since_us, until_us) belongs to it, whole.
    """

    account_id: int
    begins_us: int
    since_us: int
    until_us: int
    meters: tuple[Meter, ...]


class Portion(Struct, frozen=True, gc=False):
    """What one meter gets of a delta that is cut. `index` counts a component's slices from 0."""

    meter: Meter
    index: int
    quantity: int


Placed = Standing | list[Portion] | str
"""Where a delta belongs: to one standing whole, to several in portions, or nowhere, for a reason of suspense."""


@dataclass(slots=True)
class ShardMemory:
    """Standings by (account, subscription, start of the cycle). `latest`: each service's, where most usage will lie."""

    version: int = -1
    standings: dict[tuple[int, int, int], Standing] = field(default_factory=dict)
    latest: dict[int, Standing] = field(default_factory=dict)


class RaterMemory:
    """What a rater knows from batch to batch, over one connection: after another it is to be made anew."""

    __slots__ = ("_calendar", "_heard_at", "_priced", "_run_began_at", "_run_id", "_shards", "_snapshot", "shelf")

    def __init__(self, shelf: PlanShelf) -> None:
        self.shelf = shelf
        self._calendar = _Calendar()
        self._priced: dict[int, tuple[_Priced, ...]] = {}
        self._shards: dict[int, ShardMemory] = {}
        self._snapshot: str | None = None
        self._heard_at: datetime | None = None
        self._run_id: int | None = None
        self._run_began_at: datetime | None = None

    def recall(self, connection: Connection, claimed: ClaimedShard, now: datetime) -> ShardMemory:
        """What is still true of a claimed shard. Until `keep` it is forgotten: the transaction may be rolled back."""
        self._hear_changes(connection, now)
        kept = self._shards.pop(claimed.shard, None)
        if kept is None or kept.version != claimed.version - 1 or len(kept.standings) > STANDINGS_MAX:
            return ShardMemory(claimed.version)
        kept.version = claimed.version
        return kept

    def keep(self, shard: int, kept: ShardMemory, run_id: int, now: datetime) -> None:
        """To be called when the transaction is committed, with what it was rated by and when."""
        self._shards[shard] = kept
        if run_id != self._run_id:
            self._run_id, self._run_began_at = run_id, now

    def find_run(self, now: datetime) -> int | None:
        """The rating run that goes on; None: another is to be begun. Of a row a batch there would soon be millions."""
        is_recent = self._run_began_at is not None and now - self._run_began_at < RUN_MAX
        return self._run_id if is_recent else None

    def _hear_changes(self, connection: Connection, now: datetime) -> None:
        is_recent = self._heard_at is not None and now - self._heard_at < UNHEARD_MAX
        news = db_feed.list_news(connection, self._snapshot if is_recent else None)
        self._snapshot, self._heard_at = news.snapshot, now
        if news.is_much:
            self._shards.clear()
            return
        for kept in self._shards.values():
            for service_id in news.services:
                kept.latest.pop(service_id, None)

    def place(self, connection: Connection, kept: ShardMemory, queued: Sequence[QueuedDelta]) -> list[Placed]:
        """Where each delta belongs; cycles that it falls into and that are not open yet are opened, with their fees."""
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
            ):
                placed.append(standing)
            else:
                placed.append("")
                unknown.append(index)
        if unknown:
            visits = self._visits(connection, [queued[index] for index in unknown])
            self._open(connection, kept, [visit for visit in visits if isinstance(visit, _Visit)])
            for index, visit in zip(unknown, visits, strict=True):
                placed[index] = self._settle(connection, kept, visit) if isinstance(visit, _Visit) else visit
        return placed

    def _visits(self, connection: Connection, deltas: Sequence[QueuedDelta]) -> list[_Visit | str]:
        tenures: dict[tuple[int, int], list[TenureRow]] = {}
        for row in db_rating.list_tenures(connection, list({(d.service_id, d.account_id) for d in deltas})):
            if row.subscription_id is not None:
                tenures.setdefault((row.service_id, row.account_id), []).append(row)
        return [self._visit(delta, tenures.get((delta.service_id, delta.account_id), ())) for delta in deltas]

    def _visit(self, delta: QueuedDelta, tenures: Sequence[TenureRow]) -> _Visit | str:
        if not tenures:
            return NO_SUBSCRIPTION
        if delta.to_us - delta.from_us > _DELTA_US_MAX:
            return IMPLAUSIBLE_TIMES
        at = find_tenure(tenures, delta.to_us)
        tenure = tenures[at]
        return _Visit(
            delta,
            tenure,
            tenure.starts_us if at else _INSTANT_MIN,
            tenures[at + 1].starts_us if at + 1 < len(tenures) else _INSTANT_MAX,
            self._calendar.cycles(tenure.zone, tenure.anchor_day, delta.from_us, delta.to_us),
        )

    def _open(self, connection: Connection, kept: ShardMemory, visits: Iterable[_Visit]) -> None:
        """Sees to it that every standing that is visited is in memory, with the totals that are stored."""
        wanted: dict[tuple[int, int, int], tuple[TenureRow, int]] = {}
        for visit in visits:
            tenure = visit.tenure
            assert tenure.subscription_id is not None
            for start_us, end_us in visit.cycles:
                place = (tenure.account_id, tenure.subscription_id, start_us)
                if place not in kept.standings:
                    wanted[place] = (tenure, end_us)
        places = list(wanted)
        stored: dict[int, list[StandingRow]] = {}
        for row in db_rating.list_standings(connection, places):
            stored.setdefault(row.index, []).append(row)
        new = sorted({(p[0], p[2], wanted[p][1]) for index, p in enumerate(places) if index not in stored})
        cycle_ids = db_rating.upsert_cycles(connection, new) if new else {}
        owing = []
        for index, (place, (tenure, end_us)) in enumerate(wanted.items()):
            account_id, subscription_id, start_us = place
            rows = stored.get(index)
            cycle_id = rows[0].cycle_id if rows else cycle_ids[account_id, start_us]
            totals = {row.component_id: row for row in rows or () if row.component_id is not None}
            opened = OpenedRow(account_id, cycle_id, subscription_id, tenure.plan_version_id)
            # Usage of a session that outlives its subscription may fall into a cycle that owes no fee.
            if not totals and tenure.starts_us < end_us and (tenure.ends_us is None or tenure.ends_us > start_us):
                owing.append(opened)
            meters = tuple(_meter(opened, priced, totals) for priced in self._price(connection, tenure))
            kept.standings[place] = Standing(account_id, start_us, start_us, end_us, meters)
        charge_fees(connection, self.shelf, owing)

    def _price(self, connection: Connection, tenure: TenureRow) -> tuple[_Priced, ...]:
        """The usage components of a plan version, in the order of its tariff."""
        found = self._priced.get(tenure.plan_version_id)
        if found is None:
            priced = self.shelf.get(connection, tenure.plan_version_id)
            tariff = priced.plan.tariff
            found = self._priced[tenure.plan_version_id] = tuple(
                _Priced(
                    component,
                    priced.component_ids[component.name],
                    tariff.currency,
                    Measure.UPLOAD in component.measure.directions,
                    Measure.DOWNLOAD in component.measure.directions,
                )
                for component in tariff.usage
            )
        return found

    def _settle(self, connection: Connection, kept: ShardMemory, visit: _Visit) -> Placed:
        """The standing that a visit leads to, or the portions of those; and it is remembered for what comes next."""
        delta, tenure = visit.delta, visit.tenure
        assert tenure.subscription_id is not None
        standings = [
            kept.standings[tenure.account_id, tenure.subscription_id, start_us] for start_us, _ in visit.cycles
        ]
        last, (start_us, end_us) = standings[-1], visit.cycles[-1]
        last.since_us, last.until_us = max(visit.since_us, start_us), min(visit.until_us, end_us)
        known = kept.latest.get(delta.service_id)
        if known is None or known.begins_us <= last.begins_us:
            kept.latest[delta.service_id] = last
        if len(standings) == 1:
            return last
        fact = UsageFact(delta.octets_in, delta.octets_out, instant_of(delta.from_us), instant_of(delta.to_us))
        cycles = [Cycle(instant_of(start_us), instant_of(end_us)) for start_us, end_us in visit.cycles]
        return [
            Portion(standings[part.index].meters[number], part.index, part.quantity)
            for number, priced in enumerate(self._price(connection, tenure))
            for part in slices(fact, priced.component, cycles)
        ]


def find_tenure(tenures: Sequence[TenureRow], at_us: int) -> int:
    """Which of a service's subscriptions, in order of time, ran at an instant; else the last begun; else the first.

    Usage after the end of a subscription, or a moment before its beginning by a NAS's clock, belongs to it.
    """
    at = len(tenures) - 1
    while at and tenures[at].starts_us > at_us:
        at -= 1
    return at


class _Priced(Struct, frozen=True, gc=False):
    component: UsageComponent
    component_id: int
    currency: str
    counts_in: bool
    counts_out: bool


class _Visit(Struct, frozen=True, gc=False):
    """A delta, the subscription that it falls to while it ends in [since_us, until_us), the cycles that it touches."""

    delta: QueuedDelta
    tenure: TenureRow
    since_us: int
    until_us: int
    cycles: Sequence[tuple[int, int]]


def _meter(opened: OpenedRow, priced: _Priced, totals: dict[int, StandingRow]) -> Meter:
    key = TotalKey(opened.account_id, opened.cycle_id, opened.subscription_id, priced.component_id)
    stored = totals.get(priced.component_id)
    quantity = stored.quantity if stored else 0
    until, picounits = tier_at(priced.component, quantity)
    return Meter(
        key=key,
        component=priced.component,
        currency=priced.currency,
        counts_in=priced.counts_in,
        counts_out=priced.counts_out,
        owner=db_rating.pack_owner(key),
        quantity=quantity,
        numerator=int(stored.numerator) if stored else 0,
        posted_minor=stored.posted_minor if stored else 0,
        tier_until=until,
        tier_picounits=picounits,
        is_stored=stored is not None,
    )


class _Calendar:
    """Cycles as pairs of instants, worked out once for each zone and anchor day: they are the same for all accounts."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[list[int], list[tuple[int, int]]]] = {}

    def cycles(self, zone: str, anchor_day: int, from_us: int, to_us: int) -> Sequence[tuple[int, int]]:
        """Those that [from_us, to_us) touches, as rules.rating.cycles_of has them."""
        found = [self._cycle_at(zone, anchor_day, from_us)]
        while found[-1][1] < to_us:
            found.append(self._cycle_at(zone, anchor_day, found[-1][1]))
        return found

    def _cycle_at(self, zone: str, anchor_day: int, at_us: int) -> tuple[int, int]:
        starts, cycles = self._known.setdefault((zone, anchor_day), ([], []))
        at = bisect_right(starts, at_us)
        if at and at_us < cycles[at - 1][1]:
            return cycles[at - 1]
        cycle = cycle_at(instant_of(at_us), zone, anchor_day)
        bounds = (instant_us(cycle.start), instant_us(cycle.end))
        starts.insert(at, bounds[0])
        cycles.insert(at, bounds)
        return bounds
