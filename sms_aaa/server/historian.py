"""What the settler does for the history beside settling: moves ended sessions there, keeps the partitions.

It shares the settler's connection and its time, so it is paced: after a batch it rests many times as long as that took,
and settling goes on between. All nodes run it; advisory locks leave one of them at the work.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sms_aaa.db import partitions as db_partitions
from sms_aaa.flows.history import move_ended
from sms_aaa.flows.retention import Gone, Needed, drop_next

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.server.worker import Child

BATCH_MAX = 500
REST_FACTOR = 15
"""So many times as long as a batch took, nothing is moved: a sixteenth of the settler's time at most."""

IDLE_SECONDS = 60.0


class Historian:
    def __init__(self, child: Child) -> None:
        self._settings = child.settings.history
        self._log = child.log
        self._due = 0.0
        self._said: set[Needed] = set()

    def tend(self, connection: Connection) -> None:
        """Moves a batch of sessions, if it is time for one; commits."""
        begun = time.monotonic()
        if begun < self._due:
            return
        moved = move_ended(connection, now=datetime.now(UTC), grace_days=self._settings.grace_days, limit=BATCH_MAX)
        connection.commit()
        took = time.monotonic() - begun
        self._due = begun + took + (REST_FACTOR * took if moved == BATCH_MAX else IDLE_SECONDS)

    def keep_partitions(self, connection: Connection) -> None:
        """Those of the next months are made, those past their retention go; commits each, so that nobody waits long."""
        now = datetime.now(UTC)
        db_partitions.create_ahead(connection, now)
        connection.commit()
        for name in db_partitions.sweep(connection, now):
            self._log.info("partition-made", partition=name, reason="rows of its month had come")
        connection.commit()
        while isinstance(gone := drop_next(connection, now=now, keep=self._settings), Gone):
            connection.commit()
            self._log.info("month-dropped", table=gone.table, month=gone.month.suffix(), reason="past its retention")
        connection.commit()
        for needed in gone:
            if needed not in self._said:
                self._said.add(needed)
                month = needed.month.suffix()
                self._log.warning("month-kept", table=needed.table, month=month, reason=needed.reason)
