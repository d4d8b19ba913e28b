"""How a node's journal stands: each file with its writer, its end, how far it is settled and what waits in it.

What the files say needs no database; how far they are settled only PostgreSQL knows (J7). While it is away, positions
and backlogs are unknown, and said to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import positions as db_positions
from sms_aaa.node.frames import FILE_HEADER_OCTETS
from sms_aaa.node.journal import JournalFault, Stream
from sms_aaa.node.journal_reader import JournalFile, read
from sms_aaa.node.journal_survey import Look, WriterState, files_of, look, walk
from sms_aaa.node.records import AccountingRecord, DecisionBatch, unpack_accounting, unpack_decisions

if TYPE_CHECKING:
    from pathlib import Path

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.positions import PositionRow
    from sms_aaa.node.board import Board

COUNTED_OCTETS_MAX = 256 * 1024 * 1024
"""Of a file, how much backlog is counted record by record, some three seconds; beyond it only its octets are told."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class JournalPlace:
    """Where a node's journal is: the folder of its streams, the node's name, and its board if a server runs."""

    root: Path
    node: str
    board: Board | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What of a file is not settled; `records` None: too much to count. `oldest_at`: its first record's receipt."""

    octets: int
    records: int | None
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class FileState:
    """One file. `position`, `finished`, `backlog` None: not known; `look` None: PostgreSQL knows a file that is gone.

    `deletable_at`: from when its retention is over, once it is settled to its end.
    """

    stream: Stream
    sequence: int
    look: Look | None
    position: int | None
    finished: bool | None
    backlog: Backlog | None
    deletable_at: datetime | None

    @property
    def writer(self) -> WriterState:
        return self.look.writer if self.look is not None else WriterState.MISSING

    @property
    def fault(self) -> str | None:
        if self.look is None:
            return "the file is gone before it was settled: restore it"
        return self.look.fault.detail if self.look.fault is not None else None


def survey(
    connection: Connection | None, place: JournalPlace, *, retention_days: int
) -> list[FileState] | JournalFault:
    """Every file of both streams, the oldest first, with the files that ought to be there. `connection` None: away."""
    states: list[FileState] = []
    for stream in Stream:
        rows = _rows(connection, place, stream)  # first: a file that is begun meanwhile is then no missing one
        files = files_of(place.root, stream)
        if isinstance(files, JournalFault):
            return files
        present = {file.sequence for file in files}
        found = [_file_state(file, stream, place, rows, retention_days) for file in files]
        for sequence, row in (rows or {}).items():
            if sequence not in present and not row.finished:
                found.append(
                    FileState(stream, sequence, None, row.position, finished=False, backlog=None, deletable_at=None)
                )
        states += sorted(found, key=lambda state: state.sequence)
    return states


def _rows(connection: Connection | None, place: JournalPlace, stream: Stream) -> dict[int, PositionRow] | None:
    if connection is None:
        return None
    return {row.sequence: row for row in db_positions.list_position_rows(connection, place.node, int(stream))}


def _file_state(
    file: JournalFile, stream: Stream, place: JournalPlace, rows: dict[int, PositionRow] | None, retention_days: int
) -> FileState:
    seen = look(file, stream=stream, board=place.board)
    if rows is None:
        return FileState(stream, file.sequence, seen, None, None, None, None)
    row = rows.get(file.sequence)
    if row is None:
        return FileState(stream, file.sequence, seen, 0, finished=False, backlog=_backlog(seen, 0), deletable_at=None)
    backlog = Backlog(0, 0, None) if row.finished else _backlog(seen, row.position)
    deletable_at = row.updated_at + timedelta(days=retention_days) if row.finished else None
    return FileState(stream, file.sequence, seen, row.position, row.finished, backlog, deletable_at)


def _backlog(seen: Look, position: int) -> Backlog:
    start = max(position, FILE_HEADER_OCTETS)
    octets = max(0, seen.end - start)
    if not octets or seen.header is None:
        return Backlog(octets, 0, None)
    database_id = seen.header.database_id
    first = read(seen.file, stream=seen.stream, database_id=database_id, offset=start, end=seen.end, records_max=1)
    oldest_at = (
        received_at(seen.stream, first.records[0].payload)
        if not isinstance(first, JournalFault) and first.records
        else None
    )
    if octets > COUNTED_OCTETS_MAX:
        return Backlog(octets, None, oldest_at)
    batches = walk(seen.file, stream=seen.stream, database_id=database_id, offset=start, end=seen.end)
    return Backlog(octets, sum(len(batch.records) for batch in batches), oldest_at)


def received_at(stream: Stream, payload: bytes) -> datetime | None:
    """When a record was received, or its decisions were made; None where it cannot be read."""
    if stream is Stream.ACCOUNTING:
        record = unpack_accounting(payload)
        at_ns = record.received_ns if isinstance(record, AccountingRecord) else 0
    else:
        batch = unpack_decisions(payload)
        at_ns = batch.at_ns if isinstance(batch, DecisionBatch) else 0
    return instant(at_ns) if at_ns else None


def instant(at_ns: int) -> datetime:
    """Nanoseconds of the epoch as PostgreSQL keeps them: to the microsecond."""
    return _EPOCH + timedelta(microseconds=at_ns // 1000)
