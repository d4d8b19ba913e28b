"""What was dropped in silence, by source and fault: PostgreSQL's windows and those that this node's files still have.

While PostgreSQL is away the files, and the names in the node's replica, answer alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from sms_aaa.db import drops as db_drops
from sms_aaa.db import nas as db_nas
from sms_aaa.db.drops import DropTotal
from sms_aaa.node.drops import list_windows, read_window
from sms_aaa.node.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.drops import DropWindow

Source = tuple[str, int | None, str]
"""(address, NAS, fault)."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """`nas` None: nobody's address. `total.address` "": sources that a window had no room to name."""

    nas: str | None
    total: DropTotal


def list_drops(
    connection: Connection | None,
    root: Path,
    *,
    node: str,
    since: datetime,
    nas: str | None = None,
    network: IPv4Network | IPv6Network | None = None,
) -> list[Dropped]:
    """The latest first. `root`: this node's state folder; `nas`, `network`: of this NAS, from these addresses alone."""
    windows = [window for key in list_windows(root) if (window := read_window(root, *key)) is not None]
    totals = [total for window in windows for total in _totals(window, since)]
    if connection is not None:
        known = [(window.began_at, window.worker) for window in windows]
        totals += db_drops.total_drops(connection, since=since, node=node, without=known)
        names = db_nas.list_nas_names(connection)
    else:
        names = _names_of_replica(root)
    found = [
        Dropped(names.get(total.nas_id, f"NAS {total.nas_id}") if total.nas_id is not None else None, total)
        for total in _add_up(totals)
        if network is None or (total.address and ip_address(total.address) in network)
    ]
    return [one for one in found if nas is None or one.nas == nas]


def _totals(window: DropWindow, since: datetime) -> list[DropTotal]:
    return [
        DropTotal(
            drop.address,
            drop.nas_id or None,
            drop.fault,
            drop.packets,
            datetime.fromtimestamp(drop.first_ns / 1e9, UTC),
            datetime.fromtimestamp(drop.last_ns / 1e9, UTC),
            drop.last_port,
        )
        for drop in window.drops
        if drop.last_ns / 1e9 >= since.timestamp()
    ]


def _add_up(totals: Iterable[DropTotal]) -> list[DropTotal]:
    found: dict[Source, DropTotal] = {}
    for one in totals:
        key = (one.address, one.nas_id, one.fault)
        other = found.get(key)
        if other is not None:
            latest = max(one, other, key=lambda total: total.last_at)
            first_at = min(one.first_at, other.first_at)
            packets = one.packets + other.packets
            one = DropTotal(*key, packets, first_at, latest.last_at, latest.last_port)  # noqa: PLW2901 - the sum so far
        found[key] = one
    return sorted(found.values(), key=lambda total: total.last_at, reverse=True)


def _names_of_replica(root: Path) -> dict[int, str]:
    replica = Replica.open(root)
    if not isinstance(replica, Replica):
        return {}
    try:
        nases = replica.nas_list()
    finally:
        replica.close()
    return {nas.nas_id: nas.name for nas in nases} if isinstance(nases, list) else {}
