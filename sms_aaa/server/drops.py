"""The drop log of one worker: from where came what was dropped in silence, and why.

The packet's way only adds up in memory; once a second, between batches, what changed goes to the window's file
(node/drops.py). A source is an address that anybody may have made up, so each window names at most KNOWN_MAX sources
that are NASes' addresses and STRANGERS_MAX that are not; what finds no room is counted together, by fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.node.drops import WINDOW_SECONDS, Drop, DropWindow, delete_too_many, write_window

if TYPE_CHECKING:
    from pathlib import Path

    from sms_aaa.radius.faults import PacketFault

KNOWN_MAX = 1_024
STRANGERS_MAX = 256


class DropLog:
    """`name` is the worker's."""

    __slots__ = ("_began_at", "_changed", "_database_id", "_drops", "_name", "_room", "_root", "fault")

    def __init__(self, root: Path, *, name: str, database_id: bytes) -> None:
        self._root = root
        self._name = name
        self._database_id = database_id.hex()
        self._drops: dict[tuple[str, str], Drop] = {}
        self._began_at = 0
        self._changed = False
        self._room = [STRANGERS_MAX, KNOWN_MAX]
        self.fault: str | None = None
        """Why the file could not be written; it is tried again."""

    def note(self, source: tuple[str, int], fault: PacketFault, nas_id: int, now_ns: int) -> None:
        """A datagram from (address, port) was dropped. `nas_id` 0: the address is nobody's."""
        address, port = source
        drop = self._drops.get((address, fault.label))
        if drop is None:
            drop = self._begin(address, fault.label, nas_id, now_ns)
        drop.packets += 1
        drop.last_ns = now_ns
        drop.last_port = port
        self._changed = True

    def keep(self, now_ns: int) -> None:
        """Writes what changed; once a second, between batches. A window that is over makes room for the next."""
        if self._changed:
            window = DropWindow(self._database_id, self._name, self._began_at, list(self._drops.values()))
            self.fault = write_window(self._root, window)
            self._changed = self.fault is not None
        if self._drops and not 0 <= now_ns // 1_000_000_000 - self._began_at < WINDOW_SECONDS:
            self._drops = {}
            self._changed = False
            self._room = [STRANGERS_MAX, KNOWN_MAX]
            delete_too_many(self._root)

    def _begin(self, address: str, fault: str, nas_id: int, now_ns: int) -> Drop:
        if not self._drops:
            self._began_at = now_ns // 1_000_000_000
        is_known = nas_id != 0
        if self._room[is_known] <= 0:
            address, nas_id = "", 0
            if (found := self._drops.get((address, fault))) is not None:
                return found
        self._room[is_known] -= 1
        drop = self._drops[address, fault] = Drop(address, fault, nas_id, 0, now_ns, now_ns, 0)
        return drop
