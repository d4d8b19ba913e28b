"""Reading the journal back: for the settler, for `why`, and for whoever deletes what is settled.

What may be read of a live file is what its writer published in the board, after the sync (J4); of an orphan, whose
writer closed it or died, all that is valid in it. Every octet up to a batch's end is either in a record or in a named
damage: nothing is passed over in silence (J10). Nothing here remembers a position; that is db/'s, in the transaction
of the rows (J7), so reading the same place again gives the same records.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.node import frames
from sms_aaa.node.folders import sync_folder
from sms_aaa.node.journal import (
    JournalFault,
    JournalFaultKind,
    Stream,
    fault_of,
    is_unlocked,
    try_shared_lock,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sms_aaa.node.board import Board

READ_OCTETS_MAX = 4 * 1024 * 1024
READ_RECORDS_MAX = 10_000

_NAME = re.compile(r"\d{20}\.journal")
_ZEROS = bytes(1024 * 1024)


@dataclass(frozen=True, slots=True)
class JournalFile:
    """`octets` is the file's size, with what is preallocated; `written_at`: the last time, in epoch seconds."""

    path: Path
    sequence: int
    octets: int
    written_at: float


@dataclass(frozen=True, slots=True)
class Batch:
    """What stands in [offset asked for, next_offset): each octet of it belongs to a record or to a named damage."""

    records: list[frames.Record]
    damaged: list[frames.Damage]
    next_offset: int
    at_end: bool


def list_files(folder: Path) -> list[JournalFile] | JournalFault:
    """The folder's files, the oldest first. A missing folder is a fault (J10), not an empty list."""
    files = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with suppress(FileNotFoundError):  # deleted since the folder was read
                        told = entry.stat()
                        files.append(
                            JournalFile(folder / entry.name, int(entry.name[:20]), told.st_size, told.st_mtime)
                        )
    except FileNotFoundError as error:
        return fault_of(JournalFaultKind.MISSING, folder, error)
    except OSError as error:
        return fault_of(JournalFaultKind.READ, folder, error)
    return sorted(files, key=lambda file: file.sequence)


def is_orphan(file: JournalFile) -> bool:
    """Whether the file is there and no living writer holds it: then nothing will ever be added to it.

    A file is settled to its end only if it was an orphan *before* readable_end was asked: a writer may add a batch and
    die between the two.
    """
    return is_unlocked(file.path)


def readable_end(file: JournalFile, *, stream: Stream, board: Board | None) -> int | JournalFault:
    """How far the file may be read now (J4): a live one as far as the board says, an orphan to the end of its records.

    Without a board, or in one that does not name the file, nothing of a live file may be read.
    """
    with _opened(file) as fd:
        if isinstance(fd, JournalFault):
            return fd
        try:
            # The lock is looked at first: a writer that dies in between has published no more than it synced.
            if not try_shared_lock(fd):
                synced = 0 if board is None else board.synced_offset(stream, file.sequence)
                return max(synced, frames.FILE_HEADER_OCTETS)
            header = _checked_header(fd, file)
            return header if isinstance(header, JournalFault) else _orphan_end(fd, header)
        except OSError as error:
            return fault_of(JournalFaultKind.READ, file.path, error)


def read(
    file: JournalFile,
    *,
    stream: Stream,
    database_id: bytes,
    offset: int,
    end: int,
    records_max: int = READ_RECORDS_MAX,
    octets_max: int = READ_OCTETS_MAX,
) -> Batch | JournalFault:
    """The records from `offset` (0: the first) that begin before `end` (from readable_end), as many as fit one batch.

    A damaged stretch is named in the batch and reading goes on behind it (J10). A file of another database (J8), one
    that is missing (J10) or that is not what its name says is a fault.
    """
    offset = max(offset, frames.FILE_HEADER_OCTETS)
    with _opened(file) as fd:
        if isinstance(fd, JournalFault):
            return fd
        try:
            header = _checked_header(fd, file)
            if isinstance(header, JournalFault):
                return header
            refusal = _refusal(header, file, stream=stream, database_id=database_id)
            if refusal is not None:
                return refusal
            limit = min(end, offset + octets_max)
            window = os.pread(fd, max(0, limit - offset) + frames.RECORD_OCTETS_MAX, offset)
        except OSError as error:
            return fault_of(JournalFaultKind.READ, file.path, error)
    seed = frames.file_seed(stream=stream, sequence=file.sequence)
    found = frames.scan(window, offset=offset, limit=limit, end=end, seed=seed, records_max=records_max)
    return Batch(found.records, found.damaged, found.next_offset, at_end=found.next_offset >= end)


def read_header(file: JournalFile) -> frames.FileHeader | JournalFault:
    """What the file says of itself: stream, database, size. A fault when it is not what its name says."""
    with _opened(file) as fd:
        if isinstance(fd, JournalFault):
            return fd
        try:
            return _checked_header(fd, file)
        except OSError as error:
            return fault_of(JournalFaultKind.READ, file.path, error)


def delete_file(file: JournalFile) -> JournalFault | None:
    """Removes an orphan for good; one that is gone already is no fault. Which may go is the caller's to know (J9)."""
    try:
        if not file.path.exists():
            return None
        if not is_unlocked(file.path):
            return JournalFault(JournalFaultKind.LIVE, f"{file.path}: its writer is alive; it cannot be deleted")
        file.path.unlink(missing_ok=True)
        sync_folder(file.path.parent)
    except OSError as error:
        return fault_of(JournalFaultKind.DELETE, file.path, error)
    return None


@contextmanager
def _opened(file: JournalFile) -> Iterator[int | JournalFault]:
    try:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield JournalFault(JournalFaultKind.MISSING, f"{file.path}: the file is missing; was the folder restored?")
        return
    except OSError as error:
        yield fault_of(JournalFaultKind.READ, file.path, error)
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _checked_header(fd: int, file: JournalFile) -> frames.FileHeader | JournalFault:
    header = frames.parse_file_header(os.pread(fd, frames.FILE_HEADER_OCTETS, 0))
    if isinstance(header, frames.HeaderFault):
        return JournalFault(JournalFaultKind.HEADER, f"{file.path}: {header.value}; move it away and keep it")
    if header.sequence != file.sequence:
        return JournalFault(JournalFaultKind.HEADER, f"{file.path}: it is file {header.sequence}; was it renamed?")
    return header


def _refusal(
    header: frames.FileHeader, file: JournalFile, *, stream: Stream, database_id: bytes
) -> JournalFault | None:
    if header.stream != stream:
        return JournalFault(
            JournalFaultKind.HEADER, f"{file.path}: it is of stream {header.stream}, not {int(stream)}; was it moved?"
        )
    if header.database_id != database_id:
        return JournalFault(
            JournalFaultKind.FOREIGN_DATABASE,
            f"{file.path}: written for database {header.database_id.hex()}, this is {database_id.hex()};"
            " settle it there, or move it away",
        )
    return None


def _orphan_end(fd: int, header: frames.FileHeader) -> int:
    """The end of an orphan's records. A file shorter than preallocated was closed by its writer: its size is exact.

    Else the writer died, and zeros follow the last octet that it wrote. That octet is past a record's header, since
    every header begins with its length; so the last record begins before it, and reading takes it whole.
    """
    octets = os.fstat(fd).st_size
    if octets < header.preallocated_octets:
        return octets
    while octets > frames.FILE_HEADER_OCTETS:
        start = max(frames.FILE_HEADER_OCTETS, octets - len(_ZEROS))
        chunk = os.pread(fd, octets - start, start)
        if chunk != _ZEROS[: len(chunk)]:
            return (start + len(chunk.rstrip(b"\0")) + 7) & -8
        octets = start
    return frames.FILE_HEADER_OCTETS
