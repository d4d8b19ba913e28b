"""What the settler does for the history beside settling: moves ended sessions there, keeps the partitions.

It shares the settler's connection and its time, so it is paced: after a batch it rests many times as long as that took,
and settling goes on between. All nodes run it; of the moving, an advisory lock leaves one at it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sms_aaa.flows.history import move_ended

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
        self._due = 0.0

    def tend(self, connection: Connection) -> None:
        """A batch, if it is time for one; commits."""
        begun = time.monotonic()
        if begun < self._due:
            return
        moved = move_ended(connection, now=datetime.now(UTC), grace_days=self._settings.grace_days, limit=BATCH_MAX)
        connection.commit()
        took = time.monotonic() - begun
        self._due = begun + took + (REST_FACTOR * took if moved == BATCH_MAX else IDLE_SECONDS)
