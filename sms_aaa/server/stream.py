"""One stream of the node's journal on its way to PostgreSQL: read what is synced, store a batch, move the position.

Exactly once: rows and position are one transaction, and the position moves by compare-and-set (J7). A batch that
PostgreSQL refuses is tried record by record, and the record that it refuses alone is quarantined. What a record means
is the business of whoever works with this: the settler for accounting, the recorder for decisions.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from sms_aaa.db import positions as db_positions
from sms_aaa.db.engine import Conflict, Connection, Poison
from sms_aaa.metrics import Word
from sms_aaa.node.frames import FILE_HEADER_OCTETS, Record
from sms_aaa.node.journal import JournalFault, JournalFaultKind, Stream
from sms_aaa.node.journal_reader import Batch, JournalFile, delete_file, is_orphan, list_files, read, readable_end

if TYPE_CHECKING:
    from sms_aaa.server.worker import Child

CONFLICT_TRIES_MAX = 5
CONFLICT_PAUSE_SECONDS = 0.05

Stored = TypeVar("Stored")


class Fenced(Exception):  # noqa: N818 - a signal to roll back, not an error
    """Another process moved a position: what was just done is not ours to commit (J7)."""


class Keeper(Protocol[Stored]):
    """What becomes of a batch. `store` writes its rows and nothing else; `after` is called once they are committed."""

    def store(self, connection: Connection, sequence: int, batch: Batch) -> Stored: ...

    def after(self, stored: Stored) -> None: ...


class StreamSettler(Generic[Stored]):
    """One stream of this node, with the positions as the connection told them in `begin`."""

    def __init__(self, child: Child, stream: Stream, keeper: Keeper[Stored], *, batch_max: int) -> None:
        self._child = child
        self._counters = child.counters
        self._node = child.settings.node.name
        self._stream = stream
        self._keeper = keeper
        self._batch_max = batch_max
        self._folder = child.journal_folder(stream)
        self._positions: dict[int, tuple[int, bool]] = {}
        self._finished_at: dict[int, float] = {}
        self._deleted_early: set[int] = set()
        self._faulty: set[int] = set()
        self.database_id = b""

    def begin(self, connection: Connection, database_id: bytes) -> None:
        self.database_id = database_id
        rows = db_positions.list_position_rows(connection, self._node, int(self._stream))
        self._positions = {row.sequence: (row.position, row.finished) for row in rows}
        self._finished_at = {row.sequence: row.updated_at.timestamp() for row in rows if row.finished}

    def settle(self, connection: Connection) -> bool:
        """One batch of each file that has something, each committed; whether there was anything."""
        files = list_files(self._folder)
        if isinstance(files, JournalFault):
            self._child.fail("journal", files.detail)
        self._check_all_there(connection, files)
        worked = False
        for file in files:
            position, finished = self._positions.get(file.sequence, (0, False))
            if not finished:
                worked |= self._settle_file(connection, file, position)
        return worked

    def waiting(self) -> tuple[int, Record | None]:
        """Octets that are not settled yet, and the first record of them."""
        files = list_files(self._folder)
        waiting = 0
        oldest: Record | None = None
        for file in files if isinstance(files, list) else []:
            position, finished = self._positions.get(file.sequence, (0, False))
            end = file.octets if finished else readable_end(file, stream=self._stream, board=self._child.board)
            if not finished and isinstance(end, int) and end > max(position, FILE_HEADER_OCTETS):
                waiting += end - position
                oldest = oldest or self._first_record(file, position, end)
        return waiting, oldest

    def clean(self, connection: Connection, *, older_than_days: int) -> None:
        """Files that were settled to their end so long ago go, and their positions with them (J9)."""
        finished = db_positions.list_finished(
            connection, self._node, int(self._stream), older_than_days=older_than_days
        )
        files = list_files(self._folder)
        if isinstance(files, JournalFault):
            return
        deleted = {file.sequence for file in files if file.sequence in finished and delete_file(file) is None}
        # None goes only because its file is not seen: in a folder that is mounted late it would be settled again.
        for sequence in deleted | self._deleted_early:
            db_positions.delete_position(connection, self._node, int(self._stream), sequence)
            self._positions.pop(sequence, None)
            self._finished_at.pop(sequence, None)
        connection.commit()
        self._deleted_early.clear()

    def make_room(self, octets: int, *, older_than_hours: int) -> int:
        """Deletes settled files before their time, the oldest first, until so many octets are free; how many files.

        None that is not settled to its end, none that was settled less than so long ago (J9). What is settled is known
        without PostgreSQL; their positions stay until `clean`.
        """
        settled_before = time.time() - older_than_hours * 3600
        files = list_files(self._folder)
        freed, before = 0, len(self._deleted_early)
        for file in files if isinstance(files, list) else []:
            if freed >= octets:
                break
            if self._finished_at.get(file.sequence, float("inf")) < settled_before and delete_file(file) is None:
                freed += file.octets
                self._deleted_early.add(file.sequence)
        return len(self._deleted_early) - before

    def _check_all_there(self, connection: Connection, files: list[JournalFile]) -> None:
        present = {file.sequence for file in files}
        missing = [s for s, (_, finished) in self._positions.items() if not finished and s not in present]
        for sequence in missing:
            if self._stream is Stream.ACCOUNTING:
                self._child.fail(
                    "journal",
                    f"{self._folder}/{sequence:020d}.journal is missing and is not settled to its end: "
                    "restore it; nothing is settled until then",
                )
            db_positions.delete_position(connection, self._node, int(self._stream), sequence)
            connection.commit()
            del self._positions[sequence]

    def _settle_file(self, connection: Connection, file: JournalFile, position: int) -> bool:
        orphan = is_orphan(file)
        end = readable_end(file, stream=self._stream, board=self._child.board)
        if isinstance(end, JournalFault):
            return self._file_fault(file, end, orphan=orphan)
        if position >= end and not orphan:
            return False
        batch = read(
            file,
            stream=self._stream,
            database_id=self.database_id,
            offset=position,
            end=end,
            records_max=self._batch_max,
        )
        if isinstance(batch, JournalFault):
            return self._file_fault(file, batch, orphan=orphan)
        self._settle_batch(connection, file.sequence, position, batch, finished=orphan and batch.at_end)
        return True

    def _file_fault(self, file: JournalFile, fault: JournalFault, *, orphan: bool) -> bool:
        """A file of another database, or one that cannot be read, is left as it is and said; the others go on.

        Decisions are not synced: after a power cut their newest file may lack its header, and holds nothing then.
        """
        if self._stream is Stream.DECISIONS and orphan and fault.kind is JournalFaultKind.HEADER:
            delete_file(file)
        if file.sequence not in self._faulty:
            self._faulty.add(file.sequence)
            self._counters[Word.SETTLE_FAULTS] += 1
            self._child.log.error("journal-file", fault=fault.kind.value, detail=fault.detail)
        return False

    def _settle_batch(
        self, connection: Connection, sequence: int, position: int, batch: Batch, *, finished: bool
    ) -> None:
        """J7: rows and position in one transaction."""
        for attempt in range(CONFLICT_TRIES_MAX):
            try:
                stored = self._store(connection, sequence, batch)
                self._move(connection, sequence, position, batch.next_offset, finished=finished)
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
            self._note(sequence, batch.next_offset, finished=finished)
            self._keeper.after(stored)
            return
        self._settle_one_by_one(connection, sequence, position, batch, finished=finished)

    def _settle_one_by_one(
        self, connection: Connection, sequence: int, position: int, batch: Batch, *, finished: bool
    ) -> None:
        """Each record in its own savepoint: the one that PostgreSQL refuses is put aside, the others go on."""
        self._child.log.error("poison-in-batch", sequence=sequence, position=position, records=len(batch.records))
        results = []
        for record in batch.records:
            self._child.beat()
            results.append(self._settle_alone(connection, sequence, record))
        self._store(connection, sequence, Batch([], batch.damaged, batch.next_offset, at_end=batch.at_end))
        self._move(connection, sequence, position, batch.next_offset, finished=finished)
        connection.commit()
        self._note(sequence, batch.next_offset, finished=finished)
        for stored in results:
            if stored is not None:
                self._keeper.after(stored)

    def _settle_alone(self, connection: Connection, sequence: int, record: Record) -> Stored | None:
        """A record that is in somebody's way is good: it is tried again. Only what fails every time is put aside."""
        single = Batch([record], [], record.offset, at_end=False)
        for attempt in range(CONFLICT_TRIES_MAX):
            try:
                with connection.transaction():
                    return self._store(connection, sequence, single)
            except Conflict as conflict:
                refused: Exception = conflict
                time.sleep(CONFLICT_PAUSE_SECONDS * (attempt + 1))
            except Poison as poison:
                refused = poison
                break
        self._quarantine(
            connection, sequence, record.offset, reason=f"refused: {type(refused).__name__}", raw=record.payload
        )
        self._counters[Word.QUARANTINED] += 1
        return None

    def _store(self, connection: Connection, sequence: int, batch: Batch) -> Stored:
        for damage in batch.damaged:
            self._quarantine(
                connection, sequence, damage.offset, reason=f"damaged: {damage.reason.value}", raw=damage.raw
            )
        return self._keeper.store(connection, sequence, batch)

    def _quarantine(self, connection: Connection, sequence: int, offset: int, *, reason: str, raw: bytes) -> None:
        db_positions.insert_quarantine(
            connection, self._node, int(self._stream), sequence, offset, reason=reason, raw=raw
        )

    def _note(self, sequence: int, position: int, *, finished: bool) -> None:
        """The position is committed."""
        self._positions[sequence] = (position, finished)
        if finished:
            self._finished_at[sequence] = time.time()

    def _move(self, connection: Connection, sequence: int, position: int, end: int, *, finished: bool) -> None:
        if sequence not in self._positions:
            db_positions.insert_position(connection, self._node, int(self._stream), sequence, position)
        moved = db_positions.move_position(
            connection, self._node, int(self._stream), sequence, old=position, new=end, finished=finished
        )
        if not moved:
            connection.rollback()
            raise Fenced

    def _first_record(self, file: JournalFile, position: int, end: int) -> Record | None:
        batch = read(file, stream=self._stream, database_id=self.database_id, offset=position, end=end, records_max=1)
        return batch.records[0] if isinstance(batch, Batch) and batch.records else None
