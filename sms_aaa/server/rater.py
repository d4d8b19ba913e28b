"""The rater: takes deltas off the queue in batches, opens cycles when they are due, says how far behind it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.engine import Conflict, Connection, Poison
from sms_aaa.flows.cycles import open_cycles
from sms_aaa.flows.meters import RaterMemory
from sms_aaa.flows.rating import rate_batch, suspend_next
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.metrics import Word
from sms_aaa.server.database import work_with_database
from sms_aaa.server.pressure import Pressure
from sms_aaa.server.priority import Priority, take
from sms_aaa.server.worker import Child, run_child

BATCH_MAX = 5_000
ALONE_TRIES_MAX = 3
"""For a delta that fails alone: it may be a conflict with somebody else, and then it does not fail again."""

CYCLES_BATCH_MAX = 1000

CYCLES_SECONDS = 5.0
GAUGES_SECONDS = 2.0


class Rater:
    def __init__(self, child: Child) -> None:
        self._child = child
        self._counters = child.counters
        self._shelf = PlanShelf()
        self._due = {"cycles": 0.0, "gauges": 0.0}
        self._shard = -1
        self._limits: dict[int, int] = {}
        self._tries: dict[int, int] = {}
        self._pressure = Pressure(child.state_folder, time.monotonic())

    def run(self) -> None:
        work_with_database(self._child, self._rate_on, repeatable=True)

    def _rate_on(self, connection: Connection) -> None:
        # What was known over another connection may have been lost with it.
        memory = RaterMemory(self._shelf)
        while True:
            self._child.beat()
            began = time.monotonic()
            worked = self._rate(connection, memory)
            ended = time.monotonic()
            rest = self._pressure.rest_seconds(ended - began, ended)
            self._keep_house(connection)
            if self._child.stopping:
                return
            # A rest is REST_SECONDS_MAX at most: no need to beat or to look for the end within it.
            time.sleep(rest if worked else self._child.settings.rating.interval_seconds)

    def _rate(self, connection: Connection, memory: RaterMemory) -> bool:
        """One batch of the shard whose turn it is; whether there was one."""
        claimed = db_queue.claim_shard(connection, after=self._shard)
        if claimed is None:
            connection.rollback()
            return False
        self._shard = shard = claimed.shard
        limit = self._limits.get(shard, BATCH_MAX)
        try:
            done = rate_batch(connection, memory, claimed, now=datetime.now(UTC), limit=limit)
            connection.commit()
        except (*Conflict, *Poison, AssertionError) as refused:
            connection.rollback()
            self._after_fault(connection, shard, limit, refused)
            return True
        memory.keep(shard, done.kept)
        self._limits[shard] = min(limit * 2, BATCH_MAX)
        self._tries.pop(shard, None)
        self._counters[Word.DELTAS_RATED] += done.deltas - done.in_suspense
        self._counters[Word.SUSPENSE] += done.in_suspense
        return True

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
            opened = open_cycles(connection, self._shelf, now=datetime.now(UTC), limit=CYCLES_BATCH_MAX)
            connection.commit()
            # A full batch means that more are waiting, as at the turn of a month.
            self._due["cycles"] = now if opened == CYCLES_BATCH_MAX else now + CYCLES_SECONDS
        if now >= self._due["gauges"]:
            self._due["gauges"] = now + GAUGES_SECONDS
            waiting, since = db_queue.queue_length(connection)
            connection.commit()
            self._counters[Word.RATING_QUEUE] = waiting
            lag = (datetime.now(UTC) - since).total_seconds() if since is not None else 0
            self._counters[Word.RATING_LAG_MS] = max(int(lag * 1000), 0)


def main(child: Child) -> None:
    take(Priority.SETTLING)
    Rater(child).run()


if __name__ == "__main__":
    run_child(main)
