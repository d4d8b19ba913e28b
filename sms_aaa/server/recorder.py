"""The recorder: decisions from the journal into PostgreSQL (stream.py), so that `why` finds them for as long as is set.

It is a process of its own because it may always wait and accounting may not: a storm of logins writes more decisions
than PostgreSQL should be bothered with while the same cores answer NASes. So it takes the lowest priority there is, for
its whole scheduling group, and rests most of the time while the machine is busy; what waits is in the journal, where
`why` looks too. Beside that it stores what the workers saw of the NASes (observer.py).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import feed as db_feed
from sms_aaa.db import partitions as db_partitions
from sms_aaa.flows.recording import settle_decisions
from sms_aaa.flows.settling import quarantine
from sms_aaa.metrics import Word
from sms_aaa.node.journal import Stream
from sms_aaa.node.records import DecisionBatch, RecordFault, unpack_decisions
from sms_aaa.rules.session import Place
from sms_aaa.server.database import work_with_database
from sms_aaa.server.observer import Observer
from sms_aaa.server.pressure import Load
from sms_aaa.server.priority import Priority, take
from sms_aaa.server.stream import Fenced, StreamSettler
from sms_aaa.server.worker import Child, run_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.frames import Record
    from sms_aaa.server.ahead import Portion

BATCH_MAX = 256
"""Records, each with the decisions of one batch of logins (64 at most)."""

IDLE_SECONDS = 0.25
BUSY_WORK = 0.08
"""While the cores are busy, the share of its time in which it stores, and PostgreSQL for it; then it rests."""

BUSY_SECONDS_MAX = 5.0
RETRY_SECONDS = 1.0
UPKEEP_SECONDS = 600.0
CLOSING_SECONDS_MAX = 10.0


class Recorder:
    """One node's."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._counters = child.counters
        self._node = child.settings.node.name
        self._stream = StreamSettler(child, Stream.DECISIONS, self, batch_max=BATCH_MAX)
        self._upkeep_due = 0.0
        self._load = Load()
        self._observer = Observer(child)

    def run(self) -> None:
        work_with_database(self._child, self._work, repeatable=True, while_away=self._measure_backlog)

    def prepare(self, _sequence: int, records: Sequence[Record]) -> list[DecisionBatch | RecordFault]:
        return [unpack_decisions(record.payload) for record in records]

    def store(self, connection: Connection, sequence: int, portion: Portion[DecisionBatch | RecordFault]) -> int:
        batches = []
        for record, unpacked in zip(portion.batch.records, portion.ready, strict=True):
            place = Place(self._node, sequence, record.offset)
            if isinstance(unpacked, DecisionBatch):
                batches.append((place, unpacked))
            else:
                quarantine(connection, Stream.DECISIONS, place, reason=unpacked.value, raw=record.payload)
                self._counters[Word.QUARANTINED] += 1
        return settle_decisions(connection, batches)

    def after(self, stored: int) -> None:
        self._counters[Word.DECISIONS_RECORDED] += stored

    def refused(self) -> None:
        """Nothing is remembered here."""

    def _work(self, connection: Connection) -> None:
        try:
            database_id = db_feed.get_database_id(connection)
            self._stream.begin(connection, database_id)
            connection.commit()
            self._observer.begin(connection)
            self._record_on(connection, database_id)
        except Fenced:
            self._child.log.warning("fenced", reason="another recorder is at work on this node's journal")
            time.sleep(RETRY_SECONDS)

    def _record_on(self, connection: Connection, database_id: bytes) -> None:
        give_up_at = float("inf")
        while True:
            self._child.beat()
            began = time.monotonic()
            worked = self._stream.settle(connection).worked
            seconds = time.monotonic() - began
            self._measure_backlog()
            self._observer.store(connection, database_id)
            if time.monotonic() >= self._upkeep_due:
                self._upkeep_due = time.monotonic() + UPKEEP_SECONDS
                self._upkeep(connection)
            if self._child.stopping:
                give_up_at = min(give_up_at, time.monotonic() + CLOSING_SECONDS_MAX)
                if not worked or time.monotonic() > give_up_at:
                    return
            elif not worked:
                time.sleep(IDLE_SECONDS)
            elif self._load.is_high():
                self._sleep(min(BUSY_SECONDS_MAX, seconds / BUSY_WORK))

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._child.stopping:
            self._child.beat()
            time.sleep(0.1)

    def _upkeep(self, connection: Connection) -> None:
        """Partitions ahead; files that are settled and decisions past their retention go."""
        now = datetime.now(UTC)
        db_partitions.create_ahead(connection, now)
        keep = timedelta(days=self._child.settings.decisions.retention_days)
        db_partitions.drop_decisions_before(connection, now - keep)
        connection.commit()
        self._observer.clean(connection)
        self._stream.clean(connection, older_than_days=0)

    def _measure_backlog(self) -> None:
        self._counters[Word.BACKLOG_DECISIONS_OCTETS] = self._stream.waiting()[0]


def main(child: Child) -> None:
    take(Priority.WAITING)
    Recorder(child).run()


if __name__ == "__main__":
    run_child(main)
