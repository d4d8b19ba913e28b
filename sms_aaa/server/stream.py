"""One stream of the node's journal on its way to PostgreSQL: read what is synced, store a batch, move the position.

Exactly once: rows and position are one transaction, and the position moves by compare-and-set (J7). A batch that
PostgreSQL refuses is halved until the record stands alone that it refuses; that one is quarantined. What a record means
is the business of whoever works with this: the settler for accounting, the recorder for decisions.

In which order files are settled changes nothing that is stored. So each pass takes a batch of every file that is being
written, and one of the oldest of those that have ended: what is sent now is seen soon although there is much to catch
up with, and what is old does not wait for what is new.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from sms_aaa.db import positions as db_positions
from sms_aaa.db.engine import Conflict, Connection, Poison
from sms_aaa.db.meanwhile import busy_with
from sms_aaa.metrics import Word
from sms_aaa.node.frames import FILE_HEADER_OCTETS, Record
from sms_aaa.node.journal import JournalFault, JournalFaultKind, Stream
from sms_aaa.node.journal_reader import Batch, JournalFile, delete_file, is_orphan, list_files, read, readable_end
from sms_aaa.server.ahead import READ_OCTETS, Ahead, Portion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.server.worker import Child

CONFLICT_TRIES_MAX = 5
CONFLICT_PAUSE_SECONDS = 0.05

Ready = TypeVar("Ready")
Stored = TypeVar("Stored")


class Fenced(Exception):  # noqa: N818 - a signal to roll back, not an error
    """Another process moved a position: what was just done is not ours to commit (J7)."""


class Keeper(Protocol[Ready, Stored]):
    """What becomes of a batch.

    `prepare` says what each of some records means: without the database, and perhaps of records that are never stored
    or once more before they are. `store` writes the rows of a batch and nothing else; then `after` is called once they
    are committed, or `refused` when they were rolled back.
    """

    def prepare(self, sequence: int, records: Sequence[Record]) -> list[Ready]: ...

    def store(self, connection: Connection, sequence: int, portion: Portion[Ready]) -> Stored: ...

    def after(self, stored: Stored) -> None: ...

    def refused(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass over the files did. `is_backlog`: there was more than fitted, so the next one is not to wait."""

    worked: bool
    is_backlog: bool


class StreamSettler(Generic[Ready, Stored]):
    """One stream of this node, with the positions as the connection told them in `begin`."""

    def __init__(self, child: Child, stream: Stream, keeper: Keeper[Ready, Stored], *, batch_max: int) -> None:
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
        self._orphans: set[int] = set()
        self._ahead: Ahead[Ready] = Ahead(self._look_ahead, keeper.prepare, records_max=batch_max)
        self.database_id = b""

    def begin(self, connection: Connection, database_id: bytes) -> None:
        self.database_id = database_id
        self._ahead.clear()
        rows = db_positions.list_position_rows(connection, self._node, int(self._stream))
        self._positions = {row.sequence: (row.position, row.finished) for row in rows}
        self._finished_at = {row.sequence: row.updated_at.timestamp() for row in rows if row.finished}

    def settle(self, connection: Connection) -> Pass:
        """A batch of each live file and of the oldest other that has something, each committed."""
        files = list_files(self._folder)
        if isinstance(files, JournalFault):
            self._child.fail("journal", files.detail)
        self._check_all_there(connection, files)
        left = [file for file in files if not self._position(file)[1]]
        self._orphans.update(file.sequence for file in left if file.sequence not in self._orphans and is_orphan(file))
        self._orphans.intersection_update(file.sequence for file in left)
        live = [self._settle_file(connection, file) for file in left if file.sequence not in self._orphans]
        ended = [file for file in left if file.sequence in self._orphans]
        oldest = next((some for file in ended if (some := self._settle_file(connection, file)) is not None), None)
        done = [batch for batch in (*live, oldest) if batch is not None]
        is_backlog = any(not batch.at_end for batch in done) or (oldest is not None and len(ended) > 1)
        return Pass(worked=bool(done), is_backlog=is_backlog)

    def _position(self, file: JournalFile) -> tuple[int, bool]:
        """(how far it is settled, whether that is all of it)."""
        return self._positions.get(file.sequence, (0, False))

    def waiting(self) -> tuple[int, list[Record]]:
        """Octets that are not settled yet, and of each file the first record of them."""
        files = list_files(self._folder)
        waiting = 0
        first: list[Record] = []
        for file in files if isinstance(files, list) else []:
            position, finished = self._position(file)
            end = file.octets if finished else readable_end(file, stream=self._stream, board=self._child.board)
            if not finished and isinstance(end, int) and end > max(position, FILE_HEADER_OCTETS):
                waiting += end - position
                first += self._first_records(file, position, end)
        return waiting, first

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

    def make_room(self, octets: int, *, older_than_seconds: int) -> int:
        """Deletes settled files before their time, the oldest first, until so many octets are free; how many files.

        None that is not settled to its end, none that was settled less than so long ago (J9). What is settled is known
        without PostgreSQL; their positions stay until `clean`.
        """
        settled_before = time.time() - older_than_seconds
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

    def _settle_file(self, connection: Connection, file: JournalFile) -> Batch | None:
        """A batch of the file; None when it has none."""
        orphan = file.sequence in self._orphans  # known before the end is asked for
        position, _ = self._position(file)
        end = readable_end(file, stream=self._stream, board=self._child.board)
        if isinstance(end, JournalFault):
            self._file_fault(file, end, orphan=orphan)
            return None
        if position >= end and not orphan:
            return None
        portion = self._next_portion(file, position, end)
        if isinstance(portion, JournalFault):
            self._file_fault(file, portion, orphan=orphan)
            return None
        finished = orphan and portion.batch.at_end
        if not finished:
            self._ahead.aim(file, portion.batch.next_offset)
        with busy_with(connection, self._ahead.work):
            self._settle_batch(connection, file.sequence, position, portion, finished=finished)
        return portion.batch

    def _next_portion(self, file: JournalFile, position: int, end: int) -> Portion[Ready] | JournalFault:
        """What was read ahead, and what of the file has come since. `end` was asked for after who its writer is."""
        known = self._ahead.take(file.sequence, position)
        if known is not None and (known.batch.next_offset >= end or len(known.ready) >= self._batch_max):
            return Portion(replace(known.batch, at_end=known.batch.next_offset >= end), known.ready)
        batch = read(
            file,
            stream=self._stream,
            database_id=self.database_id,
            offset=position if known is None else known.batch.next_offset,
            end=end,
            records_max=self._batch_max - (0 if known is None else len(known.ready)),
        )
        if isinstance(batch, JournalFault):
            return batch
        more = Portion(batch, self._keeper.prepare(file.sequence, batch.records))
        return more if known is None else known.joined(more)

    def _look_ahead(self, file: JournalFile, offset: int, records_max: int) -> Batch | None:
        """A few records; what is wrong with a file is found when it is their turn."""
        end = readable_end(file, stream=self._stream, board=self._child.board)
        if isinstance(end, JournalFault) or end <= offset:
            return None
        batch = read(
            file,
            stream=self._stream,
            database_id=self.database_id,
            offset=offset,
            end=end,
            records_max=records_max,
            octets_max=READ_OCTETS,
        )
        return batch if isinstance(batch, Batch) else None

    def _file_fault(self, file: JournalFile, fault: JournalFault, *, orphan: bool) -> None:
        """A file of another database, or one that cannot be read, is left as it is and said; the others go on.

        Decisions are not synced: after a power cut their newest file may lack its header, and holds nothing then.
        """
        if self._stream is Stream.DECISIONS and orphan and fault.kind is JournalFaultKind.HEADER:
            delete_file(file)
        if file.sequence not in self._faulty:
            self._faulty.add(file.sequence)
            self._counters[Word.SETTLE_FAULTS] += 1
            self._child.log.error("journal-file", fault=fault.kind.value, detail=fault.detail)

    def _settle_batch(
        self, connection: Connection, sequence: int, position: int, portion: Portion[Ready], *, finished: bool
    ) -> None:
        """J7: rows and position in one transaction. Who is only in somebody's way is tried again first."""
        batch = portion.batch
        refused: Exception | None = None
        for attempt in range(CONFLICT_TRIES_MAX):
            self._child.beat()
            try:
                stored = self._store(connection, sequence, portion)
                self._move(connection, sequence, position, batch.next_offset, finished=finished)
                connection.commit()
            except Conflict as conflict:
                self._take_back(connection)
                refused = conflict
                time.sleep(CONFLICT_PAUSE_SECONDS * (attempt + 1))
            except Poison as poison:
                self._take_back(connection)
                refused = poison
                break
            else:
                self._note(sequence, batch.next_offset, finished=finished)
                self._keeper.after(stored)
                return
        assert refused is not None
        self._divide(connection, sequence, position, portion, refused, finished=finished)

    def _take_back(self, connection: Connection) -> None:
        connection.rollback()
        self._keeper.refused()
        self._counters[Word.SETTLE_FAULTS] += 1

    def _divide(
        self,
        connection: Connection,
        sequence: int,
        position: int,
        portion: Portion[Ready],
        refused: Exception,
        *,
        finished: bool,
    ) -> None:
        """Each half is a batch of its own, committed with its position; a record that is refused alone is put aside."""
        batch = portion.batch
        if not batch.records:
            raise refused
        if len(batch.records) > 1:
            first, second = portion.halves()
            self._settle_batch(connection, sequence, position, first, finished=False)
            self._settle_batch(connection, sequence, first.batch.next_offset, second, finished=finished)
            return
        [record] = batch.records
        reason = f"refused: {type(refused).__name__}"
        self._child.log.error("poison", sequence=sequence, offset=record.offset, reason=reason)
        self._quarantine(connection, sequence, record.offset, reason=reason, raw=record.payload)
        stored = self._store(connection, sequence, portion.without_records())
        self._move(connection, sequence, position, batch.next_offset, finished=finished)
        connection.commit()
        self._note(sequence, batch.next_offset, finished=finished)
        self._counters[Word.QUARANTINED] += 1
        self._keeper.after(stored)

    def _store(self, connection: Connection, sequence: int, portion: Portion[Ready]) -> Stored:
        for damage in portion.batch.damaged:
            self._quarantine(
                connection, sequence, damage.offset, reason=f"damaged: {damage.reason.value}", raw=damage.raw
            )
        return self._keeper.store(connection, sequence, portion)

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

    def _first_records(self, file: JournalFile, position: int, end: int) -> list[Record]:
        batch = read(file, stream=self._stream, database_id=self.database_id, offset=position, end=end, records_max=1)
        return batch.records if isinstance(batch, Batch) else []
