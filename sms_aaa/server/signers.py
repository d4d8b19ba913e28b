"""Which NASes sign their logins: of those the policy `auto` requires it from then on, over restarts and everywhere.

The worker that sees the first signed login knows at once; the others by the board, the next start by the node's file,
the other nodes by PostgreSQL and their replica. An operator who sets `auto` again begins a new observation: what was
seen before it counts no more, wherever it is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.node.nas_rows import LAST_ROW, NasWord, list_proven
from sms_aaa.node.signers import read_signers, write_signers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sms_aaa.flows.tables import Nas


class Signers:
    """One worker's. `ids`: the NASes that are known to sign."""

    __slots__ = ("_counters", "_database_id", "_name", "_observed_from", "_root", "_since", "_written", "fault", "ids")

    def __init__(self, counters: memoryview, root: Path, *, name: str, database_id: bytes) -> None:
        self._counters = counters
        self._root = root
        self._name = name
        self._database_id = database_id
        self._since = read_signers(root, database_id)
        self._written = dict(self._since)
        self._observed_from: dict[int, int] = {}
        self.ids: set[int] = set()
        self.fault: str | None = None
        """Why the file could not be written; it is tried again."""

    def use(self, nases: Iterable[Nas]) -> None:
        """The tables are new ones: NASes came or went, or are observed anew."""
        nases = list(nases)
        self._observed_from = {nas.nas_id: nas.observed_from for nas in nases}
        known = {nas.nas_id: max(self._since.get(nas.nas_id, 0), nas.signs_since) for nas in nases}
        self._since, self.ids = {}, set()
        self._add(known)
        for nas in nases:
            if nas.nas_id in self.ids and nas.row != LAST_ROW:
                self._counters[nas.row + NasWord.PROVEN] = self._since[nas.nas_id]

    def learn(self, nas: Nas, now: int) -> None:
        """The first signed login. `now`: epoch seconds, by a clock that may be behind the database's."""
        at = max(now, nas.observed_from)
        self._since[nas.nas_id] = at
        self.ids.add(nas.nas_id)
        if nas.row != LAST_ROW:
            self._counters[nas.row + NasWord.PROVEN] = at

    def keep(self, others: Sequence[memoryview]) -> None:
        """Learns from the slots of the other workers, and writes the file if there is news. Between batches."""
        self._add(list_proven(others))
        if self._since != self._written:
            self.fault = write_signers(self._root, self._name, self._database_id, self._since)
            if self.fault is None:
                self._written = dict(self._since)

    def _add(self, known: dict[int, int]) -> None:
        """Of NASes that there are, and of this observation."""
        for nas_id, at in known.items():
            observed_from = self._observed_from.get(nas_id)
            if observed_from is not None and at and at >= observed_from and nas_id not in self.ids:
                self._since[nas_id] = at
                self.ids.add(nas_id)
