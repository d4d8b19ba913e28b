"""Looking at journal files without settling them: who writes each, how far it may be read, its records in turn.

For whoever looks after the journal: its state, its check, a replay. A file is asked for its lock *before* its end, as
the settler does it: a writer may add a batch and die between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sms_aaa.node.journal import JournalFault, JournalFaultKind, Stream, fault_of, stream_folder
from sms_aaa.node.journal_reader import (
    READ_RECORDS_MAX,
    Batch,
    JournalFile,
    is_orphan,
    list_files,
    read,
    read_header,
    readable_end,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.node.board import Board
    from sms_aaa.node.frames import FileHeader

SUFFIX = ".journal"


class WriterState(StrEnum):
    """Who writes a file: somebody; nobody since its writer died; nobody since its writer closed it; there is no file.

    A file that was closed ends where its writer said; an orphan is as long as it was made, with zeros behind.
    """

    ALIVE = "alive"
    ORPHAN = "orphan"
    CLOSED = "closed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Look:
    """A file as it is now; `end`: how far it may be read, 0 where `fault` says what is wrong with it as a whole."""

    file: JournalFile
    stream: Stream
    writer: WriterState
    end: int
    header: FileHeader | None
    fault: JournalFault | None


def look(file: JournalFile, *, stream: Stream, board: Board | None) -> Look:
    """`board` None: no server runs; then no live file may be read (J4)."""
    is_alone = is_orphan(file)
    header = read_header(file)
    if isinstance(header, JournalFault):
        state = (
            WriterState.MISSING if header.kind is JournalFaultKind.MISSING else _state(file, None, is_alone=is_alone)
        )
        return Look(file, stream, state, 0, None, header)
    state = _state(file, header, is_alone=is_alone)
    end = readable_end(file, stream=stream, board=board)
    if isinstance(end, JournalFault):
        return Look(file, stream, state, 0, header, end)
    return Look(file, stream, state, end, header, None)


def walk(
    file: JournalFile,
    *,
    stream: Stream,
    database_id: bytes,
    offset: int,
    end: int,
    records_max: int = READ_RECORDS_MAX,
) -> Iterator[Batch]:
    """What stands in [offset, end), batch by batch; ends early where the file cannot be read any more."""
    while offset < end:
        batch = read(file, stream=stream, database_id=database_id, offset=offset, end=end, records_max=records_max)
        if isinstance(batch, JournalFault):
            return
        yield batch
        offset = batch.next_offset


def files_of(root: Path, stream: Stream) -> list[JournalFile] | JournalFault:
    """The stream's files under the journal folder; none where there never was a writer."""
    files = list_files(stream_folder(root, stream))
    if isinstance(files, JournalFault) and files.kind is JournalFaultKind.MISSING:
        return []
    return files


def find_file(root: Path, name: str) -> tuple[Stream, JournalFile] | JournalFault:
    """The file that a person means: its number, its name, or a path, which may lead out of the journal folder."""
    text = name.removesuffix(SUFFIX)
    if text.isascii() and text.isdigit():
        for stream in Stream:
            path = stream_folder(root, stream) / f"{int(text):020d}{SUFFIX}"
            if path.exists():
                return _at(path)
        return JournalFault(JournalFaultKind.MISSING, f"{root}: there is no file {int(text):020d}{SUFFIX}")
    return _at(Path(name))


def read_at(folder: Path, stream: Stream, sequence: int, offset: int) -> bytes | None:
    """The payload of the record that stands at a place; None where there is none that can be read."""
    found = _at(folder / f"{sequence:020d}{SUFFIX}")
    if isinstance(found, JournalFault):
        return None
    file = found[1]
    header = read_header(file)
    if isinstance(header, JournalFault):
        return None
    batch = read(file, stream=stream, database_id=header.database_id, offset=offset, end=file.octets, records_max=1)
    if isinstance(batch, JournalFault) or not batch.records or batch.records[0].offset != offset:
        return None
    return batch.records[0].payload


def _at(path: Path) -> tuple[Stream, JournalFile] | JournalFault:
    text = path.name.removesuffix(SUFFIX)
    if not (text.isascii() and text.isdigit()):
        return JournalFault(JournalFaultKind.MISSING, f"{path}: not the name of a journal file")
    try:
        told = path.stat()
    except OSError as error:
        return fault_of(JournalFaultKind.MISSING, path, error)
    file = JournalFile(path, int(text), told.st_size, told.st_mtime)
    header = read_header(file)
    if isinstance(header, JournalFault):
        return header
    return Stream(header.stream), file


def _state(file: JournalFile, header: FileHeader | None, *, is_alone: bool) -> WriterState:
    if not is_alone:
        return WriterState.ALIVE
    is_closed = header is not None and file.octets < header.preallocated_octets
    return WriterState.CLOSED if is_closed else WriterState.ORPHAN
