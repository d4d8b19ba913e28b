"""The journal: the only way in for accounting, and the trace of each login's decision. This file is its writing side.

Two streams, each a folder of append-only files. *Accounting* is synced before the answer and never dropped.
*Decisions* is not synced and bounded: a power cut may cost the last second of it (its newest file may then even lack
a header), and when its folder is full new ones are dropped and counted.

A file has one writer, who holds an exclusive flock on it for as long as it lives. So anybody can tell a live file
from an orphan, however the writer died, and no pid is ever guessed at. A file gets its name only when it is locked,
preallocated, and has its header: whoever lists the folder never sees one half made. The name is the time of creation
in nanoseconds, counted up where it is taken.

The journal's rules stand where they are kept:

    J1 a new file for each Writer    Writer.open         J5 sealed after a fault      Writer.append
    J2 folder synced first           Writer.open         J8 bound to one database     journal_reader.read
    J3 seeded checksums              frames.py           J9 kept until told           journal_reader.delete_file
    J4 only what is synced           Writer.append,      J10 loud when missing        journal_reader.read
                                     journal_reader.readable_end

J6 (the duplicate cache) is the door's and J7 (positions) is db/'s. What fails is returned as a JournalFault.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.node import frames
from sms_aaa.node.folders import sync_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sms_aaa.node.board import Slot

FILE_OCTETS_MAX = 64 * 1024 * 1024
BOUNDED_FILES_MIN = 16  # a bounded folder has room for this many files, so that dropping the oldest frees a part only
FOLDER_LOOK_NS = 1_000_000_000  # between two looks at a full folder
SEQUENCE_TRIES_MAX = 1_000

_UNFINISHED = ".new"
_BLOCK_OCTETS = 512  # the unit of st_blocks, whatever the file system's own is
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_CANNOT_PREALLOCATE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class Stream(IntEnum):
    """The number is part of the files and of the positions in PostgreSQL."""

    ACCOUNTING = 1
    DECISIONS = 2


class JournalFaultKind(Enum):
    NO_SPACE = "no-space"
    BOUND = "bound"  # the folder takes all that it may
    OPEN = "open"
    WRITE = "write"
    SHORT_WRITE = "short-write"
    SYNC = "sync"
    TOO_LARGE = "too-large"
    MISSING = "missing"
    HEADER = "header"
    FOREIGN_DATABASE = "foreign-database"
    READ = "read"
    LIVE = "live"
    DELETE = "delete"

    @property
    def text(self) -> str:
        """For people, of a stream that is written: what is the matter."""
        return _TEXTS.get(self, ("its journal cannot be written", ""))[0]

    @property
    def remedy(self) -> str:
        return _TEXTS.get(self, ("", "see the log and the disk's own errors"))[1]


_TEXTS = {
    JournalFaultKind.NO_SPACE: ("the journal's disk is full", "free space there: it goes on by itself"),
    JournalFaultKind.BOUND: (
        "the journal takes all that journal.accounting_octets_max allows",
        "raise it, or see why the settler does not settle: `sms-aaa journal status`",
    ),
    JournalFaultKind.SYNC: ("the disk did not sync the journal", "see the log and the disk's own errors"),
}


@dataclass(frozen=True, slots=True)
class JournalFault:
    """What went wrong; `detail` names the file or folder, the system's reason and, where there is one, the remedy."""

    kind: JournalFaultKind
    detail: str


class Appended(Struct, frozen=True, gc=False):
    """The batch is in file `sequence` at [first_offset, end_offset), and on disk if the stream is synced."""

    sequence: int
    first_offset: int
    end_offset: int


class Dropped(Struct, frozen=True, gc=False):
    """The stream's folder is full: these `count` records were not written."""

    count: int


def stream_folder(root: Path, stream: Stream) -> Path:
    return root / stream.name.lower()


def make_folder(root: Path, stream: Stream) -> Path | JournalFault:
    """The stream's folder under the state folder `root`, made if it is missing and made to last (J2).

    Files that a dead writer began and never finished are removed. Any number of processes may call it, at any time.
    """
    folder = stream_folder(root, stream)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in folder.glob(f"*{_UNFINISHED}"):
            _sweep(unfinished)
        sync_folder(folder)
        sync_folder(root)
    except OSError as error:
        return fault_of(JournalFaultKind.OPEN, folder, error)
    return folder


class Writer:
    """Appends to one stream, from one thread of one process. It opens a file at the first append, or when told to."""

    def __init__(
        self,
        folder: Path,
        stream: Stream,
        database_id: bytes,
        slot: Slot | None,
        *,
        synced: bool,
        file_octets_max: int = FILE_OCTETS_MAX,
        folder_octets_max: int | None = None,
    ) -> None:
        """`database_id`: 16 octets (J8). `slot`: where to publish; None for a tool whose file nobody reads alive.

        `folder_octets_max` bounds the folder, None does not: at it the unsynced stream drops, and the synced one has a
        fault. Each writer looks for itself, so the bound may be passed by one file for each further writer.
        """
        assert len(database_id) == 16
        self._folder = folder
        self._stream = stream
        self._database_id = database_id
        self._slot = slot
        self._synced = synced
        self._folder_octets_max = folder_octets_max
        if folder_octets_max is not None:
            file_octets_max = min(file_octets_max, folder_octets_max // BOUNDED_FILES_MIN & -8)
        self._file_octets_max = file_octets_max
        self._full_since_ns: int | None = None
        self._fd = -1
        self._sequence = 0
        self._seed = 0
        self._end = 0

    def append(self, payloads: Sequence[bytes], now_ns: int) -> Appended | Dropped | JournalFault:
        """Writes the batch with one write and, if the stream is synced, one fdatasync; all of it or nothing.

        Only after Appended may an answer leave or enter the duplicate cache (J6). After a fault of writing or syncing
        the file is sealed (J5): what the kernel did with its pages is unknown, and a second fdatasync would report
        success for octets that are lost. The next append opens a new file; when to try that is the caller's choice.
        """
        octets = frames.framed_octets(payloads)
        if octets > self._file_octets_max - frames.FILE_HEADER_OCTETS or _longest(payloads) > frames.PAYLOAD_OCTETS_MAX:
            return JournalFault(
                JournalFaultKind.TOO_LARGE,
                f"{self._folder}: {len(payloads)} payloads of {octets} octets do not fit into a file or a record",
            )
        if self._fd < 0 or self._end + octets > self._file_octets_max:
            self.close()
            refused = self.open(now_ns)
            if refused is not None:
                is_dropped = refused.kind is JournalFaultKind.BOUND and not self._synced
                return Dropped(len(payloads)) if is_dropped else refused
        fault = self._write(frames.pack_records(payloads, offset=self._end, seed=self._seed))
        if fault is not None:
            self.close()
            return fault
        first = self._end
        self._end += octets
        if self._slot is not None:
            self._slot.publish(self._stream, self._sequence, self._end)  # J4: what is published is on disk
        return Appended(self._sequence, first, self._end)

    def open(self, now_ns: int) -> JournalFault | None:
        """Begins a new file, never an old one's tail (J1), and makes it last before anything is in it (J2).

        Nothing happens while one is open. It takes as long as a slow sync, once in some hundred thousand records: so no
        file is prepared ahead.
        """
        if self._fd >= 0:
            return None
        if self._is_full(now_ns):
            octets = self._folder_octets_max
            return JournalFault(JournalFaultKind.BOUND, f"{self._folder}: its files take the {octets} octets they may")
        try:
            fd, sequence = _create_unfinished(self._folder, now_ns)
        except OSError as error:
            return fault_of(JournalFaultKind.OPEN, self._folder, error)
        unfinished = self._folder / f"{sequence:020d}{_UNFINISHED}"
        try:
            self._fill_header(fd, sequence)
            unfinished.rename(self._folder / f"{sequence:020d}.journal")
            if self._synced:
                sync_folder(self._folder)
        except OSError as error:
            with suppress(OSError):  # it may be the folder's sync that failed: then an empty file stays
                os.ftruncate(fd, frames.FILE_HEADER_OCTETS)
            os.close(fd)
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            return fault_of(JournalFaultKind.OPEN, unfinished, error)
        self._fd, self._sequence = fd, sequence
        self._seed = frames.file_seed(stream=self._stream, sequence=sequence)
        self._end = frames.FILE_HEADER_OCTETS
        if self._slot is not None:
            self._slot.publish(self._stream, sequence, self._end)
        return None

    def close(self) -> None:
        """Ends the file, gives back what was preallocated, and lets go of the lock. The next append opens a new one.

        What was written after the last published end is cut off: no caller was told that it is there.
        """
        if self._fd < 0:
            return
        with suppress(OSError):  # then the tail stays, and its checksums say what it is
            os.ftruncate(self._fd, self._end)
        with suppress(OSError):
            os.close(self._fd)
        self._fd = -1

    def _fill_header(self, fd: int, sequence: int) -> None:
        octets = self._file_octets_max
        try:
            os.posix_fallocate(fd, 0, octets)
        except OSError as error:
            if error.errno not in _CANNOT_PREALLOCATE:
                raise
            os.ftruncate(fd, octets)  # sparse: a full disk then shows at a write instead of here
        header = frames.FileHeader(
            stream=self._stream, sequence=sequence, database_id=self._database_id, preallocated_octets=octets
        )
        if os.pwrite(fd, frames.pack_file_header(header), 0) != frames.FILE_HEADER_OCTETS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._synced:
            os.fsync(fd)

    def _write(self, octets: bytes) -> JournalFault | None:
        kind = JournalFaultKind.WRITE
        try:
            written = os.pwrite(self._fd, octets, self._end)
            if written != len(octets):
                return JournalFault(
                    JournalFaultKind.SHORT_WRITE,
                    f"{self._name()}: {written} of {len(octets)} octets written; is the disk or a quota full?",
                )
            if self._synced:
                kind = JournalFaultKind.SYNC
                os.fdatasync(self._fd)
        except OSError as error:
            return fault_of(kind, self._name(), error)
        return None

    def _is_full(self, now_ns: int) -> bool:
        """Whether a new file would pass the folder's bound. An open file needs no look: its space is taken already."""
        if self._folder_octets_max is None:
            return False
        # A clock that was set back must not keep the folder full for hours, hence the lower bound.
        if self._full_since_ns is not None and 0 <= now_ns - self._full_since_ns < FOLDER_LOOK_NS:
            return True
        is_full = folder_octets(self._folder) + self._file_octets_max > self._folder_octets_max
        self._full_since_ns = now_ns if is_full else None
        return is_full

    def _name(self) -> Path:
        return self._folder / f"{self._sequence:020d}.journal"


def fault_of(kind: JournalFaultKind, path: Path, error: OSError) -> JournalFault:
    kind = JournalFaultKind.NO_SPACE if error.errno in _NO_SPACE else kind
    return JournalFault(kind, f"{path}: {error.strerror}")


def _longest(payloads: Sequence[bytes]) -> int:
    return max(map(len, payloads), default=0)


def _create_unfinished(folder: Path, now_ns: int) -> tuple[int, int]:
    """A new, locked file under its unfinished name: (descriptor, sequence).

    Whoever has made the unfinished name and then finds no finished one has the number for himself: another writer
    either still holds that unfinished name, or has renamed it and so shows the finished one.
    """
    for sequence in range(now_ns, now_ns + SEQUENCE_TRIES_MAX):
        unfinished = folder / f"{sequence:020d}{_UNFINISHED}"
        try:
            fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            is_swept = os.fstat(fd).st_nlink == 0  # before it was locked it looked like a dead writer's
            if not is_swept and not (folder / f"{sequence:020d}.journal").exists():
                return fd, sequence
            if not is_swept:
                unfinished.unlink()
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
    raise FileExistsError(errno.EEXIST, f"no free file name in {SEQUENCE_TRIES_MAX} tries", str(folder))


def _sweep(unfinished: Path) -> None:
    """Removes a file that a dead writer never finished; under the lock, so that no living one has just taken it."""
    with suppress(FileNotFoundError):
        fd = os.open(unfinished, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if try_shared_lock(fd):
                unfinished.unlink()
        finally:
            os.close(fd)


def folder_octets(folder: Path) -> int:
    """What the folder's files take of the disk; a folder that cannot be read shows at the next open."""
    octets = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                octets += entry.stat().st_blocks * _BLOCK_OCTETS
    return octets


def try_shared_lock(fd: int) -> bool:
    """Whether nobody holds the file exclusively. What is taken here goes when the descriptor is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_unlocked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return try_shared_lock(fd)
    finally:
        os.close(fd)
