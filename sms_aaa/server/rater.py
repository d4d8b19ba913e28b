"""The rater: takes deltas off the queue in batches, opens cycles when they are due, says how far behind it is.

A node may have several, each at a shard that no other is at, be it on another node. The first of a node keeps house.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import buckets as db_buckets
from sms_aaa.db import charging as db_charging
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.engine import Conflict, Connection, Poison, join_by_key
from sms_aaa.flows.closing import close_cycles, list_next
from sms_aaa.flows.cycles import open_cycles, postpone_next
from sms_aaa.flows.granting import close_buckets
from sms_aaa.flows.meters import RaterMemory
from sms_aaa.flows.rating import rate_batch, suspend_next
from sms_aaa.flows.rerating import rerate_group
from sms_aaa.flows.reserving import expire_holds
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.flows.suspense import retry_mended
from sms_aaa.metrics import Word
from sms_aaa.server.database import work_with_database
from sms_aaa.server.pressure import Pressure
from sms_aaa.server.priority import Priority, take
from sms_aaa.server.worker import FIRST_RATER, Child, run_child

if TYPE_CHECKING:
    from sms_aaa.db.buckets import EndedPlace
    from sms_aaa.db.rating_queue import ClaimedShard

BATCH_MAX = 5_000
"""Deltas of a shard in one transaction, when so many wait."""

ALONE_TRIES_MAX = 3
"""For a delta that fails alone: it may be a conflict with somebody else, and then it does not fail again."""

PACE = 9
PACED_SECONDS_MAX = 0.5
"""Between two turns through the shards rests who keeps up, PACE times as long as the turn took: then more deltas wait
and share the costs of a transaction. What was settled is in the totals within about this time."""

LATE_SECONDS = 3.0
"""Deltas that have waited so long are rated half of the time at least, however short the cores are."""

UNFIT_SECONDS = 60.0
"""So long a shard is not rated in bulk of which most usage did not fit: to find that out is work for nothing."""

CYCLES_BATCH_MAX = 1000
CYCLES_SECONDS = 5.0
CLOSING_BATCH_MAX = 200
CLOSING_SECONDS = 60.0
BUCKETS_BATCH_MAX = 1000
BUCKETS_SECONDS = 10.0
BUCKETS_LOOK_SECONDS = 1.0
"""Between two looks for buckets that are over, and between two parts of a look that found none to close: while cycles
wait to be closed there may be millions of them, and each is held against its account's cycles."""

POSTPONED = timedelta(hours=1)
GAUGES_SECONDS = 2.0

SUSPENSE_SECONDS = 60.0
"""Between two looks for usage in suspense that can be rated by now."""

CLEANING_SECONDS = 1.0
CLEANING_SECONDS_MAX = 1.0
DIRTY_FOR = timedelta(seconds=1)
"""A group that became dirty so long ago is rated again: what is late seldom comes alone. Between two looks for such
groups lie CLEANING_SECONDS, and a look lasts CLEANING_SECONDS_MAX and the group that it is at."""


class Rater:
    def __init__(self, child: Child) -> None:
        self._child = child
        self._counters = child.counters
        self._is_first = child.order.name == FIRST_RATER
        self._shelf = PlanShelf()
        self._due = {"cycles": 0.0, "gauges": 0.0, "groups": 0.0, "closing": 0.0, "suspense": 0.0, "buckets": 0.0}
        self._limits: dict[int, int] = {}
        self._tries: dict[int, int] = {}
        self._bulk_from: dict[int, float] = {}
        self._cycles_limit = CYCLES_BATCH_MAX
        self._closing_limit = CLOSING_BATCH_MAX
        self._buckets_limit = BUCKETS_BATCH_MAX
        self._buckets_after: EndedPlace | None = None
        self._grace = timedelta(days=child.settings.rating.close_grace_days)
        self._bulk_min = child.settings.rating.bulk_min or None
        self._refused_cycles: dict[int, float] = {}
        self._pressure = Pressure(child.state_folder, time.monotonic())

    def run(self) -> None:
        work_with_database(self._child, self._rate_on, repeatable=True)

    def _rate_on(self, connection: Connection) -> None:
        join_by_key(connection)
        # What was known over another connection may have been lost with it.
        memory = RaterMemory(self._shelf)
        while True:
            worked_seconds, is_behind = self._take_turn(connection, memory)
            if self._child.stopping:
                return
            if not is_behind:
                rest = min(worked_seconds * PACE, PACED_SECONDS_MAX)
                time.sleep(max(rest, self._child.settings.rating.interval_seconds))

    def _take_turn(self, connection: Connection, memory: RaterMemory) -> tuple[float, bool]:
        """A batch of each shard that has something queued: the seconds of work, whether one of them has more."""
        worked_seconds, is_behind, after = 0.0, False, -1
        while not self._child.stopping:
            self._child.beat()
            began = time.monotonic()
            claimed = db_queue.claim_shard(connection, after=after)
            if claimed is None:
                connection.rollback()
            else:
                after = claimed.shard
                is_full, waited_seconds = self._rate(connection, memory, claimed)
                is_behind |= is_full
                worked = time.monotonic() - began
                worked_seconds += worked
                rest = self._pressure.rest_seconds(worked, began + worked)
                # A rest is REST_SECONDS_MAX at most: no need to beat or to look for the end within it.
                time.sleep(min(rest, worked) if waited_seconds > LATE_SECONDS else rest)
            if self._is_first:
                self._keep_house(connection)
            if claimed is None:
                break
        return worked_seconds, is_behind

    def _rate(self, connection: Connection, memory: RaterMemory, claimed: ClaimedShard) -> tuple[bool, float]:
        """One batch: whether more waits in its shard, and how long what it took had waited."""
        shard, now = claimed.shard, datetime.now(UTC)
        limit = self._limits.get(shard, BATCH_MAX)
        try:
            is_bulk = limit == BATCH_MAX and time.monotonic() >= self._bulk_from.get(shard, 0.0)
            bulk_min = self._bulk_min if is_bulk else None
            done = rate_batch(connection, memory, claimed, now=now, limit=limit, bulk_min=bulk_min)
            connection.commit()
        except (*Conflict, *Poison, AssertionError) as refused:
            connection.rollback()
            self._after_fault(connection, shard, limit, refused)
            return True, 0.0
        memory.keep(shard, done.kept, done.run_id, now)
        self._limits[shard] = min(limit * 2, BATCH_MAX)
        if done.not_set_wise * 2 > done.deltas:
            self._bulk_from[shard] = time.monotonic() + UNFIT_SECONDS
        self._tries.pop(shard, None)
        self._counters[Word.DELTAS_RATED] += done.deltas - done.sent_home - done.in_suspense
        self._counters[Word.DELTAS_RATED_IN_BULK] += done.set_wise
        self._counters[Word.SUSPENSE] += done.in_suspense
        return done.deltas >= limit, (now - done.queued_at).total_seconds()

    def _after_fault(self, connection: Connection, shard: int, limit: int, refused: BaseException) -> None:
        """Nothing of the batch is stored, all of it is queued still: it is tried again, in halves.

        A delta that fails alone, again and again, is put in suspense by name: one of them must not keep the money of
        all others waiting. Meanwhile the other shards have their turns.
        """
        self._counters[Word.RATE_FAULTS] += 1
        if limit > 1:
            self._limits[shard] = limit // 2
            return
        self._tries[shard] = self._tries.get(shard, 0) + 1
        if self._tries[shard] < ALONE_TRIES_MAX:
            time.sleep(self._child.settings.rating.interval_seconds)
            return
        del self._tries[shard]
        name = type(refused).__name__
        suspended = suspend_next(connection, shard, reason=f"refused: {name}")
        connection.commit()
        self._counters[Word.SUSPENSE] += suspended
        self._child.log.error("delta-in-suspense", reason=name)

    def _keep_house(self, connection: Connection) -> None:
        now = time.monotonic()
        if now >= self._due["cycles"]:
            opened = self._open_cycles(connection)
            took = time.monotonic() - now
            # As many as were asked for: more are waiting, as at the turn of a month. They have time, and take half of
            # it, or less while the cores are short.
            rest = max(took, self._pressure.rest_seconds(took, now + took)) if opened else CYCLES_SECONDS
            self._due["cycles"] = now + took + rest
        if now >= self._due["closing"]:
            has_more = self._close_cycles(connection, now)
            took = time.monotonic() - now
            rest = max(took, self._pressure.rest_seconds(took, now + took)) if has_more else CLOSING_SECONDS
            self._due["closing"] = now + took + rest
        if now >= self._due["groups"]:
            self._clean_groups(connection, now)
            self._due["groups"] = time.monotonic() + CLEANING_SECONDS
        if now >= self._due["buckets"]:
            rest = self._keep_buckets(connection)
            self._due["buckets"] = time.monotonic() + rest
        if now >= self._due["suspense"]:
            self._due["suspense"] = now + SUSPENSE_SECONDS
            self._retry_suspense(connection)
        if now >= self._due["gauges"]:
            self._due["gauges"] = now + GAUGES_SECONDS
            waiting, since = db_queue.queue_length(connection)
            connection.commit()
            self._counters[Word.RATING_QUEUE] = waiting
            lag = (datetime.now(UTC) - since).total_seconds() if since is not None else 0
            self._counters[Word.RATING_LAG_MS] = max(int(lag * 1000), 0)

    def _close_cycles(self, connection: Connection, began: float) -> bool:
        """Whether there may be more to close. One that cannot be closed is left for an hour: the others go on."""
        self._refused_cycles = {cycle_id: until for cycle_id, until in self._refused_cycles.items() if until > began}
        now, limit, but = datetime.now(UTC), self._closing_limit, [*self._refused_cycles]
        try:
            closed = close_cycles(connection, self._shelf, now=now, grace=self._grace, limit=limit, but=but)
            connection.commit()
        except (*Conflict, *Poison, AssertionError) as refused:
            connection.rollback()
            self._after_refused_close(connection, now, began, refused)
            return True
        self._closing_limit = min(limit * 2, CLOSING_BATCH_MAX)
        return len(closed) == limit

    def _after_refused_close(self, connection: Connection, now: datetime, began: float, refused: BaseException) -> None:
        self._counters[Word.RATE_FAULTS] += 1
        if self._closing_limit == 1:
            cycle_ids = list_next(connection, now=now, grace=self._grace, but=[*self._refused_cycles])
            connection.commit()
            self._refused_cycles |= dict.fromkeys(cycle_ids, began + POSTPONED.total_seconds())
            self._child.log.error("close-refused", cycles=cycle_ids, reason=type(refused).__name__)
        self._closing_limit = max(self._closing_limit // 2, 1)

    def _retry_suspense(self, connection: Connection) -> None:
        try:
            retry_mended(connection, now=datetime.now(UTC))
            connection.commit()
        except Conflict:
            connection.rollback()

    def _clean_groups(self, connection: Connection, began: float) -> None:
        """Rates groups again that late usage made dirty. One that cannot be is left for the next time."""
        head_id: int | None = 0
        while head_id is not None and not self._child.stopping:
            if time.monotonic() - began > CLEANING_SECONDS_MAX:
                return
            head_id = self._clean_next(connection, after=head_id)
            self._child.beat()

    def _clean_next(self, connection: Connection, *, after: int) -> int | None:
        """The head of the group that was looked at; None: there is none."""
        now = datetime.now(UTC)
        dirty = db_charging.find_dirty(connection, after=after, since=now - DIRTY_FOR)
        if dirty is None:
            connection.rollback()
            return None
        try:
            rerate_group(connection, self._shelf, dirty.head_id, since_us=dirty.from_us, now=now)
            connection.commit()
        except (*Conflict, *Poison, AssertionError) as refused:
            connection.rollback()
            self._after_refused_group(dirty.head_id, refused)
        return dirty.head_id

    def _after_refused_group(self, head_id: int, refused: BaseException) -> None:
        self._counters[Word.RATE_FAULTS] += 1
        self._child.log.error("group-refused", account=head_id, reason=type(refused).__name__)

    def _keep_buckets(self, connection: Connection) -> float:
        """Ends holds that have lasted long enough, and closes buckets that are over; seconds until it is due again."""
        now = datetime.now(UTC)
        try:
            expired = expire_holds(connection, now=now, limit=BUCKETS_BATCH_MAX)
            connection.commit()
        except (*Conflict, *Poison, AssertionError) as refused:
            connection.rollback()
            self._report_refused_buckets(refused)
            expired = 0
        rest = self._close_buckets(connection, now)
        return 0.0 if expired == BUCKETS_BATCH_MAX else rest

    def _close_buckets(self, connection: Connection, now: datetime) -> float:
        limit, after = self._buckets_limit, self._buckets_after
        try:
            closed = close_buckets(connection, now=now, grace=self._grace, limit=limit, after=after)
            connection.commit()
        except (*Conflict, *Poison, AssertionError) as refused:
            connection.rollback()
            self._report_refused_buckets(refused)
            if limit == 1:
                # It is passed by until the next look from the first on.
                ended = db_buckets.list_ended(connection, ended_by=now - self._grace, after=after, limit=1)
                connection.commit()
                self._buckets_after = ended[0] if ended else None
            self._buckets_limit = max(limit // 2, 1)
            return BUCKETS_LOOK_SECONDS
        self._buckets_limit = min(limit * 2, BUCKETS_BATCH_MAX)
        self._buckets_after = closed.after
        if closed.after is None:
            return BUCKETS_SECONDS
        return 0.0 if closed.count else BUCKETS_LOOK_SECONDS

    def _report_refused_buckets(self, refused: BaseException) -> None:
        self._counters[Word.RATE_FAULTS] += 1
        self._child.log.error("buckets-refused", reason=type(refused).__name__)

    def _open_cycles(self, connection: Connection) -> bool:
        """Whether there may be more to open. One that cannot be opened is tried again later: the others go on."""
        now = datetime.now(UTC)
        try:
            opened = open_cycles(connection, self._shelf, now=now, limit=self._cycles_limit)
            connection.commit()
        except (*Conflict, *Poison, AssertionError) as refused:
            connection.rollback()
            self._after_refused_cycle(connection, now, refused)
            return True
        is_full = opened == self._cycles_limit
        self._cycles_limit = min(self._cycles_limit * 2, CYCLES_BATCH_MAX)
        return is_full

    def _after_refused_cycle(self, connection: Connection, now: datetime, refused: BaseException) -> None:
        self._counters[Word.RATE_FAULTS] += 1
        if self._cycles_limit == 1:
            postponed = postpone_next(connection, now=now, until=now + POSTPONED)
            connection.commit()
            self._child.log.error("cycle-refused", subscriptions=postponed, reason=type(refused).__name__)
        self._cycles_limit = max(self._cycles_limit // 2, 1)


def main(child: Child) -> None:
    take(Priority.SETTLING)
    Rater(child).run()


if __name__ == "__main__":
    run_child(main)
