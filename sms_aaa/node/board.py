"""The board: one mmap that the supervisor owns, with one slot for each worker process.

A slot carries what others must see of a worker without asking it: its pid and heartbeat, its counters (plain words
that a collector exports), and how far its journal is on disk. Every word is 8 octets, aligned, and has one writer,
so that each store is seen whole. What a counter means is declared in metrics.py; here it is a number.

How far a journal is synced is a pair (file sequence, offset), and a pair cannot be stored at once. A reader must
never take the offset of an old file for a new one: it would read records that are not on disk yet, and settle what a
power cut then takes back (J4). So the writer stores offset 0, then the sequence, then the offset; and a third word,
sequence xor offset, ties the two together. A reader takes a pair only if the third word fits, whatever order the
processor shows the stores in. A writer that died between two stores leaves a pair that never fits: it then counts as
nothing, and its file, which no longer has a living writer, is read to its end.

The file belongs to one run of the supervisor: `create` replaces it, and a worker of an earlier run keeps the old
one, since truncating a file under somebody's mmap would kill him.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SLOT_COUNT_MAX = 64
STREAM_COUNT_MAX = 4
COUNTERS_PER_SLOT = 83_456  # with a row each for 4,096 NASes: node/nas_rows.py
FORMAT_VERSION = 2

_MAGIC = b"SMSAAABD"
_HEADER = struct.Struct("=8sIIQ")  # magic, version, slot count, created
_PAGE_OCTETS = 4096
_WORD_OCTETS = 8
_SLOT_OCTETS = _PAGE_OCTETS + _WORD_OCTETS * COUNTERS_PER_SLOT

_PID, _STARTED, _HEARTBEAT = range(3)
_STREAMS = 8  # the words before it are the slot's own; then three for each stream
_WORDS_PER_STREAM = 3
_LOOKS_MAX = 100  # a writer is between its stores for less than a microsecond, unless it was interrupted there


class BoardFaultKind(Enum):
    MISSING = "missing"
    FORMAT = "format"
    IO = "io"


@dataclass(frozen=True, slots=True)
class BoardFault:
    """Why there is no board to be had. `detail` names the file and the remedy."""

    kind: BoardFaultKind
    detail: str


class Slot:
    """One worker's part of the board. Only that worker writes it, from one thread; anybody reads it."""

    __slots__ = ("_words", "counters")

    def __init__(self, octets: memoryview) -> None:
        self._words = octets[:_PAGE_OCTETS].cast("Q")
        self.counters: memoryview = octets[_PAGE_OCTETS:].cast("Q")

    @property
    def pid(self) -> int:
        """0: no worker ever had this slot."""
        return int(self._words[_PID])

    @property
    def started_ns(self) -> int:
        return int(self._words[_STARTED])

    @property
    def heartbeat_ns(self) -> int:
        return int(self._words[_HEARTBEAT])

    def claim(self, pid: int, now_ns: int) -> None:
        """A worker begins. The counters go on from its predecessor's: for Prometheus they only ever rise."""
        for stream in range(1, STREAM_COUNT_MAX + 1):
            self.publish(stream, 0, 0)
        self._words[_STARTED] = now_ns
        self._words[_HEARTBEAT] = now_ns
        self._words[_PID] = pid

    def beat(self, now_ns: int) -> None:
        self._words[_HEARTBEAT] = now_ns

    def publish(self, stream: int, sequence: int, offset: int) -> None:
        """Says that file `sequence` of `stream` may be read up to `offset`. To be called after the sync (J4)."""
        words, first = self._words, _STREAMS + _WORDS_PER_STREAM * (stream - 1)
        if words[first] != sequence:
            words[first + 1] = 0
            words[first] = sequence
        words[first + 1] = offset
        words[first + 2] = sequence ^ offset

    def published(self, stream: int) -> tuple[int, int]:
        """(sequence, offset) of the worker's file; (0, 0) when it has none or is just changing it: look again later."""
        words, first = self._words, _STREAMS + _WORDS_PER_STREAM * (stream - 1)
        for _ in range(_LOOKS_MAX):
            sequence, offset, tie = words[first : first + _WORDS_PER_STREAM]
            if sequence ^ offset == tie:
                return int(sequence), int(offset)
        return 0, 0

    def release(self) -> None:
        """Gives the memory back; the slot is of no use afterwards."""
        self._words.release()
        self.counters.release()


class Board:
    """All slots. Close it when done; the slots go with it."""

    def __init__(self, mapped: mmap.mmap, *, slot_count: int, created_ns: int) -> None:
        self.slot_count = slot_count
        self.created_ns = created_ns
        self._mapped = mapped
        with memoryview(mapped) as octets:
            self._slots = tuple(
                Slot(octets[start : start + _SLOT_OCTETS])
                for start in range(_PAGE_OCTETS, _file_octets(slot_count), _SLOT_OCTETS)
            )

    @classmethod
    def create(cls, path: Path, *, slots: int, now_ns: int) -> Board | BoardFault:
        """A new board with every word 0, in the place of an older one. For the supervisor, once a start."""
        assert 1 <= slots <= SLOT_COUNT_MAX
        unfinished = path.with_suffix(".new")
        try:
            fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                # Allocated, not sparse: a store into a hole of a full disk would kill the worker.
                os.posix_fallocate(fd, 0, _file_octets(slots))
                os.pwrite(fd, _HEADER.pack(_MAGIC, FORMAT_VERSION, slots, now_ns), 0)
                mapped = mmap.mmap(fd, _file_octets(slots))
            finally:
                os.close(fd)
            unfinished.rename(path)
        except OSError as error:
            return BoardFault(BoardFaultKind.IO, f"{path}: cannot be created: {error.strerror}; mend the state folder")
        return cls(mapped, slot_count=slots, created_ns=now_ns)

    @classmethod
    def open(cls, path: Path) -> Board | BoardFault:
        """The board that the running supervisor made."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return BoardFault(BoardFaultKind.MISSING, f"{path}: there is no board; is `serve` running?")
        except OSError as error:
            return BoardFault(BoardFaultKind.IO, f"{path}: cannot be opened: {error.strerror}")
        try:
            header = os.pread(fd, _HEADER.size, 0).ljust(_HEADER.size, b"\0")
            magic, version, slots, created_ns = _HEADER.unpack(header)
            if (magic, version) != (_MAGIC, FORMAT_VERSION) or os.fstat(fd).st_size != _file_octets(slots):
                return BoardFault(BoardFaultKind.FORMAT, f"{path}: not a board of this version; restart `serve`")
            return cls(mmap.mmap(fd, _file_octets(slots)), slot_count=slots, created_ns=created_ns)
        except OSError as error:
            return BoardFault(BoardFaultKind.IO, f"{path}: cannot be mapped: {error.strerror}")
        finally:
            os.close(fd)

    def slot(self, index: int) -> Slot:
        """`index` from 0 below slot_count."""
        return self._slots[index]

    def synced_offset(self, stream: int, sequence: int) -> int:
        """How far the file may be read: the offset that its writer published, 0 when no slot names the file."""
        for slot in self._slots:
            published, offset = slot.published(stream)
            if published == sequence:
                return offset
        return 0

    def close(self) -> None:
        for slot in self._slots:
            slot.release()
        self._mapped.close()


def _file_octets(slots: int) -> int:
    return _PAGE_OCTETS + slots * _SLOT_OCTETS
