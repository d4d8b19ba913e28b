"""The rater: takes deltas off the queue in batches, opens cycles when they are due, says how far behind it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sms_aaa.db import rating as db_rating
from sms_aaa.db.engine import Conflict, Connection, Poison
from sms_aaa.flows.rating import PlanShelf, open_cycles, rate_batch, suspend_next
from sms_aaa.metrics import Word
from sms_aaa.server.database import work_with_database
from sms_aaa.server.pressure import Pressure
from sms_aaa.server.priority import Priority, take
from sms_aaa.server.worker import Child, run_child

BATCH_MAX = 1000
TRIES_MAX = 20
"""Halving a batch down to one delta takes ten of them; the others are for conflicts with another rater."""

CYCLES_BATCH_MAX = 1000
TRIES_MAX = 20
"""Halving a batch down to one delta takes ten of them; the others are for conflicts with another rater."""

CYCLES_SECONDS = 5.0
GAUGES_SECONDS = 2.0


class Rater:
    def __init__(self, child: Child) -> None:
        self._child = child
        self._counters = child.counters
        self._shelf = PlanShelf()
        self._due = {"cycles": 0.0, "gauges": 0.0}
        self._batch = BATCH_MAX
        self._tries = 0
        self._pressure = Pressure(child.state_folder, time.monotonic())

    def run(self) -> None:
        work_with_database(self._child, self._rate_on, repeatable=True)

    def _rate_on(self, connection: Connection) -> None:
        while True:
            self._child.beat()
            began = time.monotonic()
            worked = self._rate(connection)
            ended = time.monotonic()
            rest = self._pressure.rest_seconds(ended - began, ended)
            self._keep_house(connection)
            if self._child.stopping:
                return
            # A rest is REST_SECONDS_MAX at most: no need to beat or to look for the end within it.
            time.sleep(rest if worked else self._child.settings.rating.interval_seconds)

    def _rate(self, connection: Connection) -> bool:
        """One batch; whether there was one."""
        try:
            done = rate_batch(connection, self._shelf, now=datetime.now(UTC), limit=self._batch)
            connection.commit()
        except (*Conflict, *Poison, AssertionError) as refused:
            connection.rollback()
            self._after_fault(connection, refused)
            return False
        self._batch, self._tries = min(self._batch * 2, BATCH_MAX), 0
        self._counters[Word.DELTAS_RATED] += done.deltas - done.in_suspense
        self._counters[Word.SUSPENSE] += done.in_suspense
        return done.deltas > 0

    def _after_fault(self, connection: Connection, refused: BaseException) -> None:
        """Nothing of the batch is stored, all of it is queued still: it is tried again, in halves.

        Another rater at the same accounts is gone soon. A delta that fails alone, again and again, is put in suspense
        by name: one of them must not keep the money of all others waiting.
        """
        self._counters[Word.RATE_FAULTS] += 1
        self._tries += 1
        if self._batch > 1:
            self._batch //= 2
        elif self._tries > TRIES_MAX:
            name = type(refused).__name__
            suspended = suspend_next(connection, reason=f"refused: {name}")
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
            waiting, since = db_rating.queue_length(connection)
            connection.commit()
            self._counters[Word.RATING_QUEUE] = waiting
            lag = (datetime.now(UTC) - since).total_seconds() if since is not None else 0
            self._counters[Word.RATING_LAG_MS] = max(int(lag * 1000), 0)


def main(child: Child) -> None:
    take(Priority.SETTLING)
    Rater(child).run()


if __name__ == "__main__":
    run_child(main)
