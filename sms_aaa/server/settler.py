"""The settler: accounting from the journal into PostgreSQL, exactly once (stream.py), and what follows from it.

When PostgreSQL is away it waits; the journal grows, and the metrics say so. A file that is missing stops the settler
loudly (J10): those octets were answered for. It also keeps what only it can know: sessions that went silent, places
that are free again.
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sms_aaa.db import feed as db_feed
from sms_aaa.db import nas as db_nas
from sms_aaa.db import partitions as db_partitions
from sms_aaa.db import places as db_places
from sms_aaa.db import plans as db_plans
from sms_aaa.db import session_lists as db_session_lists
from sms_aaa.flows.hearing import Listened, listen
from sms_aaa.flows.memory import Memory
from sms_aaa.flows.settling import Settled, close_stale_sessions, quarantine, settle_listened
from sms_aaa.metrics import Word, anomaly_word, set_plan_rows
from sms_aaa.node.journal import Stream
from sms_aaa.node.records import AccountingRecord, RecordFault, unpack_accounting
from sms_aaa.rules.session import Place, silence_seconds
from sms_aaa.server.database import work_with_database
from sms_aaa.server.historian import Historian
from sms_aaa.server.journal_room import JournalRoom
from sms_aaa.server.pressure import Pressure
from sms_aaa.server.priority import Priority, take
from sms_aaa.server.stream import Fenced, StreamSettler
from sms_aaa.server.worker import Child, run_child, yield_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.frames import Record
    from sms_aaa.node.live_change import Release
    from sms_aaa.server.ahead import Portion

BATCH_MAX = 5000
PACE_SECONDS = 0.15
"""From one pass to the next while all that waits fits into a batch: a commit has its price."""

IDLE_SECONDS = 0.05
RETRY_SECONDS = 1.0
GAUGES_SECONDS = 1.0
COUNTS_SECONDS = 30.0
"""How often open sessions are counted by plan: that costs a scan of them."""

UPKEEP_SECONDS = 600.0
STALE_BATCH_MAX = 5000
STALE_REST = 20
"""Times as long as the look for silent sessions took, until the next one."""

CLOSING_SECONDS_MAX = 20.0
"""How long an orderly end may take to settle what is left; the rest is settled after the next start."""


class Settler:
    """One node's. It holds one connection at a time and what it knows of positions from it."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._counters = child.counters
        self._node = child.settings.node.name
        self._live = child.live_set()
        self._stream = StreamSettler(child, Stream.ACCOUNTING, self, batch_max=BATCH_MAX)
        self._single_nas: dict[int, bool] = {}
        self._memory = Memory(child.settings.settling.sessions_in_memory)
        self._due = {"gauges": 0.0, "counts": 0.0, "upkeep": 0.0, "stale": 0.0}
        self._may_lapse_at = float("inf")
        self._room = JournalRoom(child, self._stream)
        self._pressure = Pressure(child.state_folder, time.monotonic())
        self._historian = Historian(child)

    def run(self) -> None:
        work_with_database(self._child, self._work, repeatable=True, while_away=self._say_away)
        self._live.close()

    def prepare(self, sequence: int, records: Sequence[Record]) -> list[Listened | RecordFault]:
        prepared: list[Listened | RecordFault] = []
        for record in records:
            unpacked = unpack_accounting(record.payload)
            if isinstance(unpacked, AccountingRecord):
                place = Place(self._node, sequence, record.offset)
                prepared.append(listen(place, unpacked, self._single_nas))
            else:
                prepared.append(unpacked)
        return prepared

    def store(self, connection: Connection, sequence: int, portion: Portion[Listened | RecordFault]) -> Settled:
        batch, records = portion.batch, self._listened(connection, sequence, portion)
        settled = settle_listened(connection, records, memory=self._memory)
        put_aside = len(batch.damaged) + len(batch.records) - len(records)
        return replace(settled, quarantined=settled.quarantined + put_aside)

    def after(self, stored: Settled) -> None:
        self._memory.keep(stored.sessions)
        counters = self._counters
        counters[Word.RECORDS_SETTLED] += stored.records
        counters[Word.DELTAS_SETTLED] += stored.deltas
        for kind, count in stored.kinds.items():
            counters[anomaly_word(kind)] += count
        counters[Word.LAPSED_REBOOT] += stored.rebooted
        counters[Word.QUARANTINED] += stored.quarantined
        self._release(stored.releases)

    def refused(self) -> None:
        self._memory.refuse()

    def _work(self, connection: Connection) -> None:
        try:
            self._begin(connection)
            self._settle_on(connection)
        except Fenced:
            self._child.log.warning("fenced", reason="another settler is at work on this node's journal")
            self._wait(RETRY_SECONDS)

    def _say_away(self) -> None:
        self._counters[Word.DATABASE_UP] = 0
        self._measure_backlog()

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._child.stopping:
            self._child.beat()
            self._measure_backlog()
            time.sleep(0.1)

    def _begin(self, connection: Connection) -> None:
        self._memory = Memory(self._child.settings.settling.sessions_in_memory)
        db_partitions.create_ahead(connection, datetime.now(UTC))
        self._stream.begin(connection, db_feed.get_database_id(connection))
        self._load_nas(connection)
        connection.commit()
        self._room.silence_seconds = self._silence_seconds(connection)
        self._may_lapse_at = float("inf")
        self._counters[Word.DATABASE_UP] = 1
        self._child.log.info("settling")

    def _load_nas(self, connection: Connection) -> None:
        self._single_nas = db_nas.list_single(connection)

    def _silence_seconds(self, connection: Connection) -> int:
        """How long a session may be silent before it lapses.

        After a pause of ours, the first such time says nothing about any session: what it reported meanwhile was not
        heard, or waits in the journal. So nothing lapses until the journal is empty and this time is over.
        """
        longest = db_plans.get_longest_interim(connection)
        connection.commit()
        return silence_seconds(longest, self._child.settings.session.stale_multiple)

    def _settle_on(self, connection: Connection) -> None:
        """Until asked to end, and then until nothing is left or the time for it is over."""
        give_up_at = float("inf")
        while True:
            self._child.beat()
            began = time.monotonic()
            done = self._stream.settle(connection)
            ended = time.monotonic()
            rest = self._pressure.rest_seconds(ended - began, ended)
            if not done.worked and self._may_lapse_at == float("inf"):
                self._may_lapse_at = time.monotonic() + self._silence_seconds(connection)
            self._keep_house(connection)
            if self._child.stopping:
                give_up_at = min(give_up_at, time.monotonic() + CLOSING_SECONDS_MAX)
                if not done.worked or time.monotonic() > give_up_at:
                    return
            elif not done.worked:
                time.sleep(IDLE_SECONDS)
            elif rest:
                self._wait(rest)
            elif not done.is_backlog:
                time.sleep(max(0.0, began + PACE_SECONDS - time.monotonic()))

    def _listened(
        self, connection: Connection, sequence: int, portion: Portion[Listened | RecordFault]
    ) -> list[Listened]:
        """By the NASes as they are known now: of one that was unknown or otherwise then, a record is heard again."""
        listened = []
        for record, one in zip(portion.batch.records, portion.ready, strict=True):
            if isinstance(one, Listened):
                listened.append(one)
            else:
                place = Place(self._node, sequence, record.offset)
                quarantine(connection, Stream.ACCOUNTING, place, reason=one.value, raw=record.payload)
        if any(one.record.nas_id not in self._single_nas for one in listened):
            self._load_nas(connection)
        known = self._single_nas
        return [
            one if one.single is known.get(one.record.nas_id) else listen(one.place, one.record, known)
            for one in listened
        ]

    def _release(self, releases: list[Release]) -> None:
        if self._live.release(releases, pause=yield_lock) is not None:
            self._counters[Word.LIVE_FAULTS] += 1

    def _keep_house(self, connection: Connection) -> None:
        now = time.monotonic()
        if now >= self._due["gauges"]:
            self._due["gauges"] = now + GAUGES_SECONDS
            self._measure_backlog()
            self._load_nas(connection)
            connection.commit()
        if now >= self._due["counts"]:
            self._due["counts"] = now + COUNTS_SECONDS
            gc.collect()  # not by itself: see main
            set_plan_rows(self._counters, db_session_lists.count_live_by_plan(connection))
            connection.commit()
        if now >= self._due["stale"] and now >= self._may_lapse_at:
            multiple = self._child.settings.session.stale_multiple
            closed = close_stale_sessions(connection, now=datetime.now(UTC), multiple=multiple, limit=STALE_BATCH_MAX)
            connection.commit()
            self._counters[Word.LAPSED_SILENCE] += closed.sessions
            self._release(closed.releases)
            # It reads all that are online: with very many it is done less often, and takes a share of the time only.
            took = time.monotonic() - now
            self._due["stale"] = now + max(self._child.settings.session.stale_check_seconds, took * STALE_REST)
        if now >= self._due["upkeep"]:
            self._due["upkeep"] = now + UPKEEP_SECONDS
            self._upkeep(connection)
        self._historian.tend(connection)

    def _upkeep(self, connection: Connection) -> None:
        """Partitions ahead; what is past its retention goes."""
        self._historian.keep_partitions(connection)
        db_feed.delete_old(connection)
        db_places.delete_old(connection)
        connection.commit()
        self._room.silence_seconds = self._silence_seconds(connection)
        self._stream.clean(connection, older_than_days=self._child.settings.journal.retention_days)

    def _measure_backlog(self) -> None:
        """Octets of what is not settled yet, and the age of its oldest record."""
        self._room.keep(time.monotonic())
        waiting, first = self._stream.waiting()
        self._counters[Word.BACKLOG_OCTETS] = waiting
        records = [unpack_accounting(record.payload) for record in first]
        oldest_ns = min((one.received_ns for one in records if isinstance(one, AccountingRecord)), default=0)
        lag_ms = (time.time_ns() - oldest_ns) // 1_000_000 if oldest_ns else 0
        self._counters[Word.SETTLE_LAG_MS] = max(lag_ms, 0)


def main(child: Child) -> None:
    take(Priority.SETTLING)
    # A batch makes objects by the hundred thousand and no cycles: to look for some took a good part of the time.
    gc.freeze()
    gc.disable()
    Settler(child).run()


if __name__ == "__main__":
    run_child(main)
