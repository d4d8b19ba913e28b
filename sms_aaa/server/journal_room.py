"""The accounting journal's room on its disk: measured once a second by the settler, and made before it is short.

Files that are settled stay for journal.retention_days, so that they can be replayed. When there is less than a tenth of
the room to go, under journal.accounting_octets_max or on the disk itself, the oldest of them go earlier, but none
before journal.retention_hours_min (J9), nor while a session that it tells of may be online and silent, since without
PostgreSQL the live set is rebuilt from them (places.py); and never one that is not settled. When that does not help,
the worker meets the bound or the full disk, and accounting is not answered (accounting.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sms_aaa.metrics import Word
from sms_aaa.node.journal import Stream
from sms_aaa.node.journal_room import measure_room

if TYPE_CHECKING:
    from sms_aaa.server.stream import StreamSettler
    from sms_aaa.server.worker import Child

LOOK_SECONDS = 1.0
SAY_AGAIN_SECONDS = 600.0


class JournalRoom:
    """The settler's; PostgreSQL may be away."""

    def __init__(self, child: Child, stream: StreamSettler[Any, Any]) -> None:
        self._child = child
        self._stream = stream
        self._folder = child.journal_folder(Stream.ACCOUNTING)
        self._settings = child.settings.journal
        self.silence_seconds = 0
        """How long a session may be silent; set anew with each look at the plans."""

        self._due = 0.0
        self._said_at = float("-inf")

    def keep(self, now: float) -> None:
        """`now`: seconds of a steady clock."""
        if now < self._due:
            return
        self._due = now + LOOK_SECONDS
        room = measure_room(self._folder, self._settings.accounting_octets_max)
        if room is None:
            return
        counters = self._child.counters
        counters[Word.JOURNAL_OCTETS], counters[Word.JOURNAL_ROOM_OCTETS] = room.taken, room.left
        if not room.wanted:
            return
        kept_seconds = max(self._settings.retention_hours_min * 3600, self.silence_seconds)
        deleted = self._stream.make_room(room.wanted, older_than_seconds=kept_seconds)
        counters[Word.JOURNAL_EARLY] += deleted
        if now - self._said_at > SAY_AGAIN_SECONDS:
            self._said_at = now
            self._child.log.warning(
                "journal-room-short", taken_octets=room.taken, left_octets=room.left, settled_files_deleted=deleted
            )
