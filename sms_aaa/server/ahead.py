"""The next records of a journal, read and understood while PostgreSQL works on those before them.

Nothing is decided here. What a stretch of a file says depends on its octets alone, which never change (J1), and no
further is read than is synced (J4). Who takes a stretch names the offset that it wants: where a batch was refused,
halved or fenced, the position says what is wanted, and what was read from elsewhere is dropped. A position moves with
the commit of its rows and not for anything that is held here (J7).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from sms_aaa.node.journal_reader import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sms_aaa.node.frames import Damage, Record
    from sms_aaa.node.journal_reader import JournalFile

SLICE_RECORDS = 32
"""Understood at a time, in less than half a millisecond: the server's answer waits no longer."""

READ_OCTETS = 65_536
LOOK_SECONDS = 0.004
"""From one look for more records in a file that has none to the next."""

Ready = TypeVar("Ready")


@dataclass(frozen=True, slots=True)
class Portion(Generic[Ready]):
    """A batch, and what each of its records says, in the same order."""

    batch: Batch
    ready: list[Ready]

    def joined(self, other: Portion[Ready]) -> Portion[Ready]:
        """With what follows it in the file."""
        mine, more = self.batch, other.batch
        records, damaged = [*mine.records, *more.records], [*mine.damaged, *more.damaged]
        return Portion(Batch(records, damaged, more.next_offset, at_end=more.at_end), [*self.ready, *other.ready])

    def halves(self) -> tuple[Portion[Ready], Portion[Ready]]:
        """Of at least two records."""
        batch, half = self.batch, len(self.ready) // 2
        cut = batch.records[half].offset
        before = [damage for damage in batch.damaged if damage.offset < cut]
        after = [damage for damage in batch.damaged if damage.offset >= cut]
        first = Batch(batch.records[:half], before, cut, at_end=False)
        second = Batch(batch.records[half:], after, batch.next_offset, at_end=batch.at_end)
        return Portion(first, self.ready[:half]), Portion(second, self.ready[half:])

    def without_records(self) -> Portion[Ready]:
        batch = self.batch
        return Portion(Batch([], batch.damaged, batch.next_offset, at_end=batch.at_end), [])


@dataclass(slots=True)
class _Stretch(Generic[Ready]):
    """What is held of a file: its records from `start` up to `end`, the first of them understood."""

    file: JournalFile
    start: int
    end: int
    records: list[Record] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    ready: list[Ready] = field(default_factory=list)
    look_at: float = 0.0


class Ahead(Generic[Ready]):
    """Of each file that is being settled one stretch, of `records_max` records at most.

    `read(file, offset, records_max)` gives a few records, None when there is nothing that can be read;
    `prepare(sequence, records)` what they say.
    """

    def __init__(
        self,
        read: Callable[[JournalFile, int, int], Batch | None],
        prepare: Callable[[int, Sequence[Record]], list[Ready]],
        *,
        records_max: int,
    ) -> None:
        self._read = read
        self._prepare = prepare
        self._records_max = records_max
        self._stretches: dict[int, _Stretch[Ready]] = {}

    def aim(self, file: JournalFile, offset: int) -> None:
        """What comes from `offset` on is wanted next of this file."""
        self._stretches[file.sequence] = _Stretch(file, offset, offset)

    def take(self, sequence: int, offset: int) -> Portion[Ready] | None:
        """What of the file is understood from `offset` on; nothing of it is held any more."""
        stretch = self._stretches.pop(sequence, None)
        if stretch is None or stretch.start != offset or stretch.end == offset:
            return None
        left = stretch.records[len(stretch.ready) :]
        ready = [*stretch.ready, *self._prepare(sequence, left)] if left else stretch.ready
        return Portion(Batch(stretch.records, stretch.damaged, stretch.end, at_end=False), ready)

    def clear(self) -> None:
        self._stretches.clear()

    def work(self) -> bool:
        """A little of it; False when nothing is to be done now."""
        for stretch in self._stretches.values():  # noqa: SIM110 - any() would make a generator each time
            if self._work_at(stretch):
                return True
        return False

    def _work_at(self, stretch: _Stretch[Ready]) -> bool:
        done = len(stretch.ready)
        if done < len(stretch.records):
            some = stretch.records[done : done + SLICE_RECORDS]
            stretch.ready += self._prepare(stretch.file.sequence, some)
            return True
        if done >= self._records_max or (now := time.monotonic()) < stretch.look_at:
            return False
        batch = self._read(stretch.file, stretch.end, self._records_max - done)
        if batch is None or batch.next_offset <= stretch.end:
            stretch.look_at = now + LOOK_SECONDS
            return False
        stretch.records += batch.records
        stretch.damaged += batch.damaged
        stretch.end = batch.next_offset
        return True
