"""What the workers saw of the NASes, from the node into PostgreSQL: evidence from the board, drops from their files.

Both are totals that only grow, and they are stored as they stand: doing it twice, or again after a crash, changes
nothing. None of it is needed to answer anybody, except that a NAS signs its logins, which the nodes tell each other
this way.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sms_aaa.db import drops as db_drops
from sms_aaa.db import evidence as db_evidence
from sms_aaa.db.drops import DropRow
from sms_aaa.db.evidence import EvidenceRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.drops import DropWindow
    from sms_aaa.node.nas_rows import NasTotals


def store_evidence(connection: Connection, totals: Sequence[NasTotals], *, node: str, run: int) -> None:
    """The totals of this run of the node's server (`run`: when its board was made, in nanoseconds)."""
    db_evidence.upsert_evidence(connection, [_evidence_row(one, node, run) for one in totals])


def store_signers(connection: Connection, signs_since: Mapping[int, int]) -> None:
    """Since when NASes sign their logins, by id, in epoch seconds: by the replica every node knows it then."""
    for nas_id, at in signs_since.items():
        db_evidence.mark_signing(connection, nas_id, at=at)


def store_drops(connection: Connection, window: DropWindow, *, node: str) -> None:
    rows = [
        DropRow(
            node=node,
            worker=window.worker,
            window_at=datetime.fromtimestamp(window.began_at, UTC),
            address=drop.address,
            fault=drop.fault,
            nas_id=drop.nas_id or None,
            packets=drop.packets,
            first_at=_instant(drop.first_ns),
            last_at=_instant(drop.last_ns),
            last_port=drop.last_port,
        )
        for drop in window.drops
    ]
    db_drops.upsert_drops(connection, rows)


def _evidence_row(one: NasTotals, node: str, run: int) -> EvidenceRow:
    return EvidenceRow(
        nas_id=one.nas_id,
        node=node,
        run=run,
        observed_from=one.observed_from,
        signed=one.signed,
        unsigned=one.unsigned,
        last_unsigned_at=_instant(one.last_unsigned_ns) if one.last_unsigned_ns else None,
        last_unsigned_port=one.last_unsigned_port if one.last_unsigned_ns else None,
        secret_id=one.rotation,
        old_secret=one.old_secret,
        new_secret=one.new_secret,
        last_old_at=_instant(one.last_old_ns) if one.last_old_ns else None,
        last_new_at=_instant(one.last_new_ns) if one.last_new_ns else None,
    )


def _instant(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns / 1e9, UTC)
