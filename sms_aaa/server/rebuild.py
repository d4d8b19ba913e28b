"""Filling a new generation of the replica in a thread of the replicator, which follows the old one meanwhile.

The thread has a connection of its own, whose snapshot stays until it has read everything, and is the last in the queue
for the processor: logins come first.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from sms_aaa.db.engine import Unavailable, begin_snapshot, connect
from sms_aaa.db.feed import get_database_id
from sms_aaa.db.schema import KNOWN_REVISIONS
from sms_aaa.flows.replicating import fill
from sms_aaa.node.replica import ReplicaFault
from sms_aaa.node.replica_filler import ReplicaFiller

if TYPE_CHECKING:
    from pathlib import Path

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.replica_writer import ReplicaWriter

NICE = 10
ABANDON_SECONDS_MAX = 5.0


class _AbandonedError(Exception):
    """Nobody waits for the generation any more."""


class Rebuild:
    """One new generation: `done` of `of` services are in it. When it is over, `writer` has it or `problem` says why."""

    def __init__(self, root: Path, dsn: str, *, name: str) -> None:
        self.began = time.monotonic()
        self.done = 0
        self.of = 0
        self.writer: ReplicaWriter | None = None
        self.problem = "a bug: see the log"
        self._root = root
        self._dsn = dsn
        self._name = name
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="fill", daemon=True)
        self._thread.start()

    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """What is there of it is removed by the next rebuild."""
        self._abandoned = True
        self._thread.join(ABANDON_SECONDS_MAX)

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)  # Linux: of this thread alone
        try:
            with connect(self._dsn, name=f"{self._name} fill") as connection:
                filled = self._fill(connection)
        except Unavailable as away:
            self.problem = str(away).strip().partition("\n")[0]
        except _AbandonedError:
            self.problem = "abandoned"
        else:
            if isinstance(filled, ReplicaFault):
                self.problem = filled.detail
            else:
                self.writer = filled

    def _fill(self, connection: Connection) -> ReplicaWriter | ReplicaFault:
        begin_snapshot(connection)
        filler = ReplicaFiller.begin(
            self._root, database_id=get_database_id(connection), schema_version=int(KNOWN_REVISIONS[-1])
        )
        if isinstance(filler, ReplicaFault):
            return filler
        filled = None
        try:
            filled = fill(connection, filler, now_ns=time.time_ns(), progress=self._progress)
        finally:
            if filled is None or isinstance(filled, ReplicaFault):
                filler.discard()
        return filled

    def _progress(self, done: int, of: int) -> None:
        if self._abandoned:
            raise _AbandonedError
        self.done, self.of = done, of
