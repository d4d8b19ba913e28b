"""How much the journal takes of its disk, how much more it may, and when that is little."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.node.journal import folder_octets

if TYPE_CHECKING:
    from pathlib import Path

SHORT_SHARE = 0.1
"""Of what the journal may take in all: with less to go, room is to be made."""


@dataclass(frozen=True, slots=True)
class Room:
    """Octets: what the stream's files take, and how much more they may until accounting is not answered."""

    taken: int
    left: int

    @property
    def wanted(self) -> int:
        """How many octets of settled files would have to go so that room is not short; 0: it is not."""
        return max(0, int((self.taken + self.left) * SHORT_SHARE) - self.left)


def measure_room(folder: Path, octets_max: int) -> Room | None:
    """`octets_max`: what the folder may take, 0 for what its disk has; None when the folder cannot be looked at.

    Without a bound everything that is free on the disk counts as the journal's. With one, the less of both.
    """
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    taken = folder_octets(folder)
    free = disk.f_bavail * disk.f_frsize
    return Room(taken, min(free, max(0, octets_max - taken)) if octets_max else free)
