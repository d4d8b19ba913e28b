"""The settler: journal -> PostgreSQL, exactly once. Reads synced records, settles a batch, moves the position, commits.

When PostgreSQL is away it waits; the journal grows, and the metrics say so. A batch that PostgreSQL refuses is tried
record by record, and the record that it refuses alone is quarantined. A file that is missing stops the settler loudly
(J10): those octets were answered for.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

from sms_aaa.db import feed as db_feed
from sms_aaa.db import nas as db_nas
from sms_aaa.db import partitions as db_partitions
from sms_aaa.db import plans as db_plans
from sms_aaa.db import positions as db_positions
from sms_aaa.db import sessions as db_sessions
from sms_aaa.db.engine import Conflict, Connection, Poison
from sms_aaa.flows.settling import (
    Settled,
    close_stale_sessions,
    list_online,
    quarantine,
    settle_accounting,
    settle_decisions,
)
from sms_aaa.metrics import Word, set_plan_rows
from sms_aaa.node.frames import FILE_HEADER_OCTETS, Record
from sms_aaa.node.journal import JournalFault, JournalFaultKind, Stream
from sms_aaa.node.journal_reader import Batch, JournalFile, delete_file, is_orphan, list_files, read, readable_end
from sms_aaa.node.records import AccountingRecord, DecisionRecord, unpack_accounting, unpack_decision
from sms_aaa.rules.session import Place, silence_seconds
from sms_aaa.server.database import work_with_database
from sms_aaa.server.worker import Child, run_child

ACCOUNTING_BATCH_MAX = 2000
DECISIONS_BATCH_MAX = 5000
IDLE_SECONDS = 0.05
RETRY_SECONDS = 1.0
CONFLICT_TRIES_MAX = 5
CONFLICT_PAUSE_SECONDS = 0.05
GAUGES_SECONDS = 1.0
COUNTS_SECONDS = 30.0
"""How often open sessions are counted by plan: that costs a scan of them."""

RELEASES_MAX = 1000
"""In one change of the live set: logins wait for it."""

UPKEEP_SECONDS = 600.0
STALE_BATCH_MAX = 5000
CLOSING_SECONDS_MAX = 20.0
"""How long an orderly end may take to settle what is left; the rest is settled after the next start."""


class Fenced(Exception):  # noqa: N818 - a signal to roll back, not an error
    """Another settler moved a position: what was just done is not ours to commit (J7)."""


class Settler:
    """One node's. It holds one connection at a time and what it knows of positions from it."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._counters = child.counters
        self._node = child.settings.node.name
        self._live = child.live_set()
        self._folders = {stream: child.journal_folder(stream) for stream in Stream}
        self._database_id = b""
        self._positions: dict[Stream, dict[int, tuple[int, bool]]] = {}
        self._single_nas: dict[int, bool] = {}
        self._faulty: set[int] = set()
        self._due = {"gauges": 0.0, "counts": 0.0, "upkeep": 0.0, "stale": 0.0}
        self._may_lapse_at = float("inf")

    def run(self) -> None:
        work_with_database(self._child, self._work, repeatable=True, while_away=self._say_away)
        self._live.close()

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
        self._database_id = db_feed.get_database_id(connection)
        db_partitions.create_ahead(connection, datetime.now(UTC))
        self._positions = {
            stream: db_positions.list_positions(connection, self._node, int(stream)) for stream in Stream
        }
        self._load_nas(connection)
        connection.commit()
        self._may_lapse_at = float("inf")
        self._counters[Word.DATABASE_UP] = 1
        self._rebuild_live_set(connection)
        self._child.log.info("settling")

    def _load_nas(self, connection: Connection) -> None:
        self._single_nas = db_nas.list_single(connection)

    def _rebuild_live_set(self, connection: Connection) -> None:
        """After a boot: the sessions that PostgreSQL knows as open. What only the journal has is settled later."""
        if self._live.is_rebuilt():
            return
        until = int(time.time() + self._silence_seconds(connection))
        loaded = self._live.load(list_online(connection, until=until))
        connection.commit()
        self._child.log.info("live-set-rebuilt", sessions=str(loaded))

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
            worked = self._settle_stream(connection, Stream.ACCOUNTING)
            if not worked and self._may_lapse_at == float("inf"):
                self._may_lapse_at = time.monotonic() + self._silence_seconds(connection)
            worked |= self._settle_stream(connection, Stream.DECISIONS)
            self._keep_house(connection)
            if self._child.stopping:
                give_up_at = min(give_up_at, time.monotonic() + CLOSING_SECONDS_MAX)
                if not worked or time.monotonic() > give_up_at:
                    return
            elif not worked:
                time.sleep(IDLE_SECONDS)

    def _settle_stream(self, connection: Connection, stream: Stream) -> bool:
        """One batch of each file that has something; whether there was anything."""
        files = list_files(self._folders[stream])
        if isinstance(files, JournalFault):
            self._child.fail("journal", files.detail)
        self._check_all_there(connection, stream, files)
        worked = False
        for file in files:
            position, finished = self._positions[stream].get(file.sequence, (0, False))
            if not finished:
                worked |= self._settle_file(connection, stream, file, position)
        return worked

    def _check_all_there(self, connection: Connection, stream: Stream, files: list[JournalFile]) -> None:
        present = {file.sequence for file in files}
        missing = [s for s, (_, finished) in self._positions[stream].items() if not finished and s not in present]
        for sequence in missing:
            if stream is Stream.ACCOUNTING:
                self._child.fail(
                    "journal",
                    f"{self._folders[stream]}/{sequence:020d}.journal is missing and is not settled to its end: "
                    "restore it; nothing is settled until then",
                )
            db_positions.delete_position(connection, self._node, int(stream), sequence)
            connection.commit()
            del self._positions[stream][sequence]

    def _settle_file(self, connection: Connection, stream: Stream, file: JournalFile, position: int) -> bool:
        orphan = is_orphan(file)
        end = readable_end(file, stream=stream, board=self._child.board)
        if isinstance(end, JournalFault):
            return self._file_fault(stream, file, end, orphan=orphan)
        if position >= end and not orphan:
            return False
        limit = ACCOUNTING_BATCH_MAX if stream is Stream.ACCOUNTING else DECISIONS_BATCH_MAX
        batch = read(file, stream=stream, database_id=self._database_id, offset=position, end=end, records_max=limit)
        if isinstance(batch, JournalFault):
            return self._file_fault(stream, file, batch, orphan=orphan)
        finished = orphan and batch.at_end
        self._settle_batch(connection, stream, file.sequence, position, batch, finished=finished)
        return True

    def _file_fault(self, stream: Stream, file: JournalFile, fault: JournalFault, *, orphan: bool) -> bool:
        """A file of another database, or one that cannot be read, is left as it is and said; the others go on.

        Decisions are not synced: after a power cut their newest file may lack its header, and holds nothing then.
        """
        if stream is Stream.DECISIONS and orphan and fault.kind is JournalFaultKind.HEADER:
            delete_file(file)
        if file.sequence not in self._faulty:
            self._faulty.add(file.sequence)
            self._counters[Word.SETTLE_FAULTS] += 1
            self._child.log.error("journal-file", fault=fault.kind.value, detail=fault.detail)
        return False

    def _settle_batch(
        self, connection: Connection, stream: Stream, sequence: int, position: int, batch: Batch, *, finished: bool
    ) -> None:
        """J7: rows and position in one transaction."""
        for attempt in range(CONFLICT_TRIES_MAX):
            try:
                settled = self._store(connection, stream, sequence, batch)
                self._move(connection, stream, sequence, position, batch.next_offset, finished=finished)
                connection.commit()
            except Conflict:
                connection.rollback()
                self._counters[Word.SETTLE_FAULTS] += 1
                self._child.beat()
                time.sleep(CONFLICT_PAUSE_SECONDS * (attempt + 1))
                continue
            except Poison:
                connection.rollback()
                break
            self._positions[stream][sequence] = (batch.next_offset, finished)
            self._after(settled)
            return
        self._settle_one_by_one(connection, stream, sequence, position, batch, finished=finished)

    def _settle_one_by_one(
        self, connection: Connection, stream: Stream, sequence: int, position: int, batch: Batch, *, finished: bool
    ) -> None:
        """Each record in its own savepoint: the one that PostgreSQL refuses is put aside, the others go on."""
        self._child.log.error("poison-in-batch", sequence=sequence, position=position, records=len(batch.records))
        results = []
        for record in batch.records:
            self._child.beat()
            results.append(self._settle_alone(connection, stream, sequence, record))
        self._store(connection, stream, sequence, Batch([], batch.damaged, batch.next_offset, at_end=batch.at_end))
        self._move(connection, stream, sequence, position, batch.next_offset, finished=finished)
        connection.commit()
        self._positions[stream][sequence] = (batch.next_offset, finished)
        for settled in results:
            self._after(settled)

    def _settle_alone(self, connection: Connection, stream: Stream, sequence: int, record: Record) -> Settled:
        """A record that is in somebody's way is good: it is tried again. Only what fails every time is put aside."""
        single = Batch([record], [], record.offset, at_end=False)
        for attempt in range(CONFLICT_TRIES_MAX):
            try:
                with connection.transaction():
                    return self._store(connection, stream, sequence, single)
            except Conflict as conflict:
                refused: Exception = conflict
                time.sleep(CONFLICT_PAUSE_SECONDS * (attempt + 1))
            except Poison as poison:
                refused = poison
                break
        reason = f"refused: {type(refused).__name__}"
        db_positions.insert_quarantine(
            connection, self._node, int(stream), sequence, record.offset, reason=reason, raw=record.payload
        )
        return Settled(1, 0, 0, 1, [])

    def _store(self, connection: Connection, stream: Stream, sequence: int, batch: Batch) -> Settled:
        for damage in batch.damaged:
            db_positions.insert_quarantine(
                connection,
                self._node,
                int(stream),
                sequence,
                damage.offset,
                reason=f"damaged: {damage.reason.value}",
                raw=damage.raw,
            )
        if stream is Stream.DECISIONS:
            self._store_decisions(connection, sequence, batch)
            return Settled(0, 0, 0, len(batch.damaged), [])
        records = self._unpack(connection, sequence, batch)
        if any(record.nas_id not in self._single_nas for _, record in records):
            self._load_nas(connection)
        settled = settle_accounting(connection, records, single_nas=self._single_nas)
        return Settled(
            settled.records,
            settled.deltas,
            settled.anomalies,
            settled.quarantined + len(batch.damaged) + len(batch.records) - len(records),
            settled.releases,
        )

    def _unpack(self, connection: Connection, sequence: int, batch: Batch) -> list[tuple[Place, AccountingRecord]]:
        records = []
        for record in batch.records:
            place = Place(self._node, sequence, record.offset)
            unpacked = unpack_accounting(record.payload)
            if isinstance(unpacked, AccountingRecord):
                records.append((place, unpacked))
            else:
                quarantine(connection, place, reason=unpacked.value, raw=record.payload)
        return records

    def _store_decisions(self, connection: Connection, sequence: int, batch: Batch) -> None:
        records = []
        for record in batch.records:
            unpacked = unpack_decision(record.payload)
            if isinstance(unpacked, DecisionRecord):
                records.append((Place(self._node, sequence, record.offset), unpacked))
        settle_decisions(connection, records)

    def _move(
        self, connection: Connection, stream: Stream, sequence: int, position: int, end: int, *, finished: bool
    ) -> None:
        if sequence not in self._positions[stream]:
            db_positions.insert_position(connection, self._node, int(stream), sequence, position)
        moved = db_positions.move_position(
            connection, self._node, int(stream), sequence, old=position, new=end, finished=finished
        )
        if not moved:
            connection.rollback()
            raise Fenced

    def _after(self, settled: Settled) -> None:
        counters = self._counters
        counters[Word.RECORDS_SETTLED] += settled.records
        counters[Word.DELTAS_SETTLED] += settled.deltas
        counters[Word.ANOMALIES] += settled.anomalies
        counters[Word.QUARANTINED] += settled.quarantined
        self._release(settled.releases)

    def _release(self, releases: list[tuple[int, bytes]]) -> None:
        if not releases:
            return
        for start in range(0, len(releases), RELEASES_MAX):
            with self._live.write() as change:
                change.release_many(releases[start : start + RELEASES_MAX])
            if change.fault is not None:
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
            set_plan_rows(self._counters, db_sessions.count_live_by_plan(connection))
            connection.commit()
        if now >= self._due["stale"] and now >= self._may_lapse_at:
            self._due["stale"] = now + self._child.settings.session.stale_check_seconds
            multiple = self._child.settings.session.stale_multiple
            closed = close_stale_sessions(connection, now=datetime.now(UTC), multiple=multiple, limit=STALE_BATCH_MAX)
            connection.commit()
            self._release(closed)
        if now >= self._due["upkeep"]:
            self._due["upkeep"] = now + UPKEEP_SECONDS
            self._upkeep(connection)

    def _upkeep(self, connection: Connection) -> None:
        """Partitions ahead; files and decisions whose retention is over go."""
        now = datetime.now(UTC)
        settings = self._child.settings
        db_partitions.create_ahead(connection, now)
        db_partitions.drop_decisions_before(connection, now - timedelta(days=settings.decisions.retention_days))
        db_feed.delete_old(connection)
        connection.commit()
        for stream, days in ((Stream.ACCOUNTING, settings.journal.retention_days), (Stream.DECISIONS, 0)):
            finished = db_positions.list_finished(connection, self._node, int(stream), older_than_days=days)
            files = list_files(self._folders[stream])
            for file in files if isinstance(files, list) else []:
                if file.sequence in finished and delete_file(file) is None:
                    db_positions.delete_position(connection, self._node, int(stream), file.sequence)
                    self._positions[stream].pop(file.sequence, None)
            connection.commit()

    def _measure_backlog(self) -> None:
        """Octets of what is not settled yet, and the age of its oldest record."""
        words = {
            Stream.ACCOUNTING: Word.BACKLOG_OCTETS,
            Stream.DECISIONS: Word.BACKLOG_DECISIONS_OCTETS,
        }
        for stream, word in words.items():
            files = list_files(self._folders[stream])
            waiting = 0
            oldest_ns = 0
            for file in files if isinstance(files, list) else []:
                position, finished = self._positions.get(stream, {}).get(file.sequence, (0, False))
                end = file.octets if finished else readable_end(file, stream=stream, board=self._child.board)
                if not finished and isinstance(end, int) and end > max(position, FILE_HEADER_OCTETS):
                    waiting += end - position
                    oldest_ns = oldest_ns or self._received_ns(file, stream, position, end)
            self._counters[word] = waiting
            if stream is Stream.ACCOUNTING:
                lag_ms = (time.time_ns() - oldest_ns) // 1_000_000 if oldest_ns else 0
                self._counters[Word.SETTLE_LAG_MS] = max(lag_ms, 0)

    def _received_ns(self, file: JournalFile, stream: Stream, position: int, end: int) -> int:
        """When the first record after a position was received."""
        batch = read(file, stream=stream, database_id=self._database_id, offset=position, end=end, records_max=1)
        if isinstance(batch, Batch) and batch.records and stream is Stream.ACCOUNTING:
            record = unpack_accounting(batch.records[0].payload)
            if isinstance(record, AccountingRecord):
                return record.received_ns
        return 0


def main(child: Child) -> None:
    os.nice(5)  # when cores are short the ways of the packets come first
    Settler(child).run()


if __name__ == "__main__":
    run_child(main)
