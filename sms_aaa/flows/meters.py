"""Meters: the running total of a component in a cycle, what it moves by, and what a rater remembers of them.

A rater remembers the meters of each shard from batch to batch. They are worth something only while nobody else changed
them: so a shard has a version, which whoever changes totals counts up in his transaction, and a rater that does not
find the version that it left forgets what it knew. What a service is subscribed to may change without that: the change
feed tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db import feed as db_feed
from sms_aaa.db.rating import TotalKey
from sms_aaa.flows.shelf import PricedTariff
from sms_aaa.rules.tariff import UsageComponent

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating_queue import ClaimedShard
    from sms_aaa.flows.shelf import PlanShelf

STANDINGS_MAX = 16_384
"""Of a shard, kept between batches: 0.7 kB each, so 90 MB where 130,000 accounts and more use the network at a time."""

UNHEARD_MAX = timedelta(days=1)
"""Without a look at the change feed, which forgets too."""

RUN_MAX = timedelta(hours=1)
"""So long the batches of a rater are one run."""


class Meter(Struct, gc=False, kw_only=True):
    """A component's total in a cycle; `posted_minor` of it is in the ledger. `owner`: what its rated rows begin with.

    What follows up to the total `tier_until` costs `tier_picounits` a base unit. `at_us`: the end of the slice that
    moved it last, in this batch.
    """

    key: TotalKey
    component: UsageComponent
    currency: str
    counts_in: bool
    counts_out: bool
    counts_seconds: bool
    counts_events: bool
    owner: bytes
    quantity: int
    covered: int
    numerator: int
    posted_minor: int
    tier_until: int
    tier_picounits: int
    is_closed: bool
    is_stored: bool
    has_moved: bool = False
    at_us: int = 0


class Standing(Struct, gc=False):
    """A subscription in one cycle of the account that pays for it, [start_us, end_us), with a meter a component.

    A delta that begins at `begins_us` or later and ends in [since_us, until_us) belongs to it, whole.
    """

    account_id: int
    subscription_id: int
    cycle_id: int
    start_us: int
    end_us: int
    is_closed: bool
    priced: PricedTariff
    meters: tuple[Meter, ...]
    begins_us: int = 0
    since_us: int = 0
    until_us: int = 0

    def meter(self, name: str) -> Meter:
        """Of a component of its tariff."""
        return next(meter for meter in self.meters if meter.component.name == name)


@dataclass(slots=True)
class ShardMemory:
    """Standings by (account, subscription, start of the cycle). `latest`: each service's, where most usage will lie.

    `latest` has plain ones in open cycles only.
    """

    version: int = -1
    standings: dict[tuple[int, int, int], Standing] = field(default_factory=dict)
    latest: dict[int, Standing] = field(default_factory=dict)


class RaterMemory:
    """What a rater knows from batch to batch, over one connection: after another it is to be made anew."""

    __slots__ = ("_heard_at", "_run_began_at", "_run_id", "_shards", "_snapshot", "shelf")

    def __init__(self, shelf: PlanShelf) -> None:
        self.shelf = shelf
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
