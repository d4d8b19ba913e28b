"""The recorder's second task: once a second, what the workers saw of the NASes goes to PostgreSQL (flows/observing.py).

Only what changed since the last time is stored. A drop log's file goes when PostgreSQL has its last state.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import drops as db_drops
from sms_aaa.db import evidence as db_evidence
from sms_aaa.db.engine import Poison
from sms_aaa.flows.observing import store_drops, store_evidence, store_signers
from sms_aaa.node.drops import WINDOW_SECONDS, delete_window, list_windows, read_window
from sms_aaa.node.nas_rows import NasTotals, add_up
from sms_aaa.node.signers import read_signers

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.server.worker import Child

INTERVAL_SECONDS = 1.0
FINISHED_SECONDS = 2 * WINDOW_SECONDS
"""A window this old is written no more, even by a worker whose clock was a little behind."""


class Observer:
    """One node's."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._node = child.settings.node.name
        self._run = child.board.created_ns
        self._slots = [child.board.slot(at).counters for at in range(child.board.slot_count)]
        self._stored: dict[int, NasTotals] = {}
        self._windows: dict[tuple[int, str], int] = {}
        self._signers: dict[int, int] = {}
        self._due = 0.0

    def begin(self, connection: Connection) -> None:
        """With a new connection: nothing is known of what it has."""
        self._stored, self._windows, self._signers = {}, {}, {}
        db_evidence.fold_runs(connection, self._node, self._run)
        connection.commit()

    def store(self, connection: Connection, database_id: bytes) -> None:
        """If it is time. Commits."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + INTERVAL_SECONDS
        totals = [one for one in add_up(self._slots) if self._stored.get(one.nas_id) != one]
        if totals:
            store_evidence(connection, totals, node=self._node, run=self._run)
            connection.commit()
            self._stored |= {one.nas_id: one for one in totals}
        signers = read_signers(self._child.state_folder, database_id)
        if signers != self._signers:
            store_signers(connection, signers)
            connection.commit()
            self._signers = signers
        for key in list_windows(self._child.state_folder):
            self._store_window(connection, key, database_id.hex())

    def clean(self, connection: Connection) -> None:
        """Drops whose retention is over go."""
        keep = timedelta(days=self._child.settings.decisions.drops_retention_days)
        db_drops.delete_drops_before(connection, datetime.now(UTC) - keep)
        connection.commit()

    def _store_window(self, connection: Connection, key: tuple[int, str], database_id: str) -> None:
        """A file of another database, or one that PostgreSQL refuses, is of no use to anybody."""
        root = self._child.state_folder
        window = read_window(root, *key)
        is_finished = time.time() - key[0] > FINISHED_SECONDS
        if window is not None and window.database_id == database_id:
            packets = sum(drop.packets for drop in window.drops)
            if self._windows.get(key) != packets:
                try:
                    store_drops(connection, window, node=self._node)
                    connection.commit()
                except Poison as refused:
                    connection.rollback()
                    self._child.log.warning("drops-refused", window=key[0], kind=type(refused).__name__)
                self._windows[key] = packets
        if is_finished:
            delete_window(root, *key)
            self._windows.pop(key, None)
