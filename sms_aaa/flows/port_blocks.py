"""What records tell of ports behind a NAT: put to their sessions in the order of the records' times."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from sms_aaa.db import port_blocks as db_port_blocks
from sms_aaa.db.port_blocks import ToldBlock
from sms_aaa.radius.port_blocks import read_port_blocks
from sms_aaa.rules.session import TOLERANCE

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.sessions import StoredSession
    from sms_aaa.radius.packet import Packet
    from sms_aaa.rules.session import Reading


@dataclass(slots=True)
class PortTale:
    """What the records of a batch tell."""

    told: list[tuple[ToldBlock, bool]] = field(default_factory=list)
    """Each with whether it is free again."""
    since: datetime | None = None
    """When the earliest of the sessions began."""

    def hear(self, packet: Packet, session: StoredSession, reading: Reading) -> bool:
        """False when some of it could not be read."""
        blocks, faults = read_port_blocks(packet)
        for block in blocks:
            ports = (block.address, block.port_from, block.port_to, block.protocol)
            self.told.append((ToldBlock(session.id, *ports, reading.at, reading.place), block.is_free))
        began = min(session.life.started_at, reading.at)
        self.since = began if self.since is None else min(self.since, began)
        return not faults

    def store(self, connection: Connection) -> None:
        """Given and taken back take turns, as they were told."""
        if not self.told or self.since is None:
            return
        in_order = sorted(self.told, key=lambda one: (one[0].at, one[1]))
        for is_free, group in groupby(in_order, key=lambda one: one[1]):
            store = db_port_blocks.free_blocks if is_free else db_port_blocks.give_blocks
            store(connection, [block for block, _ in group], since=self.since - TOLERANCE)
